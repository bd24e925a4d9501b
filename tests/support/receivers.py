"""Where webhooks and notices go, on loopback: an HTTP receiver, and a mail server that wants TLS and a password."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult


@dataclass
class Receivers:
    """Ports, and what came. `posts`: the paths that were posted to; `mails`: recipients."""

    http: int = 0
    smtp: int = 0
    posts: list[str] = field(default_factory=list)
    mails: list[str] = field(default_factory=list)

    async def handle_DATA(self, _server, _session, envelope) -> str:
        self.mails += envelope.rcpt_tos
        return "250 OK"


def free_port() -> int:
    """A port of loopback that nobody has."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def receiving(certificate: Path, key: Path, user: str, password: str, port: int) -> Iterator[Receivers]:
    """Listen on loopback: the receiver on a free port, the mail server on the given one with this certificate."""
    came = Receivers(smtp=port)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            came.posts.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def authenticate(_server, _session, _envelope, _mechanism, data) -> AuthResult:
        return AuthResult(
            success=(data.login, data.password) == (user.encode(), password.encode()), handled=False
        )

    mail = Controller(
        came, hostname="127.0.0.1", port=port, tls_context=context, require_starttls=True,
        authenticator=authenticate, auth_required=True,
    )  # fmt: skip
    posts = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    came.http = posts.server_port
    thread = threading.Thread(target=posts.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    mail.start()
    try:
        yield came
    finally:
        mail.stop()
        posts.shutdown()
        posts.server_close()
        thread.join(5)
