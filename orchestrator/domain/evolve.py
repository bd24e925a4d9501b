"""`evolve(state, event) -> state`: what an event changes. Total, and never asks whether it should have happened.

Invariants kept here: `seq` counts the events; clocks are advanced with every event and run exactly while
`access_stands_because` says nothing; a new approach to a gate (entry, rollback) forgets sign-offs and waivers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import reduce
from typing import Any

from orchestrator.domain import events as ev
from orchestrator.domain import state as st
from orchestrator.domain.control import ControlReport
from orchestrator.domain.custody_wait import StandingWait
from orchestrator.domain.stage import Stage
from orchestrator.domain.state import Clock, ReleaseState
from orchestrator.domain.values import digest, statement_digest

_CLOSED_INCIDENTS_KEPT = 100
_REMINDERS_KEPT = 1000


def fold(events: Iterable[ev.AnyEvent]) -> ReleaseState:
    """The state after a whole history, which begins with `release_created`.

    Raises:
        ValueError: the history is empty or begins with something else.
    """
    history = iter(events)
    first = next(history, None)
    if not isinstance(first, ev.ReleaseCreated):
        raise ValueError("a release's history begins with release_created")  # noqa: TRY004 - a history is a value
    return reduce(evolve, history, begin(first))


def begin(event: ev.ReleaseCreated) -> ReleaseState:
    """The state after the first event."""
    return ReleaseState(
        release=event.release,
        name=event.name,
        version=event.version,
        creator=event.by,
        created_at=event.at,
        updated_at=event.at,
        plan=event.plan,
        plan_digest=event.plan_digest,
    )


def evolve(state: ReleaseState, event: ev.AnyEvent) -> ReleaseState:
    """The state after one more event."""
    change = _CHANGES[type(event)](state, event)
    changed = state.model_copy(update={**change, "seq": state.seq + 1, "updated_at": event.at})
    return _tick(state, changed, event)


def apply_events(state: ReleaseState, events: Iterable[ev.AnyEvent]) -> ReleaseState:
    """The state after some more events."""
    return reduce(evolve, events, state)


def _tick(before: ReleaseState, after: ReleaseState, event: ev.AnyEvent) -> ReleaseState:
    """Advance the clocks to the event, and let them run or stand by the state after it."""
    now = event.at
    counted = before.clock.at(now, st.access_ends(before)).total_seconds()
    if isinstance(event, ev.StepEntered | ev.RolledBack):
        counted = 0.0
    runs = st.access_stands_because(after) is None
    held = before.held.at(now).total_seconds()
    return after.model_copy(
        update={
            "clock": Clock(counted=counted, running_since=now if runs else None),
            "held": Clock(counted=held, running_since=now if after.holds else None),
        }
    )


Change = dict[str, Any]


def _artifact(state: ReleaseState, e: ev.ArtifactRegistered) -> Change:
    artifact = st.RegisteredArtifact(
        id=e.artifact,
        manifest_digest=e.manifest_digest,
        components=e.components,
        location=e.location,
        root=e.root,
        size=e.size,
        by=e.by,
        at=e.at,
        shares=e.shares,
    )
    carried = {**state.carried_by, **dict.fromkeys(e.components, e.artifact)}
    kept = {
        name: a for name, a in {**state.artifacts, e.artifact: artifact}.items() if name in carried.values()
    }
    return {"artifacts": kept, "carried_by": carried, "uploaders": sorted({*state.uploaders, e.by})}


def _evidence(state: ReleaseState, e: ev.EvidenceSubmitted) -> Change:
    place = f"{e.evidence.kind}@{e.evidence.step or ''}"
    return {"evidence": {**state.evidence, place: e.evidence}}


def _control(state: ReleaseState, e: ev.ControlReported) -> Change:
    report = ControlReport(in_force=e.in_force, by=e.by, at=e.at, evidence=e.evidence, note=e.note)
    return {"controls": {**state.controls, f"{e.step}/{e.control}": report}}


def _signed(state: ReleaseState, e: ev.SignedOff) -> Change:
    record = st.SignOffRecord(
        person=e.by,
        role=e.role,
        decision=e.decision,
        subject=e.subject,
        step_digest=e.step_digest,
        at=e.at,
        expires_at=e.expires_at,
        on_behalf_of=e.on_behalf_of,
        comment=e.comment,
        statement=statement_digest(e.envelope),
        held_before=state.held.at(e.at).total_seconds(),
        invitation=e.invitation,
        shares=sorted(e.shares),
    )
    used = {"used_at": e.at, "acceptance": e.acceptance}
    return {"sign_offs": {**state.sign_offs, e.by: record}, **_invitation(state, e.invitation, used)}


def _invitation(state: ReleaseState, name: str | None, update: Change) -> Change:
    """A changed invitation; nothing when it is not known (custody passes over what nothing backs)."""
    known = None if name is None else state.invitations.get(name)
    if known is None:
        return {}
    return {"invitations": {**state.invitations, known.id: known.model_copy(update=update)}}


def _invited(state: ReleaseState, e: ev.Invited) -> Change:
    given = e.model_dump(include=set(st.Invitation.model_fields))
    made = st.Invitation(**given, id=e.invitation)
    return {"invitations": {**state.invitations, e.invitation: made}}


def _invitation_revoked(state: ReleaseState, e: ev.InvitationRevoked) -> Change:
    return _invitation(state, e.invitation, {"revoked_at": e.at})


def _withdrawn(state: ReleaseState, e: ev.SignOffWithdrawn) -> Change:
    return {"sign_offs": {person: s for person, s in state.sign_offs.items() if person != e.by}}


def _delegated(state: ReleaseState, e: ev.Delegated) -> Change:
    kept = [d for d in state.delegations if d.until > e.at and (d.person, d.role) != (e.by, e.role)]
    return {"delegations": [*kept, st.Delegation(person=e.by, to=e.to, role=e.role, until=e.until, at=e.at)]}


def _held(state: ReleaseState, e: ev.HoldPlaced) -> Change:
    hold = st.StandingHold(id=e.hold, reason=e.reason, by=e.by, at=e.at, incident=e.incident)
    return {"holds": {**state.holds, e.hold: hold}}


def _lifted(state: ReleaseState, e: ev.HoldsLifted) -> Change:
    return {"holds": {name: hold for name, hold in state.holds.items() if name not in e.holds}}


def _window(state: ReleaseState, e: ev.WindowChanged) -> Change:
    return {"window_required": {**state.window_required, e.step: e.required.total_seconds()}}


def _proposed(state: ReleaseState, e: ev.Proposed) -> Change:
    proposal = st.Proposal(
        id=e.proposal,
        action=e.action,
        payload=e.payload,
        payload_digest=e.payload_digest,
        people={e.by: e.at},
        expires_at=e.expires_at,
    )
    return {"proposals": {**state.proposals, e.proposal: proposal}}


def _endorsed(state: ReleaseState, e: ev.Endorsed) -> Change:
    proposal = state.proposals[e.proposal]
    more = proposal.model_copy(update={"people": {**proposal.people, e.by: e.at}})
    return {"proposals": {**state.proposals, e.proposal: more}}


def _proposal_ended(state: ReleaseState, e: ev.ProposalEnded) -> Change:
    return {"proposals": {name: p for name, p in state.proposals.items() if name != e.proposal}}


def _incident(state: ReleaseState, e: ev.IncidentReported) -> Change:
    return {"incidents": {**state.incidents, e.incident.id: e.incident}}


def _triaged(state: ReleaseState, e: ev.IncidentTriaged) -> Change:
    old = state.incidents[e.incident]
    new = old.model_copy(
        update={
            "severity": e.severity,
            "confidence": e.confidence,
            "partner": e.partner or old.partner,
            "triaged_by": e.by,
            "triaged_at": e.at,
        }
    )
    return {"incidents": {**state.incidents, e.incident: new}}


def _closed(state: ReleaseState, e: ev.IncidentClosed) -> Change:
    done = state.incidents[e.incident].model_copy(update={"closed_at": e.at, "outcome": e.outcome})
    incidents = {**state.incidents, e.incident: done}
    closed = [name for name, incident in incidents.items() if not incident.open]
    for name in closed[: max(len(closed) - _CLOSED_INCIDENTS_KEPT, 0)]:
        del incidents[name]
    return {"incidents": incidents}


def _rotation(state: ReleaseState, e: ev.KeysRotationAsked) -> Change:
    if e.rotation is None:
        return {}
    rotation = st.Rotation(
        id=e.rotation,
        components=e.components,
        artifacts=rotated_artifacts(state, e.components),
        reason=e.reason,
        incident=e.incident,
        delete_old=e.delete_old,
        by=e.by,
        at=e.at,
    )
    return {"rotations": {**state.rotations, e.rotation: rotation}}


def rotated_artifacts(state: ReleaseState, components: Iterable[str]) -> list[str]:
    """What a rotation of these components seals anew: their artifacts, and live grants' own copies of them."""
    asked = set(components)
    bases = {state.carried_by[name] for name in asked if name in state.carried_by}
    copies = {
        copy.artifact
        for grant in state.live_grants()
        for copy in grant.copies
        if copy.of in bases or asked & set(copy.components)
    }
    busy = {name for rotation in state.pending_rotations for name in rotation.artifacts}
    return sorted((bases | copies) - busy)


