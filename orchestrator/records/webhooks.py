"""Webhook endpoints and what is delivered to each.

Deliveries are not written beside events: they are planned from the event log, from each endpoint's own position. What is in
the log is planned exactly once, because position, numbers and rows move in one transaction; nothing can be missing or double.

    plan        events behind the endpoint's position become pending deliveries, numbered without a gap
    head        the lowest pending number: the only one that is tried, so that order is kept per endpoint
    done        delivered, or dead after its last try; then the next number is the head
    redrive     dead ones become pending again, with their old numbers
    replay      the position moves back: events are planned once more, under new numbers

A secret is shown once, when it is made. At rest it is sealed, bound to its endpoint.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.domain.errors import Conflict, NotFound, Reason
from orchestrator.domain.permissions import Permission
from orchestrator.domain.showing import event_data, partner_data
from orchestrator.domain.values import Frozen, Instant, Name
from orchestrator.records import audit, grants, principals, releases
from orchestrator.records.claims import Claims
from orchestrator.records.documents import Cipher
from orchestrator.records.notice_tables import WebhookDeliveryRow, WebhookRow
from orchestrator.records.pages import Page, after, cut, decode_cursor, encode_cursor, page_size
from orchestrator.records.principals import Principal
from orchestrator.records.releases import StoredEvent
from orchestrator.records.tables import table

SECRET_PREFIX = "whsec_"  # noqa: S105 - the published prefix of such secrets
PER_OWNER = 20
KEPT = timedelta(days=30)
Status = Literal["pending", "delivered", "dead", "superseded"]

_HOOK = table(WebhookRow)
_DELIVERY = table(WebhookDeliveryRow)
_CLAIMS = Claims(_HOOK)
claim, release_claim, holds = _CLAIMS.claim, _CLAIMS.release, _CLAIMS.holds


class Webhook(Frozen):
    """An endpoint, without its secret.

    Attributes:
        types: event types that are delivered; empty: all.
        release: only events of this release; None: of all that the owner may see.
        off_reason: why it was switched off; None while it is active.
        position: the event up to which deliveries are planned.
        next_number: the number of the next delivery; numbers count from 1 without a gap.
        overlap_until: until when the secret before the last rotation signs too.
    """

    id: str
    owner: Name
    url: str
    types: list[str]
    release: Name | None
    active: bool
    off_reason: str | None
    position: int
    next_number: int
    overlap_until: Instant | None
    last_success_at: Instant | None
    created_at: Instant
    created_by: Name


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


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent: the body, and the secrets that sign it (the newest first)."""

    id: str
    number: int
    url: str
    attempts: int
    body: bytes = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)


# --- endpoints ---------------------------------------------------------------------------------------------------------


def add(
    session: Session,
    owner: str,
    url: str,
    *,
    types: Sequence[str] = (),
    release: str | None = None,
    after_event: int | None = None,
    cipher: Cipher,
    at: datetime,
    by: str,
) -> tuple[Webhook, str]:
    """Add an endpoint of a principal; it and, this once, its secret.

    Args:
        session: a write session.
        owner: whose it is; only what they may see is delivered.
        url: where to.
        types: event types; none: all.
        release: only this release.
        after_event: begin behind this event; None: with the next one that happens.
        cipher: seals the secret.
        at: now.
        by: who adds it.

    Raises:
        NotFound: there is no such principal.
        Conflict: the owner has `PER_OWNER` already.
    """
    principals.get(session, owner)
    count = session.execute(select(func.count()).where(_HOOK.c.owner == owner)).scalar_one()
    if count >= PER_OWNER:
        raise Conflict(
            f"{owner} has {count} webhooks; {PER_OWNER} is the most",
            [Reason("too-many", "remove one first", "owner")],
        )
    name = f"wh-{secrets.token_hex(8)}"
    text = _new_secret()
    session.execute(
        insert(_HOOK).values(
            id=name,
            owner=owner,
            url=url,
            types=json.dumps(sorted(set(types))),
            release=release,
            secret=_seal(cipher, text, name),
            active=True,
            position=releases.last_event(session) if after_event is None else after_event,
            next_number=1,
            created_at=at,
            created_by=by,
        )
    )
    _log(session, "webhook_added", name, owner, at, by)
    return get(session, name), text


