"""What every request passes: an id, a size limit, safe headers, a net for unforeseen errors, and one log line.

Plain ASGI, so that streams pass unbuffered. CORS stays closed: no `Access-Control-…` header is ever sent.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import TYPE_CHECKING

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api import problems
from orchestrator.api.context import RequestContext

if TYPE_CHECKING:
    from orchestrator.api.deps import Deps

log = structlog.get_logger("sluice.api")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_QUIET = frozenset({"/healthz", "/readyz"})
MANIFESTS = "/v1/artifacts"

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_CLOSED_CSP = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"


class Edge:
    """The outermost layer of the application.

    Args:
        app: what answers.
        deps: the parts of the service.
        secure: whether callers come over TLS, so that browsers may be told to stay with it.
    """

    def __init__(self, app: ASGIApp, *, deps: Deps, secure: bool) -> None:
        self._app = app
        self._deps = deps
        self._secure = secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        context = self._context(scope, headers)
        scope.setdefault("state", {})["context"] = context
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request=context.request_id)
        started = time.perf_counter()
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._decorate(MutableHeaders(scope=message), context, scope["path"])
            await send(message)

        try:
            limit = self._limit(scope["path"])
            if _declared(headers) > limit:
                error = problems.TooLarge(f"the body is larger than {limit} bytes")
                context.code = error.code
                await problems.response_of(error)(scope, receive, sending)
            else:
                await self._app(scope, _bounded(receive, limit), sending)
        except Exception as error:
            if status:  # the response has begun: it can only be cut off
                log.exception("a response was cut off")
                raise
            context.code = "unexpected"
            await problems.unexpected(context, error)(scope, receive, sending)
        finally:
            self._log(scope, context, status, time.perf_counter() - started)

    def _context(self, scope: Scope, headers: Headers) -> RequestContext:
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(10)
        client = scope.get("client")
        return RequestContext(
            request_id=request_id,
            client=client[0] if client else "unknown",
            method=scope["method"],
            deps=self._deps,
        )

    def _limit(self, path: str) -> int:
        settings = self._deps.settings
        return settings.max_manifest_body if path.rstrip("/") == MANIFESTS else settings.max_body

    def _decorate(self, headers: MutableHeaders, context: RequestContext, path: str) -> None:
        for name, value in SECURITY_HEADERS.items():
            headers.setdefault(name, value)
        headers.setdefault("Content-Security-Policy", _CLOSED_CSP)
        if path.startswith("/v1"):
            headers.setdefault("Cache-Control", "no-store")
        if self._secure:
            headers.setdefault("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
        headers["X-Request-Id"] = context.request_id
        for name, value in context.headers.items():
            headers[name] = value

    def _log(self, scope: Scope, context: RequestContext, status: int, seconds: float) -> None:
        route = scope.get("route")
        template = getattr(route, "path", "") or context.route or "(none)"
        line = {
            "method": context.method,
            "route": template,
            "status": status,
            "ms": round(seconds * 1000, 1),
            "principal": context.principal,
            "release": context.release,
            "step": context.step,
            "code": context.code,
            "client": context.client,
            "key": context.idempotency_key,
        }
        if self._deps.observe is not None:
            self._deps.observe(context.method, template, status, seconds)
        known = {name: value for name, value in line.items() if value is not None}
        if template in _QUIET and status < 400:
            log.debug("request", **known)
        else:
            log.info("request", **known)


def _declared(headers: Headers) -> int:
    text = headers.get("content-length", "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def _bounded(receive: Receive, limit: int) -> Receive:
    """`receive` that counts: a body without a declared length is cut off at the limit as well."""
    got = 0

    async def receiving() -> Message:
        nonlocal got
        message = await receive()
        if message["type"] == "http.request":
            got += len(message.get("body", b""))
            if got > limit:
                raise HTTPException(413, f"the body is larger than {limit} bytes")
        return message

    return receiving
