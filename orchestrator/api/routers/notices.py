"""Notices: mail and the like to people. Everybody has their own channels; operators manage anybody's, and those of nobody."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field
from sqlalchemy.orm import Session

from orchestrator.api.auth import AnyCaller, Caller, guarded, visible
from orchestrator.api.creating import CreatingDep
from orchestrator.api.deps import Deps, Parts
from orchestrator.api.routers.releases import Cursor, Limit
from orchestrator.api.views import Timed
from orchestrator.domain.errors import Conflict, Malformed, NotFound, NotPermitted, Reason, Unavailable
from orchestrator.domain.notices import CHOICES, PARTNER_CHOICES, Topic
from orchestrator.domain.permissions import Permission
from orchestrator.domain.values import Frozen, Line, Name
from orchestrator.records import database, notice_channels, notice_planning, notices, principals
from orchestrator.records.documents import Cipher
from orchestrator.records.notice_channels import Channel

router = APIRouter(prefix="/v1/notices/channels", tags=["notices"])

ChannelId = Annotated[str, Path(pattern=r"^nc-[0-9a-f]{16}$", description="id of the channel")]
Topics = Annotated[
    list[Topic],
    Field(
        max_length=20,
        description="none: all. A broken glass, and what the plan says to notify of, is always told",
    ),
]
_MAIL = re.compile(
    r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9-]{1,63}$"
)


class ChannelBody(Frozen):
    """A new channel, of the caller unless an operator says whose. `address`: kept sealed, never shown again."""

    kind: notice_channels.Kind
    address: Annotated[str, Field(min_length=3, max_length=2000, examples=["mia@example.org"], repr=False)]
    topics: Topics = Field(default_factory=list)
    release: Name | None = None
    owner: Name | None = Field(default=None, description="for operators: whose")
    shared: bool = Field(
        default=False, description="for operators: nobody's own; it is told of every release, or of `release`"
    )


class ChannelChange(Frozen):
    """Other topics, or off and on."""

    topics: Topics | None = None
    active: bool | None = None
    reason: Line | None = None


class RedriveNotices(Frozen):
    """Which dead notice to try again, with those of its message; left out, all."""

    number: Annotated[int, Field(ge=1, le=2**53)] | None = None


class ChannelView(Timed, Channel):
    """A channel; never its address."""


class ChannelPage(Timed):
    """Channels by id."""

    items: list[Channel]
    next_cursor: str | None


class NoticePage(Timed):
    """Notices, newest first."""

    items: list[notices.Told]
    next_cursor: str | None


class NoticeNumbers(Timed):
    """The numbers of notices that are sent, or sent again."""

    numbers: list[int]


@router.post("", operation_id="addChannel", **guarded(None, 403, 404, 409, 413, 503, success=201))
def add_channel(body: ChannelBody, caller: AnyCaller, creating: CreatingDep, deps: Parts) -> ChannelView:
    """Add a channel: a mail address, or an address of `apprise`. It is told of what happens from here on."""
    cipher, now = _cipher(deps), deps.now()
    owner = _owner(body, caller)
    _check(body, deps)
    with database.writing(deps.engine) as session:
        made = creating.known(session, caller, "notice-channel", body)
        if made is not None:
            return ChannelView(**dict(notice_channels.get(session, made)), server_time=now)
        kind = caller.kind if owner in {None, caller.id} else principals.get(session, str(owner)).kind
        _check_topics(body.topics, partner=kind == "partner")
        if body.release is not None:
            visible(session, caller, body.release)
        found = notice_channels.add(
            session,
            owner,
            body.kind,
            body.address.strip(),
            topics=body.topics,
            release=body.release,
            cipher=cipher,
            at=now,
            by=caller.id,
        )
        creating.remember(session, caller, "notice-channel", body, found.id)
    return ChannelView(**dict(found), server_time=now)


@router.get("", operation_id="listChannels", **guarded(None))
def list_channels(
    caller: AnyCaller,
    deps: Parts,
    owner: Annotated[
        Name | None, Query(description="for operators: whose; left out, one's own or, for operators, all")
    ] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> ChannelPage:
    """One's own channels; for operators anybody's, and the shared ones."""
    operator = caller.may(Permission.PRINCIPAL_ADD)
    with database.reading(deps.engine) as session:
        page = notice_channels.list_channels(
            session,
            owner=owner if operator else caller.id,
            everybody=operator and owner is None,
            cursor=cursor,
            limit=limit,
        )
    return ChannelPage(items=page.items, next_cursor=page.next, server_time=deps.now())


@router.get("/{channel}", operation_id="getChannel", **guarded(None, 404))
def get_channel(channel: ChannelId, caller: AnyCaller, deps: Parts) -> ChannelView:
    """A channel."""
    with database.reading(deps.engine) as session:
        found = _own(session, caller, channel)
    return ChannelView(**dict(found), server_time=deps.now())


@router.patch("/{channel}", operation_id="changeChannel", **guarded(None, 404, 413))
def change_channel(channel: ChannelId, body: ChannelChange, caller: AnyCaller, deps: Parts) -> ChannelView:
    """Choose other topics, or switch a channel off or on; then it goes on where it was."""
    now = deps.now()
    with database.writing(deps.engine) as session:
        before = _own(session, caller, channel)
        if body.topics is not None:
            partner = before.owner is not None and principals.get(session, before.owner).kind == "partner"
            _check_topics(body.topics, partner=partner)
        found = notice_channels.change(
            session,
            channel,
            topics=body.topics,
            active=body.active,
            reason=body.reason or f"by {caller.id}",
            at=now,
            by=caller.id,
        )
    return ChannelView(**dict(found), server_time=now)


@router.delete("/{channel}", operation_id="removeChannel", **guarded(None, 404))
def remove_channel(channel: ChannelId, caller: AnyCaller, deps: Parts) -> ChannelView:
    """Remove a channel with its address and everything that was planned for it; the answer is what it was."""
    now = deps.now()
    with database.writing(deps.engine) as session:
        found = _own(session, caller, channel)
        notice_channels.remove(session, channel, at=now, by=caller.id)
    return ChannelView(**dict(found), server_time=now)


@router.post("/{channel}/test", operation_id="testChannel", **guarded(None, 404))
def test_channel(channel: ChannelId, caller: AnyCaller, deps: Parts) -> NoticeNumbers:
    """Send a notice that only shows that the channel works; its number, to look for in its list."""
    now = deps.now()
    with database.writing(deps.engine) as session:
        _own(session, caller, channel)
        number = notice_planning.plan_test(session, channel, now)
    return NoticeNumbers(numbers=[number], server_time=now)


@router.get("/{channel}/notices", operation_id="listNotices", **guarded(None, 404))
def list_notices(
    channel: ChannelId,
    caller: AnyCaller,
    deps: Parts,
    status: Annotated[
        notices.Status | None, Query(description="only of this status; `dead`: the dead-letter list")
    ] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> NoticePage:
    """What became of each notice of a channel."""
    with database.reading(deps.engine) as session:
        _own(session, caller, channel)
        page = notices.told(session, channel, status=status, cursor=cursor, limit=limit)
    return NoticePage(items=page.items, next_cursor=page.next, server_time=deps.now())


@router.post("/{channel}/redrive", operation_id="redriveNotices", **guarded(None, 404, 413))
def redrive_notices(
    channel: ChannelId, body: RedriveNotices, caller: AnyCaller, deps: Parts
) -> NoticeNumbers:
    """Try dead notices again, all or those of one message, under their old numbers."""
    now = deps.now()
    with database.writing(deps.engine) as session:
        _own(session, caller, channel)
        numbers = notices.redrive(session, channel, number=body.number, at=now, by=caller.id)
    return NoticeNumbers(numbers=numbers, server_time=now)


def _own(session: Session, caller: Caller, channel: str) -> Channel:
    """The caller's channel, or for operators anybody's; the same `NotFound` for another's and for none."""
    unknown = NotFound(f"there is no channel {channel}")
    try:
        found = notice_channels.get(session, channel)
    except NotFound:
        raise unknown from None
    if found.owner != caller.id and not caller.may(Permission.PRINCIPAL_ADD):
        raise unknown
    return found


