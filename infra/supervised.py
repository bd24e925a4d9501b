"""What a supervisor looks after: a component, the site that it runs on, and its process as it is now."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import structlog

from infra.processes import ProcessIdentity
from infra.settings import Settings
from infra.settings_parts.place import PREFIX
from infra.stack_state import Condition

log = structlog.get_logger("stack")
RESTARTS = 10
_LAST_LINES = 12


@dataclass(frozen=True)
class Site:
    """Where a component runs: the settings with the ports that were found, and all ports by name."""

    settings: Settings
    ports: Mapping[str, int]

    @property
    def data_dir(self) -> Path:
        """The stack's folder."""
        return self.settings.data_dir


@dataclass(frozen=True)
class Component:
    """One process of a stack.

    Attributes:
        name: Its name, also of its log file.
        command: The program and its arguments; the program is an absolute path.
        environment: The whole environment of the process.
        ready: Whether it serves now; called again and again while it starts. Raising means no.
        ports: Port name → the port it would like, 0 for any. Names are unique over the stack.
        after: Components that must be ready before this one starts.
        once: It does its work and ends with 0 (a migration), instead of serving.
        start_seconds: How long it may take to become ready. One that dies meanwhile is seen at once, so a slow machine gets its time.
        stop_seconds: How long it may finish its work after the signal.
        stop_signal: What tells it to end.
        user: User and group id to run as; None: as the supervisor does.
    """

    name: str
    command: Callable[[Site], Sequence[str]]
    environment: Callable[[Site], Mapping[str, str]] = lambda _site: base_environment()
    ready: Callable[[Site], Awaitable[bool]] | None = None
    ports: Mapping[str, int] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    once: bool = False
    start_seconds: float = 180.0
    stop_seconds: float = 12.0
    stop_signal: signal.Signals = signal.SIGTERM
    user: tuple[int, int] | None = None


def base_environment() -> dict[str, str]:
    """This process's environment without any `SLUICE_…` of its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


class Runner:
    """One component while it runs."""

    def __init__(self, component: Component, log_path: Path) -> None:
        self.component = component
        self.log_path = log_path
        self.condition: Condition = "waiting"
        self.process: asyncio.subprocess.Process | None = None
        self.identity: ProcessIdentity | None = None
        self.ready = asyncio.Event()
        self.was_ready = asyncio.Event()
        self.restarts = 0
        self.on_purpose = False
        self.deaths: deque[float] = deque(maxlen=RESTARTS)
        self.note = ""

    def last_lines(self) -> str:
        """The end of its log."""
        with suppress(OSError), self.log_path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            lines = file.read().decode("utf-8", "replace").splitlines()[-_LAST_LINES:]
            return "\n".join(f"    {line}" for line in lines)
        return ""


def log_file(path: Path) -> BinaryIO:
    """The log file to append to; the null device where there is no room for one."""
    try:
        return path.open("ab")
    except OSError as error:
        log.warning(
            "a log file could not be opened, its component runs without", file=str(path), why=str(error)
        )
        return Path(os.devnull).open("ab")


def exit_words(code: int) -> str:
    """How a process ended, in words."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
