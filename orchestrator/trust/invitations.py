"""Outside reviewers without an account: the invitation, its acceptance, and the sign-off, as signed statements.

    invitation   by a person of the plan, with a pinned key: this reviewer may sign this gate as it stands, once, until then
    acceptance   by the one-time key of the invitation (its private half is in the link): from here on this key is the reviewer's
    sign-off     by the reviewer's key; names the invitation. Withdrawing it takes the same key

Whoever holds the link can accept, once; after that the link is worth nothing. What was used, revoked, or counts already is a
matter of the release's state (`domain.decide_invited`), not of these bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from orchestrator.domain.plan import Plan
from orchestrator.domain.state import GateSubject
from orchestrator.trust.decisions import (
    gate_fields,
    pinned_keys,
    require_reach,
    sign_off_statement,
    sign_off_subjects,
    signed_by,
)
from orchestrator.trust.errors import KeyUnusable, StatementMismatch, TrustError
from orchestrator.trust.keys import PublicKey
from orchestrator.trust.signing import signed_payload, verify_single
from orchestrator.trust.statements import Acceptance, Invitation, SignOff, Statement, Subject, parse

_INVITATION = "invitation statement"
ACCEPTED_FOR = timedelta(days=14)


def invitation_statement(
    subject: GateSubject,
    *,
    reviewer: str,
    organisation: str,
    role: str,
    one_time_key: PublicKey,
    invited_by: str,
    issued_at: datetime,
    expires_at: datetime,
) -> Statement[Invitation]:
    """What an inviter signs: this reviewer may sign exactly this gate, once."""
    predicate = Invitation(
        release=subject.release,
        step=subject.step,
        attempt=subject.attempt,
        plan_digest=subject.plan_digest,
        gate=subject.digest,
        reviewer=reviewer,
        organisation=organisation,
        role=role,
        one_time_key=one_time_key.text(),
        invited_by=invited_by,
        issued_at=issued_at,
        expires_at=expires_at,
    )
    return Statement[Invitation](subjects=tuple(sign_off_subjects(subject)), predicate=predicate)


def acceptance_statement(
    invitation: Statement[Invitation], *, reviewer_key: PublicKey, issued_at: datetime
) -> Statement[Acceptance]:
    """What the one-time key signs: from here on this key is the reviewer's."""
    said = invitation.predicate
    return _acceptance(invitation.digest, said.release, said.reviewer, reviewer_key, issued_at)


def holding_statement(invitation: str, *, key: PublicKey, issued_at: datetime) -> Statement[Acceptance]:
    """An acceptance of nobody's: it shows that one holds the one-time key of an invitation, known by its digest, and binds nothing."""
    return _acceptance(invitation, "unknown", "nobody", key, issued_at)


def _acceptance(
    invitation: str, release: str, reviewer: str, key: PublicKey, issued_at: datetime
) -> Statement[Acceptance]:
    predicate = Acceptance(
        release=release,
        invitation=invitation,
        reviewer=reviewer,
        reviewer_key=key.text(),
        issued_at=issued_at,
        expires_at=issued_at + ACCEPTED_FOR,
    )
    return Statement[Acceptance](subjects=(Subject.of("invitation", invitation),), predicate=predicate)


def holds(acceptance: str, one_time_key: PublicKey) -> Statement[Acceptance]:
    """The acceptance, if the holder of the one-time key signed it; what it says is for the caller to compare.

    Raises:
        TrustError: not an acceptance, or signed by another key.
    """
    return parse(verify_single(acceptance.encode(), [one_time_key]).payload, Acceptance)


def invited_sign_off_statement(
    subject: GateSubject,
    invitation: Statement[Invitation],
    *,
    decision: Literal["approve", "reject", "withdraw"],
    issued_at: datetime,
    validity: timedelta,
    comment: str = "",
    withdraws: str | None = None,
) -> Statement[SignOff]:
    """What an invited reviewer signs with their own key."""
    said = invitation.predicate
    made = sign_off_statement(
        subject,
        person=said.reviewer,
        role=said.role,
        decision=decision,
        issued_at=issued_at,
        validity=validity,
        comment=comment,
        withdraws=withdraws,
    )
    predicate = made.predicate.model_copy(update={"invitation": invitation.digest})
    return Statement[SignOff](subjects=made.subjects, predicate=predicate)


@dataclass(frozen=True, slots=True)
class Said:
    """What is said of an invitation elsewhere, and must be what was signed."""

    invited_by: str
    reviewer: str
    organisation: str
    role: str
    key: str
    expires_at: datetime


def check_invitation(
    envelope: str, plan: Plan, subject: GateSubject, said: Said, *, now: datetime
) -> Statement[Invitation]:
    """Verify that a person of the plan signed exactly this invitation to exactly this gate.

    Args:
        envelope: the signed invitation.
        plan: the plan in force; it pins the inviter's keys.
        subject: the gate's subject as it stands now.
        said: what the command or event says of it.
        now: the verifier's clock.

    Raises:
        TrustError: the signature, the key, the time or a field does not fit; it says which.
    """
    invited: Statement[Invitation] = signed_by(envelope, plan, said.invited_by, Invitation, now)
    invited.require(
        subjects=sign_off_subjects(subject),
        release=subject.release,
        step=subject.step,
        attempt=subject.attempt,
        plan_digest=plan.digest,
        gate=subject.digest,
        reviewer=said.reviewer,
        organisation=said.organisation,
        role=said.role,
        invited_by=said.invited_by,
    )
    require_reach(invited, said.expires_at)
    key = PublicKey.parse(invited.predicate.one_time_key)
    if key.key_id != PublicKey.parse(said.key).key_id:
        raise StatementMismatch("is for another one-time key", where=_INVITATION, fields=("one_time_key",))
    if said.reviewer in plan.people:
        raise StatementMismatch(
            f"{said.reviewer} is named in the plan; nobody invites themselves or a colleague",
            where=_INVITATION,
            fields=("reviewer",),
        )
    _require_nobodys(plan, key, {}, _INVITATION)
    return invited


