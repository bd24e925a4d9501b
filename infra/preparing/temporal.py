"""The namespace that releases run in."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

from temporalio.client import Client
from temporalio.service import RPCError

from infra.settings import Settings
from infra.temporal import TemporalUnreachableError, prepare_namespace, tls_of


async def prepare_temporal(settings: Settings, *, patience: timedelta) -> list[str]:
    """Make namespace, retention and search attributes; needs no payload key.

    Raises:
        TemporalUnreachableError: no server answers within `patience`.
    """
    deadline = time.monotonic() + patience.total_seconds()
    while True:
        try:
            client = await Client.connect(
                settings.temporal_address, namespace=settings.temporal_namespace, tls=tls_of(settings)
            )
            await prepare_namespace(client, retention=timedelta(days=settings.temporal_retention_days))
        except (RuntimeError, RPCError) as error:
            if time.monotonic() > deadline:
                raise TemporalUnreachableError(
                    f"no Temporal server answers at {settings.temporal_address}: {str(error).splitlines()[0][:200]}"
                ) from None
            await asyncio.sleep(0.5)
        else:
            return [f"namespace {settings.temporal_namespace}"]
