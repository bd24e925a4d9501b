"""Errors at the API's edge: problem documents (RFC 9457) from one handler over the error tree of the domain.

    SluiceError                      orchestrator.domain.errors; status and title come with the class
    ├── Unauthenticated        401   no token, or one that is not known (any more)
    ├── PreconditionRequired   428   a decision at a gate without `If-Match`
    ├── TooLarge               413   the body is larger than the limit of the route
    ├── MethodNotAllowed       405   the path exists, but not with this method
    └── TooManyRequests        429   more requests than this principal may make

Every document lists every reason: `{type, title, status, detail, code, reasons: [{code, message, path?, line?}]}`. Input
that was refused is never echoed, an unexpected error says nothing but the request's id, and no document shows a trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from orchestrator.api.context import RequestContext, context_of
from orchestrator.domain.errors import (
    Conflict,
    GateChanged,
    Malformed,
    NotFound,
    NotPermitted,
    Reason,
    SluiceError,
    Unavailable,
)

MEDIA_TYPE = "application/problem+json"
TYPE_BASE = "https://sluice.release/problems/"
RETRY_AFTER_SECONDS = 2

log = structlog.get_logger("sluice.api")


class Unauthenticated(SluiceError):  # noqa: N818 - the names are the words a caller reads
    """No token came along, or one that is not known, expired or revoked."""

    code = "unauthenticated"
    title = "Who is asking is not known"
    status = 401


class PreconditionRequired(SluiceError):  # noqa: N818
    """A decision at a gate says on what it was made: the gate's ETag in `If-Match`."""

    code = "precondition-required"
    title = "Say on which gate this was decided"
    status = 428


class TooLarge(SluiceError):  # noqa: N818
    """The body is larger than this route takes."""

    code = "too-large"
    title = "The request is too large"
    status = 413


class MethodNotAllowed(SluiceError):  # noqa: N818
    """The path exists, but not with this method."""

    code = "method-not-allowed"
    title = "Not with this method"
    status = 405


class TooManyRequests(SluiceError):  # noqa: N818
    """More requests than this principal may make in the time."""

    code = "too-many-requests"
    title = "Too many requests"
    status = 429

    def __init__(
        self, detail: str, reasons: Sequence[Reason] = (), *, retry_after: int = RETRY_AFTER_SECONDS
    ) -> None:
        super().__init__(detail, reasons)
        self.retry_after = retry_after


class ProblemReason(BaseModel):
    """One reason of a refusal."""

    code: str = Field(description="a stable word for machines", examples=["role"])
    message: str = Field(description="what is wrong and what to do")
    path: str | None = Field(default=None, description="where in the input", examples=["steps[2].gate"])
    line: int | None = Field(default=None, description="line of the input's text, from 1")


class Problem(BaseModel):
    """A problem document (RFC 9457) that lists every reason."""

    type: str = Field(examples=[TYPE_BASE + "not-permitted"])
    title: str = Field(examples=["Not permitted"])
    status: int = Field(examples=[403])
    detail: str = Field(examples=["ana lacks the permission release:hold"])
    code: str = Field(examples=["not-permitted"])
    reasons: list[ProblemReason]
    request_id: str | None = Field(default=None, description="only when an unexpected error happened")


_BY_STATUS: Mapping[int, type[SluiceError]] = {
    401: Unauthenticated,
    403: NotPermitted,
    404: NotFound,
    405: MethodNotAllowed,
    409: Conflict,
    412: GateChanged,
    413: TooLarge,
    422: Malformed,
    428: PreconditionRequired,
    429: TooManyRequests,
    503: Unavailable,
}


def problem_of(error: SluiceError, *, request_id: str | None = None) -> dict[str, Any]:
    """The body of a problem document."""
    document: dict[str, Any] = {
        "type": TYPE_BASE + error.code,
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "reasons": [reason.as_dict() for reason in error.reasons]
        or [{"code": error.code, "message": error.detail}],
    }
    if request_id is not None:
        document["request_id"] = request_id
    return document


