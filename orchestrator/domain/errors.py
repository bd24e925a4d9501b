"""One error tree for the rules.

    SluiceError                     what a person reads: a title, a detail, and every reason
    ├── Malformed          422      the input is not of the asked form
    │   └── PlanRefused    422      a plan that breaks rules: every broken one is listed with its path
    ├── NotPermitted       403      this actor may not do that
    ├── NotFound           404      there is no such thing, or none that this actor may know of
    ├── Conflict           409      the command and the state of the release do not go together
    │   ├── ReleaseEnded   409      the release was completed or aborted
    │   └── KeyReused      409      an idempotency key came back with another command
    ├── GateChanged        412      what was decided on is not what stands at the gate now
    └── Unavailable        503      a part that is needed does not answer; try again

The HTTP status is applied at the API's edge, `ApplicationError(type=code)` at the workflow's edge. Nothing in
`orchestrator.domain` raises anything else on purpose; a `ValueError` that escapes from here is a bug.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason of a refusal.

    Attributes:
        code: a stable word for machines, such as `rule-6` or `role-unknown`.
        message: what is wrong and what to do, for people.
        path: where in the input it is (`steps[2].gate.cooling_off`), or None.
        line: the line in the input's text, counted from 1, or None when there is no text.
    """

    code: str
    message: str
    path: str | None = None
    line: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The reason as a JSON object; absent places are left out."""
        pairs = {"code": self.code, "message": self.message, "path": self.path, "line": self.line}
        return {key: value for key, value in pairs.items() if value is not None}


class SluiceError(Exception):
    """Base of everything that a caller of the rules can be told."""

    code: ClassVar[str] = "error"
    title: ClassVar[str] = "The request could not be carried out"
    status: ClassVar[int] = 500

    def __init__(self, detail: str, reasons: Sequence[Reason] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.reasons = tuple(reasons)


class Malformed(SluiceError):  # noqa: N818 - the names are the words a caller reads
    """The input is not of the asked form."""

    code = "malformed"
    title = "The input is malformed"
    status = 422


class PlanRefused(Malformed):
    """A plan that breaks rules; `reasons` lists every one of them."""

    code = "plan-refused"
    title = "The plan breaks rules"


class NotPermitted(SluiceError):  # noqa: N818
    """The actor lacks a permission, or the plan does not name them for this."""

    code = "not-permitted"
    title = "Not permitted"
    status = 403


class NotFound(SluiceError):  # noqa: N818
    """There is no such thing, or none that the actor may know of."""

    code = "not-found"
    title = "Not found"
    status = 404


class Conflict(SluiceError):  # noqa: N818
    """The command and the state of the release do not go together."""

    code = "conflict"
    title = "The release is not in a state for this"
    status = 409


class ReleaseEnded(Conflict):
    """The release was completed or aborted; nothing can be commanded any more."""

    code = "release-ended"
    title = "The release has ended"


class KeyReused(Conflict):
    """An idempotency key came back with another command."""

    code = "idempotency-key-reused"
    title = "The idempotency key was used for another command"


class GateChanged(SluiceError):  # noqa: N818
    """What was decided on is not what stands at the gate now."""

    code = "gate-changed"
    title = "The gate has changed since it was read"
    status = 412


class Unavailable(SluiceError):  # noqa: N818
    """A part that is needed does not answer; the same request may go through later."""

    code = "unavailable"
    title = "A needed part does not answer"
    status = 503


def error_by_code(code: str) -> type[SluiceError]:
    """The class of the tree with this `code`; `SluiceError` when there is none."""
    pending: list[type[SluiceError]] = [SluiceError]
    while pending:
        candidate = pending.pop()
        if candidate.code == code:
            return candidate
        pending.extend(candidate.__subclasses__())
    return SluiceError
