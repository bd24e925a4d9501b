"""Tables of leak monitoring: signatures, sources, suspects, verdicts, reports. Signatures and verdicts lie sealed."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index
from sqlmodel import Field

from orchestrator.records.tables import _bytes, _key, _number, _ordered, _Row, _text, _time


class LeakSignatureRow(_Row, table=True):
    """A weight signature, sealed to the monitor. `copy`: the partner whose issued copy it is of; empty: the artifact itself.

    `alike`: a keyed name that artifacts with the same weights share; set by the monitor, who alone can tell.
    """

    __tablename__ = "leak_signature"

    artifact: str = _key()
    copy_of: str = _key()
    sealed: bytes = _bytes()
    digest: str
    key_id: str
    alike: str | None = None
    by: str
    at: datetime = _time()


class LeakParentRow(_Row, table=True):
    """A public model that ours descend from. `artifact`: whose verdicts it is taken out of; empty: all."""

    __tablename__ = "leak_parent"

    name: str = _key()
    artifact: str = _ordered(default="")
    place: str
    by: str
    at: datetime = _time()


class LeakParentSignatureRow(_Row, table=True):
    """A parent's signature with one artifact's sketch key, sealed to the monitor; or why there is none yet."""

    __tablename__ = "leak_parent_signature"

    parent: str = _key()
    artifact: str = _key()
    sealed: bytes | None = _bytes(default=None)
    error: str | None = _text(default=None)
    at: datetime = _time()


class MonitorSourceRow(_Row, table=True):
    """A leak source as it stands: its cursor, whether it sees, and what the other side says about rates."""

    __tablename__ = "monitor_source"

    name: str = _key()
    kind: str
    cursor: str | None = _text(default=None)
    configured: bool = True
    polls: int = _number(default=0)
    candidates: int = _number(default=0)
    behind_seconds: float = 0.0
    limits: str = _text(default="{}")
    notes: str = _text(default="[]")
    trouble: str | None = None
    error: str | None = _text(default=None)
    failing_since: datetime | None = _time(default=None)
    last_attempt: datetime | None = _time(default=None)
    last_success: datetime | None = _time(default=None)
    retry_at: datetime | None = _time(default=None)
    leased_by: str | None = None
    leased_until: datetime | None = _time(default=None)


class SuspectRow(_Row, table=True):
    """A candidate that a source saw, once however often and wherever it is seen. Content is JSON of the candidate."""

    __tablename__ = "leak_suspect"
    __table_args__ = (Index(None, "number", unique=True), Index(None, "seen_at", "key"))

    key: str = _key()
    number: int = _number()
    source: str = _ordered()
    target: str = _text()
    title: str
    size: int | None = _number(default=None)
    sighting: bool = False
    body: str = _text()
    seen_at: datetime = _time()
    recorded_at: datetime = _time()


class JudgementRow(_Row, table=True):
    """What was found when a suspect was held against an artifact. `next_at`: when it is tried again, if it is."""

    __tablename__ = "leak_judgement"
    __table_args__ = (
        Index(None, "artifact", "next_at"),
        Index(None, "outcome", "at", "artifact", "suspect"),
    )

    artifact: str = _key()
    suspect: str = _key()
    outcome: str
    tier: int = -1
    reason: str = _text(default="")
    verdict: str | None = None
    attempts: int = 1
    reported: bool = False
    next_at: datetime | None = _time(default=None)
    at: datetime = _time()


class VerdictRow(_Row, table=True):
    """A signed verdict, sealed: it names our tensors. `log_index`: its leaf in the audit log."""

    __tablename__ = "leak_verdict"
    __table_args__ = (Index(None, "suspect", "at"), Index(None, "artifact", "at"))

    digest: str = _key()
    suspect: str = _ordered()
    artifact: str = _ordered()
    outcome: str
    tier: int
    sealed: bytes = _bytes()
    log_index: int = _number()
    at: datetime = _time()


class ReportRow(_Row, table=True):
    """Something that a person or an outside monitor handed in: untrusted."""

    __tablename__ = "leak_report"
    __table_args__ = (Index(None, "id", unique=True), Index(None, "queue", "position"))

    position: int = _number(primary_key=True)
    id: str = _ordered()
    queue: str = _ordered()
    what: str
    value: str = _text()
    note: str = _text(default="")
    contact: str = _text(default="")
    via: str
    at: datetime = _time()


class SpreadRow(_Row, table=True):
    """Up to which event confirmed leaks have been told to the releases that share the weights. One row."""

    __tablename__ = "leak_spread"

    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    after: int = _number()
