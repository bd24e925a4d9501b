import asyncio

import httpx
import pytest

from infra.health import HealthServer

pytestmark = pytest.mark.stack


async def fine():
    return None


async def broken():
    raise ConnectionError("postgresql://user:canary@host")


async def ask(server, path, method="GET"):
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        return await client.request(method, f"http://127.0.0.1:{server.port}{path}")


async def test_it_is_ready_when_every_check_passes():
    async with HealthServer("127.0.0.1", 0, {"temporal": fine, "database": fine}) as server:
        answer = await ask(server, "/readyz")
        assert (answer.status_code, answer.text) == (200, "ready")


async def test_it_names_what_is_missing_and_never_why():
    async with HealthServer("127.0.0.1", 0, {"temporal": fine, "database": broken}) as server:
        answer = await ask(server, "/readyz")
        assert (answer.status_code, answer.text) == (503, "not ready: database")
        assert (await ask(server, "/healthz")).status_code == 200


async def test_a_check_that_hangs_is_missing(monkeypatch):
    monkeypatch.setattr("infra.health._CHECK_SECONDS", 0.1)

    async def hangs():
        await asyncio.sleep(60)

    async with HealthServer("127.0.0.1", 0, {"kms": hangs}) as server:
        assert (await ask(server, "/readyz")).text == "not ready: kms"


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 404), ("POST", "/readyz", 405), ("GET", "/readyz?x", 404)]
)
async def test_it_answers_nothing_else(method, path, status):
    async with HealthServer("127.0.0.1", 0, {}) as server:
        assert (await ask(server, path, method)).status_code == status


@pytest.mark.parametrize(
    "sent", [b"", b"\r\n\r\n", b"GET /readyz\r\n\r\n", b"x" * 20_000, b"\xff\x00\r\n\r\n"]
)
async def test_nonsense_and_silence_do_not_hold_it(monkeypatch, sent):
    monkeypatch.setattr("infra.health._SECONDS", 0.2)
    async with HealthServer("127.0.0.1", 0, {}) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(sent)
        async with asyncio.timeout(5):
            try:
                assert (await reader.read()).startswith(b"HTTP/1.1 400")
            except ConnectionResetError:
                assert len(sent) > 8192, "only what is too long may be cut off"
        writer.close()
        assert (await ask(server, "/healthz")).status_code == 200


async def test_without_a_port_it_listens_nowhere():
    async with HealthServer("127.0.0.1", None, {}) as server:
        assert server.port is None
