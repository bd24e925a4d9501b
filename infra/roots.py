"""What each process is made of: one function a role, the only place where its parts meet.

A worker's root gives `WorkerParts`; `serve_worker` does the rest: connects, polls, makes its version current, answers health
requests, and on the stop event lets running activities finish.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import structlog
from prometheus_client.registry import Collector
from sqlalchemy import Engine
from temporalio.client import Client
from temporalio.worker import Worker

from infra.builds import take_over
from infra.health import Check, HealthServer
from infra.memory import spare_what_stands
from infra.settings import InvalidSettingError, Role, Settings, read_secret
from infra.telemetry.metrics import Metrics, Numbers
from infra.temporal import connect, deployment_config
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


async def releases_parts(settings: Settings, client: Client) -> WorkerParts:
    """The release worker: workflows, and the records that they write through local activities."""
    from activities.leaks.sending import ReleaseCommands
    from activities.leaks.spreading import Spreading
    from activities.records import RecordActivities
    from infra.parts import records_engine
    from infra.refreshing import Refreshing
    from infra.telemetry.queues import QueuesCollector
    from infra.telemetry.records import RecordsCollector
    from workflows.hub_sweep import HubSweepWorkflow
    from workflows.ingest import IngestWorkflow
    from workflows.leak_sweep import LeakCheckWorkflow, LeakPrepareWorkflow, LeakSweepWorkflow
    from workflows.leak_trace import LeakTraceWorkflow
    from workflows.release import ReleaseWorkflow
    from workflows.rotation import RotationWorkflow

    engine = records_engine(settings)
    refreshing = Refreshing(engine)
    refreshing.start()
    spreading = Spreading(engine, ReleaseCommands(client))
    spreading.start()

    async def close() -> None:
        await spreading.stop()
        await asyncio.to_thread(refreshing.stop)

    return WorkerParts(
        queue=names.QUEUE_RELEASES,
        activities=RecordActivities(engine).all,
        max_activities=settings.releases_activities,
        workflows=(
            ReleaseWorkflow,
            IngestWorkflow,
            HubSweepWorkflow,
            RotationWorkflow,
            LeakSweepWorkflow,
            LeakCheckWorkflow,
            LeakPrepareWorkflow,
            LeakTraceWorkflow,
        ),
        max_workflow_tasks=settings.releases_workflow_tasks,
        max_cached_workflows=settings.releases_cached_workflows,
        checks={"records": records_check(engine)},
        collectors=(
            RecordsCollector(engine),
            QueuesCollector(client, names.QUEUES, asyncio.get_running_loop()),
        ),
        close=close,
    )


async def transfer_parts(settings: Settings, client: Client) -> WorkerParts:
    """The transfer worker: seals, publishes, and tells releases of what was sealed. It holds no key of custody's."""
    from activities.binding import BindingActivities
    from activities.copies.telling import TellingActivities
    from activities.hub import HubPublishing
    from activities.hub_schedule import keep_schedule
    from activities.hub_sweep import HubSweeping
    from activities.leaks.sending import ReleaseCommands
    from activities.plaintext import PlaintextPublishing
    from activities.publishing import PublishingActivities
    from activities.sealing import SealingActivities, SealingParts
    from artifacts.signing import SigningKey
    from artifacts.stores.hub import HubStore
    from artifacts.stores.opening import elliptic_key_signer
    from infra.parts import StoreOpener, records_engine
    from infra.provision import read_custody_public

    engine, opener = records_engine(settings), StoreOpener(settings)
    store_uri = settings.effective_store_uri
    key_file = settings.effective_transfer_signing_key_file
    if key_file is None:
        raise InvalidSettingError("SLUICE_TRANSFER_SIGNING_KEY_FILE is not set")
    sealing = SealingActivities(
        SealingParts(
            engine=engine,
            open_store=opener,
            stores=(store_uri,),
            signer=SigningKey.parse(read_secret(key_file, "transfer_signing_key_file")),
            custody_recipient=lambda: read_custody_public(settings.effective_custody_public_file).recipient,
            state_dir=settings.data_dir / "sealing",
            ingest_root=settings.effective_ingest_dir,
            monitor=partial(_monitor_recipient, settings),
        )
    )
    model_key = settings.effective_model_signing_key_file
    plaintext = None
    if model_key is not None:
        plaintext = PlaintextPublishing(
            engine,
            opener,
            custody_keys=lambda: [read_custody_public(settings.effective_custody_public_file).verify_key],
            signer=elliptic_key_signer(model_key),
            scratch=settings.data_dir / "opening",
        )
    hub = calls = None
    if store_uri.startswith("hf:"):
        shown = opener(store_uri)
        assert isinstance(shown, HubStore)
        calls = shown.calls
        hub = HubPublishing(calls)
    await keep_schedule(client, None if calls is None else timedelta(seconds=settings.hub_sweep_seconds))
    sweeping = HubSweeping(engine, calls, ReleaseCommands(client))
    publishing = PublishingActivities(engine, lambda: opener(store_uri), hub=hub, plaintext=plaintext)
    return WorkerParts(
        queue=names.QUEUE_TRANSFER,
        activities=[
            *sealing.all,
            *publishing.all,
            *sweeping.all,
            *BindingActivities(engine, client).all,
            *TellingActivities(engine, client, opener, (store_uri,)).all,
        ],
        max_activities=settings.transfer_activities,
        checks={"records": records_check(engine)},
    )