def _resealed(state: ReleaseState, e: ev.ArtifactResealed) -> Change:
    rotation = state.rotations[e.rotation]
    change: Change = {
        "rotations": {
            **state.rotations,
            e.rotation: rotation.model_copy(update={"done": {**rotation.done, e.artifact: e.new}}),
        }
    }
    new = {"manifest_digest": e.manifest_digest, "location": e.location, "size": e.size}
    if e.grant is None:
        old = state.artifacts[e.artifact]
        change["artifacts"] = {name: a for name, a in state.artifacts.items() if name != e.artifact} | {
            e.new: old.model_copy(update={**new, "id": e.new, "root": None, "at": e.at})
        }
        change["carried_by"] = {
            name: e.new if artifact == e.artifact else artifact for name, artifact in state.carried_by.items()
        }
        digest, location = old.manifest_digest, old.location
    else:
        own = next(copy for copy in state.grants[e.grant].copies if copy.artifact == e.artifact)
        digest, location = own.manifest_digest, own.location
    change["superseded"] = {
        **state.superseded,
        e.artifact: st.Superseded(
            artifact=e.artifact,
            by=e.new,
            manifest_digest=digest,
            location=location,
            at=e.at,
            rotation=e.rotation,
            fate="to_be_deleted" if rotation.delete_old else "kept",
        ),
    }
    change["grants"] = {name: _moved(grant, e, new) for name, grant in state.grants.items()}
    return change


