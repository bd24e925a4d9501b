"""Runs components as processes of this machine: starts them in order, sees that they are ready, restarts what dies, ends them all.

    waiting ──after──▶ starting ──probe──▶ ready ──exit──▶ restarting ──backoff──▶ starting …
                          │                                     └── too often ──▶ failed
                          └── `once` components: exit 0 ──▶ done

Invariants:

- One supervisor per data folder (`StackLock`); what an earlier one left running is ended before anything starts.
- A child ends with its supervisor (`infra.launch`); it is signalled by identity, never by name, never by a number alone.
- A component that dies after it was ready is restarted at once, then with growing pauses; one that never becomes ready, or dies
  `RESTARTS` times within `WINDOW` seconds, is failed, and the reason with its last lines of log is in the state.
- `kill` and `restart` on purpose don't count.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog

from infra.processes import LAUNCHER, end_all, free_port, identify, port_is_free
from infra.settings import Settings
from infra.stack_state import (
    Phase,
    PortTakenError,
    ProcessState,
    StackError,
    StackLock,
    StackState,
    StartError,
    forget_state,
    read_state,
    write_state,
)
from infra.supervised import RESTARTS, Component, Runner, Site, exit_words, log_file

log = structlog.get_logger("stack")
WINDOW = 60.0
_LOG_BYTES = 20_000_000


class Stack:
    """A set of components on one data folder. Use it as an async context manager; inside, everything is ready.

    Args:
        settings: Data folder and wished ports; `Stack.settings` has the ports that were found.
        components: What to run.
        resolve: Makes the settings that components see from the given ones and the ports found.
        urls: Addresses to show, from the site.
        any_port: Take free ports instead of the wished ones (several stacks side by side: demo, tests).
        patience: Seconds that the start may take.
    """

    def __init__(
        self,
        settings: Settings,
        components: Sequence[Component],
        *,
        resolve: Callable[[Settings, Mapping[str, int]], Settings] = lambda settings, _ports: settings,
        urls: Callable[[Site], Mapping[str, str]] = lambda _site: {},
        any_port: bool = True,
        patience: float = 240.0,
    ) -> None:
        names = [component.name for component in components]
        if len(set(names)) != len(names) or any(set(c.after) - set(names) for c in components):
            raise StackError("components need names of their own, and may only wait for one another")
        self._settings = settings
        self._components = tuple(components)
        self._resolve, self._urls, self._any_port, self._patience = resolve, urls, any_port, patience
        self._lock = StackLock(settings.data_dir)
        self._runners: dict[str, Runner] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._failed = asyncio.Event()
        self._error = ""
        self._since = datetime.now(UTC)
        self._started_up = False
        self._site: Site | None = None

    # --- what it is

    @property
    def site(self) -> Site:
        """Settings and ports as they were found at the start."""
        if self._site is None:
            raise StackError("the stack was not started")
        return self._site

    @property
    def settings(self) -> Settings:
        """The settings with the ports that were found."""
        return self.site.settings

    @property
    def urls(self) -> dict[str, str]:
        """Addresses to show and to use."""
        return dict(self._urls(self.site))

    @property
    def state(self) -> StackState:
        """What a status would show now."""
        supervisor = identify(os.getpid())
        if supervisor is None:
            raise StackError("this process has no identity")
        return StackState(
            phase=self._phase(),
            supervisor=supervisor,
            since=self._since,
            urls=self.urls if self._site else {},
            error=self._error,
            processes=[self._process_state(runner) for runner in self._runners.values()],
        )

    def pid(self, name: str) -> int | None:
        """The process id of a component, None while it has no process."""
        identity = self._runner(name).identity
        return identity.pid if identity else None

    def log_path(self, name: str) -> Path:
        """The log file of a component."""
        return self._runner(name).log_path

    # --- life

    async def __aenter__(self) -> Self:
        """Start everything and wait until it is ready."""
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything."""
        await self.stop()

    async def start(self) -> None:
        """Start every component and wait until each is ready.

        Raises:
            AlreadyRunningError: another supervisor holds the data folder.
            PortTakenError: another program listens on a wished port.
            StartError: a component did not come up.
        """
        self._lock.acquire()
        data_dir = self._settings.data_dir
        earlier = read_state(data_dir)
        if earlier is not None and (ended := end_all(earlier.leftovers, patience=10)):
            log.warning("ended what an earlier stack left running", pids=[process.pid for process in ended])
        ports = self._find_ports()
        self._site = Site(self._resolve(self._settings, ports), ports)
        logs = data_dir / "logs"
        logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._runners = {c.name: Runner(c, logs / f"{c.name}.log") for c in self._components}
        self._save()
        self._tasks = [asyncio.create_task(self._supervise(runner)) for runner in self._runners.values()]
        await self.wait_ready(timeout=self._patience)
        self._started_up = True
        self._save()

    async def stop(self) -> None:
        """End every component, those that wait for others first; safe to repeat."""
        self._stopping = True
        if self._runners:
            self._save()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        for layer in self._layers():
            await asyncio.gather(*(self._end(runner) for runner in layer))
        if self._runners:
            self._runners = {}
            forget_state(self._settings.data_dir)
        self._lock.release()

    async def wait_ready(self, *names: str, timeout: float = 240.0) -> None:  # noqa: ASYNC109 - seconds, told in the error
        """Wait until these components, or all, are ready.

        Raises:
            StartError: one of them failed, or it took longer than `timeout` seconds.
        """
        runners = [self._runner(name) for name in names] if names else list(self._runners.values())
        ready = asyncio.gather(*(runner.ready.wait() for runner in runners))
        failed = asyncio.create_task(self._failed.wait())
        try:
            either: set[asyncio.Future[Any]] = {ready, failed}
            await asyncio.wait(either, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                return
            if self._failed.is_set():
                raise StartError(self._error)
            late = [runner for runner in runners if not runner.ready.is_set()]
            details = "\n".join(f"{r.component.name} ({r.log_path}):\n{r.last_lines()}" for r in late)
            raise StartError(f"not ready after {timeout:g} s: {details}")
        finally:
            failed.cancel()
            ready.cancel()
            await asyncio.gather(failed, ready, return_exceptions=True)

    async def wait_failed(self) -> str:
        """Wait until a component fails for good; the reason."""
        await self._failed.wait()
        return self._error

    async def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to a component on purpose and wait until its process is gone; the supervisor starts it again.

        Returns:
            The process id it had.
        """
        runner = self._runner(name)
        process = runner.process
        if process is None or process.returncode is not None:
            raise StackError(f"{name} has no process now ({runner.condition})")
        runner.ready.clear()
        runner.on_purpose = True
        with suppress(ProcessLookupError):
            process.send_signal(number)
        await process.wait()
        return process.pid

    async def restart(self, name: str) -> None:
        """End a component as `stop` would, and wait until its successor is ready."""
        runner = self._runner(name)
        runner.ready.clear()
        runner.on_purpose = True
        await self._end(runner)
        await self.wait_ready(name)

    # --- inside

    def _runner(self, name: str) -> Runner:
        try:
            return self._runners[name]
        except KeyError:
            raise StackError(f"no component {name!r}; there are: {', '.join(self._runners)}") from None

    def _find_ports(self) -> dict[str, int]:
        ports: dict[str, int] = {}
        for component in self._components:
            for name, wish in component.ports.items():
                if wish and not self._any_port:
                    if not port_is_free(wish):
                        raise PortTakenError(
                            f"port {wish}, wished for {name} of {component.name}, is taken by another program: end it, "
                            "or set another port (0 for any free one)"
                        )
                    ports[name] = wish
                    continue
                ports[name] = free_port()
                while ports[name] in [port for other, port in ports.items() if other != name]:
                    ports[name] = free_port()
        return ports

    async def _supervise(self, runner: Runner) -> None:
        component = runner.component
        for name in component.after:
            await self._runners[name].was_ready.wait()
        while not self._stopping:
            began = time.monotonic()
            await self._spawn(runner)
            reason = await self._until_gone(runner)
            if runner.condition == "done":
                return
            runner.ready.clear()
            if self._stopping:
                return
            pause = self._pause(runner, reason)
            if pause is None:
                return
            runner.condition, runner.note = "restarting", reason
            runner.restarts += 1
            self._save()
            log.warning(
                "restarting", component=component.name, reason=reason, ran=round(time.monotonic() - began, 1)
            )
            await asyncio.sleep(pause)

    def _pause(self, runner: Runner, reason: str) -> float | None:
        """Seconds until the next start; None when there is none, and the component failed."""
        if runner.on_purpose:
            runner.on_purpose = False
            return 0.0
        now = time.monotonic()
        runner.deaths.append(now)
        recent = [death for death in runner.deaths if now - death < WINDOW]
        limit = 2 if not runner.was_ready.is_set() else RESTARTS
        if runner.component.once or len(recent) >= limit:
            runner.condition, runner.note = "failed", reason
            self._error = (
                f"{runner.component.name} failed: {reason}; {len(recent)} times in the last {WINDOW:.0f} s. "
                f"Its log ({runner.log_path}) ends with:\n{runner.last_lines()}"
            )
            self._failed.set()
            self._save()
            log.error("component failed", component=runner.component.name, reason=reason)
            return None
        return float(min(0.1 * 2 ** (len(recent) - 1), 5.0))

    async def _spawn(self, runner: Runner) -> None:
        component, site = runner.component, self.site
        with suppress(OSError):
            if runner.log_path.stat().st_size > _LOG_BYTES:
                runner.log_path.replace(runner.log_path.with_suffix(".log.1"))
        parent = ":".join(map(str, (os.getpid(), *(component.user or ()))))
        launcher = (sys.executable, "-I", "-S", str(LAUNCHER), parent)
        with log_file(runner.log_path) as output:
            runner.process = await asyncio.create_subprocess_exec(
                *launcher,
                *component.command(site),
                env=dict(component.environment(site)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,  # a Ctrl-C at the terminal is for the supervisor
            )
        runner.identity = identify(runner.process.pid)
        runner.condition = "starting"
        self._save()

    async def _until_gone(self, runner: Runner) -> str:
        """Probe until ready, then wait for the end; why it ended."""
        process, component = runner.process, runner.component
        if process is None:
            raise StackError(f"{component.name} was not started")
        gone = asyncio.create_task(process.wait())
        try:
            if component.once:
                code = await asyncio.wait_for(asyncio.shield(gone), component.start_seconds)
                if code == 0:
                    runner.condition = "done"
                    self._is_ready(runner)
                return f"ended with {exit_words(code)}"
            if not await self._probe(runner, gone) and not gone.done():
                await self._end(runner)
                return f"not ready after {component.start_seconds:g} s"
            if not gone.done():
                runner.condition = "ready"
                self._is_ready(runner)
            return f"ended with {exit_words(await gone)}"
        except TimeoutError:
            await self._end(runner)
            return f"not done after {component.start_seconds:g} s"
        finally:
            if not gone.done():
                gone.cancel()
                await asyncio.gather(gone, return_exceptions=True)

    def _is_ready(self, runner: Runner) -> None:
        runner.note = ""
        runner.ready.set()
        runner.was_ready.set()
        self._save()
        log.info("ready", component=runner.component.name, pid=runner.process.pid if runner.process else None)

    async def _probe(self, runner: Runner, gone: asyncio.Task[int]) -> bool:
        deadline = time.monotonic() + runner.component.start_seconds
        while time.monotonic() < deadline and not gone.done():
            try:
                async with asyncio.timeout(5):
                    if runner.component.ready is None or await runner.component.ready(self.site):
                        return not gone.done()
            except Exception as error:  # noqa: BLE001 - whatever a probe says, it means: not yet
                runner.note = f"{type(error).__name__}: {error}"[:200]
            await asyncio.wait({gone}, timeout=0.05)
        return False

    async def _end(self, runner: Runner) -> None:
        process = runner.process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(runner.component.stop_signal)
        try:
            await asyncio.wait_for(process.wait(), runner.component.stop_seconds)
        except TimeoutError:
            log.warning("did not end in time, killed", component=runner.component.name)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # not collected yet, so the number is still its own
            await process.wait()
        runner.condition = "stopped"

    def _layers(self) -> list[list[Runner]]:
        """Runners in the order in which they may end: each before those it waits for."""
        left, layers = dict(self._runners), []
        while left:
            needed = {name for runner in left.values() for name in runner.component.after}
            layer = [runner for name, runner in left.items() if name not in needed] or list(left.values())
            layers.append(layer)
            for runner in layer:
                del left[runner.component.name]
        return layers

    def _phase(self) -> Phase:
        if self._stopping:
            return "stopping"
        if self._error:
            return "failed"
        if all(runner.ready.is_set() for runner in self._runners.values()) and self._runners:
            return "ready"
        return "degraded" if self._started_up else "starting"

    def _process_state(self, runner: Runner) -> ProcessState:
        ports = {name: self.site.ports[name] for name in runner.component.ports}
        return ProcessState(
            name=runner.component.name,
            condition=runner.condition,
            process=runner.identity,
            ports=ports,
            restarts=runner.restarts,
            log=runner.log_path,
            note=runner.note,
        )

    def _save(self) -> None:
        try:
            write_state(self._settings.data_dir, self.state)
        except OSError as error:
            # a full disk, say: components are looked after all the same, and the next change is written again
            log.warning("the state of the stack could not be written", why=str(error))
