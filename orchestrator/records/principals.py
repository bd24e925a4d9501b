"""Who may call, and with which token. A token is shown once; its SHA-256 is all that is kept.

A token is `slt_` and 256 random bits in base64url: long enough that one plain hash keeps it safe. Every change is an
entry of the audit log.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.domain.errors import Conflict, NotFound
from orchestrator.domain.permissions import Permission, Role, permissions_of
from orchestrator.domain.values import Frozen, Instant, Name
from orchestrator.records import audit
from orchestrator.records.database import insert_new
from orchestrator.records.pages import Page, after, cut, decode_cursor, encode_cursor, page_size
from orchestrator.records.tables import PrincipalRow, TokenRow, table

PREFIX = "slt_"
_TOKEN = re.compile(r"slt_[A-Za-z0-9_-]{43}")
_USE_NOTED_EVERY = timedelta(minutes=5)


class Principal(Frozen):
    """Somebody or something that may call. `partner`: whom an account of kind `partner` belongs to."""

    id: Name
    kind: Literal["person", "machine", "partner"]
    name: str
    roles: list[Role]
    partner: Name | None
    active: bool
    created_at: Instant
    created_by: Name

    @property
    def permissions(self) -> frozenset[Permission]:
        """What its roles allow; nothing when it is switched off."""
        return permissions_of(self.roles) if self.active else frozenset()


class Token(Frozen):
    """A token as lists show it: never its text. `id` names it."""

    id: str
    principal: Name
    label: str
    created_at: Instant
    expires_at: Instant | None
    revoked_at: Instant | None
    last_used_at: Instant | None


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A new token and, this once, its text."""

    token: Token
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Authenticated:
    """Whose token it is. `note_use`: `touch` is due for it."""

    principal: Principal
    token: Token
    note_use: bool


def create(
    session: Session,
    principal: str,
    name: str,
    roles: Sequence[Role],
    *,
    kind: Literal["person", "machine", "partner"] = "person",
    partner: str | None = None,
    at: datetime,
    by: str,
) -> Principal:
    """Add a principal.

    Raises:
        Conflict: there is one of that id.
    """
    row = {
        "id": principal,
        "kind": kind,
        "name": name,
        "roles": _roles(roles),
        "partner": partner,
        "active": True,
        "created_at": at,
        "created_by": by,
    }
    if not insert_new(session, table(PrincipalRow), row):
        raise Conflict(f"there is a principal {principal} already")
    _log(session, "principal_added", principal, at, by, roles=json.loads(_roles(roles)), of=kind)
    return get(session, principal)


def get(session: Session, principal: str) -> Principal:
    """A principal.

    Raises:
        NotFound: there is none.
    """
    statement = select(PrincipalRow).where(col(PrincipalRow.id) == principal)
    row = session.execute(statement.execution_options(populate_existing=True)).scalar_one_or_none()
    if row is None:
        raise NotFound(f"there is no principal {principal}")
    return _of(row)


def list_principals(session: Session, *, cursor: str | None = None, limit: int = 50) -> Page[Principal]:
    """Principals by id.

    Raises:
        Malformed: a cursor of another list, or a limit out of range.
    """
    limit = page_size(limit)
    key = None if cursor is None else decode_cursor(cursor, "principals", str)
    statement = after(select(PrincipalRow), [col(PrincipalRow.id)], key, down=False).limit(limit + 1)
    rows = session.execute(statement).scalars().all()
    return cut(rows, limit, _of, lambda row: encode_cursor("principals", row.id))


def change(
    session: Session,
    principal: str,
    *,
    roles: Sequence[Role] | None = None,
    active: bool | None = None,
    at: datetime,
    by: str,
) -> Principal:
    """Change roles, or switch off (its tokens stop at once) and on.

    Raises:
        NotFound: there is none.
    """
    before = get(session, principal)
    values: dict[str, Any] = {}
    if roles is not None and _roles(roles) != _roles(before.roles):
        values["roles"] = _roles(roles)
    if active is not None and active != before.active:
        values["active"] = active
    if not values:
        return before
    session.execute(update(table(PrincipalRow)).where(col(PrincipalRow.id) == principal).values(**values))
    now = get(session, principal)
    _log(
        session,
        "principal_changed",
        principal,
        at,
        by,
        roles=json.loads(_roles(now.roles)),
        active=now.active,
    )
    return now


