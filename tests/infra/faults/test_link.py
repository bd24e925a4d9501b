"""Each way in which a link misbehaves, on a server that counts what it was asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from infra.faults.link import Link


class Counting:
    """An HTTP server that counts requests and answers each with 200."""

    def __init__(self) -> None:
        self.asked = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                if length:
                    await reader.readexactly(int(length[0].split(b":")[1]))
                self.asked += 1
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Counting]:
    counting = Counting()
    listening = await asyncio.start_server(counting.serve, "127.0.0.1", 0)
    counting.port = listening.sockets[0].getsockname()[1]
    yield counting
    listening.close()


@pytest.fixture
async def link(server: Counting) -> AsyncIterator[Link]:
    async with Link("server", server.port, http=True) as link:
        yield link


@pytest.fixture
async def client(link: Link) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{link.port}", timeout=5) as client:
        yield client


async def test_a_well_behaved_link_passes_everything(
    link: Link, client: httpx.AsyncClient, server: Counting
) -> None:
    for _ in range(3):
        assert (await client.put("/", content=b"x" * 200_000)).text == "ok"
    assert (server.asked, link.passed, link.spoiled) == (3, 1, 0)


async def test_cut_resets_what_is_open_and_nothing_else(
    link: Link, client: httpx.AsyncClient, server: Counting
) -> None:
    await client.get("/")
    assert link.cut() == 1
    await asyncio.sleep(0.05)
    assert (await client.get("/")).text == "ok"  # over another connection
    assert (server.asked, link.passed) == (2, 2)


async def test_refused_is_not_answered_until_it_is_over(
    link: Link, client: httpx.AsyncClient, server: Counting
) -> None:
    with link.misbehaving("refused"), pytest.raises(httpx.TransportError):
        await client.get("/")
    assert server.asked == 0
    assert (await client.get("/")).text == "ok"


async def test_slow_takes_its_time(link: Link, client: httpx.AsyncClient) -> None:
    began = time.monotonic()
    with link.misbehaving("slow", delay=0.2):
        assert (await client.get("/")).text == "ok"
    assert time.monotonic() - began >= 0.4  # there and back


async def test_half_open_says_nothing_and_then_resets(
    link: Link, client: httpx.AsyncClient, server: Counting
) -> None:
    await client.get("/")
    with link.misbehaving("half-open"):
        waiting = asyncio.create_task(client.get("/"))
        await asyncio.sleep(0.3)
        assert not waiting.done()
    with pytest.raises(httpx.TransportError):
        await waiting
    assert server.asked == 1


async def test_a_lost_answer_was_carried_out(link: Link, client: httpx.AsyncClient, server: Counting) -> None:
    with link.misbehaving("lost"), pytest.raises(httpx.TransportError):
        await client.put("/", content=b"1")
    assert (server.asked, link.spoiled) == (1, 1)


async def test_5xx_never_reaches_the_server(link: Link, client: httpx.AsyncClient, server: Counting) -> None:
    with link.misbehaving("5xx"):
        answer = await client.put("/", content=b"x" * 100_000)
    assert (answer.status_code, server.asked, link.spoiled) == (503, 0, 1)
    assert "<Code>SlowDown</Code>" in answer.text


async def test_5xx_after_success_was_carried_out(
    link: Link, client: httpx.AsyncClient, server: Counting
) -> None:
    with link.misbehaving("5xx after"):
        answer = await client.put("/", content=b"x" * 100_000)
    assert (answer.status_code, server.asked, link.spoiled) == (500, 1, 1)
