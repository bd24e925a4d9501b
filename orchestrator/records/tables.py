"""The tables. What is a fact stands once (events, leaves, keys); what is derived can be made anew (`releases.rebuild`).

Texts that lists are ordered by are compared byte by byte (collation "C" on PostgreSQL). Times are UTC with microseconds;
a time without a zone is refused. No key, token or text of a document is ever in clear in a row.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlmodel import Field, SQLModel

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)


class UtcTime(TypeDecorator[datetime]):
    """An aware time, kept in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To the database: UTC; SQLite keeps no zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a time zone does not go into the records")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """From the database: aware, in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


ORDERED = String().with_variant(String(collation="C"), "postgresql")
BIG = BigInteger().with_variant(Integer(), "sqlite")


def _key(**more: Any) -> Any:
    return Field(primary_key=True, sa_type=ORDERED, **more)


def _number(**more: Any) -> Any:
    if more.get("primary_key"):
        more["sa_column_kwargs"] = {"autoincrement": False}
    return Field(sa_type=BIG, **more)


def _ordered(**more: Any) -> Any:
    return Field(sa_type=ORDERED, **more)


def _text(**more: Any) -> Any:
    return Field(sa_type=Text, **more)


def _time(**more: Any) -> Any:
    return Field(sa_type=UtcTime, **more)


def _bytes(**more: Any) -> Any:
    return Field(sa_type=LargeBinary, **more)


class _Row(SQLModel):
    metadata: ClassVar[MetaData] = METADATA


class ReleaseRow(_Row, table=True):
    """A release as of its last event: read model. `state` is the fold of its events as JSON."""

    __tablename__ = "release"
    __table_args__ = (
        UniqueConstraint("name", "version"),
        Index(None, "created_at", "id"),
        Index(None, "updated_at", "id"),
        Index(None, "name_key", "id"),
        Index(None, "status", "created_at", "id"),
        Index(None, "stage", "created_at", "id"),
        Index(None, "status", "stage", "created_at", "id"),
        Index(None, "changes_at"),
    )

    id: str = _key()
    name: str
    version: str
    name_key: str = _ordered(description="the name without case, for searching by prefix")
    organisation: str
    creator: str
    announced: bool
    status: str
    stage: str
    current_step: str | None = None
    next_step: str | None = None
    on_hold: bool = False
    open_incidents: int = 0
    plan_digest: str
    seq: int
    state: str = _text()
    gate_etag: str | None = None
    opens_at: datetime | None = _time(default=None)
    changes_at: datetime | None = _time(default=None)
    created_at: datetime = _time()
    updated_at: datetime = _time()


class EventRow(_Row, table=True):
    """One event. `id` is its leaf in the audit log, and so the order in which events were committed."""

    __tablename__ = "event"
    __table_args__ = (UniqueConstraint("release", "seq"),)

    id: int = _number(primary_key=True)
    release: str = _ordered()
    seq: int
    type: str
    at: datetime = _time()
    by: str
    command_id: str
    body: str = _text()


class CommandRow(_Row, table=True):
    """A command that made events: what its ID means, for as long as the records stand."""

    __tablename__ = "command"

    release: str = _key()
    command_id: str = _key()
    type: str
    digest: str
    actor: str
    request_id: str | None = None
    first_seq: int
    seq: int
    events: str = _text()
    at: datetime = _time()


class IdempotencyRow(_Row, table=True):
    """What a principal's idempotency key created."""

    __tablename__ = "idempotency"
    __table_args__ = (Index(None, "at"),)

    principal: str = _key()
    key: str = _key()
    digest: str
    reference: str
    at: datetime = _time()


class AuditLeafRow(_Row, table=True):
    """A leaf of the audit log: the canonical bytes that were hashed."""

    __tablename__ = "audit_leaf"
    __table_args__ = (Index(None, "release", "index"), Index(None, "kind", "index"))

    index: int = _number(primary_key=True)
    kind: str
    release: str | None = _ordered(default=None)
    at: datetime = _time()
    body: bytes = _bytes()
    hash: bytes = _bytes()


class AuditNodeRow(_Row, table=True):
    """The hash of a complete subtree above the leaves; never changes."""

    __tablename__ = "audit_node"

    level: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    index: int = _number(primary_key=True)
    hash: bytes = _bytes()


class AuditHeadRow(_Row, table=True):
    """The one row that whoever appends holds: size and frontier of the tree."""

    __tablename__ = "audit_head"

    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    size: int = _number()
    frontier: bytes = _bytes()


class AuditCheckpointRow(_Row, table=True):
    """A signed checkpoint over the first `size` leaves."""

    __tablename__ = "audit_checkpoint"

    size: int = _number(primary_key=True)
    root: bytes = _bytes()
    note: str = _text()
    at: datetime = _time()


class GrantRow(_Row, table=True):
    """A grant: read model. `body` is the whole grant as JSON, with its envelopes' references."""

    __tablename__ = "grant_row"
    __table_args__ = (
        Index(None, "holder", "live", "made_at", "release", "id"),
        Index(None, "live", "not_after"),
    )

    release: str = _key()
    id: str = _key()
    step: str
    holder: str
    holder_kind: str
    kind: str
    live: bool
    made_at: datetime = _time()
    not_after: datetime | None = _time(default=None)
    disclosed_at: datetime | None = _time(default=None)
    body: str = _text()


class IncidentRow(_Row, table=True):
    """An incident: read model. `body` is the whole incident as JSON."""

    __tablename__ = "incident"
    __table_args__ = (Index(None, "at", "release", "id"), Index(None, "open", "at", "release", "id"))

    release: str = _key()
    id: str = _key()
    kind: str
    severity: str
    confidence: str
    open: bool
    at: datetime = _time()
    summary: str = _text()
    body: str = _text()


