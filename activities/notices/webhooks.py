"""Delivers events to webhook endpoints, in order, signed as Standard Webhooks says.

Only the head of an endpoint's queue is tried: a number is sent when every lower one was delivered or is in the dead-letter
list. One worker at a time holds an endpoint (a lease in the records). A worker that is killed between sending and noting
leaves the delivery pending: it is sent again with the same `webhook-id`, so a receiver that keeps ids sees it once.

Requests go to public addresses only, unless the operator allows others; redirects are never followed; an answer's body is
not read beyond a few kilobytes; every wait is bounded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session
from standardwebhooks.webhooks import Webhook as Signer

from activities.notices.sending import PAUSES, next_try
from artifacts.leaks.errors import AddressRefused, SourceFailure
from artifacts.leaks.ranged import AddressPolicy, GuardedClient
from orchestrator.records import database, webhook_sending, webhooks
from orchestrator.records.documents import Cipher

_LEASE = timedelta(seconds=90)
_TIMEOUT = httpx.Timeout(10.0, connect=5.0)
_LONGEST = 20.0
_READ = 16 * 1024
_LONGEST_RETRY_AFTER = 3_600
_GONE = 410
_AT_ONCE = 8
_PER_TURN = 100
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one try. `error` is None when the endpoint took it."""

    status: int | None
    error: str | None
    retry_after: int | None = None


class WebhookDelivery:
    """Plans and delivers what is due.

    Args:
        engine: of the records.
        cipher: opens the secrets.
        worker: this worker's name, for leases.
        policy: which addresses may be connected to.
        clock: the time now (aware).
        pauses: between tries; after the last one a delivery is dead.
    """

    def __init__(
        self,
        engine: Engine,
        cipher: Cipher,
        worker: str,
        *,
        policy: AddressPolicy | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        pauses: Sequence[timedelta] = PAUSES,
    ) -> None:
        self._engine, self._cipher, self._worker = engine, cipher, worker
        self._policy, self._clock, self._pauses = policy or AddressPolicy(), clock, tuple(pauses)
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Begin no further request."""
        self._stopping.set()

    def turn(self) -> int:
        """Plan what has happened, deliver what is due; how many requests were made."""
        with database.reading(self._engine) as session:
            behind = webhook_sending.behind(session)
        for name in behind:
            self._plan(name)
        with database.reading(self._engine) as session:
            due = webhook_sending.due(session, self._clock())
        if len(due) < 2:
            return sum(self._deliver(name) for name in due)
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="webhook") as threads:
            return sum(threads.map(self._deliver, due))

    def forget(self) -> None:
        """Drop what was delivered long ago."""
        with database.writing(self._engine) as session:
            webhook_sending.forget(session, before=self._clock() - webhook_sending.KEPT)

    def _plan(self, name: str) -> None:
        while not self._stopping.is_set():
            with database.writing(self._engine) as session:
                if not webhook_sending.plan(session, name, self._clock()):
                    return

    def _deliver(self, name: str) -> int:
        """Deliver to one endpoint until its head is not due any more; how many requests were made."""
        with database.writing(self._engine) as session:
            if not webhook_sending.claim(session, name, self._worker, self._clock(), _LEASE):
                return 0
        made = 0
        try:
            while made < _PER_TURN and not self._stopping.is_set():
                with database.writing(self._engine) as session:
                    # also prolongs the lease: a request ends well within one
                    if not webhook_sending.claim(session, name, self._worker, self._clock(), _LEASE):
                        break
                    message = webhook_sending.head(session, name, self._clock(), self._cipher)
                if message is None:
                    break
                answer = self._send(message)
                made += 1
                with database.writing(self._engine) as session:
                    if not webhook_sending.holds(session, name, self._worker):
                        break  # another worker took over: it sends and notes
                    if not self._note(session, name, message, answer):
                        break
        finally:
            with database.writing(self._engine) as session:
                webhook_sending.release_claim(session, name, self._worker)
        return made

    def _note(self, session: Session, name: str, message: webhook_sending.Message, answer: Answer) -> bool:
        """Write down what came of a try; whether to go on with this endpoint now."""
        now = self._clock()
        if answer.error is None:
            webhook_sending.note_success(session, name, message.number, answer.status or 0, now)
            return True
        again = self._again_at(message, answer, now)
        webhook_sending.note_failure(
            session,
            name,
            message.number,
            answer=answer.status,
            error=answer.error,
            again_at=again,
            now=now,
        )
        _log.info(
            "a webhook was not delivered",
            webhook=name,
            number=message.number,
            attempt=message.attempts + 1,
            why=answer.error,
            again_at=None if again is None else again.isoformat(),
        )
        if answer.status == _GONE:
            reason = "the endpoint answered 410 Gone"
            webhooks.switch(session, name, active=False, reason=reason, at=now, by="sluice")
            return False
        return True

    def _again_at(self, message: webhook_sending.Message, answer: Answer, now: datetime) -> datetime | None:
        again = next_try(message.id, message.attempts, self._pauses, now)
        if again is None:
            return None
        if answer.retry_after is not None:
            again = max(again, now + timedelta(seconds=min(answer.retry_after, _LONGEST_RETRY_AFTER)))
        return again

    def _send(self, message: webhook_sending.Message) -> Answer:
        client = GuardedClient(self._policy)
        # timeouts of the transport are per read: a server that sends one byte a second is cut off here
        cut = threading.Timer(_LONGEST, client.close)
        cut.daemon = True
        cut.start()
        try:
            with client.http.stream(
                "POST",
                message.url,
                content=message.body,
                headers=signed_headers(message, self._clock()),
                timeout=_TIMEOUT,
            ) as answer:
                next(answer.iter_raw(_READ), b"")
                return _judged(answer)
        except (AddressRefused, SourceFailure) as error:
            return Answer(None, str(error)[:300])
        except httpx.TimeoutException:
            return Answer(None, "no answer in time")
        except (httpx.HTTPError, httpx.InvalidURL, RuntimeError, OSError) as error:
            # RuntimeError: the client was closed because the time was over
            return Answer(None, f"no answer: {type(error).__name__}")
        finally:
            cut.cancel()
            client.close()


def signed_headers(message: webhook_sending.Message, now: datetime) -> dict[str, str]:
    """The headers of Standard Webhooks; during a rotation with one signature for each secret, the newest first."""
    now = now.astimezone(UTC)
    text = message.body.decode()
    signatures = [Signer(secret).sign(message.id, now, text) for secret in message.secrets]
    return {
        "Content-Type": "application/json",
        "User-Agent": "sluice-webhooks",
        "webhook-id": message.id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _judged(answer: httpx.Response) -> Answer:
    told = answer.headers.get("Retry-After", "")
    retry_after = int(told) if told.isdigit() and len(told) < 8 else None
    if answer.is_success:
        return Answer(answer.status_code, None)
    if answer.is_redirect:
        return Answer(answer.status_code, f"answered {answer.status_code}; redirects are not followed")
    return Answer(answer.status_code, f"answered {answer.status_code}", retry_after)
