"""Decisions about caution and its undoing: holds, incidents, and the dear decisions that need a quorum.

Caution is cheap: one authorised person holds or reports, at once, whatever else is going on. Haste is dear: resuming,
shortening, closing a severe incident or a leak, amending and breaking the glass wait as a proposal until enough different
people of the plan stand behind it; the same command from another person, or `Endorse`, adds to it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.commands import PROPOSAL_LIFETIME, Command
from orchestrator.domain.deciding import (
    header,
    require_components,
    require_in_plan,
    require_next,
    require_permission,
    require_service,
    require_signed,
    short_id,
)
from orchestrator.domain.errors import Conflict, NotFound, NotPermitted, PlanRefused, Reason
from orchestrator.domain.evolve import apply_events, evolve
from orchestrator.domain.evolve_keys import rotated_artifacts
from orchestrator.domain.gate import WAIVABLE
from orchestrator.domain.incident import Confidence, Incident, IncidentKind, ResponseAction, Severity
from orchestrator.domain.permissions import Permission
from orchestrator.domain.plan import Plan
from orchestrator.domain.plan_rules import MAX_PLAN_BYTES, all_faults
from orchestrator.domain.state import Proposal, ReleaseState
from orchestrator.domain.values import canonical, digest, parse_duration

Action = Literal["resume", "shorten_window", "close_incident", "amend", "break_glass"]
Signed = Action | Literal["close_review"]

#: The plan that holds and those that are proposed in its place, as canonical JSON; three of the largest.
_PLANS_BYTES = 3 * MAX_PLAN_BYTES

_PERMISSION_OF: dict[Action, Permission] = {
    "resume": Permission.RELEASE_RESUME,
    "shorten_window": Permission.WINDOW_SHORTEN,
    "close_incident": Permission.INCIDENT_CLOSE,
    "amend": Permission.RELEASE_AMEND,
    "break_glass": Permission.RELEASE_BREAK_GLASS,
}


def hold(state: ReleaseState, command: cmd.Hold, now: datetime) -> list[ev.AnyEvent]:
    """Stop all clocks and gates: one authorised person may, at any time."""
    require_permission(command.actor, Permission.RELEASE_HOLD)
    name = short_id("hold", command.command_id)
    return [ev.HoldPlaced(**header(state, command, now), hold=name, reason=command.reason)]


def report_incident(state: ReleaseState, command: cmd.ReportIncident, now: datetime) -> list[ev.AnyEvent]:
    """Open an incident; the plan's response table acts in the same decision."""
    require_permission(command.actor, Permission.INCIDENT_REPORT)
    require_components(state, command.components)
    if command.incident in state.incidents:
        raise Conflict(
            f"an incident {command.incident} is there already",
            [Reason("taken", "choose another id", "incident")],
        )
    if command.confidence is Confidence.FALSE_ALARM:
        raise Conflict(
            "an incident is reported as reported, suspected or confirmed; a false alarm comes from triage"
        )
    at = max(now, state.updated_at)
    incident = Incident(
        id=command.incident,
        kind=command.kind,
        severity=command.severity,
        confidence=command.confidence,
        summary=command.summary,
        components=sorted(command.components),
        partner=command.partner,
        partners=[] if command.partner is None else [command.partner],
        sighting=command.sighting,
        by=command.actor.id,
        at=at,
        quorum=command.kind is IncidentKind.LEAK,
    )
    first = ev.IncidentReported(**header(state, command, now), incident=incident)
    return [first, *_respond(evolve(state, first), command, incident, now, done=frozenset())]


def triage_incident(state: ReleaseState, command: cmd.TriageIncident, now: datetime) -> list[ev.AnyEvent]:
    """Judge an incident; the response table acts on what is worse than it was, or better known."""
    require_permission(command.actor, Permission.INCIDENT_TRIAGE)
    incident = _open_incident(state, command.incident)
    if command.severity.rank < incident.severity.rank and incident.severity is Severity.SEVERE:
        raise Conflict(
            "a severe incident is not made smaller by one person",
            [
                Reason(
                    "dear",
                    "close it by a quorum with an outcome, or mark it a false alarm and close it",
                    "severity",
                )
            ],
        )
    first = ev.IncidentTriaged(
        **header(state, command, now),
        incident=incident.id,
        severity=command.severity,
        confidence=command.confidence,
        partner=command.partner,
        note=command.note,
    )
    after = evolve(state, first)
    done = _actions(state, incident)
    if command.partner is not None and command.partner not in incident.named:
        done -= {ResponseAction.REVOKE_GRANTS}
    return [first, *_respond(after, command, after.incidents[incident.id], now, done=done)]


