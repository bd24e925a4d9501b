"""An API over real records (SQLite) and an in-process gateway, with one principal and token for each role."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from infra.parts import ArtifactFormats
from orchestrator.api import create_app
from orchestrator.api.deps import ApiSettings, Deps
from orchestrator.domain.evidence import Consideration
from orchestrator.domain.permissions import Role
from orchestrator.records import database, partners, principals
from orchestrator.records.migrate import migrate
from tests.support.inprocess import InProcessGateway
from tests.support.plans import T0, five_stages

PEOPLE: dict[str, Role] = {
    "mia": Role.RELEASE_MANAGER,
    "sam": Role.APPROVER,
    "sue": Role.APPROVER,
    "lea": Role.APPROVER,
    "rex": Role.APPROVER,
    "dan": Role.APPROVER,
    "ann": Role.AUDITOR,
    "olaf": Role.OPERATOR,
}
RELEASE = "mini-1"


@pytest.fixture(scope="session", autouse=True)
def _plain_logs() -> Iterator[None]:
    """Traces as plain text: the console's own with local variables takes seconds each."""
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()]
    )
    yield
    structlog.reset_defaults()


@dataclass
class Clock:
    now: datetime = T0

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


class TestCipher:
    """AES-GCM with a key of the test's."""

    __test__ = False

    def __init__(self) -> None:
        self._aead = AESGCM(bytes(32))

    def seal(self, data: bytes, context: bytes) -> bytes:
        nonce = hashlib.sha256(context).digest()[:12]
        return nonce + self._aead.encrypt(nonce, data, context)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        return self._aead.decrypt(sealed[:12], sealed[12:], context)


@dataclass
class Api:
    app: FastAPI
    client: TestClient
    engine: Engine
    gateway: InProcessGateway
    clock: Clock
    deps: Deps
    tokens: dict[str, str]
    keys: int = 0
    log: list[Any] = field(default_factory=list)

    def call(self, who: str | None, method: str, path: str, **more: Any) -> Any:
        headers = dict(more.pop("headers", {}))
        if who is not None:
            headers["Authorization"] = f"Bearer {self.tokens[who]}"
        return self.client.request(method, path, headers=headers, **more)

    def get(self, who: str | None, path: str, **more: Any) -> Any:
        return self.call(who, "GET", path, **more)

    def post(
        self, who: str | None, path: str, body: Any = None, *, key: str | None = None, **more: Any
    ) -> Any:
        headers = dict(more.pop("headers", {}))
        if key is not None:
            headers["Idempotency-Key"] = key
        return self.call(who, "POST", path, json={} if body is None else body, headers=headers, **more)

    def create(self, release: str = RELEASE, *, who: str = "mia", key: str | None = None, **plan: Any) -> Any:
        name, _, version = release.rpartition("-")
        body = {"id": release, "name": name, "version": version, "plan": five_stages(**plan)}
        return self.post(who, "/v1/releases", body, key=key or f"create-{release}")

    def ok(self, response: Any) -> Any:
        assert response.status_code < 300, response.text
        return response.json()

    def path(self, rest: str, release: str = RELEASE) -> str:
        return f"/v1/releases/{release}{rest}"

    def bind(self, sealed: Sealed, release: str = RELEASE) -> None:
        self.ok(self.post("ci", "/v1/artifacts", sealed.body))
        self.ok(self.post("ci", self.path("/artifacts", release), {"artifact": sealed.id}))

    def evidence(self, step: str, release: str = RELEASE) -> None:
        card = {"kind": "model_card", "digest": "sha256:" + "cd" * 32, "title": "Card", "step": step}
        self.ok(self.post("ci", self.path("/evidence", release), card))
        answer = {"finding": "none found", "rating": "low", "mitigation": "none needed"}
        form = {"step": step, "title": "Risks", "considerations": dict.fromkeys(Consideration, answer)}
        self.ok(self.post("mia", self.path("/evidence/assessments", release), form))

    def controls(self, step: str, *kinds: str, release: str = RELEASE) -> None:
        for kind in kinds:
            path = self.path(f"/steps/{step}/controls/{kind}", release)
            self.ok(self.call("olaf", "PUT", path, json={"in_force": True, "note": "checked"}))

    def to_demo(self, sealed: Sealed, release: str = RELEASE) -> None:
        """Create, seal, evidence, controls, sign: the hosted step is entered."""
        self.ok(self.create(release))
        self.bind(sealed, release)
        self.evidence("demo", release)
        self.controls("demo", "rate_limit", "user_accounts", "input_monitoring", release=release)
        self.ok(self.sign("sam", "demo", "safety", release=release))

    def to_download(self, sealed: Sealed, recipient: str, release: str = RELEASE) -> None:
        """All the way to the step that hands keys to partners."""
        self.ok(self.post("ngo-account", "/v1/partners/ngo/keys", {"recipient": recipient}))
        self.to_demo(sealed, release)
        for step, days, who in (
            ("query", 31, (("sam", "safety"), ("lea", "legal"))),
            ("download", 91, (("sam", "safety"), ("lea", "legal"), ("rex", "reviewer"))),
        ):
            self.clock.advance(days=days)
            self.evidence(step, release)
            kinds = ("rate_limit", "user_accounts", "input_monitoring") if step == "query" else ("license",)
            self.controls(step, *kinds, release=release)
            for person, role in who:
                self.ok(self.sign(person, step, role, release=release))
        self.clock.advance(days=8)
        self.gateway.settle(release)

    def gate(self, step: str, release: str = RELEASE, *, who: str = "sam") -> Any:
        return self.get(who, f"/v1/releases/{release}/steps/{step}/gate")

    def sign(
        self,
        who: str,
        step: str,
        role: str,
        *,
        release: str = RELEASE,
        decision: str = "approve",
        **more: Any,
    ) -> Any:
        found = self.gate(step, release)
        body = {"role": role, "decision": decision, "subject": found.json()["verdict"]["subject_digest"]}
        headers = {"If-Match": found.headers["ETag"], **more.pop("headers", {})}
        return self.post(who, f"/v1/releases/{release}/steps/{step}/sign-offs", body, headers=headers, **more)


