"""How much work waits in Temporal's task queues, and for how long: asked of the server when somebody looks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import timedelta

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, DescribeTaskQueueResponse
from temporalio.client import Client
from temporalio.service import RPCError

_PATIENCE = timedelta(seconds=3)
_KINDS = {
    "workflow": TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    "activity": TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
}


class QueuesCollector(Collector):
    """Asks Temporal for the backlog of each queue. Must be collected in another thread than the loop's.

    Args:
        client: connected to the server.
        queues: their names.
        loop: the loop that the client lives in.
    """

    def __init__(self, client: Client, queues: Sequence[str], loop: asyncio.AbstractEventLoop) -> None:
        self._client, self._queues, self._loop = client, queues, loop

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked of the server when it is registered."""
        return []

    def collect(self) -> Iterable[Metric]:
        """See base class. A server that does not answer shows no numbers."""
        backlog = GaugeMetricFamily(
            "sluice_queue_backlog",
            "Tasks that wait in a queue (Temporal's estimate).",
            labels=["queue", "kind"],
        )
        age = GaugeMetricFamily(
            "sluice_queue_oldest_seconds", "Age of the oldest task that waits.", labels=["queue", "kind"]
        )
        pollers = GaugeMetricFamily(
            "sluice_queue_pollers", "Workers that have asked for tasks lately.", labels=["queue", "kind"]
        )
        asked = asyncio.run_coroutine_threadsafe(self._ask(), self._loop)
        try:
            answers = asked.result(_PATIENCE.total_seconds() + 1)
        except (RPCError, TimeoutError):
            asked.cancel()
            answers = []
        for queue, kind, answer in answers:
            backlog.add_metric([queue, kind], answer.stats.approximate_backlog_count)
            age.add_metric([queue, kind], answer.stats.approximate_backlog_age.ToTimedelta().total_seconds())
            pollers.add_metric([queue, kind], len(answer.pollers))
        return [backlog, age, pollers]

    async def _ask(self) -> list[tuple[str, str, DescribeTaskQueueResponse]]:
        asked = [(queue, kind) for queue in self._queues for kind in _KINDS]
        answers = await asyncio.gather(*(self._describe(queue, kind) for queue, kind in asked))
        return [(queue, kind, answer) for (queue, kind), answer in zip(asked, answers, strict=True)]

    async def _describe(self, queue: str, kind: str) -> DescribeTaskQueueResponse:
        return await self._client.workflow_service.describe_task_queue(
            DescribeTaskQueueRequest(
                namespace=self._client.namespace,
                task_queue=TaskQueue(name=queue),
                task_queue_type=_KINDS[kind],
                report_stats=True,
            ),
            timeout=_PATIENCE,
        )
