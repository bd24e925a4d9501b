"""What a release's events make of its read models: the release's row, grants, incidents, and what waits for whom.

The same code runs when events are written and when everything is made anew from the log, so that both agree. What depends
on the time (`opens_at`, `changes_at`, waits) is as of the moment that it is written; whoever shows it to the second asks
the domain with the state.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.domain.events import AnyEvent, Grant, IncidentClosed, Invited, ReleaseCreated
from orchestrator.domain.evolve import begin, evolve
from orchestrator.domain.gate import verdict
from orchestrator.domain.gate_views import Verdict
from orchestrator.domain.incident import Incident
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.waits import waits
from orchestrator.records.database import upsert
from orchestrator.records.invitations import INVITATION, row_of
from orchestrator.records.tables import GateReasonRow, GrantRow, IncidentRow, ReleaseRow, WaitRow, table

_WAIT = table(WaitRow)
_DROP_WAITS = delete(_WAIT).where(_WAIT.c.release == bindparam("which"))
_ADD_WAITS = insert(_WAIT)
_REASON = table(GateReasonRow)
_READ_REASONS = select(_REASON).where(_REASON.c.release == bindparam("which"))
_DROP_REASONS = delete(_REASON).where(_REASON.c.release == bindparam("which"))
_ADD_REASONS = insert(_REASON)


class Projection:
    """A release's state as it evolves, and what of its read models has changed on the way.

    Attributes:
        state: the state after the last event; None before the first.
    """

    def __init__(self, state: ReleaseState | None) -> None:
        """Begin at a stored state, or before the first event."""
        self.state = state
        self._grants: dict[str, Grant] = {}
        self._incidents: dict[str, Incident] = {}
        self._invited: list[Invited] = []

    def apply(self, events: Iterable[AnyEvent]) -> ReleaseState:
        """Evolve by these events; the state after them.

        Raises:
            ValueError: there is no state yet, and the first event is not `release_created`.
        """
        for event in events:
            before = self.state
            if before is None:
                if not isinstance(event, ReleaseCreated):
                    raise ValueError("a release's history begins with release_created")
                self.state = begin(event)
                continue
            self.state = after = evolve(before, event)
            for name, grant in after.grants.items():
                if before.grants.get(name) is not grant:
                    self._grants[name] = grant
            for name, incident in after.incidents.items():
                if before.incidents.get(name) is not incident:
                    self._incidents[name] = incident
            if isinstance(event, Invited):
                self._invited.append(event)
            if isinstance(event, IncidentClosed) and event.incident not in after.incidents:
                # The state keeps a limited number of closed incidents; the record keeps all.
                done = {"closed_at": event.at, "outcome": event.outcome}
                self._incidents[event.incident] = before.incidents[event.incident].model_copy(update=done)
        if self.state is None:
            raise ValueError("a history without events is no release")
        return self.state

    def write(self, session: Session) -> None:
        """Write the grants and incidents that have changed, and where new invitations belong."""
        assert self.state is not None
        release = self.state.release
        upsert(session, table(GrantRow), [_grant_row(release, grant) for grant in self._grants.values()])
        upsert(session, table(IncidentRow), [_incident_row(release, one) for one in self._incidents.values()])
        upsert(session, INVITATION, [row_of(release, event) for event in self._invited])


def _grant_row(release: str, grant: Grant) -> dict[str, Any]:
    return {
        "release": release,
        "id": grant.id,
        "step": grant.step,
        "holder": grant.holder,
        "holder_kind": grant.holder_kind,
        "kind": grant.kind,
        "live": grant.live,
        "made_at": grant.made_at,
        "not_after": grant.not_after,
        "disclosed_at": grant.disclosed_at,
        "body": grant.model_dump_json(),
    }


def _incident_row(release: str, incident: Incident) -> dict[str, Any]:
    return {
        "release": release,
        "id": incident.id,
        "kind": incident.kind.value,
        "severity": incident.severity.value,
        "confidence": incident.confidence.value,
        "open": incident.open,
        "at": incident.at,
        "summary": incident.summary,
        "body": incident.model_dump_json(),
    }


def next_gate(state: ReleaseState, now: datetime) -> Verdict | None:
    """The verdict on the next step's gate; None when there is none."""
    step = state.next_step
    return None if step is None else verdict(state, step, _moment(state, now))


