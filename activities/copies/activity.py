"""Making copies as Temporal activities: on the queue `copies`, by a worker with custody's credentials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from temporalio import activity

from activities.beating import Beat, beating
from activities.copies.making import CopyingCustody
from activities.copies.sealing import Tell
from activities.copies.tracing import TracingCustody
from activities.custody.base import Asked
from activities.errors import at_the_edge
from artifacts.progress import Progress
from orchestrator.contracts import names
from orchestrator.contracts.leak_messages import TraceAsked
from orchestrator.contracts.messages import (
    CopiesMade,
    EnvelopeRequest,
    EnvelopesRenewed,
    RenewRequest,
    Resealed,
    ResealRequest,
)
from orchestrator.domain.incident import Trace


class CopyActivities:
    """Activities over one `CopyingCustody`; one that traces does so for the leak monitor too."""

    def __init__(self, custody: CopyingCustody) -> None:
        self._custody = custody

    @property
    def long(self) -> list[Callable[..., Any]]:
        """Those that move files, for the queue `copies`."""
        found: list[Callable[..., Any]] = [self.make_copies, self.reseal_artifact]
        return [*found, self.trace_suspect] if isinstance(self._custody, TracingCustody) else found

    @property
    def short(self) -> list[Callable[..., Any]]:
        """Those that move keys alone, for the queue `custody`."""
        return [self.renew_envelopes]

    @activity.defn(name=names.MAKE_COPIES, no_thread_cancel_exception=True)
    def make_copies(self, request: EnvelopeRequest) -> CopiesMade:
        """Judge the gate anew and make the marked copies of one entry.

        Raises:
            ApplicationError: `custody-refused` or `unbacked`, never retried; a store or key service that is away is retried.
        """
        with at_the_edge(), beating() as beat:
            asked = Asked(
                release=request.release,
                step=request.step,
                attempt=request.attempt,
                at=request.at,
                partners={ready.partner: ready.recipient for ready in request.partners},
                absent=frozenset(request.absent),
                late=request.late,
            )
            return CopiesMade(copies=self._custody.make_copies(asked, _teller(beat)))

    @activity.defn(name=names.RESEAL_ARTIFACT, no_thread_cancel_exception=True)
    def reseal_artifact(self, request: ResealRequest) -> Resealed:
        """Seal one artifact of a standing rotation anew; a retry goes on at the part where it stopped."""
        with at_the_edge(), beating() as beat:
            return self._custody.reseal(request.release, request.rotation, request.artifact, _teller(beat))

    @activity.defn(name=names.TRACE_SUSPECT, no_thread_cancel_exception=True)
    def trace_suspect(self, asked: TraceAsked) -> Trace:
        """Trace what the leak monitor read of a suspect that it recognised; every partner's z, signed and in the log."""
        with at_the_edge(), beating():
            assert isinstance(self._custody, TracingCustody)
            return self._custody.trace_sample(asked)

    @activity.defn(name=names.RENEW_ENVELOPES, no_thread_cancel_exception=True)
    def renew_envelopes(self, request: RenewRequest) -> EnvelopesRenewed:
        """Make the envelopes that grants wait for since something was sealed anew."""
        with at_the_edge(), beating():
            envelopes, refused = self._custody.renew(request.release)
            return EnvelopesRenewed(envelopes=envelopes, refused=refused)


def _teller(beat: Beat) -> Tell:
    def tell(progress: Progress) -> None:
        beat.details = [progress.bytes_done, progress.bytes_total]
        beat.check()

    return tell