def response_of(error: SluiceError, *, request_id: str | None = None) -> JSONResponse:
    """The whole response, with the headers that belong to its status."""
    headers = {"Cache-Control": "no-store"}
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="sluice"'
    if error.status in {429, 503}:
        headers["Retry-After"] = str(getattr(error, "retry_after", RETRY_AFTER_SECONDS))
    return JSONResponse(
        problem_of(error, request_id=request_id),
        status_code=error.status,
        media_type=MEDIA_TYPE,
        headers=headers,
    )


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route: a problem for each status, 500 and 503 always among them; `contract` describes them."""
    return {
        status: {"description": "", "content": {MEDIA_TYPE: {}}} for status in sorted({*statuses, 500, 503})
    }


def described(status: int) -> dict[str, Any]:
    """The problem response of a status as OpenAPI describes it."""
    content = {"schema": {"$ref": "#/components/schemas/Problem"}, "example": _example(status)}
    return {"description": _description(status), "content": {MEDIA_TYPE: content}, **_headers(status)}


def _description(status: int) -> str:
    if status == 500:
        return "An unexpected error; nothing is said but the request's id"
    error = _BY_STATUS[status]
    return (error.__doc__ or error.title).strip().splitlines()[0]


def _headers(status: int) -> dict[str, Any]:
    if status in {429, 503}:
        schema = {"type": "integer", "minimum": 0}
        return {
            "headers": {
                "Retry-After": {"description": "seconds until it may be tried again", "schema": schema}
            }
        }
    return {}


def _example(status: int) -> dict[str, Any]:
    if status == 500:
        return problem_of(Unexpected(), request_id="01JD0Q3W5V")
    error = _BY_STATUS[status]
    return problem_of(error(_EXAMPLE_DETAILS[status], [Reason(error.code, _EXAMPLE_DETAILS[status])]))


_EXAMPLE_DETAILS = {
    401: "send an API token as `Authorization: Bearer …`",
    403: "ana lacks the permission release:hold",
    404: "there is no release `gpt-2`",
    405: "POST, GET only",
    409: "the gate of `weights` is not the next one: the next one is `api`",
    412: "the gate of `api` has changed since it was read",
    413: "the body is larger than 2097152 bytes",
    422: "the input is not of the asked form",
    428: "send the gate's ETag as `If-Match`",
    429: "more requests than allowed in a minute",
    503: "the release service does not answer; try again",
}


class Unexpected(SluiceError):  # noqa: N818
    """An error that nobody foresaw. Says nothing but the request's id."""

    code: ClassVar[str] = "unexpected"
    title: ClassVar[str] = "An unexpected error"

    def __init__(self) -> None:
        super().__init__("something went wrong here; tell the operators the request's id")


def path_of(location: Iterable[str | int]) -> str:
    """A pydantic location as it is written in problems: `body.plan.steps[0].gate`."""
    words = ""
    for part in location:
        words += f"[{part}]" if isinstance(part, int) else f".{part}" if words else str(part)
    return words


def reasons_of(errors: Iterable[Mapping[str, Any]], *, below: str = "") -> list[Reason]:
    """Validation errors of pydantic as reasons; the refused input itself is left out."""
    found = []
    for error in errors:
        message = str(error.get("msg", "is not of the asked form")).removeprefix("Value error, ")
        path = path_of(error.get("loc", ()))
        found.append(
            Reason(str(error.get("type", "malformed")), message, f"{below}.{path}".strip(".") or None)
        )
    return found


def malformed(error: ValidationError | RequestValidationError, *, below: str = "") -> Malformed:
    """A validation error as an error of the tree."""
    reasons = reasons_of(error.errors(), below=below)
    many = "" if len(reasons) == 1 else f", for {len(reasons)} reasons"
    return Malformed(f"the input is not of the asked form{many}", reasons)


def install(app: FastAPI) -> None:
    """Register the handlers: the error tree, validation, the framework's own errors, and everything else."""

    @app.exception_handler(SluiceError)
    async def _told(request: Request, error: SluiceError) -> JSONResponse:
        if error.status == 500:
            return unexpected(context_of(request), error)
        await _context(request).refused(error)
        return response_of(error)

    @app.exception_handler(RequestValidationError)
    async def _malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        found = malformed(error)
        await _context(request).refused(found)
        return response_of(found)

    @app.exception_handler(HTTPException)
    async def _framework(request: Request, error: HTTPException) -> JSONResponse:
        kind = _BY_STATUS.get(error.status_code, Malformed)
        detail = "there is nothing at this address" if error.status_code == 404 else str(error.detail)
        found = kind(detail)
        await _context(request).refused(found)
        response = response_of(found)
        if error.status_code == 405:
            response.headers["Allow"] = ", ".join(_allowed(request))
        return response


def _context(request: Request) -> RequestContext:
    """The context, with the template of the route that refused."""
    context = context_of(request)
    context.route = getattr(request.scope.get("route"), "path", "")
    return context


def _allowed(request: Request) -> list[str]:
    """The methods of every route at this path: the framework names those of the first one alone."""
    methods = {
        method
        for route in request.app.state.routes
        if route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods
    }
    return sorted(methods)


def unexpected(context: RequestContext, error: BaseException) -> JSONResponse:
    """What a caller gets for an error that nobody foresaw; the trace goes to the log alone."""
    log.error("unexpected error", exc_info=error, request=context.request_id, path=context.route)
    return response_of(Unexpected(), request_id=context.request_id)
