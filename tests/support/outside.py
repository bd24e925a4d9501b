"""The effects of releases whose events lie in real records: what transfer and custody do, without a store and without keys."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sqlalchemy import Engine
from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker

from orchestrator.contracts import messages as msg
from orchestrator.contracts import names
from orchestrator.domain.state import ReleaseState
from orchestrator.records import database, releases
from tests.support.world import World

ANNOUNCE = "announce"


@dataclass
class Outside(World):
    """The effects of releases whose events lie in real records. `gates[release]` lets a publication wait."""

    engine: Engine | None = None
    announced: Counter[str] = field(default_factory=Counter)
    gates: dict[str, threading.Event] = field(default_factory=dict)
    publishing: set[str] = field(default_factory=set)

    def state(self, release: str) -> ReleaseState:
        if self.engine is None:
            return World.state(self, release)
        with database.reading(self.engine) as session:
            return releases.load(session, release)

    @property
    def more(self) -> list[object]:
        return [self.announce]

    def inside(self, release: str) -> bool:
        state = self.state(release)
        return state.current == "inside" and state.entry is None

    @activity.defn(name=names.PUBLISH_STEP)
    def publish_step(self, request: msg.StepRequest) -> msg.Published:
        self.publishing.add(request.release)
        gate = self.gates.get(request.release)
        while gate is not None and not gate.wait(1):
            activity.heartbeat()
        return World.publish_step(self, request)

    @activity.defn(name=ANNOUNCE)
    def announce(self, release: str) -> None:
        self.announced[release] += 1


@asynccontextmanager
async def outside(client: Client, world: Outside) -> AsyncIterator[None]:
    """Transfer and custody, which are no workflows and have no versions."""
    with ThreadPoolExecutor(8) as threads:
        transfer = Worker(
            client,
            task_queue=names.QUEUE_TRANSFER,
            activities=[world.publish_step, world.apply_access, world.announce],
            activity_executor=threads,
        )
        custody = Worker(
            client,
            task_queue=names.QUEUE_CUSTODY,
            activities=[world.make_envelopes],
            activity_executor=threads,
        )
        async with transfer, custody:
            yield
