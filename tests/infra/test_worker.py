"""A worker's life: ready when it polls, and at SIGTERM it finishes what it began."""

import asyncio
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from temporalio import activity

from infra.codec import CodecKeys
from infra.processes import free_port
from infra.settings import Settings
from infra.worker import WorkerParts, serve_worker
from tests.infra.canary_workflow import CanaryWorkflow, Message

pytestmark = pytest.mark.stack


@pytest.fixture
def settings(tmp_path):
    return Settings(
        dev=True,
        data_dir=tmp_path,
        health_port=free_port(),
        shutdown_seconds=5,
        deployment=f"d-{uuid.uuid4().hex}",
        build_id="b",
    )


async def ready(settings):
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(200):
            try:
                answer = await client.get(f"http://127.0.0.1:{settings.health_port}/readyz")
            except httpx.ConnectError:
                answer = None
            if answer is not None and answer.status_code == 200:
                return True
            await asyncio.sleep(0.05)
    return False


async def test_a_stopped_worker_finishes_the_activity_it_began(temporal_client, settings):
    began, finished, closed, queue = threading.Event(), threading.Event(), [], f"q-{uuid.uuid4()}"

    @activity.defn(name="echo")
    def slow(message: Message) -> Message:
        began.set()
        time.sleep(0.7)
        finished.set()
        return message

    async def close():
        closed.append(finished.is_set())

    parts = WorkerParts(
        queue=queue, workflows=(CanaryWorkflow,), activities=(slow,), max_activities=2, close=close
    )
    stop = asyncio.Event()
    serving = asyncio.create_task(serve_worker(settings, stop, temporal_client, parts))
    assert await ready(settings), "it is ready once its version is current and it polls"
    handle = await temporal_client.start_workflow(
        CanaryWorkflow.run, Message(text="x"), id=f"w-{uuid.uuid4()}", task_queue=queue
    )
    update = asyncio.create_task(handle.execute_update(CanaryWorkflow.through_activity, Message(text="x")))
    assert await asyncio.to_thread(began.wait, 10)
    stop.set()
    await asyncio.wait_for(serving, 15)
    assert finished.is_set()
    assert closed == [True], "what it stands on is closed after its last activity"
    update.cancel()
    await asyncio.gather(update, return_exceptions=True)
    await handle.terminate()


async def test_as_many_activities_run_at_once_as_were_asked(temporal_client, settings):
    width, queue = 12, f"q-{uuid.uuid4()}"
    together = threading.Barrier(width)

    @activity.defn(name="echo")
    def meet(message: Message) -> Message:
        together.wait(10)
        return message

    stop = asyncio.Event()
    parts = WorkerParts(queue=queue, workflows=(CanaryWorkflow,), activities=(meet,), max_activities=width)
    serving = asyncio.create_task(serve_worker(settings, stop, temporal_client, parts))
    assert await ready(settings)
    handles = [
        await temporal_client.start_workflow(
            CanaryWorkflow.run, Message(text="x"), id=f"w-{uuid.uuid4()}", task_queue=queue
        )
        for _ in range(width)
    ]
    async with asyncio.timeout(20):
        await asyncio.gather(
            *(h.execute_update(CanaryWorkflow.through_activity, Message(text="x")) for h in handles)
        )
    for handle in handles:
        await handle.terminate()
    stop.set()
    await serving


async def test_what_it_stands_on_is_part_of_being_ready(temporal_client, settings):
    async def database():
        raise ConnectionError("gone")

    stop = asyncio.Event()
    parts = WorkerParts(
        queue=f"q-{uuid.uuid4()}", activities=(), workflows=(CanaryWorkflow,), checks={"database": database}
    )
    serving = asyncio.create_task(serve_worker(settings, stop, temporal_client, parts))
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(200):
            await asyncio.sleep(0.05)
            try:
                answer = await client.get(f"http://127.0.0.1:{settings.health_port}/readyz")
            except httpx.ConnectError:
                continue
            if answer.text == "not ready: database":
                break
    assert answer.text == "not ready: database"
    stop.set()
    await serving


def test_the_ring_of_keys_is_shared_by_threads():
    ring = CodecKeys({"k": bytes(32)})
    with ThreadPoolExecutor(8) as pool:
        sealed = list(
            pool.map(lambda n: ring.cipher("k").encrypt(n.to_bytes(12, "big"), b"x", None), range(200))
        )
    assert len(set(sealed)) == 200
