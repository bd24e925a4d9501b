"""Named addresses: changes by their headers, and servers that lie, redirect inside, or never end."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from artifacts.leaks import AddressPolicy
from artifacts.leaks.watching import Options, PollLimits, SourceError, Trouble, open_source


class Files(http.server.ThreadingHTTPServer):
    """Answers by path from `answers`: status and headers, and a body or an endless one."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, tuple[int, dict[str, str], bytes | None]] = {}
        self.seen: list[tuple[str, str, dict[str, str]]] = []

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Files
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        self.server.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        status, headers, body = self.server.answers.get(self.path, (404, {}, b""))
        if self.command == "HEAD" and headers.get("X-No-Head"):
            status, headers, body = 405, {}, b""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if body is None:  # for ever
            self.send_header("Connection", "close")
            self.end_headers()
            try:
                while self.command != "HEAD":
                    self.wfile.write(b"x" * 65536)
            except OSError:
                self.close_connection = True
            return
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET


@pytest.fixture
def files() -> Iterator[Files]:
    server = Files()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


def _source(files: Files, *paths: str, headers: dict[str, str] | None = None, **limits: Any) -> Any:
    options = Options(
        addresses=AddressPolicy(allow=(f"127.0.0.1:{files.server_port}",)),
        limits=PollLimits(**{"max_wait": 3.0, **limits}),
        url_headers={"127.0.0.1": headers or {}},
    )
    return open_source({"kind": "urls", "name": "urls", "urls": [files.base + p for p in paths]}, options)


def test_a_candidate_when_it_appears_and_when_it_changes(files: Files) -> None:
    source = _source(files, "/model.bin?token=secret")
    polled = source.poll(None, 10)
    assert polled.candidates == ()
    files.answers["/model.bin?token=secret"] = (200, {"ETag": '"a"'}, b"x" * 5)
    polled = source.poll(polled.cursor, 10)
    (first,) = polled.candidates
    assert first.size == 5
    assert first.target.endswith("?token=secret")
    assert "secret" not in first.model_copy(update={"target": ""}).model_dump_json()
    again = source.poll(polled.cursor, 10)
    assert again.candidates == ()
    files.answers["/model.bin?token=secret"] = (200, {"ETag": '"b"'}, b"x" * 5)
    (second,) = source.poll(again.cursor, 10).candidates
    assert second.key != first.key


@pytest.mark.parametrize(
    "headers", [{"Last-Modified": "Wed, 25 Nov 2026 10:00:00 GMT"}, {}, {"X-No-Head": "1"}]
)
def test_servers_without_etag_or_head(files: Files, headers: dict[str, str]) -> None:
    files.answers["/a"] = (200, headers, b"one")
    source = _source(files, "/a")
    polled = source.poll(None, 10)
    assert len(polled.candidates) == 1
    assert source.poll(polled.cursor, 10).candidates == ()
    assert bool(polled.notes) is ("Last-Modified" not in headers)
    files.answers["/a"] = (200, {k: v.replace("10:", "11:") for k, v in headers.items()}, b"two")
    assert len(source.poll(polled.cursor, 10).candidates) == 1


@pytest.mark.parametrize(
    "to", ["http://169.254.169.254/x", "http://10.0.0.1/", "http://[::1]:1/", "file:///etc/passwd"]
)
def test_redirects_inside_are_not_followed(files: Files, to: str) -> None:
    files.answers["/a"] = (302, {"Location": to}, b"")
    with pytest.raises(SourceError) as caught:
        _source(files, "/a").poll(None, 10)
    assert caught.value.trouble is Trouble.ADDRESS
    assert len(files.seen) == 1


def test_one_bad_address_does_not_hide_the_good_ones(files: Files) -> None:
    files.answers["/bad"] = (302, {"Location": "http://10.0.0.1/"}, b"")
    files.answers["/worse"] = (302, {"Location": "/worse"}, b"")
    files.answers["/good"] = (200, {"ETag": '"1"'}, b"x")
    polled = _source(files, "/bad", "/worse", "/good").poll(None, 10)
    assert [c.target for c in polled.candidates] == [files.base + "/good"]
    assert "10.0.0.1" in polled.failed or "not public" in polled.failed
    assert "redirects" in polled.failed


def test_endless_bytes_are_hung_up_on(files: Files) -> None:
    files.answers["/a"] = (200, {}, None)  # says nothing of its content, so its beginning is read
    polled = _source(files, "/a", max_answer_bytes=1 << 20).poll(None, 10)
    assert len(polled.candidates) == 1
    assert polled.candidates[0].size is None


def test_credentials_stay_with_their_host(files: Files) -> None:
    other = Files()
    thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        files.answers["/a"] = (302, {"Location": f"http://127.0.0.1:{other.server_port}/b"}, b"")
        other.answers["/b"] = (200, {"ETag": '"1"'}, b"x")
        options = Options(
            addresses=AddressPolicy(allow=("127.0.0.1",)),
            url_headers={"127.0.0.1": {"Authorization": "Bearer s"}},
        )
        source = open_source({"kind": "urls", "name": "urls", "urls": [files.base + "/a"]}, options)
        assert len(source.poll(None, 10).candidates) == 1
        assert files.seen[0][2]["authorization"] == "Bearer s"
        assert "authorization" not in other.seen[0][2]
    finally:
        other.shutdown()
        other.server_close()
        thread.join(10)


def test_429_waits_as_long_as_asked(files: Files) -> None:
    files.answers["/a"] = (429, {"Retry-After": "17"}, b"")
    with pytest.raises(SourceError) as caught:
        _source(files, "/a").poll(None, 10)
    assert (caught.value.trouble, caught.value.retry_after_s) == (Trouble.RATE_LIMITED, 17.0)
