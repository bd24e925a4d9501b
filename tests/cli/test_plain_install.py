"""The plain install does a partner's and a pipeline's work: the wheel, its declared dependencies, and nothing else.

The environment is made of the very packages that are installed here: the wheel is built and unpacked, and what its plain
requirements name (and they in turn) is linked beside it. A dependency that is used and not declared is missing there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import httpx
import pytest
from packaging.requirements import Requirement

from artifacts.envelope import EnvelopePayload, file_keys
from artifacts.keys import custody_identity, custody_keygen, unwrap_root
from artifacts.manifest import manifest_key, parse_manifest, wrapped_root_key
from artifacts.signing import SigningKey
from orchestrator.trust.checkpoints import NoteSigner
from orchestrator.trust.keys import PrivateKey
from tests.cli.test_fetch import GRANT, NOW, PLAIN, RELEASE, STEP, World

ROOT = Path(__file__).parents[2]
SERVICE = (
    "temporalio",
    "fastapi",
    "sqlmodel",
    "sqlalchemy",
    "uvicorn",
    "structlog",
    "alembic",
    "pydantic_settings",
)


def required(of: str, extra: str = "") -> Iterator[Requirement]:
    for text in distribution(of).requires or []:
        found = Requirement(text)
        if found.marker is None or found.marker.evaluate({"extra": extra}):
            yield found


def closure(top: str) -> set[str]:
    """Names of the distributions that the plain install of `top` pulls in."""
    pending, names = [(r.name, e) for r in required(top) for e in ("", *r.extras)], set[str]()
    done = set[tuple[str, str]]()
    while pending:
        name, extra = pending.pop()
        if (name, extra) in done:
            continue
        done.add((name, extra))
        names.add(name)
        pending += [(r.name, e) for r in required(name, extra) for e in ("", *r.extras)]
    return names


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the plain install alone."""
    folder = tmp_path_factory.mktemp("plain")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    venv.create(folder / "env", with_pip=False, symlinks=True)
    (packages,) = (folder / "env" / "lib").glob("python*/site-packages")
    for name in sorted(closure("sluice-release")):
        found = distribution(name)
        for top in {
            file.parts[0] for file in found.files or [] if file.parts[0] not in {"..", "__pycache__"}
        }:
            place, source = packages / top, Path(str(found.locate_file(top)))
            if source.exists() and not place.exists():
                place.symlink_to(source)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    return folder / "env" / "bin" / "python"


class Runner:
    def __init__(self, python: Path, home: Path) -> None:
        self.python, self.home = python, home

    def run(
        self, *arguments: object, code: str | None = None, **more: str
    ) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home / "config"),
            "XDG_STATE_HOME": str(self.home / "state"), **more,
        }  # fmt: skip
        program = code or "from orchestrator.cli.main import main; main()"
        return subprocess.run(
            [str(self.python), "-c", program, *map(str, arguments)],
            cwd=self.home, env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def ok(self, *arguments: object, **more: str) -> Any:
        ran = self.run(*arguments, "--json", **more)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)


@pytest.fixture
def sluice(plain: Path, tmp_path: Path) -> Runner:
    return Runner(plain, tmp_path)


def served(world: World, envelope: bytes) -> ThreadingHTTPServer:
    """What the service answers a partner, over real HTTP."""
    answers = world.serve(envelope)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.handler(httpx.Request("GET", f"http://service{self.path}"))
            assert isinstance(found, httpx.Response)
            self.send_response(found.status_code)
            for name in ("content-type", "content-length"):
                if name in found.headers:
                    self.send_header(name, found.headers[name])
            self.end_headers()
            self.wfile.write(found.content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def test_the_service_is_not_there_and_the_tools_are(sluice: Runner) -> None:
    program = f"import importlib.util as u; print([n for n in {SERVICE!r} if u.find_spec(n)])"
    assert sluice.run(code=program).stdout.strip() == "[]"
    helped = sluice.run("--help").stdout
    assert "fetch" in helped
    assert "artifact" in helped


def test_keygen_seal_verify_open_and_fetch(sluice: Runner, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for name, data in PLAIN.items():
        (tmp_path / "model" / name).write_bytes(data)
    custody = custody_keygen()
    recipient = sluice.ok("partner", "keygen", "partner.key")["recipient"]
    sealed = sluice.ok(
        "artifact", "seal", "model", "--to", custody.recipient, "--store", f"dir:{tmp_path / 'store'}",
        "-c", "weights=model.bin", "-c", "tokenizer=tokenizer.json",
    )  # fmt: skip
    digest = sealed["manifest_digest"].removeprefix("sha256:")
    again = sluice.ok(
        "artifact", "seal", "model", "--to", custody.recipient, "--store", f"dir:{tmp_path / 'store'}",
        "-c", "weights=model.bin", "-c", "tokenizer=tokenizer.json",
    )  # fmt: skip
    assert (again["recognised"], again["manifest_digest"]) == (True, sealed["manifest_digest"])
    sluice.ok(
        "artifact",
        "verify",
        sealed["artifact"],
        "--store",
        sealed["store"],
        "--digest",
        sealed["manifest_digest"],
    )

    # what custody does, here by hand: open the wrapped root, make an envelope with its log entry
    manifest = (tmp_path / "store" / manifest_key(sealed["artifact"])).read_bytes()
    listed = parse_manifest(manifest, expected_digest=digest)
    wrapped = (tmp_path / "store" / wrapped_root_key(sealed["artifact"])).read_text()
    root = unwrap_root(wrapped, custody_identity(custody.identity), digest)
    payload = EnvelopePayload(
        artifact_id=listed.artifact_id, manifest_digest=digest, release=RELEASE, step=STEP, grant=GRANT,
        keys=file_keys(root, listed), issued_at=NOW, not_after=NOW + timedelta(days=30),
    )  # fmt: skip
    world = World(
        tmp_path, tmp_path / "store", manifest, digest, payload, SigningKey.generate(),
        NoteSigner("sluice.test/log", PrivateKey.generate()), recipient,
    )  # fmt: skip
    world.payload = replace(payload, log=world.logged())
    (tmp_path / "e.age").write_bytes(world.envelope())
    (tmp_path / "m.json").write_bytes(manifest)
    sluice.ok(
        "open", "e.age", "-m", "m.json", "--from", sealed["store"], "--to", "opened", "-i", "partner.key", *world.trust
    )  # fmt: skip
    assert {p.name: p.read_bytes() for p in (tmp_path / "opened").iterdir()} == PLAIN

    server = served(world, world.envelope())
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        sluice.ok(
            "fetch", RELEASE, "--to", "fetched", "-i", "partner.key", "--recheck", *world.trust,
            SLUICE_URL=url, SLUICE_TOKEN="slt_x",
        )  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()
    assert {p.name: p.read_bytes() for p in (tmp_path / "fetched").iterdir()} == PLAIN
