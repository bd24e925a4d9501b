"""The right of one worker at a time to send to somebody: an endpoint of webhooks, a channel of notices.

It ends by itself, so that a worker that died holds nobody up; who still sends prolongs it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Table, or_, select, update
from sqlalchemy.orm import Session


class Claims:
    """Claims on the rows of one table, which has `id`, `active`, `lease_until` and `lease_by`."""

    def __init__(self, table: Table) -> None:
        self._columns, self._table = table.c, table

    def free(self, now: datetime) -> ColumnElement[bool]:
        """The condition that no worker holds a row."""
        return or_(self._columns.lease_until.is_(None), self._columns.lease_until < now)

    def claim(self, session: Session, key: str, worker: str, now: datetime, lease: timedelta) -> bool:
        """Take, or prolong, the right to send; whether this worker has it now."""
        done = session.execute(
            update(self._table)
            .where(
                self._columns.id == key,
                self._columns.active.is_(True),
                or_(self.free(now), self._columns.lease_by == worker),
            )
            .values(lease_until=now + lease, lease_by=worker)
        )
        return bool(done.rowcount)  # type: ignore[attr-defined]

    def release(self, session: Session, key: str, worker: str) -> None:
        """Give the right back."""
        mine = (self._columns.id == key, self._columns.lease_by == worker)
        session.execute(update(self._table).where(*mine).values(lease_until=None, lease_by=None))

    def holds(self, session: Session, key: str, worker: str) -> bool:
        """Whether this worker still has the right; keeps the row until the transaction ends."""
        statement = select(self._columns.lease_by).where(self._columns.id == key).with_for_update()
        return session.execute(statement).scalar_one_or_none() == worker
