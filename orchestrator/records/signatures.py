"""Weight signatures, sealed to the leak monitor: of artifacts, of partners' own copies, and of public parents.

Copies have one table with artifacts, `copy_of` saying whose they are: whoever makes a marked or re-sealed copy for a partner
puts its signature here (`put(..., copy_of=partner)`), and a digest hit says whose copy it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.domain.errors import Conflict, NotFound
from orchestrator.domain.values import digest_bytes
from orchestrator.records.database import insert_new, upsert
from orchestrator.records.monitor_tables import LeakParentRow, LeakParentSignatureRow, LeakSignatureRow
from orchestrator.records.tables import table


@dataclass(frozen=True, slots=True)
class StoredSignature:
    """A sealed signature and what is known of it. `copy_of`: partner; empty for the artifact itself."""

    artifact: str
    copy_of: str
    sealed: bytes
    digest: str
    key_id: str
    alike: str | None
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Parent:
    """A public model that ours descend from, and where it is read. `artifact`: empty for all of ours."""

    name: str
    artifact: str
    place: str
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class ParentSignature:
    """A parent's signature for one artifact's sketch key; `error`: why there is none."""

    parent: str
    artifact: str
    sealed: bytes | None
    error: str | None
    at: datetime


def put(
    session: Session, artifact: str, sealed: bytes, *, key_id: str, by: str, at: datetime, copy_of: str = ""
) -> bool:
    """Keep a signature; whether it is new. The first one stays: an artifact's weights do not change.

    Raises:
        Conflict: somebody else's signature stands for that artifact.
    """
    row = {
        "artifact": artifact,
        "copy_of": copy_of,
        "sealed": sealed,
        "digest": digest_bytes(sealed),
        "key_id": key_id,
        "alike": None,
        "by": by,
        "at": at,
    }
    if insert_new(session, table(LeakSignatureRow), row):
        return True
    known = session.get(LeakSignatureRow, (artifact, copy_of))
    if known is not None and known.by != by:
        raise Conflict(f"a weight signature of {artifact} by {known.by} stands already")
    return False


def of(session: Session, artifacts: Iterable[str] | None = None) -> list[StoredSignature]:
    """Signatures of these artifacts and of all their copies; of all artifacts when None."""
    statement = select(LeakSignatureRow).order_by(
        col(LeakSignatureRow.artifact), col(LeakSignatureRow.copy_of)
    )
    if artifacts is not None:
        statement = statement.where(col(LeakSignatureRow.artifact).in_(sorted(artifacts)))
    return [
        StoredSignature(r.artifact, r.copy_of, bytes(r.sealed), r.digest, r.key_id, r.alike, r.by, r.at)
        for r in session.execute(statement).scalars()
    ]


def known(session: Session, artifacts: Iterable[str]) -> dict[str, datetime]:
    """Artifact → since when its own signature stands."""
    statement = select(col(LeakSignatureRow.artifact), col(LeakSignatureRow.at)).where(
        col(LeakSignatureRow.artifact).in_(sorted(artifacts)), col(LeakSignatureRow.copy_of) == ""
    )
    return {row.artifact: row.at for row in session.execute(statement)}


def mark_alike(session: Session, artifact: str, alike: str) -> None:
    """Note which artifacts hold the same weights."""
    session.execute(
        update(table(LeakSignatureRow)).where(col(LeakSignatureRow.artifact) == artifact).values(alike=alike)
    )


def alike(session: Session) -> dict[str, str]:
    """Artifact → the name that artifacts with the same weights share."""
    rows = session.execute(
        select(col(LeakSignatureRow.artifact), col(LeakSignatureRow.alike)).where(
            col(LeakSignatureRow.alike).is_not(None)
        )
    )
    return {row.artifact: str(row.alike) for row in rows}


# --- public parents ----------------------------------------------------------------------------------------------------


def add_parent(session: Session, name: str, place: str, *, artifact: str, by: str, at: datetime) -> Parent:
    """Register a public parent; the same one again is the one that stands.

    Raises:
        Conflict: another place or artifact is registered under that name.
    """
    row = {"name": name, "artifact": artifact, "place": place, "by": by, "at": at}
    if not insert_new(session, table(LeakParentRow), row):
        stands = session.get_one(LeakParentRow, name)
        if (stands.place, stands.artifact) != (place, artifact):
            raise Conflict(f"a public parent {name} is registered with another place; choose another name")
        return Parent(stands.name, stands.artifact, stands.place, stands.by, stands.at)
    return Parent(name, artifact, place, by, at)


def drop_parent(session: Session, name: str) -> None:
    """Forget a public parent and its signatures.

    Raises:
        NotFound: there is none.
    """
    done = session.execute(delete(table(LeakParentRow)).where(col(LeakParentRow.name) == name))
    if not done.rowcount:  # type: ignore[attr-defined]
        raise NotFound(f"there is no public parent {name}")
    session.execute(delete(table(LeakParentSignatureRow)).where(col(LeakParentSignatureRow.parent) == name))


def parents(session: Session) -> list[Parent]:
    """Public parents, by name."""
    rows = session.execute(select(LeakParentRow).order_by(col(LeakParentRow.name))).scalars()
    return [Parent(r.name, r.artifact, r.place, r.by, r.at) for r in rows]


def put_parent_signature(
    session: Session, parent: str, artifact: str, *, sealed: bytes | None, error: str | None, at: datetime
) -> None:
    """Keep a parent's signature for an artifact, or why there is none."""
    row = {"parent": parent, "artifact": artifact, "sealed": sealed, "error": error, "at": at}
    upsert(session, table(LeakParentSignatureRow), [row])


def parent_signatures(session: Session) -> list[ParentSignature]:
    """All parents' signatures."""
    rows = session.execute(select(LeakParentSignatureRow)).scalars()
    return [
        ParentSignature(r.parent, r.artifact, None if r.sealed is None else bytes(r.sealed), r.error, r.at)
        for r in rows
    ]
