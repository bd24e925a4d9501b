"""The demo's leak: a real copy of the weights, renamed and at half the precision, on a web server of this machine."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

NAME = "definitely-my-own-model.safetensors"
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


def make_copy(weights: Path, folder: Path) -> Path:
    """What a leaker would publish: other names for the tensors, fp16 instead of fp32."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"block.{number}": tensor.astype(np.float16) if tensor.dtype == np.float32 else tensor
        for number, tensor in enumerate(load_file(weights).values())
    }
    save_file(tensors, folder / NAME)
    return folder / NAME


@contextmanager
def serving(file: Path) -> Iterator[str]:
    """Serve one file by ranges on loopback; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            """Say nothing."""

        def do_HEAD(self) -> None:
            """Size and mark of the file."""
            self._head(200, file.stat().st_size)

        def do_GET(self) -> None:
            """The file, or a range of it."""
            size = file.stat().st_size
            asked = _RANGE.fullmatch(self.headers.get("Range", ""))
            first, last = (int(asked[1]), min(int(asked[2]), size - 1)) if asked else (0, size - 1)
            if first >= size:
                self._head(416, 0)
                return
            with file.open("rb") as opened:
                opened.seek(first)
                data = opened.read(last - first + 1)
            self._head(206 if asked else 200, len(data), f"bytes {first}-{last}/{size}" if asked else None)
            self.wfile.write(data)

        def _head(self, status: int, length: int, content_range: str | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.send_header("ETag", '"demo"')
            self.send_header("Accept-Ranges", "bytes")
            if content_range is not None:
                self.send_header("Content-Range", content_range)
            self.end_headers()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="leak", daemon=True
    )
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/{NAME}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
