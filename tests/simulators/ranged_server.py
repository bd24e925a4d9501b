"""An HTTP server of files by ranges, honest under `/ok/`, and lying in one named way under every other first folder."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import json
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

Handler = Callable[["Request"], None]


class Request(http.server.BaseHTTPRequestHandler):
    """One request; `files`, `lies` and `seen` are those of the server."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: RangedServer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it
        pass

    def do_GET(self) -> None:
        self.server.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
        lie, _, rest = self.path.lstrip("/").partition("/")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            handler = self.server.lies.get(lie)
            if handler is None:
                self.answer(404, b"no such way")
            else:
                self.name = urllib.parse.unquote(rest.partition("?")[0])
                handler(self)

    @property
    def data(self) -> bytes:
        return self.server.files[self.name]

    def wanted(self) -> tuple[int, int]:
        """First and last byte asked for, cut to the file."""
        begin, _, end = self.headers["Range"].removeprefix("bytes=").partition("-")
        return int(begin), min(int(end), len(self.data) - 1)

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def unframed(self, status: int, **headers: str) -> None:
        """A head without length: the body ends when the connection does."""
        self.close_connection = True
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Connection", "close")
        self.end_headers()


def span(begin: int, end: int, total: int | str) -> str:
    return f"bytes {begin}-{end}/{total}"


def ok(r: Request) -> None:
    if "Range" not in r.headers:
        r.answer(200, r.data, ETag='"1"')
        return
    begin, end = r.wanted()
    if begin >= len(r.data):
        r.answer(416, b"", Content_Range=f"bytes */{len(r.data)}")
        return
    r.answer(206, r.data[begin : end + 1], Content_Range=span(begin, end, len(r.data)), ETag='"1"')


def no_ranges(r: Request) -> None:
    r.answer(200, r.data)


def wrong_place(r: Request) -> None:
    begin, end = r.wanted()
    r.answer(206, r.data[begin : end + 1], Content_Range=span(begin + 1, end + 1, len(r.data)))


def other_bytes_second_time(r: Request) -> None:
    begin, end = r.wanted()
    shift = 0 if begin == 0 else 7
    r.answer(206, r.data[begin : end + 1], Content_Range=span(begin + shift, end + shift, len(r.data)))


def size_changes(r: Request) -> None:
    begin, end = r.wanted()
    total = len(r.data) + (begin > 0)
    r.answer(206, r.data[begin : end + 1], Content_Range=span(begin, end, total))


def etag_changes(r: Request) -> None:
    begin, end = r.wanted()
    r.answer(206, r.data[begin : end + 1], Content_Range=span(begin, end, len(r.data)), ETag=f'"{begin}"')


