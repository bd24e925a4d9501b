"""One look at the repository on the Hub; a schedule starts it again and again.

It keeps nothing: what was seen is in the records, so that a sweep that dies is made good by the next one.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

from orchestrator.contracts import names
from orchestrator.contracts.messages import HubSwept, SweepHub


@workflow.defn(name=names.HUB_SWEEP_WORKFLOW)
class HubSweepWorkflow:
    """One sweep."""

    @workflow.run
    async def run(self, start: SweepHub) -> HubSwept:
        """Look once; what was seen."""
        swept: HubSwept = await workflow.execute_activity(
            names.SWEEP_HUB,
            start,
            task_queue=names.QUEUE_TRANSFER,
            result_type=HubSwept,
            start_to_close_timeout=timedelta(minutes=10),
            retry_policy=RetryPolicy(initial_interval=timedelta(seconds=2), maximum_attempts=3),
        )
        return swept
