"""The loops of `worker-notices`: one for webhooks, one for notices to people, so that neither waits for the other's servers."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

import structlog
from sqlalchemy import Engine

from activities.notices.elsewhere import Elsewhere
from activities.notices.mail import Mailer, MailServer
from activities.notices.people import NoticeDelivery
from activities.notices.webhooks import WebhookDelivery
from artifacts.leaks.ranged import AddressPolicy
from infra.settings import InvalidSettingError, Settings, read_secret
from orchestrator.domain.errors import Malformed, SluiceError
from orchestrator.records.documents import Cipher

_FORGET_EVERY = 3_600.0
_LONGEST_TURN = 300.0
_log = structlog.get_logger(__name__)


class Delivery(Protocol):
    """What a loop turns."""

    def turn(self) -> int:
        """Plan and deliver what is due."""
        ...

    def forget(self) -> None:
        """Drop what was delivered long ago."""
        ...

    def stop(self) -> None:
        """Begin nothing more."""
        ...


class Saying(threading.Thread):
    """Turns a delivery. Several processes may run at once: each endpoint and channel is one worker's at a time."""

    def __init__(self, what: str, delivery: Delivery, *, seconds: float) -> None:
        super().__init__(name=f"saying-{what}", daemon=True)
        self._what, self._delivery, self._seconds = what, delivery, seconds
        self._stop_asked = threading.Event()
        self._turned_at = time.monotonic()
        self._forgot_at = float("-inf")

    def run(self) -> None:
        """Until `stop`. A database that does not answer is said, and asked again the next time."""
        while not self._stop_asked.is_set():
            try:
                self._delivery.turn()
                self._forget()
                self._turned_at = time.monotonic()
            except SluiceError as error:
                _log.warning("not delivered", what=self._what, why=error.detail)
            except Exception:  # noqa: BLE001 - the loop outlives whatever a turn meets, and says it with its trace
                _log.exception("not delivered", what=self._what)
            self._stop_asked.wait(self._seconds)

    def check(self) -> None:
        """Raise unless turns come to their end."""
        if not self.is_alive() or time.monotonic() - self._turned_at > _LONGEST_TURN:
            raise RuntimeError(f"{self._what} are not delivered")

    def ask_to_stop(self) -> None:
        """Begin nothing more."""
        self._delivery.stop()
        self._stop_asked.set()

    def stop(self, patience: float) -> None:
        """Begin nothing more, and wait for what is under way."""
        self.ask_to_stop()
        self.join(timeout=patience)

    def _forget(self) -> None:
        if time.monotonic() - self._forgot_at < _FORGET_EVERY:
            return
        self._delivery.forget()
        self._forgot_at = time.monotonic()


def loops(settings: Settings, engine: Engine, cipher: Cipher) -> Sequence[Saying]:
    """The loops of a worker, not started.

    Raises:
        InvalidSettingError: the mail server's file cannot be used.
    """
    worker = f"{socket.gethostname()}-{secrets.token_hex(4)}"
    hooks = WebhookDelivery(engine, cipher, worker, policy=AddressPolicy(settings.webhook_allow))
    people = NoticeDelivery(
        engine,
        cipher,
        worker,
        mailer=mailer(settings),
        elsewhere=Elsewhere(settings.webhook_allow),
        public_url=settings.effective_public_url,
        gather=timedelta(seconds=settings.notice_gather_seconds),
    )
    seconds = settings.webhook_poll_seconds
    return Saying("webhooks", hooks, seconds=seconds), Saying("notices", people, seconds=seconds)


def mailer(settings: Settings) -> Mailer | None:
    """What hands in mail; None when no server is set.

    Raises:
        InvalidSettingError: the server's file cannot be used.
    """
    if settings.mail_url_file is None:
        return None
    if not settings.mail_from:
        raise InvalidSettingError("SLUICE_MAIL_FROM is not set: mail needs an address that it comes from")
    text = read_secret(settings.mail_url_file, "mail_url_file")
    try:
        server = MailServer.parse(text, settings.mail_ca_file)
    except Malformed as error:
        told = "; ".join(reason.message for reason in error.reasons)
        raise InvalidSettingError(f"SLUICE_MAIL_URL_FILE: {settings.mail_url_file}: {told}") from None
    if server.security == "clear" and not settings.mail_may_be_clear(server.host):
        raise InvalidSettingError(
            f"SLUICE_MAIL_URL_FILE: {settings.mail_url_file}: mail would travel in clear; use smtps:// or smtp+starttls://"
        )
    return Mailer(server, settings.mail_from)
