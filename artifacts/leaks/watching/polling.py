"""One poll: what it may cost, what the other side said of its rates, and errors in the sources' words."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime

from artifacts.errors import StoreError
from artifacts.leaks.asking import Answer, Asker
from artifacts.leaks.errors import (
    AddressRefused,
    BudgetError,
    BusyError,
    LeakError,
    LyingError,
    SourceFailure,
    shown,
)
from artifacts.leaks.sources import Budget
from artifacts.leaks.watching.base import RateLimits, SourceError, Trouble
from artifacts.leaks.watching.options import Options


class Poll:
    """What the requests of one poll share.

    Attributes:
        asker: asks for it.
        budget: of the poll.
        server_now: the other side's clock as of its last answer.
    """

    def __init__(self, name: str, options: Options) -> None:
        limits = options.limits
        self.name = name
        self.options = options
        self.budget = Budget(limits.max_bytes, limits.max_requests, limits.max_seconds, limits.max_wait)
        self.asker = Asker(
            options.addresses, self.budget, max_answer=limits.max_answer_bytes, on_answer=self._heard
        )
        self.server_now: datetime | None = None
        self._limits = RateLimits()

    def _heard(self, answer: Answer) -> None:
        from huggingface_hub.utils._http import parse_ratelimit_headers

        self.server_now = answer.date or self.server_now
        info = parse_ratelimit_headers(answer.headers)
        if info is not None:
            self._limits = RateLimits(
                limit=info.limit,
                remaining=info.remaining,
                resets_in_s=info.reset_in_seconds,
                window_s=info.window_seconds,
            )

    def limits(self, retry_after_s: float | None = None) -> RateLimits:
        """What was said of rates so far."""
        return self._limits.model_copy(
            update={"requests": self.budget.requests_used, "retry_after_s": retry_after_s}
        )

    @property
    def rested(self) -> bool:
        """Whether the server said that no request is left in its window."""
        return self._limits.remaining == 0

    def can_ask(self, requests: int = 1) -> bool:
        """Whether the budget, and what the server said is left, allow so many requests more."""
        left = self.budget.max_requests - self.budget.requests_used
        if self._limits.remaining is not None:
            left = min(left, self._limits.remaining)
        return left >= requests and self.budget.seconds_left > 1 and self.budget.bytes_left > 0

    def error(self, message: str, trouble: Trouble, retry_after_s: float | None = None) -> SourceError:
        """A `SourceError` of this poll."""
        return SourceError(
            f"{self.name}: {message}",
            trouble,
            retry_after_s=retry_after_s,
            limits=self.limits(retry_after_s),
        )


@contextlib.contextmanager
def polling(name: str, options: Options) -> Iterator[Poll]:
    """A poll of the source `name`; whatever goes wrong in it leaves as `SourceError`."""
    poll = Poll(name, options)
    try:
        yield poll
    except SourceError:
        raise
    except Exception as error:
        found = translate(poll, error)
        if found is None:
            raise
        raise found from error
    finally:
        poll.asker.close()


def translate(poll: Poll, error: Exception) -> SourceError | None:
    """The source's own error; None for what is a defect of ours."""
    if isinstance(error, BusyError):
        if error.status == 429:
            wait = error.retry_after_s
            return poll.error(str(error), Trouble.RATE_LIMITED, wait if wait is not None else 60.0)
        return poll.error(str(error), Trouble.UNREACHABLE, error.retry_after_s)
    if isinstance(error, AddressRefused):
        return poll.error(str(error), Trouble.ADDRESS)
    if isinstance(error, BudgetError):
        return poll.error(f"the poll's limits were reached: {error}", Trouble.MISBEHAVING)
    if isinstance(error, SourceFailure) and not isinstance(error, LyingError):
        return poll.error(str(error), Trouble.UNREACHABLE)
    if isinstance(error, LeakError):
        return poll.error(str(error), Trouble.MISBEHAVING)
    if isinstance(error, StoreError):
        return poll.error(str(error), Trouble.SETTING)
    return _of_library(poll, error)


def _of_library(poll: Poll, error: Exception) -> SourceError | None:
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if isinstance(error, HfHubHTTPError):
        return of_status(poll, error.response.status_code, shown(error.response.url.path, 200))
    if isinstance(error, HFValidationError):
        return poll.error(shown(error, 200), Trouble.SETTING)
    if isinstance(error, (ValueError, KeyError, TypeError, AttributeError)):
        return poll.error(f"an answer of an unexpected form ({type(error).__name__})", Trouble.MISBEHAVING)
    return None


def of_status(poll: Poll, status: int, where: str) -> SourceError:
    """The error of an HTTP status that is no success."""
    if status in (401, 403):
        return poll.error(f"{where}: answered {status}: the credentials may not see this", Trouble.DENIED)
    if status in (404, 410):
        return poll.error(f"{where}: answered {status}: not there", Trouble.GONE)
    return poll.error(f"{where}: answered {status}", Trouble.MISBEHAVING)


def short(key: str) -> str:
    """Twelve hex digits of a key, to remember it by in a cursor."""
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def to_text(moment: datetime) -> str:
    """A time as it stands in a cursor."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def from_text(text: object) -> datetime:
    """The time that `to_text` wrote.

    Raises:
        ValueError: it is not one.
    """
    moment = datetime.fromisoformat(str(text))
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    return moment
