"""Deliveries of a webhook as people see them, and what people ask of them.

    redrive     dead ones become pending again, with their old numbers
    replay      the position moves back: events are planned once more, under new numbers

Both leave the sending to the worker.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from sqlalchemy import select, update
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.domain.errors import Conflict, NotFound, Reason
from orchestrator.domain.values import Frozen, Instant, Name
from orchestrator.records.notice_tables import WebhookDeliveryRow, WebhookRow
from orchestrator.records.pages import Page, after, cut, decode_cursor, encode_cursor, page_size
from orchestrator.records.tables import table
from orchestrator.records.webhooks import Webhook, get, log_change, row_of

_HOOK = table(WebhookRow)
_DELIVERY = table(WebhookDeliveryRow)
Status = Literal["pending", "delivered", "dead", "superseded"]


class Delivery(Frozen):
    """One event for one endpoint, and what became of it. `answer`: the last HTTP status, if there was an answer."""

    number: int
    event: int
    release: Name
    type: str
    status: Status
    attempts: int
    answer: int | None
    error: str | None
    planned_at: Instant
    due_at: Instant
    done_at: Instant | None


def deliveries(
    session: Session,
    webhook: str,
    *,
    status: Status | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[Delivery]:
    """Deliveries of an endpoint, newest first; `dead` ones are the dead-letter list.

    Raises:
        Malformed: a cursor of another list, or a limit out of range.
    """
    limit = page_size(limit)
    key = None if cursor is None else decode_cursor(cursor, "deliveries", int)
    statement = select(WebhookDeliveryRow).where(col(WebhookDeliveryRow.endpoint) == webhook)
    if status is not None:
        statement = statement.where(col(WebhookDeliveryRow.status) == status)
    statement = after(statement, [col(WebhookDeliveryRow.number)], key, down=True).limit(limit + 1)
    rows = session.execute(statement.execution_options(populate_existing=True)).scalars().all()
    return cut(rows, limit, _delivery, lambda row: encode_cursor("deliveries", row.number))


def redrive(session: Session, webhook: str, *, number: int | None = None, at: datetime, by: str) -> list[int]:
    """Make dead deliveries pending again, one or all, with their old numbers; which.

    Raises:
        NotFound: that number is not in the dead-letter list.
    """
    row = row_of(session, webhook)
    dead = select(_DELIVERY.c.number).where(_DELIVERY.c.endpoint == webhook, _DELIVERY.c.status == "dead")
    if number is not None:
        dead = dead.where(_DELIVERY.c.number == number)
    numbers = sorted(session.execute(dead).scalars())
    if number is not None and not numbers:
        raise NotFound(f"no dead delivery {number} of {webhook}")
    if numbers:
        session.execute(
            update(_DELIVERY)
            .where(_DELIVERY.c.endpoint == webhook, _DELIVERY.c.number.in_(numbers))
            .values(status="pending", attempts=0, due_at=at, done_at=None)
        )
        session.execute(update(_HOOK).where(_HOOK.c.id == webhook).values(due_at=at))
        log_change(session, "webhook_redriven", webhook, row.owner, at, by, numbers=len(numbers))
    return numbers


def replay(session: Session, webhook: str, after_event: int, *, at: datetime, by: str) -> Webhook:
    """Deliver again everything behind an event, under new numbers; what is pending of it is superseded.

    Raises:
        NotFound: there is no such endpoint.
        Conflict: the event lies ahead of what was planned.
    """
    row = row_of(session, webhook, hold=True)
    if after_event > row.position:
        raise Conflict(
            f"{webhook} is at event {row.position}",
            [Reason("ahead", "replay begins behind an event that was planned already", "after")],
        )
    session.execute(
        update(_DELIVERY)
        .where(
            _DELIVERY.c.endpoint == webhook,
            _DELIVERY.c.status == "pending",
            _DELIVERY.c.event > after_event,
        )
        .values(status="superseded", done_at=at)
    )
    session.execute(update(_HOOK).where(_HOOK.c.id == webhook).values(position=after_event))
    log_change(session, "webhook_replayed", webhook, row.owner, at, by, after=after_event)
    return get(session, webhook)


def _delivery(row: WebhookDeliveryRow) -> Delivery:
    return Delivery.model_validate({name: getattr(row, name) for name in Delivery.model_fields})
