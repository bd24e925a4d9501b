"""What a running stack leaves on disk so that others find it: `run/stack.json`, and a lock that the kernel gives back.

The lock says whether a supervisor runs: it goes with its process, also after kill -9 or a power cut. The file says where and what; it
is believed only process by process (`infra.processes`).

Errors:

    StackError
    ├── AlreadyRunningError   another supervisor holds this data folder
    ├── PortTakenError        another program listens where the stack should
    └── StartError            a component did not come up; the text ends with its last lines
"""

from __future__ import annotations

import fcntl
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from infra.processes import ProcessIdentity

Phase = Literal["starting", "ready", "degraded", "stopping", "failed"]
Condition = Literal["waiting", "starting", "ready", "restarting", "done", "failed", "stopped"]


class StackError(Exception):
    """The stack can't do what was asked."""


class AlreadyRunningError(StackError):
    """Another supervisor holds this data folder."""


class PortTakenError(StackError):
    """Another program listens where the stack should."""


class StartError(StackError):
    """A component did not come up."""


class ProcessState(BaseModel):
    """One component as its supervisor saw it last."""

    model_config = ConfigDict(frozen=True)

    name: str
    condition: Condition
    process: ProcessIdentity | None = None
    ports: dict[str, int] = Field(default_factory=dict)
    restarts: int = 0
    log: Path
    note: str = ""

    @property
    def alive(self) -> bool:
        """Whether its process runs at this moment."""
        return self.process is not None and self.process.alive


class StackState(BaseModel):
    """A stack as its supervisor saw it last."""

    model_config = ConfigDict(frozen=True)

    phase: Phase
    supervisor: ProcessIdentity
    since: datetime
    urls: dict[str, str] = Field(default_factory=dict)
    processes: list[ProcessState] = Field(default_factory=list)
    error: str = ""

    @property
    def running(self) -> bool:
        """Whether its supervisor runs at this moment."""
        return self.supervisor.alive

    @property
    def ready(self) -> bool:
        """Whether it runs, every component is ready, and every process is really there."""
        return self.running and self.phase == "ready"

    @property
    def leftovers(self) -> list[ProcessIdentity]:
        """Processes of components that still run."""
        return [
            state.process for state in self.processes if state.process is not None and state.process.alive
        ]


def run_folder(data_dir: Path) -> Path:
    """Where state and lock of a stack on that data folder are."""
    return data_dir / "run"


def read_state(data_dir: Path) -> StackState | None:
    """The last state written, or None when there is none that can be read."""
    try:
        return StackState.model_validate_json((run_folder(data_dir) / "stack.json").read_bytes())
    except (OSError, ValidationError):  # a torn file after a power cut says nothing
        return None


def write_state(data_dir: Path, state: StackState) -> None:
    """Replace the state in one step."""
    target = run_folder(data_dir) / "stack.json"
    temporary = target.with_suffix(".new")
    temporary.write_text(state.model_dump_json(indent=2), encoding="utf-8")
    temporary.replace(target)


def forget_state(data_dir: Path) -> None:
    """Remove the state of a stack that ended."""
    (run_folder(data_dir) / "stack.json").unlink(missing_ok=True)


def status(data_dir: Path) -> StackState | None:
    """What runs on that data folder now; None when nothing does and nothing is left over."""
    state = read_state(data_dir)
    if state is None or not (state.running or state.leftovers or state.phase == "failed"):
        return None
    return state


class StackLock:
    """Held by the one supervisor of a data folder, for as long as its process lives."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._descriptor: int | None = None

    def acquire(self) -> Self:
        """Take the lock.

        Raises:
            AlreadyRunningError: another process has it; the text says which, and where its API is.
        """
        run_folder(self._data_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(
            run_folder(self._data_dir) / "stack.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        for attempt in range(10):  # `is_locked` in another process holds it for a moment
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                time.sleep(0.02 * (attempt < 9))
            else:
                self._descriptor = descriptor
                return self
        os.close(descriptor)
        raise AlreadyRunningError(_who_runs(self._data_dir))

    def release(self) -> None:
        """Give it back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_locked(data_dir: Path) -> bool:
    """Whether a supervisor runs on that data folder."""
    if not (run_folder(data_dir) / "stack.lock").exists():
        return False
    lock = StackLock(data_dir)
    try:
        lock.acquire()
    except AlreadyRunningError:
        return True
    lock.release()
    return False


def _who_runs(data_dir: Path) -> str:
    state = read_state(data_dir)
    text = f"a stack already runs on {data_dir}"
    if state is not None and state.running:
        text += f" (process {state.supervisor.pid}, since {state.since:%Y-%m-%d %H:%M:%S} UTC"
        text += f", {state.urls['api']})" if "api" in state.urls else ")"
    return text + "; use it, end it with `sluice down`, or choose another SLUICE_DATA_DIR"
