"""Running `sluice` in this process: its output, its exit code, and never a stack trace; against the real API over real records."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import structlog
from typer.testing import CliRunner

from orchestrator.cli import client as client_module
from orchestrator.cli.main import app
from tests.api.conftest import Api, api, sealed, template

__all__ = ["api", "sealed", "template"]


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def error(self):
        return json.loads(self.err.strip().splitlines()[-1])["error"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own: no configuration, no keys, no variables of whoever runs the tests."""
    for name in ("SLUICE_URL", "SLUICE_TOKEN", "SLUICE_TOKEN_FILE", "SLUICE_IDENTITY_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home" / "state"))
    (tmp_path / "home").mkdir()
    return tmp_path


@pytest.fixture
def sluice(home: Path):
    """Run a command; what it printed must not be a trace of ours."""

    def run(*arguments: object, stdin: str | None = None) -> Ran:
        found = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin, catch_exceptions=True)
        assert "Traceback" not in found.output
        if found.exception is not None and not isinstance(found.exception, SystemExit):
            raise found.exception
        return Ran(int(found.exit_code), found.stdout, found.stderr)

    return run


class ThroughApp(httpx.BaseTransport):
    """Carries the command's requests into the API itself."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        headers = {
            k: v for k, v in request.headers.items() if k not in {"host", "content-length", "accept-encoding"}
        }
        answer = self._api.client.request(
            request.method,
            request.url.raw_path.decode(),
            headers=headers,
            content=request.read(),
            follow_redirects=False,
        )
        plain = [
            (k, v) for k, v in answer.headers.multi_items() if k not in {"content-encoding", "content-length"}
        ]
        return httpx.Response(answer.status_code, headers=plain, content=answer.content)


class Service:
    """The API, and running commands as one of its principals."""

    def __init__(self, api: Api, sluice, monkeypatch: pytest.MonkeyPatch) -> None:
        self.api, self._sluice, self._monkeypatch = api, sluice, monkeypatch
        api.clock.now = datetime.now(UTC).replace(microsecond=0)
        monkeypatch.setattr(client_module, "TRANSPORT", ThroughApp(api))

    def __call__(self, who: str, *arguments: object, stdin: str | None = None) -> Ran:
        self._monkeypatch.setenv("SLUICE_TOKEN", self.api.tokens[who])
        return self._sluice(*arguments, stdin=stdin)

    def ok(self, who: str, *arguments: object):
        """The JSON of a command that has to succeed."""
        ran = self(who, *arguments, "--json")
        assert ran.code == 0, ran.err
        return ran.json


@pytest.fixture
def _silent():
    """The API runs in this process, so its log must not stand among the command's output."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory(), cache_logger_on_first_use=False)
    yield
    structlog.reset_defaults()


@pytest.fixture
def service(_silent, api: Api, sluice, monkeypatch: pytest.MonkeyPatch) -> Service:
    return Service(api, sluice, monkeypatch)
