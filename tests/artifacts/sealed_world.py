"""A small world for tests of sealed artifacts: keys, a source folder, a store, an envelope."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from artifacts.body import CHUNK
from artifacts.envelope import EnvelopePayload, file_keys, make_envelope, open_envelope
from artifacts.fetching import FetchReport, fetch_artifact
from artifacts.keys import KeyPair, RootKey, custody_identity, custody_keygen, partner_keygen, unwrap_root
from artifacts.manifest import Manifest, parse_manifest
from artifacts.sealing import SealedArtifact, seal_tree
from artifacts.signing import SigningKey
from artifacts.stores.directory import DirectoryStore

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PART = 4 * CHUNK
COMPONENTS = {"weights": ["*.bin", "*.safetensors"], "tokenizer": "tokenizer", "rest": "*"}

CUSTODY = custody_keygen()
SIGNER = SigningKey.generate()
PARTNER = partner_keygen()


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def write_tree(folder: Path) -> None:
    """Files around every edge: empty, one byte, a chunk, a part, several parts."""
    sizes = {
        "empty.bin": 0,
        "one.bin": 1,
        "chunk.bin": CHUNK,
        "part.bin": PART,
        "part_and_one.bin": PART + 1,
        "many.bin": 5 * PART + 1234,
        "tokenizer/vocab.txt": 777,
        "config.json": 20,
    }
    for seed, (name, size) in enumerate(sizes.items()):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(noise(size, seed))


@dataclass
class World:
    folder: Path
    custody: KeyPair = field(default_factory=lambda: CUSTODY)
    partner: KeyPair = field(default_factory=lambda: PARTNER)
    signer: SigningKey = field(default_factory=lambda: SIGNER)

    def __post_init__(self) -> None:
        self.source = self.folder / "source"
        self.source.mkdir()
        self.store = DirectoryStore(self.folder / "store")
        self.state = self.folder / "state"

    def seal(self, **changes: Any) -> SealedArtifact:
        given: dict[str, Any] = {
            "custody_recipient": self.custody.recipient,
            "signer": self.signer,
            "components": COMPONENTS,
            "part_size": PART,
            "state_dir": self.state,
        }
        store = changes.pop("store", self.store)
        return seal_tree(self.source, store, **(given | changes))

    def manifest(self, sealed: SealedArtifact) -> Manifest:
        return parse_manifest(sealed.manifest, expected_digest=sealed.manifest_digest)

    def root(self, sealed: SealedArtifact) -> RootKey:
        return unwrap_root(
            sealed.wrapped_root,
            custody_identity(self.custody.identity),
            sealed.manifest_digest,
            artifact_id=sealed.artifact_id,
            commitment=self.manifest(sealed).root_commitment,
        )

    def payload(
        self, sealed: SealedArtifact, components: list[str] | None = None, **changes: Any
    ) -> EnvelopePayload:
        given: dict[str, Any] = {
            "artifact_id": sealed.artifact_id,
            "manifest_digest": sealed.manifest_digest,
            "release": "gpt-5",
            "step": "partners",
            "grant": "grant-1",
            "keys": file_keys(self.root(sealed), self.manifest(sealed), components),
            "issued_at": NOW,
            "not_after": NOW + timedelta(days=7),
        }
        return EnvelopePayload(**(given | changes))

    def envelope(self, sealed: SealedArtifact, **changes: Any) -> bytes:
        return make_envelope(self.payload(sealed, **changes), [self.partner.recipient], self.signer)

    def opened(self, envelope: bytes) -> EnvelopePayload:
        return open_envelope(envelope, self.partner.identity, now=NOW, verify_keys=[self.signer.verify_key])

    def fetch(self, sealed: SealedArtifact, destination: Path, **changes: Any) -> FetchReport:
        payload = changes.pop("payload", None) or self.opened(self.envelope(sealed))
        source = changes.pop("source", self.store)
        return fetch_artifact(
            source, sealed.manifest, payload, destination, now=changes.pop("now", NOW), **changes
        )


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
