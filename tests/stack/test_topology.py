"""The topology of a real deployment: PostgreSQL, OpenBao, S3, Temporal and every process of ours, none of them in dev mode."""

from __future__ import annotations

import asyncio
import base64
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex, token_urlsafe
from typing import Any

import httpx
import numpy as np
import psycopg
import pytest
from safetensors.numpy import save_file

from infra.demo_cast import Pace, wait_for
from infra.demo_report import WATCHING
from infra.demo_story import STEPS, Story
from infra.demo_telling import Model
from infra.parts import StoreOpener, records_engine
from infra.preparing.postgres import CUSTODY, RECORDS
from infra.preparing.secrets import new_secrets
from infra.provision import close_provider, key_provider, write_private
from infra.settings import Settings
from infra.supervisor import Stack
from infra.topology import topology
from orchestrator.records import database, releases
from tests.simulators.otlp import Collector, collecting
from tests.support import secrets_of
from tests.support.canary import Search, Secret
from tests.support.receivers import Receivers, free_port, receiving

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL's own user can reach."""
    made = Path(tempfile.mkdtemp(prefix="sluice-topology-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    folder = tmp_path / "model"
    folder.mkdir()
    generator = np.random.default_rng(5)
    tensors = {f"layer.{i}.weight": generator.normal(size=(256, 512)).astype(np.float32) for i in range(6)}
    save_file(tensors, folder / "model.safetensors")
    for name in ("tokenizer.json", "config.json", "README.md"):
        (folder / name).write_text(f"contents of {name}", encoding="utf-8")
    small = {name: folder / name for name in ("tokenizer.json", "config.json", "README.md")}
    patterns = {"tokenizer": ["tokenizer.json"], "config": ["config.json"], "model-card": ["README.md"]}
    return Model(folder / "model.safetensors", small, patterns)


async def test_a_release_goes_from_closed_to_open_on_real_servers(
    folder: Path, tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the pipeline that seals has credentials for the bucket, and for nothing else
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "secrets/s3.credentials"))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    scratch = folder / "scratch"
    scratch.mkdir(mode=0o777)
    scratch.chmod(0o777)  # PostgreSQL has a user of its own
    monkeypatch.setenv("TMPDIR", str(scratch))
    new_secrets(folder / "secrets")
    password, port = token_urlsafe(18), free_port()
    mail = folder / "secrets/mail.url"
    write_private(mail, f"smtp+starttls://sluice:{password}@localhost:{port}\n".encode())
    certificate, key = folder / "secrets/openbao.crt", folder / "secrets/openbao.key"
    more = {
        "mail_from": "sluice@example.org",
        "mail_url_file": mail,
        "mail_ca_file": folder / "secrets/openbao-ca.pem",
        "notice_gather_seconds": 0,
        "webhook_allow": ("127.0.0.1",),
    }
    with (
        collecting() as traces,
        receiving(certificate, key, "sluice", password, port) as receivers,
    ):
        channels = _Channels(receivers, [Secret("password of the mail server", password.encode(), (mail,))])
        await _told(folder, tmp_path, model, traces, channels, more)


@dataclass
class _Channels:
    """A webhook, mail and notices elsewhere for somebody whom the plan names; `secrets`: what of it nobody may read."""

    receivers: Receivers
    secrets: list[Secret]

    def add(self, story: Story) -> None:
        ada, at = story.cast["ada"], f"127.0.0.1:{self.receivers.http}"
        made = ada.post("webhooks", body={"url": f"http://{at}/hook"})
        self.secrets.append(Secret("secret of a webhook", made["secret"].encode()))
        raw = base64.b64decode(made["secret"].removeprefix("whsec_"))
        self.secrets.append(Secret("secret of a webhook, decoded", raw))
        for kind, address in (
            ("mail", f"ada.{token_hex(8)}@example.org"),
            ("apprise", f"json://ada:{token_hex(8)}@{at}/notice"),
        ):
            ada.post("notices", "channels", body={"kind": kind, "address": address})
            self.secrets.append(Secret(f"address of a channel by {kind}", address.encode()))
        self.secrets.append(Secret("password in an address", address.split(":")[2].split("@")[0].encode()))

    def all_delivered(self) -> None:
        came = self.receivers
        wait_for("a webhook", lambda: "/hook" in came.posts or None, 60)
        wait_for("a notice", lambda: any(path.startswith("/notice") for path in came.posts) or None, 60)
        wait_for("mail", lambda: bool(came.mails) or None, 60)


async def _told(
    folder: Path, tmp_path: Path, model: Model, traces: Collector, channels: _Channels, more: dict[str, Any]
) -> None:
    async with topology(folder, otlp_endpoint=traces.url, **WATCHING, **more) as stack:
        assert not stack.settings.dev
        pace = Pace(api=1, downloadable=1, open=1, cooling_off=1)
        story = Story(stack.settings, stack.urls["api"], tmp_path, model, pace=pace)
        story.moment = lambda name: channels.add(story) if name == "sealing" else None
        summary = await asyncio.to_thread(story.tell)
        await asyncio.to_thread(channels.all_delivered)
        port = stack.site.ports["postgres"]
        await asyncio.to_thread(_custody_reads_and_writes_its_own_alone, folder, port)
        metrics = await asyncio.to_thread(_metrics, stack)
        dumps = await asyncio.to_thread(_dumps, folder, port)
        secrets = await asyncio.to_thread(_secrets, story, model, stack.settings, folder)
    assert [step["step"] for step in summary["steps"]] == list(STEPS)
    assert summary["partner"]["identical"]
    search = Search([*secrets, *channels.secrets])
    await asyncio.to_thread(_no_secret_lies_in_clear, folder, search, dumps, metrics, traces)


def _custody_reads_and_writes_its_own_alone(folder: Path, port: int) -> None:
    def password(name: str) -> str:
        return (folder / "secrets" / f"postgres-{name}.password").read_text().strip()

    own = {"host": "127.0.0.1", "port": port, "connect_timeout": 5}
    with psycopg.connect(user=CUSTODY, password=password("custody"), dbname=RECORDS, **own) as custody:
        assert custody.execute("SELECT count(*) FROM event").fetchone()[0] > 10
        for statement in ("UPDATE event SET body = ''", "DELETE FROM audit_leaf", "SELECT * FROM token"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                custody.execute(statement)
            custody.rollback()
    # the service's user cannot open custody's own database
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(user=RECORDS, password=password("records"), dbname=CUSTODY, **own)


def _metrics(stack: Stack) -> dict[str, bytes]:
    """What every process shows of itself."""
    with httpx.Client(trust_env=False, timeout=20) as http:
        return {
            name: http.get(f"http://127.0.0.1:{port}/metrics").raise_for_status().content
            for name, port in stack.site.ports.items()
            if name.endswith("-health")
        }


def _dumps(folder: Path, port: int) -> dict[str, bytes]:
    """Every table of both databases as text: in the server's files, values may lie compressed."""
    password = (folder / "secrets/postgres-admin.password").read_text().strip()
    found = {}
    for name in (RECORDS, CUSTODY):
        where = {"host": "127.0.0.1", "port": port, "user": "postgres", "password": password, "dbname": name}
        with psycopg.connect(**where, connect_timeout=5) as connection:
            tables = connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
            ).fetchall()
            for (table,) in tables:
                with connection.cursor().copy(f'COPY "{table}" TO STDOUT') as rows:
                    found[f"{name}.{table}"] = b"".join(map(bytes, rows))
    return found


def _secrets(story: Story, model: Model, settings: Settings, folder: Path) -> list[Secret]:
    token = folder / "secrets/openbao-custody.token"
    own = settings.model_copy(update={"openbao_token_file": token})
    engine = records_engine(settings)
    with database.reading(engine) as session:
        state = releases.load(session, story.release)
    engine.dispose()
    artifacts = {one.id: one.manifest_digest for one in state.artifacts.values()}
    with StoreOpener(settings)(settings.effective_store_uri) as store:
        provider = key_provider(own)
        try:
            found = [*secrets_of.of_custody(own, provider, store, artifacts, story)]
        finally:
            close_provider(provider)
    found += [*secrets_of.of_weights(model), *secrets_of.of_texts()]
    found += [*secrets_of.of_people(story), *secrets_of.of_files(settings)]
    for name in ("postgres-records", "postgres-custody", "postgres-admin", "openbao-custody"):
        for file in (folder / "secrets").glob(f"{name}.*"):
            if file.suffix in {".password", ".token"}:
                found.append(
                    Secret(file.name, file.read_bytes().strip(), (file, folder / "postgres/admin.password"))
                )
    return found


def _no_secret_lies_in_clear(
    folder: Path, search: Search, dumps: dict[str, bytes], metrics: dict[str, bytes], traces: Collector
) -> None:
    """PostgreSQL as text and as files, Temporal with its histories, logs, OpenBao, the store's blocks, traces, metrics, temporary files."""
    for name, rows in dumps.items():
        search.look(name, rows)
    assert b"minilm-1.0" in dumps[f"{RECORDS}.event"]
    assert len(dumps[f"{CUSTODY}.custody_leaf"]) > 100
    search.folder(
        folder,
        {
            "temporal*.db*": b"release:minilm-1.0",
            "data/logs/*api*": b"/v1/releases",
            "data/logs/*custody*": b"serving",
        },
        leave_out=[folder / "ingest"],
    )
    for name, shown in metrics.items():
        assert b"sluice_" in shown, name
        search.look(f"metrics of {name}", shown)
    assert len({span.service for span in traces.spans}) >= 4
    for body in traces.raw:
        search.look("a trace", body)
    assert search.searched > 5_000_000
    assert search.found == []
