"""Planning notices: events behind a channel's position, and what newly waits for its owner, become pending notices.

Position, numbers and rows move in one transaction: what is in the log is planned exactly once. What waits is told once, and again
only when it had gone in between.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.domain import notices as said
from orchestrator.domain.notices import Notice, Topic
from orchestrator.domain.showing import partner_data
from orchestrator.domain.state import ReleaseState
from orchestrator.records import grants, releases
from orchestrator.records.notice_channels import owner_of, row_of
from orchestrator.records.notice_tables import NoticeChannelRow, NoticeRow
from orchestrator.records.principals import Principal
from orchestrator.records.releases import StoredEvent
from orchestrator.records.tables import WaitRow, table

Owner = Principal | Literal["operators"]

_CHANNEL, _NOTICE = table(NoticeChannelRow), table(NoticeRow)


def behind(session: Session) -> list[str]:
    """Active channels that have events to plan."""
    statement = select(_CHANNEL.c.id).where(
        _CHANNEL.c.active.is_(True), _CHANNEL.c.position < releases.last_event(session)
    )
    return list(session.execute(statement.order_by(_CHANNEL.c.id)).scalars())


def plan(session: Session, channel: str, now: datetime, *, gather: timedelta, limit: int = 200) -> int:
    """Turn events behind a channel's position into pending notices, in one transaction; how many events were read.

    Args:
        session: a write session.
        channel: which.
        now: the time.
        gather: for how long what is not urgent waits for company.
        limit: events at most.
    """
    row = row_of(session, channel, hold=True)
    owner = owner_of(session, row, now) if row.active else None
    if owner is None:
        return 0
    found = releases.feed(session, after=row.position, limit=limit)
    if not found:
        return 0
    wanted = [stored for stored in found if row.release in {None, stored.release}]
    planning = _Planning(session, row, owner, now, gather)
    for stored in wanted:
        planning.event(stored)
    if isinstance(owner, Principal) and owner.kind != "partner":
        for release in dict.fromkeys(stored.release for stored in wanted):
            planning.waits(release, owner.id)
    planning.write(found[-1].id)
    return len(found)


def plan_test(session: Session, channel: str, now: datetime) -> int:
    """Plan a notice that only shows that the channel works; its number."""
    row = row_of(session, channel, hold=True)
    planning = _Planning(session, row, "operators", now, timedelta())
    planning.put(None, None, "test", Notice(Topic.TEST, "this channel works", urgent=True))
    planning.write(row.position)
    return row.next_number


class _Planning:
    """Notices of one channel in the making."""

    def __init__(
        self, session: Session, row: NoticeChannelRow, owner: Owner, now: datetime, gather: timedelta
    ) -> None:
        self._session, self._row, self._owner, self._now, self._gather = session, row, owner, now, gather
        self._topics = frozenset(json.loads(row.topics))
        self._states: dict[str, ReleaseState] = {}
        self._rows: list[dict[str, Any]] = []

    def event(self, stored: StoredEvent) -> None:
        notice = self._notice(stored)
        if notice is not None and self._wants(notice):
            self.put(stored.release, stored.id, stored.event.type, notice)

    def waits(self, release: str, person: str) -> None:
        """What newly waits for a person; what does not wait any more may be told again if it comes back."""
        waiting = {
            _wait_key(wait.what, wait.step, wait.reference): wait
            for wait in self._session.execute(
                select(WaitRow).where(col(WaitRow.release) == release, col(WaitRow.person) == person)
            ).scalars()
        }
        told = {
            str(row.wait): int(row.number)
            for row in self._session.execute(
                select(_NOTICE.c.wait, _NOTICE.c.number).where(
                    _NOTICE.c.channel == self._row.id,
                    _NOTICE.c.standing.is_(True),
                    _NOTICE.c.release == release,
                )
            )
        }
        gone = [number for key, number in told.items() if key not in waiting]
        if gone:
            self._session.execute(
                update(_NOTICE)
                .where(_NOTICE.c.channel == self._row.id, _NOTICE.c.number.in_(gone))
                .values(standing=False)
            )
        for key, wait in waiting.items():
            notice = said.of_wait(wait.what, wait.step, wait.reference)
            if key not in told and notice is not None and self._wants(notice):
                more = {"wait": key, "standing": True, "step": wait.step, "reference": wait.reference}
                self.put(release, None, wait.what, notice, **more)

    def put(self, release: str | None, event: int | None, kind: str, notice: Notice, **more: Any) -> None:
        empty = {"wait": None, "standing": False, "step": None, "reference": None}
        self._rows.append(
            {
                "channel": self._row.id,
                "number": self._row.next_number + len(self._rows),
                "event": event,
                "release": release,
                "topic": notice.topic.value,
                "type": kind,
                "urgent": notice.urgent,
                "status": "pending",
                "attempts": 0,
                "planned_at": self._now,
                "due_at": self._now if notice.urgent else self._now + self._gather,
                **empty,
                **more,
            }
        )

    def write(self, position: int) -> None:
        values: dict[str, Any] = {
            "position": position,
            "next_number": self._row.next_number + len(self._rows),
        }
        if self._rows:
            self._session.execute(insert(_NOTICE), self._rows)
            soonest = min(row["due_at"] for row in self._rows)
            if self._row.due_at is None or self._row.due_at > soonest:
                values["due_at"] = soonest
        self._session.execute(update(_CHANNEL).where(_CHANNEL.c.id == self._row.id).values(**values))

    def _wants(self, notice: Notice) -> bool:
        return notice.always or not self._topics or notice.topic.value in self._topics

    def _notice(self, stored: StoredEvent) -> Notice | None:
        return notice_for(self._session, self._owner, stored, self._states)


def notice_for(
    session: Session, owner: Owner, stored: StoredEvent, states: dict[str, ReleaseState]
) -> Notice | None:
    """What an owner is told of an event."""
    if isinstance(owner, Principal) and owner.kind == "partner":
        if owner.partner is None:
            return None
        own = [found.grant for found in grants.of_release(session, stored.release)]
        seen = partner_data(stored.event, owner.partner, own)
        return None if seen is None else said.of_partner(*seen)
    if stored.event.type not in said.RULES:
        return None
    if stored.release not in states:
        states[stored.release] = releases.load(session, stored.release)
    notice = said.of_event(stored.event, states[stored.release])
    if notice is None or owner == "operators":
        return notice
    return notice if notice.concerns(owner.id, states[stored.release]) else None


def _wait_key(what: str, step: str | None, reference: str | None) -> str:
    return f"{what}/{step or ''}/{reference or ''}"
