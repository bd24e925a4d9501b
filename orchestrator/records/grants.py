"""Who has access to what: grants of all releases."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.domain.errors import NotFound
from orchestrator.domain.events import Grant
from orchestrator.records.pages import Page, after, cut, decode_cursor, encode_cursor, page_size
from orchestrator.records.tables import GrantRow


@dataclass(frozen=True, slots=True)
class ReleaseGrant:
    """A grant and the release that it belongs to."""

    release: str
    grant: Grant


def _of(row: GrantRow) -> ReleaseGrant:
    return ReleaseGrant(row.release, Grant.model_validate_json(row.body))


def get(session: Session, release: str, grant: str) -> ReleaseGrant:
    """One grant.

    Raises:
        NotFound: there is none.
    """
    row = session.get(GrantRow, (release, grant))
    if row is None:
        raise NotFound(f"there is no grant {grant} of {release}")
    return _of(row)


def names_holder(session: Session, release: str, holder: str) -> bool:
    """Whether a grant of this release names, or named, this holder: what a partner may know of rests on it."""
    statement = select(col(GrantRow.id)).where(
        col(GrantRow.release) == release, col(GrantRow.holder) == holder
    )
    return session.execute(statement.limit(1)).first() is not None


def of_release(session: Session, release: str, *, live: bool | None = None) -> list[ReleaseGrant]:
    """Grants of a release, in the order in which they were made."""
    statement = select(GrantRow).where(col(GrantRow.release) == release)
    if live is not None:
        statement = statement.where(col(GrantRow.live).is_(live))
    rows = session.execute(statement.order_by(col(GrantRow.made_at), col(GrantRow.id))).scalars()
    return [_of(row) for row in rows]


def of_holder(
    session: Session, holder: str, *, live: bool = True, cursor: str | None = None, limit: int = 50
) -> Page[ReleaseGrant]:
    """Grants of a partner or deployment across releases, newest first.

    Raises:
        Malformed: a cursor of another list, or a limit out of range.
    """
    limit = page_size(limit)
    key = None if cursor is None else decode_cursor(cursor, "grants", datetime, str, str)
    statement = select(GrantRow).where(col(GrantRow.holder) == holder, col(GrantRow.live).is_(live))
    columns = [col(GrantRow.made_at), col(GrantRow.release), col(GrantRow.id)]
    rows = session.execute(after(statement, columns, key, down=True).limit(limit + 1)).scalars().all()
    return cut(rows, limit, _of, lambda row: encode_cursor("grants", row.made_at, row.release, row.id))


def running_out(session: Session, *, before: datetime, limit: int = 500) -> list[ReleaseGrant]:
    """Live grants that end before a time, soonest first: for reminders."""
    statement = (
        select(GrantRow)
        .where(col(GrantRow.live).is_(True), col(GrantRow.not_after) < before)
        .order_by(col(GrantRow.not_after), col(GrantRow.release), col(GrantRow.id))
    )
    return [_of(row) for row in session.execute(statement.limit(limit)).scalars()]
