"""Back up, go on, restore to yesterday, and know exactly what is missing: with a real Temporal server and real records."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text
from temporalio.client import WithStartWorkflowOperation
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.worker import Worker
from typer.testing import CliRunner

from activities.custody.memory import CustodyMemory, SeenLeaf
from activities.custody.second_place import Folder
from activities.custody.watch import LogWatch
from activities.records import RecordActivities
from artifacts.stores.directory import DirectoryStore
from infra.backup import making, reconciling
from infra.backup.manifest import NAME, BackupError
from infra.cli import app
from orchestrator.contracts import messages as msg
from orchestrator.contracts import names
from orchestrator.domain import commands as cmd
from orchestrator.domain.values import digest
from orchestrator.records import audit, event_log
from orchestrator.records.database import connect, reading, writing
from orchestrator.records.migrate import migrate
from orchestrator.trust.checkpoints import Checkpoint
from orchestrator.trust.errors import LogRewritten
from orchestrator.trust.merkle import CompactTree
from tests.records.story import Story
from tests.support.plans import MANAGER, five_stage_plan
from workflows.release import ReleaseWorkflow


def no_store(uri):
    raise AssertionError(f"{uri} is no store of this test")


class Site:
    """A folder with records and a store of one machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database, self.store = folder / "records.db", folder / "store"
        self.public = folder / "public/custody-public.json"
        self.engine = connect(f"sqlite:///{self.database}")

    def begin(self) -> None:
        self.folder.mkdir(exist_ok=True)
        migrate(self.engine)
        (self.store / "artifacts/a1").mkdir(parents=True)
        (self.store / "artifacts/a1/part-0").write_bytes(b"sealed" * 1000)
        (self.store / ".sluice/staging").mkdir(parents=True)
        (self.store / ".sluice/staging/unfinished").write_bytes(b"x")

    def back_up(self, to: Path, since: Path | None = None) -> making.Verified:
        return making.create(self.engine, f"dir:{self.store}", no_store, self.public, to, since=since)

    def restore(self, backup: Path) -> making.Restored:
        return making.restore(making.verify(backup), self.engine, f"dir:{self.store}", no_store)

    def lose(self) -> None:
        self.engine.dispose()
        for path in self.folder.glob("records.db*"):
            path.unlink()
        shutil.rmtree(self.store)


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path / "site")
    site.begin()
    yield site
    site.engine.dispose()


def test_a_backup_holds_everything_for_its_owner_alone(site, tmp_path):
    story = Story(site.engine)
    story.hold()
    made = site.back_up(tmp_path / "b1")
    paths = {file.path for file in made.manifest.files}
    assert paths == {"records.db", "store/artifacts/a1/part-0"}
    assert made.manifest.log_size == 2
    everything = [tmp_path / "b1", *(tmp_path / "b1").rglob("*")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in everything if path.is_file()} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in everything if path.is_dir()} == {0o700}
    assert making.verify(tmp_path / "b1", digest=made.digest).digest == made.digest
    (site.store / "artifacts/a1/part-1").write_bytes(b"new")
    site.back_up(tmp_path / "b2", since=tmp_path / "b1")
    linked, new = (tmp_path / "b2/store/artifacts/a1" / name for name in ("part-0", "part-1"))
    assert (linked.stat().st_nlink, new.stat().st_nlink) == (2, 1)
    making.verify(tmp_path / "b2")


def test_restoring_gives_the_same_and_never_overwrites(site, tmp_path):
    story = Story(site.engine)
    story.hold()
    site.back_up(tmp_path / "b")
    with pytest.raises(BackupError, match="exists"):
        site.back_up(tmp_path / "b")
    with pytest.raises(BackupError, match="never overwrites"):
        site.restore(tmp_path / "b")
    story.report("i1")
    site.lose()
    site.store.mkdir()
    (site.store / "other").write_bytes(b"kept")
    with pytest.raises(BackupError, match="holds files"):
        site.restore(tmp_path / "b")
    assert not site.database.exists()
    (site.store / "other").unlink()
    assert site.restore(tmp_path / "b").files == 1
    with reading(site.engine) as session:
        assert audit.head(session).size == 2
        assert len(event_log.check_events(session, "alpha")) == 2
    assert (site.store / "artifacts/a1/part-0").read_bytes() == b"sealed" * 1000


