"""`/docs`: the contract for reading, from this server alone; no script and no style comes from anywhere else."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

router = APIRouter(include_in_schema=False)

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sluice API</title>
<link rel="stylesheet" href="docs/static/swagger-ui.css"></head>
<body><div id="api"></div><noscript>The contract itself is at <a href="openapi.json">openapi.json</a>.</noscript>
<script src="docs/static/swagger-ui-bundle.js"></script><script src="docs/start.js"></script></body></html>
"""
_START = """window.addEventListener("load", () => SwaggerUIBundle({
  url: "openapi.json", dom_id: "#api", deepLinking: true, persistAuthorization: false,
  presets: [SwaggerUIBundle.presets.apis], layout: "BaseLayout", validatorUrl: null,
}));
"""


@router.get("/docs")
def page() -> HTMLResponse:
    """The page."""
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": CSP})


@router.get("/docs/start.js")
def start() -> Response:
    """What starts it: a file of its own, so that no script stands in the page."""
    return Response(_START, media_type="text/javascript")


def install(app: FastAPI) -> None:
    """Add the page and its files."""
    app.include_router(router)
    folder = Path(str(files("fastapi_offline"))) / "static"
    app.mount("/docs/static", StaticFiles(directory=folder), name="docs")
