"""The whole stack on real servers: a release from closed to open, while every process is killed once with kill -9.

Nothing is lost and nothing doubled: the story itself counts events, compares every byte that is opened, and holds windows and
signatures to what was asked (`infra.demo_story`). Here the audit log, the records and the store are looked at afterwards as well.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from artifacts.manifest import file_prefix
from artifacts.stores.base import open_store
from artifacts.verifying import verify_artifact
from infra.components import one_machine
from infra.demo_cast import Pace
from infra.demo_story import STEPS, WATCHING, Model, Story
from infra.provision import read_custody_public
from infra.settings import Settings
from infra.supervisor import Stack
from orchestrator.records import audit, database, envelopes, releases
from orchestrator.trust.audit import verify_export

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

#: At which turn of the story which process is killed, and how many seconds into it.
KILLS = {
    "sealing": ("worker-transfer", 0.6),
    "evidence-hosted": ("api", 0.0),
    "signed-hosted": ("worker-custody", 0.05),
    "signed-api": ("worker-releases", 0.0),
    "reported": ("worker-leaks", 0.2),
    "held": ("temporal", 0.0),
}


@pytest.fixture
def model(tmp_path: Path) -> Model:
    folder = tmp_path / "model"
    folder.mkdir()
    generator = np.random.default_rng(7)
    tensors = {f"layer.{i}.weight": generator.normal(size=(256, 512)).astype(np.float32) for i in range(6)}
    save_file(tensors, folder / "model.safetensors")
    for name, text in {
        "tokenizer.json": '{"words": ["a", "b"]}',
        "config.json": '{"layers": 6}',
        "README.md": "# A small model\n",
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
    small = {name: folder / name for name in ("tokenizer.json", "config.json", "README.md")}
    patterns = {"tokenizer": ["tokenizer.json"], "config": ["config.json"], "model-card": ["README.md"]}
    return Model(folder / "model.safetensors", small, patterns)


class Killer:
    """Kills a process at a turn of the story, from the story's own thread; the supervisor starts it again."""

    def __init__(self, stack: Stack, loop: asyncio.AbstractEventLoop) -> None:
        self.stack, self.loop = stack, loop
        self.killed: dict[str, int] = {}

    def __call__(self, moment: str) -> None:
        if moment in KILLS:
            name, after = KILLS[moment]
            done = asyncio.run_coroutine_threadsafe(self._kill(name, after), self.loop)
            if after == 0:
                done.result(30)

    async def _kill(self, name: str, after: float) -> None:
        await asyncio.sleep(after)
        self.killed[name] = await self.stack.kill(name)


async def test_kill_9_of_every_process_on_the_way_from_closed_to_open_loses_and_doubles_nothing(
    tmp_path: Path, model: Model
) -> None:
    settings = Settings(
        dev=True,
        data_dir=tmp_path / "data",
        api_port=0,
        temporal_address="127.0.0.1:0",
        temporal_ui=False,
        **WATCHING,
    )
    pace = Pace(api=1, downloadable=2, open=2, cooling_off=1)
    async with one_machine(settings) as stack:
        killer = Killer(stack, asyncio.get_running_loop())
        story = Story(stack.settings, stack.urls["api"], tmp_path, model, pace=pace, moment=killer)
        summary = await asyncio.to_thread(story.tell)
        await stack.wait_ready()
        assert set(killer.killed) == {name for name, _ in KILLS.values()}
        for name, pid in killer.killed.items():
            assert stack.pid(name) not in {None, pid}
        settings = stack.settings

    assert [step["step"] for step in summary["steps"]] == list(STEPS)
    assert summary["partner"]["identical"]
    assert summary["partner"]["sha256_opened"] == summary["public"]["sha256_opened"]
    digests = _the_records_and_the_log_agree(settings, story.release)
    _every_part_is_stored_once(settings, story.release, digests)
    _nothing_secret_lies_in_clear(tmp_path, model)


def _the_records_and_the_log_agree(settings: Settings, release: str) -> dict[str, str]:
    engine = database.connect(settings.effective_database_url)
    public = read_custody_public(settings.effective_custody_public_file)
    kinds: Counter[str] = Counter()

    def count(_index: int, entry: dict[str, object]) -> None:
        kinds[f"{entry['kind']}:{entry.get('action', '')}"] += 1

    with database.reading(engine) as session:
        history = releases.check_events(session, release)
        state = releases.load(session, release)
        verified = verify_export(
            audit.export(session, public.log_verifier.name), public.log_verifier, on_entry=count
        )
        kept = envelopes.of_release(session, release)
    engine.dispose()
    assert state.seq == len(history)
    assert verified.size >= len(history)
    assert kinds["custody:unwrap"] >= 4  # hosted, api, downloadable, open
    assert kinds["custody:refused"] == 0
    live = [grant for grant in state.grants.values() if grant.live]
    assert [grant.holder for grant in live] == ["public"]
    holders = Counter((grant.step, grant.holder) for grant in state.grants.values())
    assert max(holders.values()) == 1, "a holder has two grants of one step"
    for envelope in kept:
        grant = state.grants.get(envelope.grant)
        assert (envelope.dropped_at is None) == (grant is not None and grant.live)
    return {artifact.id: artifact.manifest_digest for artifact in state.artifacts.values()}


def _every_part_is_stored_once(settings: Settings, release: str, digests: dict[str, str]) -> None:
    with open_store(settings.effective_store_uri) as store:
        keys = [info.key for info in store.list()]
        artifacts = {key.split("/")[1] for key in keys if key.startswith("artifacts/")}
        assert artifacts == set(digests)
        for artifact in artifacts:
            expected = digests[artifact].removeprefix("sha256:")
            assert verify_artifact(store, artifact, expected_digest=expected).ok
            assert any(key.startswith(file_prefix(artifact)) for key in keys)
        published = sorted(key for key in keys if key.startswith(f"publications/{release}/"))
        assert [Path(key).name.split(".")[0] for key in published] == sorted(STEPS)
        for key in published:
            info = store.stat(key)
            assert info is not None
            assert json.loads(store.get_range(key, 0, info.size))["release"] == release
        assert len([key for key in keys if key.startswith(f"public/{release}/")]) == 2


def _nothing_secret_lies_in_clear(folder: Path, model: Model) -> None:
    """Plaintext of the weights lies where the owner put it, and where somebody who was let in opened it; nowhere else."""
    sample = model.weights.read_bytes()[200_000:200_064]
    found = {
        path.relative_to(folder).parts[0]
        for path in folder.rglob("*")
        if path.is_file() and sample in path.read_bytes()
    }
    assert found == {"model", "partner", "public"}
