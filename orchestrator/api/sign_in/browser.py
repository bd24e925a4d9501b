"""Signing in with a browser: authorisation code with PKCE (RFC 6749, 7636, 9700), a session in a cookie, and signing out.

    GET  /sign-in                     to the provider; `next` is a path of ours to come back to
    GET  /sign-in/callback            back from it
    GET  /sign-in/session             who is signed in, and the token that requests of pages carry
    POST /sign-in/out                 end the session
    POST /v1/sign-in/back-channel     the provider ends sessions (OpenID Connect Back-Channel Logout)
    GET  /v1/sign-in                  how a command line signs people in

What has to survive the way to the provider and back (state, nonce, verifier) lies sealed in a cookie of ten minutes; the session's
own cookie is HttpOnly and SameSite=Lax, and a request that changes something counts only with `X-Sluice-Session` beside it, which
another site's page can neither read nor set.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any
from urllib.parse import urlencode, urlsplit

import httpx
import structlog
from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import BaseModel, Field

from orchestrator.api.context import context_of
from orchestrator.api.deps import Deps, Parts
from orchestrator.api.problems import Unauthenticated, documented
from orchestrator.api.sign_in.settings import PeopleProvider
from orchestrator.api.sign_in.tokens import TokenRefused, Verifier
from orchestrator.domain.errors import Malformed, NotFound, Reason, Unavailable
from orchestrator.records import database, sign_ins

log = structlog.get_logger("sluice.api")

_ATTEMPT = timedelta(minutes=10)
_CONTEXT = b"sluice.release/sign-in/v1"
_DEFAULT_NEXT = "/console"

router = APIRouter(tags=["sign-in"])
pages = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class SingleSignOn:
    """The parts of single sign-on. `client_secret`: None for a public client."""

    verifier: Verifier
    http: httpx.Client
    client_secret: str | None = None

    @property
    def people(self) -> PeopleProvider:
        """Where people sign in.

        Raises:
            NotFound: nowhere.
        """
        found = self.verifier.settings.people
        if found is None:
            raise NotFound("nobody signs in here with a browser; use an API token")
        return found

    def metadata(self) -> dict[str, Any]:
        """What the provider says of itself."""
        return self.verifier.issuers[self.people.issuer].metadata()


def sso_of(deps: Deps) -> SingleSignOn:
    """Single sign-on, or `NotFound` when it is not set up."""
    if not isinstance(deps.sign_in, SingleSignOn):
        raise NotFound("single sign-on is not set up; use an API token")
    return deps.sign_in


# --- cookies


def cookie_name(deps: Deps, kind: str) -> str:
    """`__Host-…` where callers come over TLS: no other host and no subdomain can set it."""
    return f"__Host-sluice-{kind}" if _secure(deps) else f"sluice-{kind}"


def _secure(deps: Deps) -> bool:
    return deps.settings.public_url.startswith("https://")


def _set(response: Response, deps: Deps, kind: str, value: str, seconds: int) -> None:
    response.set_cookie(
        cookie_name(deps, kind),
        value,
        max_age=seconds,
        path="/",
        httponly=True,
        secure=_secure(deps),
        samesite="lax",
    )


def set_session(response: Response, deps: Deps, opened: sign_ins.NewSession, now: datetime) -> None:
    """Put a new session into the browser's cookie, for as long as it lasts."""
    seconds = max(1, int((opened.session.expires_at - now).total_seconds()))
    _set(response, deps, "session", opened.text, seconds)


def session_token(text: str) -> str:
    """What a page sends in `X-Sluice-Session`: made of the session, useless without its cookie."""
    return hashlib.sha256(b"sluice.release/page/v1\0" + text.encode()).hexdigest()


def session_of(request: Request, deps: Deps) -> sign_ins.OpenSession | None:
    """The session of the request's cookie; None when there is none, or when it changes something and comes from elsewhere."""
    text = request.cookies.get(cookie_name(deps, "session"))
    if text is None or not text.startswith(sign_ins.PREFIX):
        return None
    if request.method not in {"GET", "HEAD"}:
        given = request.headers.get("x-sluice-session", "")
        if not hmac.compare_digest(given.encode(), session_token(text).encode()):
            return None
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        return None
    with database.reading(deps.engine) as session:
        return sign_ins.find_session(session, text, deps.now())


# --- in