def test_a_store_that_is_not_a_folder_is_listed_and_what_it_lacks_is_named(site, tmp_path):
    Story(site.engine)
    uri = "s3://bucket/sealed"

    def opened(asked: str) -> DirectoryStore:
        assert asked == uri
        return DirectoryStore(site.store)

    made = making.create(site.engine, uri, opened, site.public, tmp_path / "b")
    assert {file.path for file in made.manifest.files} == {"records.db", "store.jsonl"}
    (one,) = map(json.loads, (tmp_path / "b/store.jsonl").read_text().splitlines())
    assert (one["key"], one["size"]) == ("artifacts/a1/part-0", 6000)
    site.engine.dispose()
    for path in site.folder.glob("records.db*"):
        path.unlink()
    (site.store / "artifacts/a1/part-0").unlink()
    restored = making.restore(making.verify(tmp_path / "b"), site.engine, uri, opened)
    assert restored.lacking == ["artifacts/a1/part-0"]


def resealed(folder: Path, statement: str) -> None:
    """Alter the records in a backup, and make the manifest's digest of them fit again."""
    engine = connect(f"sqlite:///{folder / 'records.db'}")
    with writing(engine) as session:
        session.execute(text(statement))
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    engine.dispose()
    for end in ("-wal", "-shm"):
        (folder / f"records.db{end}").unlink(missing_ok=True)
    manifest = json.loads((folder / NAME).read_text())
    from infra.backup.manifest import sha256_of

    size, sha256 = sha256_of(folder / "records.db")
    manifest["files"][0] |= {"size": size, "sha256": sha256}
    (folder / NAME).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            "UPDATE audit_leaf SET body = replace(body, 'wait', 'gone') WHERE \"index\" = 1",
            "entry 1 .* altered",
        ),
        ('DELETE FROM audit_leaf WHERE "index" = 1', "stored head|lacks entry|no entry in the log"),
        ("UPDATE event SET body = replace(body, 'wait', 'gone') WHERE id = 1", "entry 1 .* says otherwise"),
        ("DELETE FROM event WHERE id = 1", "entry 1 .* says otherwise"),
    ],
)
def test_records_altered_together_with_the_manifest_are_found(site, tmp_path, statement, said):
    story = Story(site.engine)
    story.hold()
    story.report("i1")
    made = site.back_up(tmp_path / "b")
    resealed(tmp_path / "b", statement)
    with pytest.raises(BackupError, match=said):
        making.verify(tmp_path / "b")
    with pytest.raises(BackupError, match="another, or was altered"):
        making.verify(tmp_path / "b", digest=made.digest)


def test_a_file_altered_taken_away_or_added_is_found(site, tmp_path):
    Story(site.engine)
    site.back_up(tmp_path / "b")
    part = tmp_path / "b/store/artifacts/a1/part-0"
    (tmp_path / "b/extra").write_bytes(b"")
    with pytest.raises(BackupError, match="extra is not named"):
        making.verify(tmp_path / "b")
    (tmp_path / "b/extra").unlink()
    part.write_bytes(b"Sealed" + part.read_bytes()[6:])
    with pytest.raises(BackupError, match="part-0 was altered"):
        making.verify(tmp_path / "b")
    part.unlink()
    with pytest.raises(BackupError, match="part-0: No such file"):
        making.verify(tmp_path / "b")
    (tmp_path / "b" / NAME).unlink()
    with pytest.raises(BackupError, match="cut short"):
        making.verify(tmp_path / "b")


