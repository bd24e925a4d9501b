"""Envelopes: keys encrypted to their holder. Kept until access ends, then dropped; that one was there stays known."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.domain.errors import Conflict, NotFound
from orchestrator.domain.values import Digest, Frozen, Instant, Name, digest_bytes
from orchestrator.records.database import insert_new
from orchestrator.records.tables import EnvelopeRow, table


class StoredEnvelope(Frozen):
    """An envelope without its bytes. `dropped_at`: since when its bytes are gone."""

    reference: str
    release: Name
    grant: str
    holder: Name
    digest: Digest
    created_at: Instant
    dropped_at: Instant | None


_COLUMNS = [getattr(EnvelopeRow, name) for name in StoredEnvelope.model_fields]


def put(
    session: Session, reference: str, data: bytes, *, release: str, grant: str, holder: str, at: datetime
) -> StoredEnvelope:
    """Keep an envelope under its reference, once: whoever was first stays.

    An envelope made twice differs in its bytes though it holds the same keys; the one that stands is what counts.

    Raises:
        Conflict: the reference belongs to another grant, or its envelope was dropped.
    """
    row = {
        "reference": reference,
        "release": release,
        "grant": grant,
        "holder": holder,
        "digest": digest_bytes(data),
        "data": data,
        "created_at": at,
    }
    inserted = insert_new(session, table(EnvelopeRow), row)
    known = get(session, reference)
    if not inserted and (known.release, known.grant, known.holder) != (release, grant, holder):
        raise Conflict(f"the envelope {reference} belongs to another grant")
    if known.dropped_at is not None:
        raise Conflict(f"the envelope {reference} was dropped; a new grant needs a new one")
    return known


def get(session: Session, reference: str) -> StoredEnvelope:
    """What is known of an envelope.

    Raises:
        NotFound: there is none.
    """
    row = session.execute(select(*_COLUMNS).where(col(EnvelopeRow.reference) == reference)).one_or_none()
    if row is None:
        raise NotFound(f"there is no envelope {reference}")
    return StoredEnvelope(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it


def data(session: Session, reference: str) -> bytes:
    """The envelope's bytes.

    Raises:
        NotFound: there is none, or it was dropped.
    """
    statement = select(col(EnvelopeRow.data)).where(col(EnvelopeRow.reference) == reference)
    found = session.execute(statement).scalar_one_or_none()
    if found is None:
        raise NotFound(f"there is no envelope {reference}")
    return bytes(found)


def of_release(session: Session, release: str, *, grant: str | None = None) -> list[StoredEnvelope]:
    """Envelopes of a release, or of one grant of it, oldest first."""
    statement = select(*_COLUMNS).where(col(EnvelopeRow.release) == release)
    if grant is not None:
        statement = statement.where(col(EnvelopeRow.grant) == grant)
    rows = session.execute(statement.order_by(col(EnvelopeRow.created_at), col(EnvelopeRow.reference)))
    return [StoredEnvelope(**row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's public name for it


def drop(session: Session, reference: str, *, at: datetime) -> bool:
    """Forget the bytes of an envelope; whether they were still there."""
    done = session.execute(
        update(table(EnvelopeRow))
        .where(col(EnvelopeRow.reference) == reference, col(EnvelopeRow.dropped_at).is_(None))
        .values(data=None, dropped_at=at)
    )
    return bool(done.rowcount)  # type: ignore[attr-defined]
