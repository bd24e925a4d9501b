"""A passkey of one's own: made by the browser, shown as the line that a plan pins. The service keeps nothing of it."""

from __future__ import annotations

import json
import secrets
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from orchestrator.api.auth import Caller
from orchestrator.api.deps import Deps, Parts
from orchestrator.console.showing import ConsoleRoute, looking, page
from orchestrator.domain.errors import Malformed, Reason
from orchestrator.domain.values import Frozen
from orchestrator.trust.errors import KeyUnusable, TrustError
from orchestrator.trust.passkeys import public_key_from_cose, relying_party_allows

router = APIRouter(prefix="/console", include_in_schema=False)
_pages = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

Looking = Annotated[Caller, Depends(looking)]


class Options(BaseModel):
    """What `navigator.credentials.create` is asked for. `challenge`: base64url; nothing is proved by it, so nothing is kept."""

    challenge: str
    relying_party: str
    user: str


class Made(Frozen):
    """The browser's answer: `PublicKeyCredential.toJSON()`, and the challenge that was asked."""

    challenge: str
    credential: dict[str, Any]


class Line(BaseModel):
    """The line that a plan pins under `people.NAME.keys`."""

    key: str
    key_id: str


def relying_party(deps: Deps) -> str:
    """The host that passkeys are made for: that of the service's own address."""
    return urlsplit(deps.settings.public_url).hostname or "localhost"


@_pages.get("/passkey")
def show(request: Request, caller: Looking, deps: Parts) -> Response:
    """The page."""
    party = relying_party(deps)
    usable = not party.replace(".", "").isdigit() and ":" not in party
    return page(request, "passkey.html", caller=caller, party=party, usable=usable)


@router.post("/passkey/options")
def options(caller: Looking, deps: Parts) -> Options:
    """What to ask the browser for."""
    return Options(challenge=secrets.token_urlsafe(32), relying_party=relying_party(deps), user=caller.id)


@router.post("/passkey")
def made(body: Made, caller: Looking, deps: Parts) -> Line:
    """The public half of a new passkey as a plan pins it.

    Raises:
        Malformed: it is none that sign-offs can be verified with.
    """
    from webauthn import verify_registration_response
    from webauthn.helpers import base64url_to_bytes

    party = relying_party(deps)
    try:
        client = json.loads(base64url_to_bytes(body.credential["response"]["clientDataJSON"]))
        origin = str(client["origin"])
        verified = verify_registration_response(
            credential=json.dumps(body.credential),
            expected_challenge=base64url_to_bytes(body.challenge),
            expected_rp_id=party,
            expected_origin=origin,
            require_user_verification=True,
        )
        _require_origin(origin, party)
        key = public_key_from_cose(verified.credential_public_key, party, comment=f"{caller.id}-passkey")
    except TrustError as error:
        raise Malformed(
            "this passkey cannot sign decisions", [Reason("passkey", str(error), "credential")]
        ) from None
    except Exception as error:  # noqa: BLE001 - the library's parsers raise whatever comes up on hostile bytes
        told = str(error)[:160] or type(error).__name__
        raise Malformed(
            "the browser's answer is no new passkey", [Reason("passkey", told, "credential")]
        ) from None
    return Line(key=key.text(), key_id=key.key_id)


def _require_origin(origin: str, party: str) -> None:
    if not relying_party_allows(origin, party):
        raise KeyUnusable(f"was made at {origin}", where="passkey", remedy=f"make it at https://{party}")


router.include_router(_pages)