def local_path(path: str | None) -> str:
    """A path of ours to come back to, and nothing else."""
    if path is None or not path.startswith("/") or path.startswith(("//", "/\\")) or len(path) > 500:
        return _DEFAULT_NEXT
    parts = urlsplit(path)
    return path if not parts.netloc and not parts.scheme and path.isprintable() else _DEFAULT_NEXT


def _redirect_uri(deps: Deps) -> str:
    return deps.settings.public_url.rstrip("/") + "/sign-in/callback"


@pages.get("/sign-in")
def begin(deps: Parts, next: Annotated[str | None, Query()] = None) -> Response:  # noqa: A002 - the word in the address
    """Send the browser to the provider."""
    sso = sso_of(deps)
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    asked = {
        "response_type": "code",
        "client_id": sso.people.client_id,
        "redirect_uri": _redirect_uri(deps),
        "scope": " ".join(sso.people.scopes),
        "state": state,
        "nonce": nonce,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    place = str(sso.metadata()["authorization_endpoint"])
    joint = "&" if urlsplit(place).query else "?"
    response = RedirectResponse(f"{place}{joint}{urlencode(asked)}", status_code=303)
    kept = {
        "state": state,
        "nonce": nonce,
        "verifier": verifier,
        "next": local_path(next),
        "until": (deps.now() + _ATTEMPT).isoformat(),
    }
    sealed = base64.urlsafe_b64encode(deps.documents.seal(json.dumps(kept).encode(), _CONTEXT)).decode()
    _set(response, deps, "sign-in", sealed, int(_ATTEMPT.total_seconds()))
    return response


@pages.get("/sign-in/callback")
def come_back(
    request: Request,
    deps: Parts,
    state: Annotated[str | None, Query()] = None,
    code: Annotated[str | None, Query()] = None,
    error: Annotated[str | None, Query()] = None,
    iss: Annotated[str | None, Query()] = None,
) -> Response:
    """Take the code, ask for the token, open a session."""
    sso = sso_of(deps)
    kept = _attempt(request, deps)
    if kept is None or state is None or not hmac.compare_digest(state.encode(), kept["state"].encode()):
        raise Unauthenticated(
            "this sign-in was not begun here, or ten minutes are over; begin again at /sign-in"
        )
    if iss is not None and iss != sso.people.issuer:
        raise Unauthenticated("the answer comes from another identity provider; begin again at /sign-in")
    if error is not None or code is None:
        raise Unauthenticated(
            "the identity provider did not let you in",
            [Reason("provider", f"it said `{(error or 'nothing')[:60]}`; ask whoever runs it")],
        )
    token = _exchange(sso, deps, code, kept["verifier"])
    now = deps.now()
    try:
        person = sso.verifier.person(token, nonce=kept["nonce"])
    except TokenRefused as refused:
        log.warning("a sign-in was refused", why=str(refused))
        raise Unauthenticated(
            "you are signed in with the identity provider, but may not come in here",
            [
                Reason(
                    "sign-in",
                    "ask an operator: a principal of your name, and a group that carries a role, are needed",
                )
            ],
        ) from None
    known = sign_ins.Known(sso.people.issuer, person.subject, person.session, now)
    with database.writing(deps.engine) as session:
        opened = sign_ins.open_session(
            session,
            person.identity.name,
            person.identity.roles,
            known,
            expires_at=max(now, person.signed_in_at + timedelta(hours=sso.people.longest_hours)),
            at=now,
            address=context_of(request).client,
        )
    response = RedirectResponse(kept["next"], status_code=303)
    set_session(response, deps, opened, now)
    response.delete_cookie(cookie_name(deps, "sign-in"), path="/")
    return response


def _attempt(request: Request, deps: Deps) -> dict[str, str] | None:
    sealed = request.cookies.get(cookie_name(deps, "sign-in"))
    if sealed is None:
        return None
    try:
        kept: dict[str, str] = json.loads(
            deps.documents.open(base64.urlsafe_b64decode(sealed.encode()), _CONTEXT)
        )
        fresh = datetime.fromisoformat(kept["until"]) > deps.now()
    except Exception:  # noqa: BLE001 - whatever a browser sends, it began nothing here
        return None
    return kept if fresh else None


def _exchange(sso: SingleSignOn, deps: Deps, code: str, verifier: str) -> str:
    """The identity token for a code.

    Raises:
        Unauthenticated: the provider does not take the code.
        Unavailable: it does not answer.
    """
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": _redirect_uri(deps),
        "code_verifier": verifier,
        "client_id": sso.people.client_id,
    }
    auth = None if sso.client_secret is None else (sso.people.client_id, sso.client_secret)
    try:
        answer = sso.http.post(
            str(sso.metadata()["token_endpoint"]),
            data=form,
            auth=auth if auth is not None else httpx.USE_CLIENT_DEFAULT,
        )
        found = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise Unavailable(f"the identity provider does not answer: {type(error).__name__}") from None
    token = found.get("id_token") if isinstance(found, dict) else None
    if answer.status_code != httpx.codes.OK or not isinstance(token, str):
        raise Unauthenticated("the identity provider did not take the code; begin again at /sign-in")
    return token


