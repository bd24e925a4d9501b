"""`sluice login` and `sluice logout`: a person signs in with the identity provider, from their own machine (RFC 8252).

The provider's page opens in the browser; the answer comes to a port of this machine that listens for it alone. What is kept is the
identity token, in a file that only its owner can read, until it ends.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import time
import webbrowser
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Annotated, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import typer

from orchestrator.cli.client import Client
from orchestrator.cli.config import checked_url, session_file
from orchestrator.cli.failures import LocalFailure, Refused
from orchestrator.cli.output import Output, escape

_PAGE = b"<!doctype html><meta charset=utf-8><title>Sluice</title><p>You can close this page and go back to the terminal."


@dataclass
class _Answer:
    """What the provider sent to our port."""

    query: dict[str, str] = field(default_factory=dict)


def login_command(
    out: Output,
    seconds: Annotated[
        int, typer.Option("--wait", min=5, max=900, help="How long to wait for the browser.")
    ] = 180,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page, or only print its address.")
    ] = True,
) -> None:
    """Sign in with the identity provider of your organisation."""
    with Client() as client:
        try:
            how = client.get("sign-in")
        except Refused as refused:
            if refused.status == 404:
                raise LocalFailure(
                    "Nobody signs in here with a browser", "use an API token: ask an operator for one"
                ) from None
            raise
        url = client.config.url
    token, expires = _authorise(how, seconds, out, browser=browser)
    _keep(url, token)
    person = _claims(token).get("preferred_username") or _claims(token).get("sub")
    until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(expires))
    out.result({"signed_in": person, "until": expires}, f"signed in as {escape(str(person))}, until {until}")


def logout_command(out: Output) -> None:
    """Forget the session on this machine."""
    file = session_file()
    there = file.exists()
    file.unlink(missing_ok=True)
    out.result({"signed_out": there}, "signed out" if there else "nobody was signed in")


def _authorise(how: dict[str, Any], seconds: int, out: Output, *, browser: bool) -> tuple[str, int]:
    state, verifier, nonce = (secrets.token_urlsafe(32) for _ in range(3))
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    answer = _Answer()
    with HTTPServer(("127.0.0.1", 0), _handler(answer, state)) as server:
        redirect = f"http://127.0.0.1:{server.server_address[1]}/callback"
        place = checked_url(str(how["authorization_endpoint"]), with_token=True)
        asked = {
            "response_type": "code",
            "client_id": how["client_id"],
            "redirect_uri": redirect,
            "scope": " ".join(how["scopes"]),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        address = f"{place}{'&' if urlsplit(place).query else '?'}{urlencode(asked)}"
        out.note(f"open this page to sign in:\n{address}")
        if browser:
            webbrowser.open(address)
        deadline = time.monotonic() + seconds
        while not answer.query and time.monotonic() < deadline:
            server.timeout = max(0.1, deadline - time.monotonic())
            server.handle_request()
    if "code" not in answer.query:
        told = answer.query.get("error", "no answer came in time")
        raise LocalFailure("You are not signed in", f"{told[:80]}; run `sluice login` again")
    if answer.query.get("iss", how["issuer"]) != how["issuer"]:
        raise LocalFailure("You are not signed in", "the answer came from another identity provider")
    return _token(how, answer.query["code"], redirect, verifier, nonce)


def _handler(answer: _Answer, state: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Takes one answer, and only the one to this sign-in."""

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            ours = parts.path == "/callback" and hmac.compare_digest(
                query.get("state", "").encode(), state.encode()
            )
            if ours:
                answer.query = query
            self.send_response(200 if ours else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(_PAGE) if ours else 0))
            self.end_headers()
            if ours:
                self.wfile.write(_PAGE)

        def log_message(self, *_args: Any) -> None:
            """Say nothing: the address holds the code."""

    return Handler


def _token(how: dict[str, Any], code: str, redirect: str, verifier: str, nonce: str) -> tuple[str, int]:
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect,
        "client_id": how["client_id"],
        "code_verifier": verifier,
    }
    place = checked_url(str(how["token_endpoint"]), with_token=True)
    try:
        found = httpx.post(place, data=form, timeout=20, follow_redirects=False)
        token = found.json().get("id_token") if found.status_code == httpx.codes.OK else None
    except (httpx.HTTPError, ValueError, AttributeError) as error:
        raise LocalFailure(
            "The identity provider does not answer", f"{urlsplit(place).hostname}: {type(error).__name__}"
        ) from None
    if not isinstance(token, str):
        raise LocalFailure(
            "The identity provider gave no token",
            "a command line cannot keep a secret: the client must be allowed as a public one, with PKCE",
        )
    claims = _claims(token)
    if claims.get("nonce") != nonce or not isinstance(claims.get("exp"), int):
        raise LocalFailure("The identity provider gave another token", "run `sluice login` again")
    return token, claims["exp"]


def _claims(token: str) -> dict[str, Any]:
    """The claims, for showing: whether they hold is the service's to say."""
    try:
        body = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (IndexError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _keep(url: str, token: str) -> None:
    file = session_file()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        json.dump({"url": url, "token": token}, out)
    temporary.replace(file)