def get(session: Session, webhook: str) -> Webhook:
    """An endpoint.

    Raises:
        NotFound: there is none.
    """
    return _of(_row(session, webhook))


def list_webhooks(
    session: Session, *, owner: str | None = None, cursor: str | None = None, limit: int = 50
) -> Page[Webhook]:
    """Endpoints by id, of one owner or of all.

    Raises:
        Malformed: a cursor of another list, or a limit out of range.
    """
    limit = page_size(limit)
    key = None if cursor is None else decode_cursor(cursor, "webhooks", str)
    statement = select(WebhookRow)
    if owner is not None:
        statement = statement.where(col(WebhookRow.owner) == owner)
    statement = after(statement, [col(WebhookRow.id)], key, down=False).limit(limit + 1)
    rows = session.execute(statement.execution_options(populate_existing=True)).scalars().all()
    return cut(rows, limit, _of, lambda row: encode_cursor("webhooks", row.id))


def remove(session: Session, webhook: str, *, at: datetime, by: str) -> None:
    """Remove an endpoint, its secret, and what was planned for it.

    Raises:
        NotFound: there is none.
    """
    row = _row(session, webhook)
    session.execute(delete(_DELIVERY).where(_DELIVERY.c.endpoint == webhook))
    session.execute(delete(_HOOK).where(_HOOK.c.id == webhook))
    _log(session, "webhook_removed", webhook, row.owner, at, by)


def rotate(
    session: Session, webhook: str, *, overlap: timedelta, cipher: Cipher, at: datetime, by: str
) -> tuple[Webhook, str]:
    """Make a new secret; the old one signs beside it for `overlap`.

    Raises:
        NotFound: there is none.
    """
    row = _row(session, webhook)
    text = _new_secret()
    session.execute(
        update(_HOOK)
        .where(_HOOK.c.id == webhook)
        .values(secret=_seal(cipher, text, webhook), old_secret=row.secret, old_until=at + overlap)
    )
    _log(session, "webhook_rotated", webhook, row.owner, at, by)
    return get(session, webhook), text


def switch(
    session: Session, webhook: str, *, active: bool, reason: str | None, at: datetime, by: str
) -> Webhook:
    """Switch an endpoint off (nothing is planned or sent) or on (it goes on where it was)."""
    row = _row(session, webhook)
    if row.active != active:
        session.execute(
            update(_HOOK)
            .where(_HOOK.c.id == webhook)
            .values(active=active, off_reason=None if active else reason, due_at=at if active else row.due_at)
        )
        _log(session, "webhook_on" if active else "webhook_off", webhook, row.owner, at, by)
    return get(session, webhook)


# --- deliveries --------------------------------------------------------------------------------------------------------


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
    row = _row(session, webhook)
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
        _log(session, "webhook_redriven", webhook, row.owner, at, by, numbers=len(numbers))
    return numbers


def replay(session: Session, webhook: str, after_event: int, *, at: datetime, by: str) -> Webhook:
    """Deliver again everything behind an event, under new numbers; what is pending of it is superseded.

    Raises:
        NotFound: there is no such endpoint.
        Conflict: the event lies ahead of what was planned.
    """
    row = _row(session, webhook, hold=True)
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
    _log(session, "webhook_replayed", webhook, row.owner, at, by, after=after_event)
    return get(session, webhook)


# --- what the worker does ----------------------------------------------------------------------------------------------


def behind(session: Session) -> list[str]:
    """Active endpoints that have events to plan."""
    newest = releases.last_event(session)
    statement = select(_HOOK.c.id).where(_HOOK.c.active.is_(True), _HOOK.c.position < newest)
    return list(session.execute(statement.order_by(_HOOK.c.id)).scalars())


