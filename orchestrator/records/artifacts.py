"""Sealed artifacts: their signed manifests as they came, where their files lie, and the root key wrapped to custody."""

from __future__ import annotations

import json
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.domain.errors import Conflict, NotFound
from orchestrator.domain.values import Digest, Frozen, Instant, Name
from orchestrator.records.database import insert_new
from orchestrator.records.pages import Page, after, cut, decode_cursor, encode_cursor, page_size
from orchestrator.records.tables import ArtifactRow, table


class Artifact(Frozen):
    """A sealed artifact without its manifest's bytes. `wrapped_root`: the root key, readable by custody alone."""

    id: Name
    manifest_digest: Digest
    wrapped_root: str | None
    location: str
    components: list[Name]
    size: int
    uploader: Name
    created_at: Instant


_COLUMNS = [getattr(ArtifactRow, name) for name in Artifact.model_fields]


def register(session: Session, artifact: Artifact, manifest: bytes) -> Artifact:
    """Keep an artifact and its signed manifest. The same one again is the one that stands.

    Raises:
        Conflict: another manifest, place or root is registered under that id.
    """
    row = {**artifact.model_dump(), "components": json.dumps(artifact.components), "manifest": manifest}
    if insert_new(session, table(ArtifactRow), row):
        return artifact
    known = get(session, artifact.id)
    if known.manifest_digest != artifact.manifest_digest:
        raise Conflict(f"the artifact {artifact.id} is registered with another manifest; choose another id")
    if (known.location, known.components) != (artifact.location, artifact.components):
        raise Conflict(f"the artifact {artifact.id} is registered with another place or other components")
    return known


def get(session: Session, artifact: str) -> Artifact:
    """An artifact.

    Raises:
        NotFound: there is none.
    """
    row = session.execute(select(*_COLUMNS).where(col(ArtifactRow.id) == artifact)).one_or_none()
    if row is None:
        raise NotFound(f"there is no artifact {artifact}")
    return Artifact(**{**row._mapping, "components": json.loads(row.components)})  # noqa: SLF001 - public name


def manifest(session: Session, artifact: str) -> bytes:
    """The signed manifest, byte for byte as it came.

    Raises:
        NotFound: there is no such artifact.
    """
    found = session.execute(
        select(col(ArtifactRow.manifest)).where(col(ArtifactRow.id) == artifact)
    ).scalar_one_or_none()
    if found is None:
        raise NotFound(f"there is no artifact {artifact}")
    return bytes(found)


def list_artifacts(session: Session, *, cursor: str | None = None, limit: int = 50) -> Page[Artifact]:
    """Artifacts, newest first.

    Raises:
        Malformed: a cursor of another list, or a limit out of range.
    """
    limit = page_size(limit)
    key = None if cursor is None else decode_cursor(cursor, "artifacts", datetime, str)
    columns = [col(ArtifactRow.created_at), col(ArtifactRow.id)]
    rows = session.execute(after(select(*_COLUMNS), columns, key, down=True).limit(limit + 1)).all()
    return cut(
        rows,
        limit,
        lambda row: Artifact(**{**row._mapping, "components": json.loads(row.components)}),  # noqa: SLF001
        lambda row: encode_cursor("artifacts", row.created_at, row.id),
    )
