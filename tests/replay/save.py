"""Saves a history of every kind of release workflow run: `python -m tests.replay.save VERSION [KIND ...]` (a real server, real runs).

A released version's histories stay for ever; `test_replay.py` replays them all against the code as it is.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from temporalio import activity
from temporalio.client import Client, WorkflowHistory
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.exceptions import ApplicationError
from temporalio.testing._timeskipping import TimeSkipper, TimeSkippingConfig
from temporalio.worker import Worker, WorkerDeploymentConfig

from infra.temporal import make_current
from orchestrator.contracts import messages as msg
from orchestrator.contracts import names
from orchestrator.domain import commands as cmd
from orchestrator.records import database
from orchestrator.records.migrate import migrate
from tests.monitoring.bench import LeakBench
from tests.simulators import transformations as t
from tests.simulators.ranged_server import running as serving
from tests.support.plans import MANAGER, RECIPIENT, actor
from tests.support.temporal import TEST_CODEC_KEYS, VirtualTime, temporal_server
from tests.support.world import World
from tests.workflows import test_leak_trace
from tests.workflows.test_release_workflow import Release, workers
from workflows.hub_sweep import HubSweepWorkflow
from workflows.ingest import IngestWorkflow
from workflows.release import ReleaseWorkflow

HISTORIES = Path(__file__).parent / "histories"


async def _walk(time: VirtualTime, world: World, limit: int | None = None) -> Release:
    release = await Release.create(time.client, world, limit=limit)
    await release.until("inside")
    await release.register()
    await release.ready("demo")
    await release.sign("demo", "sam", "safety")
    await release.until("demo")
    return release


async def _to_open(time: VirtualTime, world: World) -> Release:
    release = await _walk(time, world)
    for step, who, days in (
        ("query", [("sam", "safety"), ("lea", "legal")], 31),
        ("download", [("sam", "safety"), ("lea", "legal"), ("rex", "reviewer")], 98),
        ("open", [("sue", "safety"), ("lea", "legal")], 68),
    ):
        await release.ready(step)
        for person, role in who:
            await release.sign(step, person, role)
        await time.fast_forward(release.handle, timedelta(days=days))
        await release.until(step)
    await release.handle.result()
    return release


async def _caution(time: VirtualTime, world: World) -> Release:
    release = await _walk(time, world)
    await release.send(cmd.Hold(command_id="hold", actor=MANAGER, reason="wait"))
    for person in ("sam", "lea"):
        await release.send(cmd.Resume(command_id=f"resume-{person}", actor=actor(person)))
    await release.send(
        cmd.ReportIncident(
            command_id="leak",
            actor=actor("dan"),
            incident="leak-1",
            kind="leak",
            severity="severe",
            summary="seen",
            partner="uni",
        )
    )
    await release.send(cmd.Abort(command_id="abort", actor=MANAGER, reason="leaked"))
    await release.handle.result()
    return release


async def _late_grants(time: VirtualTime, world: World) -> Release:
    """A partner who became ready late, one who is not, and one whose grant is stopped by a hold."""
    release = await _walk(time, world)
    await release.at_download(time)
    await release.late("ngo")
    await release.until_not_asked()
    world.partner_keys["ngo"] = RECIPIENT
    await release.late("ngo", "again")
    await release.until_not_asked()
    world.fail[names.MAKE_ENVELOPES] = 1_000
    await release.late("ngo", "stopped")
    await asyncio.sleep(0.3)
    await release.send(cmd.Hold(command_id="hold", actor=MANAGER, reason="wait"))
    await release.until_not_asked()
    await release.send(cmd.Abort(command_id="abort", actor=MANAGER, reason="enough"))
    await release.handle.result()
    return release


async def _rotation(time: VirtualTime, world: World) -> Release:
    """New keys while the release is on hold; then envelopes of what was sealed anew, and the old files deleted."""
    release = await _walk(time, world)
    await release.send(cmd.Hold(command_id="hold", actor=MANAGER, reason="a laptop was lost"))
    rotate = cmd.RotateKeys(
        command_id="rotate",
        actor=MANAGER,
        components=["weights"],
        reason="a laptop was lost",
        delete_old=True,
    )
    await release.send(rotate)
    for _ in range(500):
        if any(event.type == "sealed_deleted" for event in world.log[release.name]):
            break
        await asyncio.sleep(0.02)
    for person in ("sam", "lea"):
        await release.send(cmd.Resume(command_id=f"resume-{person}", actor=actor(person)))
    for _ in range(500):
        if any(event.type == "envelopes_renewed" for event in world.log[release.name]):
            break
        await asyncio.sleep(0.02)
    await release.send(cmd.Abort(command_id="abort", actor=MANAGER, reason="enough"))
    await release.handle.result()
    return release


async def _reminders(time: VirtualTime, world: World) -> Release:
    """A window whose end is near, over a continuation, and sign-offs that are waited for."""
    release = await _walk(time, world, limit=40)
    await release.ready("query")
    await time.fast_forward(release.handle, timedelta(days=28))
    for _ in range(500):
        if {"window_ends", "sign_off_waits"} <= {
            event.kind for event in world.log[release.name] if event.type == "reminded"
        }:
            break
        await asyncio.sleep(0.02)
    await release.send(cmd.Abort(command_id="abort", actor=MANAGER, reason="enough"))
    await release.handle.result()
    return release


async def _second_lock(time: VirtualTime, world: World) -> Release:
    """An entry and a late grant that wait for people, each said and gone on with; a hold ends a late grant that waits."""
    board = {"approvers": "the board", "requests": [{"about": "a1", "accessor": "acc", "approved_by": []}]}
    lock = [names.WAITS_FOR_LOCK, [], None, board]

    async def waits(place: str) -> None:
        while place not in world.state(release.name).custody_waits:
            await asyncio.sleep(0.02)

    release = await _walk(time, world)
    await release.at_download(time)
    world.partner_keys["ngo"] = RECIPIENT
    world.waits[names.MAKE_ENVELOPES] = lock
    await release.late("ngo")
    await waits("download/ngo")
    world.waits.clear()
    await time.fast_forward(release.handle, timedelta(seconds=10))
    await release.until_not_asked()
    world.waits[names.MAKE_ENVELOPES] = lock
    await release.late("ngo", "again")
    await waits("download/ngo")
    await release.send(cmd.Hold(command_id="hold", actor=MANAGER, reason="wait"))
    await release.until_not_asked()
    for person in ("sam", "lea"):
        await release.send(cmd.Resume(command_id=f"resume-{person}", actor=actor(person)))
    await release.send(cmd.RollBack(command_id="back", actor=MANAGER, to="inside", reason="again"))
    await release.ready("demo")
    await release.sign("demo", "sam", "safety", "again")
    await waits("demo")
    world.waits.clear()
    await time.fast_forward(release.handle, timedelta(seconds=30))
    await release.until("demo")
    await release.send(cmd.Abort(command_id="abort", actor=MANAGER, reason="enough"))
    await release.handle.result()
    return release


async def _continued(time: VirtualTime, world: World) -> Release:
    release = await _walk(time, world, limit=60)
    for n in range(20):
        await release.send(cmd.ReportAccess(command_id=f"a{n}", actor=MANAGER, working=bool(n % 2)))
    return release


async def _moved(client: Client) -> WorkflowHistory:
    """A run that is woken while a later build is the current one, and continues as new there."""
    world = World()

    def build(name: str) -> dict[str, Any]:
        version = WorkerDeploymentVersion("saved", name)
        behavior = VersioningBehavior.PINNED
        return {
            "deployment_config": WorkerDeploymentConfig(
                version=version, use_worker_versioning=True, default_versioning_behavior=behavior
            )
        }

    async with workers(client, world, **build("first")):
        await make_current(client, WorkerDeploymentVersion("saved", "first"))
        release = await Release.create(client, world)
        await release.until("inside")
        first = (await release.handle.describe()).run_id
        later = Worker(
            client,
            task_queue=names.QUEUE_RELEASES,
            workflows=[ReleaseWorkflow],
            activities=[world.record_events],
            activity_executor=ThreadPoolExecutor(2),
            **build("second"),
        )
        async with later:
            await make_current(client, WorkerDeploymentVersion("saved", "second"))
            await release.handle.signal(names.SIGNAL_LOOK)
            for _ in range(300):
                if (await release.handle.describe()).run_id != first:
                    break
                await asyncio.sleep(0.1)
        await release.handle.terminate()
    return await client.get_workflow_handle(release.handle.id, run_id=first).fetch_history()


async def _leak_sweep(client: Client) -> WorkflowHistory:
    """A sweep that polls, sorts, scans and reports."""
    with tempfile.TemporaryDirectory() as folder, serving() as server:
        url = f"sqlite:///{folder}/records.db"
        migrate(url)
        bench = LeakBench(database.connect(url), Path(folder))
        model = t.Leak(t.synthetic(np.random.default_rng(1)))
        ours = bench.seal(model)
        (copy,) = t.write(t.cast("F16")(model, np.random.default_rng(1)), Path(folder) / "leak")
        server.files["x"] = copy.read_bytes()
        async with bench.running(client):
            release = await bench.create()
            await bench.bind(release, ours)
            bench.report(server.url("ok/x"))
            bench.report("ab" * 32, "sha256")
            done = await bench.sweep(release, as_id="sweep")
            assert done.incidents
            history = await client.get_workflow_handle("sweep").fetch_history()
        bench.engine.dispose()
        return history


async def _leak_trace(client: Client) -> WorkflowHistory:
    """A trace that waits for people once, finds whose copy it is, and is told."""
    waits = ApplicationError("two people have to approve", [], type=names.WAITS_FOR_LOCK, non_retryable=True)
    outside = test_leak_trace.Outside(test_leak_trace.TAKEN, [waits, test_leak_trace.FOUND])
    async with test_leak_trace.running(client, outside):
        await test_leak_trace.traced(client, as_id="leak-trace")
    return await client.get_workflow_handle("leak-trace").fetch_history()


async def _hub_sweep(client: Client) -> WorkflowHistory:
    """A sweep of the Hub that fails once."""
    tries: list[int] = []

    @activity.defn(name=names.SWEEP_HUB)
    async def sweep(_request: msg.SweepHub) -> msg.HubSwept:
        tries.append(activity.info().attempt)
        if len(tries) == 1:
            raise RuntimeError("the Hub does not answer")
        return msg.HubSwept(in_order=["mini-1"])

    async with (
        Worker(client, task_queue=names.QUEUE_RELEASES, workflows=[HubSweepWorkflow]),
        Worker(client, task_queue=names.QUEUE_TRANSFER, activities=[sweep]),
    ):
        handle = await client.start_workflow(
            names.HUB_SWEEP_WORKFLOW, msg.SweepHub(), id="hub", task_queue=names.QUEUE_RELEASES
        )
        await handle.result()
    return await handle.fetch_history()


async def _ingest(client: Client) -> WorkflowHistory:
    """An ingest that is bound to a release."""

    @activity.defn(name=names.SEAL_TREE)
    async def seal(_start: msg.IngestInput) -> msg.IngestResult:
        return msg.IngestResult(artifact="a" * 32, manifest_digest="sha256:" + "1" * 64, size=1, files=1)

    @activity.defn(name=names.BIND_ARTIFACT)
    async def bind(request: msg.BindRequest) -> msg.Outcome:
        return msg.Outcome(release=request.release, seq=2, events=["artifact_registered"])

    start = msg.IngestInput(
        ingest="i-1",
        source="model",
        store="default",
        components={"weights": ["*"]},
        uploader="ci",
        release="r-1",
    )
    async with (
        Worker(client, task_queue=names.QUEUE_RELEASES, workflows=[IngestWorkflow]),
        Worker(client, task_queue=names.QUEUE_TRANSFER, activities=[seal, bind]),
    ):
        handle = await client.start_workflow(
            names.INGEST_WORKFLOW, start, id="ingest", task_queue=names.QUEUE_RELEASES
        )
        await handle.result()
    return await handle.fetch_history()


def _write(version: str, name: str, history: WorkflowHistory) -> None:
    path = HISTORIES / f"{version}-{name}.json"
    path.write_text(history.to_json())
    print(f"{path.name}: {len(history.events)} events")


async def _save(client: Client, version: str) -> None:
    skipper = TimeSkipper(client, config=TimeSkippingConfig(enabled=False))
    time = VirtualTime(skipper.client, skipper)
    kinds = {
        "to-open": _to_open,
        "caution": _caution,
        "continued": _continued,
        "late-grants": _late_grants,
        "rotation": _rotation,
        "reminders": _reminders,
        "second-lock": _second_lock,
    }
    others = {
        "leak-sweep": _leak_sweep,
        "leak-trace": _leak_trace,
        "hub-sweep": _hub_sweep,
        "ingest": _ingest,
    }
    chosen = sys.argv[2:] or [*kinds, *others, "moved"]
    for name, other in others.items():
        if name in chosen:
            chosen.remove(name)
            _write(version, name, await other(client))
    moved = "moved" in chosen
    for name, run in ((name, kinds[name]) for name in chosen if name != "moved"):
        world = World()
        async with workers(time.client, world):
            release = await run(time, world)
            handle = client.get_workflow_handle(release.handle.id)
            history = await handle.fetch_history()
            _write(version, name, history)
    if moved:  # last: from then on the queue is a versioned one
        _write(version, "moved", await _moved(client))


def main() -> None:
    server = temporal_server.__wrapped__()  # the fixture's own generator
    running = next(server)
    try:
        asyncio.run(_run(running))
    finally:
        next(server, None)


async def _run(running: object) -> None:
    client = await running.connect(TEST_CODEC_KEYS)  # type: ignore[attr-defined]
    await _save(client, sys.argv[1])


if __name__ == "__main__":
    main()
