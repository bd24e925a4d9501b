"""Tables of the Hub sweep: when a release's repository was last looked at, and what was not as the release left it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index

from orchestrator.records.tables import _key, _ordered, _Row, _text, _time


class HubLookRow(_Row, table=True):
    """The last look at a release's repository; `error` while it cannot be looked at."""

    __tablename__ = "hub_look"

    release: str = _key()
    repository: str
    looked_at: datetime = _time()
    last_success: datetime | None = _time(default=None)
    failing_since: datetime | None = _time(default=None)
    error: str | None = _text(default=None)


class HubFindingRow(_Row, table=True):
    """One state in which the repository was found, and what became of it. `differences`: JSON."""

    __tablename__ = "hub_finding"
    __table_args__ = (Index(None, "release", "found_at"),)

    id: str = _key()
    release: str = _ordered()
    differences: str = _text()
    exposes: bool
    found_at: datetime = _time()
    last_seen_at: datetime = _time()
    closed_at: datetime | None = _time(default=None)
    outcome: str
    incident: str | None = None