def report_trace(state: ReleaseState, command: cmd.ReportTrace, now: datetime) -> list[ev.AnyEvent]:
    """Note a trace on its incident; the same one a second time changes nothing. It accuses nobody by itself."""
    require_service(command.actor)
    incident = _open_incident(state, command.incident)
    if incident.kind is not IncidentKind.LEAK:
        raise Conflict(f"the incident {incident.id} is no leak")
    if command.trace in incident.traces:
        return []
    return [ev.IncidentTraced(**header(state, command, now), incident=incident.id, trace=command.trace)]


def _actions(state: ReleaseState, incident: Incident) -> frozenset[ResponseAction]:
    """What the response table asks for; a confirmed leak always holds (DOMAIN.md, "How a release moves")."""
    if incident.confidence is Confidence.FALSE_ALARM:
        return frozenset()
    actions = set(state.plan.responses[incident.severity])
    if incident.kind is IncidentKind.LEAK and incident.confidence is Confidence.CONFIRMED:
        actions.add(ResponseAction.HOLD)
    return frozenset(actions)


def _respond(
    state: ReleaseState, command: Command, incident: Incident, now: datetime, done: frozenset[ResponseAction]
) -> list[ev.AnyEvent]:
    events: list[ev.AnyEvent] = []
    wanted = _actions(state, incident) - done
    reason = f"response to {incident.severity} {incident.kind} incident {incident.id}"
    head = header(state, command, now)
    held = any(h.incident == incident.id for h in state.holds.values())
    if ResponseAction.HOLD in wanted and not held:
        name = short_id("hold", incident.id, command.command_id)
        events.append(ev.HoldPlaced(**head, hold=name, reason=reason, incident=incident.id))
    if ResponseAction.REVOKE_GRANTS in wanted and incident.named:
        events += [
            ev.GrantEnded(
                **head, grant=g.id, end="revoked", disclosed=g.disclosed_at is not None, reason=reason
            )
            for g in state.live_grants()
            if g.holder in incident.named
        ]
    if ResponseAction.ROLL_BACK in wanted and state.stage.serves and state.index > 0:
        back = state.plan.steps[state.index - 1]
        if state.status == "entering" and state.entry is not None:
            events.append(ev.EntryTakenBack(**head, step=state.entry.step, reason=reason))
        events.append(
            ev.RolledBack(
                **head, from_step=state.current or "", to_step=back.name, irrevocable=[], reason=reason
            )
        )
    if ResponseAction.ROTATE_KEYS in wanted:
        components = incident.components or sorted(state.carried_by)
        left = rotated_artifacts(apply_events(state, events), components)
        events.append(
            ev.KeysRotationAsked(
                **head,
                components=components,
                incident=incident.id,
                rotation=short_id("rotation", incident.id, command.command_id) if left else None,
                reason=reason,
            )
        )
    return events


def _open_incident(state: ReleaseState, name: str) -> Incident:
    incident = state.incidents.get(name)
    if incident is None:
        raise NotFound(f"there is no incident {name}")
    if not incident.open:
        raise Conflict(f"the incident {name} is closed")
    return incident


def resume(state: ReleaseState, command: cmd.Resume, now: datetime) -> list[ev.AnyEvent]:
    """Lift the holds that stand now, by a quorum. A hold placed later stands."""
    if not state.holds:
        raise Conflict("nothing is on hold")
    return _propose(state, command, *payload_of(state, command), now, command.envelope)


def shorten_window(state: ReleaseState, command: cmd.ShortenWindow, now: datetime) -> list[ev.AnyEvent]:
    """Ask for less research time, by a quorum."""
    step = require_next(state, command.step)
    if command.to >= state.window_asked(step):
        raise Conflict(
            "that is no shorter than what is asked now", [Reason("longer", "extend it instead", "to")]
        )
    return _propose(state, command, *payload_of(state, command), now, command.envelope)


def close_incident(state: ReleaseState, command: cmd.CloseIncident, now: datetime) -> list[ev.AnyEvent]:
    """Close an incident with an outcome; a severe one, and a leak, by a quorum."""
    incident = _open_incident(state, command.incident)
    if not incident.closed_by_quorum:
        require_permission(command.actor, Permission.INCIDENT_CLOSE)
        require_in_plan(state, command.actor)
        require_signed(state, command.actor.id, command.envelope)
        return [
            ev.IncidentClosed(
                **header(state, command, now),
                incident=incident.id,
                outcome=command.outcome,
                people=[command.actor.id],
                envelope=command.envelope,
            )
        ]
    return _propose(state, command, *payload_of(state, command), now, command.envelope)


