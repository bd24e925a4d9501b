"""What changes who has access: entries and their end, grants, rollbacks, the release's abort; and what custody waits for."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from orchestrator.domain import events as ev
from orchestrator.domain import state as st
from orchestrator.domain.custody_wait import StandingWait
from orchestrator.domain.evolving import Change, Changes
from orchestrator.domain.stage import Stage
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import digest


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


#: By the kind of event.
CHANGES: Changes = {
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
    ev.Aborted: _aborted,
}
