"""Webhook endpoints: whose they are, where to, what they get, and the secrets that sign for them.

Deliveries are not written beside events: they are planned from the event log, from each endpoint's own position. What is in
the log is planned exactly once, because position, numbers and rows move in one transaction; nothing can be missing or double
(`webhook_sending`; what people see of deliveries and ask of them: `webhook_deliveries`).

A secret is shown once, when it is made. At rest it is sealed, bound to its endpoint.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.domain.errors import Conflict, NotFound, Reason
from orchestrator.domain.values import Frozen, Instant, Name
from orchestrator.records import audit, principals, releases
from orchestrator.records.documents import Cipher
from orchestrator.records.notice_tables import WebhookDeliveryRow, WebhookRow
from orchestrator.records.pages import Page, after, cut, decode_cursor, encode_cursor, page_size
from orchestrator.records.tables import table

_HOOK = table(WebhookRow)
_DELIVERY = table(WebhookDeliveryRow)
SECRET_PREFIX = "whsec_"  # noqa: S105 - the published prefix of such secrets
PER_OWNER = 20


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
    log_change(session, "webhook_added", name, owner, at, by)
    return get(session, name), text


def get(session: Session, webhook: str) -> Webhook:
    """An endpoint.

    Raises:
        NotFound: there is none.
    """
    return _of(row_of(session, webhook))


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
    row = row_of(session, webhook)
    session.execute(delete(_DELIVERY).where(_DELIVERY.c.endpoint == webhook))
    session.execute(delete(_HOOK).where(_HOOK.c.id == webhook))
    log_change(session, "webhook_removed", webhook, row.owner, at, by)


def rotate(
    session: Session, webhook: str, *, overlap: timedelta, cipher: Cipher, at: datetime, by: str
) -> tuple[Webhook, str]:
    """Make a new secret; the old one signs beside it for `overlap`.

    Raises:
        NotFound: there is none.
    """
    row = row_of(session, webhook)
    text = _new_secret()
    session.execute(
        update(_HOOK)
        .where(_HOOK.c.id == webhook)
        .values(secret=_seal(cipher, text, webhook), old_secret=row.secret, old_until=at + overlap)
    )
    log_change(session, "webhook_rotated", webhook, row.owner, at, by)
    return get(session, webhook), text


def switch(
    session: Session, webhook: str, *, active: bool, reason: str | None, at: datetime, by: str
) -> Webhook:
    """Switch an endpoint off (nothing is planned or sent) or on (it goes on where it was)."""
    row = row_of(session, webhook)
    if row.active != active:
        session.execute(
            update(_HOOK)
            .where(_HOOK.c.id == webhook)
            .values(active=active, off_reason=None if active else reason, due_at=at if active else row.due_at)
        )
        log_change(session, "webhook_on" if active else "webhook_off", webhook, row.owner, at, by)
    return get(session, webhook)


def signing_secrets(row: WebhookRow, cipher: Cipher, now: datetime) -> tuple[str, ...]:
    """The secrets that sign for an endpoint now, the newest first."""
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


def row_of(session: Session, webhook: str, *, hold: bool = False) -> WebhookRow:
    """The row of an endpoint, held until the transaction ends where asked (`hold`)."""
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


def log_change(
    session: Session, action: str, webhook: str, owner: str, at: datetime, by: str, **more: Any
) -> None:
    """Write into the audit log what somebody did to a webhook."""
    audit.append(
        session,
        "admin",
        {"action": action, "actor": by, "webhook": webhook, "principal": owner, **more},
        at=at,
    )
