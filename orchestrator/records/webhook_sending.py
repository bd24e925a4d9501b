"""What the worker does about webhooks: plan deliveries from the event log, say what to send, note what became of it.

    plan        events behind the endpoint's position become pending deliveries, numbered without a gap
    head        the lowest pending number: the only one that is tried, so that order is kept per endpoint
    done        delivered, or dead after its last try; then the next number is the head

One worker at a time holds an endpoint (`claim`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.domain.errors import NotFound
from orchestrator.domain.permissions import Permission
from orchestrator.domain.showing import event_data, partner_data
from orchestrator.records import grants, principals, releases
from orchestrator.records.claims import Claims
from orchestrator.records.documents import Cipher
from orchestrator.records.notice_tables import WebhookDeliveryRow, WebhookRow
from orchestrator.records.principals import Principal
from orchestrator.records.releases import StoredEvent
from orchestrator.records.tables import table
from orchestrator.records.webhook_deliveries import Status
from orchestrator.records.webhooks import row_of, signing_secrets, switch

_HOOK = table(WebhookRow)
_DELIVERY = table(WebhookDeliveryRow)
KEPT = timedelta(days=30)
_CLAIMS = Claims(_HOOK)
claim, release_claim, holds = _CLAIMS.claim, _CLAIMS.release, _CLAIMS.holds


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent: the body, and the secrets that sign it (the newest first)."""

    id: str
    number: int
    url: str
    attempts: int
    body: bytes = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)


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
    row = row_of(session, webhook, hold=True)
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
    row = row_of(session, webhook)
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
                secrets=signing_secrets(row, cipher, now),
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
