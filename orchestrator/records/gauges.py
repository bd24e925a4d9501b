"""What the records say in numbers, for metrics: few queries, each over an index or a small table, none over the log.

`gauges` is one consistent snapshot. `log_since` reads the audit log on from an index, so that entries can be counted as
they come, whoever wrote them.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.records import audit, monitors
from orchestrator.records.notice_tables import NoticeChannelRow, NoticeRow, WebhookDeliveryRow
from orchestrator.records.tables import (
    AuditCheckpointRow,
    GateReasonRow,
    GrantRow,
    IncidentRow,
    ReleaseRow,
    WaitRow,
)


@dataclass(frozen=True, slots=True)
class Reason:
    """Releases whose next gate is closed for one reason.

    Attributes:
        count: how many.
        oldest: since when the first of them has been.
        running: of them, those with a clock that runs.
        soonest: when the first of those clocks will be met.
    """

    count: int
    oldest: datetime
    running: int
    soonest: datetime | None


@dataclass(frozen=True, slots=True)
class Gauges:
    """Counts by their labels, as of one moment.

    Attributes:
        releases: (status, stage) → how many.
        on_hold: how many releases are on hold.
        reasons: code of an unmet condition → releases that it keeps closed.
        waits: what → how many things wait for somebody; one that several people can do counts once.
        incidents: (kind, severity, confidence) of open ones → how many.
        grants: (kind, disclosed) of live ones → how many.
        log_size: entries in the audit log.
        checkpoint_size: entries that the last signed checkpoint covers.
        checkpoint_at: when that was signed; None before the first.
        sources: leak source → how far it saw (None: never), and whether it is blind now.
        deliveries: (`webhook`, `mail` or `apprise`; `pending` or `dead`) → how many, and since when the first of them.
    """

    releases: dict[tuple[str, str], int]
    on_hold: int
    reasons: dict[str, Reason]
    waits: dict[str, int]
    incidents: dict[tuple[str, str, str], int]
    grants: dict[tuple[str, bool], int]
    log_size: int
    checkpoint_size: int
    checkpoint_at: datetime | None
    sources: dict[str, tuple[datetime | None, bool]]
    deliveries: dict[tuple[str, str], tuple[int, datetime | None]]


@dataclass(slots=True)
class LogCounts:
    """Entries of the audit log, counted.

    Attributes:
        size: how far the log was read.
        entries: (kind, what) → how many; `what` is the type of an event, the code of a refusal, else the action.
    """

    size: int
    entries: Counter[tuple[str, str]] = field(default_factory=Counter)


def gauges(session: Session) -> Gauges:
    """Everything at once, in a read session."""
    one = select(col(WaitRow.release), col(WaitRow.number), col(WaitRow.what)).distinct().subquery()
    newest = session.execute(
        select(col(AuditCheckpointRow.size), col(AuditCheckpointRow.at))
        .order_by(col(AuditCheckpointRow.size).desc())
        .limit(1)
    ).first()
    held = select(func.count()).select_from(ReleaseRow).where(col(ReleaseRow.on_hold).is_(True))
    live_grants = col(GrantRow.live).is_(True)
    disclosed = col(GrantRow.disclosed_at).is_not(None)
    return Gauges(
        releases=_counted(session, [col(ReleaseRow.status), col(ReleaseRow.stage)]),
        on_hold=session.execute(held).scalar_one(),
        reasons=_reasons(session),
        waits={what: count for (what,), count in _counted(session, [one.c.what]).items()},
        incidents=_counted(
            session,
            [col(IncidentRow.kind), col(IncidentRow.severity), col(IncidentRow.confidence)],
            where=col(IncidentRow.open).is_(True),
        ),
        grants={
            (kind, bool(out)): count
            for (kind, out), count in _counted(
                session, [col(GrantRow.kind), disclosed], where=live_grants
            ).items()
        },
        log_size=audit.head(session).size,
        checkpoint_size=0 if newest is None else newest.size,
        checkpoint_at=None if newest is None else newest.at,
        sources=_sources(session),
        deliveries=_deliveries(session),
    )


def _sources(session: Session) -> dict[str, tuple[datetime | None, bool]]:
    return {
        source.name: (
            None
            if source.last_success is None
            else source.last_success - timedelta(seconds=source.behind_seconds),
            source.trouble is not None or source.last_success is None,
        )
        for source in monitors.list_sources(session)
        if source.configured or source.trouble is not None
    }


def _deliveries(session: Session) -> dict[tuple[str, str], tuple[int, datetime | None]]:
    hook, notice, channel = WebhookDeliveryRow, NoticeRow, NoticeChannelRow
    states = ("pending", "dead")
    found: dict[tuple[str, str], tuple[int, datetime | None]] = {
        (what, state): (0, None) for what in ("webhook", "mail", "apprise") for state in states
    }
    hooks = select(col(hook.status), func.count(), func.min(hook.planned_at)).where(
        col(hook.status).in_(states)
    )
    for status, count, oldest in session.execute(hooks.group_by(col(hook.status))):
        found["webhook", status] = count, oldest
    told = (
        select(col(channel.kind), col(notice.status), func.count(), func.min(notice.planned_at))
        .join(channel, col(channel.id) == col(notice.channel))
        .where(col(notice.status).in_(states))
        .group_by(col(channel.kind), col(notice.status))
    )
    for kind, status, count, oldest in session.execute(told):
        found[kind, status] = count, oldest
    return found


def _counted(session: Session, labels: list[Any], *, where: Any = None) -> dict[Any, int]:
    statement = select(*labels, func.count()).group_by(*labels)
    if where is not None:
        statement = statement.where(where)
    return {tuple(row[:-1]): row[-1] for row in session.execute(statement)}


def _reasons(session: Session) -> dict[str, Reason]:
    reason = GateReasonRow
    rows = session.execute(
        select(
            col(reason.code),
            func.count(),
            func.min(reason.since),
            func.count(col(reason.met_at)),
            func.min(reason.met_at),
        ).group_by(col(reason.code))
    )
    return {row[0]: Reason(row[1], row[2], row[3], row[4]) for row in rows}


def log_end(session: Session) -> LogCounts:
    """Where the log ends now, nothing counted: where counting begins."""
    return LogCounts(audit.head(session).size)


def log_since(session: Session, counts: LogCounts, *, limit: int = 20_000) -> None:
    """Count the entries behind `counts.size`, at most `limit` of them, and move it on."""
    for leaf in audit.leaves(session, counts.size, limit=limit):
        entry = json.loads(leaf.body)
        match leaf.kind:
            case "event":
                what = str(entry["event"]["type"])
            case "refusal":
                what = str(entry.get("code") or "unknown")
            case _:
                what = str(entry.get("action") or "unknown")
        counts.entries[leaf.kind, what] += 1
        counts.size = leaf.index + 1
