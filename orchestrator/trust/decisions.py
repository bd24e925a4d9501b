"""People's decisions as signed statements: made for the CLI and the console, checked by the API and, again, by custody.

One place says which fields of a statement must equal what of the release. `*_statement` makes the bytes to sign;
`check_*` verifies an envelope against the keys that the plan pins and against the release as it stands.
A person without pinned keys decides unsigned; custody then has only the log to go by (docs/trust-model.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from orchestrator.domain.plan import Plan
from orchestrator.domain.state import GateSubject
from orchestrator.trust.errors import KeyUnusable, StatementMismatch, UnknownKey
from orchestrator.trust.keys import PublicKey
from orchestrator.trust.signing import verify_single
from orchestrator.trust.statements import (
    Delegation,
    Endorsement,
    Predicate,
    SignOff,
    Statement,
    Subject,
    parse,
    write_instant,
)

Action = Literal["resume", "shorten_window", "close_incident", "amend", "break_glass", "close_review"]
_ACTION_NAMES: dict[str, str] = {"amend": "amend_plan"}


def pinned_keys(plan: Plan, person: str) -> list[PublicKey]:
    """The keys that a plan pins for a person; empty when it pins none or does not name them."""
    named = plan.people.get(person)
    return [] if named is None else [PublicKey.parse(text) for text in named.keys]


def shared_keys(plan: Plan) -> dict[str, list[str]]:
    """Key ids that a plan pins for more than one person, with their names. One key material is one key, however spelt.

    Raises:
        TrustError: the plan pins something that is no key.
    """
    owners: dict[str, set[str]] = {}
    for person in plan.people:
        for key in pinned_keys(plan, person):
            owners.setdefault(key.key_id, set()).add(person)
    return {key_id: sorted(people) for key_id, people in owners.items() if len(people) > 1}


def sign_off_subjects(subject: GateSubject) -> list[Subject]:
    """What a sign-off is about: the manifests, or the plan itself at a gate that releases no files."""
    manifests = [Subject.of(name, digest) for name, digest in sorted(subject.manifests.items())]
    return manifests or [Subject.of("plan", subject.plan_digest)]


def sign_off_statement(
    subject: GateSubject,
    *,
    person: str,
    role: str,
    decision: Literal["approve", "reject", "withdraw"],
    issued_at: datetime,
    validity: timedelta,
    comment: str = "",
    withdraws: str | None = None,
) -> Statement[SignOff]:
    """The statement of one decision on one gate, exactly as it was shown.

    Args:
        subject: the gate's subject as read from the API.
        person: who decides.
        role: in which role.
        decision: what is decided.
        issued_at: by the signer's clock (aware).
        validity: how long it counts.
        comment: free text.
        withdraws: for `withdraw`, the digest of the statement taken back.
    """
    predicate = SignOff(
        **gate_fields(subject),
        person=person,
        role=role,
        decision=decision,
        withdraws=withdraws,
        comment=comment,
        issued_at=issued_at,
        expires_at=issued_at + validity,
    )
    return Statement[SignOff](subjects=tuple(sign_off_subjects(subject)), predicate=predicate)


def endorsement_statement(
    *,
    release: str,
    action: Action,
    payload_digest: str,
    plan_digest: str,
    person: str,
    role: str,
    issued_at: datetime,
    validity: timedelta = timedelta(days=14),
    comment: str = "",
) -> Statement[Endorsement]:
    """The statement of one person who stands behind a proposal (its canonical payload, by digest)."""
    predicate = Endorsement.model_validate(
        {
            "release": release,
            "action": _ACTION_NAMES.get(action, action),
            "payload_digest": payload_digest,
            "plan_digest": plan_digest,
            "person": person,
            "role": role,
            "comment": comment,
            "issued_at": issued_at,
            "expires_at": issued_at + validity,
        }
    )
    return Statement[Endorsement](subjects=(Subject.of("proposal", payload_digest),), predicate=predicate)


def check_sign_off(
    envelope: str,
    plan: Plan,
    subject: GateSubject,
    *,
    person: str,
    role: str,
    decision: Literal["approve", "reject"],
    now: datetime,
    expires_at: datetime | None = None,
    origins: Sequence[str] = (),
) -> Statement[SignOff]:
    """Verify that `person` signed exactly this decision on exactly this subject.

    Args:
        envelope: what was signed.
        plan: the plan in force; it pins the keys.
        subject: the gate's subject as it stands now.
        person: who is said to have decided.
        role: in which role.
        decision: what is said to be decided.
        now: the verifier's clock.
        expires_at: until when it is to count, or None; the signature must reach that far.
        origins: web origins of passkeys, see `signing.verify`.

    Raises:
        TrustError: the signature, the key, the time or a field does not fit; it says which.
    """
    statement = signed_by(envelope, plan, person, SignOff, now, origins)
    statement.require(
        subjects=sign_off_subjects(subject),
        **gate_fields(subject),
        person=person,
        role=role,
        decision=decision,
    )
    require_reach(statement, expires_at)
    return statement


def check_withdrawal(
    envelope: str,
    plan: Plan,
    *,
    release: str,
    step: str,
    attempt: int,
    person: str,
    withdraws: str | None,
    now: datetime,
    origins: Sequence[str] = (),
) -> Statement[SignOff]:
    """Verify that `person` signed that they take back exactly the statement `withdraws`.

    Raises:
        TrustError: the signature, the key, the time or a field does not fit; it says which.
    """
    statement = signed_by(envelope, plan, person, SignOff, now, origins)
    statement.require(
        release=release, step=step, attempt=attempt, person=person, decision="withdraw", withdraws=withdraws
    )
    return statement


def check_endorsement(
    envelope: str,
    plan: Plan,
    *,
    release: str,
    action: str,
    payload_digest: str,
    person: str,
    now: datetime,
    origins: Sequence[str] = (),
) -> Statement[Endorsement]:
    """Verify that `person` stands behind exactly this proposal under exactly this plan.

    Raises:
        TrustError: the signature, the key, the time or a field does not fit; it says which.
    """
    statement = signed_by(envelope, plan, person, Endorsement, now, origins)
    statement.require(
        subjects=[Subject.of("proposal", payload_digest)],
        release=release,
        action=_ACTION_NAMES.get(action, action),
        payload_digest=payload_digest,
        plan_digest=plan.digest,
        person=person,
        decision="endorse",
    )
    return statement


def check_delegation(
    envelope: str,
    plan: Plan,
    *,
    release: str,
    giver: str,
    to: str,
    role: str,
    now: datetime,
    until: datetime | None = None,
    origins: Sequence[str] = (),
) -> Statement[Delegation]:
    """Verify that `giver` signed that `to` may act in `role`, and (when it is given) for as long as `until`.

    Raises:
        TrustError: the signature, the key, the time or a field does not fit; it says which.
    """
    statement = signed_by(envelope, plan, giver, Delegation, now, origins)
    statement.require(release=release, plan_digest=plan.digest, from_person=giver, to_person=to, role=role)
    require_reach(statement, until)
    return statement


def signed_by(
    envelope: str, plan: Plan, person: str, kind: type[Any], now: datetime, origins: Sequence[str] = ()
) -> Statement[Any]:
    """The statement of this kind that `person` signed with a key that the plan pins for them alone.

    Raises:
        TrustError: another kind, key or time.
    """
    keys = pinned_keys(plan, person)
    if not keys:
        raise UnknownKey("the plan pins no key of this person", where=f"people.{person}.keys")
    verified = verify_single(envelope.encode(), keys, origins=origins)
    owners = shared_keys(plan).get(verified.key.key_id)
    if owners:
        raise KeyUnusable(
            f"is pinned for {' and '.join(owners)}; one key is one person",
            where=f"key {verified.key.key_id}",
            remedy="amend the plan so that each has a key of their own",
        )
    statement: Statement[Predicate] = parse(verified.payload, kind)
    statement.check_time(now)
    return statement


def require_reach(statement: Statement[Any], until: datetime | None) -> None:
    """Refuse what is to count for longer than was signed."""
    if until is not None and until > statement.predicate.expires_at + timedelta(seconds=1):
        raise StatementMismatch(
            f"was signed until {write_instant(statement.predicate.expires_at)}, not {write_instant(until)}",
            where="signed statement",
            remedy="sign for as long as it is to count",
            fields=("expires_at",),
        )


def gate_fields(subject: GateSubject) -> dict[str, Any]:
    """What a sign-off says of the gate, by the name of its fields."""
    return {
        "release": subject.release,
        "step": subject.step,
        "attempt": subject.attempt,
        "from_stage": subject.from_stage.value,
        "to_stage": subject.to_stage.value,
        "audience": subject.audience,
        "plan_digest": subject.plan_digest,
        "evidence_digests": {kind.value: found for kind, found in subject.evidence.items()},
    }
