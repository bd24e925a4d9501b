"""Processes by identity: a process id is used again sooner or later, its id together with its start is not."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict

LAUNCHER = Path(__file__).with_name("launch.py")


class ProcessIdentity(BaseModel):
    """A process of this machine, never mistaken for another one that got its id later, or after a restart of the machine."""

    model_config = ConfigDict(frozen=True)

    pid: int
    started: str

    @property
    def alive(self) -> bool:
        """Whether exactly this process still runs."""
        return _started(self.pid) == self.started

    def signal(self, number: signal.Signals) -> bool:
        """Send the signal if exactly this process still runs; whether it did."""
        if not self.alive:
            return False
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)
        return True


def identify(pid: int) -> ProcessIdentity | None:
    """The identity of a running process; None when there is none, or it ended and waits to be collected."""
    started = _started(pid)
    return ProcessIdentity(pid=pid, started=started) if started else None


def _started(pid: int) -> str | None:
    if sys.platform != "linux":
        command = ["/bin/ps", "-o", "lstart=", "-p", str(pid)]
        shown = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a number
        return shown.stdout.strip() or None
    try:
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except OSError:
        return None
    state, ticks_since_boot = fields[0], fields[19]
    if state in {"Z", "X"}:
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}/{ticks_since_boot}"


#: Below what Linux gives to outgoing connections (32768 on), above where servers of the machine are likely.
_FROM, _BELOW = 15_000, 32_000


def end_all(processes: Iterable[ProcessIdentity], *, patience: float) -> list[ProcessIdentity]:
    """SIGTERM to each, SIGKILL to those that still run after `patience` seconds; returns those that did run."""
    ended = [process for process in processes if process.signal(signal.SIGTERM)]
    deadline = time.monotonic() + patience
    while any(process.alive for process in ended) and time.monotonic() < deadline:
        time.sleep(0.02)
    for process in ended:
        process.signal(signal.SIGKILL)
    while any(process.alive for process in ended):
        time.sleep(0.02)
    return ended


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on at this moment, and that the kernel gives to no outgoing connection before it is used."""
    for _ in range(100):
        port = secrets.randbelow(_BELOW - _FROM) + _FROM
        if port_is_free(port, host):
            return port
    raise OSError(f"no free port on {host} between {_FROM} and {_BELOW} was found in 100 tries")


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on that port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
        return True
