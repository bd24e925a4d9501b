"""Failures as a person or a pipeline sees them: what, where, what to do, and an exit code. Never a stack trace.

    Failure                       carries an exit code, a title, a detail and reasons
    ├── LocalFailure              a file, a key or a setting on this machine
    ├── NotInOrder                what was looked at is not in order
    ├── WaitedInVain              time is over
    └── Refused                   the service refused (RFC 9457 problem document)
        └── Unreachable           nobody answered

`failure_of` turns every other error that is foreseen (domain, trust, artifacts, validation, files) into one of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.cli.exit_codes import ExitCode, of_status
from orchestrator.domain.errors import Reason, SluiceError


class Failure(Exception):  # noqa: N818 - the names are what happened
    """A command that did not do what it was asked to."""

    exit_code = ExitCode.UNEXPECTED

    def __init__(
        self,
        title: str,
        detail: str = "",
        reasons: Sequence[Reason] = (),
        *,
        exit_code: ExitCode | None = None,
    ) -> None:
        super().__init__(detail or title)
        self.title, self.detail, self.reasons = title, detail, tuple(reasons)
        if exit_code is not None:
            self.exit_code = exit_code

    def document(self) -> dict[str, Any]:
        """The failure as JSON: the members of a problem document, with the exit code."""
        return {
            "title": self.title,
            "detail": self.detail,
            "reasons": [reason.as_dict() for reason in self.reasons],
            "exit_code": int(self.exit_code),
        }


class LocalFailure(Failure):
    """A file, a key or a setting on this machine cannot be used."""

    exit_code = ExitCode.LOCAL


class NotInOrder(Failure):
    """What was looked at is not in order."""

    exit_code = ExitCode.NOT_IN_ORDER


class WaitedInVain(Failure):
    """What was waited for did not happen in time."""

    exit_code = ExitCode.WAITED_IN_VAIN


class Refused(Failure):
    """The service refused. `status` is the HTTP status, `code` the stable word of the problem."""

    def __init__(
        self, status: int, code: str, title: str, detail: str, reasons: Sequence[Reason] = ()
    ) -> None:
        super().__init__(title, detail, reasons, exit_code=of_status(status))
        self.status, self.code = status, code

    def document(self) -> dict[str, Any]:
        """See `Failure.document`; with status and code."""
        return {"status": self.status, "code": self.code, **super().document()}


class Unreachable(Refused):
    """Nobody answered at the service's address."""

    def __init__(self, detail: str) -> None:
        super().__init__(503, "unreachable", "The service cannot be reached", detail)


def refused_by(status: int, document: Mapping[str, Any]) -> Refused:
    """The refusal that a problem document tells."""
    reasons = [
        Reason(
            code=str(item.get("code", "refused")),
            message=str(item.get("message", "")),
            path=item.get("path"),
            line=item.get("line"),
        )
        for item in document.get("reasons", [])
        if isinstance(item, dict)
    ]
    title = str(document.get("title") or f"The service answered {status}")
    detail = str(document.get("detail") or "")
    if document.get("request_id"):
        detail += f" (request {document['request_id']})"
    return Refused(status, str(document.get("code", "refused")), title, detail, reasons)


def failure_of(error: BaseException) -> Failure | None:
    """The failure that an error means; None for one that nobody foresaw."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, SluiceError):
        return Failure(error.title, error.detail, error.reasons, exit_code=of_status(error.status))
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return LocalFailure("A file cannot be used", f"{where}{error.strerror or error}")
    return _of_library(error)


def _of_library(error: BaseException) -> Failure | None:
    """Errors of libraries that are imported only by the commands that use them."""
    from artifacts import errors as sealed
    from orchestrator.trust.errors import KeyUnusable, TrustError

    if isinstance(error, KeyUnusable):
        return LocalFailure("The key cannot be used", str(error))
    if isinstance(error, TrustError):
        return NotInOrder("It does not verify", str(error))
    if isinstance(error, sealed.StoreUnavailable):
        return Failure("The store does not answer", str(error), exit_code=ExitCode.UNAVAILABLE)
    if isinstance(error, sealed.ObjectMissing):
        return Failure("It is not in the store", str(error), exit_code=ExitCode.NOT_FOUND)
    if isinstance(error, sealed.AccessDenied):
        return Failure("The store refuses access", str(error), exit_code=ExitCode.NOT_PERMITTED)
    if isinstance(
        error, sealed.DestinationError | sealed.SourceError | sealed.KeyProviderError | sealed.PathError
    ):
        return LocalFailure("It cannot be done on this machine", str(error))
    if isinstance(error, sealed.ArtifactError):
        return NotInOrder("The sealed artifact is not in order", str(error))
    return None
