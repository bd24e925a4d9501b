"""One disturbed release: a scene, a story told on it, faults meanwhile, and every check afterwards."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import httpx
import numpy as np
from safetensors.numpy import save_file

from artifacts.errors import ArtifactError
from infra.demo_cast import PATIENCE_S, Pace, Voice
from infra.demo_story import Story
from infra.demo_telling import Model, StoryError
from infra.faults.checks import check_acknowledged, check_release
from infra.faults.counting import Checks
from infra.faults.delivery import Deliveries
from infra.faults.injector import Injector
from infra.faults.model import ended, heard
from infra.faults.scene import Scene
from infra.stack_state import StackError
from infra.temporal import TemporalError
from orchestrator.cli import client
from orchestrator.cli.client import JSON
from orchestrator.cli.failures import Failure

T = TypeVar("T")
#: The turn of the story → which process is killed then, and after how many seconds.
Kills = Mapping[str, tuple[str, float]]
Making = Callable[[Path], AbstractAsyncContextManager[Scene]]


@dataclass
class PatientStory(Story):
    """The demo's story with people and pipelines that try again what has no key of its own; `again` counts it by kind."""

    again: Counter[str] = field(default_factory=Counter)

    def _reported(self, address: str) -> None:
        self._until_done("a report", lambda: super(PatientStory, self)._reported(address))

    def _seal_weights(self, pipeline: Voice) -> str:
        return self._until_done("a sealing", lambda: super(PatientStory, self)._seal_weights(pipeline))

    def _public_opens(self, artifacts: Any) -> JSON:
        def opened() -> JSON:
            shutil.rmtree(self.folder / "public" / "copy", ignore_errors=True)
            return super(PatientStory, self)._public_opens(artifacts)

        return self._until_done("a public opening", opened)

    def _taken_back(self, step: str, why: str) -> None:
        """A release manager asks for another try, as the console offers."""
        self.again[f"entry of {step}"] += 1
        self.cast["rosa"].post("releases", self.release, "steps", step, "retry", body={})

    def _until_done(self, what: str, call: Callable[[], T]) -> T:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return call()
            except (httpx.TransportError, StoryError, ArtifactError, OSError):
                if time.monotonic() > deadline:
                    raise
                self.again[what] += 1
                time.sleep(0.3)


@dataclass
class Outcome:
    """What came of one release. `faults`, `deliveries` and `again`: kind → times; `story`: who took part, with their keys."""

    seed: str
    seconds: float = 0.0
    ready_after: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    deliveries: Counter[str] = field(default_factory=Counter)
    again: Counter[str] = field(default_factory=Counter)
    checks: Checks = field(default_factory=Checks)
    log: list[dict[str, object]] = field(default_factory=list)
    left_out: tuple[str, ...] = ()
    summary: dict[str, Any] | None = None
    story: PatientStory | None = field(default=None, repr=False)


