"""The sweeps' schedules follow the records: there while anything is withheld, also after a crash and after somebody's hand."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from temporalio.client import Client
from temporalio.service import RPCError

from activities.leaks.schedules import Schedules
from orchestrator.contracts import names
from orchestrator.domain import commands as cmd
from orchestrator.records import database, monitors
from tests.simulators import transformations as t
from tests.support.plans import MANAGER

from .bench import LeakBench, until

pytestmark = pytest.mark.stack


async def there(client: Client, release: str) -> bool:
    try:
        await client.get_schedule_handle(names.leak_schedule_id(release)).describe()
    except RPCError:
        return False
    return True


async def test_a_schedule_sweeps_while_something_is_withheld_and_goes_with_the_release(
    bench: LeakBench, temporal_client: Client, model: t.Leak
):
    ours = bench.seal(model)
    async with bench.running(temporal_client):
        release, empty = await bench.create(), await bench.create()
        await bench.bind(release, ours)
        keeper = Schedules(bench.engine, temporal_client, every=timedelta(hours=1), look=0.05)
        keeper.start()
        try:

            def swept() -> bool:
                with database.reading(bench.engine) as session:
                    return any(s.last_success for s in monitors.list_sources(session))

            await until(swept)  # it is triggered at once, not after the first hour
            assert await there(temporal_client, release)
            assert not await there(temporal_client, empty), "nothing is sealed, nothing can leak"
            await bench.send(release, cmd.Abort(command_id="end", actor=MANAGER, reason="enough"))
            for _ in range(200):
                if not await there(temporal_client, release):
                    break
                await asyncio.sleep(0.05)
            assert not await there(temporal_client, release)
        finally:
            await keeper.stop()


async def test_lost_and_stray_schedules_are_mended(bench: LeakBench, temporal_client: Client, model: t.Leak):
    ours = bench.seal(model)
    async with bench.running(temporal_client):
        release = await bench.create()
        await bench.bind(release, ours)
        one = Schedules(bench.engine, temporal_client, every=timedelta(hours=1))
        two = Schedules(bench.engine, temporal_client, every=timedelta(hours=1))
        await one.reconcile()
        await two.reconcile()  # a second worker, or the first one after a crash
        assert await there(temporal_client, release)
        await temporal_client.get_schedule_handle(names.leak_schedule_id(release)).delete()
        await one.ensure("nobody-knows-it", wanted=True)
        await one.reconcile()
        assert await there(temporal_client, release)
        for _ in range(100):  # the list of schedules lags behind
            if not await there(temporal_client, "nobody-knows-it"):
                break
            await asyncio.sleep(0.1)
            await one.reconcile()
        assert not await there(temporal_client, "nobody-knows-it")
        handle = temporal_client.get_schedule_handle(names.leak_schedule_id(release))
        await Schedules(bench.engine, temporal_client, every=timedelta(minutes=7)).reconcile()
        found = await handle.describe()
        assert [i.every for i in found.schedule.spec.intervals] == [timedelta(minutes=7)]
        assert found.schedule.policy.overlap.name == "SKIP"
        await handle.delete()
