"""uvicorn inside a process that has its own signals, logs and end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn
from fastapi import FastAPI
from sse_starlette.sse import AppStatus

from infra.settings import Settings

log = structlog.get_logger("run")


class _Server(uvicorn.Server):
    """Leaves signals to the process, which tells it to end by the stop event."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


async def serve(app: FastAPI, settings: Settings, stop: asyncio.Event) -> None:
    """Serve until the stop event; then end streams, finish requests, and return.

    Raises:
        ConnectionError: it cannot listen at the address.
    """
    trusted = list(settings.api_trusted_proxies)
    config = uvicorn.Config(
        app,
        host=settings.api_host,
        port=settings.api_port,
        log_config=None,
        access_log=False,  # the application writes one line a request
        server_header=False,
        date_header=True,
        proxy_headers=bool(trusted),
        forwarded_allow_ips=trusted or None,
        timeout_graceful_shutdown=max(1, int(settings.shutdown_seconds)),
        timeout_keep_alive=30,
        lifespan="off",
        ws="none",
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        AppStatus.should_exit = True  # open event streams end by this
        server.should_exit = True
        try:
            await serving
        except SystemExit:
            raise ConnectionError(
                f"cannot listen on {settings.api_host}:{settings.api_port}; another program may be there"
            ) from None
    finally:
        stopping.cancel()