@dataclass(frozen=True)
class Sealed:
    """A really sealed artifact, as a pipeline registers it."""

    id: str
    body: dict[str, Any]
    manifest: bytes


@pytest.fixture(scope="session")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    from artifacts.keys import custody_keygen
    from artifacts.sealing import seal_tree
    from artifacts.signing import SigningKey
    from artifacts.stores.directory import DirectoryStore

    folder = tmp_path_factory.mktemp("plain")
    (folder / "model.bin").write_bytes(b"weights" * 100)
    (folder / "tokenizer.json").write_bytes(b"{}")
    found = seal_tree(
        folder,
        DirectoryStore(tmp_path_factory.mktemp("store")),
        custody_recipient=custody_keygen().recipient,
        signer=SigningKey.generate(),
        components={"weights": "model.bin", "tokenizer": "tokenizer.json"},
    )
    body = {
        "manifest": base64.b64encode(found.manifest).decode(),
        "digest": f"sha256:{found.manifest_digest}",
        "location": "dir:/sealed",
        "wrapped_root": found.wrapped_root,
    }
    return Sealed(found.artifact_id, body, found.manifest)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("records") / "template.db"
    engine = database.connect(f"sqlite:///{path}")
    migrate(engine)
    engine.dispose()
    return path


@contextmanager
def made_api(template: Path, path: Path) -> Iterator[Api]:
    path.write_bytes(template.read_bytes())
    engine = database.connect(f"sqlite:///{path}")
    clock = Clock()
    tokens: dict[str, str] = {}
    with database.writing(engine) as session:

        def add(name: str, role: Role, **more: Any) -> None:
            principals.create(session, name, name.title(), [role], at=T0, by="olaf", **more)
            tokens[name] = principals.issue_token(session, name, "test", at=T0, by="olaf").text

        for name, role in PEOPLE.items():
            add(name, role)
        add("ci", Role.MLOPS, kind="machine")
        for partner in ("uni", "ngo"):
            partners.create(session, partner, partner.upper(), at=T0, by="olaf")
            add(f"{partner}-account", Role.PARTNER, kind="partner", partner=partner)
    gateway = InProcessGateway(engine, clock)
    deps = Deps(
        engine=engine,
        gateway=gateway,
        documents=TestCipher(),
        verdicts=TestCipher(),
        webhook_secrets=TestCipher(),
        formats=ArtifactFormats(),
        settings=ApiSettings(stream_poll=0.02, stream_heartbeat=1),
        clock=clock,
    )
    app = create_app(deps)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield Api(app, client, engine, gateway, clock, deps, tokens)
    engine.dispose()


@pytest.fixture
def api(template: Path, tmp_path: Path) -> Iterator[Api]:
    with made_api(template, tmp_path / "records.db") as api:
        yield api
