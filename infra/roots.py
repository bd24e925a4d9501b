"""What each process is made of: one function a role, the only place where its parts meet.

A worker's root gives `WorkerParts`; `serve_worker` does the rest: connects, polls, makes its version current, answers health
requests, and on the stop event lets running activities finish.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import structlog
from temporalio.client import Client
from temporalio.worker import Worker

from infra.health import Check, HealthServer
from infra.settings import Role, Settings
from infra.temporal import connect, deployment_config, make_current
from orchestrator.contracts import names

log = structlog.get_logger("run")

Root = Callable[[Settings, asyncio.Event], Awaitable[None]]


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
        checks: Health checks beside Temporal's own: name → raises when that part can't do its work.
        close: Called once after the worker ended.
    """

    queue: str
    activities: Sequence[Callable[..., Any]] = ()
    max_activities: int = 8
    workflows: Sequence[type] = ()
    max_workflow_tasks: int = 100
    max_cached_workflows: int = 1000
    checks: Mapping[str, Check] = field(default_factory=dict)
    close: Callable[[], Awaitable[None]] | None = None


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
        try:
            async with HealthServer(settings.health_host, settings.health_port, checks), worker:
                if deployment is not None:
                    await make_current(client, deployment.version)
                ready.set()
                log.info(
                    "serving", queue=parts.queue, build=deployment.version.build_id if deployment else None
                )
                await stop.wait()
                ready.clear()
        finally:
            if parts.close is not None:
                await parts.close()


async def releases_parts(settings: Settings) -> WorkerParts:
    """The release worker: workflows, and the records that they write through local activities."""
    from workflows.ingest import IngestWorkflow
    from workflows.release import ReleaseWorkflow

    return WorkerParts(
        queue=names.QUEUE_RELEASES,
        workflows=(ReleaseWorkflow, IngestWorkflow),
        max_activities=settings.releases_activities,
        max_workflow_tasks=settings.releases_workflow_tasks,
        max_cached_workflows=settings.releases_cached_workflows,
    )


def worker_root(role: Role, parts: Callable[[Settings], Awaitable[WorkerParts]]) -> Root:
    """The root of a worker, from the function that builds its parts."""

    async def root(settings: Settings, stop: asyncio.Event) -> None:
        client = await connect(
            settings, patience=timedelta(seconds=30), identity=f"{role.value}@{settings.deployment}"
        )
        await serve_worker(settings, stop, client, await parts(settings))

    return root


#: Role → its root. A role that isn't here can't be started.
ROOTS: Mapping[Role, Root] = {
    Role.RELEASES: worker_root(Role.RELEASES, releases_parts),
}
