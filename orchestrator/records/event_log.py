"""The event log of releases. `append` is its one writer: exactly once, whatever is retried.

In one transaction: events, the command that made them, their leaves in the audit log, and every read model. The workflow
says where it believes the log to end (`first_seq`):

- the place is free: the events are written there;
- the place is taken by the same command: it was written before and the answer was lost; what stands there is returned;
- the place is taken by another command (a worker was killed after writing): what stands there is returned as `adopted`,
  and the caller evolves from it and decides again;
- the command stands at another place already: nothing is written, and nothing stands at `first_seq` (an empty answer);
- the log ends before it: the database is older than the workflow; refused, and never retried.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, bindparam, delete, func, insert, select, update
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.domain.commands import SERVICE
from orchestrator.domain.errors import Conflict, KeyReused, NotFound
from orchestrator.domain.events import EVENT, AnyEvent, ReleaseCreated
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import canonical
from orchestrator.records import audit, projections
from orchestrator.records.database import insert_new
from orchestrator.records.errors import RecordsBehind, RecordsBroken
from orchestrator.records.tables import CommandRow, EventRow, GrantRow, IncidentRow, ReleaseRow, table

_FIRST = 1

# What every append runs is built once: building statements costs more than running them.
_RELEASE = table(ReleaseRow)
_COMMAND = table(CommandRow)
_HOLD = select(_RELEASE.c.seq, _RELEASE.c.state).where(_RELEASE.c.id == bindparam("which")).with_for_update()
_PUT_RELEASE = update(_RELEASE).where(_RELEASE.c.id == bindparam("which"))
_FIND_COMMAND = select(_COMMAND).where(
    _COMMAND.c.release == bindparam("which"), _COMMAND.c.command_id == bindparam("command")
)
_ADD_COMMAND = insert(_COMMAND)
_ADD_EVENTS = insert(table(EventRow))


@dataclass(frozen=True, slots=True)
class Append:
    """Events of one command, for the place `first_seq` of a release's log. Fields as in `contracts.RecordRequest`."""

    release: str
    first_seq: int
    events: Sequence[AnyEvent]
    command_id: str
    command_type: str
    command_digest: str
    actor: str
    request_id: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """What stands in the log from `first_seq` on. `adopted`: it begins with another command's events."""

    events: list[AnyEvent]
    adopted: bool = False


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event where it stands: `id` orders all releases' events by commit and is the leaf in the audit log."""

    id: int
    release: str
    seq: int
    event: AnyEvent


@dataclass(frozen=True, slots=True)
class HandledCommand:
    """A command that made events, found by its ID past any retention of the workflow's."""

    release: str
    command_id: str
    type: str
    digest: str
    actor: str
    first_seq: int
    seq: int
    events: list[str]
    at: datetime


# --- writing -----------------------------------------------------------------------------------------------------------


def append(session: Session, request: Append, now: datetime) -> Appended:
    """Write events exactly once; see the head of this module.

    Args:
        session: a write session; the caller commits.
        request: the events and their place.
        now: the time for what of the read models depends on it.

    Raises:
        Conflict: the release, or its name and version, exists already.
        KeyReused: the command ID was used for another command.
        Malformed: an event is too long for the log.
        RecordsBehind: the log ends before `first_seq - 1`.
        RecordsBroken: the stored state is not that of the last event.
    """
    if not request.events or request.first_seq < _FIRST:
        raise ValueError("an append needs events, and a place from 1 on")
    stored = _hold(session, request.release)
    if stored is None and request.first_seq == _FIRST:
        created = _create(session, request, now)
        if created is not None:
            return created
        stored = _hold(session, request.release)
    seq = 0 if stored is None else stored.seq
    if request.first_seq <= seq:
        return _standing(session, request)
    if request.first_seq > seq + 1:
        raise RecordsBehind(
            f"the release {request.release} is at event {request.first_seq - 1}, its records end at event {seq}: "
            "an older database was restored; restore the newest one"
        )
    if stored is None:
        raise RecordsBehind(f"the release {request.release} is not in the records")
    known = handled(session, request.release, request.command_id)
    if known is not None:
        _same_command(known, request)
        return Appended([])
    projection = projections.Projection(checked_state(request.release, stored.seq, stored.state))
    state = projection.apply(request.events)
    gate = projections.next_gate(state, now)
    values = projections.release_values(state, gate)
    session.connection().execute(_PUT_RELEASE, {"which": request.release, **values})
    projection.write(session)
    projections.write_waits(session, state, now, gate)
    _write_log(session, request, state)
    return Appended(list(request.events))