def issue_token(
    session: Session,
    principal: str,
    label: str,
    *,
    at: datetime,
    by: str,
    expires_at: datetime | None = None,
) -> IssuedToken:
    """Make a token for a principal; its text is in the answer and nowhere else.

    Raises:
        NotFound: there is no such principal.
        Conflict: it is switched off.
    """
    if not get(session, principal).active:
        raise Conflict(f"{principal} is switched off")
    text = PREFIX + secrets.token_urlsafe(32)
    token = Token(
        id=f"tok-{secrets.token_hex(8)}",
        principal=principal,
        label=label,
        created_at=at,
        expires_at=expires_at,
        revoked_at=None,
        last_used_at=None,
    )
    session.execute(insert(table(TokenRow)).values(hash=_hash(text), **token.model_dump()))
    expires = None if expires_at is None else expires_at.isoformat()
    _log(session, "token_issued", principal, at, by, token=token.id, expires_at=expires)
    return IssuedToken(token, text)


def authenticate(session: Session, text: str, now: datetime) -> Authenticated | None:
    """Whose token this is; None when it is unknown, expired or revoked, or its principal is switched off."""
    if not _TOKEN.fullmatch(text):
        return None
    statement = (
        select(TokenRow, PrincipalRow)
        .join(PrincipalRow, col(PrincipalRow.id) == col(TokenRow.principal))
        .where(col(TokenRow.hash) == _hash(text))
    )
    found = session.execute(statement).one_or_none()
    if found is None:
        return None
    token, principal = _token(found[0]), _of(found[1])
    expired = token.expires_at is not None and token.expires_at <= now
    if expired or token.revoked_at is not None or not principal.active:
        return None
    stale = token.last_used_at is None or now - token.last_used_at >= _USE_NOTED_EVERY
    return Authenticated(principal, token, note_use=stale)


def roles_by_token(session: Session, principal: str, token: str, now: datetime) -> tuple[Role, ...] | None:
    """The roles of a principal whose token (by its id) still counts; None when it does not."""
    statement = (
        select(TokenRow, PrincipalRow)
        .join(PrincipalRow, col(PrincipalRow.id) == col(TokenRow.principal))
        .where(col(TokenRow.id) == token, col(TokenRow.principal) == principal)
    )
    found = session.execute(statement).one_or_none()
    if found is None:
        return None
    known, who = _token(found[0]), _of(found[1])
    expired = known.expires_at is not None and known.expires_at <= now
    return None if expired or known.revoked_at is not None or not who.active else tuple(who.roles)


def touch(session: Session, token: str, now: datetime) -> None:
    """Note that a token was used; due every few minutes (`Authenticated.note_use`)."""
    session.execute(update(table(TokenRow)).where(col(TokenRow.id) == token).values(last_used_at=now))


def tokens(session: Session, principal: str) -> list[Token]:
    """A principal's tokens, newest first, revoked ones too."""
    statement = select(TokenRow).where(col(TokenRow.principal) == principal)
    rows = session.execute(
        statement.order_by(col(TokenRow.created_at).desc(), col(TokenRow.id)).execution_options(
            populate_existing=True
        )
    )
    return [_token(row) for row in rows.scalars()]


def revoke_token(session: Session, principal: str, token: str, *, at: datetime, by: str) -> Token:
    """Revoke a token: it stops at once.

    Raises:
        NotFound: the principal has no such token.
    """
    found = next((one for one in tokens(session, principal) if one.id == token), None)
    if found is None:
        raise NotFound(f"{principal} has no token {token}")
    if found.revoked_at is not None:
        return found
    session.execute(update(table(TokenRow)).where(col(TokenRow.id) == token).values(revoked_at=at))
    _log(session, "token_revoked", principal, at, by, token=token)
    return found.model_copy(update={"revoked_at": at})


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _roles(roles: Sequence[Role]) -> str:
    return json.dumps(sorted({role.value for role in roles}))


def _of(row: PrincipalRow) -> Principal:
    return Principal.model_validate(
        {**{name: getattr(row, name) for name in Principal.model_fields}, "roles": json.loads(row.roles)}
    )


def _token(row: TokenRow) -> Token:
    return Token(**{name: getattr(row, name) for name in Token.model_fields})


def _log(session: Session, action: str, principal: str, at: datetime, by: str, **more: Any) -> None:
    audit.append(session, "admin", {"action": action, "actor": by, "principal": principal, **more}, at=at)