def _owner(body: ChannelBody, caller: Caller) -> str | None:
    if (body.shared or body.owner not in {None, caller.id}) and not caller.may(Permission.PRINCIPAL_ADD):
        raise NotPermitted("only operators add channels for others, or shared ones")
    if body.shared and body.owner is not None:
        raise Malformed(
            "the channel cannot be added", [Reason("owner", "a shared channel is nobody's", "body.owner")]
        )
    return None if body.shared else body.owner or caller.id


def _cipher(deps: Deps) -> Cipher:
    if deps.webhook_secrets is None:
        raise Unavailable(
            "notices are not set up here",
            [Reason("webhook-keys", "the operator sets SLUICE_WEBHOOK_KEYS_FILE for api and worker-notices")],
        )
    return deps.webhook_secrets


def _check(body: ChannelBody, deps: Deps) -> None:
    address = body.address.strip()
    if body.kind == "mail":
        if not deps.settings.mail:
            raise Conflict(
                "no mail server is set up here",
                [
                    Reason(
                        "mail",
                        "the operator sets SLUICE_MAIL_FROM and, for worker-notices, SLUICE_MAIL_URL_FILE",
                    )
                ],
            )
        fault = None if _MAIL.match(address) else "give one mail address, such as mia@example.org"
    elif deps.apprise_fault is None:
        raise Conflict("apprise is not set up here", [Reason("apprise", "add a mail address")])
    elif not address.isascii() or not address.isprintable() or "://" not in address:
        fault = "give one address of apprise, such as slack://…"
    else:
        fault = deps.apprise_fault(address)
    if fault is not None:
        raise Malformed("the channel cannot be added", [Reason("address", fault, "body.address")])


def _check_topics(topics: list[Topic], *, partner: bool) -> None:
    known = PARTNER_CHOICES if partner else CHOICES
    reasons = [
        Reason("unknown-topic", f"there are: {', '.join(known)}", f"body.topics[{i}]")
        for i, topic in enumerate(topics)
        if topic not in known
    ]
    if reasons:
        raise Malformed("the topics cannot be chosen", reasons)
