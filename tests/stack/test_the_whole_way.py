"""The whole stack on real servers: a release from closed to open, while every process is killed once with kill -9, links fail and clocks step.

The short form of `make faults` (docs/faults.md): the story itself counts events, compares every byte that is opened, and holds windows
and signatures to what was asked (`infra.demo_story`); deliveries come twice, late, or lose their answer; afterwards the pure domain
core, fed the same commands, says what records, audit log and store have to hold (`infra.faults.checks`, `infra.faults.model`).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.stores.base import open_store
from infra.demo_cast import Pace
from infra.demo_story import STEPS, Model
from infra.faults.scene import Wanted, embedded
from infra.faults.telling import disturbed_release
from infra.provision import key_provider
from infra.settings import Settings
from orchestrator.records import database, releases
from tests.support import secrets_of
from tests.support.canary import Search

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

#: At which turn of the story which process is killed, and how many seconds into it.
KILLS = {
    "sealing": ("worker-transfer", 0.6),
    "evidence-hosted": ("api", 0.0),
    "signed-hosted": ("worker-custody", 0.05),
    "signed-api": ("worker-releases", 0.0),
    "reported": ("worker-leaks", 0.2),
    "held": ("temporal", 0.0),
}
#: Faults that cost no process its life, drawn from the seed.
CHEAP = frozenset({"pause", "cut", "refused", "slow", "half-open", "lost", "clock"})
FAULTS = 8


async def test_kill_9_of_every_process_on_the_way_from_closed_to_open_loses_and_doubles_nothing(
    tmp_path: Path,
) -> None:
    wanted = Wanted(disks=False, versions=False)
    outcome = await disturbed_release(
        lambda folder: embedded(folder, wanted),
        tmp_path,
        "short",
        FAULTS,
        pace=Pace(api=1, downloadable=2, open=2, cooling_off=1),
        longest=0.8,
        only=CHEAP,
        kills=KILLS,
    )
    assert outcome.checks.violations == []
    summary = outcome.summary
    assert summary is not None
    assert [step["step"] for step in summary["steps"]] == list(STEPS)
    assert summary["partner"]["sha256_opened"] == summary["public"]["sha256_opened"]
    killed = {kind.removeprefix("kill ") for kind in outcome.faults if kind.startswith("kill ")}
    assert killed == {name for name, _ in KILLS.values()}
    assert outcome.faults.total() >= FAULTS
    assert outcome.deliveries["twice"] > 40
    assert outcome.checks.made > 250
    _no_secret_lies_in_clear(tmp_path)


def _no_secret_lies_in_clear(folder: Path) -> None:
    """SQLite files of records, custody and Temporal with its histories, logs, the store, and what killed processes left."""
    settings = Settings(dev=True, data_dir=folder / "data")
    weights = folder / "model/model.safetensors"
    engine = database.connect(settings.effective_database_url)
    with database.reading(engine) as session:
        state = releases.load(session, "minilm-1.0")
    engine.dispose()
    artifacts = {one.id: one.manifest_digest for one in state.artifacts.values()}
    with open_store(settings.effective_store_uri) as store:
        of_custody = secrets_of.of_custody(settings, key_provider(settings), store, artifacts)
        secrets = [
            *of_custody,
            *secrets_of.of_files(settings),
            *secrets_of.of_weights(Model(weights, {}, {})),
        ]
    search = Search([*secrets, *secrets_of.of_texts()])
    search.folder(
        folder,
        {
            "data/records.db*": b"minilm-1.0",
            "temporal*.db*": b"release:minilm-1.0",
            "data/logs/*api*": b"/v1/releases",
            "data/logs/*custody*": b"serving",
            "publications/*/*": b"minilm-1.0",
        },
        leave_out=secrets_of.owned(folder),
    )
    assert search.searched > 3_000_000
    assert search.found == []
