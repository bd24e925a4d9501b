"""Incidents of all releases, closed ones too."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.domain.errors import NotFound
from orchestrator.domain.incident import Incident
from orchestrator.records.pages import Page, after, cut, decode_cursor, encode_cursor, page_size
from orchestrator.records.tables import IncidentRow


@dataclass(frozen=True, slots=True)
class ReleaseIncident:
    """An incident and the release that it belongs to."""

    release: str
    incident: Incident


def _of(row: IncidentRow) -> ReleaseIncident:
    return ReleaseIncident(row.release, Incident.model_validate_json(row.body))


def get(session: Session, release: str, incident: str) -> ReleaseIncident:
    """One incident.

    Raises:
        NotFound: there is none.
    """
    row = session.get(IncidentRow, (release, incident))
    if row is None:
        raise NotFound(f"there is no incident {incident} of {release}")
    return _of(row)


def list_incidents(
    session: Session,
    *,
    release: str | None = None,
    is_open: bool | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[ReleaseIncident]:
    """Incidents, newest first, of one release or of all.

    Raises:
        Malformed: a cursor of another list, or a limit out of range.
    """
    limit = page_size(limit)
    key = None if cursor is None else decode_cursor(cursor, "incidents", datetime, str, str)
    statement = select(IncidentRow)
    if release is not None:
        statement = statement.where(col(IncidentRow.release) == release)
    if is_open is not None:
        statement = statement.where(col(IncidentRow.open).is_(is_open))
    columns = [col(IncidentRow.at), col(IncidentRow.release), col(IncidentRow.id)]
    rows = session.execute(after(statement, columns, key, down=True).limit(limit + 1)).scalars().all()
    return cut(rows, limit, _of, lambda row: encode_cursor("incidents", row.at, row.release, row.id))
