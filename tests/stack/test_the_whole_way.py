"""The whole stack on real servers: a release from closed to open, while every process is killed once with kill -9, links fail and clocks step.

The short form of `make faults` (docs/faults.md): the story itself counts events, compares every byte that is opened, and holds windows
and signatures to what was asked (`infra.demo_story`); deliveries come twice, late, or lose their answer; afterwards the pure domain
core, fed the same commands, says what records, audit log and store have to hold (`infra.faults.checks`, `infra.faults.model`). Last, every
secret of it is searched for in all that the run left, in every form that it might be written in.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from secrets import token_urlsafe

import pytest

from artifacts.stores.base import open_store
from infra.demo_cast import Pace
from infra.demo_story import STEPS, Story
from infra.faults.scene import Wanted, embedded
from infra.faults.telling import disturbed_release
from infra.provision import key_provider
from infra.settings import Settings
from orchestrator.records import database, releases
from tests.support import secrets_of
from tests.support.canary import Search, Secret

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
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = Wanted(disks=False, versions=False)
    passphrase = tmp_path / "keyring.passphrase"
    passphrase.write_text(token_urlsafe(24))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    outcome = await disturbed_release(
        lambda folder: embedded(folder, wanted, keyring_passphrase_file=passphrase),
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
    assert outcome.story is not None
    settings = Settings(dev=True, data_dir=tmp_path / "data", keyring_passphrase_file=passphrase)
    await asyncio.to_thread(_no_secret_lies_in_clear, tmp_path, settings, outcome.story)


def _no_secret_lies_in_clear(folder: Path, settings: Settings, story: Story) -> None:
    """SQLite files of records, custody and Temporal with its histories, logs, the store, and what killed processes left.

    Then one secret is planted in each of three places, and found there.
    """
    engine = database.connect(settings.effective_database_url)
    with database.reading(engine) as session:
        state = releases.load(session, story.release)
    engine.dispose()
    artifacts = {one.id: one.manifest_digest for one in state.artifacts.values()}
    with open_store(settings.effective_store_uri) as store:
        secrets = [
            *secrets_of.of_custody(settings, key_provider(settings), store, artifacts, story),
            *secrets_of.of_files(settings),
            *secrets_of.of_people(story),
            *secrets_of.of_weights(story.model),
            *secrets_of.of_texts(),
        ]
    names = " ".join(secret.name for secret in secrets)
    for kind in ("token of", "share of", "custody's half", "root key", "key-encryption key", "passphrase"):
        assert kind in names, kind
    places = {
        "data/records.db*": b"minilm-1.0",
        "data/temporal.db*": b"release:minilm-1.0",
        "data/logs/*api*": b"/v1/releases",
        "data/logs/*custody*": b"serving",
        "manifest.dsse.json": b"in-toto",
    }
    left_out = secrets_of.owned(folder)
    search = Search(secrets)
    search.folder(folder, places, left_out)
    assert search.searched > 3_000_000
    assert search.found == []
    _planted(settings, secrets)
    search.folder(folder, places, left_out)
    assert {(seen.secret.split(" ")[0], seen.where.split(" ")[0]) for seen in search.found} >= {
        ("token", "data/logs/worker-custody.log"),
        ("root", "data/temporal.db"),
        ("share", "data/records.db"),
    }


def _planted(settings: Settings, secrets: list[Secret]) -> None:
    def first(words: str) -> Secret:
        return next(secret for secret in secrets if secret.name.startswith(words))

    with (settings.data_dir / "logs/worker-custody.log").open("a") as log:
        log.write(f"refused: Authorization: Bearer {first('token of ada').value.decode()}\n")
    with closing(sqlite3.connect(settings.data_dir / "temporal.db")) as histories, histories:
        histories.execute("CREATE TABLE planted (payload BLOB)")
        payload = b"x" * 9000 + base64.b64encode(b"\x0a\x20" + first("root key").value + b"\x12")
        histories.execute("INSERT INTO planted VALUES (?)", (payload,))
    with closing(sqlite3.connect(settings.data_dir / "records.db")) as records, records:
        words = json.dumps({"words": first("share of").value.decode()})
        records.execute("UPDATE release SET name = ?", (words,))
