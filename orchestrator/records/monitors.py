"""Leak sources as they stand: who polls one now, its cursor, whether it sees.

One poll at a time: whoever polls holds a lease. The cursor moves only in the transaction that keeps the candidates, and only
from where the poll began, so that an outage, a crash or a second worker loses none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.domain.errors import NotFound
from orchestrator.records.database import insert_new
from orchestrator.records.monitor_tables import MonitorSourceRow
from orchestrator.records.tables import table

_SOURCE = table(MonitorSourceRow)


@dataclass(frozen=True, slots=True)
class SourceStanding:
    """A source as it stands.

    Attributes:
        configured: whether the leak worker still has a setting for it.
        behind_seconds: how far its finished part is behind the newest entry.
        limits: what the other side said about rates.
        notes: what it left out or found odd, at the last poll.
        trouble, error: why it cannot look; None while it can.
        failing_since: since when it cannot.
        retry_at: when it may be asked again.
    """

    name: str
    kind: str
    configured: bool
    polls: int
    candidates: int
    behind_seconds: float
    trouble: str | None
    error: str | None
    failing_since: datetime | None
    last_attempt: datetime | None
    last_success: datetime | None
    retry_at: datetime | None
    limits: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def _of(row: MonitorSourceRow) -> SourceStanding:
    return SourceStanding(
        name=row.name,
        kind=row.kind,
        configured=row.configured,
        polls=row.polls,
        candidates=row.candidates,
        behind_seconds=row.behind_seconds,
        trouble=row.trouble,
        error=row.error,
        failing_since=row.failing_since,
        last_attempt=row.last_attempt,
        last_success=row.last_success,
        retry_at=row.retry_at,
        limits=json.loads(row.limits),
        notes=json.loads(row.notes),
    )


def list_sources(session: Session) -> list[SourceStanding]:
    """All sources, by name; those too that are named somewhere and cannot be polled."""
    rows = session.execute(select(MonitorSourceRow).order_by(col(MonitorSourceRow.name))).scalars()
    return [_of(row) for row in rows]


def get(session: Session, name: str) -> SourceStanding:
    """One source.

    Raises:
        NotFound: none of that name was ever configured or named.
    """
    row = session.get(MonitorSourceRow, name)
    if row is None:
        raise NotFound(f"there is no leak source {name}")
    return _of(row)


def configure(session: Session, kinds: Mapping[str, str]) -> None:
    """Have a row for each configured source, and mark those that are not any more."""
    for name, kind in kinds.items():
        insert_new(session, _SOURCE, _new(name, kind))
        session.execute(
            update(_SOURCE).where(col(MonitorSourceRow.name) == name).values(kind=kind, configured=True)
        )
    gone = update(_SOURCE).where(col(MonitorSourceRow.name).not_in(list(kinds)))
    session.execute(gone.values(configured=False))


def _new(name: str, kind: str) -> dict[str, Any]:
    row = {column.name: None for column in _SOURCE.columns}
    defaults = {"configured": True, "polls": 0, "candidates": 0, "behind_seconds": 0.0, "limits": "{}"}
    return row | defaults | {"notes": "[]", "name": name, "kind": kind}


def named(session: Session, name: str, at: datetime, told: str) -> None:
    """Note that a plan names a source that this service does not have: it is blind, and shows as blind."""
    row = _new(name, "unknown") | {
        "configured": False,
        "trouble": "setting",
        "error": told,
        "failing_since": at,
    }
    insert_new(session, _SOURCE, row)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to poll a source until the lease ends. `cursor`: where to begin; its text is what a move compares with."""

    source: str
    holder: str
    cursor: dict[str, Any] | None
    text: str | None


#: How far the clocks of two workers may lie apart.
_ASKEW = timedelta(minutes=1)