def _hold(session: Session, release: str) -> Row[int, str] | None:
    return session.connection().execute(_HOLD, {"which": release}).one_or_none()


def _create(session: Session, request: Append, now: datetime) -> Appended | None:
    """Write a new release; None when somebody else has just done so."""
    first = request.events[0]
    if not isinstance(first, ReleaseCreated) or first.release != request.release:
        raise Conflict(f"the release {request.release} is not in the records, and this does not create it")
    projection = projections.Projection(None)
    state = projection.apply(request.events)
    gate = projections.next_gate(state, now)
    if not insert_new(session, table(ReleaseRow), projections.release_values(state, gate)):
        same = select(col(ReleaseRow.id)).where(
            col(ReleaseRow.name) == state.name, col(ReleaseRow.version) == state.version
        )
        if session.execute(same).scalar_one_or_none() not in {None, request.release}:
            raise Conflict(
                f"a release of `{state.name}` in version `{state.version}` exists already; choose another version"
            )
        return None
    projection.write(session)
    projections.write_waits(session, state, now, gate, first=True)
    _write_log(session, request, state)
    return Appended(list(request.events))


def _standing(session: Session, request: Append) -> Appended:
    """What stands from `first_seq` on, when that place is taken."""
    stored = [found.event for found in events(session, request.release, after=request.first_seq - 1)]
    if not stored:
        raise RecordsBroken(f"the release {request.release} has lost its event {request.first_seq}")
    if stored[0].command_id != request.command_id:
        if request.first_seq == _FIRST:
            raise Conflict(f"there is a release {request.release} already")
        return Appended(stored, adopted=True)
    known = handled(session, request.release, request.command_id)
    if known is not None:
        _same_command(known, request)
    return Appended(stored)


def _same_command(known: HandledCommand, request: Append) -> None:
    # The service's own commands may be made anew with other details by a worker that takes over; theirs is what stands.
    if known.digest != request.command_digest and request.actor != SERVICE.id:
        raise KeyReused(
            f"the command ID {request.command_id} was used for another command ({known.type}) on this release"
        )


def _write_log(session: Session, request: Append, state: ReleaseState) -> None:
    """Command, leaves and events. Last of all, for the head of the log is held from here to the commit."""
    session.connection().execute(
        _ADD_COMMAND,
        {
            "release": request.release,
            "command_id": request.command_id,
            "type": request.command_type,
            "digest": request.command_digest,
            "actor": request.actor,
            "request_id": request.request_id,
            "first_seq": request.first_seq,
            "seq": state.seq,
            "events": json.dumps([event.type for event in request.events]),
            "at": state.updated_at,
        },
    )
    about = {"digest": request.command_digest, "request": request.request_id, "type": request.command_type}
    # what the service does by itself comes from nowhere
    command = canonical(about if request.address is None else {**about, "address": request.address})
    bodies = [canonical(event.model_dump(mode="json")) for event in request.events]
    # Composed in the order of RFC 8785, so that each event is made canonical once.
    leaves = [
        audit.NewLeaf(
            "event",
            b'{"command":%s,"event":%s,"kind":"event","release":%s,"seq":%d}'
            % (command, body, canonical(request.release), seq),
            event.at,
            request.release,
        )
        for seq, (event, body) in enumerate(zip(request.events, bodies, strict=True), request.first_seq)
    ]
    first = audit.append_leaves(session, leaves)
    rows = [
        {
            "id": first + offset,
            "release": request.release,
            "seq": request.first_seq + offset,
            "type": event.type,
            "at": event.at,
            "by": event.by,
            "command_id": event.command_id,
            "body": body.decode(),
        }
        for offset, (event, body) in enumerate(zip(request.events, bodies, strict=True))
    ]
    session.connection().execute(_ADD_EVENTS, rows)


def checked_state(release: str, seq: int, text: str) -> ReleaseState:
    """The stored state, which must be that of the last event.

    Raises:
        RecordsBroken: it is not.
    """
    state = ReleaseState.model_validate_json(text)
    if state.seq != seq or state.release != release:
        raise RecordsBroken(
            f"the stored state of {release} is that of event {state.seq} of {state.release}, not of event {seq}; "
            "make its read models anew from the event log"
        )
    return state


def hold(session: Session, release: str) -> ReleaseState:
    """The state, and nobody else writes to this release until the transaction ends.

    Raises:
        NotFound: there is none.
    """
    stored = _hold(session, release)
    if stored is None:
        raise NotFound(f"there is no release {release}")
    return checked_state(release, stored.seq, stored.state)


