"""Grants that are made after their step was entered: of a partner who became ready late, renewed, or for a new key.

    make_grant      somebody asks: `grant_asked`, if nothing stands in the way
    complete_grant  the release has looked at the partner and custody has made the envelopes: `grant_made`
    drop_grant      it came to nothing, and why: `grant_not_made`

One authorised person may ask, for the gate's people have agreed to the whole audience. A partner whose grant was revoked
is let in again only by the quorum that amends the plan: revoking is cheap, its undoing is dear. The same `late_faults`
serve the decision, the release's main loop (which stops when one appears) and custody.
"""

from __future__ import annotations

from datetime import datetime

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.decide_access import planned_grants
from orchestrator.domain.deciding import header, require_permission, require_service, require_step
from orchestrator.domain.errors import Conflict, Reason
from orchestrator.domain.evidence import EvidenceKind
from orchestrator.domain.permissions import Permission
from orchestrator.domain.plan import Step
from orchestrator.domain.state import AskedGrant, ReleaseState


def make_grant(state: ReleaseState, command: cmd.MakeGrant, now: datetime) -> list[ev.AnyEvent]:
    """Ask for the grant of a partner in the audience of a step that stands; the current one if none is named.

    Nothing happens while one is being made, or when the partner has one that neither runs out nor could be for another key.

    Raises:
        Conflict: no grant can be made now, with every reason.
    """
    require_permission(command.actor, Permission.GRANT_MAKE)
    step = state.current_step if command.step is None else require_step(state, command.step)
    if step is None:
        raise Conflict("no step has been entered yet, so nobody has access to anything")
    _require_possible(state, step, command.partner)
    asked = state.grants_asked.get(asked_key(step.name, command.partner))
    if asked is not None or _needs_none(state, step, command.partner):
        return []
    return [ev.GrantAsked(**header(state, command, now), step=step.name, partner=command.partner)]


def complete_grant(state: ReleaseState, command: cmd.CompleteGrant, now: datetime) -> list[ev.AnyEvent]:
    """Make the grant that was asked for, if nothing has come in the way; an older one of the partner ends with it.

    Raises:
        Conflict: nobody asked, something stands in the way, or there is no envelope.
    """
    require_service(command.actor)
    step = require_step(state, command.step)
    if asked_key(step.name, command.partner) not in state.grants_asked:
        raise Conflict(f"nobody asks for a grant of {command.partner} at `{step.name}`")
    _require_possible(state, step, command.partner)
    grant = late_grant(state, step, command.partner, command.recipient, max(now, state.updated_at))
    if grant is None or (grant.kind == "key" and not command.envelopes):
        raise Conflict(
            f"{command.partner} has no key yet", [Reason("no-key", "it registers one first", "partner")]
        )
    old = live_grant(state, step, command.partner)
    return [
        ev.GrantMade(
            **header(state, command, now),
            grant=grant.model_copy(update={"envelopes": command.envelopes, "copies": command.copies}),
            replaces=None if old is None else old.id,
        )
    ]


def drop_grant(state: ReleaseState, command: cmd.DropGrant, now: datetime) -> list[ev.AnyEvent]:
    """Say that a grant that was asked for is not made."""
    require_service(command.actor)
    if asked_key(command.step, command.partner) not in state.grants_asked:
        return []
    head = header(state, command, now)
    return [ev.GrantNotMade(**head, step=command.step, partner=command.partner, reason=command.reason)]


def asked_key(step: str, partner: str) -> str:
    """What a grant that was asked for is known by in the state."""
    return f"{step}/{partner}"


def live_grant(state: ReleaseState, step: Step, partner: str) -> ev.Grant | None:
    """The grant that gives a partner access to a step now."""
    found = [g for g in state.live_grants(step.name) if g.holder == partner and g.holder_kind == "partner"]
    return found[-1] if found else None


def late_grant(
    state: ReleaseState, step: Step, partner: str, recipient: str | None, at: datetime
) -> ev.Grant | None:
    """The grant that the plan makes for a partner who is ready, without its envelopes; None: there is no key for it.

    Its id is that of the step's entry; of a later one for the same partner, with a number behind it.
    """
    found = [g for g in planned_grants(state, step, {partner: recipient}, at) if g.holder == partner]
    if not found:
        return None
    return found[0].model_copy(update={"id": late_id(state, step, partner)})


def late_id(state: ReleaseState, step: Step, partner: str) -> str:
    """The id of the next grant of a partner at a step that stands."""
    first = f"{step.name}.{entered_attempt(state, step)}.{partner}"
    name, number = first, 1
    while name in state.grants:
        number += 1
        name = f"{first}.{number}"
    return name


def entered_attempt(state: ReleaseState, step: Step) -> int | None:
    """Which approach entered a step that stands: one that the release is at or past. None: it does not stand."""
    if state.status == "aborted" or state.plan.index(step.name) > state.index:
        return None
    attempts = [entered.attempt for entered in state.history if entered.step == step.name]
    return attempts[-1] if attempts else None


def late_faults(state: ReleaseState, step: Step, partner: str) -> list[Reason]:
    """Everything that stands in the way of a grant for a partner at a step now; empty when nothing does."""
    faults = []
    if entered_attempt(state, step) is None:
        faults.append(Reason("order", f"`{step.name}` is not entered", "step"))
    if partner not in state.plan.audience_partners(step):
        faults.append(Reason("audience", f"{partner} is not in the audience of `{step.name}`", "partner"))
    if partner in state.shut_out:
        told = f"a grant of {partner} was revoked; an amendment of the plan that changes its entry lets it in again"
        faults.append(Reason("revoked", told, "partner"))
    faults += [
        Reason("hold", f"on hold ({hold.id}) by {hold.by}: {hold.reason}") for hold in state.holds.values()
    ]
    if state.pending_rotations:
        faults.append(Reason("rotation", "keys are being rotated; ask again when that is done"))
    faults += [
        Reason("incident", f"the {incident.severity} incident {incident.id} is open")
        for incident in state.open_incidents
        if incident.severe or partner in incident.named
    ]
    for control in step.controls:
        report = state.control_report(step.name, control.kind)
        if control.waived is None and report is not None and not report.in_force:
            faults.append(Reason("control", f"the control {control.kind} of `{step.name}` is not in force"))
    assessment = state.evidence_for(step).get(EvidenceKind.RISK_ASSESSMENT)
    if assessment is not None and assessment.unacceptable:
        faults.append(Reason("risk", f"rated unacceptable: {', '.join(assessment.unacceptable)}"))
    return faults


def asked_faults(state: ReleaseState, asked: AskedGrant) -> list[Reason]:
    """What has come in the way of a grant that was asked for."""
    step = state.plan.step(asked.step)
    if step is None:
        return [Reason("order", f"the plan has no step `{asked.step}`", "step")]
    return late_faults(state, step, asked.partner)


def _require_possible(state: ReleaseState, step: Step, partner: str) -> None:
    faults = late_faults(state, step, partner)
    if faults:
        told = "; ".join(reason.message for reason in faults)
        raise Conflict(f"no grant of {partner} at `{step.name}` can be made now: {told}", faults)


def _needs_none(state: ReleaseState, step: Step, partner: str) -> bool:
    """Whether the grant that a partner has could not become another one."""
    live = live_grant(state, step, partner)
    if live is None or live.not_after is not None:
        return False
    if live.kind == "access":
        return True
    again = late_grant(state, step, partner, None, live.made_at)
    return again is not None and again.recipient == live.recipient
