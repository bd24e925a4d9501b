"""The predicates: what a signed statement can say. Each has a page of the same name in `docs/predicates/`.

Every field is checked, and fields that are not known are refused: a predicate is never half understood. What does not
fit is `Malformed`, whether it was read from bytes or built from a person's input.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PlainSerializer,
    StringConstraints,
    ValidationError,
    model_validator,
)

from orchestrator.trust.errors import Malformed, TrustError
from orchestrator.trust.keys import PublicKey

PREDICATE_BASE = "https://sluice.example/predicates/"


def _utc_seconds(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("an instant needs a time zone")
    return value.astimezone(UTC).replace(microsecond=0)


def _visible(text: str) -> str:
    bad = next((letter for letter in text if not letter.isprintable() and letter not in "\n\t"), None)
    if bad is not None:
        raise ValueError(f"contains the control or invisible character U+{ord(bad):04X}")
    return text


def _no_newline(text: str) -> str:
    if "\n" in text or "\t" in text:
        raise ValueError("must be one line without tabs")
    return _visible(text)


def _public_key(text: str) -> str:
    try:
        key = PublicKey.parse(text)
    except TrustError as error:
        raise ValueError(str(error)) from None
    if key.text() != text:
        raise ValueError("a key in a statement is written in its OpenSSH form, without a comment")
    return text


def write_instant(value: datetime) -> str:
    """UTC, whole seconds, `Z`: the one spelling of an instant in statements."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Instant = Annotated[datetime, AfterValidator(_utc_seconds), PlainSerializer(write_instant, return_type=str)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}\z")]
Line = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_no_newline)]
Comment = Annotated[str, StringConstraints(max_length=4000), AfterValidator(_visible)]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}\z")]
Hex256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}\z")]
Nonce = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}\z")]
StageName = Literal["closed", "hosted", "api", "downloadable", "open"]
KeyText = Annotated[str, AfterValidator(_public_key)]


def new_nonce() -> str:
    """128 random bits in hex."""
    return secrets.token_hex(16)


