"""Long work in a thread that stays alive to Temporal, and stops when it is told to.

Heartbeats come from a thread of their own, so that a slow store does not look like a dead worker. Cancellation is
cooperative: the work asks `check` where it can stop without leaving anything half done.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError, CancelledError

EVERY_S = 2.0


@dataclass
class Beat:
    """What is known of the work while it runs. `details`: what the next heartbeat tells."""

    details: Any = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    leaving: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Stop here if the work was cancelled, or its worker is to end; may be called from any thread.

        Raises:
            CancelledError: the workflow does not want it any more.
            ApplicationError: the worker ends; another one goes on.
        """
        if self.cancelled.is_set():
            raise CancelledError("cancelled")
        if self.leaving.is_set():
            raise ApplicationError("the worker is ending; another one goes on", type="worker-ending")


@contextmanager
def beating() -> Iterator[Beat]:
    """Heartbeat every `EVERY_S` seconds until the block ends; outside of an activity it does nothing."""
    beat = Beat()
    if not activity.in_activity():
        yield beat
        return
    done = threading.Event()

    def run() -> None:
        while not done.wait(EVERY_S):
            activity.heartbeat(beat.details)
            if activity.is_cancelled():
                beat.cancelled.set()
            if activity.is_worker_shutdown():
                beat.leaving.set()

    call: Callable[..., None] = contextvars.copy_context().run
    thread = threading.Thread(target=call, args=(run,), name="heartbeat", daemon=True)
    thread.start()
    try:
        yield beat
    finally:
        done.set()
        thread.join()