class WaitRow(_Row, table=True):
    """One thing that one person can do for a release: read model. `number` counts within the release."""

    __tablename__ = "wait"
    __table_args__ = (Index(None, "person", "due", "release", "number"),)

    release: str = _key()
    number: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    person: str = _key()
    what: str
    message: str = _text()
    step: str | None = None
    reference: str | None = None
    since: datetime = _time()
    due: datetime = _time()


class GateReasonRow(_Row, table=True):
    """One unmet condition of a release's next gate, by its code, and since when it has been unmet: read model.

    `met_at`: for a clock that runs, when it will be met; a clock that stands has none.
    """

    __tablename__ = "gate_reason"
    __table_args__ = (Index(None, "code", "since"),)

    release: str = _key()
    code: str = _key()
    step: str
    since: datetime = _time()
    met_at: datetime | None = _time(default=None)


class PartnerRow(_Row, table=True):
    """An outside organisation and the terms that it last accepted."""

    __tablename__ = "partner"

    id: str = _key()
    name: str
    active: bool = True
    created_at: datetime = _time()
    created_by: str


class PartnerTermsRow(_Row, table=True):
    """Terms that a partner accepted: which, when, and who did."""

    __tablename__ = "partner_terms"

    partner: str = _key()
    terms: str = _key()
    at: datetime = _time()
    by: str


class PartnerKeyRow(_Row, table=True):
    """An age recipient of a partner. `statement`: the signed envelope with which it was registered, if there is one."""

    __tablename__ = "partner_key"

    partner: str = _key()
    digest: str = _key()
    recipient: str = _text()
    statement: str | None = _text(default=None)
    added_at: datetime = _time()
    added_by: str
    revoked_at: datetime | None = _time(default=None)
    revoked_by: str | None = None


class PrincipalRow(_Row, table=True):
    """Who may call: a person, a machine, or a partner's account. `roles` is a JSON list."""

    __tablename__ = "principal"
    __table_args__ = (Index(None, "partner"),)

    id: str = _key()
    kind: str
    name: str
    roles: str = _text()
    partner: str | None = None
    active: bool = True
    created_at: datetime = _time()
    created_by: str


class TokenRow(_Row, table=True):
    """An API token, by its SHA-256. `id` is public and names it in lists; the token itself is never stored."""

    __tablename__ = "token"
    __table_args__ = (Index(None, "principal"), UniqueConstraint("id"))

    hash: bytes = Field(primary_key=True, sa_type=LargeBinary)
    id: str
    principal: str
    label: str
    created_at: datetime = _time()
    expires_at: datetime | None = _time(default=None)
    revoked_at: datetime | None = _time(default=None)
    last_used_at: datetime | None = _time(default=None)


class SubjectRow(_Row, table=True):
    """Which subject of an identity provider a principal's name is bound to."""

    __tablename__ = "subject"
    __table_args__ = (UniqueConstraint("issuer", "subject"),)

    principal: str = _key()
    issuer: str
    subject: str
    at: datetime = _time()


class SessionRow(_Row, table=True):
    """A session in a browser, by the SHA-256 of its text. `sid`: the identity provider's own session; `roles` is a JSON list."""

    __tablename__ = "session"
    __table_args__ = (Index(None, "expires_at"),)

    hash: bytes = Field(primary_key=True, sa_type=LargeBinary)
    principal: str
    issuer: str
    subject: str
    sid: str | None = None
    roles: str = _text()
    signed_in_at: datetime = _time()
    created_at: datetime = _time()
    expires_at: datetime = _time()
    ended_at: datetime | None = _time(default=None)


class SignedOutRow(_Row, table=True):
    """What an identity provider ended: one session of its own (`sid`), or all of a subject until then."""

    __tablename__ = "signed_out"
    __table_args__ = (Index(None, "issuer", "sid"), Index(None, "issuer", "subject", "at"))

    id: str = _key()
    issuer: str
    subject: str | None = None
    sid: str | None = None
    at: datetime = _time()


class ArtifactRow(_Row, table=True):
    """A sealed artifact: its signed manifest as it came, and where its files lie. `components` is a JSON list."""

    __tablename__ = "artifact"
    __table_args__ = (Index(None, "created_at", "id"), Index(None, "manifest_digest"))

    id: str = _key()
    manifest_digest: str
    manifest: bytes = _bytes()
    wrapped_root: str | None = _text(default=None)
    location: str
    components: str = _text()
    size: int = _number()
    uploader: str
    created_at: datetime = _time()


class EnvelopeRow(_Row, table=True):
    """An envelope with keys, encrypted to its holder. Dropped: the bytes are gone, that it was there stays."""

    __tablename__ = "envelope"
    __table_args__ = (Index(None, "release", "grant"),)

    reference: str = _key()
    release: str
    grant: str
    holder: str
    digest: str
    data: bytes | None = _bytes(default=None)
    created_at: datetime = _time()
    dropped_at: datetime | None = _time(default=None)


class DocumentRow(_Row, table=True):
    """A document of evidence, sealed; its digest is that of the text in clear."""

    __tablename__ = "document"

    digest: str = _key()
    media_type: str
    sealed: bytes = _bytes()
    size: int = _number()
    by: str
    at: datetime = _time()


def table(model: type[SQLModel]) -> Table:
    """The table of a model, for statements over many rows."""
    found = model.__table__  # type: ignore[attr-defined]
    assert isinstance(found, Table)
    return found