class StrictModel(BaseModel):
    """An immutable value that refuses fields it does not know, and says `Malformed` instead of a `ValueError`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_in_our_words(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            path = ".".join(str(part)[:80] for part in first["loc"])
            told = f"{path}: {first['msg']}" if path else first["msg"]
            raise Malformed(told[:400], where=kind_name(cls)) from None


def kind_name(kind: type[BaseModel]) -> str:
    """What a refusal calls a statement of this kind: `sign-off statement`."""
    uri = getattr(kind, "TYPE", None)
    return "statement" if uri is None else f"{uri.removeprefix(PREDICATE_BASE).removesuffix('/v1')} statement"


class Subject(StrictModel):
    """One thing that a statement is about: its name and the SHA-256 of its bytes, in hex."""

    name: Line
    sha256: Hex256

    @property
    def digest(self) -> str:
        """The digest in the form `sha256:…`."""
        return f"sha256:{self.sha256}"

    @classmethod
    def of(cls, name: str, digest: str) -> Self:
        """A subject from a name and a `sha256:…` digest."""
        return cls(name=name, sha256=digest.removeprefix("sha256:"))


class Predicate(StrictModel):
    """What every predicate has: an issue time, an expiry and a nonce.

    Attributes:
        issued_at: when it was signed, by the signer's clock.
        expires_at: from when on it counts no more.
        nonce: 128 random bits in hex; one statement counts once.
    """

    TYPE: ClassVar[str]

    issued_at: Instant
    expires_at: Instant
    nonce: Nonce = Field(default_factory=new_nonce)

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.expires_at <= self.issued_at:
            raise Malformed("expires_at must be after issued_at", where=kind_name(type(self)))
        return self


class SignOff(Predicate):
    """One person's decision on one gate, in one role. Subjects: the manifests of what the step releases.

    Attributes:
        release: the release's id.
        step: the step whose gate it is; `attempt` counts its entries (after a rollback the gate is a new one).
        from_stage: the stage that the release is at.
        to_stage: the stage that the step enters.
        audience: who gets access, in one phrase.
        plan_digest: the plan that the gate belongs to.
        evidence_digests: name of each piece of evidence to its digest: exactly what was seen.
        person: who decides; must own the key that signs.
        role: the role in which they decide.
        decision: `approve`, `reject`, or `withdraw` of an earlier one.
        withdraws: for `withdraw`, the digest of the statement that is taken back; else None.
        comment: free text, may be empty.
        invitation: the digest of the invitation that an outside reviewer acts on, or None.
        delegation: the digest of the delegation that the person acts on, or None.
    """

    TYPE = PREDICATE_BASE + "sign-off/v1"

    release: Name
    step: Name
    attempt: int = Field(ge=1, le=1_000_000, strict=True)
    from_stage: StageName
    to_stage: StageName
    audience: Line
    plan_digest: Digest
    evidence_digests: dict[Line, Digest] = Field(max_length=1000)
    person: Name
    role: Name
    decision: Literal["approve", "reject", "withdraw"]
    withdraws: Digest | None = None
    comment: Comment = ""
    invitation: Digest | None = None
    delegation: Digest | None = None

    @model_validator(mode="after")
    def _withdraws(self) -> Self:
        if (self.decision == "withdraw") != (self.withdraws is not None):
            raise Malformed(
                "`withdraws` names the statement that a `withdraw`, and only a `withdraw`, takes back",
                where=kind_name(type(self)),
            )
        return self


class Endorsement(Predicate):
    """One person's agreement to a proposal that a quorum decides. Subject: the proposal's payload.

    Attributes:
        release: the release's id.
        action: what is proposed.
        payload_digest: digest of the canonical proposal, so that exactly this one is agreed to.
        plan_digest: the plan in force (for an amendment: the *old* plan, whose quorum decides).
        person: who agrees; must own the key that signs.
        role: the role in which they agree.
        decision: `endorse`, or `withdraw` of an earlier endorsement.
        comment: free text; for breaking the glass the reason.
    """

    TYPE = PREDICATE_BASE + "endorsement/v1"

    release: Name
    action: Literal["resume", "shorten_window", "close_incident", "amend_plan", "break_glass", "close_review"]
    payload_digest: Digest
    plan_digest: Digest
    person: Name
    role: Name
    decision: Literal["endorse", "withdraw"] = "endorse"
    comment: Comment = ""


class Delegation(Predicate):
    """A person lets another act in one of their roles until `expires_at`. Subject: the plan."""

    TYPE = PREDICATE_BASE + "delegation/v1"

    release: Name
    plan_digest: Digest
    from_person: Name
    to_person: Name
    role: Name

    @model_validator(mode="after")
    def _two_people(self) -> Self:
        if self.from_person == self.to_person:
            raise Malformed("a person cannot delegate to themselves", where=kind_name(type(self)))
        return self


class Invitation(Predicate):
    """Lets one outside reviewer without an account sign one gate, once. Subjects: those of the sign-off.

    Attributes:
        release: the release's id.
        step: the step whose gate may be signed.
        attempt: the attempt at that step.
        plan_digest: the plan that the gate belongs to.
        gate: the digest of the gate's subject: everything that a sign-off of it names.
        reviewer: the reviewer's name in the log.
        organisation: where the reviewer stands.
        role: the role in which the reviewer signs.
        one_time_key: the key that accepts the invitation, once; its private half is handed over with it.
        invited_by: who invites; must own the key that signs the invitation.
    """

    TYPE = PREDICATE_BASE + "invitation/v1"

    release: Name
    step: Name
    attempt: int = Field(ge=1, le=1_000_000, strict=True)
    plan_digest: Digest
    gate: Digest
    reviewer: Name
    organisation: Line
    role: Name
    one_time_key: KeyText
    invited_by: Name


class Acceptance(Predicate):
    """An invited reviewer binds a key of their own to an invitation, with its one-time key. Subject: the invitation.

    Attributes:
        release: the release's id.
        invitation: the digest of the invitation.
        reviewer: the reviewer's name in the log.
        reviewer_key: the only key that may sign off, and take that back.
    """

    TYPE = PREDICATE_BASE + "acceptance/v1"

    release: Name
    invitation: Digest
    reviewer: Name
    reviewer_key: KeyText


class Receipt(Predicate):
    """A partner's client says what it received and opened. Subjects: the manifests that it checked.

    Attributes:
        release: the release's id.
        step: the step that granted access.
        grant: the grant's id.
        partner: the partner.
        member: the person or machine at the partner that opened it.
        envelope_digest: the key envelope that was opened.
        copy_digest: digest over the opened copy's plaintext digests, which differs per partner when marks are on.
    """

    TYPE = PREDICATE_BASE + "receipt/v1"

    release: Name
    step: Name
    grant: Name
    partner: Name
    member: Name
    envelope_digest: Digest
    copy_digest: Digest


class RecipientRegistration(Predicate):
    """A partner (or a deployment) names the age recipient that its envelopes go to. Subject: the recipient text.

    Attributes:
        partner: the partner or deployment.
        member: who registers; must own the key that signs.
        recipient: the age recipient (`age1pq1…`).
        replaces: digest of the recipient text that this one takes the place of, or None.
    """

    TYPE = PREDICATE_BASE + "recipient/v1"

    partner: Name
    member: Name
    recipient: Annotated[str, StringConstraints(pattern=r"^age1[0-9a-z]{20,4000}\z")]
    replaces: Digest | None = None


class KeyRegistration(Predicate):
    """A person registers a public key, signed **with that key** (and with the one it replaces, if any).

    Nobody can register somebody else's key: they could not sign this. Subject: the key text.

    Attributes:
        person: whose key it is.
        public_key: the key in its OpenSSH form.
        replaces: the key id that it takes the place of, or None.
    """

    TYPE = PREDICATE_BASE + "key/v1"

    person: Name
    public_key: KeyText
    replaces: Annotated[str, StringConstraints(pattern=r"^SHA256:[A-Za-z0-9+/]{43}\z")] | None = None


PREDICATES: Mapping[str, type[Predicate]] = {
    kind.TYPE: kind
    for kind in (
        SignOff,
        Endorsement,
        Delegation,
        Invitation,
        Acceptance,
        Receipt,
        RecipientRegistration,
        KeyRegistration,
    )
}
"""Every predicate type that is understood, by its URI."""
