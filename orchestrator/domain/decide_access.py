"""Decisions about access: entering a step, grants, revocation, rollback, abort.

A revocation is never blocked: not by a hold, closed hours, an incident or an entry in progress. What cannot be taken
back is said: an ended grant tells whether its key was out, a rollback names the irrevocable components.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.deciding import header, require_permission, require_service, require_step
from orchestrator.domain.errors import Conflict, NotFound, Reason
from orchestrator.domain.gate import still_holds
from orchestrator.domain.permissions import Permission
from orchestrator.domain.plan import Step, recipient_digest
from orchestrator.domain.stage import Stage
from orchestrator.domain.state import ReleaseState


def complete_entry(state: ReleaseState, command: cmd.CompleteEntry, now: datetime) -> list[ev.AnyEvent]:
    """Enter the step, in one event, if the gate still holds."""
    require_service(command.actor)
    if state.entry is None or state.entry.step != command.step:
        raise Conflict(f"`{command.step}` is not being entered")
    step = require_step(state, command.step)
    gone = still_holds(state, step, now)
    if gone:
        reasons = [Reason(condition.code, condition.message, "step") for condition in gone]
        raise Conflict(f"the gate of `{step.name}` does not hold any more", reasons)
    recipients = {ready.partner: ready.recipient for ready in command.partners}
    grants = [
        grant.model_copy(
            update={
                "envelopes": command.envelopes.get(grant.id, {}),
                "copies": command.copies.get(grant.id, []),
            }
        )
        for grant in planned_grants(state, step, recipients, max(now, state.updated_at))
        if grant.holder_kind != "partner" or grant.holder not in command.absent
    ]
    unsealed = [grant.id for grant in grants if grant.kind == "key" and not grant.envelopes]
    if unsealed:
        raise Conflict("no envelope was made for: " + ", ".join(unsealed))
    have = {grant.holder for grant in grants}
    return [
        ev.StepEntered(
            **header(state, command, now),
            step=step.name,
            stage=step.stage,
            attempt=state.entry.attempt,
            grants=grants,
            waiting_partners=[name for name in state.plan.audience_partners(step) if name not in have],
            completed=step.stage is Stage.OPEN,
        )
    ]


def planned_grants(
    state: ReleaseState, step: Step, recipients: dict[str, str | None], at: datetime
) -> list[ev.Grant]:
    """The grants that entering `step` makes, without their envelopes. Equal arguments give equal grants.

    Args:
        state: the release, entering or just about to.
        step: the step.
        recipients: partners that are ready (they accepted the terms) → digest of the registered recipient, used for
            those that the plan does not pin a key of.
        at: when they are made (aware).
    """
    not_after = None if step.grant_validity is None else at + step.grant_validity
    keyed = state.plan.keyed_components(step, "audience")
    served = state.plan.keyed_components(step, "deployments")

    def grant(
        holder: str, holder_kind: str, kind: str, components: list[str], recipient: str | None
    ) -> ev.Grant:
        return ev.Grant.model_validate(
            {
                "id": f"{step.name}.{state.attempt}.{holder}",
                "step": step.name,
                "holder": holder,
                "holder_kind": holder_kind,
                "kind": kind,
                "components": components,
                "recipient": recipient,
                "made_at": at,
                "not_after": not_after if holder_kind == "partner" else None,
                "disclosed_at": at if kind == "public" else None,
            }
        )

    made = []
    if served:
        for name in step.deployments:
            recipient = recipient_digest(state.plan.deployments[name].recipient)
            made.append(grant(name, "deployment", "key", served, recipient))
    if step.audience == "public":
        made.append(
            grant("public", "public", "public" if keyed else "access", keyed or step.component_names, None)
        )
    for name in state.plan.audience_partners(step):
        if name in state.shut_out:
            continue  # whoever revokes shuts out; only the quorum that amends the plan lets in again
        if name not in recipients and _terms(state, step, name):
            continue  # it has not accepted what it has to before a grant
        pinned = state.plan.partners[name].recipient
        recipient_of = recipient_digest(pinned) if pinned is not None else None
        if recipient_of is None and state.plan.partner_keys == "registered":
            recipient_of = recipients.get(name)
        if not keyed:
            made.append(grant(name, "partner", "access", step.component_names, None))
        elif recipient_of is not None:
            made.append(grant(name, "partner", "key", keyed, recipient_of))
    return made


def _terms(state: ReleaseState, step: Step, partner: str) -> bool:
    """Whether a group through which a partner is in the audience asks for terms."""
    groups = [state.plan.partner_groups[name] for name in step.partner_groups]
    return any(group.terms for group in groups if partner in group.partners)


def take_back_entry(state: ReleaseState, command: cmd.TakeBackEntry, now: datetime) -> list[ev.AnyEvent]:
    """Say that an entry was undone."""
    require_service(command.actor)
    if state.entry is None or state.entry.step != command.step:
        return []
    head = header(state, command, now)
    return [ev.EntryTakenBack(**head, step=command.step, reason=command.reason, failed=command.failed)]


def note_custody_wait(state: ReleaseState, command: cmd.NoteCustodyWait, now: datetime) -> list[ev.AnyEvent]:
    """Say what custody waits for; nothing when that is known, or when what it would be for is over."""
    require_service(command.actor)
    if command.partner is None:
        place = command.step
        stands = state.entry is not None and (state.entry.step, state.entry.attempt) == (
            command.step,
            command.attempt,
        )
    else:
        place = f"{command.step}/{command.partner}"
        stands = place in state.grants_asked
    known = state.custody_waits.get(place)
    if not stands or (known is not None and known.wait == command.wait):
        return []
    return [
        ev.CustodyWaits(
            **header(state, command, now),
            step=command.step,
            attempt=command.attempt,
            partner=command.partner,
            wait=command.wait,
        )
    ]


def retry_entry(state: ReleaseState, command: cmd.RetryEntry, now: datetime) -> list[ev.AnyEvent]:
    """Try an entry again that was taken back."""
    require_permission(command.actor, Permission.GATE_RETRY)
    if state.entry_failed is None or state.next_step is None or state.next_step.name != command.step:
        raise Conflict(f"no entry of `{command.step}` was taken back")
    return [ev.EntryRetried(**header(state, command, now), step=command.step)]


def disclose(state: ReleaseState, command: cmd.DiscloseGrant, now: datetime) -> list[ev.AnyEvent]:
    """Note that a key is handed over. Written before the envelope leaves, so that no disclosure goes unknown."""
    require_service(command.actor)
    grant = _grant(state, command.grant)
    if not grant.live or (grant.not_after is not None and grant.not_after <= now):
        raise Conflict(f"the grant {grant.id} gives no access any more")
    if grant.kind == "access":
        raise Conflict(f"the grant {grant.id} carries no key")
    if state.holds:
        raise Conflict(
            "the release is on hold: no key is handed over",
            [Reason("hold", "wait until it is resumed", "grant")],
        )
    if grant.disclosed_at is not None:
        return []
    return [ev.GrantDisclosed(**header(state, command, now), grant=grant.id)]


def _grant(state: ReleaseState, name: str) -> ev.Grant:
    grant = state.grants.get(name)
    if grant is None:
        raise NotFound(f"there is no grant {name}")
    return grant


def revoke(state: ReleaseState, command: cmd.Revoke, now: datetime) -> list[ev.AnyEvent]:
    """End one grant, or all of a holder. Never blocked; revoking what has ended already changes nothing."""
    require_permission(command.actor, Permission.GRANT_REVOKE)
    if (command.grant is None) == (command.partner is None):
        raise Conflict("name either one grant or one partner", [Reason("target", "one of the two", "grant")])
    if command.grant is not None:
        targets: Iterable[ev.Grant] = [_grant(state, command.grant)]
    else:
        targets = [g for g in state.grants.values() if g.holder == command.partner]
        if not targets:
            raise NotFound(f"{command.partner} has no grant of this release")
    return [
        ev.GrantEnded(
            **header(state, command, now),
            grant=grant.id,
            end="revoked",
            disclosed=grant.disclosed_at is not None,
            reason=command.reason,
        )
        for grant in targets
        if grant.live
    ]


def expire(state: ReleaseState, command: cmd.Expire, now: datetime) -> list[ev.AnyEvent]:
    """End what has run out: grants past `not_after`, proposals that never found their quorum."""
    require_service(command.actor)
    head = header(state, command, now)
    ended: list[ev.AnyEvent] = [
        ev.GrantEnded(
            **head, grant=g.id, end="expired", disclosed=g.disclosed_at is not None, reason="its time is over"
        )
        for g in state.live_grants()
        if g.not_after is not None and g.not_after <= now
    ]
    ended += [
        ev.ProposalEnded(**head, proposal=p.id, carried=False, people=sorted(p.people))
        for p in state.proposals.values()
        if p.expires_at <= now
    ]
    return ended


def irrevocable(state: ReleaseState, keep_steps: int) -> list[str]:
    """Components that stay out if only the first `keep_steps` steps remain: their key or plaintext has left."""
    later = {step.name for step in state.plan.steps[keep_steps:]}
    out: set[str] = set()
    for grant in state.grants.values():
        left = grant.kind == "public" or (grant.disclosed_at is not None and grant.holder_kind == "partner")
        if grant.step in later and left:
            out.update(grant.components)
    return sorted(out)


def roll_back(state: ReleaseState, command: cmd.RollBack, now: datetime) -> list[ev.AnyEvent]:
    """Go back to an earlier step. One authorised person may, at any time."""
    require_permission(command.actor, Permission.RELEASE_ROLLBACK)
    target = require_step(state, command.to, "to")
    place = state.plan.index(target.name)
    head = header(state, command, now)
    events: list[ev.AnyEvent] = []
    if state.entry is not None:
        events.append(ev.EntryTakenBack(**head, step=state.entry.step, reason=command.reason))
    if place == state.index and events:
        return events
    if place >= state.index or state.current is None:
        raise Conflict(
            f"`{target.name}` is not behind the current step", [Reason("order", "name an earlier step", "to")]
        )
    gone = irrevocable(state, place + 1)
    rolled = ev.RolledBack(
        **head, from_step=state.current, to_step=target.name, irrevocable=gone, reason=command.reason
    )
    return [*events, rolled]


def abort(state: ReleaseState, command: cmd.Abort, now: datetime) -> list[ev.AnyEvent]:
    """End the release for good. One authorised person may, at any time."""
    require_permission(command.actor, Permission.RELEASE_ABORT)
    head = header(state, command, now)
    events: list[ev.AnyEvent] = []
    if state.entry is not None:
        events.append(ev.EntryTakenBack(**head, step=state.entry.step, reason=command.reason))
    return [*events, ev.Aborted(**head, reason=command.reason, irrevocable=irrevocable(state, 0))]


def report_access(state: ReleaseState, command: cmd.ReportAccess, now: datetime) -> list[ev.AnyEvent]:
    """Note an outage or its end; nothing when that is known already."""
    require_permission(command.actor, Permission.ACCESS_REPORT)
    if command.working == state.access_working:
        return []
    return [ev.AccessReported(**header(state, command, now), working=command.working, reason=command.reason)]


def report_monitor(state: ReleaseState, command: cmd.ReportMonitor, now: datetime) -> list[ev.AnyEvent]:
    """Note when a leak source last worked; only what a gate of the plan asks for, and no oftener than matters."""
    require_service(command.actor)
    limits = [m.max_blind for s in state.plan.steps for m in s.gate.monitors if m.source == command.source]
    if not limits or command.last_success > now:
        return []
    known = state.monitors.get(command.source)
    if known is not None and command.last_success - known < min(limits) / 4:
        return []
    head = header(state, command, now)
    return [ev.MonitorReported(**head, source=command.source, last_success=command.last_success)]