def lease(
    session: Session, name: str, holder: str, now: datetime, *, at_most: timedelta, every: timedelta
) -> Lease | None:
    """Take a source for polling; None when somebody polls it, it was polled just now, or it asked to be left alone.

    Args:
        session: a write session.
        name: the source.
        holder: who polls; the holder of a lease may take it again.
        now: the time.
        at_most: when the lease ends if the holder dies.
        every: the least time between the begins of two polls.

    What lies further ahead of `now` than clocks differ was written by a clock that was wrong: it keeps nobody from polling,
    or a source would be blind for as long as that clock was ahead.
    """
    done = session.execute(
        update(_SOURCE)
        .where(
            col(MonitorSourceRow.name) == name,
            or_(
                col(MonitorSourceRow.leased_until).is_(None),
                col(MonitorSourceRow.leased_until) <= now,
                col(MonitorSourceRow.leased_until) > now + at_most + _ASKEW,
                col(MonitorSourceRow.leased_by) == holder,
            ),
            or_(col(MonitorSourceRow.retry_at).is_(None), col(MonitorSourceRow.retry_at) <= now),
            or_(
                col(MonitorSourceRow.last_attempt).is_(None),
                col(MonitorSourceRow.last_attempt) <= now - every,
                col(MonitorSourceRow.last_attempt) > now + _ASKEW,
                col(MonitorSourceRow.leased_by) == holder,
            ),
        )
        .values(leased_by=holder, leased_until=now + at_most, last_attempt=now)
    )
    if not done.rowcount:  # type: ignore[attr-defined]
        return None
    return held(session, name, holder)


def held(session: Session, name: str, holder: str) -> Lease:
    """The lease as it stands, with the cursor after what was kept so far.

    Raises:
        NotFound: somebody else holds it.
    """
    statement = select(col(MonitorSourceRow.cursor), col(MonitorSourceRow.leased_by)).where(
        col(MonitorSourceRow.name) == name
    )
    row = session.execute(statement).one_or_none()
    if row is None or row.leased_by != holder:
        raise NotFound(f"the source {name} is polled by somebody else")
    return Lease(name, holder, None if row.cursor is None else json.loads(row.cursor), row.cursor)


def moved(
    session: Session,
    lease: Lease,
    now: datetime,
    *,
    cursor: Mapping[str, Any],
    behind_seconds: float,
    limits: Mapping[str, Any],
    notes: Sequence[str],
    done: bool,
    saw: bool = True,
) -> Lease | None:
    """A poll worked: move the cursor, in the transaction that kept its candidates. None: the lease was lost meanwhile.

    Args:
        session: a write session.
        lease: under which the page was read.
        now: the time: the source saw at this moment.
        cursor: behind what was kept.
        behind_seconds: as in `SourceStanding`.
        limits: as in `SourceStanding`.
        notes: as in `SourceStanding`.
        done: nothing more is to be read at once: the lease is given back.
        saw: the source saw all that it should have; otherwise its last success stays where it was, and `failed` says why.
    """
    text = json.dumps(cursor, sort_keys=True)
    values: dict[str, Any] = {
        "cursor": text,
        "polls": col(MonitorSourceRow.polls) + 1,
        "behind_seconds": behind_seconds,
        "limits": json.dumps(dict(limits)),
        "notes": json.dumps(list(notes)[:20]),
    }
    if saw:
        values |= {
            "trouble": None,
            "error": None,
            "failing_since": None,
            "retry_at": None,
            "last_success": now,
        }
    if done:
        values |= {"leased_by": None, "leased_until": None}
    same = (
        col(MonitorSourceRow.cursor).is_(None)
        if lease.text is None
        else col(MonitorSourceRow.cursor) == lease.text
    )
    moving = session.execute(
        update(_SOURCE)
        .where(
            col(MonitorSourceRow.name) == lease.source, col(MonitorSourceRow.leased_by) == lease.holder, same
        )
        .values(**values)
    )
    if not moving.rowcount:  # type: ignore[attr-defined]
        return None
    return Lease(lease.source, lease.holder, dict(cursor), text)


def counted(session: Session, name: str, new: int) -> None:
    """Count candidates of a source that were not known."""
    session.execute(
        update(_SOURCE)
        .where(col(MonitorSourceRow.name) == name)
        .values(candidates=col(MonitorSourceRow.candidates) + new)
    )


def failed(
    session: Session,
    name: str,
    holder: str,
    now: datetime,
    *,
    trouble: str,
    error: str,
    retry_at: datetime | None,
    limits: Mapping[str, Any],
) -> None:
    """A poll did not work: the source is blind from its last success on. The lease is given back, the cursor stays."""
    row = session.get(MonitorSourceRow, name)
    since = now if row is None or row.failing_since is None else row.failing_since
    session.execute(
        update(_SOURCE)
        .where(col(MonitorSourceRow.name) == name, col(MonitorSourceRow.leased_by) == holder)
        .values(
            trouble=trouble,
            error=error[:2_000],
            failing_since=since,
            retry_at=retry_at,
            limits=json.dumps(dict(limits)),
            leased_by=None,
            leased_until=None,
        )
    )
