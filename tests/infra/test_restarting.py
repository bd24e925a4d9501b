"""Temporal restored to yesterday, and Temporal lost: a real server with its data in a file, real records, workflows started again."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine
from temporalio.client import Client
from temporalio.worker import Worker

from activities.records import RecordActivities
from infra.backup import restarting
from infra.processes import free_port
from orchestrator.api.commands import TemporalGateway
from orchestrator.contracts import names
from orchestrator.contracts.messages import CommandMessage
from orchestrator.domain import commands as cmd
from orchestrator.domain.errors import ReleaseEnded
from orchestrator.records import audit, database, event_log
from orchestrator.records.migrate import migrate
from tests.support.outside import Outside, outside
from tests.support.plans import MANAGER, five_stage_plan
from tests.support.temporal import TemporalServer, running_server
from workflows.release import ReleaseWorkflow

pytestmark = pytest.mark.stack


@dataclass
class Site:
    """Records, and a Temporal server whose data lies in a file."""

    folder: Path
    engine: Engine
    world: Outside
    port: int

    @property
    def database(self) -> Path:
        return self.folder / "temporal.db"

    @asynccontextmanager
    async def running(
        self, *, worker: bool = True, kept: bool = True
    ) -> AsyncIterator[tuple[Client, TemporalServer]]:
        with running_server(port=self.port, database=self.database if kept else None) as server:
            client = await server.connect()
            if not worker:
                yield client, server
                return
            with ThreadPoolExecutor(8) as threads:
                releases = Worker(
                    client,
                    task_queue=names.QUEUE_RELEASES,
                    workflows=[ReleaseWorkflow],
                    activities=RecordActivities(self.engine).all,
                    activity_executor=threads,
                )
                async with releases, outside(client, self.world):
                    yield client, server

    def set_aside(self) -> Path:
        kept = self.folder / "yesterday"
        kept.mkdir()
        for path in self.folder.glob("temporal.db*"):
            shutil.copy2(path, kept)
        return kept

    def put_back(self, kept: Path) -> None:
        self.lose()
        for path in kept.iterdir():
            shutil.copy2(path, self.folder)

    def lose(self) -> None:
        for path in self.folder.glob("temporal.db*"):
            path.unlink()

    def kinds(self, release: str) -> list[str]:
        with database.reading(self.engine) as session:
            return [event.type for event in event_log.check_events(session, release)]

    def restarts(self) -> list[tuple[str, str, int]]:
        """What the audit log says of restarts: release, why, at which event."""
        with database.reading(self.engine) as session:
            entries = [json.loads(leaf.body) for leaf in audit.leaves(session, 0) if leaf.kind == "admin"]
        return [
            (one["release"], one["why"], one["seq"])
            for one in entries
            if one["action"] == "workflow_restarted"
        ]

    def command(self, server: TemporalServer, *words: str) -> tuple[int, dict[str, object]]:
        """`sluice backup restart … --json`, as an operator runs it."""
        keys = self.folder / "codec.keys"
        keys.write_text(f"test-1:{base64.b64encode(bytes(range(32))).decode()}\n")
        keys.chmod(0o600)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")},
            "SLUICE_TEMPORAL_ADDRESS": server.address,
            "SLUICE_TEMPORAL_NAMESPACE": server.namespace,
            "SLUICE_CODEC_KEYS_FILE": str(keys),
        }
        asked = [sys.executable, "-m", "infra.cli", "backup", "restart", "--json", "--dev"]
        ran = subprocess.run(
            [*asked, "--data-dir", str(self.folder), *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.stdout, ran.stderr
        return ran.returncode, json.loads(ran.stdout)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    engine = database.connect(f"sqlite:///{tmp_path / 'records.db'}")
    migrate(engine)
    yield Site(tmp_path, engine, Outside(engine=engine), free_port())
    engine.dispose()


def create(name: str) -> cmd.CreateRelease:
    return cmd.CreateRelease(
        command_id=f"create-{name}",
        actor=MANAGER,
        release=name,
        name=name,
        version="1",
        plan=five_stage_plan(),
    )


def hold(number: int) -> CommandMessage:
    kind = cmd.Hold if number % 2 else cmd.Resume
    return CommandMessage(command=kind(command_id=f"c{number}", actor=MANAGER, reason=f"reason {number}"))


def abort() -> CommandMessage:
    return CommandMessage(command=cmd.Abort(command_id="abort", actor=MANAGER, reason="enough"))


async def until(met: Callable[[], object], what: str, seconds: float = 60) -> None:
    for _ in range(int(seconds / 0.05)):
        if met():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"it did not happen: {what}")


async def test_after_temporal_was_restored_or_lost_every_release_goes_on_from_its_records(site: Site) -> None:
    world = site.world
    world.gates["busy"] = threading.Event()
    async with site.running() as (client, _):
        gateway = TemporalGateway(client, patience=timedelta(seconds=30))
        for name in ("still", "told", "ends", "busy"):
            await gateway.create(create(name))
        await until(lambda: all(map(world.inside, ("still", "told", "ends"))), "they stand inside")
        await until(lambda: "busy" in world.publishing, "one is in the midst of entering its step")
    yesterday = site.set_aside()

    async with site.running() as (client, _):
        gateway = TemporalGateway(client, patience=timedelta(seconds=30))
        await gateway.create(create("new"))
        await until(lambda: world.inside("new"), "the new one stands inside")
        await gateway.send("told", hold(1))
        await gateway.send("ends", abort())
        await until(lambda: world.calls[names.APPLY_ACCESS] >= 2, "its end is applied")
    known = {name: site.kinds(name) for name in ("still", "told", "ends", "busy", "new")}

    # yesterday's Temporal: it does not know one release, and runs two from where they were
    site.put_back(yesterday)
    applied = world.calls[names.APPLY_ACCESS]
    async with site.running(worker=False) as (client, server):
        found = await restarting.find(site.engine, client)
        assert [(one.release, one.why) for one in found.to_restart] == [
            ("ends", "behind"),
            ("new", "lost"),
            ("told", "behind"),
        ]
        assert [one.records - (one.temporal or 0) for one in found.to_restart if one.why == "behind"] == [
            1,
            1,
        ]
        assert (found.refused, found.complete, site.restarts()) == ([], False, [])
        with pytest.raises(ReleaseEnded):
            await TemporalGateway(client).send("new", hold(1))
        code, done = await asyncio.to_thread(site.command, server, "--yes")
        assert (code, done["restarted"], done["complete"]) == (0, ["ends", "new", "told"], True)
    assert site.restarts() == [
        ("ends", "behind", len(known["ends"])),
        ("new", "lost", len(known["new"])),
        ("told", "behind", len(known["told"])),
    ]
    async with site.running() as (client, _):
        gateway = TemporalGateway(client, patience=timedelta(seconds=30))
        assert await client.get_workflow_handle(names.release_workflow_id("ends")).result() == "aborted"
        assert world.calls[names.APPLY_ACCESS] > applied, "its end is applied once more"
        # what was answered is answered again, what is new comes behind it
        again = await gateway.send("told", hold(1))
        assert (again.repeated, again.seq) == (True, len(known["told"]))
        assert (await gateway.send("told", hold(2))).seq == len(known["told"]) + 1
        assert (await gateway.send("new", hold(1))).seq == len(known["new"]) + 1
        assert (await restarting.find(site.engine, client)).complete

    # no Temporal at all
    site.lose()
    async with site.running() as (client, _):
        gateway = TemporalGateway(client, patience=timedelta(seconds=30))
        found = await restarting.find(site.engine, client)
        assert {one.release: one.why for one in found.to_restart} == dict.fromkeys(
            ("busy", "new", "still", "told"), "lost"
        )
        await restarting.restart(site.engine, client, found, "op")
        assert found.complete
        assert (await restarting.find(site.engine, client)).complete, "done twice it is done once"
        world.gates["busy"].set()
        await until(lambda: world.inside("busy"), "the one that was entering has entered")
        assert (await gateway.send("still", hold(1))).seq == len(known["still"]) + 1
        # a workflow that somebody ended is started again; one that is ahead of the records never is
        await client.get_workflow_handle(names.release_workflow_id("still")).terminate("by mistake")
        stopped = await restarting.find(site.engine, client, ["still", "nowhere"])
        assert [(one.release, one.why) for one in stopped.to_restart] == [("still", "stopped")]
        assert [one.release for one in stopped.refused] == ["nowhere"]
        await restarting.restart(site.engine, client, stopped, "op")
        assert (await gateway.send("still", hold(2))).seq == len(known["still"]) + 2
    for name in ("still", "told", "busy", "new"):
        kinds = site.kinds(name)
        assert kinds[: len(known[name])] == known[name]
        assert kinds.count("step_entered") == 1


async def test_a_release_whose_records_lack_or_contradict_something_is_not_started(site: Site) -> None:
    async with site.running(kept=False) as (client, _):
        gateway = TemporalGateway(client, patience=timedelta(seconds=30))
        for name in ("ahead", "broken"):
            await gateway.create(create(name))
        await until(lambda: world_inside(site, "ahead", "broken"), "they stand inside")
        for name in ("ahead", "broken"):
            await client.get_workflow_handle(names.release_workflow_id(name)).terminate("by mistake")
        with site.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE release SET seq = seq - 1 WHERE id = 'ahead'")
            connection.exec_driver_sql(
                "UPDATE event SET body = replace(body, 'mia', 'eve') WHERE release = 'broken' AND seq = 1"
            )
        found = await restarting.find(site.engine, client)
        assert [one.release for one in found.refused] == ["ahead", "broken"]
        assert "reconcile --replay-missing" in found.refused[0].reason
        assert "people must decide" in found.refused[1].reason
        await restarting.restart(site.engine, client, found, "op")
        assert (found.restarted, found.complete, site.restarts()) == ([], False, [])


def world_inside(site: Site, *releases: str) -> bool:
    return all(map(site.world.inside, releases))
