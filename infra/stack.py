"""`up`, `down` and `status` of the one-machine stack, as functions; as commands they are in `infra.cli`.

`up` leaves a supervisor behind (`infra.supervisor`) that outlives the terminal; `down` asks it to end, and ends what it can't; data
stays in the data folder. For a stack that lives as long as a block of code (demo, tests), use `one_machine` as a context manager.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import structlog

from infra.components import one_machine, prepare
from infra.processes import LAUNCHER, ProcessIdentity, end_all, identify
from infra.settings import Role, Settings
from infra.stack_state import (
    AlreadyRunningError,
    PortTakenError,
    StackError,
    StackLock,
    StackState,
    StartError,
    forget_state,
    is_locked,
    read_state,
    status,
    write_state,
)
from infra.supervised import Component, Site, base_environment
from infra.supervisor import Stack

__all__ = [
    "AlreadyRunningError",
    "Component",
    "PortTakenError",
    "Site",
    "Stack",
    "StackError",
    "StackState",
    "StartError",
    "down",
    "one_machine",
    "status",
    "supervise",
    "up",
]

log = structlog.get_logger("stack")

#: Seconds that a start may take, on a busy machine too.
_PATIENCE_S = 300.0


def up(
    settings: Settings,
    *,
    patience: float = _PATIENCE_S,
    on_change: Callable[[StackState], None] = lambda _state: None,
) -> StackState:
    """Start the stack in the background and wait until it is ready.

    Args:
        settings: Data folder, ports, dev mode.
        patience: Seconds to wait.
        on_change: Called with each new state while it starts.

    Raises:
        AlreadyRunningError: a stack runs on this data folder.
        StackError: it did not come up; the text says which component, and why.
    """
    prepare(settings)
    StackLock(settings.data_dir).acquire().release()  # says who runs, before anything is started
    earlier = read_state(settings.data_dir)
    logs = settings.data_dir / "logs"
    logs.mkdir(mode=0o700, exist_ok=True)
    environment = base_environment() | settings.to_environment(Role.STACK) | {"PYTHONUNBUFFERED": "1"}
    environment |= {"SLUICE_DATA_DIR": str(settings.data_dir), "SLUICE_DEV": str(settings.dev).lower()}
    with (logs / "stack.log").open("ab") as output:
        started = subprocess.run(  # noqa: S603 - our own command line
            [sys.executable, "-I", "-S", str(LAUNCHER), "detach", sys.executable, "-m", "infra.cli", "supervise"],
            env=environment, cwd=Path(__file__).resolve().parent.parent,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=output, check=True,
        )  # fmt: skip
    supervisor = identify(int(started.stdout))
    deadline = time.monotonic() + patience
    shown: StackState | None = None
    while True:
        state = read_state(settings.data_dir)
        if (
            state is not None
            and state != earlier
            and supervisor is not None
            and state.supervisor == supervisor
        ):
            if state != shown:
                on_change(state)
                shown = state
            if state.ready:
                return state
            if state.phase == "failed":
                while supervisor.alive and time.monotonic() < deadline:
                    time.sleep(0.02)  # it ends its components and then itself
                raise StartError(state.error)
        if supervisor is None or not supervisor.alive:
            raise StartError(f"the supervisor ended; see {logs / 'stack.log'}")
        if time.monotonic() > deadline:
            end_all([supervisor], patience=30)
            raise StartError(f"the stack was not ready after {patience:g} s; see {logs}")
        time.sleep(0.05)


def down(data_dir: Path, *, patience: float = 40.0) -> list[str]:
    """End the stack of that data folder, whatever is left of it; what was ended, by name.

    The supervisor ends its components in order. Is it gone or does it hang, they are ended from here: each only if it is the very
    process that was started, not another that got its number.
    """
    state = read_state(data_dir)
    if state is None:
        return []
    ended = ["supervisor"] if state.running else []
    ended += [process.name for process in state.processes if process.alive]
    end_all([state.supervisor], patience=patience)
    latest = read_state(data_dir) or state
    leftovers: set[ProcessIdentity] = {*state.leftovers, *latest.leftovers}
    end_all(leftovers, patience=10)
    if not is_locked(data_dir):
        forget_state(data_dir)
    return ended


async def supervise(settings: Settings) -> None:
    """Run the stack in this process until SIGTERM or SIGINT. A failure stands in the state for `up` and `status` to show."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # less than `up` waits, so that it hears which component it was
    stack = one_machine(settings, any_port=False, ui=settings.temporal_ui, patience=_PATIENCE_S - 30)
    starting = asyncio.create_task(stack.start())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            log.info("ready", **stack.urls)
            await stop.wait()
    except AlreadyRunningError:
        raise
    except StackError as error:
        await stack.stop()
        _leave_reason(settings.data_dir, str(error))
        raise
    finally:
        for task in (starting, stopping):
            task.cancel()
        await asyncio.gather(starting, stopping, return_exceptions=True)
        await stack.stop()


def _leave_reason(data_dir: Path, reason: str) -> None:
    myself = identify(os.getpid())
    if myself is not None:
        write_state(
            data_dir, StackState(phase="failed", supervisor=myself, since=datetime.now(UTC), error=reason)
        )
