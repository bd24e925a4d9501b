"""What custody issued: partners' own copies with their exact digests, and artifacts that were sealed anew; read from the log.

A copy's digest found somewhere says whose it was. An artifact sealed anew holds the weights of the one it was made from: it is
known by that one's signature.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import Engine

from artifacts.leaks import FileDigests
from artifacts.leaks.marking import issued_from_json
from orchestrator.records import audit, signatures
from orchestrator.records.database import reading, writing


@dataclass
class Issued:
    """Follows custody's leaves; what was read once is kept.

    Attributes:
        engine: of the records.
    """

    engine: Engine
    _next: int = 0
    _copies: dict[str, list[FileDigests]] = field(default_factory=dict)
    _made_from: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def follow(self) -> None:
        """Read what is new, and give what was sealed anew the signature of what it was made from."""
        with self._lock:
            with reading(self.engine) as session:
                for leaf in audit.leaves(session, self._next, kind="custody"):
                    self._take(json.loads(leaf.body))
                    self._next = leaf.index + 1
                known = signatures.known(session, {*self._made_from, *self._made_from.values()})
            missing = {new: self.origin(new) for new in self._made_from if new not in known}
            if missing:
                self._adopt(missing)

    def origin(self, artifact: str) -> str:
        """The first artifact that this one's weights were sealed as."""
        seen = {artifact}
        while (before := self._made_from.get(artifact)) is not None and before not in seen:
            artifact = before
            seen.add(before)
        return artifact

    def copies(self, artifact: str) -> list[FileDigests]:
        """Exact digests of every copy that was made of an artifact, before or after it was sealed anew."""
        first = self.origin(artifact)
        with self._lock:
            return [file for of, files in self._copies.items() if self.origin(of) == first for file in files]

    def _take(self, entry: dict[str, object]) -> None:
        match entry:
            case {"action": "copy_made", "of": str(of), "holder": str(holder), "files": list(files)}:
                self._copies.setdefault(of, []).extend(issued_from_json(file, holder) for file in files)
            case {"action": "resealed", "of": str(of), "copy": str(copy)}:
                self._made_from[copy] = of

    def _adopt(self, missing: dict[str, str]) -> None:
        with writing(self.engine) as session:
            stored = {s.artifact: s for s in signatures.of(session, missing.values()) if not s.copy_of}
            for new, origin in missing.items():
                if origin in stored:
                    found = stored[origin]
                    signatures.put(
                        session, new, found.sealed, key_id=found.key_id, by=found.by, at=datetime.now(UTC)
                    )
