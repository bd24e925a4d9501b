"""A change of workflow code rolled out under running releases: old and new build beside one another, and what must not be.

The worker processes are the product's own (`python -m infra.run worker-releases`), each from a tree of its own: that of the old
version is this one, that of the new version has a release workflow that does one thing more before it changes access.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine
from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.client import Client, WorkflowHistory
from temporalio.common import WorkerDeploymentVersion

from infra import builds
from infra.processes import free_port
from infra.temporal import TemporalError, replayer
from orchestrator.api.commands import TemporalGateway
from orchestrator.contracts import messages as msg
from orchestrator.contracts import names
from orchestrator.domain import commands as cmd
from orchestrator.records import database, event_log
from orchestrator.records.migrate import migrate
from tests.replay.test_replay import HISTORIES, saved
from tests.support.outside import Outside, outside
from tests.support.plans import MANAGER, five_stage_plan
from tests.support.temporal import TEST_CODEC_KEYS, TemporalServer, running_server
from tests.workflows.changed import Incompatible, Patched
from tests.workflows.test_release_workflow import Release, workers
from workflows.release import ReleaseWorkflow

pytestmark = pytest.mark.stack

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("orchestrator", "workflows", "activities", "artifacts", "infra")
SEES_DRAINAGE_SOON = (
    'matching.wv.VersionDrainageStatusVisibilityGracePeriod="0s"',
    'matching.wv.VersionDrainageStatusRefreshInterval="1s"',
)
LATER = """
    async def _apply_access(self, state: ReleaseState) -> None:
        await workflow.execute_activity(
            "announce", state.release, task_queue=names.QUEUE_TRANSFER, start_to_close_timeout=timedelta(seconds=20)
        )
