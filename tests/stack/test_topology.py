"""The topology of a real deployment: PostgreSQL, OpenBao, S3, Temporal and every process of ours, none of them in dev mode."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest
from safetensors.numpy import save_file

from infra.demo_cast import Pace
from infra.demo_story import STEPS, WATCHING, Model, Story
from infra.preparing.postgres import CUSTODY, RECORDS
from infra.topology import topology

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


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
    async with topology(folder, **WATCHING) as stack:
        assert not stack.settings.dev
        pace = Pace(api=1, downloadable=1, open=1, cooling_off=1)
        story = Story(stack.settings, stack.urls["api"], tmp_path, model, pace=pace)
        summary = await asyncio.to_thread(story.tell)
        port = stack.site.ports["postgres"]
        await asyncio.to_thread(_custody_reads_and_writes_its_own_alone, folder, port)
    assert [step["step"] for step in summary["steps"]] == list(STEPS)
    assert summary["partner"]["identical"]
    _nothing_of_the_plaintext_lies_in_the_servers(folder, model)


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


def _nothing_of_the_plaintext_lies_in_the_servers(folder: Path, model: Model) -> None:
    sample = model.weights.read_bytes()[200_000:200_064]
    found = [
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.is_relative_to(folder / "ingest") and sample in path.read_bytes()
    ]
    assert found == []