def due(session: Session, now: datetime) -> list[str]:
    """Active endpoints whose head may be tried, and that no worker holds."""
    statement = select(_HOOK.c.id).where(
        _HOOK.c.active.is_(True),
        _HOOK.c.due_at <= now,
        _CLAIMS.free(now),
    )
    return list(session.execute(statement.order_by(_HOOK.c.due_at, _HOOK.c.id)).scalars())


def plan(session: Session, webhook: str, now: datetime, *, limit: int = 200) -> int:
    """Turn events behind an endpoint's position into pending deliveries, in one transaction; how many events were read."""
    row = _row(session, webhook, hold=True)
    if not row.active:
        return 0
    owner = _owner(session, row, now)
    if owner is None:
        return 0
    found = releases.feed(session, after=row.position, limit=limit)
    if not found:
        return 0
    types, number, rows = set(json.loads(row.types)), row.next_number, []
    for stored in found:
        if row.release is not None and stored.release != row.release:
            continue
        seen = _seen(session, owner, stored)
        if seen is None or (types and seen[0] not in types):
            continue
        rows.append(
            {
                "endpoint": webhook,
                "number": number,
                "event": stored.id,
                "release": stored.release,
                "type": seen[0],
                "status": "pending",
                "attempts": 0,
                "planned_at": now,
                "due_at": now,
            }
        )
        number += 1
    values: dict[str, Any] = {"position": found[-1].id, "next_number": number}
    if rows:
        session.execute(insert(_DELIVERY), rows)
        if row.due_at is None:
            values["due_at"] = now
    session.execute(update(_HOOK).where(_HOOK.c.id == webhook).values(**values))
    return len(found)


def head(session: Session, webhook: str, now: datetime, cipher: Cipher) -> Message | None:
    """What has to be sent to an endpoint now; None when nothing is, or not yet. Notes when to look again.

    An owner who may see nothing any more gets nothing: the endpoint is switched off.
    """
    row = _row(session, webhook)
    owner = _owner(session, row, now)
    if owner is None:
        return None
    while True:
        found = session.execute(
            select(WebhookDeliveryRow)
            .where(col(WebhookDeliveryRow.endpoint) == webhook, col(WebhookDeliveryRow.status) == "pending")
            .order_by(col(WebhookDeliveryRow.number))
            .limit(1)
            .execution_options(populate_existing=True)
        ).scalar_one_or_none()
        if found is None or found.due_at > now:
            wake = None if found is None else found.due_at
            session.execute(update(_HOOK).where(_HOOK.c.id == webhook).values(due_at=wake))
            return None
        stored = releases.event_at(session, found.event)
        seen = None if stored is None else _seen(session, owner, stored)
        if stored is not None and seen is not None:
            return Message(
                id=f"msg_{webhook.removeprefix('wh-')}_{found.number}",
                number=found.number,
                url=row.url,
                attempts=found.attempts,
                body=_body(webhook, found.number, stored, seen),
                secrets=_secrets(row, cipher, now),
            )
        # what it was about is not there any more (records restored to an earlier day)
        _end(session, webhook, found.number, "superseded", now, error="the event is not in the log")


def note_success(session: Session, webhook: str, number: int, answer: int, now: datetime) -> None:
    """A delivery arrived."""
    _end(session, webhook, number, "delivered", now, answer=answer)
    session.execute(update(_HOOK).where(_HOOK.c.id == webhook).values(last_success_at=now))


def note_failure(
    session: Session,
    webhook: str,
    number: int,
    *,
    answer: int | None,
    error: str,
    again_at: datetime | None,
    now: datetime,
) -> None:
    """A try failed; it is tried again at `again_at`, or (None) goes to the dead-letter list."""
    if again_at is None:
        _end(session, webhook, number, "dead", now, answer=answer, error=error)
        return
    session.execute(
        update(_DELIVERY)
        .where(_DELIVERY.c.endpoint == webhook, _DELIVERY.c.number == number)
        .values(attempts=_DELIVERY.c.attempts + 1, answer=answer, error=error[:500], due_at=again_at)
    )


