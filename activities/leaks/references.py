"""What suspects are held against: the signatures of artifacts, opened with the monitor's key, ready to compare.

Each artifact has a sketch key of its own, so a reference set is one artifact's: its signature, the digests of all its issued
copies, and its public parents. Opened sets stay in memory as long as what they are made of does not change.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import structlog
from sqlalchemy import Engine

from activities.leaks.issued import Issued
from activities.leaks.keys import MonitorKeys
from activities.leaks.sealed_files import SEALED
from artifacts.errors import ArtifactError
from artifacts.leaks import FileDigests, ReferenceSet, WeightSignature
from artifacts.leaks.sealed import open_signature
from orchestrator.records import signatures
from orchestrator.records.database import reading, writing

_log = structlog.get_logger("leaks")
_KEPT = 64


@dataclass(frozen=True, slots=True)
class Reference:
    """One artifact to look for.

    Attributes:
        artifact: its id.
        known: its signature, its copies' digests, its parents.
        missing: public parents that are registered and not signed yet: what looks like ours may be theirs.
    """

    artifact: str
    known: ReferenceSet = field(repr=False)
    missing: tuple[str, ...] = ()

    @property
    def signature(self) -> WeightSignature:
        """The artifact's own."""
        return next(s for s in self.known.signatures if not s.public_parent)

    @property
    def least_bytes(self) -> int:
        """Fewer bytes than this cannot hold a tenth of its weights at one bit each."""
        return self.signature.weights // 80

    @property
    def looks_for_something(self) -> bool:
        """Whether there is anything to recognise it by."""
        own = self.signature
        return bool(own.matrices) or any(file.distinctive for file in own.files)


class References:
    """Reference sets by artifact.

    Args:
        engine: of the records.
        keys: the monitor's.
    """

    def __init__(self, engine: Engine, keys: MonitorKeys) -> None:
        self._engine, self._keys = engine, keys
        self.issued = Issued(engine)
        self._opened: OrderedDict[str, tuple[tuple[str, ...], Reference]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, artifacts: Collection[str]) -> list[Reference]:
        """Those of these artifacts that have a signature which this monitor can open."""
        self.issued.follow()
        with reading(self._engine) as session:
            stored = signatures.of(session, artifacts)
            parents = signatures.parents(session)
            signed = {(p.parent, p.artifact): p for p in signatures.parent_signatures(session)}
        found = []
        for artifact in sorted({s.artifact for s in stored}):
            own = [s for s in stored if s.artifact == artifact]
            wanted = [p for p in parents if p.artifact in {"", artifact}]
            theirs = [signed.get((p.name, artifact)) for p in wanted]
            missing = tuple(p.name for p, s in zip(wanted, theirs, strict=True) if s is None or not s.sealed)
            issued = self.issued.copies(artifact)
            mark = (
                str(len(issued)),
                *(s.digest for s in own),
                *(f"{s.parent}@{s.at.isoformat()}" for s in theirs if s is not None and s.sealed),
                *missing,
            )
            known = self._cached(artifact, mark)
            if known is None:
                sealed = [s.sealed for s in theirs if s is not None and s.sealed]
                known = self._open(artifact, own, issued, sealed, missing)
                if known is not None:
                    self._keep(artifact, mark, known)
            if known is not None:
                found.append(known)
        return found

    def _cached(self, artifact: str, mark: tuple[str, ...]) -> Reference | None:
        with self._lock:
            held = self._opened.get(artifact)
            return held[1] if held is not None and held[0] == mark else None

    def _keep(self, artifact: str, mark: tuple[str, ...], known: Reference) -> None:
        with self._lock:
            self._opened[artifact] = (mark, known)
            self._opened.move_to_end(artifact)
            while len(self._opened) > _KEPT:
                self._opened.popitem(last=False)

    def _open(
        self,
        artifact: str,
        own: list[signatures.StoredSignature],
        issued: list[FileDigests],
        parents: list[bytes],
        missing: tuple[str, ...],
    ) -> Reference | None:
        """Open what is sealed; a signature that this monitor cannot open is said, and left out."""
        base: WeightSignature | None = None
        key = None
        for stored in own:
            if stored.copy_of:
                continue
            try:
                key, base = open_signature(stored.sealed, self._keys.identity)
                base = replace(base, artifact=artifact)  # sealed anew, it has its origin's signature
            except ArtifactError as error:
                _log.warning("a weight signature cannot be opened", artifact=artifact, why=str(error))
                return None
            if stored.alike is None and base.files:
                self._mark(artifact, base)
        if base is None or key is None:
            return None
        for stored in own:
            if stored.copy_of:
                try:
                    _, copy = open_signature(stored.sealed, self._keys.identity)
                    if stored.copy_of == SEALED:
                        base = replace(base, files=(*base.files, *copy.files))
                    else:
                        base = base.with_copy(copy.files, stored.copy_of)
                except ArtifactError as error:
                    _log.warning("a copy's digests cannot be opened", artifact=artifact, why=str(error))
        base = replace(base, files=(*base.files, *issued))
        known = [base]
        for sealed in parents:
            try:
                known.append(open_signature(sealed, self._keys.identity)[1].as_public_parent())
            except ArtifactError as error:
                _log.warning("a parent's signature cannot be opened", artifact=artifact, why=str(error))
        return Reference(artifact, ReferenceSet(key, known), missing)

    def _mark(self, artifact: str, signature: WeightSignature) -> None:
        weights = [file.sha256 for file in signature.files if file.distinctive]
        if not weights:
            return
        with writing(self._engine) as session:
            signatures.mark_alike(session, artifact, self._keys.alike(weights))
