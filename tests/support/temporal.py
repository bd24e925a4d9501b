"""Fixtures with a real Temporal server; `tests/conftest.py` makes them known to every folder.

- `temporal_server` (session): a real dev server in memory, started once per test process; its address and namespace.
- `temporal_client` (function): a client of it with the product's own plugin (pydantic, codec, interceptors, sandbox).
- `virtual_time_env` (function): the same server, but workflows started through `env.client` have a clock of their own, which stands
  still unless `await env.fast_forward(handle, timedelta(days=90))` moves it. Continue-as-new keeps the clock.

Measured on two cores: server up in 0.5 s (0.2 s when warm), connecting 10 ms, one skip from timer to timer 30 to 50 ms (the server
rounds timers to 1 s unless `timerProcessorMaxTimeShift` says otherwise; then a skip takes a second each).
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError
from temporalio.testing._timeskipping import TimeSkipper, TimeSkippingConfig

from infra.codec import CodecKeys
from infra.processes import free_port
from infra.temporal import SluicePlugin, prepare_namespace, settle_at_exit

NAMESPACE = "sluice-test"
TEMPORAL = Path(sys.executable).parent / "temporal"

#: Frozen, so that histories saved by one run replay in another.
TEST_CODEC_KEYS = CodecKeys({"test-1": bytes(range(32))})

#: How long one move of a virtual clock may take.
_PATIENCE_S = 60.0

DYNAMIC_CONFIG = (
    "frontend.WorkflowTimeSkippingEnabled=true",
    'history.timerProcessorMaxTimeShift="10ms"',
    "frontend.namespaceRPS=100000",
    "frontend.globalNamespaceRPS=100000",
)


@dataclass(frozen=True)
class TemporalServer:
    """A running dev server."""

    address: str
    namespace: str = NAMESPACE

    async def connect(self, keys: CodecKeys = TEST_CODEC_KEYS) -> Client:
        """A new client with the product's plugin."""
        return await Client.connect(self.address, namespace=self.namespace, plugins=[SluicePlugin(keys)])


@dataclass(frozen=True)
class VirtualTime:
    """A client whose workflows have clocks that stand still until they are moved."""

    client: Client
    skipper: TimeSkipper

    async def fast_forward(self, handle: WorkflowHandle[Any, Any], duration: timedelta) -> bool:
        """Move the workflow's clock and wait until it got there; False when the workflow ended first.

        Time skipping is young in the server, and its long poll knows no end: the wait is bounded, and then the
        clock itself is asked.
        """
        target = await self.now(handle) + duration
        try:
            return await asyncio.wait_for(self.skipper.fast_forward(handle, duration), _PATIENCE_S)
        except TimeoutError:
            arrived = await self.now(handle)
            assert arrived >= target, f"the clock stands at {arrived}, and should have come to {target}"
            return True

    async def now(self, handle: WorkflowHandle[Any, Any]) -> datetime:
        """What the workflow's clock shows."""
        return await self.skipper.get_current_time(handle)


@contextmanager
def running_server(
    *, port: int | None = None, database: Path | None = None, dynamic: Sequence[str] = ()
) -> Iterator[TemporalServer]:
    """A real server of one's own: in memory, or with its data in `database`."""
    settle_at_exit()
    port = port or free_port()
    options = [part for value in (*DYNAMIC_CONFIG, *dynamic) for part in ("--dynamic-config-value", value)]
    if database is not None:
        options += ["--db-filename", str(database)]
        for pragma in (
            "journal_mode=wal",
            "synchronous=off",
        ):  # the file outlives the process, no machine fails here
            options += ["--sqlite-pragma", pragma]
    command = [
        str(TEMPORAL), "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port), "--log-level", "error",
        "--namespace", NAMESPACE, *options,
    ]  # fmt: skip
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            _in_a_loop_of_its_own(_until_ready(f"127.0.0.1:{port}", process))
            yield TemporalServer(f"127.0.0.1:{port}")
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def _in_a_loop_of_its_own(task: Coroutine[Any, Any, None]) -> None:
    """Run it to its end, also where a loop runs already."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, task).result()


@pytest.fixture(scope="session")
def temporal_server() -> Iterator[TemporalServer]:
    """A real Temporal server in memory, for the whole test run."""
    with running_server() as server:
        yield server


async def _until_ready(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(400):
        assert process.poll() is None, "the Temporal server ended while starting"
        try:
            client = await Client.connect(address, namespace=NAMESPACE)
            await prepare_namespace(client, retention=timedelta(days=30))
        except (RuntimeError, RPCError):  # not listening yet, or not serving yet
            await asyncio.sleep(0.05)
        else:
            return
    raise AssertionError("the Temporal server did not start in 20 s")


@pytest_asyncio.fixture
async def temporal_client(temporal_server: TemporalServer) -> AsyncIterator[Client]:
    """A client of the real server, with the product's plugin. What a test leaves running is ended with it.

    A worker of the next test would take it up otherwise, and write it into records that are not its own.
    """
    client = await temporal_server.connect()
    yield client
    async for left in client.list_workflows("ExecutionStatus = 'Running'"):
        with suppress(RPCError):  # it has just ended
            await client.get_workflow_handle(left.id, run_id=left.run_id).terminate("its test has ended")


@pytest_asyncio.fixture
async def virtual_time_env(temporal_server: TemporalServer) -> AsyncIterator[VirtualTime]:
    """A client whose workflows have virtual clocks."""
    plain = await temporal_server.connect()
    skipper = TimeSkipper(plain, config=TimeSkippingConfig(enabled=False))
    yield VirtualTime(skipper.client, skipper)
