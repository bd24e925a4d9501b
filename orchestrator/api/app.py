"""The application: routers, errors, the edge. `create_app` is all that a composition root needs."""

from __future__ import annotations

from fastapi import FastAPI

from orchestrator import console
from orchestrator.api import pages, problems
from orchestrator.api.contract import openapi_of
from orchestrator.api.deps import Deps
from orchestrator.api.limiting import Limiter
from orchestrator.api.middleware import Edge
from orchestrator.api.routers import (
    artifacts,
    audit,
    caution,
    copies,
    events,
    evidence,
    gates,
    grants,
    health,
    hub,
    incidents,
    invitations,
    leaks,
    links,
    me,
    notices,
    partners,
    principals,
    releases,
    reports,
    webhooks,
)
from orchestrator.api.sign_in import browser

_ROUTERS = (
    releases,
    gates,
    invitations,
    evidence,
    caution,
    incidents,
    hub,
    links,
    leaks,
    reports,
    grants,
    copies,
    partners,
    artifacts,
    events,
    me,
    principals,
    webhooks,
    notices,
    audit,
    browser,
    health,
)

_TAGS = {
    "releases": "Releases and their plans.",
    "gates": "Steps and gates: the verdict, previews, and what people decide there.",
    "invitations": "Outside reviewers without an account: who is invited, and what they decide.",
    "evidence": "Documents bound by their digest.",
    "caution": "Holds, incidents, amendments, rollbacks: caution is cheap, its undoing takes a quorum.",
    "leaks": "Leak monitoring: sources, suspects, signed verdicts, reports.",
    "grants": "Who has access, and the envelopes with their keys.",
    "partners": "Outside organisations, their keys and the terms they accepted.",
    "artifacts": "Sealed artifacts and what seals them.",
    "events": "What has happened, as a list and live.",
    "me": "The caller, and what waits for them.",
    "principals": "Who may call, and their tokens.",
    "webhooks": "Endpoints that are told of events, and what became of each delivery.",
    "notices": "Mail and the like to people: their channels, and what became of each notice.",
    "audit": "The tamper-evident log and its proofs.",
    "sign-in": "Single sign-on.",
    "health": "Whether the service lives and can work.",
}

_DESCRIPTION = """\
Staged release of AI models. Every refusal is a problem document (RFC 9457) that lists every reason.

- **Commands** take an `Idempotency-Key`; the same key with the same request is one request.
- **Decisions at a gate** also take `If-Match` with the gate's `ETag`: 428 without, 412 when the gate has changed since.
- Times are UTC; `server_time` is the service's clock at the moment of the answer.
"""


def create_app(deps: Deps) -> FastAPI:
    """The API over these parts."""
    app = FastAPI(
        title="Sluice",
        version="1",
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        openapi_tags=[{"name": name, "description": text} for name, text in _TAGS.items()],
    )
    app.state.deps = deps
    app.state.limiter = Limiter(
        principals=deps.settings.rate_limit,
        strangers=deps.settings.rate_limit_strangers,
        links=deps.settings.rate_limit_links,
        reports=deps.settings.report_rate,
        reports_all=deps.settings.report_rate_all,
        invited=deps.settings.invitation_rate,
    )
    app.state.routes = [route for module in _ROUTERS for route in module.router.routes]
    for module in _ROUTERS:
        app.include_router(module.router)
    app.include_router(browser.pages)
    app.include_router(invitations.page)
    console.install(app)
    pages.install(app)
    problems.install(app)
    app.openapi = lambda: openapi_of(app)  # type: ignore[method-assign]
    app.add_middleware(Edge, deps=deps, secure=deps.settings.public_url.startswith("https://"))
    return app
