"""The console: pages for release managers and approvers, in a browser, over the same commands and read models as the API.

    sign_in    a session by single sign-on, or by an API token that is pasted once
    pages      what waits for me, releases, one release, one gate
    deciding   what a decision would do and what would be signed; then the decision itself
    passkeys   a passkey of one's own, and the line that a plan pins
    showing    times, durations and words as pages show them

Pages are made on the server and read without a script; deciding takes one, for it shows in plain words what will be signed and asks
the passkey. No page loads anything from elsewhere, and no private key is ever here.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from orchestrator.console import deciding, pages, passkeys, sign_in

_STATIC = Path(__file__).parent / "static"


def install(app: FastAPI) -> None:
    """Add the console to the application."""
    for module in (sign_in, pages, deciding, passkeys):
        app.include_router(module.router)
    app.mount("/console/static", StaticFiles(directory=_STATIC), name="console")
