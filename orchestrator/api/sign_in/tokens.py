"""From a signed token to an identity of the service.

A token counts when a key of a configured issuer signed it, with an algorithm of `ALGORITHMS`, for our audience, within its time
(a minute of difference between clocks is forgiven), and when nothing has ended the session that it belongs to. Then a person is who
the configured claim says, in the roles that their groups carry; a machine is what the first rule says that matches.

A name is bound to its subject by the first sign-in: another subject of the same name later is refused, for names are given away
again by some providers, subjects never.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeGuard

import httpx
import structlog
from joserfc import jws, jwt
from joserfc.errors import JoseError
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Engine

from orchestrator.api.deps import Identity
from orchestrator.api.sign_in.keys import IssuerKeys
from orchestrator.api.sign_in.settings import PeopleProvider, PipelineRule, SignInSettings
from orchestrator.domain.errors import Unavailable
from orchestrator.domain.values import Name
from orchestrator.records import database, sign_ins

log = structlog.get_logger("sluice.api")

ALGORITHMS = [
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
]
SKEW = timedelta(seconds=60)
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
_MAX_TOKEN = 16_384
_NAME = TypeAdapter(Name)


class TokenRefused(Exception):  # noqa: N818 - never leaves this package: callers see 401, and which reason is not said
    """Why a token does not count; for the log."""


@dataclass(frozen=True, slots=True)
class Person:
    """A person as a verified identity token names them."""

    identity: Identity
    subject: str
    session: str | None
    signed_in_at: datetime
    expires_at: datetime


class Verifier:
    """Verifies tokens of the configured issuers; `identify` is what `Deps.identify` takes.

    Args:
        settings: whom to trust.
        engine: of the records: who is known, which sessions were ended.
        http: how issuers are reached.
        clock: the time (aware).
    """

    def __init__(
        self,
        settings: SignInSettings,
        engine: Engine,
        http: httpx.Client,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.settings, self._engine, self._clock = settings, engine, clock
        issuers = {rule.issuer for rule in settings.pipelines}
        if settings.people is not None:
            issuers.add(settings.people.issuer)
        self.issuers = {issuer: IssuerKeys(issuer, http) for issuer in issuers}

    def identify(self, token: str) -> Identity | None:
        """Who a bearer token says is asking; None when it does not count.

        Raises:
            Unavailable: the issuer that it names was never reached, so nothing can be said.
        """
        try:
            issuer, claims = self._verified(token)
            people = self.settings.people
            if people is not None and issuer == people.issuer and _for(claims, people):
                return self._person(people, claims).identity
            return self._machine(issuer, claims)
        except TokenRefused as refused:
            log.info("a token of single sign-on does not count", why=str(refused))
            return None

    def person(self, token: str, *, nonce: str) -> Person:
        """The person of an identity token that a sign-in in a browser brought.

        Raises:
            TokenRefused: it does not count, or belongs to another sign-in.
        """
        people = self.settings.people
        issuer, claims = self._verified(token)
        if people is None or issuer != people.issuer or not _audience(claims, people.client_id):
            raise TokenRefused("it is for somebody else")
        if claims.get("nonce") != nonce:
            raise TokenRefused("it belongs to another sign-in")
        return self._person(people, claims)

    def logged_out(self, token: str) -> tuple[str | None, str | None]:
        """(subject, session) that a logout token of the provider ends (OpenID Connect Back-Channel Logout 1.0).

        Raises:
            TokenRefused: it is none.
        """
        people = self.settings.people
        issuer, claims = self._verified(token, logout=True)
        if people is None or issuer != people.issuer or not _audience(claims, people.client_id):
            raise TokenRefused("it is for somebody else")
        events = claims.get("events")
        if not isinstance(events, dict) or LOGOUT_EVENT not in events or "nonce" in claims:
            raise TokenRefused("it is no logout token")
        subject, session = claims.get("sub"), claims.get("sid")
        if not (isinstance(subject, str) or isinstance(session, str)):
            raise TokenRefused("it names nobody")
        return (
            subject if isinstance(subject, str) else None,
            session if isinstance(session, str) else None,
        )

    # --- the signature

    def _verified(self, token: str, *, logout: bool = False) -> tuple[str, dict[str, Any]]:
        if len(token) > _MAX_TOKEN or token.count(".") != 2:
            raise TokenRefused("it is no signed token")
        try:
            unverified = jws.extract_compact(token.encode())
            header = unverified.headers()
            named = json.loads(unverified.payload or b"{}").get("iss")
        except (JoseError, ValueError, AttributeError, UnicodeEncodeError):
            raise TokenRefused("it is no signed token") from None
        keys = self.issuers.get(named) if isinstance(named, str) else None
        if keys is None:
            raise TokenRefused("its issuer is not trusted")
        key = keys.key(header.get("kid"))
        if key is None:
            raise TokenRefused("no key of its issuer signed it")
        try:
            claims = dict(jwt.decode(token, key, algorithms=ALGORITHMS).claims)
        except (JoseError, ValueError) as error:
            raise TokenRefused(f"its signature does not hold ({type(error).__name__})") from None
        self._in_time(claims, logout=logout)
        return keys.issuer, claims

    def _in_time(self, claims: dict[str, Any], *, logout: bool) -> None:
        now = self._clock().timestamp()
        skew = SKEW.total_seconds()
        issued, expires, begins = claims.get("iat"), claims.get("exp"), claims.get("nbf")
        if not _number(issued) or issued > now + skew:
            raise TokenRefused("it was issued in the future, or does not say when")
        if expires is None and logout and issued > now - 2 * skew:
            return
        if not _number(expires) or expires <= now - skew:
            raise TokenRefused("it has expired")
        if begins is not None and (not _number(begins) or begins > now + skew):
            raise TokenRefused("its time has not come")

    # --- who it is

    def _person(self, people: PeopleProvider, claims: dict[str, Any]) -> Person:
        subject, session = claims.get("sub"), claims.get("sid")
        if not isinstance(subject, str) or not subject:
            raise TokenRefused("it has no subject")
        try:
            name = _NAME.validate_python(claims.get(people.principal_claim))
        except ValidationError:
            raise TokenRefused(f"its claim {people.principal_claim} is no principal's id") from None
        roles = people.roles_of(claims.get(people.groups_claim))
        if not roles:
            raise TokenRefused(f"{name} is in no group that carries a role")
        began = claims.get("auth_time")
        signed_in_at = datetime.fromtimestamp(began if _number(began) else claims["iat"], UTC)
        ends = min(
            signed_in_at + timedelta(hours=people.longest_hours), datetime.fromtimestamp(claims["exp"], UTC)
        )
        if ends <= self._clock() - SKEW:
            raise TokenRefused("they signed in too long ago")
        known = sign_ins.Known(
            issuer=people.issuer,
            subject=subject,
            session=session if isinstance(session, str) else None,
            signed_in_at=datetime.fromtimestamp(float(claims["iat"]), UTC),
        )
        shown = claims.get(people.name_claim)
        with database.reading(self._engine) as records:
            standing = sign_ins.standing(records, name, known)
        if standing == "new":
            with database.writing(self._engine) as records:
                standing = sign_ins.bind(
                    records,
                    name,
                    known,
                    shown=shown if isinstance(shown, str) and shown else name,
                    create=people.create,
                    at=self._clock(),
                )
        if standing != "known":
            raise TokenRefused(f"{name}: {standing}")
        identity = Identity(name=name, kind="person", roles=roles)
        return Person(identity, subject, known.session, signed_in_at, ends)

    def _machine(self, issuer: str, claims: dict[str, Any]) -> Identity:
        rule = self._rule(issuer, claims)
        with database.reading(self._engine) as records:
            if not sign_ins.machine_may(records, rule.principal):
                raise TokenRefused(f"{rule.principal} is no machine, or is switched off")
        return Identity(name=rule.principal, kind="machine", roles=tuple(rule.roles))

    def _rule(self, issuer: str, claims: dict[str, Any]) -> PipelineRule:
        for rule in self.settings.pipelines:
            if rule.issuer == issuer and _audience(claims, rule.audience) and rule.matches(claims):
                return rule
        raise TokenRefused("no rule of the pipelines fits it")


def _for(claims: dict[str, Any], people: PeopleProvider) -> bool:
    return _audience(claims, people.client_id) or (
        people.audience is not None and _audience(claims, people.audience)
    )


def _audience(claims: dict[str, Any], wanted: str) -> bool:
    given = claims.get("aud")
    if isinstance(given, list) and len(given) > 1 and claims.get("azp") not in {None, wanted}:
        return False
    return given == wanted or (isinstance(given, list) and wanted in given)


def _number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


__all__ = ["ALGORITHMS", "LOGOUT_EVENT", "SKEW", "Person", "TokenRefused", "Unavailable", "Verifier"]
