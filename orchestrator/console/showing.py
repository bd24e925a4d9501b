"""How pages show things: templates with their filters, one shape of answer, and errors as pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from orchestrator.api.auth import Caller
from orchestrator.api.context import context_of
from orchestrator.api.deps import deps_of
from orchestrator.api.limiting import Limiter
from orchestrator.api.problems import Unauthenticated
from orchestrator.api.sign_in.browser import cookie_name, session_of, session_token
from orchestrator.domain.errors import SluiceError
from orchestrator.domain.permissions import permissions_of
from orchestrator.domain.values import format_duration

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

_TICKS = re.compile(r"`([^`<>]+)`")
_DASH = "\N{EN DASH}"

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def instant(at: datetime | None) -> str:
    """`2026-11-25 17:04 UTC`, or a dash."""
    return _DASH if at is None else f"{at:%Y-%m-%d %H:%M} UTC"


def until(at: datetime | None, now: datetime) -> str:
    """`in 3d 4h`, `now`, or a dash."""
    if at is None:
        return _DASH
    left = at - now
    return "now" if left <= timedelta(0) else f"in {rough(left)}"


def since(at: datetime | None, now: datetime) -> str:
    """`3d 4h ago`, or a dash."""
    return _DASH if at is None else f"{rough(max(now - at, timedelta(0)))} ago"


def rough(span: timedelta) -> str:
    """A duration in its two largest units."""
    seconds = int(span.total_seconds())
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        if seconds >= size and len(parts) < 2:
            parts.append(f"{seconds // size}{unit}")
            seconds %= size
        elif parts:
            break
    return " ".join(parts) or "0s"


def words(code: object) -> str:
    """`sign_off` as people say it: `sign off`."""
    return str(code).replace("_", " ")


def short(digest: object) -> str:
    """The beginning of a digest; the whole one stands in its title."""
    text = str(digest)
    return text[:19] + "…" if text.startswith("sha256:") else text


def seconds(value: float) -> str:
    """Seconds as a duration is written in plans."""
    return format_duration(timedelta(seconds=int(value)))


def ticked(text: object) -> Markup:
    """The domain's words, with what stands in backticks as code; everything is escaped."""
    return Markup(_TICKS.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped before


for made in (instant, until, since, words, short, seconds, ticked):
    _templates.filters[made.__name__] = made


def page(
    request: Request, template: str, *, code: int = 200, caller: Caller | None = None, **shown: Any
) -> Response:
    """A page from its template. `caller`: who looks, shown at the top with a way out."""
    deps = deps_of(request)
    text = request.cookies.get(cookie_name(deps, "session"))
    body = _templates.get_template(template).render(
        **shown,
        caller=caller,
        session_token=session_token(text) if text and caller else "",
        now=deps.now(),
        single_sign_on=deps.sign_in is not None,
    )
    return HTMLResponse(
        body, status_code=code, headers={"Content-Security-Policy": CSP, "Cache-Control": "no-store"}
    )


def looking(request: Request) -> Caller:
    """Who is signed in with this browser.

    Raises:
        Unauthenticated: nobody.
        TooManyRequests: more than they may make.
    """
    caller = _there(request)
    if caller is None:
        raise Unauthenticated("sign in first")
    context_of(request).principal = caller.id
    limiter: Limiter = request.app.state.limiter
    limiter.principal(caller.id)
    return caller


def _there(request: Request) -> Caller | None:
    """Who is signed in, for a page that says what went wrong; it counts as no request of theirs."""
    found = session_of(request, deps_of(request))
    if found is None:
        return None
    return Caller(
        id=found.principal, kind="person", roles=found.roles, permissions=permissions_of(list(found.roles))
    )


class ConsoleRoute(APIRoute):
    """A route whose errors are pages: nobody signed in leads to the sign-in page, the rest says what is wrong."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See base class."""
        answer = super().get_route_handler()

        async def told(request: Request) -> Response:
            try:
                return await answer(request)
            except Unauthenticated:
                place = request.url.path + (f"?{request.url.query}" if request.url.query else "")
                return RedirectResponse(f"/console/sign-in?next={quote(place)}", status_code=303)
            except RequestValidationError:
                return page(
                    request,
                    "error.html",
                    code=422,
                    title="That is no page",
                    detail="the address is malformed",
                    reasons=[],
                )
            except SluiceError as error:
                await context_of(request).refused(error)
                return page(
                    request,
                    "error.html",
                    code=error.status,
                    caller=_there(request),
                    title=error.title,
                    detail=error.detail,
                    reasons=[reason.message for reason in error.reasons],
                )

        return told
