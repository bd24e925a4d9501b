"""Public parents: models that ours descend from, signed with the sketch key of each of ours, so that they can be taken out.

A parent is read whole, once, for all artifacts that lack it: from the Hub, or from a folder of the operator's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import structlog
from sqlalchemy import Engine

from activities.beating import Beat
from activities.leaks.keys import MonitorKeys
from artifacts.body import Plaintext
from artifacts.errors import ArtifactError
from artifacts.leaks import SignatureBuilder, SketchKey, WeightSignature
from artifacts.leaks.sealed import open_signature, seal_signature
from artifacts.source import Folder, PlainTree, close
from artifacts.source_store import open_source
from artifacts.stores.base import Store
from orchestrator.domain.errors import NotFound
from orchestrator.records import signatures
from orchestrator.records.database import reading, writing

_log = structlog.get_logger("leaks")
_STEP = 4 << 20
_NO_MANIFEST = "0" * 64


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Parents:
    """Signs public parents.

    Attributes:
        engine: of the records.
        keys: the monitor's.
        open_store: opens a store at an address (for `s3://` and `hf:` places).
        clock: tells the time (aware).
    """

    engine: Engine
    keys: MonitorKeys
    open_store: Callable[[str], Store]
    clock: Callable[[], datetime] = field(default=_now)

    def unsigned(self, artifacts: list[str]) -> list[str]:
        """Parents that some of these artifacts lack, leaving out those whose reading failed in the last hour."""
        now = self.clock()
        with reading(self.engine) as session:
            known = {(s.parent, s.artifact): s for s in signatures.parent_signatures(session)}
            parents = signatures.parents(session)
            signed = signatures.known(session, artifacts)
        out = []
        for parent in parents:
            for artifact in signed:
                stands = known.get((parent.name, artifact))
                failed_long_ago = (
                    stands is not None and not stands.sealed and (now - stands.at).total_seconds() > 3_600
                )
                if parent.artifact in {"", artifact} and (stands is None or failed_long_ago):
                    out.append(parent.name)
                    break
        return out

    def sign(self, name: str, beat: Beat) -> list[str]:
        """Read a parent once and sign it for every artifact that lacks it; those artifacts."""
        with reading(self.engine) as session:
            parent = next((p for p in signatures.parents(session) if p.name == name), None)
            if parent is None:
                raise NotFound(f"there is no public parent {name}")
            done = {
                s.artifact for s in signatures.parent_signatures(session) if s.parent == name and s.sealed
            }
            stored = [
                s
                for s in signatures.of(session)
                if not s.copy_of and parent.artifact in {"", s.artifact} and s.artifact not in done
            ]
        secrets: dict[str, bytes] = {}
        for signature in stored:
            try:
                secrets[signature.artifact] = open_signature(signature.sealed, self.keys.identity)[0].secret
            except ArtifactError as error:
                _log.warning(
                    "a weight signature cannot be opened", artifact=signature.artifact, why=str(error)
                )
        try:
            made = self._read(parent.place, name, secrets, beat) if secrets else {}
        except (ArtifactError, OSError) as error:
            self._failed(name, list(secrets), f"{parent.place} cannot be read: {error}")
            raise
        own = {
            s.artifact: _weights(open_signature(s.sealed, self.keys.identity)[1])
            for s in stored
            if s.artifact in made
        }
        for artifact in [a for a, whole in made.items() if _weights(whole) & own[a]]:
            self._failed(name, [artifact], f"{parent.place} holds {artifact} itself: it is no parent of it")
            del made[artifact]
        recipient = str(self.keys.identity.recipient)
        with writing(self.engine) as session:
            for artifact, whole in made.items():
                sealed = seal_signature(whole, secrets[artifact], manifest=_NO_MANIFEST, recipient=recipient)
                signatures.put_parent_signature(
                    session, name, artifact, sealed=sealed, error=None, at=self.clock()
                )
        return sorted(made)

    def _failed(self, name: str, artifacts: list[str], why: str) -> None:
        with writing(self.engine) as session:
            for artifact in artifacts:
                signatures.put_parent_signature(
                    session, name, artifact, sealed=None, error=why[:2_000], at=self.clock()
                )

    def _read(
        self, place: str, name: str, secrets: dict[str, bytes], beat: Beat
    ) -> dict[str, WeightSignature]:
        builders = {a: SignatureBuilder(name, SketchKey(secret)) for a, secret in secrets.items()}
        if place.startswith(("s3://", "hf:")):
            with closing(open_source(place, self.open_store)) as tree:
                _feed(tree, list(builders.values()), beat)
        else:
            _feed(Folder(Path(place)), list(builders.values()), beat)
        return {artifact: builder.finish().as_public_parent() for artifact, builder in builders.items()}


def _weights(signature: WeightSignature) -> set[str]:
    return {file.sha256 for file in signature.files if file.distinctive}


def _feed(tree: PlainTree, builders: list[SignatureBuilder], beat: Beat) -> None:
    buffer = bytearray(_STEP)
    for file in tree.scan():
        opened: Plaintext = file.open()
        try:
            offset = 0
            while offset < file.size:
                beat.check()
                view = memoryview(buffer)[: min(_STEP, file.size - offset)]
                count = _read_at(opened, view, offset)
                if not count:
                    break
                for builder in builders:
                    builder.feed(file.path, offset, view[:count])
                offset += count
                beat.details = [file.path[:200], offset]
        finally:
            close(opened)
        if offset:
            for builder in builders:
                builder.finish_file(file.path)


def _read_at(opened: Plaintext, into: memoryview, offset: int) -> int:
    return os.preadv(opened, [into], offset) if isinstance(opened, int) else opened.read_at(into, offset)