def short(r: Request) -> None:
    begin, end = r.wanted()
    r.unframed(206, Content_Range=span(begin, end, len(r.data)))
    r.wfile.write(r.data[begin : (begin + end) // 2])


def cut(r: Request) -> None:
    begin, end = r.wanted()
    r.send_response(206)
    r.send_header("Content-Range", span(begin, end, len(r.data)))
    r.send_header("Content-Length", str(end + 1 - begin))
    r.end_headers()
    r.wfile.write(r.data[begin : begin + 10])
    r.close_connection = True


def endless(r: Request) -> None:
    begin, end = r.wanted()
    r.unframed(206, Content_Range=span(begin, end, len(r.data)))
    pour(r)


def endless_whole(r: Request) -> None:
    r.unframed(200)
    pour(r)


def endless_promised(r: Request) -> None:
    r.close_connection = True
    r.send_response(200)
    r.send_header("Content-Length", str(10**15))
    r.end_headers()
    pour(r)


def pour(r: Request) -> None:
    """Up to a gigabyte, counted, as long as somebody takes it."""
    for _ in range(16384):
        r.wfile.write(bytes(65536))
        r.server.poured += 65536


def drip(r: Request) -> None:
    begin, end = r.wanted()
    r.unframed(206, Content_Range=span(begin, end, len(r.data)))
    for byte in r.data[begin : end + 1]:
        r.wfile.write(bytes([byte]))
        time.sleep(0.05)
        if r.server.stopping.is_set():
            return


def silent(r: Request) -> None:
    r.server.stopping.wait(20)
    r.close_connection = True


def compressed(r: Request) -> None:
    begin, end = r.wanted()
    body = gzip.compress(r.data[begin : end + 1])
    r.answer(206, body, Content_Range=span(begin, end, len(r.data)), Content_Encoding="gzip")


def no_content_range(r: Request) -> None:
    begin, end = r.wanted()
    r.answer(206, r.data[begin : end + 1])


def multipart(r: Request) -> None:
    r.answer(206, b"--x\r\n", Content_Type="multipart/byteranges; boundary=x")


def unknown_size(r: Request) -> None:
    begin, end = r.wanted()
    r.answer(206, r.data[begin : end + 1], Content_Range=span(begin, end, "*"))


def failing(r: Request) -> None:
    r.answer(503, b"later", Retry_After="3600")


def forbidden(r: Request) -> None:
    r.answer(403, b"no")


def redirect(r: Request) -> None:
    """To where the query says."""
    target = urllib.parse.unquote(r.path.partition("?")[2])
    r.answer(302, b"", Location=target)


def loop(r: Request) -> None:
    r.answer(302, b"", Location=r.path + "x")


def garbage(r: Request) -> None:
    r.close_connection = True
    r.wfile.write(b"\x00\xff not http at all\r\n\r\n")


def huge_head(r: Request) -> None:
    r.close_connection = True
    r.wfile.write(b"HTTP/1.1 206 Partial\r\nX: " + b"a" * (8 << 20))


class RangedServer(http.server.ThreadingHTTPServer):
    """Serves `files` on loopback; `seen` holds path and headers of every request."""

    daemon_threads = True

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.poured = 0
        self.stopping = threading.Event()
        self.lies: dict[str, Handler] = {
            "ok": ok, "no-ranges": no_ranges, "wrong-place": wrong_place, "other-bytes": other_bytes_second_time,
            "size-changes": size_changes, "etag-changes": etag_changes, "short": short, "cut": cut, "endless": endless,
            "endless-whole": endless_whole, "endless-promised": endless_promised, "drip": drip, "silent": silent,
            "compressed": compressed, "no-content-range": no_content_range, "multipart": multipart,
            "unknown-size": unknown_size, "failing": failing, "forbidden": forbidden, "redirect": redirect, "loop": loop,
            "garbage": garbage, "huge-head": huge_head,
        }  # fmt: skip
        super().__init__(("127.0.0.1", 0), Request)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextlib.contextmanager
def running() -> Iterator[RangedServer]:
    server = RangedServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()


def add_hub(server: RangedServer, repository: str, files: dict[str, bytes], *, pages: int = 0) -> None:
    """Make the server answer for one repository as the Hub does: revision, tree (pages that never end, if asked), resolve."""
    import hashlib

    commit = "c0ffee" * 6 + "beef"
    server.files.update({f"{repository}/{name}": data for name, data in files.items()})

    def listed(name: str, data: bytes) -> dict[str, Any]:
        sha = hashlib.sha256(data).hexdigest()
        lfs = {"oid": sha, "size": len(data), "pointerSize": 130}
        return {
            "type": "file",
            "path": name,
            "size": len(data),
            "oid": sha[:40],
            "lfs": lfs,
            "xetHash": sha[::-1],
        }

    def api(r: Request) -> None:
        if f"/{repository}/" not in r.path:
            r.answer(404, b"{}", X_Error_Code="RepoNotFound", Content_Type="application/json")
            return
        if "/tree/" not in r.path:
            r.answer(
                200, json.dumps({"id": repository, "sha": commit}).encode(), Content_Type="application/json"
            )
            return
        headers = {"Content_Type": "application/json"}
        if pages:
            headers["Link"] = f'<{server.url("api" + r.path.removeprefix("/api"))}>; rel="next"'
            rows = [
                {"type": "file", "path": f"junk/{i}.txt", "size": 3, "oid": "0" * 40} for i in range(1000)
            ]
        else:
            rows = [listed(n, d) for n, d in files.items()]
        r.answer(200, json.dumps(rows).encode(), **headers)

    def resolve(r: Request) -> None:
        """The Hub sends large files on to another host, which must not see the token."""
        name = urllib.parse.unquote(r.path.partition("/resolve/")[2].partition("/")[2])
        r.answer(
            302,
            b"",
            Location=f"http://localhost:{server.port}/ok/{repository}/{name}?signature=secret",
            X_Repo_Commit=commit,
        )

    server.lies["api"] = api
    server.lies[repository.partition("/")[0]] = resolve