# --- the session


@pages.get("/sign-in/session")
def current(request: Request, deps: Parts) -> Response:
    """Who is signed in, for pages."""
    found = session_of(request, deps)
    if found is None:
        raise Unauthenticated("nobody is signed in; begin at /sign-in")
    text = request.cookies[cookie_name(deps, "session")]
    return JSONResponse(
        {
            "principal": found.principal,
            "roles": [role.value for role in found.roles],
            "expires_at": found.expires_at.isoformat(),
            "token": session_token(text),
        },
        headers={"Cache-Control": "no-store"},
    )


@pages.post("/sign-in/out")
def leave(request: Request, deps: Parts) -> Response:
    """End the session here, and show where to end the provider's own."""
    if session_of(request, deps) is None:
        raise Unauthenticated("nobody is signed in")
    text = request.cookies[cookie_name(deps, "session")]
    with database.writing(deps.engine) as session:
        sign_ins.end_session(session, text, at=deps.now(), address=context_of(request).client)
    response = JSONResponse({"signed_out": True, "provider": _provider_out(deps)})
    response.delete_cookie(cookie_name(deps, "session"), path="/")
    return response


def _provider_out(deps: Deps) -> str | None:
    """Where one ends the provider's own session, when there is a provider that says so."""
    if not isinstance(deps.sign_in, SingleSignOn):
        return None
    try:
        found = deps.sign_in.metadata().get("end_session_endpoint")
    except (NotFound, Unavailable):
        return None
    return found if isinstance(found, str) else None


class SignInView(BaseModel):
    """How people sign in from a command line: authorisation code with PKCE, to a port of their own machine."""

    issuer: str
    client_id: str
    scopes: list[str] = Field(examples=[["openid", "profile"]])
    authorization_endpoint: str
    token_endpoint: str


@router.get("/v1/sign-in", operation_id="getSignIn", responses=documented(404, 422, 503))
def how(deps: Parts) -> SignInView:
    """How people sign in here; 404 when they do so with API tokens alone."""
    sso = sso_of(deps)
    found = sso.metadata()
    return SignInView(
        issuer=sso.people.issuer,
        client_id=sso.people.client_id,
        scopes=sso.people.scopes,
        authorization_endpoint=str(found["authorization_endpoint"]),
        token_endpoint=str(found["token_endpoint"]),
    )


@router.post(
    "/v1/sign-in/back-channel",
    operation_id="backChannelLogout",
    status_code=204,
    responses=documented(404, 413, 422, 429, 503),
)
async def back_channel(
    request: Request, deps: Parts, logout_token: Annotated[str, Form(max_length=16_384)]
) -> Response:
    """The identity provider ends sessions: what it names is over at once, here and for tokens of before."""
    sso = sso_of(deps)
    limiter = request.app.state.limiter
    try:
        subject, sid = await run_in_threadpool(sso.verifier.logged_out, logout_token)
    except TokenRefused as refused:
        limiter.stranger(context_of(request).client)
        log.warning("a logout token was refused", why=str(refused))
        raise Malformed(
            "this is no logout token of the identity provider",
            [Reason("logout-token", "send the provider's own", "logout_token")],
        ) from None

    def note() -> None:
        with database.writing(deps.engine) as session:
            sign_ins.sign_out_everywhere(
                session, sso.people.issuer, subject=subject, sid=sid, at=deps.now(), token=logout_token
            )

    await run_in_threadpool(note)
    return Response(status_code=204)
