"""What can go wrong in a call, in words.

ClientError
├── Unreachable             nothing answered, several times over; a keyed command may be sent again with the same key
├── NotTheApi               something else answered
├── NotSeen                 what was waited for did not come in time, or cannot come any more
└── Refused                 the service refused: a problem document (RFC 9457) with every reason
├── NotSignedIn         401   no token, or one that does not count
├── Forbidden           403   this caller may not, or a signature does not hold
├── NotFound            404   there is no such thing, or none that the caller may know of
├── Conflict            409   the command and the state do not go together
├── GateChanged         412   the gate is not the one that was read: read it again, decide again
├── Malformed           413, 422   each reason with its path
├── PreconditionRequired 428  a decision without the gate's ETag
├── TooMany             429   after the client's own waiting
└── Unavailable         503   after the client's own waiting
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class ClientError(Exception):
    """A call that did not succeed."""


class Unreachable(ClientError):  # noqa: N818
    """Nothing answered."""


class NotTheApi(ClientError):  # noqa: N818
    """What answered does not speak as the API does."""


class NotSeen(ClientError):  # noqa: N818
    """What was waited for did not come."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason of a refusal. `path`: where in the request; `line`: of a plan's text."""

    code: str
    message: str
    path: str | None = None
    line: int | None = None


class Refused(ClientError):  # noqa: N818
    """The service refused.

    Attributes:
        status: the HTTP status.
        code: the problem's code, stable for programs.
        title: the problem in short.
        detail: this very problem.
        reasons: every reason.
        request_id: what the service calls this request in its logs.
    """

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str,
        reasons: tuple[Reason, ...],
        request_id: str | None,
    ) -> None:
        more = "".join(
            f"\n  {reason.path + ': ' if reason.path else ''}{reason.message}" for reason in reasons
        )
        super().__init__(f"{title}: {detail}{more}")
        self.status, self.code, self.title, self.detail = status, code, title, detail
        self.reasons, self.request_id = reasons, request_id


class NotSignedIn(Refused):
    """401."""


class Forbidden(Refused):
    """403."""


class NotFound(Refused):
    """404."""


class Conflict(Refused):
    """409."""


class GateChanged(Refused):
    """412."""


class Malformed(Refused):
    """413, 422."""


class PreconditionRequired(Refused):
    """428."""


class TooMany(Refused):
    """429."""


class Unavailable(Refused):
    """503."""


KINDS: Mapping[int, type[Refused]] = {
    401: NotSignedIn,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: GateChanged,
    413: Malformed,
    422: Malformed,
    428: PreconditionRequired,
    429: TooMany,
    503: Unavailable,
}


def refused(status: int, document: Mapping[str, Any], request_id: str | None = None) -> Refused:
    """The error of a problem document; of anything else, one that says the status."""
    listed = document.get("reasons")
    reasons = tuple(
        Reason(str(one.get("code", "")), str(one.get("message", "")), one.get("path"), one.get("line"))
        for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, dict)
    )
    return KINDS.get(status, Refused)(
        status,
        str(document.get("code", "")),
        str(document.get("title", f"HTTP {status}")),
        str(document.get("detail", "")),
        reasons,
        document.get("request_id") or request_id,
    )