def _monitor_recipient(settings: Settings) -> str | None:
    """Who weight signatures are sealed to; None while there is no leak monitor."""
    from infra.provision import read_monitor_public

    known = read_monitor_public(settings.effective_monitor_public_file)
    return None if known is None else known.recipient


def _monitor_verdict_key(settings: Settings) -> str | None:
    """What the leak monitor's statements are verified with; None while there is no leak monitor."""
    from infra.provision import read_monitor_public

    known = read_monitor_public(settings.effective_monitor_public_file)
    return None if known is None else known.verdict_key


async def custody_parts(settings: Settings, client: Client) -> WorkerParts:
    """The custody worker: the only process that the key-encryption key opens anything for.

    It serves two queues: `custody`, where requests for keys are answered at once, and `copies`, where files are sealed anew.
    """
    from activities.copies.activity import CopyActivities
    from activities.copies.sealing import CopyPlaces
    from activities.copies.tracing import TracingCustody
    from activities.custody.activity import CustodyActivities, Watching
    from activities.custody.second_place import open_place
    from infra.parts import StoreOpener, records_engine
    from infra.provision import custody_memory, key_provider, keys_when_approved

    engine = records_engine(settings)
    provider = key_provider(settings, make=settings.dev)
    keys = await keys_when_approved(settings, provider, partial(log.warning, "custody cannot start yet"))
    memory = custody_memory(settings)
    now = partial(datetime.now, UTC)
    places_of_copies = CopyPlaces(
        open_store=StoreOpener(settings),
        stores=(settings.effective_store_uri,),
        state_dir=settings.effective_copies_state_dir,
        monitor=partial(_monitor_recipient, settings),
    )
    custody = TracingCustody(
        engine,
        memory,
        provider,
        keys,
        now,
        signed_only=settings.custody_signed_only,
        places=places_of_copies,
        monitor_key=partial(_monitor_verdict_key, settings),
        traces_a_day=settings.custody_traces_a_day,
    )
    copying = CopyActivities(custody)
    places = [open_place(text, now) for text in settings.custody_checkpoint_places]
    watching = Watching(custody, settings.custody_watch_seconds, places)
    watching.start()

    async def keys_answer() -> None:
        health = await asyncio.to_thread(provider.health)
        if not health.ok:
            raise RuntimeError("the key service does not answer")

    async def close() -> None:
        await asyncio.to_thread(watching.stop)
        memory.close()

    return WorkerParts(
        queue=names.QUEUE_CUSTODY,
        activities=[*CustodyActivities(custody).all, *copying.short],
        max_activities=settings.custody_activities,
        beside=WorkerParts(
            queue=names.QUEUE_COPIES,
            activities=copying.long,
            max_activities=settings.copies_activities,
        ),
        checks={"records": records_check(engine), "key-provider": keys_answer},
        collectors=(
            Numbers(
                {
                    "sluice_custody_trusts_log": (
                        "Whether custody trusted the audit log at its last look: 1 or 0.",
                        lambda: float(watching.trusts),
                    ),
                    "sluice_custody_notes_waiting": (
                        "Checkpoints that a second place has not taken yet.",
                        lambda: float(watching.waiting_notes),
                    ),
                }
            ),
        ),
        close=close,
    )


async def leaks_parts(settings: Settings, client: Client) -> WorkerParts:
    """The leak worker: polls sources and judges suspects. Its key opens weight signatures and nothing else."""
    from infra.leaks import leak_worker

    made = leak_worker(settings, client)
    await asyncio.to_thread(made.polling.prepare)
    made.schedules.start()

    return WorkerParts(
        queue=names.QUEUE_LEAKS,
        activities=made.activities,
        max_activities=settings.leaks_activities,
        checks={"records": records_check(made.engine)},
        close=made.schedules.stop,
    )


def records_check(engine: Engine) -> Check:
    """Whether the records answer and hold our tables."""
    from orchestrator.records import database

    async def check() -> None:
        await asyncio.to_thread(database.ping, engine)

    return check