def forget(session: Session, *, before: datetime) -> int:
    """Drop deliveries that were done before a time (dead ones stay); how many."""
    done = session.execute(
        delete(_DELIVERY).where(
            _DELIVERY.c.status.in_(("delivered", "superseded")), _DELIVERY.c.done_at < before
        )
    )
    return int(done.rowcount)  # type: ignore[attr-defined]


# --- plumbing ----------------------------------------------------------------------------------------------------------


def _seen(session: Session, owner: Principal, stored: StoredEvent) -> tuple[str, dict[str, Any]] | None:
    """What the owner sees of an event: its type and data."""
    if owner.kind != "partner":
        return stored.event.type, {
            "seq": stored.seq,
            "by": stored.event.by,
            "command_id": stored.event.command_id,
            "data": event_data(stored.event),
        }
    if owner.partner is None:
        return None
    own = [found.grant for found in grants.of_release(session, stored.release)]
    seen = partner_data(stored.event, owner.partner, own)
    return None if seen is None else (seen[0], {"data": seen[1]})


def _body(webhook: str, number: int, stored: StoredEvent, seen: tuple[str, dict[str, Any]]) -> bytes:
    value = {
        "type": seen[0],
        "timestamp": stored.event.at.isoformat(),
        "webhook": webhook,
        "number": number,
        "event": stored.id,
        "release": stored.release,
        **seen[1],
    }
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _owner(session: Session, row: WebhookRow, now: datetime) -> Principal | None:
    """The owner, if they still may see anything; otherwise the endpoint is switched off."""
    try:
        owner = principals.get(session, row.owner)
    except NotFound:
        owner = None
    may = (
        owner is not None
        and (Permission.GRANT_READ if owner.kind == "partner" else Permission.RELEASE_READ)
        in owner.permissions
    )
    if may:
        return owner
    switch(session, row.id, active=False, reason=f"{row.owner} may not read any more", at=now, by="sluice")
    return None


def _end(session: Session, webhook: str, number: int, status: Status, now: datetime, **more: Any) -> None:
    error = more.pop("error", None)
    session.execute(
        update(_DELIVERY)
        .where(_DELIVERY.c.endpoint == webhook, _DELIVERY.c.number == number)
        .values(
            status=status,
            attempts=_DELIVERY.c.attempts + 1,
            error=None if error is None else error[:500],
            done_at=now,
            **more,
        )
    )


def _secrets(row: WebhookRow, cipher: Cipher, now: datetime) -> tuple[str, ...]:
    context = _context(row.id)
    newest = cipher.open(row.secret, context).decode()
    if row.old_secret is None or row.old_until is None or row.old_until <= now:
        return (newest,)
    return newest, cipher.open(row.old_secret, context).decode()


def _new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def _seal(cipher: Cipher, text: str, webhook: str) -> bytes:
    return cipher.seal(text.encode(), _context(webhook))


def _context(webhook: str) -> bytes:
    return f"webhook {webhook}".encode()


def _row(session: Session, webhook: str, *, hold: bool = False) -> WebhookRow:
    statement = select(WebhookRow).where(col(WebhookRow.id) == webhook)
    if hold:
        statement = statement.with_for_update()
    found = session.execute(statement.execution_options(populate_existing=True)).scalar_one_or_none()
    if found is None:
        raise NotFound(f"there is no webhook {webhook}")
    return found


def _of(row: WebhookRow) -> Webhook:
    values = {name: getattr(row, name) for name in Webhook.model_fields if hasattr(row, name)}
    return Webhook.model_validate({**values, "types": json.loads(row.types), "overlap_until": row.old_until})


def _delivery(row: WebhookDeliveryRow) -> Delivery:
    return Delivery.model_validate({name: getattr(row, name) for name in Delivery.model_fields})


def _log(session: Session, action: str, webhook: str, owner: str, at: datetime, by: str, **more: Any) -> None:
    audit.append(
        session,
        "admin",
        {"action": action, "actor": by, "webhook": webhook, "principal": owner, **more},
        at=at,
    )
