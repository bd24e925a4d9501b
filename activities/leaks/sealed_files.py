"""Exact digests of an artifact's sealed files, read once from the store in the background: whoever shows them has our ciphertext.

Sealing hashes its parts side by side and never the whole file in order, which places like the Hub list. The reading needs no
key. What is found is kept like a copy's digests, sealed to the monitor.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from sqlalchemy import Engine

from activities.beating import Beat
from activities.leaks.keys import MonitorKeys
from artifacts.leaks import FileDigests, SketchKey, StreamDigests, WeightSignature
from artifacts.leaks.sealed import seal_signature
from artifacts.manifest import file_object_key, parse_manifest
from artifacts.stores.base import Store
from orchestrator.records import artifacts, signatures
from orchestrator.records.database import reading, writing

#: Stands for whose copy it is where it is nobody's but ours, still sealed.
SEALED = "@sealed"
PREFIX = "sealed:"
_STEP = 8 << 20


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class SealedFiles:
    """Digests sealed files.

    Attributes:
        engine: of the records.
        keys: the monitor's.
        open_store: opens a store at an address, with this worker's credentials.
        least: smaller files are passed over, in bytes.
        clock: tells the time (aware).
    """

    engine: Engine
    keys: MonitorKeys
    open_store: Callable[[str], Store]
    least: int = 64 * 1024
    clock: Callable[[], datetime] = field(default=_now)

    def undigested(self, names: list[str]) -> list[str]:
        """Those of these artifacts that have a signature and no digests of their sealed files yet."""
        with reading(self.engine) as session:
            stored = signatures.of(session, names)
        done = {s.artifact for s in stored if s.copy_of == SEALED}
        return sorted({s.artifact for s in stored if not s.copy_of} - done)

    def digest(self, artifact: str, beat: Beat) -> int:
        """Read an artifact's sealed files once; how many.

        Raises:
            NotFound: there is no such artifact.
            StoreError: it cannot be read.
        """
        with reading(self.engine) as session:
            known = artifacts.get(session, artifact)
            data = artifacts.manifest(session, artifact)
        manifest = parse_manifest(data, expected_digest=known.manifest_digest.removeprefix("sha256:"))
        wanted = [entry.path for entry in manifest.files if entry.size >= self.least]
        with self.open_store(known.location) as store:
            found = [self._read(store, artifact, path, beat) for path in wanted]
        secret = os.urandom(32)
        key = SketchKey(secret)
        whole = WeightSignature(artifact, key.key_id, (), files=tuple(found))
        sealed = seal_signature(
            whole, secret, manifest=manifest.digest, recipient=str(self.keys.identity.recipient)
        )
        with writing(self.engine) as session:
            signatures.put(
                session, artifact, sealed, key_id=key.key_id, by="monitor", at=self.clock(), copy_of=SEALED
            )
        return len(found)

    def _read(self, store: Store, artifact: str, path: str, beat: Beat) -> FileDigests:
        key = file_object_key(artifact, path)
        info = store.stat(key)
        size = 0 if info is None else info.size
        stream = StreamDigests(PREFIX + path)
        for offset in range(0, size, _STEP):
            beat.check()
            stream.update(store.get_range(key, offset, min(_STEP, size - offset)))
            beat.details = [path[:200], offset]
        return replace(stream.finish(distinctive=True), copy=None)
