"""What changes when something is wrong, or is watched: holds, incidents, access that fails, monitors, reminders."""

from __future__ import annotations

from orchestrator.domain import events as ev
from orchestrator.domain import state as st
from orchestrator.domain.evolving import Change, Changes
from orchestrator.domain.state import ReleaseState

_CLOSED_INCIDENTS_KEPT = 100
_TRACES_KEPT = 20


_REMINDERS_KEPT = 1000


def _held(state: ReleaseState, e: ev.HoldPlaced) -> Change:
    hold = st.StandingHold(id=e.hold, reason=e.reason, by=e.by, at=e.at, incident=e.incident)
    return {"holds": {**state.holds, e.hold: hold}}


def _lifted(state: ReleaseState, e: ev.HoldsLifted) -> Change:
    return {"holds": {name: hold for name, hold in state.holds.items() if name not in e.holds}}


def _incident(state: ReleaseState, e: ev.IncidentReported) -> Change:
    return {"incidents": {**state.incidents, e.incident.id: e.incident}}


def _triaged(state: ReleaseState, e: ev.IncidentTriaged) -> Change:
    old = state.incidents[e.incident]
    named = old.named
    new = old.model_copy(
        update={
            "severity": e.severity,
            "confidence": e.confidence,
            "partner": e.partner or old.partner,
            "partners": named if e.partner is None or e.partner in named else [*named, e.partner],
            "triaged_by": e.by,
            "triaged_at": e.at,
        }
    )
    return {"incidents": {**state.incidents, e.incident: new}}


def _traced(state: ReleaseState, e: ev.IncidentTraced) -> Change:
    old = state.incidents[e.incident]
    traces = [*old.traces, e.trace][-_TRACES_KEPT:]
    return {"incidents": {**state.incidents, e.incident: old.model_copy(update={"traces": traces})}}


def _closed(state: ReleaseState, e: ev.IncidentClosed) -> Change:
    done = state.incidents[e.incident].model_copy(update={"closed_at": e.at, "outcome": e.outcome})
    incidents = {**state.incidents, e.incident: done}
    closed = [name for name, incident in incidents.items() if not incident.open]
    for name in closed[: max(len(closed) - _CLOSED_INCIDENTS_KEPT, 0)]:
        del incidents[name]
    return {"incidents": incidents}


def _access(state: ReleaseState, e: ev.AccessReported) -> Change:
    return {"access_working": e.working, "access_reason": None if e.working else e.reason}


def _monitor(state: ReleaseState, e: ev.MonitorReported) -> Change:
    return {"monitors": {**state.monitors, e.source: e.last_success}}


def _reminded(state: ReleaseState, e: ev.Reminded) -> Change:
    told = {**state.reminded, e.reminder: e.due}
    for key in list(told)[: max(len(told) - _REMINDERS_KEPT, 0)]:
        del told[key]
    return {"reminded": told}


#: By the kind of event.
CHANGES: Changes = {
    ev.HoldPlaced: _held,
    ev.HoldsLifted: _lifted,
    ev.IncidentReported: _incident,
    ev.IncidentTriaged: _triaged,
    ev.IncidentTraced: _traced,
    ev.IncidentClosed: _closed,
    ev.AccessReported: _access,
    ev.MonitorReported: _monitor,
    ev.Reminded: _reminded,
}
