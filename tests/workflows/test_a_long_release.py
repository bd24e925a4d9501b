"""A year-long release with a thousand commands: short histories, one state, on a virtual clock."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator.contracts import names
from orchestrator.domain import commands as cmd
from tests.support.plans import MANAGER
from tests.support.temporal import VirtualTime
from tests.support.world import World
from tests.workflows.test_release_workflow import Release, workers

pytestmark = pytest.mark.stack
COMMANDS = 1_000


async def test_a_release_of_a_year_and_a_thousand_commands_keeps_its_state_and_its_histories_short(
    virtual_time_env: VirtualTime,
):
    world = World()
    async with workers(virtual_time_env.client, world):
        release = await Release.create(virtual_time_env.client, world, limit=600)
        await release.until("inside")
        await release.register()
        for n in range(COMMANDS):
            await release.send(
                cmd.ReportAccess(
                    command_id=f"outage-{n}", actor=MANAGER, working=bool(n % 2), reason="as it goes"
                )
            )
            if n % 250 == 249:
                await release.ready(
                    "demo"
                )  # evidence and controls again: the same commands are not carried out twice
                await virtual_time_env.fast_forward(release.handle, timedelta(days=92))
        description = await release.handle.describe()
        assert description.history_length < 1_200
        info = description.raw_description.workflow_execution_info
        assert info.execution.run_id != info.first_run_id, "it never continued as new"
        live = await release.handle.query(names.QUERY_STATE)
        assert live == release.state.model_dump(mode="json")
        kinds = [event.type for event in world.log[release.name]]
        assert kinds.count("access_reported") == COMMANDS
        assert kinds.count("evidence_submitted") == 2
        assert (release.state.updated_at - release.state.created_at) < timedelta(days=400)
        last = cmd.ReportAccess(
            command_id=f"outage-{COMMANDS - 1}", actor=MANAGER, working=True, reason="as it goes"
        )
        assert (await release.send(last)).seq <= release.state.seq
        assert len(world.log[release.name]) == len(kinds), "a command was carried out twice"
        await release.handle.terminate()
