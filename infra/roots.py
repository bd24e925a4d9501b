"""What each process is made of: one function a role, the only place where its parts meet.

A worker's root gives `WorkerParts`; `serve_worker` does the rest: connects, polls, makes its version current, answers health
requests, and on the stop event lets running activities finish.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any

import structlog
from temporalio.client import Client

from infra.health import Check, HealthServer
from infra.memory import spare_what_stands
from infra.settings import InvalidSettingError, Role, Settings
from infra.telemetry.metrics import Metrics
from infra.temporal import connect
from infra.worker import WorkerParts, serve_worker
from infra.worker_parts import custody_parts, leaks_parts, records_check, releases_parts, transfer_parts

log = structlog.get_logger("run")
Root = Callable[[Settings, asyncio.Event], Awaitable[None]]


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
