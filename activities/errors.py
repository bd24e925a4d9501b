"""Errors at the activity's edge: what Temporal is told, and whether the same call may succeed later.

    orchestrator.domain.errors.SluiceError   type = its code, details = its reasons; retried only when it is `Unavailable`
    artifacts.errors.ArtifactError           type = the class's name in kebab case; retried when it says `retryable`
    what waits (a second lock, custody's clock) type as above, details = its reasons, then seconds, then who approves what; the workflow waits and asks again,
                                             so that no attempt is used up
    orchestrator.trust.errors.TrustError     type = its code; never retried: bytes do not mend themselves
    anything else                            a bug or the machine: retried as Temporal does

Messages of all three trees hold no secret, so they may travel; what else an error drags along (`__cause__`) does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from temporalio.exceptions import ApplicationError

from artifacts.custody.errors import SecondLockPending
from artifacts.errors import ArtifactError
from orchestrator.contracts.names import WAITS_FOR_CLOCK, WAITS_FOR_LOCK
from orchestrator.domain.errors import SluiceError, Unavailable
from orchestrator.trust.errors import TrustError

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def told(error: SluiceError | ArtifactError | TrustError) -> ApplicationError:
    """The error as a workflow gets it."""
    if isinstance(error, SluiceError):
        reasons = [reason.as_dict() for reason in error.reasons]
        retried = isinstance(error, Unavailable)
        more = [getattr(error, "seconds", None)] if error.code == WAITS_FOR_CLOCK else []
        return ApplicationError(error.detail, reasons, *more, type=error.code, non_retryable=not retried)
    if isinstance(error, ArtifactError):
        name = _HUMP.sub("-", type(error).__name__.removesuffix("Error")).lower()
        # whether a second lock opens is up to people: tries are not used up on them
        retried = error.retryable and name != WAITS_FOR_LOCK
        more = [None, _waiting(error)] if isinstance(error, SecondLockPending) else []
        return ApplicationError(str(error), [], *more, type=name, non_retryable=not retried)
    return ApplicationError(str(error), [], type=error.code, non_retryable=True)


def _waiting(pending: SecondLockPending) -> dict[str, Any]:
    """What of a second lock the release shows: who approves what, and by when. No secret is in it."""
    requests = [
        {
            "about": request.about,
            "accessor": request.accessor,
            "expires_at": datetime.fromtimestamp(int(request.expires_at), UTC).isoformat(),
            "approved_by": list(request.approved_by),
        }
        for request in pending.requests
    ]
    return {"approvers": pending.approvers, "requests": requests}


@contextmanager
def at_the_edge() -> Iterator[None]:
    """Errors of our trees that leave this block leave as `ApplicationError`."""
    try:
        yield
    except (SluiceError, ArtifactError, TrustError) as error:
        raise told(error) from None
