"""Schedules in Temporal as they should be, however often and by however many workers they are looked after."""

from __future__ import annotations

from temporalio.client import (
    Client,
    Schedule,
    ScheduleAlreadyRunningError,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.service import RPCError, RPCStatusCode


async def have(client: Client, schedule_id: str, wanted: Schedule) -> bool:
    """Have a schedule with these intervals; whether it was made now. A new one begins at once."""

    def changed(given: ScheduleUpdateInput) -> ScheduleUpdate | None:
        same = given.description.schedule.spec.intervals == wanted.spec.intervals
        return None if same else ScheduleUpdate(schedule=wanted)

    try:
        await client.create_schedule(schedule_id, wanted, trigger_immediately=True)
    except ScheduleAlreadyRunningError:
        await client.get_schedule_handle(schedule_id).update(changed)
        return False
    return True


async def have_none(client: Client, schedule_id: str) -> bool:
    """Have no such schedule; whether there was one."""
    try:
        await client.get_schedule_handle(schedule_id).delete()
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        return False
    return True
