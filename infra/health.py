"""A process's answers to whoever watches it, on a port of its own: it runs, it can do its work now, and its numbers.

    GET /healthz   it runs
    GET /readyz    every part that it needs answers; else 503 and which ones do not, by name and never why
    GET /metrics   Prometheus text

Each connection gets one answer, one second to ask and one to take it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

from infra.telemetry.metrics import CONTENT_TYPE, Metrics

_SECONDS = 1.0
_CHECK_SECONDS = 4.0

Check = Callable[[], Awaitable[None]]


class HealthServer:
    """Serves `/healthz`, `/readyz` and `/metrics`; ready when no check raises.

    Args:
        host: Address to listen on.
        port: Port to listen on, 0 for any free one; None listens nowhere.
        checks: Name → a coroutine function that raises when that part can't do its work.
        metrics: what `/metrics` shows; None shows nothing.
    """

    def __init__(
        self, host: str, port: int | None, checks: Mapping[str, Check], metrics: Metrics | None = None
    ) -> None:
        self._host, self._port, self._checks, self._metrics = host, port, checks, metrics
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int | None:
        """The port it listens on."""
        return self._server.sockets[0].getsockname()[1] if self._server else None

    async def __aenter__(self) -> Self:
        """Start listening."""
        if self._port is not None:
            self._server = await asyncio.start_server(self._answer, self._host, self._port, limit=8192)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def missing(self) -> list[str]:
        """Names of the checks that fail now."""

        async def fails(check: Check) -> bool:
            try:
                async with asyncio.timeout(_CHECK_SECONDS):
                    await check()
            except Exception:  # noqa: BLE001 - whatever it raises, it isn't ready
                return True
            return False

        results = await asyncio.gather(*(fails(check) for check in self._checks.values()))
        return [name for name, failed in zip(self._checks, results, strict=True) if failed]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        status, body, kind = "400 Bad Request", b"bad request", "text/plain"
        with suppress(Exception):
            async with asyncio.timeout(_SECONDS):
                request = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n", 1)[0].split(b" ")
            status, body, kind = await self._respond(request)
        with suppress(Exception):
            async with asyncio.timeout(_SECONDS):
                writer.write(
                    f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                    "Cache-Control: no-store\r\nConnection: close\r\n\r\n".encode("ascii")
                    + body
                )
                await writer.drain()
        writer.close()
        with suppress(Exception):
            await writer.wait_closed()

    async def _respond(self, request: list[bytes]) -> tuple[str, bytes, str]:
        plain = "text/plain"
        match request:
            case [b"GET", b"/healthz", _]:
                return "200 OK", b"ok", plain
            case [b"GET", b"/readyz", _]:
                missing = await self.missing()
                if missing:
                    return "503 Service Unavailable", f"not ready: {', '.join(missing)}".encode(), plain
                return "200 OK", b"ready", plain
            case [b"GET", b"/metrics", _] if self._metrics is not None:
                missing = await self.missing()
                for check in self._checks:
                    self._metrics.ready(check, answers=check not in missing)
                return "200 OK", await asyncio.to_thread(self._metrics.render), CONTENT_TYPE
            case [_, b"/healthz" | b"/readyz" | b"/metrics", _]:
                return "405 Method Not Allowed", b"GET only", plain
            case [_, _, _]:
                return "404 Not Found", b"there are /healthz, /readyz and /metrics", plain
            case _:
                return "400 Bad Request", b"bad request", plain
