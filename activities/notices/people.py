"""Tells people: plans notices from the event log, and sends what is due by mail or `apprise`, again until it was taken.

One worker at a time holds a channel (a lease in the records). A worker that is killed between sending and noting leaves the message
pending: it is sent again with the same Message-ID, so that a mailbox can know it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from activities.notices import composing
from activities.notices.elsewhere import Elsewhere
from activities.notices.mail import Mailer
from activities.notices.sending import PAUSES, Sent, next_try
from orchestrator.records import database, notice_planning, notices
from orchestrator.records.documents import Cipher
from orchestrator.records.notice_channels import Kind

_LEASE = timedelta(seconds=120)
_AT_ONCE = 4
_PER_TURN = 20
_log = structlog.get_logger(__name__)


class NoticeDelivery:
    """Plans and sends what is due.

    Args:
        engine: of the records.
        cipher: opens addresses.
        worker: this worker's name, for leases.
        mailer: hands in mail; None: mail waits until there is one.
        elsewhere: reaches the rest.
        public_url: where the links lead.
        gather: for how long what is not urgent waits for company.
        clock: the time now (aware).
        pauses: between tries; after the last one a message is dead.
    """

    def __init__(
        self,
        engine: Engine,
        cipher: Cipher,
        worker: str,
        *,
        mailer: Mailer | None,
        elsewhere: Elsewhere,
        public_url: str,
        gather: timedelta = timedelta(minutes=10),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        pauses: Sequence[timedelta] = PAUSES,
    ) -> None:
        self._engine, self._cipher, self._worker = engine, cipher, worker
        self._mailer, self._elsewhere, self._url = mailer, elsewhere, public_url.rstrip("/")
        self._gather, self._clock, self._pauses = gather, clock, tuple(pauses)
        self._stopping = threading.Event()
        self._kinds: tuple[Kind, ...] = ("apprise",) if mailer is None else ("mail", "apprise")

    def stop(self) -> None:
        """Begin no further message."""
        self._stopping.set()

    def turn(self) -> int:
        """Plan what has happened, send what is due; how many messages were tried."""
        with database.reading(self._engine) as session:
            behind = notice_planning.behind(session)
        for name in behind:
            self._plan(name)
        with database.reading(self._engine) as session:
            due = notices.due(session, self._clock(), self._kinds)
        if len(due) < 2:
            return sum(self._deliver(name) for name in due)
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="notice") as threads:
            return sum(threads.map(self._deliver, due))

    def forget(self) -> None:
        """Drop what was told long ago."""
        with database.writing(self._engine) as session:
            notices.forget(session, before=self._clock() - notices.KEPT)

    def _plan(self, name: str) -> None:
        while not self._stopping.is_set():
            with database.writing(self._engine) as session:
                if not notice_planning.plan(session, name, self._clock(), gather=self._gather):
                    return

    def _deliver(self, name: str) -> int:
        """Send to one channel what is due; how many messages were tried."""
        made = 0
        try:
            while made < _PER_TURN and not self._stopping.is_set():
                with database.writing(self._engine) as session:
                    # also prolongs the lease: a message ends well within one
                    if not notices.claim(session, name, self._worker, self._clock(), _LEASE):
                        break
                    batch = notices.head(session, name, self._clock(), self._cipher)
                if batch is None:
                    break
                sent = self._send(batch)
                made += 1
                with database.writing(self._engine) as session:
                    if not notices.holds(session, name, self._worker):
                        break  # another worker took over: it sends and notes
                    self._note(session, batch, sent)
        finally:
            with database.writing(self._engine) as session:
                notices.release_claim(session, name, self._worker)
        return made

    def _send(self, batch: notices.Batch) -> Sent:
        title, text = composing.title(batch), composing.text(batch, self._url)
        if batch.kind == "apprise":
            return self._elsewhere.send(batch.address, title=title, text=text)
        if self._mailer is None:
            return Sent("no mail server is set")
        at = max(item.at for item in batch.items)
        return self._mailer.send(batch.address, name=_name(batch), title=title, text=text, at=at)

    def _note(self, session: Session, batch: notices.Batch, sent: Sent) -> None:
        now = self._clock()
        if sent.error is None:
            notices.note_success(session, batch, now)
            return
        again = None if sent.for_good else next_try(_name(batch), batch.attempts, self._pauses, now)
        notices.note_failure(session, batch, error=sent.error, again_at=again, now=now)
        _log.warning(
            "a notice was not delivered",
            channel=batch.channel,
            number=batch.number,
            notices=len(batch.items),
            attempt=batch.attempts + 1,
            why=sent.error,
            again_at=None if again is None else again.isoformat(),
        )


def _name(batch: notices.Batch) -> str:
    return f"{batch.channel}.{batch.number}"
