"""`sluice trace`: whose copy a suspect is. On custody's machine, with custody's credentials, by its operator."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from activities.copies.making import CopyPlaces
from activities.copies.tracing import Traced, TracingCustody
from infra.parts import StoreOpener, records_engine
from infra.provision import custody_memory, key_provider, keys_when_approved
from infra.settings import Role, Settings


def trace(settings: Settings, release: str, component: str, suspect: list[Path], by: str) -> Traced:
    """Trace a suspect's files, and write the signed report into the log.

    Raises:
        SluiceError: the release, the component or the suspect is not what it has to be.
        SettingsError: these settings are not custody's.
    """
    settings.for_role(Role.CUSTODY)
    engine = records_engine(settings)
    provider = key_provider(settings)
    memory = custody_memory(settings)
    try:
        custody = TracingCustody(
            engine,
            memory,
            provider,
            asyncio.run(keys_when_approved(settings, provider, _say)),
            partial(datetime.now, UTC),
            signed_only=settings.custody_signed_only,
            places=CopyPlaces(
                open_store=StoreOpener(settings),
                stores=(settings.effective_store_uri,),
                state_dir=settings.effective_copies_state_dir,
            ),
        )
        return custody.trace(release, suspect, component, by)
    finally:
        memory.close()
        engine.dispose()


def _say(*, why: str) -> None:
    print(why, file=sys.stderr, flush=True)
