"""Real S3 servers on loopback: moto's in this process, and the juicefs gateway (MinIO's code) as a second, independent one."""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qsl

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from infra.processes import free_port


@dataclass(frozen=True)
class S3Server:
    """Where a server listens and the credentials that it takes; `options` go to `open_store`."""

    name: str
    endpoint: str
    access_key: str
    secret_key: str

    @property
    def options(self) -> dict[str, str]:
        return {
            "endpoint_url": self.endpoint,
            "region": "us-east-1",
            "access_key": self.access_key,
            "secret_key": self.secret_key,
        }

    def client(self):
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 2}),
        )


@contextlib.contextmanager
def moto_server() -> Iterator[S3Server]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield S3Server("moto", f"http://{host}:{port}", "test", "test-secret")
    finally:
        server.stop()


class Strict:
    """WSGI in front of moto: what AWS does and moto does not, and every fault a network can have, on demand.

    It refuses bodies whose SHA-256 differs from `x-amz-checksum-sha256` (BadDigest) and shows the checksums of parts
    in ListParts. `faults` is a list of functions (method, path, query) -> fault name or None; a fault is consumed
    when it answers: "403", "404", "500", "503", "cut" (before anything is done), "lost" (done, but the answer is
    cut), "short" (the body ends early), "stale" (an older body under the old ETag), "no-range", "wrong-range".
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self.faults: list[Callable[[str, str, dict[str, str]], str | None]] = []
        self.requests: list[tuple[str, str, int]] = []
        self.sums: dict[tuple[str, int], str] = {}

    def fail(self, kind: str, method: str = "", contains: str = "", times: int = 1) -> None:
        left = [times]

        def fault(verb: str, path: str, query: dict[str, str]) -> str | None:
            text = path + "?" + "&".join(f"{k}={v}" for k, v in query.items())
            if left[0] and (not method or verb == method) and contains in text:
                left[0] -= 1
                return kind
            return None

        self.faults.append(fault)

    def calm(self) -> None:
        self.faults.clear()
        self.requests.clear()

    def __call__(self, environ: dict[str, Any], start: Any) -> Any:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        query = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length) if length else b""
        environ["wsgi.input"] = io.BytesIO(body)
        self.requests.append((method, path, length))
        fault = next((f for f in (fault(method, path, query) for fault in self.faults) if f), None)
        if fault == "cut":
            self._cut(environ)
        if fault in {"403", "404", "500", "503"}:
            code = {"403": "AccessDenied", "404": "NoSuchKey", "500": "InternalError", "503": "SlowDown"}[
                fault
            ]
            return self._error(start, f"{fault} fault", code, method)
        claimed = environ.get("HTTP_X_AMZ_CHECKSUM_SHA256")
        if method == "PUT" and claimed and b64encode(sha256(body).digest()).decode() != claimed:
            return self._error(start, "400 Bad Request", "BadDigest", method)
        if method == "PUT" and claimed and "partNumber" in query:
            self.sums[query["uploadId"], int(query["partNumber"])] = claimed
        if fault in {"no-range", "wrong-range"}:
            asked = environ.pop("HTTP_RANGE", None)
            if fault == "wrong-range":
                first, last = map(int, asked.removeprefix("bytes=").split("-"))
                environ["HTTP_RANGE"] = f"bytes={first - 1}-{last - 1}"
        if fault == "stale":  # a cache that answers an old object whatever was asked
            environ.pop("HTTP_IF_MATCH", None)
        said: list[Any] = []
        pieces = b"".join(self.app(environ, lambda status, headers, exc=None: said.append((status, headers))))
        status, headers = said[0]
        if fault == "lost":
            self._cut(environ)
        if fault == "stale":
            headers = [
                (k, '"00000000000000000000000000000000"' if k.lower() == "etag" else v) for k, v in headers
            ]
        if method == "GET" and "uploadId" in query and status.startswith("200"):
            pieces = re.sub(
                rb"<PartNumber>(\d+)</PartNumber>",
                lambda m: (
                    m[0]
                    + b"<ChecksumSHA256>"
                    + self.sums.get((query["uploadId"], int(m[1])), "").encode()
                    + b"</ChecksumSHA256>"
                ),
                pieces,
            )
            headers = [(k, v) for k, v in headers if k.lower() != "content-length"]
            headers.append(("Content-Length", str(len(pieces))))
        start(status, headers)
        if fault == "short":
            return self._short(environ, pieces)
        return [pieces]

    def _short(self, environ: dict[str, Any], body: bytes) -> Iterator[bytes]:
        yield body[: len(body) // 2]
        self._cut(environ)

    def _cut(self, environ: dict[str, Any]) -> NoReturn:
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError

    def _error(self, start: Any, status: str, code: str, method: str) -> list[bytes]:
        body = f"<Error><Code>{code}</Code><Message>on demand</Message></Error>".encode()
        start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [b"" if method == "HEAD" else body]


@dataclass(frozen=True)
class StrictServer(S3Server):
    control: Strict = None  # type: ignore[assignment]


@contextlib.contextmanager
def strict_server() -> Iterator[StrictServer]:
    """moto behind `Strict`, in this process."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_request(self, code: Any = "-", size: Any = "-") -> None:
            pass

        def log_error(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    control = Strict(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, control, threaded=True, request_handler=Quiet)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield StrictServer("strict", f"http://127.0.0.1:{server.server_port}", "test", "test-secret", control)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@contextlib.contextmanager
def juicefs_server(folder: Path) -> Iterator[S3Server]:
    """A juicefs gateway over SQLite metadata and file storage in `folder`; ended by its own process handle."""
    binary = Path(sys.executable).with_name("juicefs")
    meta, port = f"sqlite3://{folder}/meta.db", free_port()
    user, password = "sluice-test", "sluice-test-secret"
    env = {
        **os.environ,
        "MINIO_ROOT_USER": user,
        "MINIO_ROOT_PASSWORD": password,
        "HOME": str(folder),
        "JFS_NO_UMOUNT": "1",
    }
    log = (folder / "juicefs.log").open("wb")
    with log:
        subprocess.run(
            [
                binary,
                "format",
                "--storage",
                "file",
                "--bucket",
                f"{folder}/blocks/",
                "--trash-days",
                "0",
                meta,
                "vol",
            ],
            env=env,
            check=True,
            stdout=log,
            stderr=log,
            cwd=folder,
        )
        process = subprocess.Popen(
            [
                binary,
                "gateway",
                "--multi-buckets",
                "--keep-etag",
                "--no-banner",
                "--no-usage-report",
                "--cache-dir",
                f"{folder}/cache",
                "--log",
                f"{folder}/gateway.log",
                meta,
                f"127.0.0.1:{port}",
            ],
            env=env,
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    server = S3Server("juicefs", f"http://127.0.0.1:{port}", user, password)
    try:
        client = server.client()
        deadline = time.monotonic() + 30
        while True:
            try:
                client.list_buckets()
                break
            except (BotoCoreError, ClientError):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((folder / "juicefs.log").read_text()[-2000:]) from None
                time.sleep(0.1)
        client.close()
        yield server
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
