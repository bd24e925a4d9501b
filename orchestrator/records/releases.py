"""Releases as the records show them: states, lists, and, from `event_log`, what happened and its one writer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Row, exists, func, select
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.domain.errors import Malformed, NotFound
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import Frozen
from orchestrator.records.event_log import (
    Append,
    Appended,
    HandledCommand,
    StoredEvent,
    append,
    check_events,
    checked_state,
    event_at,
    events,
    feed,
    handled,
    hold,
    last_event,
    rebuild,
)
from orchestrator.records.pages import Page, after, cut, decode_cursor, encode_cursor, page_size
from orchestrator.records.tables import GrantRow, ReleaseRow, WaitRow

__all__ = [
    "Append",
    "Appended",
    "Filter",
    "HandledCommand",
    "Order",
    "ReleaseSummary",
    "StoredEvent",
    "append",
    "check_events",
    "counts",
    "event_at",
    "events",
    "feed",
    "find",
    "handled",
    "hold",
    "last_event",
    "list_releases",
    "load",
    "rebuild",
    "summary",
]


class ReleaseSummary(Frozen):
    """A release as lists show it. `opens_at`: when its next gate opens if nothing changes, as of the last event."""

    id: str
    name: str
    version: str
    organisation: str
    creator: str
    announced: bool
    status: str
    stage: str
    current_step: str | None
    next_step: str | None
    on_hold: bool
    open_incidents: int
    plan_digest: str
    seq: int
    gate_etag: str | None
    opens_at: datetime | None
    changes_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Filter:
    """Which releases a list shows; what is None does not filter.

    Attributes:
        name_prefix: how the name begins, in any case; asks for the order `name`.
        holder: releases in which this partner or deployment has, or had, a grant.
        waiting_for: releases that wait for this person to do something.
    """

    status: str | None = None
    stage: str | None = None
    name_prefix: str | None = None
    holder: str | None = None
    waiting_for: str | None = None


Order = Literal["created", "updated", "name"]

_SUMMARY = [getattr(ReleaseRow, name) for name in ReleaseSummary.model_fields]


def load(session: Session, release: str) -> ReleaseState:
    """The state as of the last event.

    Raises:
        NotFound: there is none.
        RecordsBroken: the stored state is not that of the last event.
    """
    statement = select(col(ReleaseRow.seq), col(ReleaseRow.state)).where(col(ReleaseRow.id) == release)
    row = session.execute(statement).one_or_none()
    if row is None:
        raise NotFound(f"there is no release {release}")
    return checked_state(release, row.seq, row.state)


def summary(session: Session, release: str) -> ReleaseSummary:
    """One release as lists show it.

    Raises:
        NotFound: there is none.
    """
    row = session.execute(select(*_SUMMARY).where(col(ReleaseRow.id) == release)).one_or_none()
    if row is None:
        raise NotFound(f"there is no release {release}")
    return _summary(row)


def find(session: Session, name: str, version: str) -> ReleaseSummary | None:
    """The release of that name and version."""
    statement = select(*_SUMMARY).where(col(ReleaseRow.name) == name, col(ReleaseRow.version) == version)
    row = session.execute(statement).one_or_none()
    return None if row is None else _summary(row)


def _summary(row: Row[Any]) -> ReleaseSummary:
    return ReleaseSummary.model_construct(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it


def list_releases(
    session: Session,
    where: Filter | None = None,
    *,
    order: Order = "created",
    cursor: str | None = None,
    limit: int = 50,
) -> Page[ReleaseSummary]:
    """Releases, newest or last changed first, or by name; a prefix of the name asks for the order by name.

    Raises:
        Malformed: a cursor of another list, or a limit out of range.
    """
    where = where or Filter()
    limit = page_size(limit)
    if where.name_prefix:
        order = "name"
    row = ReleaseRow
    first = {"created": col(row.created_at), "updated": col(row.updated_at), "name": col(row.name_key)}
    if order not in first:
        raise Malformed("releases are ordered by created, updated or name")
    statement = select(*_SUMMARY, col(row.name_key))
    if where.status is not None:
        statement = statement.where(col(row.status) == where.status)
    if where.stage is not None:
        statement = statement.where(col(row.stage) == where.stage)
    if where.name_prefix:
        prefix = where.name_prefix.casefold()
        statement = statement.where(col(row.name_key) >= prefix, col(row.name_key) < prefix + "\U0010ffff")
    if where.holder is not None:  # a holder has few of many releases: begin at its grants
        held = select(col(GrantRow.release)).where(col(GrantRow.holder) == where.holder)
        statement = statement.where(col(row.id).in_(held))
    if where.waiting_for is not None:  # much waits for one person: walk the list, and look whether it does
        waits = exists().where(col(WaitRow.release) == col(row.id), col(WaitRow.person) == where.waiting_for)
        statement = statement.where(waits)
    kind = str if order == "name" else datetime
    key = None if cursor is None else decode_cursor(cursor, order, kind, str)
    statement = after(statement, [first[order], col(row.id)], key, down=order != "name").limit(limit + 1)

    def mark(found: Row[Any]) -> str:
        value = {"created": found.created_at, "updated": found.updated_at, "name": found.name_key}[order]
        return encode_cursor(order, value, found.id)

    def shown(found: Row[Any]) -> ReleaseSummary:
        values = dict(found._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
        del values["name_key"]
        return ReleaseSummary.model_construct(**values)

    rows: Sequence[Any] = session.execute(statement).all()
    return cut(rows, limit, shown, mark)


def counts(session: Session) -> dict[str, int]:
    """How many releases there are of each status."""
    statement = select(col(ReleaseRow.status), func.count()).group_by(col(ReleaseRow.status))
    return {row[0]: row[1] for row in session.execute(statement)}