def amend(state: ReleaseState, command: cmd.AmendPlan, now: datetime) -> list[ev.AnyEvent]:
    """Replace the plan, by the quorum of the plan that is replaced. Steps that are entered stay as they are."""
    plan = command.plan
    if plan.digest == state.plan_digest:
        raise Conflict("that is the plan that holds already")
    _require_amendable(state, plan)
    return _propose(state, command, *payload_of(state, command), now, command.envelope)


def _require_amendable(state: ReleaseState, plan: Plan) -> None:
    if state.status == "entering":
        raise Conflict("a step is being entered; amend the plan when that is done")
    reasons = all_faults(plan, state.barred)
    entered = state.index + 1
    if plan.steps[:entered] != state.plan.steps[:entered]:
        reasons.append(Reason("entered", "steps that are entered already stay as they are", "steps"))
    reasons += [
        Reason("component-gone", f"`{name}` is registered and cannot be dropped", f"components.{name}")
        for name in sorted(set(state.carried_by) - set(plan.components))
    ]
    if reasons:
        raise PlanRefused("the amended plan is refused", reasons)


def break_glass(state: ReleaseState, command: cmd.BreakGlass, now: datetime) -> list[ev.AnyEvent]:
    """Lift waivable conditions of the next gate, by a quorum; never a person's decision, a hold or an incident."""
    require_next(state, command.step)
    never = sorted(set(command.waives) - WAIVABLE)
    if never:
        told = ", ".join(sorted(WAIVABLE))
        raise Conflict(
            "not to be lifted by break-glass: " + ", ".join(never),
            [Reason("waives", f"only: {told}", "waives")],
        )
    return _propose(state, command, *payload_of(state, command), now, command.envelope)


def close_review(state: ReleaseState, command: cmd.CloseReview, now: datetime) -> list[ev.AnyEvent]:
    """Close the review of a broken glass; by a person of the plan who did not break it."""
    require_permission(command.actor, Permission.RELEASE_BREAK_GLASS)
    require_in_plan(state, command.actor)
    review = state.reviews.get(command.review)
    if review is None:
        raise NotFound(f"there is no open review {command.review}")
    if command.actor.id in review.people:
        raise NotPermitted(f"{command.actor.id} broke the glass; somebody else closes its review")
    require_signed(state, command.actor.id, command.envelope)
    head = header(state, command, now)
    return [ev.ReviewClosed(**head, review=review.id, outcome=command.outcome, envelope=command.envelope)]


def signed_payload(state: ReleaseState, command: Command) -> tuple[Signed, dict[str, Any]]:
    """What a person signs who gives a command: as `payload_of`, and for closing a review.

    Raises:
        Conflict: nothing of the command is signed as an endorsement.
    """
    if isinstance(command, cmd.CloseReview):
        return "close_review", {"review": command.review, "outcome": command.outcome}
    return payload_of(state, command)


def payload_of(state: ReleaseState, command: Command) -> tuple[Action, dict[str, Any]]:
    """What a dear command proposes: the action and its payload, whose canonical digest people sign.

    Raises:
        Conflict: the command proposes nothing.
    """
    match command:
        case cmd.Resume():
            return "resume", {"holds": sorted(state.holds)}
        case cmd.ShortenWindow():
            return "shorten_window", {"step": command.step, "to": command.model_dump(mode="json")["to"]}
        case cmd.CloseIncident():
            return "close_incident", {"incident": command.incident, "outcome": command.outcome}
        case cmd.AmendPlan():
            plan = command.plan
            return "amend", {
                "plan_digest": plan.digest,
                "plan": plan.model_dump(mode="json"),
                "reason": command.reason,
            }
        case cmd.BreakGlass():
            waives = sorted(set(command.waives))
            return "break_glass", {
                "step": command.step,
                "attempt": state.attempt,
                "waives": waives,
                "reason": command.reason,
            }
        case cmd.Endorse() if command.proposal in state.proposals:
            proposal = state.proposals[command.proposal]
            return proposal.action, proposal.payload
        case _:
            raise Conflict("this command proposes nothing that a quorum decides")


def endorse(state: ReleaseState, command: cmd.Endorse, now: datetime) -> list[ev.AnyEvent]:
    """Stand behind a proposal of somebody else."""
    proposal = state.proposals.get(command.proposal)
    if proposal is None or proposal.expires_at <= now:
        raise NotFound(f"there is no open proposal {command.proposal}")
    return _propose(state, command, proposal.action, proposal.payload, now, command.envelope)


