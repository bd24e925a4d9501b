"""`sluice trace`: whose copy a suspect is. On custody's machine, with custody's credentials, by its operator."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from activities.copies.sealing import CopyPlaces
from activities.copies.tracing import Traced, TracingCustody, as_trace
from activities.leaks.sending import ReleaseCommands
from infra.parts import StoreOpener, records_engine
from infra.provision import opened_custody
from infra.settings import Role, Settings
from infra.temporal import connect
from orchestrator.domain.commands import SERVICE, AnyCommand, ReportTrace
from orchestrator.domain.deciding import short_id
from orchestrator.domain.leaks import traced, traced_incident
from orchestrator.domain.values import digest_bytes
from orchestrator.records import releases
from orchestrator.records.database import reading


def trace(settings: Settings, release: str, component: str, suspect: list[Path], by: str) -> Traced:
    """Trace a suspect's files, and write the signed report into the log.

    Raises:
        SluiceError: the release, the component or the suspect is not what it has to be.
        SettingsError: these settings are not custody's.
    """
    settings.for_role(Role.CUSTODY)
    with opened_custody(settings) as (engine, memory, provider, keys):
        custody = TracingCustody(
            engine,
            memory,
            provider,
            keys,
            partial(datetime.now, UTC),
            signed_only=settings.custody_signed_only,
            places=CopyPlaces(
                open_store=StoreOpener(settings),
                stores=(settings.effective_store_uri,),
                state_dir=settings.effective_copies_state_dir,
            ),
        )
        return custody.trace(release, suspect, component, by)


def tell(
    settings: Settings, release: str, component: str, found: Traced, incident: str | None
) -> tuple[str, list[str]]:
    """Judge the release's incident by a trace that accuses: its response table revokes the partner's grants.

    Returns:
        The incident, and the partners that it was told of. Telling it again changes nothing.

    Raises:
        SluiceError: there is no one incident, or the release does not answer; the report stands in the log all the same.
    """
    engine = records_engine(settings)
    try:
        with reading(engine) as session:
            state = releases.load(session, release)
    finally:
        engine.dispose()
    standing = traced_incident(state, component, incident)
    document = digest_bytes(found.signed)
    judged = traced(state, standing, found.report["accused"], document)
    commands: list[AnyCommand] = [
        ReportTrace(
            command_id=short_id("trace", release, standing.id, document),
            actor=SERVICE,
            incident=standing.id,
            trace=as_trace(found.report, found.signed),
        ),
        *judged,
    ]

    async def send() -> None:
        client = await connect(settings, patience=timedelta(seconds=10), identity="trace")
        for command in commands:
            await ReleaseCommands(client).send(release, command)

    asyncio.run(send())
    return standing.id, [str(command.partner) for command in judged]
