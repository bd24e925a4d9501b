"""A small TCP proxy between our processes and one server, that can be made to misbehave like a network does.

    cut         every connection is reset now; new ones work
    refused     connections are reset, and so are new ones, for a while
    slow        every piece of data takes so many seconds, for a while
    half-open   nothing is passed on any more and nobody is told; after a while the connections are reset
    lost        the next request reaches the server, its answer does not reach us: the connection is reset instead
    5xx         (HTTP) requests are answered 503 by the proxy and never reach the server, for a while
    5xx after   (HTTP) the next requests reach the server, and are answered 500 whatever it says

Single-threaded, on the campaign's own event loop. Only loopback.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal, Self

Mode = Literal["fine", "refused", "slow", "half-open", "lost", "5xx", "5xx after"]

_CHUNK = 65_536
_XML = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>on purpose</Message>'
    b"<Resource>/</Resource><RequestId>0</RequestId></Error>"
)


def _answer(status: bytes, code: bytes) -> bytes:
    body = _XML % code
    head = b"HTTP/1.1 %s\r\nContent-Type: application/xml\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    return head % (status, len(body)) + body


_BUSY = _answer(b"503 Service Unavailable", b"SlowDown")
_BROKEN = _answer(b"500 Internal Server Error", b"InternalError")


@dataclass(eq=False)
class _Pair:
    """One connection and its other half."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None

    def reset(self) -> None:
        for writer in (self.client, self.server):
            if writer is not None:
                writer.transport.abort()


@dataclass
class Link:
    """The way to one server. Use it as an async context manager.

    Attributes:
        name: of the server.
        target: the port that the server listens on; set it before anybody connects.
        http: it is spoken in clear HTTP/1.1, so that answers can be made up.
        port: where it listens.
        passed: connections so far.
    """

    name: str
    target: int = 0
    http: bool = False
    port: int = 0
    passed: int = 0
    _mode: Mode = "fine"
    _delay: float = 0.0
    _pairs: set[_Pair] = field(default_factory=set)
    _server: asyncio.Server | None = None
    _fine: asyncio.Event = field(default_factory=asyncio.Event)
    #: Connections to be spoiled by `lost` and `5xx after`, and how many were.
    _spoiled: int = 0

    async def __aenter__(self) -> Self:
        """Listen on a free port."""
        self._fine.set()
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Reset what is open, and listen no more."""
        self.cut()
        if self._server is not None:
            self._server.close()

    def cut(self) -> int:
        """Reset every connection; how many there were."""
        pairs = list(self._pairs)
        for pair in pairs:
            pair.reset()
        return len(pairs)

    @contextmanager
    def misbehaving(self, mode: Mode, delay: float = 0.0) -> Iterator[None]:
        """Behave like this in the block, and well after it.

        Args:
            mode: see the module.
            delay: seconds for each piece of data, for `slow`.
        """
        self._mode, self._delay = mode, delay
        self._fine.clear()
        if mode in {"refused", "5xx"}:
            self.cut()
        try:
            yield
        finally:
            self._mode = "fine"
            self._fine.set()
            if mode == "half-open":
                self.cut()

    @property
    def spoiled(self) -> int:
        """Answers that were lost or replaced so far."""
        return self._spoiled

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = _Pair(writer)
        self._pairs.add(pair)
        self.passed += 1
        try:
            if self._mode == "refused":
                return
            if self._mode == "5xx" and self.http:
                await self._told_busy(reader, writer)
                return
            server_reader, pair.server = await asyncio.open_connection("127.0.0.1", self.target)
            passing = (
                asyncio.create_task(self._pass(reader, pair.server, pair, answers=False)),
                asyncio.create_task(self._pass(server_reader, writer, pair, answers=True)),
            )
            try:
                await asyncio.gather(*passing)
            finally:
                for task in passing:
                    task.cancel()
                await asyncio.gather(*passing, return_exceptions=True)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # either side has gone: so does the other
        finally:
            self._pairs.discard(pair)
            pair.reset()

    async def _told_busy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request, as far as it comes, and say no."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            ),
            0,
        )
        if b"100-continue" not in head.lower():
            with suppress(asyncio.IncompleteReadError):
                await reader.readexactly(length)
        self._spoiled += 1
        writer.write(_BUSY)
        await writer.drain()
        writer.write_eof()
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await reader.read()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pair: _Pair, *, answers: bool
    ) -> None:
        """Pass data on one way until its end."""
        while data := await reader.read(_CHUNK):
            if self._mode == "half-open":
                await self._fine.wait()  # and then it is reset
                return
            if self._mode == "slow":
                await asyncio.sleep(self._delay)
            if answers and self._mode in {"lost", "5xx after"} and not data.startswith(b"HTTP/1.1 100"):
                self._spoiled += 1
                if self._mode == "5xx after" and self.http:
                    await self._told_broken(pair.client)
                pair.reset()
                return
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            with suppress(OSError, RuntimeError):
                writer.write_eof()

    async def _told_broken(self, client: asyncio.StreamWriter) -> None:
        client.write(_BROKEN)
        await client.drain()
        client.write_eof()
        await asyncio.sleep(0.05)  # a reset right behind it would overtake it
