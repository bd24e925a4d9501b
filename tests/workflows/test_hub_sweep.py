"""The schedule of Hub sweeps on a real Temporal server: made once, changed by a setting, gone with the Hub, never doubled."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from temporalio import activity
from temporalio.client import Client, ScheduleOverlapPolicy
from temporalio.service import RPCError
from temporalio.worker import Worker

from activities.hub_schedule import keep_schedule
from orchestrator.contracts import names
from orchestrator.contracts.messages import HubSwept, SweepHub
from workflows.hub_sweep import HubSweepWorkflow

pytestmark = pytest.mark.stack


async def test_the_schedule_sweeps_and_a_sweep_that_runs_is_not_doubled(temporal_client: Client) -> None:
    started, go_on = list[str](), asyncio.Event()

    @activity.defn(name=names.SWEEP_HUB)
    async def sweep(request: SweepHub) -> HubSwept:
        started.append(activity.info().workflow_id)
        await go_on.wait()
        return HubSwept(in_order=["mini-1"])

    handle = temporal_client.get_schedule_handle(names.HUB_SCHEDULE_ID)
    async with (
        Worker(temporal_client, task_queue=names.QUEUE_RELEASES, workflows=[HubSweepWorkflow]),
        Worker(temporal_client, task_queue=names.QUEUE_TRANSFER, activities=[sweep]),
    ):
        try:
            await asyncio.gather(*(keep_schedule(temporal_client, timedelta(hours=1)) for _ in range(2)))
            for _ in range(200):
                if started:
                    break
                await asyncio.sleep(0.1)
            await handle.trigger()  # while the first still runs
            await asyncio.sleep(1.0)
            assert len(started) == 1
            found = await handle.describe()
            assert found.schedule.policy.overlap is ScheduleOverlapPolicy.SKIP
            assert found.info.num_actions_skipped_overlap >= 1
            go_on.set()
            (running,) = [a.workflow_id for a in found.info.running_actions]
            result = await temporal_client.get_workflow_handle(running, result_type=HubSwept).result()
            assert result.in_order == ["mini-1"]
        finally:
            go_on.set()
            await keep_schedule(temporal_client, None)


async def test_the_interval_follows_the_setting_and_without_a_hub_there_is_none(
    temporal_client: Client,
) -> None:
    handle = temporal_client.get_schedule_handle(names.HUB_SCHEDULE_ID)
    await keep_schedule(temporal_client, timedelta(hours=1))
    await keep_schedule(temporal_client, timedelta(hours=2))
    (interval,) = (await handle.describe()).schedule.spec.intervals
    assert interval.every == timedelta(hours=2)
    await keep_schedule(temporal_client, None)
    await keep_schedule(temporal_client, None)  # also when there is none
    with pytest.raises(RPCError):
        await handle.describe()