def _moved(grant: ev.Grant, e: ev.ArtifactResealed, new: dict[str, Any]) -> ev.Grant:
    """A grant after an artifact was sealed anew: its envelope of the old one is none any more."""
    update: dict[str, Any] = {}
    if any(copy.artifact == e.artifact or copy.of == e.artifact for copy in grant.copies):
        update["copies"] = [
            copy.model_copy(update={**new, "artifact": e.new})
            if copy.artifact == e.artifact
            else copy.model_copy(update={"of": e.new})
            if copy.of == e.artifact
            else copy
            for copy in grant.copies
        ]
    if grant.live and e.artifact in {*grant.envelopes, *grant.renew}:
        update["envelopes"] = {name: ref for name, ref in grant.envelopes.items() if name != e.artifact}
        update["renew"] = sorted({e.new, *grant.renew} - {e.artifact})
    return grant.model_copy(update=update) if update else grant


def _rotation_ended(state: ReleaseState, e: ev.KeysRotationEnded) -> Change:
    ended = state.rotations[e.rotation].model_copy(update={"ended_at": e.at, "failed": e.failed})
    return {"rotations": {**state.rotations, e.rotation: ended}}


def _sealed_deleted(state: ReleaseState, e: ev.SealedDeleted) -> Change:
    gone = state.superseded[e.artifact].model_copy(update={"fate": "deleted"})
    return {"superseded": {**state.superseded, e.artifact: gone}}


