"""What custody remembers of the copies that it made: of which artifact, for whom, with which manifest.

    copy   an artifact that custody sealed itself: a partner's marked copy, or an artifact sealed anew after a disclosed key

The roots of copies, and the secrets of marks, are held as every other root (`activities.custody.keeping`).

The service's records and the log say the same, for everybody to see; what custody acts on is this. A copy whose manifest
or origin was swapped anywhere else is found by that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Column, Float, MetaData, String, Table, insert, select
from sqlalchemy.exc import IntegrityError

from activities.custody.memory import CustodyMemory

_METADATA = MetaData()
_COPY = Table(
    "custody_copy",
    _METADATA,
    Column("artifact", String, primary_key=True),
    Column("of", String, nullable=False, index=True),
    Column("release", String, nullable=False, index=True),
    Column("purpose", String, nullable=False),
    Column("manifest_digest", String, nullable=False),
    Column("grant", String),
    Column("holder", String),
    Column("rotation", String),
    Column("marked_as", String),
    Column("strength", Float),
)


@dataclass(frozen=True, slots=True)
class MadeCopy:
    """An artifact that custody sealed itself.

    Attributes:
        artifact: its id.
        of: the artifact that it was made from.
        purpose: `mark`, a marked copy for one grant; `reseal`, in the place of one whose key was disclosed.
        manifest_digest: of the copy.
        grant: whose copy it is; holder: under which name it is marked, `*public` for everybody's. None for an artifact that everybody's copies are made from.
        rotation: which rotation asked for it.
        marked_as: the artifact id that its marks were made under; None for an unmarked one.
        strength: of its mark.
    """

    artifact: str
    of: str
    release: str
    purpose: Literal["mark", "reseal"]
    manifest_digest: str
    grant: str | None = None
    holder: str | None = None
    rotation: str | None = None
    marked_as: str | None = None
    strength: float | None = None


class CopyMemory:
    """The tables of copies in custody's own database. Whoever was first stays."""

    def __init__(self, memory: CustodyMemory) -> None:
        self._engine = memory.engine
        _METADATA.create_all(self._engine)

    def get(self, artifact: str) -> MadeCopy | None:
        """A copy by its id."""
        with self._engine.connect() as connection:
            row = connection.execute(select(_COPY).where(_COPY.c.artifact == artifact)).one_or_none()
        return None if row is None else MadeCopy(*row)

    def of_release(self, release: str) -> Mapping[str, MadeCopy]:
        """All copies of a release, by id."""
        statement = select(_COPY).where(_COPY.c.release == release).order_by(_COPY.c.artifact)
        with self._engine.connect() as connection:
            rows = connection.execute(statement).all()
        return {row.artifact: MadeCopy(*row) for row in rows}

    def keep(self, copy: MadeCopy) -> MadeCopy:
        """Remember a copy."""
        values = {name: getattr(copy, name) for name in MadeCopy.__dataclass_fields__}
        try:
            with self._engine.begin() as connection:
                connection.execute(insert(_COPY).values(**values))
        except IntegrityError:
            known = self.get(copy.artifact)
            if known is None:
                raise
            return known
        return copy


def copy_for(copies: Mapping[str, MadeCopy], grant: str, base: str) -> MadeCopy | None:
    """The copy that a grant has of an artifact, as it stands now: sealed anew itself, or made from what was sealed anew."""
    origin = lineage(copies, base)
    for copy in copies.values():
        if copy.purpose == "mark" and copy.grant == grant and lineage(copies, copy.of) == origin:
            return latest(copies, copy)
    return None


def latest(copies: Mapping[str, MadeCopy], copy: MadeCopy) -> MadeCopy:
    """What stands in the place of a copy now."""
    while newer := next(
        (c for c in copies.values() if c.purpose == "reseal" and c.of == copy.artifact), None
    ):
        copy = newer
    return copy


def lineage(copies: Mapping[str, MadeCopy], artifact: str) -> str:
    """The artifact that was registered first, of which `artifact` is a later sealing."""
    while (made := copies.get(artifact)) is not None and made.purpose == "reseal":
        artifact = made.of
    return artifact
