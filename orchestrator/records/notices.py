"""Notices: planned from the event log, as webhooks' deliveries are, gathered into messages, and what became of each.

    plan        (`notice_planning`) what happened becomes pending notices, numbered without a gap
    batch       what goes out in one message: an urgent notice alone and at once; the others together, when the first is due
    done        delivered, or dead after the last try (the dead-letter list)
    redrive     dead ones become pending again, in their old message

What a batch is, is fixed before it is first tried, so that a message that is sent again is the same one, with the same id.
Urgent ones and the others are two queues: each keeps its order, and neither waits for the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, cast

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.domain import notices as said
from orchestrator.domain.errors import NotFound
from orchestrator.domain.notices import Notice, Topic
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import Frozen, Instant, Name
from orchestrator.records import audit, releases
from orchestrator.records.claims import Claims
from orchestrator.records.documents import Cipher
from orchestrator.records.notice_channels import Kind, context, owner_of, row_of
from orchestrator.records.notice_planning import Owner, notice_for
from orchestrator.records.notice_tables import NoticeChannelRow, NoticeRow
from orchestrator.records.pages import Page, after, cut, decode_cursor, encode_cursor, page_size
from orchestrator.records.principals import Principal
from orchestrator.records.tables import table

KEPT = timedelta(days=30)
IN_ONE_MESSAGE = 50
Status = Literal["pending", "delivered", "dead", "superseded"]

_CHANNEL, _NOTICE = table(NoticeChannelRow), table(NoticeRow)
_CLAIMS = Claims(_CHANNEL)
claim, release_claim, holds = _CLAIMS.claim, _CLAIMS.release, _CLAIMS.holds


class Told(Frozen):
    """One notice of a channel, and what became of it. `message`: the number of the first notice in its message."""

    number: int
    topic: Topic
    type: str
    release: Name | None
    event: int | None
    message: int | None
    urgent: bool
    status: Status
    attempts: int
    error: str | None
    planned_at: Instant
    due_at: Instant
    done_at: Instant | None


@dataclass(frozen=True, slots=True)
class Item:
    """One notice in a message: what is said, of what, and when it happened."""

    number: int
    release: str | None
    at: datetime
    by: str | None
    notice: Notice


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes out in one message. `number` is that of its first notice, and names the message for good."""

    channel: str
    number: int
    kind: Kind
    attempts: int
    items: tuple[Item, ...]
    address: str = field(repr=False)


# --- delivering --------------------------------------------------------------------------------------------------------


def due(session: Session, now: datetime, kinds: Sequence[Kind]) -> list[str]:
    """Active channels of these kinds that have something to send, and that no worker holds."""
    statement = select(_CHANNEL.c.id).where(
        _CHANNEL.c.active.is_(True),
        _CHANNEL.c.kind.in_(list(kinds)),
        _CHANNEL.c.due_at <= now,
        _CLAIMS.free(now),
    )
    return list(session.execute(statement.order_by(_CHANNEL.c.due_at, _CHANNEL.c.id)).scalars())


def head(session: Session, channel: str, now: datetime, cipher: Cipher) -> Batch | None:
    """What has to be sent to a channel now; None when nothing is, or not yet. Notes when to look again.

    An owner who may see nothing any more gets nothing: the channel is switched off.
    """
    row = row_of(session, channel)
    owner = owner_of(session, row, now)
    if owner is None:
        return None
    wakes: list[datetime] = []
    for urgent in (True, False):
        while True:
            first = _first(session, channel, urgent=urgent)
            if first is None:
                break
            if first.due_at > now:
                wakes.append(first.due_at)
                break
            rows = _fixed(session, first) if first.batch is not None else _gathered(session, first)
            items = _items(session, owner, rows, now, fresh=first.batch is None)
            if items:
                address = cipher.open(row.address, context(channel)).decode()
                number, kind = rows[0].batch or items[0].number, cast("Kind", row.kind)
                return Batch(channel, number, kind, first.attempts, items, address)
    wake = min(wakes, default=None)
    session.execute(update(_CHANNEL).where(_CHANNEL.c.id == channel).values(due_at=wake))
    return None


def _first(session: Session, channel: str, *, urgent: bool) -> NoticeRow | None:
    statement = (
        select(NoticeRow)
        .where(
            col(NoticeRow.channel) == channel,
            col(NoticeRow.status) == "pending",
            col(NoticeRow.urgent).is_(urgent),
        )
        .order_by(col(NoticeRow.number))
        .limit(1)
    )
    return session.execute(statement.execution_options(populate_existing=True)).scalar_one_or_none()


def _fixed(session: Session, first: NoticeRow) -> list[NoticeRow]:
    """The notices of a message that was tried before."""
    statement = select(NoticeRow).where(
        col(NoticeRow.channel) == first.channel,
        col(NoticeRow.status) == "pending",
        col(NoticeRow.batch) == first.batch,
    )
    ordered = statement.order_by(col(NoticeRow.number)).execution_options(populate_existing=True)
    return list(session.execute(ordered).scalars())


def _gathered(session: Session, first: NoticeRow) -> list[NoticeRow]:
    """The notices that go out with the first one of their queue."""
    if first.urgent:
        return [first]
    statement = select(NoticeRow).where(
        col(NoticeRow.channel) == first.channel,
        col(NoticeRow.status) == "pending",
        col(NoticeRow.urgent).is_(False),
        col(NoticeRow.batch).is_(None),
    )
    ordered = statement.order_by(col(NoticeRow.number)).limit(IN_ONE_MESSAGE)
    return list(session.execute(ordered.execution_options(populate_existing=True)).scalars())


