"""The schedules of the sweeps: one per release, for as long as anything of it is withheld.

They follow from the records alone: whoever looks at them makes what is missing and removes what is not needed any more, so that a
crash, a lost schedule and two workers at once all end in the same schedules.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from sqlalchemy import Engine
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
)
from temporalio.service import RPCError

from activities.scheduling import have, have_none
from orchestrator.contracts import names
from orchestrator.contracts.leak_messages import SweepInput
from orchestrator.domain.errors import NotFound, SluiceError
from orchestrator.domain.leaks import watched_artifacts
from orchestrator.records import event_log, releases, spreading
from orchestrator.records.database import reading

_log = structlog.get_logger("leaks")
_PREFIX = names.leak_schedule_id("")
_ALL_AGAIN = 300.0


@dataclass
class Schedules:
    """Keeps the schedules as the records say.

    Attributes:
        engine: of the records.
        client: of Temporal.
        every: between two sweeps of a release.
        most_scans: of one sweep.
        at_once: scans that a sweep runs side by side.
        look: seconds between two looks at the records.
    """

    engine: Engine
    client: Client
    every: timedelta
    most_scans: int = 200
    at_once: int = 4
    look: float = 2.0
    _task: asyncio.Task[None] | None = field(default=None, repr=False)
    _seen: int = -1
    _made: set[str] = field(default_factory=set)

    def start(self) -> None:
        """Keep them until `stop`."""
        self._task = asyncio.create_task(self._run(), name="leak-schedules")

    async def stop(self) -> None:
        """End, and wait."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = 0.0
        while True:
            try:
                if loop.time() >= due:
                    await self.reconcile()
                    due = loop.time() + _ALL_AGAIN
                else:
                    await self.follow()
            except (RPCError, SluiceError) as error:
                due = 0.0
                _log.warning("the sweeps' schedules could not be looked after", why=str(error))
            await asyncio.sleep(self.look)

    async def reconcile(self) -> None:
        """Make all schedules as the records say, and remove those of releases that need none."""
        self._seen, wanted = await asyncio.to_thread(self._watched)
        self._made.clear()
        for release in wanted:
            await self.ensure(release, wanted=True)
        async for listed in await self.client.list_schedules():
            release = listed.id.removeprefix(_PREFIX)
            if listed.id.startswith(_PREFIX) and release not in wanted:
                await self.ensure(release, wanted=False)

    async def follow(self) -> None:
        """The same for releases that something happened to."""
        last, changed = await asyncio.to_thread(self._changed)
        for release, wanted in changed.items():
            if not wanted or release not in self._made:
                await self.ensure(release, wanted=wanted)
        self._seen = last

    async def ensure(self, release: str, *, wanted: bool) -> None:
        """Have the schedule of a release, or have none; safe to repeat."""
        schedule_id = names.leak_schedule_id(release)
        if not wanted:
            self._made.discard(release)
            if await have_none(self.client, schedule_id):
                _log.info("nothing is withheld any more; the sweeps end", release=release)
            return
        self._made.add(release)
        if await have(self.client, schedule_id, self._schedule(release)):
            _log.info("sweeps begin", release=release)

    def _schedule(self, release: str) -> Schedule:
        start = SweepInput(release=release, most_scans=self.most_scans, at_once=self.at_once)
        return Schedule(
            action=ScheduleActionStartWorkflow(
                names.LEAK_SWEEP_WORKFLOW,
                start,
                id=names.leak_schedule_id(release),
                task_queue=names.QUEUE_RELEASES,
                execution_timeout=timedelta(hours=12),
            ),
            spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=self.every)]),
            policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=timedelta(minutes=1)),
        )

    def _watched(self) -> tuple[int, set[str]]:
        with reading(self.engine) as session:
            last = event_log.last_event(session)
            return last, {s.release for s in spreading.all_going(session) if watched_artifacts(s)}

    def _changed(self) -> tuple[int, dict[str, bool]]:
        with reading(self.engine) as session:
            last = event_log.last_event(session)
            found: dict[str, bool] = {}
            for release in event_log.changed(session, self._seen) if last > self._seen else []:
                with suppress(NotFound):
                    found[release] = bool(watched_artifacts(releases.load(session, release)))
        return last, found
