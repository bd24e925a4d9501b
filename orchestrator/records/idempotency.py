"""Idempotency keys of creations: the same key and request from the same principal is the same thing, made once."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.domain.errors import KeyReused
from orchestrator.records.database import insert_new
from orchestrator.records.tables import IdempotencyRow, table


def recall(session: Session, principal: str, key: str, digest: str) -> str | None:
    """The reference that this key made before; None when the key is new.

    Raises:
        KeyReused: the key was used for another request.
    """
    row = session.get(IdempotencyRow, (principal, key))
    if row is None:
        return None
    if row.digest != digest:
        raise KeyReused(f"the idempotency key {key[:64]!r} was used for another request; choose a new one")
    return row.reference


def remember(session: Session, principal: str, key: str, digest: str, reference: str, *, at: datetime) -> str:
    """Bind a key to what it makes, before it is made; returns the reference of whoever was first.

    Raises:
        KeyReused: the key was used for another request.
    """
    row = {"principal": principal, "key": key, "digest": digest, "reference": reference, "at": at}
    if insert_new(session, table(IdempotencyRow), row):
        return reference
    return recall(session, principal, key, digest) or reference


def forget(session: Session, *, before: datetime) -> int:
    """Drop keys that are older; how many."""
    done = session.execute(delete(table(IdempotencyRow)).where(col(IdempotencyRow.at) < before))
    return int(done.rowcount)  # type: ignore[attr-defined]
