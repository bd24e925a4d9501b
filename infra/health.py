"""A worker's answers to whoever watches it: `GET /healthz` (it runs) and `GET /readyz` (it can do its work now), on a port of its own.

Answers say nothing but ready or what is missing, by name. Each connection gets one answer and one second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

_SECONDS = 1.0
_CHECK_SECONDS = 4.0

Check = Callable[[], Awaitable[None]]


class HealthServer:
    """Serves `/healthz` and `/readyz`; ready when no check raises.

    Args:
        host: Address to listen on.
        port: Port to listen on, 0 for any free one; None listens nowhere.
        checks: Name → a coroutine function that raises when that part can't do its work.
    """

    def __init__(self, host: str, port: int | None, checks: Mapping[str, Check]) -> None:
        self._host, self._port, self._checks = host, port, checks
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
        status, body = "400 Bad Request", "bad request"
        with suppress(Exception):
            async with asyncio.timeout(_SECONDS):
                request = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n", 1)[0].split(b" ")
            status, body = await self._respond(request)
        with suppress(Exception):
            async with asyncio.timeout(_SECONDS):
                writer.write(
                    f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
                    f"Cache-Control: no-store\r\nConnection: close\r\n\r\n{body}".encode("ascii", "replace")
                )
                await writer.drain()
        writer.close()
        with suppress(Exception):
            await writer.wait_closed()

    async def _respond(self, request: list[bytes]) -> tuple[str, str]:
        match request:
            case [b"GET", b"/healthz", _]:
                return "200 OK", "ok"
            case [b"GET", b"/readyz", _]:
                missing = await self.missing()
                return (
                    ("503 Service Unavailable", "not ready: " + ", ".join(missing))
                    if missing
                    else ("200 OK", "ready")
                )
            case [_, b"/healthz" | b"/readyz", _]:
                return "405 Method Not Allowed", "GET only"
            case [_, _, _]:
                return "404 Not Found", "there are /healthz and /readyz"
            case _:
                return "400 Bad Request", "bad request"