def _items(
    session: Session, owner: Owner, rows: list[NoticeRow], now: datetime, *, fresh: bool
) -> tuple[Item, ...]:
    """What the notices of a message say. Before a first try, what does not wait any more is dropped, and the rest is fixed."""
    states: dict[str, ReleaseState] = {}
    items: list[Item] = []
    gone: list[int] = []
    for row in rows:
        item = _item(session, owner, row, states)
        if item is None or (fresh and row.wait is not None and not row.standing):
            gone.append(row.number)
        else:
            items.append(item)
    if gone:
        values = {"status": "superseded", "done_at": now, "error": "it does not stand any more"}
        session.execute(_of_numbers(rows[0].channel, gone).values(**values))
    if fresh and items:
        numbers = [item.number for item in items]
        session.execute(_of_numbers(rows[0].channel, numbers).values(batch=numbers[0]))
    return tuple(items)


def _item(session: Session, owner: Owner, row: NoticeRow, states: dict[str, ReleaseState]) -> Item | None:
    if row.topic == Topic.TEST:
        return Item(row.number, None, row.planned_at, None, Notice(Topic.TEST, "this channel works"))
    if row.event is None:
        notice = said.of_wait(row.type, row.step, row.reference)
        return None if notice is None else Item(row.number, row.release, row.planned_at, None, notice)
    stored = releases.event_at(session, row.event)
    notice = None if stored is None else notice_for(session, owner, stored, states)
    if stored is None or notice is None:
        return None  # records restored to an earlier day, or not theirs any more
    partner = isinstance(owner, Principal) and owner.kind == "partner"
    return Item(row.number, stored.release, stored.event.at, None if partner else stored.event.by, notice)


def note_success(session: Session, batch: Batch, now: datetime) -> None:
    """A message was taken."""
    _done(session, batch, now, status="delivered", error=None)
    session.execute(update(_CHANNEL).where(_CHANNEL.c.id == batch.channel).values(last_success_at=now))


def note_failure(
    session: Session, batch: Batch, *, error: str, again_at: datetime | None, now: datetime
) -> None:
    """A try failed; it is tried again at `again_at`, or (None) goes to the dead-letter list."""
    if again_at is None:
        _done(session, batch, now, status="dead", error=error)
        return
    numbers = [item.number for item in batch.items]
    values = {"attempts": _NOTICE.c.attempts + 1, "error": error[:500], "due_at": again_at}
    session.execute(_of_numbers(batch.channel, numbers).values(**values))


def _done(session: Session, batch: Batch, now: datetime, *, status: Status, error: str | None) -> None:
    numbers = [item.number for item in batch.items]
    told = None if error is None else error[:500]
    values = {"status": status, "attempts": _NOTICE.c.attempts + 1, "error": told, "done_at": now}
    session.execute(_of_numbers(batch.channel, numbers).values(**values))


def _of_numbers(channel: str, numbers: list[int]) -> Any:
    return update(_NOTICE).where(_NOTICE.c.channel == channel, _NOTICE.c.number.in_(numbers))


# --- looking and mending -----------------------------------------------------------------------------------------------


def told(
    session: Session,
    channel: str,
    *,
    status: Status | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[Told]:
    """Notices of a channel, newest first; `dead` ones are the dead-letter list.

    Raises:
        Malformed: a cursor of another list, or a limit out of range.
    """
    limit = page_size(limit)
    key = None if cursor is None else decode_cursor(cursor, "notices", int)
    statement = select(NoticeRow).where(col(NoticeRow.channel) == channel)
    if status is not None:
        statement = statement.where(col(NoticeRow.status) == status)
    statement = after(statement, [col(NoticeRow.number)], key, down=True).limit(limit + 1)
    rows = session.execute(statement.execution_options(populate_existing=True)).scalars().all()
    return cut(rows, limit, _told, lambda row: encode_cursor("notices", row.number))


def _told(row: NoticeRow) -> Told:
    values = {name: getattr(row, name) for name in Told.model_fields if name != "message"}
    return Told.model_validate({**values, "message": row.batch})


def redrive(session: Session, channel: str, *, number: int | None = None, at: datetime, by: str) -> list[int]:
    """Make dead notices pending again, all or those of one message, under their old numbers; which.

    Raises:
        NotFound: that number is not in the dead-letter list.
    """
    row = row_of(session, channel)
    dead = select(_NOTICE.c.number).where(_NOTICE.c.channel == channel, _NOTICE.c.status == "dead")
    if number is not None:
        one = select(_NOTICE.c.batch).where(_NOTICE.c.channel == channel, _NOTICE.c.number == number)
        dead = dead.where(_NOTICE.c.batch == one.scalar_subquery())
    numbers = sorted(session.execute(dead).scalars())
    if number is not None and number not in numbers:
        raise NotFound(f"no dead notice {number} of {channel}")
    if numbers:
        values = {"status": "pending", "attempts": 0, "due_at": at, "done_at": None}
        session.execute(_of_numbers(channel, numbers).values(**values))
        session.execute(update(_CHANNEL).where(_CHANNEL.c.id == channel).values(due_at=at))
        body = {"action": "notices_redriven", "actor": by, "channel": channel, "principal": row.owner}
        audit.append(session, "admin", {**body, "numbers": len(numbers)}, at=at)
    return numbers


def forget(session: Session, *, before: datetime) -> int:
    """Drop notices that were done before a time; dead ones stay, and what still waits (it would be told again). How many."""
    done = session.execute(
        delete(_NOTICE).where(
            _NOTICE.c.status.in_(("delivered", "superseded")),
            _NOTICE.c.standing.is_(False),
            _NOTICE.c.done_at < before,
        )
    )
    return int(done.rowcount)  # type: ignore[attr-defined]
