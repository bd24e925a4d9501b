"""The release workflow as a later version might have it: what it does is done in another order."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

from orchestrator.contracts import messages as msg
from orchestrator.contracts import names
from orchestrator.domain.state import ReleaseState

with workflow.unsafe.imports_passed_through():
    from workflows.release import ReleaseWorkflow

ANNOUNCE = "announce"


async def announce(release: str) -> None:
    """What the later version does before it changes access."""
    await workflow.execute_activity(
        ANNOUNCE, release, task_queue=names.QUEUE_TRANSFER, start_to_close_timeout=timedelta(seconds=20)
    )


@workflow.defn(name=names.RELEASE_WORKFLOW)
class Incompatible(ReleaseWorkflow):
    """Changed without a word to releases that are on their way."""

    @workflow.init
    def __init__(self, start: msg.ReleaseInput) -> None:
        super().__init__(start)

    @workflow.run
    async def run(self, start: msg.ReleaseInput) -> str:
        return await super().run(start)

    async def _apply_access(self, state: ReleaseState) -> None:
        await announce(state.release)
        await super()._apply_access(state)


@workflow.defn(name=names.RELEASE_WORKFLOW)
class Patched(ReleaseWorkflow):
    """The same change behind `workflow.patched`."""

    @workflow.init
    def __init__(self, start: msg.ReleaseInput) -> None:
        super().__init__(start)

    @workflow.run
    async def run(self, start: msg.ReleaseInput) -> str:
        return await super().run(start)

    async def _apply_access(self, state: ReleaseState) -> None:
        if workflow.patched("announce"):
            await announce(state.release)
        await super()._apply_access(state)
