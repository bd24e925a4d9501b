"""Who came through single sign-on: which subject a name is bound to, which sessions run, and which were ended.

A session's text is in one cookie and nowhere else: its SHA-256 is kept. What the provider ends (a session of its own, or all of a
subject) ends every session and every token of before.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.domain.permissions import Role
from orchestrator.records import audit, principals
from orchestrator.records.database import insert_new
from orchestrator.records.tables import PrincipalRow, SessionRow, SignedOutRow, SubjectRow, table

PREFIX = "sls_"
BY_TOKEN = "sluice:token"  # noqa: S105 - a name
"""The issuer of sessions that an API token opened; their subject is the token's id, and they end with it."""

#: Whether somebody who signed in may be whom they say: `new` has not been here before.
Standing = Literal["known", "new", "switched-off", "not-a-person", "another-subject", "signed-out", "unknown"]


@dataclass(frozen=True, slots=True)
class Known:
    """What a provider says of a sign-in. `session`: the provider's own id of it (`sid`)."""

    issuer: str
    subject: str
    session: str | None
    signed_in_at: datetime


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session in a browser."""

    principal: str
    roles: tuple[Role, ...]
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class NewSession:
    """A new session and, this once, its text."""

    session: OpenSession
    text: str = field(repr=False)


def standing(session: Session, principal: str, known: Known) -> Standing:
    """How a principal of that name stands to this subject; nothing is written."""
    row = session.execute(select(PrincipalRow).where(col(PrincipalRow.id) == principal)).scalar_one_or_none()
    if row is not None and row.kind != "person":
        return "not-a-person"
    if row is not None and not row.active:
        return "switched-off"
    bound = session.execute(
        select(SubjectRow).where(
            or_(
                col(SubjectRow.principal) == principal,
                (col(SubjectRow.issuer) == known.issuer) & (col(SubjectRow.subject) == known.subject),
            )
        )
    ).scalars()
    bindings = [(one.principal, one.issuer, one.subject) for one in bound]
    if any(one != (principal, known.issuer, known.subject) for one in bindings):
        return "another-subject"
    if _signed_out(session, known):
        return "signed-out"
    return "known" if bindings and row is not None else "new"


def bind(
    session: Session, principal: str, known: Known, *, shown: str, create: bool, at: datetime
) -> Standing:
    """Bind a name to its subject on the first sign-in, once; whatever then stands.

    Args:
        session: a write session.
        principal: the name.
        known: whom the provider means.
        shown: the person's name for people.
        create: make the principal when there is none.
        at: when.
    """
    now = standing(session, principal, known)
    if now != "new" or principal == "sluice":
        return "unknown" if principal == "sluice" else now
    there = session.execute(
        select(col(PrincipalRow.id)).where(col(PrincipalRow.id) == principal)
    ).scalar_one_or_none()
    if there is None and not create:
        return "unknown"
    if there is None:
        row = {
            "id": principal,
            "kind": "person",
            "name": shown[:200],
            "roles": "[]",
            "partner": None,
            "active": True,
            "created_at": at,
            "created_by": principal,
        }
        insert_new(session, table(PrincipalRow), row)
    insert_new(
        session,
        table(SubjectRow),
        {"principal": principal, "issuer": known.issuer, "subject": known.subject, "at": at},
    )
    body = {"action": "subject_bound", "actor": principal, "principal": principal, "issuer": known.issuer}
    audit.append(session, "admin", body, at=at)
    return standing(session, principal, known)


def machine_may(session: Session, principal: str) -> bool:
    """Whether a principal of that name may be a machine: there is none yet, or an active one of that kind."""
    row = session.execute(select(PrincipalRow).where(col(PrincipalRow.id) == principal)).scalar_one_or_none()
    return principal != "sluice" and (row is None or (row.kind == "machine" and row.active))


def open_session(
    session: Session,
    principal: str,
    roles: tuple[Role, ...],
    known: Known,
    *,
    expires_at: datetime,
    at: datetime,
    address: str | None,
) -> NewSession:
    """Open a session in a browser; it is in the audit log."""
    text = PREFIX + secrets.token_urlsafe(32)
    session.execute(delete(table(SessionRow)).where(col(SessionRow.expires_at) <= at))
    session.execute(
        insert(table(SessionRow)).values(
            hash=_hash(text),
            principal=principal,
            issuer=known.issuer,
            subject=known.subject,
            sid=known.session,
            roles=json.dumps([role.value for role in roles]),
            signed_in_at=known.signed_in_at,
            created_at=at,
            expires_at=expires_at,
        )
    )
    _log(session, "signed_in", principal, at, address=address)
    return NewSession(OpenSession(principal, roles, expires_at), text)


def find_session(session: Session, text: str, now: datetime) -> OpenSession | None:
    """The session of that text; None when it is unknown, over or ended, or its principal is switched off."""
    row = session.execute(select(SessionRow).where(col(SessionRow.hash) == _hash(text))).scalar_one_or_none()
    if row is None or row.ended_at is not None or row.expires_at <= now:
        return None
    if row.issuer == BY_TOKEN:
        roles = principals.roles_by_token(session, row.principal, row.subject, now)
        return None if roles is None else OpenSession(row.principal, roles, row.expires_at)
    known = Known(row.issuer, row.subject, row.sid, row.signed_in_at)
    if standing(session, row.principal, known) != "known":
        return None
    return OpenSession(row.principal, tuple(Role(role) for role in json.loads(row.roles)), row.expires_at)


def end_session(session: Session, text: str, *, at: datetime, address: str | None) -> bool:
    """End a session; whether there was one."""
    row = session.execute(select(SessionRow).where(col(SessionRow.hash) == _hash(text))).scalar_one_or_none()
    if row is None or row.ended_at is not None:
        return False
    session.execute(update(table(SessionRow)).where(col(SessionRow.hash) == row.hash).values(ended_at=at))
    _log(session, "signed_out", row.principal, at, address=address)
    return True


def sign_out_everywhere(
    session: Session, issuer: str, *, subject: str | None, sid: str | None, at: datetime, token: str
) -> bool:
    """Note what the provider ended: one of its sessions, or everything of a subject until now. False: it was noted before.

    Args:
        session: a write session.
        issuer: who says so.
        subject: whose sessions; with `sid`, of that one alone.
        sid: which session of the provider.
        at: when.
        token: what names this logout (`jti`), so that one token counts once.
    """
    row = {
        "id": hashlib.sha256(f"{issuer}\0{token}".encode()).hexdigest(),
        "issuer": issuer,
        "subject": subject,
        "sid": sid,
        "at": at,
    }
    if not insert_new(session, table(SignedOutRow), row):
        return False
    audit.append(
        session, "admin", {"action": "signed_out_by_provider", "actor": None, "issuer": issuer}, at=at
    )
    return True


def _signed_out(session: Session, known: Known) -> bool:
    out = SignedOutRow
    of_session = [col(out.sid) == known.session] if known.session is not None else []
    of_subject = (
        (col(out.subject) == known.subject) & col(out.sid).is_(None) & (col(out.at) >= known.signed_in_at)
    )
    statement = (
        select(col(out.id)).where(col(out.issuer) == known.issuer, or_(of_subject, *of_session)).limit(1)
    )
    return session.execute(statement).first() is not None


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _log(session: Session, action: str, principal: str, at: datetime, **more: Any) -> None:
    body = {"action": action, "actor": principal, "principal": principal, **more}
    audit.append(session, "admin", body, at=at)
