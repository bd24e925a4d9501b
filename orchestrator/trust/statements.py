"""What people sign: in-toto statements (v1) with one predicate type per kind of decision.

A statement names its subjects by digest (https://in-toto.io/Statement/v1); the predicate says what is decided about
them. Each predicate has a page in `docs/predicates/`.

Invariants
- A statement has exactly one byte form (RFC 8785, UTC whole seconds); `parse` refuses every other spelling, so a
  digest of a statement names its meaning.
- Every statement has a nonce of 128 random bits and an expiry. Who signed it is said by the verified key, never by
  the statement; `person` in it says whom the signer meant to be, and must be the owner of that key.
- This module verifies no signature (see `signing`) and knows no rule of a gate (see `orchestrator.domain`).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Generic, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
    model_validator,
)

from orchestrator.trust.encoding import canonical_json, parse_object, sha256_digest
from orchestrator.trust.errors import Expired, Malformed, NotYetValid, StatementMismatch, TrustError
from orchestrator.trust.keys import PublicKey

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_BASE = "https://sluice.example/predicates/"
CLOCK_SKEW = timedelta(minutes=5)
"""How far a signer's clock may be ahead of the verifier's."""

_INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})")


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


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Subject(_Model):
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


class Predicate(_Model):
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
            raise ValueError("expires_at must be after issued_at")
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
            raise ValueError(
                "`withdraws` names the statement that a `withdraw`, and only a `withdraw`, takes back"
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
            raise ValueError("a person cannot delegate to themselves")
        return self


class Invitation(Predicate):
    """Lets one outside reviewer without an account sign one gate, once. Subject: the plan.

    Attributes:
        release: the release's id.
        step: the step whose gate may be signed.
        attempt: the attempt at that step.
        plan_digest: the plan that the gate belongs to.
        reviewer: the reviewer's name in the log.
        organisation: where the reviewer stands.
        role: the role in which the reviewer signs.
        reviewer_key: the only key that the sign-off may be signed with: the reviewer's own, or one made for this
            invitation and handed over with it.
        invited_by: who invites; must own the key that signs the invitation.
    """

    TYPE = PREDICATE_BASE + "invitation/v1"

    release: Name
    step: Name
    attempt: int = Field(ge=1, le=1_000_000, strict=True)
    plan_digest: Digest
    reviewer: Name
    organisation: Line
    role: Name
    reviewer_key: KeyText
    invited_by: Name


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
        Receipt,
        RecipientRegistration,
        KeyRegistration,
    )
}
"""Every predicate type that is understood, by its URI."""

P = TypeVar("P", bound=Predicate)


class Statement(_Model, Generic[P]):
    """Subjects and a predicate. `to_bytes` is what is signed.

    Attributes:
        subjects: what it is about; at least one, names unique.
        predicate: what is said.
    """

    subjects: tuple[Subject, ...] = Field(min_length=1, max_length=1000)
    predicate: P

    @model_validator(mode="after")
    def _unique(self) -> Self:
        if len({subject.name for subject in self.subjects}) != len(self.subjects):
            raise ValueError("two subjects have one name")
        return self

    def to_bytes(self) -> bytes:
        """The canonical bytes, which are the payload of an envelope."""
        return canonical_json(
            {
                "_type": STATEMENT_TYPE,
                "subject": [{"name": s.name, "digest": {"sha256": s.sha256}} for s in self.subjects],
                "predicateType": self.predicate.TYPE,
                "predicate": self.predicate.model_dump(mode="json", exclude_none=True),
            }
        )

    @property
    def digest(self) -> str:
        """`sha256:…` over the canonical bytes: the statement's name in the log and in other statements."""
        return sha256_digest(self.to_bytes())

    def check_time(self, now: datetime, *, skew: timedelta = CLOCK_SKEW) -> None:
        """Refuse a statement that is expired or not yet valid.

        Args:
            now: the verifier's clock.
            skew: how far the signer's clock may be ahead.

        Raises:
            Expired: `now` is at or past `expires_at`.
            NotYetValid: issued in the future.
        """
        where = _kind(self.predicate)
        if now >= self.predicate.expires_at:
            until = write_instant(self.predicate.expires_at)
            raise Expired(f"expired at {until}", where=where, remedy="sign again")
        if self.predicate.issued_at > now + skew:
            at = write_instant(self.predicate.issued_at)
            raise NotYetValid(
                f"was issued in the future, at {at}", where=where, remedy="set the signer's clock"
            )

    def require(self, *, subjects: Iterable[Subject] | None = None, **expected: Any) -> None:
        """Refuse a statement that says something else than what is at stake.

        Args:
            subjects: the subjects that it must have, in any order, or None to leave them unchecked.
            expected: predicate fields and the values that they must have.

        Raises:
            StatementMismatch: naming every field that differs.
            TypeError: a field that the predicate does not have, a mistake of the caller.
        """
        wrong: dict[str, tuple[Any, Any]] = {}
        if subjects is not None:
            want = {(s.name, s.sha256) for s in subjects}
            have = {(s.name, s.sha256) for s in self.subjects}
            if want != have:
                wrong["subjects"] = (sorted(have), sorted(want))
        for name, value in expected.items():
            if name not in type(self.predicate).model_fields:
                raise TypeError(f"{type(self.predicate).__name__} has no field {name}")
            actual = getattr(self.predicate, name)
            if actual != value:
                wrong[name] = (actual, value)
        if wrong:
            told = "; ".join(
                f"{name} is {_brief(have)}, not {_brief(want)}" for name, (have, want) in wrong.items()
            )
            raise StatementMismatch(
                f"says something else than what is at stake: {told}",
                where=_kind(self.predicate),
                remedy="look at what stands now and sign that",
                fields=tuple(wrong),
            )


