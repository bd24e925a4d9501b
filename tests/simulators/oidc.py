"""An OpenID provider: discovery, authorisation code with PKCE, tokens, key rotation, a clock of its own, back-channel logout.

It does what a provider has to (codes count once, redirect address and verifier are compared, the secret is asked for), so that a
client that does less is found out. What tests can make it do wrong: answer nothing, sign with a key that it took back, show another
issuer, set its clock.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey


@dataclass
class Provider:
    """The provider. `user`: who is signed in at it, as claims; None: nobody, and it says `access_denied`."""

    issuer: str = ""
    client_id: str = "sluice"
    client_secret: str | None = "client-secret-canary"
    user: dict[str, Any] | None = None
    skew: float = 0.0
    down: bool = False
    shown_issuer: str | None = None
    lifetime: float = 300.0
    keys: list[Any] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rotate("RSA")

    def now(self) -> float:
        return time.time() + self.skew

    def rotate(self, kind: str = "EC", *, keep: bool = False) -> None:
        """Sign with a new key; the old one is gone at once unless it is kept."""
        made: Any
        parameters = {"kid": secrets.token_hex(4)}
        made = (
            RSAKey.generate_key(2048, parameters)
            if kind == "RSA"
            else ECKey.generate_key("P-256", parameters)
        )
        self.keys = [made, *(self.keys if keep else [])]

    def sign(self, claims: dict[str, Any], key: Any = None, **header: Any) -> str:
        """A token with these claims as they are."""
        key = key or self.keys[0]
        algorithm = "RS256" if key.key_type == "RSA" else "ES256"
        return jwt.encode({"alg": algorithm, "kid": key.kid, **header}, claims, key)

    def token(self, **claims: Any) -> str:
        """An identity token of the user; claims given replace its own, None leaves one out."""
        now = int(self.now())
        whole = {
            "iss": self.issuer,
            "aud": self.client_id,
            "iat": now,
            "exp": int(now + self.lifetime),
            **(self.user or {}),
            **claims,
        }
        return self.sign({name: value for name, value in whole.items() if value is not None})

    def logout_token(self, **claims: Any) -> str:
        """What it sends to its clients when a session ends."""
        whole = {
            "iss": self.issuer,
            "aud": self.client_id,
            "iat": int(self.now()),
            "exp": int(self.now() + 120),
            "jti": secrets.token_hex(8),
            "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
            **claims,
        }
        return self.sign({name: value for name, value in whole.items() if value is not None})

    # --- its endpoints

    def answer(
        self, method: str, target: str, headers: Any, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        parts = urlsplit(target)
        self.requests.append(f"{method} {parts.path}")
        if self.down:
            return 503, {}, b"down"
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        match parts.path:
            case "/.well-known/openid-configuration":
                return _json(
                    {
                        "issuer": self.shown_issuer or self.issuer,
                        "authorization_endpoint": f"{self.issuer}/authorize",
                        "token_endpoint": f"{self.issuer}/token",
                        "jwks_uri": f"{self.issuer}/keys",
                        "end_session_endpoint": f"{self.issuer}/out",
                    }
                )
            case "/keys":
                return _json(KeySet(self.keys).as_dict(private=False))
            case "/authorize":
                return self._authorize(query)
            case "/token" if method == "POST":
                form = {name: values[-1] for name, values in parse_qs(body.decode()).items()}
                return self._token(form, headers.get("Authorization"))
        return 404, {}, b"nothing here"

    def _authorize(self, query: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        if query.get("client_id") != self.client_id or query.get("code_challenge_method") != "S256":
            return 400, {}, b"bad client"
        back = {"state": query["state"], "iss": self.issuer}
        if self.user is None:
            back["error"] = "access_denied"
        else:
            code = secrets.token_urlsafe(16)
            self.codes[code] = query
            back["code"] = code
        return 302, {"Location": f"{query['redirect_uri']}?{urlencode(back)}"}, b""

    def _token(self, form: dict[str, str], authorization: str | None) -> tuple[int, dict[str, str], bytes]:
        if self.client_secret is not None and form.get("code_verifier") is not None:
            expected = base64.b64encode(f"{self.client_id}:{self.client_secret}".encode()).decode()
            if authorization != f"Basic {expected}":
                return _json({"error": "invalid_client"}, 401)
        asked = self.codes.pop(form.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if (
            asked is None
            or asked["redirect_uri"] != form.get("redirect_uri")
            or asked["code_challenge"] != challenge.rstrip(b"=").decode()
        ):
            return _json({"error": "invalid_grant"}, 400)
        more = {"nonce": asked["nonce"]} if "nonce" in asked else {}
        return _json(
            {
                "id_token": self.token(**more),
                "access_token": "opaque",
                "token_type": "Bearer",
                "expires_in": 300,
            }
        )


def _json(value: dict[str, Any], status: int = 200) -> tuple[int, dict[str, str], bytes]:
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()


@contextmanager
def providing(**more: Any) -> Iterator[Provider]:
    """Listen on a free port of loopback."""
    provider = Provider(**more)

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, answer = provider.answer(self.command, self.path, self.headers, body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = _handle

        def log_message(self, *_args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider.issuer = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
