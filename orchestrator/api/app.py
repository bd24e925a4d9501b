"""The application: routers, errors, the edge. `create_app` is all that a composition root needs."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from orchestrator.api import problems
from orchestrator.api.deps import Deps
from orchestrator.api.middleware import Edge
from orchestrator.api.routers import (
    artifacts,
    audit,
    caution,
    events,
    evidence,
    gates,
    grants,
    health,
    incidents,
    me,
    partners,
    principals,
    releases,
)

_ROUTERS = (
    releases,
    gates,
    evidence,
    caution,
    incidents,
    grants,
    partners,
    artifacts,
    events,
    me,
    principals,
    audit,
    health,
)

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
    )
    app.state.deps = deps
    for module in _ROUTERS:
        app.include_router(module.router)
    problems.install(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    app.add_middleware(Edge, deps=deps, secure=deps.settings.public_url.startswith("https://"))
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        app.openapi_schema = schema
    return app.openapi_schema
