"""The schedule of the Hub sweep: one per deployment, there as long as its store is a Hub.

A sweep that is still running is not doubled (overlap SKIP); sweeps missed in an outage are not made up for, the next looks anyway.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.contracts import names
from orchestrator.contracts.messages import SweepHub


async def keep_schedule(client: Client, every: timedelta | None) -> None:
    """Have the schedule with that interval, or have none; safe to repeat, and by two workers at once."""
    handle = client.get_schedule_handle(names.HUB_SCHEDULE_ID)
    if every is None:
        try:
            await handle.delete()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
        return
    wanted = Schedule(
        action=ScheduleActionStartWorkflow(
            names.HUB_SWEEP_WORKFLOW,
            SweepHub(),
            id=names.HUB_SCHEDULE_ID,
            task_queue=names.QUEUE_RELEASES,
            execution_timeout=timedelta(hours=1),
        ),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=timedelta(minutes=1)),
    )

    def changed(given: ScheduleUpdateInput) -> ScheduleUpdate | None:
        same = given.description.schedule.spec.intervals == wanted.spec.intervals
        return None if same else ScheduleUpdate(schedule=wanted)

    try:
        await client.create_schedule(names.HUB_SCHEDULE_ID, wanted, trigger_immediately=True)
    except ScheduleAlreadyRunningError:
        await handle.update(changed)
