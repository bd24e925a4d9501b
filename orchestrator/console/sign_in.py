"""Coming in: by single sign-on, or with an API token that is pasted once and opens a session of hours."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse

from orchestrator.api.context import context_of
from orchestrator.api.deps import Parts
from orchestrator.api.limiting import Limiter
from orchestrator.api.sign_in.browser import local_path, set_session
from orchestrator.console.showing import ConsoleRoute, page
from orchestrator.records import database, principals, sign_ins

router = APIRouter(prefix="/console", include_in_schema=False, route_class=ConsoleRoute)

_LONGEST = timedelta(hours=10)


@router.get("/sign-in")
def show(request: Request, next: Annotated[str | None, Query()] = None) -> Response:  # noqa: A002 - the word in the address
    """The page that asks who is there."""
    return page(request, "sign_in.html", next=local_path(next), wrong=None)


@router.post("/sign-in")
def by_token(
    request: Request,
    deps: Parts,
    token: Annotated[str, Form(max_length=200)],
    next: Annotated[str | None, Form()] = None,  # noqa: A002
) -> Response:
    """Open a session for the person whose API token this is."""
    limiter: Limiter = request.app.state.limiter
    came_from_us = request.headers.get("sec-fetch-site", "same-origin") == "same-origin"
    now = deps.now()
    with database.reading(deps.engine) as session:
        found = principals.authenticate(session, token.strip(), now)
    if found is None or not came_from_us:
        limiter.stranger(context_of(request).client)
        return page(
            request,
            "sign_in.html",
            code=401,
            next=local_path(next),
            wrong="That token is not known, has expired or was revoked.",
        )
    if found.principal.kind != "person":
        wrong = "That token belongs to a machine or to a partner; the console is for the people of a release."
        return page(request, "sign_in.html", code=403, next=local_path(next), wrong=wrong)
    known = sign_ins.Known(sign_ins.BY_TOKEN, found.token.id, None, now)
    ends = min(filter(None, (now + _LONGEST, found.token.expires_at)))
    with database.writing(deps.engine) as session:
        opened = sign_ins.open_session(
            session,
            found.principal.id,
            tuple(found.principal.roles),
            known,
            expires_at=ends,
            at=now,
            address=context_of(request).client,
        )
    response = RedirectResponse(local_path(next), status_code=303)
    set_session(response, deps, opened, now)
    return response
