"""Does one fault after the other to a scene, at moments drawn from a seed, until it is told to end or has done enough."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from infra.faults.link import Link, Mode
from infra.faults.scene import Scene
from infra.processes import identify
from infra.stack_state import StackError

#: How often each kind is drawn, beside the others that the scene can do.
_WEIGHTS = {
    "kill": 6,
    "pause": 4,
    "restart": 2,
    "cut": 3,
    "refused": 2,
    "slow": 2,
    "half-open": 2,
    "lost": 3,
    "5xx": 3,
    "5xx after": 3,
    "full disk": 2,
    "clock": 3,
    "versions": 1,
}
_HTTP_ONLY = ("5xx", "5xx after")
_HURRIED = 0.15
#: Seconds that custody's clock may be ahead: an entry that it sees then counts as that much later.
_AHEAD = 10.0
#: Beyond this the signatures' tolerance ends (five minutes), and custody has to refuse its own clock.
_FAR_BACK = 3600.0
_OFF = 200.0
#: Seconds that an answer to be spoiled is waited for, where nobody asks (S3 is asked seldom).
_SOMEBODY_ASKS_S = 8.0
#: Seconds in which everything has to be ready again after a fault.
_BACK_S = 600.0


@dataclass
class Injector:
    """Disturbs one scene.

    Attributes:
        scene: it runs and is ready.
        rng: draws moments, kinds and targets.
        most: how many faults at most.
        longest: seconds that a fault may last, and between two faults.
        only: the kinds that are drawn; None: every kind that the scene can do.
        counts: faults done, by kind and target.
        log: each of them.
    """

    scene: Scene
    rng: random.Random
    most: int
    longest: float = 1.5
    only: frozenset[str] | None = None
    counts: Counter[str] = field(default_factory=Counter)
    log: list[dict[str, object]] = field(default_factory=list)

    @property
    def done(self) -> int:
        """How many faults were done."""
        return self.counts.total()

    async def run(self) -> None:
        """Disturb until cancelled or enough; everything behaves afterwards, and every process runs on.

        Raises:
            StartError: the stack did not become ready again after a fault.
        """
        kinds = self._kinds()
        names = list(kinds)
        weights = [_WEIGHTS[name] for name in names]
        while self.done < self.most:
            await asyncio.sleep(self.rng.uniform(0.05, self.longest))
            (kind,) = self.rng.choices(names, weights)
            await kinds[kind]()

    def _kinds(self) -> dict[str, Callable[[], Awaitable[None]]]:
        scene = self.scene
        kinds: dict[str, Callable[[], Awaitable[None]]] = {"kill": self._kill, "pause": self._pause}
        if scene.servers:
            kinds["restart"] = self._restart
        if scene.links:
            kinds["cut"] = self._cut
            modes: tuple[Mode, ...] = ("refused", "slow", "half-open", "lost")
            for mode in modes:
                kinds[mode] = self._link_fault(mode, list(scene.links.values()))
            spoken = [link for link in scene.links.values() if link.http]
            if spoken:
                kinds |= {mode: self._link_fault(mode, spoken) for mode in ("5xx", "5xx after")}
        if scene.disks:
            kinds["full disk"] = self._full_disk
        if scene.clocks is not None:
            kinds["clock"] = self._clock
        if scene.versions is not None:
            kinds["versions"] = self._versions
        return {name: do for name, do in kinds.items() if self.only is None or name in self.only}

    # --- processes

    async def _kill(self) -> None:
        target = self.rng.choice(self.scene.processes)
        hurried = self.rng.random() < _HURRIED
        if await self.kill(target) and not hurried:
            await self.scene.stack.wait_ready(timeout=_BACK_S)

    async def kill(self, target: str) -> bool:
        """Kill -9 a process now; False if it is between two lives: nothing was done then, nothing is counted."""
        try:
            await self.scene.stack.kill(target)
        except StackError:
            return False
        self._count("kill", target)
        return True

    async def _pause(self) -> None:
        target = self.rng.choice(self.scene.processes)
        length = self.rng.uniform(0.2, self.longest)
        pid = self.scene.stack.pid(target)
        identity = None if pid is None else identify(pid)
        if identity is None or not identity.signal(signal.SIGSTOP):
            return
        try:
            self._count("pause", target, length)
            await asyncio.sleep(length)
        finally:
            identity.signal(signal.SIGCONT)

    async def _restart(self) -> None:
        target = self.rng.choice(self.scene.servers)
        try:
            await self.scene.stack.restart(target)
        finally:
            self._count("restart", target)
        await self.scene.stack.wait_ready(timeout=_BACK_S)

    # --- connections

    async def _cut(self) -> None:
        link = self.rng.choice(list(self.scene.links.values()))
        if link.cut():
            self._count("cut", link.name)

    def _link_fault(self, mode: Mode, links: list[Link]) -> Callable[[], Awaitable[None]]:
        async def misbehave() -> None:
            link = self.rng.choice(links)
            length = self.rng.uniform(0.3, self.longest)
            delay = self.rng.uniform(0.05, 0.3)
            before = link.spoiled
            spoils = mode in {"lost", *_HTTP_ONLY}
            with link.misbehaving(mode, delay):
                await asyncio.sleep(length)
                waited = 0.0
                while spoils and link.spoiled == before and waited < _SOMEBODY_ASKS_S:
                    await asyncio.sleep(0.1)
                    waited += 0.1
            if spoils and link.spoiled == before:
                return  # nobody asked anything meanwhile: nothing was lost
            self._count(mode, link.name, length)

        return misbehave

    # --- machines

    async def _full_disk(self) -> None:
        name = self.rng.choice(list(self.scene.disks))
        length = self.rng.uniform(0.3, self.longest)
        await self._for_a_while(self.scene.disks[name].full(), length)
        self._count("full disk", name, length)
        await self.scene.stack.wait_ready(timeout=_BACK_S)

    async def _clock(self) -> None:
        clocks = self.scene.clocks
        assert clocks is not None
        name = self.rng.choice(list(clocks.off))
        length = self.rng.uniform(1.1, 1.1 + self.longest)
        of_custody = ((-_FAR_BACK, -_OFF), (-_AHEAD, 0.0), (0.0, _AHEAD))
        reach = of_custody if name == "worker-custody" else ((-_OFF, 0.0), (0.0, _OFF))
        step = self.rng.uniform(*self.rng.choice(reach))
        clocks.set(name, step)
        try:
            await asyncio.sleep(length)
        finally:
            clocks.set(name, 0.0)
        self._count("clock ahead" if step > 0 else "clock back", name, length, step=round(step, 1))

    async def _versions(self) -> None:
        versions = self.scene.versions
        assert versions is not None
        if await versions.swap():
            self._count("other version current", versions.current)

    async def _for_a_while(self, fault: AbstractContextManager[None], length: float) -> None:
        with fault:
            await asyncio.sleep(length)

    def _count(self, kind: str, target: str, length: float = 0.0, **more: object) -> None:
        self.counts[f"{kind} {target}"] += 1
        told: dict[str, object] = {"at": round(time.time(), 3), "kind": kind, "target": target, **more}
        self.log.append(told | ({"seconds": round(length, 3)} if length else {}))