def worker_root(role: Role, parts: Callable[[Settings, Client], Coroutine[Any, Any, WorkerParts]]) -> Root:
    """The root of a worker, from the function that builds its parts."""

    async def root(settings: Settings, stop: asyncio.Event) -> None:
        client = await connect(
            settings, patience=timedelta(seconds=30), identity=f"{role.value}@{settings.deployment}"
        )
        building = asyncio.ensure_future(parts(settings, client))
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({building, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not building.done():  # custody may wait long for people before it can start
            building.cancel()
            await asyncio.wait({building})
            return
        await serve_worker(settings, stop, client, building.result())

    return root


async def api_root(settings: Settings, stop: asyncio.Event) -> None:
    """One API process: uvicorn over `orchestrator.api`, until the stop event; streams are ended, requests finished."""
    from activities.notices.elsewhere import Elsewhere
    from infra.links import StoreLinks
    from infra.monitoring import leak_parts_of_the_api
    from infra.parts import (
        ArtifactFormats,
        StoreOpener,
        document_cipher,
        records_engine,
        single_sign_on,
        webhook_cipher,
    )
    from infra.provision import read_custody_public
    from infra.serving import serve
    from infra.telemetry.tracing import trace_application
    from orchestrator.api.app import create_app
    from orchestrator.api.commands import TemporalGateway
    from orchestrator.api.deps import ApiSettings, Deps

    client = await connect(settings, patience=timedelta(seconds=30), identity=f"api@{settings.deployment}")
    public = settings.effective_custody_public_file
    metrics, engine = Metrics("api"), records_engine(settings)
    deps = Deps(
        engine=engine,
        gateway=TemporalGateway(client),
        documents=document_cipher(settings),
        formats=ArtifactFormats(),
        settings=ApiSettings(
            public_url=settings.effective_public_url,
            link_seconds=settings.link_seconds,
            webhook_http=bool(settings.webhook_allow),
            mail=bool(settings.mail_from),
            report_rate=settings.report_rate,
            report_rate_all=settings.report_rate_all,
            invitation_rate=settings.invitation_rate,
        ),
        webhook_secrets=webhook_cipher(settings),
        apprise_fault=Elsewhere(settings.webhook_allow).fault,
        links=StoreLinks(settings.effective_store_uri, StoreOpener(settings)),
        **leak_parts_of_the_api(settings),
        observe=metrics.request,
        **single_sign_on(settings, engine),
        log_keys=(read_custody_public(public).log_key,) if public.exists() else (),
    )
    app = create_app(deps)
    trace_application(settings, app)

    async def temporal() -> None:
        await client.service_client.check_health(timeout=timedelta(seconds=2))

    checks: dict[str, Check] = {"temporal": temporal, "records": records_check(deps.engine)}
    spare_what_stands()
    async with HealthServer(settings.health_host, settings.health_port, checks, metrics):
        await serve(app, settings, stop)


async def notices_root(settings: Settings, stop: asyncio.Event) -> None:
    """The worker that says things outward: it looks into the records alone, and needs no Temporal."""
    from infra.notices import loops
    from infra.parts import records_engine, webhook_cipher

    cipher = webhook_cipher(settings)
    if cipher is None:
        raise InvalidSettingError("SLUICE_WEBHOOK_KEYS_FILE is not set")
    engine = records_engine(settings)
    saying = loops(settings, engine, cipher)

    async def says() -> None:
        for loop in saying:
            loop.check()

    checks: dict[str, Check] = {"records": records_check(engine), "delivery": says}
    spare_what_stands()
    for loop in saying:
        loop.start()
    try:
        async with HealthServer(
            settings.health_host, settings.health_port, checks, Metrics("worker-notices")
        ):
            await stop.wait()
    finally:
        for loop in saying:
            loop.ask_to_stop()
        for loop in saying:
            await asyncio.to_thread(loop.stop, settings.shutdown_seconds)
        engine.dispose()


async def migrate_root(settings: Settings, stop: asyncio.Event) -> None:
    """Bring the database to the newest schema, with custody's rights in it; on an empty one, make the first operator and its token."""
    from infra.first import first_operator
    from infra.parts import records_engine
    from infra.preparing.postgres import grant_custody
    from orchestrator.records.migrate import migrate

    engine = records_engine(settings)
    revision = await asyncio.to_thread(migrate, engine)
    log.info("migrated", revision=revision)
    if settings.database_custody_user:
        await asyncio.to_thread(grant_custody, engine, settings.database_custody_user)
    await asyncio.to_thread(first_operator, engine, settings.effective_operator_token_file)
    engine.dispose()


#: Role → its root. A role that isn't here can't be started.
ROOTS: Mapping[Role, Root] = {
    Role.API: api_root,
    Role.RELEASES: worker_root(Role.RELEASES, releases_parts),
    Role.TRANSFER: worker_root(Role.TRANSFER, transfer_parts),
    Role.CUSTODY: worker_root(Role.CUSTODY, custody_parts),
    Role.LEAKS: worker_root(Role.LEAKS, leaks_parts),
    Role.NOTICES: notices_root,
    Role.MIGRATE: migrate_root,
}
