"""The schedule of the Hub sweep: one per deployment, there as long as its store is a Hub.

A sweep that is still running is not doubled (overlap SKIP); sweeps missed in an outage are not made up for, the next looks anyway.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
)

from activities.scheduling import have, have_none
from orchestrator.contracts import names
from orchestrator.contracts.messages import SweepHub


async def keep_schedule(client: Client, every: timedelta | None) -> None:
    """Have the schedule with that interval, or have none; safe to repeat, and by two workers at once."""
    if every is None:
        await have_none(client, names.HUB_SCHEDULE_ID)
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
    await have(client, names.HUB_SCHEDULE_ID, wanted)
