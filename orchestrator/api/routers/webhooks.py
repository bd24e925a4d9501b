"""Webhooks: endpoints that are told of events. Everybody has their own; operators see and mend all of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Path, Query
from pydantic import Field
from sqlalchemy.orm import Session

from orchestrator.api.auth import AnyCaller, Caller, guarded, visible
from orchestrator.api.creating import CreatingDep
from orchestrator.api.deps import Deps, Parts
from orchestrator.api.routers.releases import Cursor, Limit
from orchestrator.api.views import Timed
from orchestrator.domain.errors import Conflict, Malformed, NotFound, Reason, Unavailable
from orchestrator.domain.permissions import Permission
from orchestrator.domain.showing import EVENT_TYPES, PARTNER_EVENT_TYPES
from orchestrator.domain.values import Duration, Frozen, Line, Name
from orchestrator.records import database, webhook_deliveries, webhooks
from orchestrator.records.documents import Cipher

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

WebhookId = Annotated[str, Path(pattern=r"^wh-[0-9a-f]{16}$", description="id of the webhook")]
_LONGEST_OVERLAP = timedelta(days=30)


class WebhookBody(Frozen):
    """A new endpoint of the caller. `types`: none means all; `after`: begin behind this event instead of with the next."""

    url: Annotated[str, Field(max_length=2000, examples=["https://ci.example.org/hooks/sluice"])]
    types: Annotated[list[Name], Field(max_length=100)] = Field(default_factory=list)
    release: Name | None = None
    after: Annotated[int, Field(ge=-1, le=2**53)] | None = None


class SwitchBody(Frozen):
    """Switch an endpoint off or on."""

    active: bool
    reason: Line | None = None


class RotateBody(Frozen):
    """For how long the old secret signs beside the new one; at most 30 days."""

    overlap: Duration = timedelta(days=1)


class RedriveBody(Frozen):
    """Which dead delivery to try again; left out, all."""

    number: Annotated[int, Field(ge=1, le=2**53)] | None = None


class ReplayBody(Frozen):
    """Behind which event everything is delivered again; -1: from the beginning."""

    after: Annotated[int, Field(ge=-1, le=2**53)]


class WebhookView(Timed, webhooks.Webhook):
    """An endpoint; never its secret."""


class NewSecretView(Timed):
    """An endpoint and, this once, its secret."""

    webhook: webhooks.Webhook
    secret: str


class WebhookPage(Timed):
    """Endpoints by id."""

    items: list[webhooks.Webhook]
    next_cursor: str | None


class DeliveryPage(Timed):
    """Deliveries, newest first."""

    items: list[webhook_deliveries.Delivery]
    next_cursor: str | None


class Redriven(Timed):
    """The numbers that are tried again."""

    numbers: list[int]


@router.post("", operation_id="addWebhook", **guarded(None, 404, 409, 413, 503, success=201))
def add_webhook(body: WebhookBody, caller: AnyCaller, creating: CreatingDep, deps: Parts) -> NewSecretView:
    """Add an endpoint of one's own: it is told what one may see oneself. The secret is shown this once."""
    cipher, now = _cipher(deps), deps.now()
    _check(body, caller, deps)
    with database.writing(deps.engine) as session:
        made = creating.known(session, caller, "webhook", body)
        if made is not None:
            raise Conflict(
                f"this request made the webhook {made} already; its secret was shown once",
                [Reason("secret-shown-once", "rotate its secret if it was lost, and use a new key", None)],
            )
        if body.release is not None:
            visible(session, caller, body.release)
        found, secret = webhooks.add(
            session,
            caller.id,
            body.url,
            types=body.types,
            release=body.release,
            after_event=body.after,
            cipher=cipher,
            at=now,
            by=caller.id,
        )
        creating.remember(session, caller, "webhook", body, found.id)
    return NewSecretView(webhook=found, secret=secret, server_time=now)