def _renewed(state: ReleaseState, e: ev.EnvelopesRenewed) -> Change:
    grants = dict(state.grants)
    for name in {*e.envelopes, *e.refused}:
        envelopes = {**grants[name].envelopes, **e.envelopes.get(name, {})}
        grants[name] = grants[name].model_copy(update={"envelopes": envelopes, "renew": []})
    return {"grants": grants}


def _nothing(state: ReleaseState, e: ev.AnyEvent) -> Change:
    return {}


def _amended(state: ReleaseState, e: ev.PlanAmended) -> Change:
    return {
        "approached_at": e.at,
        "delegations": [],  # each names the plan that it was given under
        "plan": e.plan,
        "plan_digest": e.plan_digest,
        "window_required": {},
        "proposals": {},
        "waived": [],
        "shut_out": {
            name: entry
            for name, entry in state.shut_out.items()
            if name not in e.plan.partners or digest(e.plan.partners[name]) == entry
        },
    }


def _glass(state: ReleaseState, e: ev.GlassBroken) -> Change:
    review = st.Review(id=e.review, step=e.step, waives=e.waives, reason=e.reason, people=e.people, at=e.at)
    return {
        "reviews": {**state.reviews, e.review: review},
        "waived": sorted({*state.waived, *e.waives}),
    }


def _reviewed(state: ReleaseState, e: ev.ReviewClosed) -> Change:
    return {"reviews": {name: review for name, review in state.reviews.items() if name != e.review}}


def _began(state: ReleaseState, e: ev.EntryBegan) -> Change:
    entering = st.Entering(step=e.step, attempt=e.attempt, subject=e.subject, at=e.at)
    return {"status": "entering", "entry": entering, "entry_failed": None}


def _entered(state: ReleaseState, e: ev.StepEntered) -> Change:
    step = state.plan.step(e.step)
    names = step.component_names if step is not None else []
    stages = {**state.stages, **dict.fromkeys(names, e.stage)}
    reached = {**state.reached}
    for name in names:
        reached[name] = max(reached.get(name, Stage.CLOSED), e.stage)
    grants = {**state.grants, **{grant.id: grant for grant in e.grants}}
    if e.completed:
        grants = {
            name: g
            if not g.live or g.step == e.step
            else g.model_copy(update={"ended_at": e.at, "end": "superseded"})
            for name, g in grants.items()
        }
    subject = None if state.entry is None else state.entry.subject
    signed = [
        st.Signature(
            person=s.person,
            role=s.role,
            at=s.at,
            invited_by=None if s.invitation not in state.invitations else state.invitations[s.invitation].by,
        )
        for s in sorted(state.sign_offs.values(), key=lambda s: s.at)
        if s.decision == "approve" and s.subject == subject
    ]
    line = st.EnteredStep(
        step=e.step,
        stage=e.stage,
        attempt=e.attempt,
        at=e.at,
        signed=signed,
        window_asked=0.0 if step is None else state.window_asked(step).total_seconds(),
        window_counted=state.window_counted(e.at if state.entry is None else state.entry.at).total_seconds(),
    )
    return {
        **_new_attempt(state, e.at),
        "status": "completed" if e.completed else "active",
        "current": e.step,
        "stages": stages,
        "reached": reached,
        "grants": grants,
        "grants_asked": {} if e.completed else state.grants_asked,
        "custody_waits": {} if e.completed else _late_waits(state),
        "access_working": True,
        "access_reason": None,
        "history": [*state.history, line],
    }


