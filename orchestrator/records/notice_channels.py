"""Channels of notices: where mail and the like goes, whose it is, and what of the topics it wants.

A person's or a partner's channels are their own: what goes there is what they may see. A channel without an owner is the
operators': a list or a chat room that is told of every release, or of one. Addresses are sealed, bound to their channel, and are
shown only in part: an address of `apprise` is a secret.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.domain.errors import Conflict, NotFound, Reason
from orchestrator.domain.notices import Topic
from orchestrator.domain.permissions import Permission
from orchestrator.domain.values import Frozen, Instant, Name
from orchestrator.records import audit, principals, releases
from orchestrator.records.documents import Cipher
from orchestrator.records.notice_tables import NoticeChannelRow, NoticeRow
from orchestrator.records.pages import Page, after, cut, decode_cursor, encode_cursor, page_size
from orchestrator.records.principals import Principal
from orchestrator.records.tables import table

PER_OWNER = 10
Kind = Literal["mail", "apprise"]

_CHANNEL, _NOTICE = table(NoticeChannelRow), table(NoticeRow)


class Channel(Frozen):
    """A channel, without its address.

    Attributes:
        owner: whose it is; None: the operators' own.
        shown: of a mail address its ends, of an address of `apprise` its kind.
        topics: what it is told of; empty: all. What is always told is told whatever stands here.
        release: only this release; None: all that the owner is concerned with.
        off_reason: why it was switched off; None while it is active.
        next_number: of its next notice; numbers count from 1 without a gap.
    """

    id: str
    owner: Name | None
    kind: Kind
    shown: str
    topics: list[Topic]
    release: Name | None
    active: bool
    off_reason: str | None
    position: int
    next_number: int
    last_success_at: Instant | None
    created_at: Instant
    created_by: Name


def add(
    session: Session,
    owner: str | None,
    kind: Kind,
    address: str,
    *,
    topics: Sequence[Topic] = (),
    release: str | None = None,
    cipher: Cipher,
    at: datetime,
    by: str,
) -> Channel:
    """Add a channel: it begins with what happens next.

    Raises:
        NotFound: there is no such principal.
        Conflict: the owner has `PER_OWNER` already.
    """
    if owner is not None:
        principals.get(session, owner)
    of_owner = _CHANNEL.c.owner.is_(None) if owner is None else _CHANNEL.c.owner == owner
    count = session.execute(select(func.count()).where(of_owner)).scalar_one()
    if count >= PER_OWNER:
        raise Conflict(
            f"there are {count} channels; {PER_OWNER} is the most",
            [Reason("too-many", "remove one first", "owner")],
        )
    name = f"nc-{secrets.token_hex(8)}"
    session.execute(
        insert(_CHANNEL).values(
            id=name,
            owner=owner,
            kind=kind,
            address=cipher.seal(address.encode(), context(name)),
            shown=shown(kind, address),
            topics=_topics(topics),
            release=release,
            active=True,
            position=releases.last_event(session),
            next_number=1,
            created_at=at,
            created_by=by,
        )
    )
    _log(session, "notice_channel_added", name, owner, at, by, kind=kind)
    return get(session, name)


def shown(kind: Kind, address: str) -> str:
    """What of an address may be seen: `m…a@example.org`, or `slack://…`."""
    if kind == "apprise":
        return f"{address.split('://', 1)[0].lower()[:30]}://…"
    local, _, domain = address.rpartition("@")
    return f"{local[0]}…{local[-1]}@{domain}" if len(local) > 2 else f"…@{domain}"


def get(session: Session, channel: str) -> Channel:
    """A channel.

    Raises:
        NotFound: there is none.
    """
    return _of(row_of(session, channel))


def list_channels(
    session: Session,
    *,
    owner: str | None = None,
    everybody: bool = False,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[Channel]:
    """Channels by id: of one owner, or (`everybody`) all.

    Raises:
        Malformed: a cursor of another list, or a limit out of range.
    """
    limit = page_size(limit)
    key = None if cursor is None else decode_cursor(cursor, "notice-channels", str)
    statement = select(NoticeChannelRow)
    if not everybody:
        statement = statement.where(col(NoticeChannelRow.owner) == owner)
    statement = after(statement, [col(NoticeChannelRow.id)], key, down=False).limit(limit + 1)
    rows = session.execute(statement.execution_options(populate_existing=True)).scalars().all()
    return cut(rows, limit, _of, lambda row: encode_cursor("notice-channels", row.id))


def change(
    session: Session,
    channel: str,
    *,
    topics: Sequence[Topic] | None = None,
    active: bool | None = None,
    reason: str | None = None,
    at: datetime,
    by: str,
) -> Channel:
    """Choose other topics, or switch it off (nothing is planned or sent) or on (it goes on where it was)."""
    row = row_of(session, channel)
    values: dict[str, Any] = {}
    if topics is not None and _topics(topics) != row.topics:
        values["topics"] = _topics(topics)
    if active is not None and active != row.active:
        values |= {"active": active, "off_reason": None if active else reason}
        if active:
            values["due_at"] = at
    if values:
        session.execute(update(_CHANNEL).where(_CHANNEL.c.id == channel).values(**values))
        action = "notice_channel_changed"
        if active is not None and "active" in values:
            action = "notice_channel_on" if active else "notice_channel_off"
        _log(session, action, channel, row.owner, at, by)
    return get(session, channel)


def remove(session: Session, channel: str, *, at: datetime, by: str) -> None:
    """Remove a channel, its address, and what was planned for it.

    Raises:
        NotFound: there is none.
    """
    row = row_of(session, channel)
    session.execute(delete(_NOTICE).where(_NOTICE.c.channel == channel))
    session.execute(delete(_CHANNEL).where(_CHANNEL.c.id == channel))
    _log(session, "notice_channel_removed", channel, row.owner, at, by)


def owner_of(
    session: Session, row: NoticeChannelRow, now: datetime
) -> Principal | Literal["operators"] | None:
    """Whose channel it is, if they still may see anything; otherwise it is switched off (None)."""
    if row.owner is None:
        return "operators"
    try:
        owner = principals.get(session, row.owner)
    except NotFound:
        owner = None
    if owner is not None:
        needed = Permission.GRANT_READ if owner.kind == "partner" else Permission.RELEASE_READ
        if needed in owner.permissions:
            return owner
    change(session, row.id, active=False, reason=f"{row.owner} may not read any more", at=now, by="sluice")
    return None


def row_of(session: Session, channel: str, *, hold: bool = False) -> NoticeChannelRow:
    """The row of a channel; `hold`: until the transaction ends.

    Raises:
        NotFound: there is none.
    """
    statement = select(NoticeChannelRow).where(col(NoticeChannelRow.id) == channel)
    if hold:
        statement = statement.with_for_update()
    found = session.execute(statement.execution_options(populate_existing=True)).scalar_one_or_none()
    if found is None:
        raise NotFound(f"there is no channel {channel}")
    return found


def context(channel: str) -> bytes:
    """What an address is sealed for."""
    return f"notice channel {channel}".encode()


def _topics(topics: Sequence[Topic]) -> str:
    return json.dumps(sorted({topic.value for topic in topics}))


def _of(row: NoticeChannelRow) -> Channel:
    values = {name: getattr(row, name) for name in Channel.model_fields}
    return Channel.model_validate({**values, "topics": json.loads(row.topics)})


def _log(
    session: Session, action: str, channel: str, owner: str | None, at: datetime, by: str, **more: Any
) -> None:
    body = {"action": action, "actor": by, "channel": channel, "principal": owner, **more}
    audit.append(session, "admin", body, at=at)
