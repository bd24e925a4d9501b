"""A real browser for tests: Debian's Chromium, driven by playwright, with an authenticator that lives in the browser."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, CDPSession, Page, sync_playwright

_ROOT = Path(__file__).resolve().parents[2]
_QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str:
    """Where Chromium is; it is installed when it is not there."""
    found = shutil.which("chromium")
    if found is None:
        subprocess.run(["make", "-s", "chromium"], cwd=_ROOT, check=True)
        found = shutil.which("chromium")
    assert found is not None
    return found


@contextmanager
def browsing() -> Iterator[Browser]:
    """A headless browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=_QUIET, timeout=90_000)
        yield browser
        browser.close()


def give_authenticator(page: Page) -> CDPSession:
    """An authenticator inside the browser that keeps passkeys and whose owner is there and says yes."""
    session = page.context.new_cdp_session(page)
    session.send("WebAuthn.enable", {"enableUI": False})
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    session.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    return session
