"""Which releases concern a leak, and up to where confirmed leaks have been told to them."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.domain.state import ReleaseState
from orchestrator.records.event_log import checked_state
from orchestrator.records.monitor_tables import SpreadRow
from orchestrator.records.tables import ReleaseRow, table

_ONLY = 1
_GOING = ("active", "entering")


def going(session: Session) -> list[str]:
    """Releases that have not ended."""
    statement = select(col(ReleaseRow.id)).where(col(ReleaseRow.status).in_(_GOING))
    return sorted(session.execute(statement).scalars())


def carrying(session: Session, artifacts: list[str]) -> list[ReleaseState]:
    """Releases that have not ended and in whose state one of these names stands: of artifacts, or of manifests."""
    if not artifacts:
        return []
    named = or_(*(col(ReleaseRow.state).contains(f'"{name}"', autoescape=True) for name in artifacts))
    return list(_states(session, named))


def with_open_incidents(session: Session) -> list[ReleaseState]:
    """Releases with open incidents, ended ones too: what leaked stays leaked."""
    return list(_states(session, col(ReleaseRow.open_incidents) > 0, every=True))


def all_going(session: Session) -> list[ReleaseState]:
    """The states of all releases that have not ended."""
    return list(_states(session, None))


def all_standing(session: Session) -> list[ReleaseState]:
    """The states of all releases that were not aborted: what they let out is still out."""
    return list(_states(session, col(ReleaseRow.status) != "aborted", every=True))


def _states(session: Session, where: object, *, every: bool = False) -> Iterator[ReleaseState]:
    statement = select(col(ReleaseRow.id), col(ReleaseRow.seq), col(ReleaseRow.state))
    if not every:
        statement = statement.where(col(ReleaseRow.status).in_(_GOING))
    if where is not None:
        statement = statement.where(where)  # type: ignore[arg-type]
    for row in session.execute(statement.order_by(col(ReleaseRow.id))):
        yield checked_state(row.id, row.seq, row.state)


def told_upto(session: Session) -> int:
    """The last event whose leaks have been told; -1 when none has."""
    return int(session.execute(select(col(SpreadRow.after)).where(col(SpreadRow.id) == _ONLY)).scalar_one())


def tell_upto(session: Session, event: int) -> None:
    """Note that everything up to this event has been told; never goes back."""
    session.execute(
        update(table(SpreadRow))
        .where(col(SpreadRow.id) == _ONLY, col(SpreadRow.after) < event)
        .values(after=event)
    )
