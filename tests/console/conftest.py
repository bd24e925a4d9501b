"""The console over a real HTTP server and real records, in a real browser."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, Page

from orchestrator.api import create_app
from tests.api.conftest import Api, made_api, sealed, template
from tests.support.browser import browsing
from tests.support.temporal import free_port

__all__ = ["sealed", "template"]
SHOTS = Path(__file__).resolve().parents[2] / "build/console"


@pytest.fixture(scope="module")  # not longer: while it lives, its event loop runs, and no other test's can
def browser() -> Iterator[Browser]:
    with browsing() as made:
        yield made


@dataclass
class Site:
    """The console at its address."""

    api: Api
    url: str
    browser: Browser
    problems: list[str]

    def open(self, who: str | None = None) -> Page:
        """A page of a browser of its own; signed in with that person's token."""
        context = self.browser.new_context(viewport={"width": 1280, "height": 900})
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on(
            "console",
            lambda line: (
                self.problems.append(line.text)
                if line.type == "error" and "status of 4" not in line.text
                else None
            ),
        )
        if who is not None:
            page.goto(f"{self.url}/console")
            page.fill("#token", self.api.tokens[who])
            page.click("text=Sign in >> nth=-1")
            page.wait_for_url("**/console")
        return page

    def shot(self, page: Page, name: str) -> None:
        SHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


@pytest.fixture
def site(template: Path, tmp_path: Path, browser: Browser) -> Iterator[Site]:
    port = free_port()
    with made_api(template, tmp_path / "records.db") as api:
        url = f"http://localhost:{port}"
        settings = replace(api.deps.settings, public_url=url)
        app = create_app(replace(api.deps, settings=settings))
        server = uvicorn.Server(
            uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", lifespan="off")
        )
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        made = Site(api, url, browser, [])
        yield made
        for context in browser.contexts:
            context.close()
        server.should_exit = True
        server.force_exit = True
        thread.join(10)
        assert made.problems == []


def plan_with_key(person: str, key: str) -> dict[str, Any]:
    """`people` of the test plan, with a key of one of them."""
    from tests.support.plans import five_stages

    people = five_stages()["people"]
    people[person]["keys"] = [key]
    return {"people": people}