def release_values(state: ReleaseState, gate: Verdict | None) -> dict[str, Any]:
    """The columns of the release's row; `gate` is `next_gate` of the state."""
    step = state.next_step
    return {
        "id": state.release,
        "name": state.name,
        "version": state.version,
        "name_key": state.name.casefold(),
        "organisation": state.plan.organisation,
        "creator": state.creator,
        "announced": state.plan.announced,
        "status": state.status,
        "stage": str(state.stage),
        "current_step": state.current,
        "next_step": None if step is None else step.name,
        "on_hold": bool(state.holds),
        "open_incidents": len(state.open_incidents),
        "plan_digest": state.plan_digest,
        "seq": state.seq,
        "state": state.model_dump_json(),
        "gate_etag": None if gate is None else gate.etag,
        "opens_at": None if gate is None else gate.opens_at,
        "changes_at": None if gate is None else gate.changes_at,
        "created_at": state.created_at,
        "updated_at": state.updated_at,
    }


def _moment(state: ReleaseState, now: datetime) -> datetime:
    """Never before the last event: clocks of different machines differ."""
    return max(now, state.updated_at)


def write_waits(
    session: Session, state: ReleaseState, now: datetime, gate: Verdict | None, *, first: bool = False
) -> None:
    """Put what the release waits for in the place of what it waited for, and why its gate is closed."""
    _write_reasons(session, state, now, gate, first=first)
    if not first:
        session.connection().execute(_DROP_WAITS, {"which": state.release})
    rows = [
        {
            "release": state.release,
            "number": number,
            "person": person,
            "what": wait.what,
            "message": wait.message,
            "step": wait.step,
            "reference": wait.reference,
            "since": wait.since,
            "due": wait.due,
        }
        for number, wait in enumerate(waits(state, _moment(state, now), gate))
        for person in sorted(set(wait.people))
    ]
    if rows:
        session.connection().execute(_ADD_WAITS, rows)


def _write_reasons(
    session: Session, state: ReleaseState, now: datetime, gate: Verdict | None, *, first: bool
) -> None:
    """Why the next gate is closed. A condition that was unmet before keeps the time since when it has been."""
    connection = session.connection()
    before = (
        {}
        if first
        else {
            row["code"]: row for row in connection.execute(_READ_REASONS, {"which": state.release}).mappings()
        }
    )
    after: dict[str, dict[str, Any]] = {}
    for condition in () if gate is None or state.ended else gate.unmet:
        known, met = before.get(condition.code), condition.met_at
        same = known is not None and gate is not None and known["step"] == gate.step
        row = {
            "release": state.release,
            "code": condition.code,
            "step": "" if gate is None else gate.step,
            "since": known["since"] if known is not None and same else _moment(state, now),
            "met_at": met,
        }
        earlier = after.get(condition.code)
        # of several with one code, the clock that stands or ends last is what the gate waits for
        if earlier is None or (earlier["met_at"] is not None and (met is None or met > earlier["met_at"])):
            after[condition.code] = row
    if {code: dict(row) for code, row in before.items()} == after:
        return
    if before:
        connection.execute(_DROP_REASONS, {"which": state.release})
    if after:
        connection.execute(_ADD_REASONS, list(after.values()))


def refresh(session: Session, state: ReleaseState, now: datetime) -> None:
    """Write again what of a release's read models depends on the time."""
    gate = next_gate(state, now)
    values = release_values(state, gate)
    timed = {name: values[name] for name in ("gate_etag", "opens_at", "changes_at")}
    session.execute(update(table(ReleaseRow)).where(col(ReleaseRow.id) == state.release).values(**timed))
    write_waits(session, state, now, gate)
