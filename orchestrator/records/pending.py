"""What waits for whom. Written with every event; what time alone changes is brought up to date by `refresh_due`."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.domain.values import Frozen, Instant, Name
from orchestrator.records import projections, releases
from orchestrator.records.pages import Page, after, cut, decode_cursor, encode_cursor, page_size
from orchestrator.records.tables import ReleaseRow, WaitRow


class Pending(Frozen):
    """One thing that a person can do: `domain.waits.Wait` of one release, for one of its people.

    Attributes:
        what: `sign_off`, `endorse`, `triage`, …
        step: which gate, if it is about one.
        reference: the proposal, incident or review, if it is about one.
        due: by when it matters.
    """

    release: Name
    name: str
    version: str
    what: str
    message: str
    step: Name | None
    reference: str | None
    since: Instant
    due: Instant


def for_person(session: Session, person: str, *, cursor: str | None = None, limit: int = 50) -> Page[Pending]:
    """What waits for a person in all releases, soonest first.

    Raises:
        Malformed: a cursor of another list, or a limit out of range.
    """
    limit = page_size(limit)
    key = None if cursor is None else decode_cursor(cursor, "pending", datetime, str, int)
    statement = (
        select(WaitRow, col(ReleaseRow.name), col(ReleaseRow.version))
        .join(ReleaseRow, col(ReleaseRow.id) == col(WaitRow.release))
        .where(col(WaitRow.person) == person)
    )
    columns = [col(WaitRow.due), col(WaitRow.release), col(WaitRow.number)]
    rows = session.execute(after(statement, columns, key, down=False).limit(limit + 1)).all()
    return cut(
        rows,
        limit,
        lambda row: Pending(
            release=row[0].release,
            name=row[1],
            version=row[2],
            what=row[0].what,
            message=row[0].message,
            step=row[0].step,
            reference=row[0].reference,
            since=row[0].since,
            due=row[0].due,
        ),
        lambda row: encode_cursor("pending", row[0].due, row[0].release, row[0].number),
    )


def due_for_refresh(session: Session, now: datetime, *, limit: int = 100) -> list[str]:
    """Releases whose gate time alone has changed since their last event, longest ago first."""
    statement = (
        select(col(ReleaseRow.id))
        .where(col(ReleaseRow.changes_at) <= now)
        .order_by(col(ReleaseRow.changes_at))
        .limit(limit)
    )
    return list(session.execute(statement).scalars())


def refresh_due(session: Session, now: datetime, *, limit: int = 100) -> int:
    """Bring waits and gate times of such releases up to date in a write session; how many."""
    due = due_for_refresh(session, now, limit=limit)
    for release in sorted(due):  # one order of locking for everybody
        projections.refresh(session, releases.hold(session, release), now)
    return len(due)