"""


@dataclass
class Site:
    """One deployment: records, Temporal, and the variables that its processes are started with."""

    folder: Path
    server: TemporalServer
    engine: Engine

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": "/usr/bin:/bin",
            "SLUICE_DEV": "true",
            "SLUICE_DATA_DIR": str(self.folder),
            "SLUICE_TEMPORAL_ADDRESS": self.server.address,
            "SLUICE_TEMPORAL_NAMESPACE": self.server.namespace,
            "SLUICE_CODEC_KEYS_FILE": str(self.folder / "codec.keys"),
            "SLUICE_SHUTDOWN_SECONDS": "3",
        }

    @contextmanager
    def worker(self, tree: Path) -> Iterator[subprocess.Popen[bytes]]:
        """A release worker of the version that lies in `tree`."""
        environment = {**self.environment, "PYTHONPATH": str(tree), "SLUICE_HEALTH_PORT": str(free_port())}
        with (self.folder / f"worker-{tree.name}.log").open("ab") as out:
            command = [sys.executable, "-m", "infra.run", "worker-releases"]
            process = subprocess.Popen(command, cwd=tree, env=environment, stdout=out, stderr=out)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(10)

    def command(self, *words: str) -> object:
        """`sluice … --json`, as an operator runs it."""
        ran = subprocess.run(
            [sys.executable, "-m", "infra.cli", *words, "--json"],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    keys = tmp_path / "codec.keys"
    keys.write_text(f"test-1:{base64.b64encode(bytes(range(32))).decode()}\n")
    keys.chmod(0o600)
    engine = database.connect(f"sqlite:///{tmp_path / 'records.db'}")
    migrate(engine)
    with running_server(dynamic=SEES_DRAINAGE_SOON) as server:
        yield Site(tmp_path, server, engine)
    engine.dispose()


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """The tree of a later version."""
    tree = tmp_path / "later"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package)
    path = tree / "workflows/release.py"
    text = path.read_text()
    head = LATER.strip("\n").split("\n", 1)[0] + "\n"
    assert text.count(head) == 1
    path.write_text(text.replace(head, LATER.strip("\n") + "\n"))
    return tree


def create(name: str) -> cmd.CreateRelease:
    return cmd.CreateRelease(
        command_id=f"create-{name}",
        actor=MANAGER,
        release=name,
        name=name,
        version="1",
        plan=five_stage_plan(),
    )


def hold(number: int) -> msg.CommandMessage:
    kind = cmd.Hold if number % 2 else cmd.Resume
    return msg.CommandMessage(command=kind(command_id=f"c{number}", actor=MANAGER, reason=f"reason {number}"))


async def until(met: Callable[[], Awaitable[object] | object], what: str, seconds: float = 60) -> None:
    for _ in range(int(seconds / 0.05)):
        seen = met()
        if await seen if inspect.isawaitable(seen) else seen:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"it did not happen: {what}")


async def build_of(client: Client, release: str) -> str:
    described = await client.get_workflow_handle(names.release_workflow_id(release)).describe()
    return described.raw_description.workflow_execution_info.versioning_info.deployment_version.build_id


async def known(client: Client) -> dict[str, builds.Build]:
    try:
        return {one.id: one for one in await builds.builds(client, "sluice")}
    except TemporalError:
        return {}


async def current(client: Client) -> str | None:
    return next((one.id for one in (await known(client)).values() if one.current), None)


async def test_a_new_build_is_rolled_out_under_running_releases(site: Site, later: Path) -> None:
    client = await site.server.connect()
    gateway = TemporalGateway(client, patience=timedelta(seconds=30))
    world = Outside(engine=site.engine)
    world.gates["busy"] = threading.Event()

    async def is_on(release: str, build: str) -> bool:
        return await build_of(client, release) == build

    async with outside(client, world):
        with site.worker(ROOT) as first:
            await until(lambda: current(client), "the first build becomes the current one")
            old = await current(client)
            for name in ("idle", "told", "busy"):
                await gateway.create(create(name))
            await until(lambda: world.inside("told") and world.inside("idle"), "both stand inside")
            await until(lambda: "busy" in world.publishing, "one is in the midst of entering its step")

            with site.worker(later):
                await until(lambda: later_is_current(client, old), "the later build becomes the current one")
                new = await current(client)
                assert new is not None
                assert not world.announced
                await gateway.create(create("fresh"))
                await until(
                    lambda: world.announced["fresh"] == 1, "a new release does what the later version does"
                )
                assert await is_on("fresh", new)
                assert [await build_of(client, name) for name in ("idle", "told", "busy")] == [old] * 3

                # one that is in the midst of something ends it where it began it, then moves
                world.gates["busy"].set()
                await until(lambda: is_on("busy", new), "the busy release moves")
                assert world.inside("busy")
                # one that is told something answers from where it is, then moves, and remembers what it was told
                assert (await gateway.send("told", hold(1))).events == ["hold_placed"]
                await until(lambda: is_on("told", new), "the told release moves")
                again = await gateway.send("told", hold(1))
                assert (again.repeated, again.events) == (True, ["hold_placed"])

                # the old worker serves who is left there, and draws nobody back when it is started again
                assert not await builds.take_over(client, WorkerDeploymentVersion("sluice", str(old)))
                assert await current(client) == new
                left = (await known(client))[str(old)]
                assert (await is_on("idle", str(old)), left.empty) == (True, False)
                moved = await asyncio.to_thread(site.command, "builds", "move")
                assert moved == {"woken": ["idle"]}
                await until(lambda: is_on("idle", new), "the idle release moves")
                await until(lambda: empty(client, str(old)), "nothing is left on the old build")
                first.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(first.wait, 30) == 0

                # without the old worker every release goes on, and none lost or doubled anything
                for name, number in {"idle": 1, "told": 2, "busy": 1, "fresh": 1}.items():
                    await gateway.send(name, hold(number))
                await until(lambda: drained(client, str(old)), "the server sees the old build as drained")

    told = {"idle": 1, "told": 2, "busy": 1, "fresh": 1}
    with database.reading(site.engine) as session:
        kinds = {name: [e.type for e in event_log.check_events(session, name)] for name in told}
    for name, number in told.items():
        placed = ["hold_placed"] if number == 1 else ["hold_placed", "proposed"]
        assert kinds[name][-len(placed) :] == placed
        assert kinds[name][: -len(placed)] == kinds["idle"][:-1]
        assert kinds[name].count("step_entered") == 1
    assert not world.announced.keys() & {"idle", "busy"}, (
        "what was done by the old version is not done again by the new one"
    )


async def later_is_current(client: Client, old: str | None) -> bool:
    return await current(client) not in {None, old}


async def empty(client: Client, build: str) -> bool:
    return (await known(client))[build].empty


async def drained(client: Client, build: str) -> bool:
    found = (await known(client)).get(build)
    return found is None or found.status == "drained"


# --- the same build id throughout: what the code must keep, and what happens when it does not


async def test_a_change_that_old_histories_do_not_bear_stops_and_harms_nothing(
    temporal_client: Client,
) -> None:
    """The mistake, and its remedy: neither loses or writes an event, and the release goes on behind `patched`."""
    world = Outside()
    no_cache = {"max_cached_workflows": 0}
    async with workers(temporal_client, world, workflow=ReleaseWorkflow, **no_cache):
        release = await Release.create(temporal_client, world, task_timeout=timedelta(seconds=1))
        await release.until("inside")
    before = list(world.log[release.name])
    history = await release.handle.fetch_history()

    gateway = TemporalGateway(temporal_client, patience=timedelta(seconds=60))
    waiting = asyncio.ensure_future(gateway.send(release.name, hold(1)))
    async with workers(temporal_client, world, workflow=Incompatible, **no_cache):
        await release.handle.signal(names.SIGNAL_LOOK)
        await until(lambda: refused_to_replay(release), "Temporal keeps why it does not go on")
        assert not waiting.done()
    assert world.log[release.name] == before
    assert not world.announced

    async with workers(temporal_client, world, workflow=Patched, **no_cache):
        assert (await waiting).events == ["hold_placed"]
        fresh = await Release.create(temporal_client, world)
        await fresh.until("inside")
        await until(
            lambda: world.announced[fresh.name] == 1, "a new release does what the later version does"
        )
    assert [event.command_id for event in world.log[release.name][len(before) :]] == ["c1"]

    with pytest.raises(Exception, match=r"(?i)nondeterminis"):
        await replayer(TEST_CODEC_KEYS, [Incompatible]).replay_workflow(history)
    await replayer(TEST_CODEC_KEYS, [Patched]).replay_workflow(history)
    for one in (release, fresh):
        await one.handle.terminate()


async def refused_to_replay(release: Release) -> bool:
    causes = [
        event.workflow_task_failed_event_attributes.cause
        async for event in release.handle.fetch_history_events()
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
    ]
    return WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_NON_DETERMINISTIC_ERROR in causes


async def test_every_saved_history_tells_the_change_from_the_patched_one() -> None:
    """The replay tests would have stopped the mistake: no history of a release bears it, each bears the patched change."""
    ours = [history for history in map(saved, HISTORIES) if _workflow_of(history) == names.RELEASE_WORKFLOW]
    assert ours
    for history in ours:
        await replayer(TEST_CODEC_KEYS, [Patched]).replay_workflow(history)
        with pytest.raises(Exception, match=r"(?i)nondeterminis"):
            await replayer(TEST_CODEC_KEYS, [Incompatible]).replay_workflow(history)


def _workflow_of(history: WorkflowHistory) -> str:
    return history.events[0].workflow_execution_started_event_attributes.workflow_type.name
