"""Custody as Temporal activities on the queue `custody`, and the thread that keeps looking at the log."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from temporalio import activity

from activities.beating import beating
from activities.custody.base import Asked
from activities.custody.opening import Custody
from activities.custody.second_place import SecondPlace, SecondPlaces
from activities.errors import at_the_edge
from artifacts.errors import ArtifactError
from orchestrator.contracts import names
from orchestrator.contracts.messages import EnvelopeRequest, EnvelopesMade, TakeInRequest, TakenIn
from orchestrator.domain.errors import SluiceError, Unavailable
from orchestrator.trust.errors import TrustError

_log = structlog.get_logger(__name__)


class CustodyActivities:
    """Activities over one `Custody`."""

    def __init__(self, custody: Custody) -> None:
        self._custody = custody

    @property
    def all(self) -> list[Callable[..., Any]]:
        """Every activity, for a worker."""
        return [self.make_envelopes, self.take_in_root]

    @activity.defn(name=names.MAKE_ENVELOPES, no_thread_cancel_exception=True)
    def make_envelopes(self, request: EnvelopeRequest) -> EnvelopesMade:
        """Judge the gate anew and make the envelopes of one entry.

        Raises:
            ApplicationError: `custody-refused` or `unbacked`, never retried; a key service that is away is retried.
        """
        with at_the_edge(), beating():
            asked = Asked(
                release=request.release,
                step=request.step,
                attempt=request.attempt,
                at=request.at,
                partners={ready.partner: ready.recipient for ready in request.partners},
                absent=frozenset(request.absent),
                late=request.late,
            )
            return EnvelopesMade(envelopes=self._custody.make_envelopes(asked))

    @activity.defn(name=names.TAKE_IN_ROOT)
    def take_in_root(self, request: TakeInRequest) -> TakenIn:
        """Take in the roots of a release's artifacts, and wrap them anew after an amendment."""
        with at_the_edge():
            return TakenIn(artifacts=self._custody.take_in(request.release))


class Watching(threading.Thread):
    """Looks at the log every `seconds`, so that custody's own clock knows when it first saw what, and signs checkpoints.

    Args:
        custody: whose eyes it is.
        seconds: between two looks.
        places: where signed checkpoints are copied to (`second_place.open_place`).
    """

    def __init__(self, custody: Custody, seconds: float, places: Iterable[SecondPlace] = ()) -> None:
        super().__init__(name="custody-watch", daemon=True)
        self._custody, self._seconds = custody, seconds
        self._places = SecondPlaces(places)
        self._untaken: set[str] = set()
        self._stop_asked = threading.Event()
        self._signed = -1
        #: Whether custody trusts the log as of its last look, and how many notes second places have not taken.
        self.trusts, self.waiting_notes = True, 0

    def run(self) -> None:
        """Until `stop`."""
        while not self._stop_asked.wait(self._seconds):
            try:
                self.look()
            except Exception:  # noqa: BLE001 - the watch never ends: without it no window would pass
                _log.exception("custody could not look at the log")

    def look(self) -> None:
        """Read the log on, sign a checkpoint over what is new, copy it to the second places, take in new roots."""
        note = None
        try:
            tree = self._custody.watch.catch_up()
            if tree.size != self._signed:
                note = self._custody.sign_checkpoint()
                self._signed = tree.size
        except (TrustError, SluiceError) as error:
            self.trusts = False
            _log.error("custody does not trust the log", why=str(error), code=error.code)
            return
        self.trusts = True
        self.waiting_notes = self._places.push(note)
        self._untaken |= self._custody.watch.fresh()
        for release in sorted(self._untaken):
            self._take_in(release)
        try:
            self._custody.forget()
        except (TrustError, SluiceError) as error:
            _log.warning("requests to the second lock stay as they are", why=str(error))

    def _take_in(self, release: str) -> None:
        try:
            _log.info("roots taken in", release=release, artifacts=self._custody.take_in(release))
        except (TrustError, SluiceError, ArtifactError) as error:
            # with its reasons in the log; said again when a gate asks for the keys
            _log.warning("roots not taken in", release=release, why=str(error))
            if isinstance(error, Unavailable) or (isinstance(error, ArtifactError) and error.retryable):
                return
        self._untaken.discard(release)

    def stop(self) -> None:
        """Ask it to end, and wait."""
        self._stop_asked.set()
        self.join(timeout=10)
