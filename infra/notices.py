"""The loop of `worker-notices`: one turn after another, in a thread, until it is told to stop."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import structlog
from sqlalchemy import Engine

from activities.notices.webhooks import WebhookDelivery
from artifacts.leaks.ranged import AddressPolicy
from orchestrator.domain.errors import SluiceError
from orchestrator.records import webhooks
from orchestrator.records.database import writing
from orchestrator.records.documents import Cipher

_FORGET_EVERY = 3_600.0
_LONGEST_TURN = 300.0
_log = structlog.get_logger(__name__)


class Saying(threading.Thread):
    """Delivers webhooks. Several processes may run at once: each endpoint is one worker's at a time."""

    def __init__(self, engine: Engine, cipher: Cipher, *, allow: Sequence[str], seconds: float) -> None:
        super().__init__(name="saying", daemon=True)
        worker = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self._delivery = WebhookDelivery(engine, cipher, worker, policy=AddressPolicy(tuple(allow)))
        self._engine, self._seconds = engine, seconds
        self._stop_asked = threading.Event()
        self._turned_at = time.monotonic()
        self._forgot_at = 0.0

    def run(self) -> None:
        """Until `stop`. A database that does not answer is said, and asked again the next time."""
        while not self._stop_asked.is_set():
            try:
                self._delivery.turn()
                self._forget()
                self._turned_at = time.monotonic()
            except SluiceError as error:
                _log.warning("webhooks not delivered", why=error.detail)
            except Exception:  # noqa: BLE001 - the loop outlives whatever a turn meets, and says it with its trace
                _log.exception("webhooks not delivered")
            self._stop_asked.wait(self._seconds)

    def check(self) -> None:
        """Raise unless turns come to their end."""
        if not self.is_alive() or time.monotonic() - self._turned_at > _LONGEST_TURN:
            raise RuntimeError("webhooks are not delivered")

    def stop(self, patience: float) -> None:
        """Begin nothing more, and wait for the request that is under way."""
        self._delivery.stop()
        self._stop_asked.set()
        self.join(timeout=patience)

    def _forget(self) -> None:
        if time.monotonic() - self._forgot_at < _FORGET_EVERY:
            return
        with writing(self._engine) as session:
            webhooks.forget(session, before=datetime.now(UTC) - webhooks.KEPT)
        self._forgot_at = time.monotonic()
