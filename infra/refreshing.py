"""Keeps what time alone changes in the read models up to date: what waits for whom, when a gate opens."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime

import structlog
from sqlalchemy import Engine

from orchestrator.domain.errors import SluiceError
from orchestrator.records import pending
from orchestrator.records.database import reading, writing

_BATCH = 100
_log = structlog.get_logger(__name__)


class Refreshing(threading.Thread):
    """Looks every `seconds` for releases whose clocks have moved on, in small transactions, until `stop`.

    What is shown of one release is judged at the moment that it is asked for; what lists show is at most so old.
    """

    def __init__(
        self, engine: Engine, seconds: float = 2.0, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        super().__init__(name="refreshing", daemon=True)
        self._engine, self._seconds, self._clock = engine, seconds, clock
        self._stop_asked = threading.Event()

    def run(self) -> None:
        """Until `stop`. A database that does not answer is said, and asked again the next time."""
        while not self._stop_asked.wait(self._seconds):
            try:
                while not self._stop_asked.is_set() and self.refresh() == _BATCH:
                    pass
            except SluiceError as error:
                _log.warning("read models not refreshed", why=error.detail)

    def refresh(self) -> int:
        """One small transaction, where anything is due; how many releases it brought up to date."""
        with reading(self._engine) as session:
            if not pending.due_for_refresh(session, self._clock(), limit=1):
                return 0
        with writing(self._engine) as session:
            return pending.refresh_due(session, self._clock(), limit=_BATCH)

    def stop(self) -> None:
        """Ask it to end, and wait."""
        self._stop_asked.set()
        self.join(timeout=10)