@router.get("", operation_id="listWebhooks", **guarded(None))
def list_webhooks(
    caller: AnyCaller,
    deps: Parts,
    owner: Annotated[
        Name | None, Query(description="for operators: whose; left out, one's own or, for operators, all")
    ] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> WebhookPage:
    """One's own endpoints; for operators anybody's."""
    whose = owner if caller.may(Permission.PRINCIPAL_ADD) else caller.id
    with database.reading(deps.engine) as session:
        page = webhooks.list_webhooks(session, owner=whose, cursor=cursor, limit=limit)
    return WebhookPage(items=page.items, next_cursor=page.next, server_time=deps.now())


@router.get("/{webhook}", operation_id="getWebhook", **guarded(None, 404))
def get_webhook(webhook: WebhookId, caller: AnyCaller, deps: Parts) -> WebhookView:
    """An endpoint."""
    with database.reading(deps.engine) as session:
        found = _own(session, caller, webhook)
    return WebhookView(**dict(found), server_time=deps.now())


@router.delete("/{webhook}", operation_id="removeWebhook", **guarded(None, 404))
def remove_webhook(webhook: WebhookId, caller: AnyCaller, deps: Parts) -> WebhookView:
    """Remove an endpoint with everything that was planned for it; the answer is what it was."""
    now = deps.now()
    with database.writing(deps.engine) as session:
        found = _own(session, caller, webhook)
        webhooks.remove(session, webhook, at=now, by=caller.id)
    return WebhookView(**dict(found), server_time=now)


@router.patch("/{webhook}", operation_id="switchWebhook", **guarded(None, 404, 413))
def switch_webhook(webhook: WebhookId, body: SwitchBody, caller: AnyCaller, deps: Parts) -> WebhookView:
    """Switch an endpoint off, or on: then it goes on where it was, and misses nothing."""
    now = deps.now()
    with database.writing(deps.engine) as session:
        _own(session, caller, webhook)
        found = webhooks.switch(
            session,
            webhook,
            active=body.active,
            reason=body.reason or f"by {caller.id}",
            at=now,
            by=caller.id,
        )
    return WebhookView(**dict(found), server_time=now)


@router.post("/{webhook}/rotate", operation_id="rotateWebhook", **guarded(None, 404, 413, 503))
def rotate_webhook(webhook: WebhookId, body: RotateBody, caller: AnyCaller, deps: Parts) -> NewSecretView:
    """Make a new secret, shown this once. The old one signs beside it for a while, so that nothing is refused meanwhile."""
    cipher, now = _cipher(deps), deps.now()
    if body.overlap > _LONGEST_OVERLAP:
        raise Malformed(
            "the old secret may sign for 30 days at most",
            [Reason("overlap", "give a shorter time", "body.overlap")],
        )
    with database.writing(deps.engine) as session:
        _own(session, caller, webhook)
        found, secret = webhooks.rotate(
            session, webhook, overlap=body.overlap, cipher=cipher, at=now, by=caller.id
        )
    return NewSecretView(webhook=found, secret=secret, server_time=now)


@router.get("/{webhook}/deliveries", operation_id="listDeliveries", **guarded(None, 404))
def list_deliveries(
    webhook: WebhookId,
    caller: AnyCaller,
    deps: Parts,
    status: Annotated[
        webhook_deliveries.Status | None,
        Query(description="only of this status; `dead`: the dead-letter list"),
    ] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> DeliveryPage:
    """What became of each event for this endpoint."""
    with database.reading(deps.engine) as session:
        _own(session, caller, webhook)
        page = webhook_deliveries.deliveries(session, webhook, status=status, cursor=cursor, limit=limit)
    return DeliveryPage(items=page.items, next_cursor=page.next, server_time=deps.now())


@router.post("/{webhook}/redrive", operation_id="redriveWebhook", **guarded(None, 404, 413))
def redrive_webhook(webhook: WebhookId, body: RedriveBody, caller: AnyCaller, deps: Parts) -> Redriven:
    """Try dead deliveries again, one or all, under their old numbers."""
    now = deps.now()
    with database.writing(deps.engine) as session:
        _own(session, caller, webhook)
        numbers = webhook_deliveries.redrive(session, webhook, number=body.number, at=now, by=caller.id)
    return Redriven(numbers=numbers, server_time=now)


@router.post("/{webhook}/replay", operation_id="replayWebhook", **guarded(None, 404, 409, 413))
def replay_webhook(webhook: WebhookId, body: ReplayBody, caller: AnyCaller, deps: Parts) -> WebhookView:
    """Deliver everything behind an event again, under new numbers."""
    now = deps.now()
    with database.writing(deps.engine) as session:
        _own(session, caller, webhook)
        found = webhook_deliveries.replay(session, webhook, body.after, at=now, by=caller.id)
    return WebhookView(**dict(found), server_time=now)


def _own(session: Session, caller: Caller, webhook: str) -> webhooks.Webhook:
    """The caller's endpoint, or for operators anybody's; the same `NotFound` for another's and for none."""
    unknown = NotFound(f"there is no webhook {webhook}")
    try:
        found = webhooks.get(session, webhook)
    except NotFound:
        raise unknown from None
    if found.owner != caller.id and not caller.may(Permission.PRINCIPAL_ADD):
        raise unknown
    return found


def _cipher(deps: Deps) -> Cipher:
    if deps.webhook_secrets is None:
        raise Unavailable(
            "webhooks are not set up here",
            [Reason("webhook-keys", "the operator sets SLUICE_WEBHOOK_KEYS_FILE for api and worker-notices")],
        )
    return deps.webhook_secrets


def _check(body: WebhookBody, caller: Caller, deps: Deps) -> None:
    reasons = []
    known = PARTNER_EVENT_TYPES if caller.kind == "partner" else EVENT_TYPES
    for i, kind in enumerate(body.types):
        if kind not in known:
            told = f"no event is called `{kind}`; there are: {', '.join(known)}"
            reasons.append(Reason("unknown-type", told, f"body.types[{i}]"))
    try:
        url = urlsplit(body.url)
        host, _ = url.hostname, url.port
    except ValueError:
        url, host = urlsplit(""), None
    schemes = {"https", "http"} if deps.settings.webhook_http else {"https"}
    if url.scheme not in schemes or not host or not body.url.isascii() or not body.url.isprintable():
        reasons.append(
            Reason("url", f"give an address that begins with {' or '.join(sorted(schemes))}://", "body.url")
        )
    elif url.username is not None or url.password is not None or url.fragment:
        told = "no user, password or fragment: deliveries are known by their signature"
        reasons.append(Reason("url", told, "body.url"))
    if reasons:
        raise Malformed("the webhook cannot be added", reasons)