def rebuild(session: Session, release: str, now: datetime) -> ReleaseState:
    """Make a release's read models anew from its leaves in the audit log; the state that comes out.

    Raises:
        NotFound: the log has no event of it.
        RecordsBroken: the log's events are not numbered through, or an event row differs from its leaf.
    """
    _hold(session, release)
    history = check_events(session, release)
    projection = projections.Projection(None)
    state = projection.apply(history)
    gate = projections.next_gate(state, now)
    for model in (GrantRow, IncidentRow):
        session.execute(delete(table(model)).where(table(model).c.release == release))
    session.execute(delete(table(ReleaseRow)).where(col(ReleaseRow.id) == release))
    session.execute(insert(table(ReleaseRow)).values(**projections.release_values(state, gate)))
    projection.write(session)
    projections.write_waits(session, state, now, gate)
    return state


def check_events(session: Session, release: str) -> list[AnyEvent]:
    """The release's events from the audit log, when the event rows say the same, byte for byte.

    Raises:
        NotFound: the log has no event of it.
        RecordsBroken: an event is missing, doubled or different; it is named.
    """
    statement = (
        select(col(EventRow.id), col(EventRow.seq), col(EventRow.body))
        .where(col(EventRow.release) == release)
        .order_by(col(EventRow.seq))
    )
    rows = {row.id: row for row in session.execute(statement)}
    history: list[AnyEvent] = []
    for seq, leaf in enumerate(audit.leaves(session, release=release, kind="event"), _FIRST):
        entry = json.loads(leaf.body)
        row = rows.pop(leaf.index, None)
        same = row is not None and (row.seq, row.body.encode()) == (seq, canonical(entry["event"]))
        if entry["seq"] != seq or entry["release"] != release or not same:
            raise RecordsBroken(f"event {seq} of {release} is not what entry {leaf.index} of the log says")
        history.append(EVENT.validate_python(entry["event"]))
    if rows:
        stray = min(row.seq for row in rows.values())
        raise RecordsBroken(f"event {stray} of {release} has no entry in the audit log")
    if not history:
        raise NotFound(f"there is no release {release}")
    return history


# --- reading -----------------------------------------------------------------------------------------------------------


def events(session: Session, release: str, *, after: int = 0, limit: int | None = None) -> list[StoredEvent]:
    """A release's events behind sequence number `after`, in order; none when there is no such release."""
    statement = select(EventRow).where(col(EventRow.release) == release, col(EventRow.seq) > after)
    return _stored(session, statement.order_by(col(EventRow.seq)).limit(limit))


def feed(session: Session, *, after: int = -1, limit: int = 500) -> list[StoredEvent]:
    """All releases' events behind `after`, in the order of their commits: a reader that keeps the last `id` misses none."""
    return _stored(
        session, select(EventRow).where(col(EventRow.id) > after).order_by(col(EventRow.id)).limit(limit)
    )


def since(session: Session, after: int, kinds: Sequence[str], *, upto: int) -> list[StoredEvent]:
    """All releases' events of these types behind `after`, up to and with `upto`, in the order of their commits."""
    statement = select(EventRow).where(
        col(EventRow.id) > after, col(EventRow.id) <= upto, col(EventRow.type).in_(list(kinds))
    )
    return _stored(session, statement.order_by(col(EventRow.id)))


def changed(session: Session, after: int) -> list[str]:
    """Releases with events behind `after`."""
    statement = select(col(EventRow.release)).where(col(EventRow.id) > after).distinct()
    return sorted(session.execute(statement).scalars())


def event_at(session: Session, number: int) -> StoredEvent | None:
    """The event of that `id`; None when there is none."""
    found = _stored(session, select(EventRow).where(col(EventRow.id) == number))
    return found[0] if found else None


def last_event(session: Session) -> int:
    """The `id` of the newest event; -1 when there is none."""
    found = session.execute(select(func.max(col(EventRow.id)))).scalar_one()
    return -1 if found is None else int(found)


def _stored(session: Session, statement: Any) -> list[StoredEvent]:
    rows = session.execute(statement).scalars()
    return [StoredEvent(row.id, row.release, row.seq, EVENT.validate_json(row.body)) for row in rows]


def handled(session: Session, release: str, command_id: str) -> HandledCommand | None:
    """The command with that ID on a release, if it made events: what idempotency rests on."""
    found = session.connection().execute(_FIND_COMMAND, {"which": release, "command": command_id})
    row = found.one_or_none()
    if row is None:
        return None
    return HandledCommand(
        release=row.release,
        command_id=row.command_id,
        type=row.type,
        digest=row.digest,
        actor=row.actor,
        first_seq=row.first_seq,
        seq=row.seq,
        events=json.loads(row.events),
        at=row.at,
    )
