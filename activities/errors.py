"""Errors at the activity's edge: what Temporal is told, and whether the same call may succeed later.

    orchestrator.domain.errors.SluiceError   type = its code, details = its reasons; retried only when it is `Unavailable`
    artifacts.errors.ArtifactError           type = the class's name in kebab case; retried when it says `retryable`
    orchestrator.trust.errors.TrustError     type = its code; never retried: bytes do not mend themselves
    anything else                            a bug or the machine: retried as Temporal does

Messages of all three trees hold no secret, so they may travel; what else an error drags along (`__cause__`) does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from temporalio.exceptions import ApplicationError

from artifacts.errors import ArtifactError
from orchestrator.domain.errors import SluiceError, Unavailable
from orchestrator.trust.errors import TrustError

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def told(error: SluiceError | ArtifactError | TrustError) -> ApplicationError:
    """The error as a workflow gets it."""
    if isinstance(error, SluiceError):
        reasons = [reason.as_dict() for reason in error.reasons]
        retried = isinstance(error, Unavailable)
        return ApplicationError(error.detail, reasons, type=error.code, non_retryable=not retried)
    if isinstance(error, ArtifactError):
        name = _HUMP.sub("-", type(error).__name__.removesuffix("Error")).lower()
        return ApplicationError(str(error), [], type=name, non_retryable=not error.retryable)
    return ApplicationError(str(error), [], type=error.code, non_retryable=True)


@contextmanager
def at_the_edge() -> Iterator[None]:
    """Errors of our trees that leave this block leave as `ApplicationError`."""
    try:
        yield
    except (SluiceError, ArtifactError, TrustError) as error:
        raise told(error) from None
