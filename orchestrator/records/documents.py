"""Documents of evidence. Bound by the digest of their text; kept sealed, for the database never holds it in clear."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.domain.errors import NotFound
from orchestrator.domain.values import Digest, Frozen, Instant, Name, digest_bytes
from orchestrator.records.database import insert_new
from orchestrator.records.errors import RecordsBroken
from orchestrator.records.tables import DocumentRow, table


class Cipher(Protocol):
    """Authenticated encryption, given by whoever builds the process. `context` is bound, not stored."""

    def seal(self, data: bytes, context: bytes) -> bytes:
        """Ciphertext of `data`."""
        ...

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """What `seal` was given; raises when key, context or bytes do not fit."""
        ...


class Document(Frozen):
    """What is known of a document without opening it. `size` in bytes of its text."""

    digest: Digest
    media_type: str
    size: int
    by: Name
    at: Instant


_COLUMNS = [getattr(DocumentRow, name) for name in Document.model_fields]


def put(session: Session, data: bytes, *, media_type: str, cipher: Cipher, by: str, at: datetime) -> Document:
    """Keep a document; the same bytes again are the document that stands."""
    digest = digest_bytes(data)
    row = {
        "digest": digest,
        "media_type": media_type,
        "sealed": cipher.seal(data, digest.encode()),
        "size": len(data),
        "by": by,
        "at": at,
    }
    insert_new(session, table(DocumentRow), row)
    return get(session, digest)


def get(session: Session, digest: str) -> Document:
    """What is known of a document.

    Raises:
        NotFound: there is none.
    """
    row = session.execute(select(*_COLUMNS).where(col(DocumentRow.digest) == digest)).one_or_none()
    if row is None:
        raise NotFound(f"there is no document {digest}")
    return Document(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it


def text(session: Session, digest: str, *, cipher: Cipher) -> bytes:
    """The document's bytes, checked against its digest.

    Raises:
        NotFound: there is none.
        RecordsBroken: what was opened is not what the digest names.
    """
    found = session.execute(
        select(col(DocumentRow.sealed)).where(col(DocumentRow.digest) == digest)
    ).scalar_one_or_none()
    if found is None:
        raise NotFound(f"there is no document {digest}")
    data = cipher.open(bytes(found), digest.encode())
    if digest_bytes(data) != digest:
        raise RecordsBroken(f"the document {digest} is not what its digest says")
    return data
