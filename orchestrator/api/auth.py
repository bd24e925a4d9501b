"""Who is asking, and whether they may: one explicit permission a route.

A bearer token is an API token of ours (hashed at rest), or whatever `Deps.identify` understands (single sign-on); a browser that
signed in sends its session's cookie instead. For a partner, a release that no grant of theirs names does not exist: the same 404 as for one that is not there, before
anything else is looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

import structlog
from fastapi import Depends, Path, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from orchestrator.api.context import context_of
from orchestrator.api.deps import Deps, Identity, Parts
from orchestrator.api.limiting import Limiter
from orchestrator.api.problems import Unauthenticated, documented
from orchestrator.api.sign_in.browser import session_of
from orchestrator.domain.commands import Actor
from orchestrator.domain.errors import NotFound, NotPermitted, Reason, Unavailable
from orchestrator.domain.permissions import Permission, Role, permissions_of
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import Name
from orchestrator.records import database, grants, principals, releases

log = structlog.get_logger("sluice.api")

bearer = HTTPBearer(
    auto_error=False, description="an API token (`slt_…`), or a token of the configured identity provider"
)

ReleaseId = Annotated[Name, Path(description="id of the release", examples=["gt-mini-1.0"])]
StepName = Annotated[Name, Path(description="name of a step of the plan", examples=["demo"])]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is asking, with the permissions of their roles."""

    id: str
    kind: Literal["person", "machine", "partner"]
    roles: tuple[Role, ...]
    permissions: frozenset[Permission]
    partner: str | None = None

    @property
    def actor(self) -> Actor:
        """The caller as commands name them."""
        return Actor(id=self.id, kind=self.kind, permissions=self.permissions)

    def may(self, permission: Permission) -> bool:
        """Whether one of their roles carries it."""
        return permission in self.permissions

    def require(self, permission: Permission) -> None:
        """Raise `NotPermitted` unless they may."""
        if permission not in self.permissions:
            raise NotPermitted(
                f"{self.id} lacks the permission {permission}",
                [Reason("permission", f"ask an operator for a role that carries {permission}")],
            )

    def require_to_read(self, permission: Permission) -> None:
        """Raise `NotPermitted` unless they may, or read everything."""
        if Permission.EVERYTHING_READ not in self.permissions:
            self.require(permission)


def caller_of(
    request: Request,
    deps: Parts,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> Caller:
    """The caller behind the bearer token.

    Raises:
        Unauthenticated: there is no token, or it is not known, expired or revoked; which of these is not said.
        TooManyRequests: more than they may make.
    """
    limiter: Limiter = request.app.state.limiter
    if credentials is None:
        identity = _signed_in(request, deps)
        if identity is None:
            raise Unauthenticated("send an API token as `Authorization: Bearer …`")
    else:
        identity = _identity(deps, credentials.credentials)
    if identity is None:
        limiter.stranger(context_of(request).client)
        raise Unauthenticated("the token is not known, has expired or was revoked")
    context_of(request).principal = identity.name
    limiter.principal(identity.name)
    roles = identity.roles
    return Caller(
        id=identity.name,
        kind=cast('Literal["person", "machine", "partner"]', identity.kind),
        roles=roles,
        permissions=permissions_of(list(roles)),
        partner=identity.partner,
    )


def _identity(deps: Deps, token: str) -> Identity | None:
    now = deps.now()
    with database.reading(deps.engine) as session:
        found = principals.authenticate(session, token, now)
    if found is None:
        return None if deps.identify is None else deps.identify(token)
    if found.note_use:
        try:
            with database.writing(deps.engine) as session:
                principals.touch(session, found.token.id, now)
        except Unavailable:
            log.warning("the use of a token could not be noted", token_id=found.token.id)
    who = found.principal
    return Identity(name=who.id, kind=who.kind, roles=tuple(who.roles), partner=who.partner)


def _signed_in(request: Request, deps: Deps) -> Identity | None:
    """Who a browser's session says is asking."""
    found = session_of(request, deps)
    return None if found is None else Identity(name=found.principal, kind="person", roles=found.roles)


AnyCaller = Annotated[Caller, Depends(caller_of)]


def requires(permission: Permission) -> Callable[..., Caller]:
    """A dependency: the caller, who carries this permission."""

    def permitted(caller: AnyCaller) -> Caller:
        caller.require(permission)
        return caller

    return permitted


def looks(permission: Permission) -> Callable[..., Caller]:
    """A dependency of reads: the caller carries this permission, or reads everything, as auditors do."""

    def permitted(caller: AnyCaller) -> Caller:
        caller.require_to_read(permission)
        return caller

    return permitted


def no_release(release: str) -> NotFound:
    """The one error for a release that is not there and for one that the caller may not know of."""
    return NotFound(
        f"there is no release `{release}`", [Reason("unknown-release", "see the list of releases", "release")]
    )


def visible(session: Session, caller: Caller, release: str) -> None:
    """Raise `no_release` unless there is such a release and the caller may know of it.

    For a partner both are one question, asked in one statement: whether a grant of theirs names it.
    """
    if caller.kind == "partner":
        if caller.partner is None or not grants.names_holder(session, release, caller.partner):
            raise no_release(release)
        return
    try:
        releases.summary(session, release)
    except NotFound:
        raise no_release(release) from None


def state_of(session: Session, release: str) -> ReleaseState:
    """The state of a release, or `no_release`."""
    try:
        return releases.load(session, release)
    except NotFound:
        raise no_release(release) from None


def acting(permission: Permission) -> Callable[..., Caller]:
    """A dependency of commands: the caller may know of the release in the path, and carries this permission."""

    def acting_on(request: Request, release: ReleaseId, caller: AnyCaller, deps: Parts) -> Caller:
        context_of(request).release = release
        context_of(request).step = request.path_params.get("step")
        if caller.kind != "partner":
            caller.require(permission)
        with database.reading(deps.engine) as session:
            visible(session, caller, release)
        caller.require(permission)
        return caller

    return acting_on


def reading(permission: Permission = Permission.RELEASE_READ) -> Callable[..., ReleaseState]:
    """A dependency of reads: the state of the release in the path."""

    def read(request: Request, release: ReleaseId, caller: AnyCaller, deps: Parts) -> ReleaseState:
        context_of(request).release = release
        context_of(request).step = request.path_params.get("step")
        with database.reading(deps.engine) as session:
            if caller.kind == "partner":
                visible(session, caller, release)
            caller.require(permission)
            return state_of(session, release)

    return read


KEY = {"Idempotency-Key": "the key of this request: yours, or the one that was made up"}
ETAG = {"ETag": "send it back in `If-Match` with a decision"}


def guarded(
    permission: Permission | None, *statuses: int, headers: dict[str, str] | None = None, success: int = 200
) -> dict[str, Any]:
    """What the decorator of a route takes: its documented errors and headers, and the permission it asks for."""
    always = (401, 422, 429) if permission is None else (401, 403, 422, 429)
    responses = documented(*always, *statuses)
    if headers:
        shown = {name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()}
        responses[success] = {"headers": shown}
    extra = {} if permission is None else {"openapi_extra": {"x-permission": permission.value}}
    return {"responses": responses, "status_code": success, **extra}


def commanded(permission: Permission) -> dict[str, Any]:
    """`guarded` for a command of a release."""
    return guarded(permission, 404, 409, 412, 413, headers=KEY)


def decided(permission: Permission) -> dict[str, Any]:
    """`guarded` for a decision at a gate."""
    return guarded(permission, 404, 409, 412, 413, 428, headers=KEY)
