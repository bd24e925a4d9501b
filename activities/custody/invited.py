"""Custody's checks of invited reviewers: the whole chain from signed bytes, plan → inviter → one-time key → reviewer's key.

A row or an event that says that somebody was invited, or signed on an invitation, has no effect unless each link holds: the
invitation by a key that the plan pins for a person whom it lets invite, for exactly the gate that stood then; the acceptance by the
invitation's one-time key; the sign-off by the key that was accepted. That the inviter counts once, and not beside the reviewer, is
judged by the verdict.
"""

from __future__ import annotations

from activities.custody.errors import NoEffectError
from orchestrator.domain import events as ev
from orchestrator.domain.gate_signing import may_invite
from orchestrator.domain.plan import step_digest
from orchestrator.domain.state import GateSubject, ReleaseState, SignOffRecord, gate_subject
from orchestrator.domain.values import statement_digest
from orchestrator.trust.invitations import (
    Said,
    accepted_keys,
    check_invitation,
    check_invited_sign_off,
    check_invited_withdrawal,
    read_invitation,
)
from orchestrator.trust.statements import SignOff, Statement


def check_invited(state: ReleaseState, event: ev.Invited) -> None:
    """Hold an invitation to its signature and to the plan.

    Raises:
        NoEffectError, TrustError: why it counts for nothing.
    """
    step = state.next_step
    if step is None or (step.name, state.attempt) != (event.step, event.attempt):
        raise NoEffectError("it is for a gate that was not next")
    if event.by in state.barred:
        raise NoEffectError(f"{event.by} created the release or uploaded its artifacts, and invites nobody")
    if not may_invite(state, step, event.by, event.role):
        raise NoEffectError(f"the plan does not let {event.by} invite a reviewer as {event.role}")
    if statement_digest(event.envelope) != event.invitation:
        raise NoEffectError("the invitation is not the one that its digest names")
    if event.invitation in state.invitations:
        raise NoEffectError("it was made already; nothing revives an invitation that was used or revoked")
    said = Said(
        invited_by=event.by,
        reviewer=event.reviewer,
        organisation=event.organisation,
        role=event.role,
        key=event.key,
        expires_at=event.expires_at,
    )
    check_invitation(event.envelope, state.plan, gate_subject(state, step), said, now=event.at)


def check_signed_on_invitation(
    state: ReleaseState, event: ev.SignedOff, subject: GateSubject
) -> Statement[SignOff]:
    """Hold an approval on an invitation to the acceptance and the sign-off; the statement that was signed.

    Raises:
        NoEffectError, TrustError: why it counts for nothing.
    """
    invitation = state.invitations.get(event.invitation or "")
    if invitation is None:
        raise NoEffectError("nobody whom the plan lets invite made this invitation to this gate")
    if invitation.revoked_at is not None:
        raise NoEffectError("the invitation was revoked")
    if invitation.used_at is not None:
        raise NoEffectError("the invitation was used already; it is for one sign-off")
    if invitation.expires_at <= event.at:
        raise NoEffectError("the invitation had expired")
    if (event.by, event.role) != (invitation.reviewer, invitation.role):
        raise NoEffectError("it is not the invited reviewer's, or not in their role")
    others = [
        (other.reviewer, other.envelope, other.acceptance)
        for other in state.invitations.values()
        if other.acceptance is not None and other.reviewer != event.by
    ]
    return check_invited_sign_off(
        event.envelope or "",
        event.acceptance or "",
        read_invitation(invitation.envelope),
        state.plan,
        subject,
        decision="approve",
        now=event.at,
        taken=accepted_keys(others),
    )


def require_no_other_rejection(state: ReleaseState, event: ev.SignedOff) -> None:
    """A rejection that an invited reviewer gave, or that stands under a reviewer's name, ends by their withdrawal alone.

    Raises:
        NoEffectError: the event would put another decision in its place.
    """
    standing = state.sign_offs.get(event.by)
    step = state.next_step
    if standing is None or step is None or standing.decision != "reject":
        return
    invited = standing.invitation is not None or event.invitation is not None
    if invited and standing.step_digest == step_digest(step):
        raise NoEffectError(f"the rejection of {event.by} stands until they withdraw it")


def check_withdrawn_on_invitation(
    state: ReleaseState, standing: SignOffRecord, event: ev.SignOffWithdrawn
) -> None:
    """Hold the withdrawal of an invited reviewer's rejection to the key that they accepted with.

    Raises:
        NoEffectError, TrustError: why the rejection stands.
    """
    invitation = state.invitations.get(standing.invitation or "")
    if invitation is None or invitation.acceptance is None:
        raise NoEffectError("the rejection was given on no invitation that is known")
    check_invited_withdrawal(
        event.envelope or "",
        invitation.acceptance,
        read_invitation(invitation.envelope),
        withdraws=standing.statement,
        now=event.at,
    )