def _new_attempt(state: ReleaseState, at: datetime) -> Change:
    return {
        "approached_at": at,
        "attempt": state.attempt + 1,
        "entry": None,
        "entry_failed": None,
        "sign_offs": {},
        "invitations": {},
        "waived": [],
        "custody_waits": _late_waits(state),
    }


def _late_waits(state: ReleaseState, gone: Iterable[str] = ()) -> dict[str, StandingWait]:
    """What late grants wait for, without some of them: an entry that is over waits for nothing."""
    return {
        place: wait
        for place, wait in state.custody_waits.items()
        if wait.partner is not None and place not in gone
    }


def _custody_waits(state: ReleaseState, e: ev.CustodyWaits) -> Change:
    if e.partner is None:
        place, stands = e.step, state.entry is not None and state.entry.step == e.step
    else:
        place = f"{e.step}/{e.partner}"
        stands = place in state.grants_asked
    if not stands:
        return {}
    known = state.custody_waits.get(place)
    wait = StandingWait(
        **e.wait.model_dump(),
        step=e.step,
        attempt=e.attempt,
        partner=e.partner,
        since=e.at if known is None or known.what != e.wait.what else known.since,
    )
    return {"custody_waits": {**state.custody_waits, place: wait}}


def _taken_back(state: ReleaseState, e: ev.EntryTakenBack) -> Change:
    return {
        "status": "active",
        "entry": None,
        "entry_failed": e.reason if e.failed else None,
        "custody_waits": _late_waits(state),
    }


def _retried(state: ReleaseState, e: ev.EntryRetried) -> Change:
    return {"entry_failed": None}


def _grant_asked(state: ReleaseState, e: ev.GrantAsked) -> Change:
    asked = st.AskedGrant(step=e.step, partner=e.partner, by=e.by, at=e.at)
    return {"grants_asked": {**state.grants_asked, f"{e.step}/{e.partner}": asked}}


def _grant_not_made(state: ReleaseState, e: ev.GrantNotMade) -> Change:
    return {"grants_asked": _others(state, e.step, e.partner), **_waits_no_more(state, e.step, e.partner)}


def _waits_no_more(state: ReleaseState, step: str, partner: str) -> Change:
    place = f"{step}/{partner}"
    return {"custody_waits": {name: wait for name, wait in state.custody_waits.items() if name != place}}


def _others(state: ReleaseState, step: str, partner: str) -> dict[str, st.AskedGrant]:
    return {name: asked for name, asked in state.grants_asked.items() if name != f"{step}/{partner}"}


def _granted(state: ReleaseState, e: ev.GrantMade) -> Change:
    grants = {**state.grants, e.grant.id: e.grant}
    if e.replaces is not None and e.replaces in grants and grants[e.replaces].live:
        ended = {"ended_at": e.at, "end": "superseded"}
        grants[e.replaces] = grants[e.replaces].model_copy(update=ended)
    step, holder = e.grant.step, e.grant.holder
    return {
        "grants": grants,
        "grants_asked": _others(state, step, holder),
        **_waits_no_more(state, step, holder),
    }


def _disclosed(state: ReleaseState, e: ev.GrantDisclosed) -> Change:
    grant = state.grants[e.grant].model_copy(update={"disclosed_at": e.at})
    return {"grants": {**state.grants, e.grant: grant}}


def _grant_ended(state: ReleaseState, e: ev.GrantEnded) -> Change:
    grant = state.grants[e.grant].model_copy(update={"ended_at": e.at, "end": e.end})
    change: Change = {"grants": {**state.grants, e.grant: grant}}
    named = state.plan.partners.get(grant.holder)
    if e.end == "revoked" and grant.holder_kind == "partner" and named is not None:
        change["shut_out"] = {**state.shut_out, grant.holder: digest(named)}
    return change


