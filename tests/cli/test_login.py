"""`sluice login` against a provider, with a stand-in for the person's browser."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from orchestrator.cli import client as cli_client
from orchestrator.cli import sign_in_commands
from orchestrator.cli.config import load_config, session_file
from orchestrator.cli.main import app
from tests.simulators.oidc import Provider, providing

pytestmark = pytest.mark.stack


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[Provider]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("SLUICE_TOKEN", raising=False)
    monkeypatch.delenv("SLUICE_TOKEN_FILE", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    with providing(client_secret=None) as made:
        made.user = {"sub": "u-1", "preferred_username": "mia", "groups": ["managers"]}

        def service(request: httpx.Request) -> httpx.Response:
            assert request.url.path == "/v1/sign-in"
            how = {
                "issuer": made.issuer,
                "client_id": "sluice",
                "scopes": ["openid"],
                "authorization_endpoint": f"{made.issuer}/authorize",
                "token_endpoint": f"{made.issuer}/token",
            }
            return httpx.Response(200, json=how)

        monkeypatch.setattr(cli_client, "TRANSPORT", httpx.MockTransport(service))
        yield made


def browse(monkeypatch: pytest.MonkeyPatch, change: Any = lambda location: location) -> None:
    """A person who opens the page: the provider sends them back to the port."""

    def opened(address: str) -> None:
        def go() -> None:
            back = httpx.get(address, trust_env=False)
            httpx.get(change(back.headers["Location"]), trust_env=False)

        threading.Thread(target=go, daemon=True).start()

    monkeypatch.setattr(sign_in_commands.webbrowser, "open", opened)


def test_login_keeps_a_token_that_only_its_owner_reads_and_logout_forgets_it(provider, monkeypatch):
    browse(monkeypatch)
    done = CliRunner().invoke(app, ["login", "--json"])
    assert done.exit_code == 0, done.output
    assert '"signed_in": "mia"' in done.output
    assert stat.S_IMODE(session_file().stat().st_mode) == 0o600
    token = json.loads(session_file().read_text())["token"]
    assert token not in done.output
    assert load_config().token == token
    monkeypatch.setenv("SLUICE_URL", "http://127.0.0.1:9")
    assert load_config().token is None, "another service never gets it"
    assert CliRunner().invoke(app, ["logout"]).exit_code == 0
    assert not session_file().exists()


def test_an_answer_that_nobody_asked_for_is_not_taken(provider, monkeypatch):
    browse(monkeypatch, lambda location: location.replace("state=", "state=x"))
    done = CliRunner().invoke(app, ["login", "--wait", "5"])
    assert done.exit_code != 0
    assert "no answer came in time" in done.output
    assert not session_file().exists()


def test_a_person_whom_the_provider_refuses_is_told(provider, monkeypatch):
    provider.user = None
    browse(monkeypatch)
    done = CliRunner().invoke(app, ["login"])
    assert done.exit_code != 0
    assert "access_denied" in done.output
    assert "Traceback" not in done.output


def test_a_provider_that_wants_a_secret_is_explained(provider, monkeypatch):
    provider.client_secret = "only-servers-have-it"
    browse(monkeypatch)
    done = CliRunner().invoke(app, ["login"])
    assert done.exit_code != 0
    assert "public one, with PKCE" in " ".join(done.output.split())