def _propose(
    state: ReleaseState,
    command: Command,
    action: Action,
    payload: dict[str, Any],
    now: datetime,
    envelope: str | None,
) -> list[ev.AnyEvent]:
    """Begin a proposal, add a person to it, or carry it out when that makes the quorum."""
    require_permission(command.actor, _PERMISSION_OF[action])
    require_in_plan(state, command.actor)
    person = command.actor.id
    quorum = state.plan.quorums.of(action)
    named = state.plan.people[person]
    if quorum.roles and not set(named.roles) & set(quorum.roles):
        raise NotPermitted(f"the quorum of {action} is made of: {', '.join(quorum.roles)}")
    require_signed(state, person, envelope)
    head = header(state, command, now)
    payload_digest = digest(payload)
    proposal = next(
        (
            p
            for p in state.proposals.values()
            if p.action == action and p.payload_digest == payload_digest and p.expires_at > head["at"]
        ),
        None,
    )
    if proposal is None:
        if action == "amend":
            _require_room(state, payload)
        name = short_id("proposal", action, payload_digest, command.command_id)
        first = ev.Proposed(
            **head,
            proposal=name,
            action=action,
            payload=payload,
            payload_digest=payload_digest,
            expires_at=head["at"] + PROPOSAL_LIFETIME,
            envelope=envelope,
        )
        return [first]
    if person in proposal.people:
        return []
    added = ev.Endorsed(**head, proposal=proposal.id, envelope=envelope)
    people = [name for name in [*proposal.people, person] if _eligible(state, action, name)]
    if len(people) < quorum.count:
        return [added]
    ended = ev.ProposalEnded(**head, proposal=proposal.id, carried=True, people=sorted(people))
    return [added, ended, *_carry_out(state, command, proposal, sorted(people), now)]


def _require_room(state: ReleaseState, payload: dict[str, Any]) -> None:
    """A release carries every plan that is proposed: all of them have to fit into one message."""
    open_ones = {name: p.payload for name, p in state.proposals.items() if p.action == "amend"}
    plans = [state.plan.model_dump(mode="json"), payload, *open_ones.values()]
    if sum(len(canonical(plan)) for plan in plans) > _PLANS_BYTES:
        raise Conflict(
            f"the plans that are proposed already leave no room for another one; together they may have {_PLANS_BYTES} bytes",
            [
                Reason("plans-too-large", f"agree to {name}, or wait until its time is over", "plan")
                for name in sorted(open_ones)
            ],
        )


def _eligible(state: ReleaseState, action: Action, person: str) -> bool:
    named = state.plan.people.get(person)
    roles = state.plan.quorums.of(action).roles
    return named is not None and (not roles or bool(set(named.roles) & set(roles)))


def _carry_out(
    state: ReleaseState, command: Command, proposal: Proposal, people: list[str], now: datetime
) -> list[ev.AnyEvent]:
    head = header(state, command, now)
    payload = proposal.payload
    if proposal.action == "resume":
        lifted = [name for name in payload["holds"] if name in state.holds]
        return [ev.HoldsLifted(**head, holds=lifted, people=people)] if lifted else []
    if proposal.action == "shorten_window":
        step = require_next(state, payload["step"])
        required = parse_duration(payload["to"])
        if required >= state.window_asked(step):
            raise Conflict("that is no shorter than what is asked now")
        return [
            ev.WindowChanged(
                **head, step=step.name, required=required, reason="shortened by a quorum", people=people
            )
        ]
    if proposal.action == "close_incident":
        incident = _open_incident(state, payload["incident"])
        return [ev.IncidentClosed(**head, incident=incident.id, outcome=payload["outcome"], people=people)]
    if proposal.action == "amend":
        plan = Plan.model_validate(payload["plan"])
        _require_amendable(state, plan)
        return [
            ev.PlanAmended(
                **head,
                plan=plan,
                plan_digest=plan.digest,
                previous_digest=state.plan_digest,
                reason=payload["reason"],
                people=people,
            )
        ]
    if payload["attempt"] != state.attempt:
        raise Conflict("that proposal was for an earlier approach to the gate")
    step = require_next(state, payload["step"])
    return [
        ev.GlassBroken(
            **head,
            review=short_id("review", proposal.id),
            step=step.name,
            attempt=state.attempt,
            waives=payload["waives"],
            reason=payload["reason"],
            people=people,
        )
    ]
