"""Sealing on a transfer worker, as an MLOps pipeline asks for it: read plaintext, seal it into a store, register it.

The workflow ID derives from what is to be sealed, so that starting it twice is starting it once; a retry after a crash
re-uses every part that is stored already. No byte and no key passes through the workflow: references alone.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

from orchestrator.contracts import messages as msg
from orchestrator.contracts import names

#: How soon a worker that died is noticed; its work beats every two seconds.
_HEARTBEAT = timedelta(seconds=20)
_SEAL_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=2), maximum_interval=timedelta(minutes=1), maximum_attempts=10
)
_REGISTER_RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=10), maximum_attempts=30
)


@workflow.defn(name=names.INGEST_WORKFLOW)
class IngestWorkflow:
    """One source sealed into one store, and registered."""

    @workflow.run
    async def run(self, start: msg.IngestInput) -> msg.IngestResult:
        """Seal, then register; the same result however often it is started."""
        sealed: msg.IngestResult = await workflow.execute_activity(
            names.SEAL_TREE,
            start,
            task_queue=names.QUEUE_TRANSFER,
            result_type=msg.IngestResult,
            start_to_close_timeout=timedelta(days=2),
            heartbeat_timeout=_HEARTBEAT,
            retry_policy=_SEAL_RETRY,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        if start.release is not None:
            await workflow.execute_activity(
                names.BIND_ARTIFACT,
                msg.BindRequest(release=start.release, artifact=sealed.artifact, actor=start.uploader),
                task_queue=names.QUEUE_TRANSFER,
                result_type=msg.Outcome,
                start_to_close_timeout=timedelta(minutes=1),
                retry_policy=_REGISTER_RETRY,
            )
        return sealed