def check_acceptance(
    acceptance: str,
    invitation: Statement[Invitation],
    plan: Plan | None,
    *,
    now: datetime | None,
    taken: Mapping[str, str] | None = None,
) -> PublicKey:
    """Verify that the one-time key of an invitation bound a key of the reviewer's own to it; that key.

    Args:
        acceptance: what the one-time key signed.
        invitation: the invitation, verified.
        plan: the plan in force; none of the keys that it pins may be the reviewer's. None: not looked at.
        now: the verifier's clock; None for one that was in time when it was used.
        taken: ids of keys that count under another name already, with the name.

    Raises:
        TrustError: the signature, the key, the time or a field does not fit; it says which.
    """
    said = invitation.predicate
    one_time = PublicKey.parse(said.one_time_key)
    statement = holds(acceptance, one_time)
    if now is not None:
        statement.check_time(now)
    statement.require(
        subjects=[Subject.of("invitation", invitation.digest)],
        release=said.release,
        invitation=invitation.digest,
        reviewer=said.reviewer,
    )
    key = PublicKey.parse(statement.predicate.reviewer_key)
    where = "acceptance statement"
    if key.key_id == one_time.key_id:
        raise KeyUnusable(
            "is the one-time key itself, which others have seen",
            where=where,
            remedy="accept with a key of your own",
        )
    if plan is not None:
        _require_nobodys(plan, key, taken or {}, where)
    return key


def check_invited_sign_off(
    envelope: str,
    acceptance: str,
    invitation: Statement[Invitation],
    plan: Plan,
    subject: GateSubject,
    *,
    decision: Literal["approve", "reject"],
    now: datetime,
    expires_at: datetime | None = None,
    taken: Mapping[str, str] | None = None,
) -> Statement[SignOff]:
    """Verify that the invited reviewer signed exactly this decision on exactly this gate.

    Args:
        envelope: the reviewer's sign-off.
        acceptance: what binds the reviewer's key to the invitation.
        invitation: the invitation, verified.
        plan: the plan in force.
        subject: the gate's subject as it stands now.
        decision: what is said to be decided.
        now: the verifier's clock.
        expires_at: until when it is to count, or None; the signature must reach that far.
        taken: ids of keys that count under another name already, with the name.

    Raises:
        TrustError: the acceptance or the sign-off does not fit; it says which and where.
    """
    invitation.check_time(now)
    key = check_acceptance(acceptance, invitation, plan, now=now, taken=taken)
    statement = parse(verify_single(envelope.encode(), [key]).payload, SignOff)
    statement.check_time(now)
    said = invitation.predicate
    if said.gate != subject.digest:
        raise StatementMismatch("is for what stood at the gate before", where=_INVITATION, fields=("gate",))
    statement.require(
        subjects=sign_off_subjects(subject),
        **gate_fields(subject),
        person=said.reviewer,
        role=said.role,
        decision=decision,
        invitation=invitation.digest,
    )
    require_reach(statement, expires_at)
    return statement


def check_invited_withdrawal(
    envelope: str,
    acceptance: str,
    invitation: Statement[Invitation],
    *,
    withdraws: str | None,
    now: datetime,
) -> Statement[SignOff]:
    """Verify that the reviewer who signed on this invitation takes exactly that statement back.

    Raises:
        TrustError: the signature, the key, the time or a field does not fit; it says which.
    """
    key = check_acceptance(acceptance, invitation, None, now=None)
    statement = parse(verify_single(envelope.encode(), [key]).payload, SignOff)
    statement.check_time(now)
    said = invitation.predicate
    statement.require(
        release=said.release,
        step=said.step,
        attempt=said.attempt,
        person=said.reviewer,
        decision="withdraw",
        withdraws=withdraws,
        invitation=invitation.digest,
    )
    return statement


def read_invitation(envelope: str) -> Statement[Invitation]:
    """The invitation in an envelope, **unverified**: of one that was verified before, or to be shown.

    Raises:
        TrustError: not an envelope with an invitation.
    """
    return parse(signed_payload(envelope.encode()), Invitation)


def accepted_keys(invitations: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    """Ids of keys that reviewers signed with → the reviewer; what is no acceptance is passed over.

    Args:
        invitations: reviewer, invitation envelope and acceptance of each that was used.
    """
    found = {}
    for reviewer, envelope, acceptance in invitations:
        try:
            key = check_acceptance(acceptance, read_invitation(envelope), None, now=None)
        except TrustError:
            continue
        found[key.key_id] = reviewer
    return found


def _require_nobodys(plan: Plan, key: PublicKey, taken: Mapping[str, str], where: str) -> None:
    owner = taken.get(key.key_id) or next(
        (name for name in plan.people for own in pinned_keys(plan, name) if own.key_id == key.key_id), None
    )
    if owner is not None:
        raise KeyUnusable(f"is the key of {owner}; one key is one person", where=where)