def parse(payload: bytes, kind: type[P]) -> Statement[P]:
    """Read a statement of one kind from a payload (verify the envelope first).

    Raises:
        Malformed: not such a statement in its one canonical spelling.
        StatementMismatch: a statement of another predicate type.
    """
    where = "statement"
    raw = parse_object(payload, where=where)
    if raw.get("_type") != STATEMENT_TYPE or set(raw) != {"_type", "subject", "predicateType", "predicate"}:
        raise Malformed("is not an in-toto statement of version 1", where=where)
    if raw["predicateType"] != kind.TYPE:
        raise StatementMismatch(
            f"has the predicate type {str(raw['predicateType'])[:120]!r}, not {kind.TYPE}",
            where=where,
            fields=("predicateType",),
        )
    try:
        _instants_as_written(raw["predicate"])
        statement = Statement[kind](  # type: ignore[valid-type]
            subjects=tuple(_subject(entry) for entry in _list(raw["subject"])),
            predicate=kind.model_validate(raw["predicate"]),
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        path = ".".join(str(part)[:80] for part in first["loc"])
        raise Malformed(f"{path}: {first['msg']}"[:400], where=_kind_of(kind)) from None
    if statement.to_bytes() != payload:
        raise Malformed(
            "is not in its canonical spelling", where=_kind_of(kind), remedy="sign it with `sluice sign`"
        )
    return statement


def parse_any(payload: bytes) -> Statement[Any]:
    """Read a statement of whichever known kind it is.

    Raises:
        Malformed: not a statement of a known kind in its canonical spelling.
    """
    kind = PREDICATES.get(str(parse_object(payload, where="statement").get("predicateType")))
    if kind is None:
        raise Malformed("has a predicate type that is not known here", where="statement")
    return parse(payload, kind)


def _instants_as_written(predicate: Any) -> None:
    """Keep pydantic from reading numbers as instants."""
    if not isinstance(predicate, dict):
        raise Malformed("the predicate is not an object", where="statement")
    for name in ("issued_at", "expires_at"):
        value = predicate.get(name)
        if not isinstance(value, str) or not _INSTANT.fullmatch(value):
            raise Malformed(f"{name} is not an instant such as 2026-11-23T09:00:00Z", where="statement")


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Malformed("`subject` is not a list", where="statement")
    return value


def _subject(entry: Any) -> Subject:
    if (
        not isinstance(entry, dict)
        or set(entry) != {"name", "digest"}
        or not isinstance(entry["digest"], dict)
    ):
        raise Malformed("a subject holds `name` and `digest`", where="statement")
    if set(entry["digest"]) != {"sha256"}:
        raise Malformed("a subject's digest is its `sha256` alone", where="statement")
    return Subject.model_validate({"name": entry["name"], "sha256": entry["digest"]["sha256"]})


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _kind_of(kind: type[Predicate]) -> str:
    return kind.TYPE.removeprefix(PREDICATE_BASE).removesuffix("/v1") + " statement"


def _kind(predicate: Predicate) -> str:
    return _kind_of(type(predicate))
