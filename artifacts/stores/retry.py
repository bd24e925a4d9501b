"""Bounded retries, said out loud: how often a remote store is asked again, and how long in between.

Both remote stores use this one policy instead of their libraries' silent ones. Every repeated request is a warning in
the log (what, which attempt, why, how long until the next); the last failure is a `StoreUnavailable` that says how
often it was tried. Only what is safe to repeat comes here: reads, and writes that are idempotent by name.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from artifacts.errors import StoreUnavailable

log = logging.getLogger(__name__)
T = TypeVar("T")


class Again(Exception):  # noqa: N818 - a signal between a call and its policy, never seen by callers
    """Raised by an attempt that may succeed if repeated; `after_s` is the server's own wish, if it told one."""

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.after_s = reason, after_s


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how fast.

    Attributes:
        attempts: tries in all, at least 1.
        first_s: the pause after the first failure, in seconds; it doubles with each, up to `longest_s`, with jitter.
        longest_s: the longest pause, also when a server asks for a longer one.
    """

    attempts: int = 5
    first_s: float = 0.2
    longest_s: float = 20.0

    def run(self, what: str, attempt: Callable[[], T], sleep: Callable[[float], None] = time.sleep) -> T:
        """The result of `attempt`, repeated while it raises `Again`.

        Raises:
            StoreUnavailable: it still raised `Again` at the last try.
        """
        for number in range(1, self.attempts + 1):
            try:
                return attempt()
            except Again as again:
                if number >= self.attempts:
                    tries = f"{number} attempts" if number > 1 else "1 attempt"
                    raise StoreUnavailable(
                        f"{what}: {again.reason} ({tries}); try again later"
                    ) from again.__cause__
                pause = min(self.longest_s, self.first_s * 2 ** (number - 1)) * random.uniform(0.5, 1)  # noqa: S311
                if again.after_s is not None:
                    pause = min(self.longest_s, max(pause, again.after_s))
                log.warning(
                    "%s: %s; attempt %d of %d, next in %.1f s",
                    what,
                    again.reason,
                    number,
                    self.attempts,
                    pause,
                )
                sleep(pause)
        raise AssertionError("unreachable: the loop returns or raises")


def retry_after(value: str | None) -> float | None:
    """Seconds from a `Retry-After` header, where it is a number (dates are not honoured)."""
    try:
        return max(0.0, float(value)) if value else None
    except ValueError:
        return None
