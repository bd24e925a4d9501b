"""Tables of what is said outward: webhook endpoints and their deliveries, channels of notices and the notices.

Secrets are sealed before they come here; the records hold no key that opens them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Index, LargeBinary, MetaData, Text
from sqlmodel import Field, SQLModel

from orchestrator.records.tables import BIG, METADATA, ORDERED, UtcTime


def _key() -> Any:
    return Field(primary_key=True, sa_type=ORDERED)


def _count(*, key: bool = False) -> Any:
    if key:
        return Field(primary_key=True, sa_type=BIG, sa_column_kwargs={"autoincrement": False})
    return Field(sa_type=BIG)


def _maybe() -> Any:
    return Field(default=None, sa_type=UtcTime)


def _time() -> Any:
    return Field(sa_type=UtcTime)


class _Row(SQLModel):
    metadata: ClassVar[MetaData] = METADATA


class WebhookRow(_Row, table=True):
    """An endpoint. `position`: the event up to which deliveries are planned; `next_number`: of the next delivery."""

    __tablename__ = "webhook"
    __table_args__ = (Index(None, "owner", "id"),)

    id: str = _key()
    owner: str = Field(sa_type=ORDERED)
    url: str = Field(sa_type=Text)
    types: str = Field(sa_type=Text)
    release: str | None = None
    secret: bytes = Field(sa_type=LargeBinary)
    old_secret: bytes | None = Field(default=None, sa_type=LargeBinary)
    old_until: datetime | None = _maybe()
    active: bool = True
    off_reason: str | None = None
    position: int = _count()
    next_number: int = _count()
    due_at: datetime | None = _maybe()
    lease_until: datetime | None = _maybe()
    lease_by: str | None = None
    last_success_at: datetime | None = _maybe()
    created_at: datetime = _time()
    created_by: str


class WebhookDeliveryRow(_Row, table=True):
    """One event for one endpoint. The body is made from the event log whenever it is sent."""

    __tablename__ = "webhook_delivery"
    __table_args__ = (Index(None, "endpoint", "status", "number"), Index(None, "status", "done_at"))

    endpoint: str = _key()
    number: int = _count(key=True)
    event: int = _count()
    release: str
    type: str
    status: str
    attempts: int = 0
    answer: int | None = None
    error: str | None = None
    planned_at: datetime = _time()
    due_at: datetime = _time()
    done_at: datetime | None = _maybe()


class NoticeChannelRow(_Row, table=True):
    """Where notices of one recipient go. `owner`: a principal; None: the operators' own. `address`: sealed; `shown`: what lists say."""

    __tablename__ = "notice_channel"
    __table_args__ = (Index(None, "owner", "id"),)

    id: str = _key()
    owner: str | None = Field(default=None, sa_type=ORDERED)
    kind: str
    address: bytes = Field(sa_type=LargeBinary)
    shown: str
    topics: str = Field(sa_type=Text)
    release: str | None = None
    active: bool = True
    off_reason: str | None = None
    position: int = _count()
    next_number: int = _count()
    due_at: datetime | None = _maybe()
    lease_until: datetime | None = _maybe()
    lease_by: str | None = None
    last_success_at: datetime | None = _maybe()
    created_at: datetime = _time()
    created_by: str


class NoticeRow(_Row, table=True):
    """One notice. What it says is made from the event log, or from `type`, `step` and `reference` where something waits.

    `batch`: the number of the first notice of the message it goes out in, once that is fixed; `wait` and `standing`: what
    waits, and whether it still does.
    """

    __tablename__ = "notice"
    __table_args__ = (
        Index(None, "channel", "status", "number"),
        Index(None, "channel", "standing", "release"),
        Index(None, "status", "done_at"),
    )

    channel: str = _key()
    number: int = _count(key=True)
    event: int | None = Field(default=None, sa_type=BIG)
    release: str | None = None
    topic: str
    type: str
    urgent: bool
    batch: int | None = Field(default=None, sa_type=BIG)
    wait: str | None = None
    standing: bool = False
    step: str | None = None
    reference: str | None = None
    status: str
    attempts: int = 0
    error: str | None = None
    planned_at: datetime = _time()
    due_at: datetime = _time()
    done_at: datetime | None = _maybe()
