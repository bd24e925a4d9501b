"""Decisions about outside reviewers without an account: inviting one, taking it back, and what the reviewer decides.

An invitation is for one reviewer, one gate as it stands (its subject), one sign-off, until a date. It never adds people: whoever
invites counts at that gate through the reviewer alone, each inviter stands behind one reviewer, and who may not sign may not invite.
What is signed (the invitation by its inviter's pinned key, the acceptance by the one-time key, the sign-off by the reviewer's
key) is verified by the API and, again, by custody.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.deciding import header, require_in_plan, require_next, require_permission
from orchestrator.domain.errors import Conflict, GateChanged, Malformed, NotFound, NotPermitted, Reason
from orchestrator.domain.gate import verdict
from orchestrator.domain.gate_signing import may_invite
from orchestrator.domain.permissions import Permission
from orchestrator.domain.plan import Plan, Step, step_digest
from orchestrator.domain.state import Invitation, ReleaseState, gate_subject
from orchestrator.domain.values import statement_digest

LONGEST = timedelta(days=30)
#: Invitations of one approach to a gate that are kept; revoked and used ones among them.
MOST = 100


def invite(state: ReleaseState, command: cmd.Invite, now: datetime) -> list[ev.AnyEvent]:
    """Let one outside reviewer sign the next gate as it stands, once.

    Raises:
        NotPermitted: the plan does not let this person invite, or the invitation is not signed.
        GateChanged: the gate is another one by now.
        Conflict, Malformed: with every reason.
    """
    require_permission(command.actor, Permission.GATE_SIGN)
    require_in_plan(state, command.actor)
    step = require_next(state, command.step)
    if state.status == "entering":
        raise Conflict(f"`{step.name}` is being entered; nobody more is to be invited")
    person = command.actor.id
    if person in state.barred:
        raise NotPermitted(
            f"{person} created the release or uploaded its artifacts, cannot sign off its gates, and invites nobody to",
            [Reason("rule-7", "somebody else of the plan invites", "actor")],
        )
    if not may_invite(state, step, person, command.role):
        raise NotPermitted(
            f"the plan does not let {person} invite a reviewer for `{step.name}` as {command.role}",
            [Reason("invited-by", _who_may(state, step), "role")],
        )
    if command.envelope is None:
        raise NotPermitted(
            "an invitation counts only signed",
            [Reason("unsigned", "make it with `sluice invitation make`", "envelope")],
        )
    name = statement_digest(command.envelope)
    if name is None:
        raise Malformed("the invitation is not a signed statement", [Reason("envelope", "DSSE", "envelope")])
    _require_current(state, step, command.subject)
    if name in state.invitations:
        return []
    _require_free(state, command, step, now)
    return [
        ev.Invited(
            **header(state, command, now),
            invitation=name,
            step=step.name,
            attempt=state.attempt,
            role=command.role,
            reviewer=command.reviewer,
            organisation=command.organisation,
            subject=command.subject,
            key=command.key,
            expires_at=command.expires_at,
            envelope=command.envelope,
        )
    ]


def _who_may(state: ReleaseState, step: Step) -> str:
    may = [
        f"{need.role}: {', '.join(state.plan.inviters(need)) or 'nobody with a key'}"
        for need in step.gate.sign_offs
        if need.invited_by is not None
    ]
    return "who may invite, by role: " + ("; ".join(may) or "nobody, the plan asks for no invited reviewer")


def _require_current(state: ReleaseState, step: Step, subject: str) -> None:
    current = gate_subject(state, step).digest
    if subject != current:
        raise GateChanged(
            f"what stands at the gate of `{step.name}` is not what the invitation is for",
            [Reason("stale", "read the gate again; its subject is now " + current, "subject")],
        )


def _require_free(state: ReleaseState, command: cmd.Invite, step: Step, now: datetime) -> None:
    """Everything that lets nobody invite this reviewer now."""
    person, reviewer, at = command.actor.id, command.reviewer, max(now, state.updated_at)
    reasons = []
    if reviewer in state.plan.people or reviewer == state.creator or reviewer in state.uploaders:
        told = f"{reviewer} is somebody of this release; an invitation is for somebody without an account"
        reasons.append(Reason("known-person", told, "reviewer"))
    if pinned_by(state.plan, command.key) is not None:
        told = (
            f"the key is pinned for {pinned_by(state.plan, command.key)}; make a new one for each invitation"
        )
        reasons.append(Reason("key", told, "key"))
    if any(command.key == other.key for other in state.invitations.values()):
        reasons.append(Reason("key", "another invitation has this one-time key; make a new one", "key"))
    if not at < command.expires_at <= at + min(LONGEST, step.gate.sign_off_validity):
        reasons.append(Reason("expires_at", "the end lies ahead, at most 30 days", "expires_at"))
    if len(state.invitations) >= MOST:
        reasons.append(Reason("too-many", f"{MOST} invitations to one gate are the most", "step"))
    for other in state.invitations.values():
        if other.open and other.expires_at > at and other.subject == command.subject:
            if other.by == person:
                told = f"{person} has invited {other.reviewer}; one person invites one reviewer: revoke that one first"
                reasons.append(Reason("invited-already", told, "actor"))
            elif other.reviewer == reviewer:
                told = f"{other.by} has invited {reviewer} already"
                reasons.append(Reason("invited-already", told, "reviewer"))
    for view in verdict(state, step, now).sign_offs:
        if view.standing != "counts":
            continue
        if view.decision == "approve" and person in view.behind:
            told = f"{person} counts at this gate already, through the sign-off of {view.person}"
            reasons.append(Reason("counts-already", told, "actor"))
        if view.person == reviewer:
            told = f"the {'approval' if view.decision == 'approve' else 'rejection'} of {reviewer} stands until they withdraw it"
            reasons.append(Reason("signed-already", told, "reviewer"))
    if reasons:
        raise Conflict(f"{reviewer} cannot be invited", reasons)


def pinned_by(plan: Plan, key: str) -> str | None:
    """For whom the plan pins this key material; None for nobody. One written as a passkey is found by whoever parses keys."""
    material = key.split(" ")[1]
    for name, person in plan.people.items():
        if any(pinned.split(" ")[1] == material for pinned in person.keys):
            return name
    return None


def revoke_invitation(state: ReleaseState, command: cmd.RevokeInvitation, now: datetime) -> list[ev.AnyEvent]:
    """Take an invitation back. Caution is cheap: whoever of the plan may sign, not its inviter alone."""
    require_permission(command.actor, Permission.GATE_SIGN)
    require_in_plan(state, command.actor)
    invitation = _known(state, command.invitation)
    if invitation.revoked_at is not None:
        return []
    step = state.next_step
    return [
        ev.InvitationRevoked(
            **header(state, command, now),
            invitation=invitation.id,
            step=None if step is None else step.name,
            reason=command.reason,
        )
    ]


def _known(state: ReleaseState, name: str) -> Invitation:
    invitation = state.invitations.get(name)
    if invitation is None:
        raise NotFound("there is no such invitation to the next gate")
    return invitation


def _of_reviewer(state: ReleaseState, actor: cmd.Actor, name: str) -> Invitation:
    invitation = state.invitations.get(name)
    if invitation is None or actor.kind != "invited" or actor.id != invitation.reviewer:
        raise NotFound("there is no such invitation to the next gate")
    return invitation


def sign_invited(state: ReleaseState, command: cmd.SignInvited, now: datetime) -> list[ev.AnyEvent]:
    """What an invited reviewer decides, on exactly the subject that the invitation is for; uses the invitation up.

    Raises:
        NotFound: there is no such invitation of this reviewer.
        Conflict: it was used, was revoked or has expired, or whoever invited counts already.
        GateChanged: the gate is another one by now.
    """
    invitation = _of_reviewer(state, command.actor, command.invitation)
    step = require_next(state, command.step)
    at = max(now, state.updated_at)
    _require_usable(invitation, at)
    if command.subject != invitation.subject:
        raise Malformed(
            "the sign-off is for something else than the invitation",
            [Reason("subject", "sign what the invitation is for", "subject")],
        )
    _require_current(state, step, invitation.subject)
    if state.status == "entering" and command.decision == "approve":
        raise Conflict(f"`{step.name}` is being entered; nothing more is to be approved")
    if not may_invite(state, step, invitation.by, invitation.role) or invitation.by in state.barred:
        raise NotPermitted(f"the plan does not let {invitation.by} invite any more")
    for view in verdict(state, step, now).sign_offs:
        if view.person == invitation.reviewer and view.decision == "reject" and view.standing == "counts":
            raise Conflict(f"the rejection of {view.person} stands until they withdraw it")
        counts = view.decision == "approve" and view.standing == "counts"
        if counts and command.decision == "approve" and invitation.by in view.behind:
            raise Conflict(
                f"{invitation.by}, who invited, counts at this gate already, through the sign-off of {view.person}",
                [Reason("counts-already", "one person counts once per gate; ask somebody else to invite")],
            )
    latest = at + step.gate.sign_off_validity
    expires = min(command.expires_at or latest, latest)
    if expires <= at:
        raise Malformed(
            "the sign-off has expired already", [Reason("expired", "give a later expiry", "expires_at")]
        )
    return [
        ev.SignedOff(
            **header(state, command, now),
            step=step.name,
            attempt=state.attempt,
            role=invitation.role,
            decision=command.decision,
            subject=command.subject,
            step_digest=step_digest(step),
            comment=command.comment,
            expires_at=expires,
            envelope=command.envelope,
            invitation=invitation.id,
            acceptance=command.acceptance,
        )
    ]


def _require_usable(invitation: Invitation, at: datetime) -> None:
    if invitation.revoked_at is not None:
        told, code = "was revoked", "revoked"
    elif invitation.used_at is not None:
        told, code = "was used already; it is for one sign-off", "used"
    elif invitation.expires_at <= at:
        told, code = f"expired at {invitation.expires_at:%Y-%m-%d %H:%M} UTC", "expired"
    else:
        return
    raise Conflict(
        f"the invitation {told}",
        [Reason(code, f"ask {invitation.by} for a new one", "invitation")],
    )


def withdraw_invited(state: ReleaseState, command: cmd.WithdrawInvited, now: datetime) -> list[ev.AnyEvent]:
    """An invited reviewer takes their sign-off back. The invitation stays used up."""
    invitation = _of_reviewer(state, command.actor, command.invitation)
    step = require_next(state, command.step)
    standing = state.sign_offs.get(invitation.reviewer)
    if standing is None or standing.invitation != invitation.id:
        raise Conflict(f"{invitation.reviewer} has no standing sign-off on the gate of `{step.name}`")
    return [
        ev.SignOffWithdrawn(
            **header(state, command, now),
            step=step.name,
            attempt=state.attempt,
            comment=command.comment,
            envelope=command.envelope,
        )
    ]
