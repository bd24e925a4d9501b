"""A worker process: what it takes from its queue, and serving it until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import structlog
from prometheus_client.registry import Collector
from temporalio.client import Client
from temporalio.worker import Worker

from infra.builds import take_over
from infra.health import Check, HealthServer
from infra.memory import spare_what_stands
from infra.settings import Settings
from infra.telemetry.metrics import Metrics
from infra.temporal import deployment_config

log = structlog.get_logger("run")


@dataclass(frozen=True)
class WorkerParts:
    """What a worker of the service is made of.

    Attributes:
        queue: The task queue it serves.
        activities: Bound activity functions; plain functions run in threads, coroutine functions on the loop.
        max_activities: How many run at once; there are as many threads.
        workflows: Workflow classes; a worker with workflows is versioned.
        max_workflow_tasks: How many workflow tasks run at once.
        max_cached_workflows: How many open workflows stay in memory.
        collectors: what `/metrics` shows beside the process's own numbers.
        checks: Health checks beside Temporal's own: name → raises when that part can't do its work.
        close: Called once after the worker ended.
    """

    queue: str
    activities: Sequence[Callable[..., Any]] = ()
    max_activities: int = 8
    workflows: Sequence[type] = ()
    max_workflow_tasks: int = 16
    max_cached_workflows: int = 1000
    checks: Mapping[str, Check] = field(default_factory=dict)
    collectors: Sequence[Collector] = ()
    close: Callable[[], Awaitable[None]] | None = None
    beside: WorkerParts | None = None
    """Another queue that the same process serves, with threads of its own: long work never waits before short."""


async def serve_worker(settings: Settings, stop: asyncio.Event, client: Client, parts: WorkerParts) -> None:
    """Run a worker until the stop event; returns once its running work is finished or out of time."""
    deployment = deployment_config(settings) if parts.workflows else None
    with ThreadPoolExecutor(parts.max_activities + 4, thread_name_prefix="activity") as threads:
        worker = Worker(
            client,
            task_queue=parts.queue,
            activities=list(parts.activities),
            workflows=list(parts.workflows),
            activity_executor=threads,
            max_concurrent_activities=parts.max_activities if parts.activities else None,
            max_concurrent_local_activities=parts.max_activities if parts.workflows else None,
            max_concurrent_workflow_tasks=parts.max_workflow_tasks if parts.workflows else None,
            max_cached_workflows=parts.max_cached_workflows if parts.workflows else 0,
            graceful_shutdown_timeout=settings.shutdown_timeout,
            deployment_config=deployment,
        )
        ready = asyncio.Event()

        async def polls() -> None:
            if not (ready.is_set() and worker.is_running):
                raise RuntimeError("the worker does not poll")

        async def temporal() -> None:
            await client.service_client.check_health(timeout=timedelta(seconds=2))

        checks: dict[str, Check] = {"worker": polls, "temporal": temporal, **parts.checks}
        metrics = Metrics(f"worker-{parts.queue}", deployment.version.build_id if deployment else None)
        for collector in parts.collectors:
            metrics.registry.register(collector)
        try:
            async with (
                HealthServer(settings.health_host, settings.health_port, checks, metrics),
                worker,
                _serving_beside(settings, client, parts.beside),
            ):
                if deployment is not None:
                    await take_over(client, deployment.version)
                spare_what_stands()
                ready.set()
                log.info(
                    "serving", queue=parts.queue, build=deployment.version.build_id if deployment else None
                )
                await stop.wait()
                ready.clear()
        finally:
            if parts.close is not None:
                await parts.close()


@asynccontextmanager
async def _serving_beside(
    settings: Settings, client: Client, parts: WorkerParts | None
) -> AsyncIterator[None]:
    """Serve another queue in this process until the block ends."""
    if parts is None:
        yield
        return
    with ThreadPoolExecutor(parts.max_activities + 2, thread_name_prefix=parts.queue) as threads:
        async with Worker(
            client,
            task_queue=parts.queue,
            activities=list(parts.activities),
            activity_executor=threads,
            max_concurrent_activities=parts.max_activities,
            graceful_shutdown_timeout=settings.shutdown_timeout,
        ):
            log.info("serving", queue=parts.queue)
            yield
