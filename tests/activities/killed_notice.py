"""A notices worker that is killed with kill -9 the moment after the mail server took a message: `python -m … URL PORT NOW`."""

from __future__ import annotations

import os
import signal
import sys
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from activities.notices.elsewhere import Elsewhere
from activities.notices.mail import Mailer, MailServer
from activities.notices.people import NoticeDelivery
from orchestrator.records import database


class Cipher:
    """The key of the tests' own cipher."""

    def open(self, sealed: bytes, context: bytes) -> bytes:
        return AESGCM(bytes(32)).decrypt(sealed[:12], sealed[12:], context)

    def seal(self, data: bytes, context: bytes) -> bytes:
        raise AssertionError("whoever sends a notice opens its address, and seals nothing")


def main(url: str, port: str, now: str) -> None:
    at = datetime.fromisoformat(now)
    worker = NoticeDelivery(
        database.connect(url),
        Cipher(),
        "killed",
        mailer=Mailer(MailServer("127.0.0.1", int(port), "clear"), "Sluice <sluice@sluice.example>"),
        elsewhere=Elsewhere(()),
        public_url="https://sluice.example",
        clock=lambda: at,
        gather=timedelta(),
    )

    def dies(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    worker._note = dies  # type: ignore[method-assign]
    worker.turn()


if __name__ == "__main__":
    main(*sys.argv[1:])