def test_the_commands_say_what_was_done_and_refuse_in_words(site, tmp_path, monkeypatch):
    Story(site.engine)
    for name in ("SLUICE_URL", "SLUICE_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    here = ["--data-dir", str(site.folder), "--dev"]
    run = CliRunner().invoke
    made = run(app, ["backup", "create", str(tmp_path / "b"), *here, "--json"])
    assert made.exit_code == 0, made.output
    told = json.loads(made.stdout)
    assert (told["log_size"], told["files"]) == (1, 2)
    checked = run(app, ["backup", "verify", str(tmp_path / "b"), "--digest", told["digest"]])
    assert (checked.exit_code, "1 entries" in checked.stdout) == (0, True)
    refused = run(app, ["backup", "restore", str(tmp_path / "b"), *here])
    assert refused.exit_code == 1
    assert "never overwrites" in refused.stderr
    site.lose()
    done = run(app, ["backup", "restore", str(tmp_path / "b"), *here])
    assert done.exit_code == 0, done.output
    assert "restored: 1 entries" in done.stdout


def hold(number: int) -> cmd.Hold | cmd.Resume:
    kind = cmd.Hold if number % 2 else cmd.Resume
    return kind(command_id=f"c{number}", actor=MANAGER, reason=f"reason {number}")


@pytest.mark.stack
async def test_what_is_missing_after_a_restore_is_named_exactly_and_can_be_written_back(
    site, tmp_path, temporal_client, temporal_server
):
    client, release, later = temporal_client, f"r-{uuid4().hex[:8]}", f"r-{uuid4().hex[:8]}"
    done = RecordActivities(site.engine)

    async def create(name: str) -> None:
        plan = five_stage_plan()
        start = WithStartWorkflowOperation(
            names.RELEASE_WORKFLOW,
            msg.ReleaseInput(
                create=cmd.CreateRelease(
                    command_id=f"create-{name}",
                    actor=MANAGER,
                    release=name,
                    name=name,
                    version="1",
                    plan=plan,
                )
            ),
            id=names.release_workflow_id(name),
            task_queue=names.QUEUE_RELEASES,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
        )
        await client.execute_update_with_start_workflow(
            names.UPDATE_CREATED, start_workflow_operation=start, result_type=msg.Outcome
        )

    async def send(name: str, number: int) -> msg.Outcome:
        handle = client.get_workflow_handle(names.release_workflow_id(name))
        message = msg.CommandMessage(command=hold(number), request_id=f"req-{number}")
        return await handle.execute_update(
            names.UPDATE_COMMAND, message, id=f"c{number}", result_type=msg.Outcome
        )

    def worker(threads: ThreadPoolExecutor) -> Worker:
        return Worker(
            client,
            task_queue=names.QUEUE_RELEASES,
            workflows=[ReleaseWorkflow],
            activities=done.all,
            activity_executor=threads,
        )

    with ThreadPoolExecutor(4) as threads:
        async with worker(threads):
            await create(release)
            await send(release, 1)
            site.back_up(tmp_path / "yesterday")
            await send(release, 2)
            await send(release, 3)
            await create(later)
            for name in (release, later):
                await settled(site, client, name)
    memory = remembered(site, tmp_path)
    notes = noted(site, tmp_path)
    with reading(site.engine) as session:
        lost = {name: event_log.events(session, name) for name in (release, later)}

    site.lose()
    site.restore(tmp_path / "yesterday")
    found, behind = await found_of(site, client, release, later)
    kept = {name: len(events_of(site, name)) for name in (release, later)}
    assert (kept[release] > 0, kept[later]) == (True, 0)
    behind_by = {name: [stored.seq for stored in lost[name][kept[name] :]] for name in lost}
    assert len(behind_by[release]) >= 2
    assert {one.release: (one.records, one.temporal) for one in found} == {
        name: (kept[name], len(lost[name])) for name in lost
    }
    named = {one.release: [(event.seq, event.type, event.by) for event in one.missing] for one in found}
    assert named == {
        name: [(stored.seq, stored.event.type, stored.event.by) for stored in lost[name][kept[name] :]]
        for name in lost
    }
    total = sum(len(events) for events in lost.values())
    seen = reconciling.compare_with_memory(site.engine, memory)
    assert (seen.fits, seen.size, seen.missing, seen.other) == (True, total, behind_by, 0)
    second = reconciling.compare_with_notes(site.engine, notes, None)
    assert (second.fits, second.size, second.other) == (True, total, total - kept[release])

    told = command(site, temporal_server, "--custody-memory", "--notes", str(notes), memory=memory)
    assert told.returncode == 1, told.stderr
    report = json.loads(told.stdout)
    assert (report["complete"], report["replayed"]) == (False, 0)
    assert {
        one["release"]: [event["seq"] for event in one["missing"]]
        for one in report["releases"]
        if one["release"] in lost
    } == behind_by
    assert [(one["size"], one["fits"]) for one in report["witnesses"]] == [(total, True)] * 2

    assert not trusts(site, memory)
    written = reconciling.replay_missing(site.engine, found, behind, "op")
    assert written == total - kept[release]
    again, _ = await found_of(site, client, release, later)
    assert not any(one.missing or one.differs_at for one in again)
    with reading(site.engine) as session:
        for name, events in lost.items():
            assert [(e.seq, e.event) for e in event_log.events(session, name)] == [
                (e.seq, e.event) for e in events
            ]
            event_log.check_events(session, name)
        handled = event_log.handled(session, release, "c3")
        assert handled is not None
        assert (handled.type, handled.digest) == ("hold", digest(hold(3)))
        told = [json.loads(leaf.body) for leaf in audit.leaves(session, 0) if leaf.kind == "admin"]
    assert [(one["action"], one["by"]) for one in told] == [("events_replayed", "op")] * 2
    assert not reconciling.compare_with_notes(site.engine, notes, None).fits

    held_against = reconciling.compare_with_memory(site.engine, memory)
    assert held_against.differs_at is not None
    assert not trusts(site, memory)  # the same events at other places: another log
    assert trusts(site, f"sqlite:///{tmp_path}/new-memory.db")  # the old one set aside, deliberately

    with ThreadPoolExecutor(4) as threads:
        async with worker(threads):
            outcome = await send(release, 4)
    assert (outcome.seq, outcome.repeated) == (len(lost[release]) + 1, False)


def command(site: Site, server, *options: str, memory: str) -> subprocess.CompletedProcess[str]:
    """`sluice backup reconcile --json`, as an operator runs it."""
    keys = site.folder / "codec.keys"
    keys.write_text(f"test-1:{base64.b64encode(bytes(range(32))).decode()}\n")
    keys.chmod(0o600)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")},
        "SLUICE_TEMPORAL_ADDRESS": server.address,
        "SLUICE_TEMPORAL_NAMESPACE": server.namespace,
        "SLUICE_CODEC_KEYS_FILE": str(keys),
        "SLUICE_CUSTODY_DATABASE_URL": memory,
    }
    words = ["backup", "reconcile", "--json", "--dev", "--data-dir", str(site.folder), *options]
    return subprocess.run(
        [sys.executable, "-m", "infra.cli", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def events_of(site: Site, release: str) -> list[event_log.StoredEvent]:
    with reading(site.engine) as session:
        return event_log.events(session, release)


async def settled(site: Site, client, release: str) -> None:
    """Until the workflow did by itself what it does after a creation, and Temporal holds all of it."""
    handle = client.get_workflow_handle(names.release_workflow_id(release))
    for _ in range(200):
        state = await handle.query(names.QUERY_STATE)
        if state.get("seq") == len(events_of(site, release)) >= 2:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{release} is at {state.get('seq')}")


async def found_of(site, client, *releases):
    """What is found of these releases; other tests' lie in the same Temporal. Its list lags, so it is asked until it names them."""
    for _ in range(100):
        found, behind = await reconciling.compare_with_temporal(site.engine, client)
        ours = [one for one in found if one.release in releases]
        if len(ours) == len(releases):
            return ours, behind
        await asyncio.sleep(0.1)
    raise AssertionError(f"Temporal lists {[one.release for one in found]}")


def trusts(site: Site, memory: str) -> bool:
    """Whether a custody with this memory takes the log as it stands."""
    kept = CustodyMemory(memory)
    try:
        LogWatch(site.engine, kept, lambda: datetime.now(UTC)).catch_up()
    except LogRewritten:
        return False
    finally:
        kept.close()
    return True


def remembered(site: Site, folder: Path) -> str:
    """Custody's memory of the log as it stands."""
    url = f"sqlite:///{folder}/memory.db"
    memory = CustodyMemory(url)
    with reading(site.engine) as session:
        leaves = list(audit.leaves(session, 0))
    tree, now = CompactTree(), datetime.now(UTC)
    seen = []
    for leaf in leaves:
        tree.append(leaf.body)
        seen.append(SeenLeaf(leaf.index, leaf.hash, leaf.release, json.loads(leaf.body).get("seq"), now))
    with memory.extending() as (_, connection):
        memory.remember(connection, tree, seen)
    memory.close()
    return url


def noted(site: Site, folder: Path) -> Path:
    """A checkpoint over the log as it stands, in a second place."""
    with reading(site.engine) as session:
        tree = audit.head(session)
    place = folder / "notes"
    body = Checkpoint("log", tree.size, tree.root()).text()
    Folder(place).put(tree.size, f"{body}\n\u2014 log AAAA\n")
    return place