def small_model(folder: Path) -> Model:
    """Weights of 3 MB and three small files, always the same."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(7)
    tensors = {f"layer.{i}.weight": generator.normal(size=(256, 512)).astype(np.float32) for i in range(6)}
    save_file(tensors, folder / "model.safetensors")
    for name, text in {
        "tokenizer.json": '{"words": ["a", "b"]}',
        "config.json": '{"layers": 6}',
        "README.md": "# A small model\n",
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
    small = {name: folder / name for name in ("tokenizer.json", "config.json", "README.md")}
    patterns = {"tokenizer": ["tokenizer.json"], "config": ["config.json"], "model-card": ["README.md"]}
    return Model(folder / "model.safetensors", small, patterns)


async def disturbed_release(
    making: Making,
    folder: Path,
    seed: str,
    most: int,
    *,
    pace: Pace,
    longest: float = 1.5,
    only: frozenset[str] | None = None,
    kills: Kills = MappingProxyType({}),
) -> Outcome:
    """One release on a scene of its own, with at most `most` faults; what was done, and what did not hold.

    Args:
        making: the scene.
        folder: an empty folder for everything of it.
        seed: of moments, kinds, targets and deliveries; the machine's own timing is not in it.
        most: how many faults at most.
        pace: the research windows.
        longest: seconds that a fault may last, and between two faults.
        only: the kinds of faults that are drawn; None: all that the scene can do.
        kills: processes that are killed at turns of the story, beside what the seed draws.
    """
    model = small_model(folder / "model")
    outcome = Outcome(seed)
    began = time.monotonic()
    deliveries = Deliveries(random.Random(f"{seed}/deliveries"))  # noqa: S311 - a schedule, not a secret
    before, client.TRANSPORT = client.TRANSPORT, deliveries
    try:
        async with making(folder) as scene:
            outcome.ready_after, outcome.left_out = time.monotonic() - began, scene.left_out
            with _credentials(scene):
                # the seed's schedule, not a secret
                injector = Injector(scene, random.Random(seed), most, longest, only)  # noqa: S311
                await _told(injector, kills, folder, model, deliveries, outcome, pace=pace)
            if outcome.checks.violations:
                await asyncio.to_thread(_keep, scene, folder)
    except StackError as error:
        outcome.checks.that(False, f"the stack did not come up: {error}"[:1500])
    finally:
        client.TRANSPORT = before
        deliveries.end()
    outcome.seconds = time.monotonic() - began
    return outcome


async def _told(
    injector: Injector,
    kills: Kills,
    folder: Path,
    model: Model,
    deliveries: Deliveries,
    outcome: Outcome,
    *,
    pace: Pace,
) -> None:
    scene = injector.scene
    settings = scene.stack.settings
    loop, gathered = asyncio.get_running_loop(), asyncio.Event()

    async def killed(target: str, after: float) -> None:
        await asyncio.sleep(after)
        await injector.kill(target)

    def moment(name: str) -> None:  # in the story's own thread
        loop.call_soon_threadsafe(gathered.set)
        if name in kills:
            target, after = kills[name]
            done = asyncio.run_coroutine_threadsafe(killed(target, after), loop)
            if after == 0:
                done.result(30)

    # before the story's first turn people get their tokens, whose text is shown once and lost with its answer
    story = PatientStory(
        settings,
        scene.stack.urls["api"],
        folder,
        model,
        pace=pace,
        moment=moment,
        shares=2,
    )
    outcome.story = story

    async def disturb() -> None:
        await gathered.wait()
        await injector.run()

    telling = asyncio.create_task(asyncio.to_thread(story.tell))
    disturbing = asyncio.create_task(disturb())
    broken: BaseException | None = None
    try:
        await asyncio.wait({telling, disturbing}, return_when=asyncio.FIRST_COMPLETED)
        if disturbing.done():
            disturbing.result()
        outcome.summary = await telling
    except (
        StoryError, StackError, TemporalError, Failure, TimeoutError, httpx.HTTPError, ArtifactError, OSError
    ) as error:  # fmt: skip
        broken = error
        outcome.checks.that(False, f"the story broke: {type(error).__name__}: {error}"[:1500])
    finally:
        disturbing.cancel()
        with suppress(asyncio.CancelledError, StackError):
            await disturbing
        outcome.faults, outcome.log, outcome.again = injector.counts, injector.log, story.again
        outcome.deliveries = deliveries.counts
    if isinstance(broken, StackError):
        telling.cancel()
        return
    try:
        await scene.stack.wait_ready(timeout=600)
        if outcome.summary is not None:
            outcome.checks.that(
                await ended(settings, story.release, patience=PATIENCE_S),
                "the release's workflow did not end",
            )
        found = await heard(settings, story.release)
    except (StackError, TemporalError) as error:
        outcome.checks.that(False, f"the stack did not come back: {error}"[:1500])
        return
    checks = await asyncio.to_thread(
        check_release,
        settings,
        story.release,
        folder,
        model,
        arrived=found,
        completed=outcome.summary is not None,
        slack=0.0 if scene.clocks is None else scene.clocks.furthest,
    )
    check_acknowledged(deliveries.acknowledged, found, checks)
    outcome.checks.made += checks.made + deliveries.counts["twice"] + deliveries.counts["late"]
    outcome.checks.violations += checks.violations + deliveries.violations


@contextmanager
def _credentials(scene: Scene) -> Iterator[None]:
    """The pipeline's and the public's credentials for the store, in this process's environment while the story is told."""
    before = {name: os.environ.get(name) for name in scene.environment}
    os.environ.update(scene.environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _keep(scene: Scene, folder: Path) -> None:
    """What lies on disks that go with the scene, so that a violation can be looked into."""
    for name, disk in scene.disks.items():
        with suppress(OSError, shutil.Error):
            shutil.copytree(disk.place, folder / "kept" / name)
