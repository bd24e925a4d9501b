"""What people and outside monitors hand in. Every report is kept, gets a leaf in the audit log, and becomes a candidate."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.domain.values import digest_bytes
from orchestrator.records import audit
from orchestrator.records.database import insert_new
from orchestrator.records.monitor_tables import ReportRow
from orchestrator.records.pages import Page, after, cut, decode_cursor, encode_cursor, page_size
from orchestrator.records.tables import table


@dataclass(frozen=True, slots=True)
class Report:
    """Something handed in: untrusted. Fields as in `artifacts.leaks.watching.Submission`; `queue`: which source reads it."""

    id: str
    queue: str
    what: str
    value: str
    note: str
    contact: str
    via: str
    at: datetime
    position: int = 0


def hand_in(session: Session, report: Report) -> Report:
    """Keep a report at the end of its queue; the same id again is the one that stands.

    The head of the audit log is held until the transaction ends, so that positions grow in the order of commits and a
    reader who has seen one has seen all before it.
    """
    stands = find(session, report.id)
    if stands is not None:
        return stands
    body = {
        "action": "leak_reported",
        "report": report.id,
        "queue": report.queue,
        "what": report.what,
        "value": digest_bytes(report.value.encode()),
        "via": report.via,
    }
    audit.append(session, "admin", body, at=report.at)
    last = session.execute(select(func.max(col(ReportRow.position)))).scalar_one() or 0
    row = {
        "position": last + 1,
        "id": report.id,
        "queue": report.queue,
        "what": report.what,
        "value": report.value,
        "note": report.note,
        "contact": report.contact,
        "via": report.via,
        "at": report.at,
    }
    insert_new(session, table(ReportRow), row)
    found = find(session, report.id)
    assert found is not None
    return found


def find(session: Session, report: str) -> Report | None:
    """A report by its id."""
    row = session.execute(select(ReportRow).where(col(ReportRow.id) == report)).scalar_one_or_none()
    return None if row is None else _of(row)


def behind(session: Session, queue: str, position: int, limit: int) -> list[Report]:
    """Reports of a queue behind a position, in order."""
    statement = (
        select(ReportRow)
        .where(col(ReportRow.queue) == queue, col(ReportRow.position) > position)
        .order_by(col(ReportRow.position))
        .limit(limit)
    )
    return [_of(row) for row in session.execute(statement).scalars()]


def list_reports(session: Session, *, cursor: str | None = None, limit: int = 50) -> Page[Report]:
    """Reports, newest first.

    Raises:
        Malformed: a cursor of another list, or a limit out of range.
    """
    limit = page_size(limit)
    key = None if cursor is None else decode_cursor(cursor, "reports", int)
    rows = (
        session.execute(after(select(ReportRow), [col(ReportRow.position)], key, down=True).limit(limit + 1))
        .scalars()
        .all()
    )
    return cut(rows, limit, _of, lambda row: encode_cursor("reports", row.position))


def _of(row: ReportRow) -> Report:
    return Report(
        row.id, row.queue, row.what, row.value, row.note, row.contact, row.via, row.at, row.position
    )
