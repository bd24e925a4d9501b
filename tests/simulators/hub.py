"""A Hub in this process: speaks its HTTP protocol to the real huggingface_hub client, and fails on demand.

    with HubSimulator() as hub:
        owner = hub.add_user("lab", orgs=["acme"])
        repo = hub.repo("acme/model", private=True)                 # as if made on the web page
        hub.upload("acme/model", {"config.json": b"{}"})
        HfApi(endpoint=hub.endpoint, token=owner.token).list_models()
        hub.fail(503, contains="/commit/", times=2)                 # or "cut", "lost", "short", "stale", "slow"

The protocol is in `hub_routes`, what it remembers in `hub_state`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from tests.simulators.hub_routes import Answer, Call, Routes
from tests.simulators.hub_state import Entry, Repo, Request, State, User


@dataclass
class Fault:
    kind: int | str
    method: str
    contains: str
    times: int
    headers: dict[str, str]


@dataclass(frozen=True)
class Seen:
    """One request as the Hub saw it."""

    method: str
    path: str
    user: str | None
    range: str | None
    sent: int


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is its own business."""


class HubSimulator:
    """The server and its controls. Use as a context manager."""

    def __init__(self) -> None:
        self.state = State()
        self.routes = Routes(self.state)
        self.requests: list[Seen] = []
        self._faults: list[Fault] = []
        self._limit: tuple[int, float] | None = None
        self._recent: dict[str | None, deque[float]] = {}
        hub = self

        class Handler(_Handler):
            simulator = hub

        # Two servers, as in life: a token that follows a redirect to the storage host has leaked.
        self._servers = [_Server(("127.0.0.1", 0), Handler) for _ in range(2)]
        self.endpoint, self.storage = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)
        self._threads = [
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
            for server in self._servers
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join(10)

    # -- the world behind the API -------------------------------------------------------------------------------

    def add_user(self, name: str, *, orgs: list[str] | tuple[str, ...] = (), role: str = "write") -> User:
        """A user with a fresh token; `role` "read" may change nothing."""
        return self.state.add_user(name, orgs=orgs, role=role)

    def repo(
        self,
        repo_id: str,
        *,
        kind: str = "model",
        private: bool = False,
        gated: str | bool = False,
        parameters: int | None = None,
        storage: int | None = None,
        created: datetime | None = None,
        tags: tuple[str, ...] = (),
    ) -> Repo:
        """A repository made by somebody, somewhere; `created` also sets when it was last modified."""
        repo = self.state.create(repo_id, kind=kind, private=private)
        repo.gated, repo.parameters, repo.card_tags = gated, parameters, tags
        repo.storage = storage
        if created:
            repo.created = repo.modified = created
        return repo

    def get(self, repo_id: str, kind: str = "model") -> Repo:
        """The live repository: change its fields to act as somebody on the web page."""
        return self.state.repos[kind, repo_id.lower()]

    def upload(
        self,
        repo_id: str,
        files: Mapping[str, bytes],
        *,
        kind: str = "model",
        author: str = "somebody",
        pull_request: bool = False,
    ) -> str:
        """Commit files behind the API's back; gives the commit id."""
        repo = self.get(repo_id, kind)
        entries = {path: self.state.entry(path, data) for path, data in files.items()}
        repo.large |= {e.sha256 for e in entries.values() if e.sha256}
        made, _ = self.state.commit(
            repo, "main", entries, (), title="upload", author=author, pull=pull_request
        )
        return made.oid

    def files(self, repo_id: str, revision: str = "main", kind: str = "model") -> dict[str, bytes]:
        """Every file of a revision, with its bytes."""
        found = self.get(repo_id, kind).at(revision).files
        return {path: self.state.blobs[entry.content_sha256] for path, entry in found.items()}

    def ask_access(self, repo_id: str, user: str) -> Request:
        """A user asks for access on the web page."""
        return self.state.ask_access(self.get(repo_id), user)

    def advance(self, by: timedelta) -> None:
        """Move the Hub's clock, for the dates of what happens next."""
        self.state.shift += by

    # -- faults ---------------------------------------------------------------------------------------------------

    def fail(
        self,
        kind: int | str,
        *,
        method: str = "",
        contains: str = "",
        times: int = 1,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Make the next `times` requests fail whose method and path (with query) fit.

        `kind`: an HTTP status · "cut": the connection ends before anything is done · "lost": it is done, the answer
        is cut · "short": the body ends in the middle · "stale": other bytes of the same length under the same ETag ·
        "no-range": the whole body with 200 whatever was asked · "slow": the answer takes two seconds.
        """
        self._faults.append(Fault(kind, method, contains, times, headers or {}))

    def rate_limit(self, calls: int, per_s: float) -> None:
        """From now on, each user may make `calls` API requests in `per_s` seconds; more are answered 429."""
        self._limit = (calls, per_s)
        self._recent.clear()

    def many_files(self, repo_id: str, count: int, size: int = 1_000_000) -> str:
        """A commit of so many large files at once, without their bytes: for listings."""
        digests = (hashlib.sha256(f"{repo_id}{i}".encode()).hexdigest() for i in range(count))
        entries = {f"part-{i:06}.bin": Entry(size, d[:40], d, d) for i, d in enumerate(digests)}
        repo = self.get(repo_id)
        made, _ = self.state.commit(repo, "main", entries, (), title="upload", author="somebody")
        return made.oid

    def same_page_for_ever(self) -> None:
        """From now on, the next page of every listing is its first page under another address."""
        self.routes.endless = True

    def next_page_at(self, address: str) -> None:
        """From now on, listings say that their next page is at `address`."""
        self.routes.next_link, self.routes.endless = address, True

    def calm(self) -> None:
        """No faults, no limit, no lies, an empty request log."""
        self.routes.endless, self.routes.next_link = False, ""
        self._faults.clear()
        self._limit = None
        self.requests.clear()

    # -- serving ----------------------------------------------------------------------------------------------------

    def _fault(self, method: str, target: str) -> Fault | None:
        with self.state.lock:
            for fault in self._faults:
                if fault.times and fault.contains in target and fault.method in {"", method}:
                    fault.times -= 1
                    return fault
        return None

    def _limited(self, user: User | None) -> Answer | dict[str, str]:
        """The refusal, or the headers that the answer gets."""
        if self._limit is None:
            return {}
        calls, per_s = self._limit
        with self.state.lock:
            recent = self._recent.setdefault(user and user.name, deque())
            now = time.monotonic()
            while recent and recent[0] <= now - per_s:
                recent.popleft()
            refused = len(recent) >= calls
            if not refused:
                recent.append(now)
            wait = recent[0] + per_s - now
        headers = {
            "RateLimit": f'"api";r={calls - len(recent)};t={int(wait) + 1}',
            "RateLimit-Policy": f'"fixed window";"api";q={calls};w={int(per_s) or 1}',
        }
        if not refused:
            return headers
        headers["Retry-After"] = str(int(wait) + 1)
        return Answer(429, json.dumps({"error": "We had to rate limit you"}).encode(), headers)


class _Cut(Exception):
    """End the connection now."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    simulator: HubSimulator
    timeout = 60

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(timestamp or self.simulator.state.now().timestamp())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        hub = self.simulator
        try:
            body = self._read_body()
            fault = hub._fault(self.command, self.path)
            kind = fault.kind if fault else None
            if kind == "cut":
                raise _Cut  # noqa: TRY301
            if kind == "slow":
                time.sleep(2)
            answer = self._answer(body, fault)
            if kind == "lost":
                raise _Cut  # noqa: TRY301
            self._send(answer, kind)
        except (_Cut, ConnectionError, TimeoutError):
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _read_body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, body: bytes, fault: Fault | None) -> Answer:
        hub = self.simulator
        url = urlsplit(self.path)
        headers = {k.lower(): v for k, v in self.headers.items()}
        token = headers.get("authorization", "").removeprefix("Bearer ")
        user = hub.state.users.get(token)
        name = user.name if user else None
        hub.requests.append(Seen(self.command, unquote(url.path), name, headers.get("range"), len(body)))
        if fault and isinstance(fault.kind, int):
            return Answer(fault.kind, b'{"error": "on demand"}', dict(fault.headers))
        if token and user is None:
            message = "Invalid credentials in Authorization header"
            return Answer(401, json.dumps({"error": message}).encode(), {"X-Error-Message": message})
        limited = hub._limited(user) if url.path.startswith("/api/") else {}
        if isinstance(limited, Answer):
            return limited
        query = parse_qs(url.query, keep_blank_values=True)
        call = Call(self.command, url.path, query, headers, body, user, hub.endpoint, hub.storage)
        with hub.state.lock:
            answer = hub.routes.answer(call)
        answer.headers.update(limited)
        return self._ranged(answer, headers.get("range"), fault.kind if fault else None)

    def _ranged(self, answer: Answer, asked: str | None, kind: int | str | None) -> Answer:
        if kind == "stale":
            answer = Answer(answer.status, bytes(b ^ 0x55 for b in answer.body), answer.headers)
        if answer.status != 200 or not asked or "Accept-Ranges" not in answer.headers or kind == "no-range":
            return answer
        first, _, last = asked.removeprefix("bytes=").partition("-")
        size = len(answer.body)
        start = int(first) if first else max(0, size - int(last))
        end = min(int(last), size - 1) if first and last else size - 1
        if start >= size:
            return Answer(416, b"", {"Content-Range": f"bytes */{size}"})
        headers = answer.headers | {"Content-Range": f"bytes {start}-{end}/{size}"}
        return Answer(206, answer.body[start : end + 1], headers)

    def _send(self, answer: Answer, kind: int | str | None) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if kind == "short":
            self.wfile.write(answer.body[: len(answer.body) // 2])
            self.wfile.flush()
            raise _Cut
        self.wfile.write(answer.body)