def _end_grants(state: ReleaseState, at: datetime, end: str, steps: set[str]) -> dict[str, ev.Grant]:
    return {
        name: g.model_copy(update={"ended_at": at, "end": end}) if g.live and g.step in steps else g
        for name, g in state.grants.items()
    }


def _rolled_back(state: ReleaseState, e: ev.RolledBack) -> Change:
    keep = state.plan.index(e.to_step)
    stages: dict[str, Stage] = {}
    for step in state.plan.steps[: keep + 1]:
        stages.update(dict.fromkeys(step.component_names, step.stage))
    later = {step.name for step in state.plan.steps[keep + 1 :]}
    return {
        **_new_attempt(state, e.at),
        "status": "active",
        "current": e.to_step,
        "stages": stages,
        "grants": _end_grants(state, e.at, "rolled_back", later),
        "grants_asked": {n: a for n, a in state.grants_asked.items() if a.step not in later},
        "custody_waits": _late_waits(state, [n for n, a in state.grants_asked.items() if a.step in later]),
    }


def _access(state: ReleaseState, e: ev.AccessReported) -> Change:
    return {"access_working": e.working, "access_reason": None if e.working else e.reason}


def _monitor(state: ReleaseState, e: ev.MonitorReported) -> Change:
    return {"monitors": {**state.monitors, e.source: e.last_success}}


def _reminded(state: ReleaseState, e: ev.Reminded) -> Change:
    told = {**state.reminded, e.reminder: e.due}
    for key in list(told)[: max(len(told) - _REMINDERS_KEPT, 0)]:
        del told[key]
    return {"reminded": told}


def _aborted(state: ReleaseState, e: ev.Aborted) -> Change:
    everything = {step.name for step in state.plan.steps}
    return {
        **_new_attempt(state, e.at),
        "status": "aborted",
        "stages": {},
        "grants": _end_grants(state, e.at, "aborted", everything),
        "grants_asked": {},
        "custody_waits": {},
    }


_CHANGES: dict[type[ev.Event], Callable[[ReleaseState, Any], Change]] = {
    ev.ReleaseCreated: _nothing,
    ev.ArtifactRegistered: _artifact,
    ev.EvidenceSubmitted: _evidence,
    ev.ControlReported: _control,
    ev.SignedOff: _signed,
    ev.SignOffWithdrawn: _withdrawn,
    ev.Delegated: _delegated,
    ev.Invited: _invited,
    ev.InvitationRevoked: _invitation_revoked,
    ev.HoldPlaced: _held,
    ev.HoldsLifted: _lifted,
    ev.WindowChanged: _window,
    ev.Proposed: _proposed,
    ev.Endorsed: _endorsed,
    ev.ProposalEnded: _proposal_ended,
    ev.IncidentReported: _incident,
    ev.IncidentTriaged: _triaged,
    ev.IncidentClosed: _closed,
    ev.KeysRotationAsked: _rotation,
    ev.ArtifactResealed: _resealed,
    ev.KeysRotationEnded: _rotation_ended,
    ev.SealedDeleted: _sealed_deleted,
    ev.EnvelopesRenewed: _renewed,
    ev.PlanAmended: _amended,
    ev.GlassBroken: _glass,
    ev.ReviewClosed: _reviewed,
    ev.EntryBegan: _began,
    ev.StepEntered: _entered,
    ev.EntryTakenBack: _taken_back,
    ev.CustodyWaits: _custody_waits,
    ev.EntryRetried: _retried,
    ev.GrantAsked: _grant_asked,
    ev.GrantNotMade: _grant_not_made,
    ev.GrantMade: _granted,
    ev.GrantDisclosed: _disclosed,
    ev.GrantEnded: _grant_ended,
    ev.RolledBack: _rolled_back,
    ev.AccessReported: _access,
    ev.MonitorReported: _monitor,
    ev.Reminded: _reminded,
    ev.Aborted: _aborted,
}
