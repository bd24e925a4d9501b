"""What every copy that custody makes has in common: opened inside custody, sealed under a key of its own, written down."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from activities.custody.copies import MadeCopy
from activities.custody.errors import CustodyRefused
from activities.custody.opening import Custody
from activities.custody.second_lock import Purpose
from artifacts.envelope import EnvelopePayload, file_keys
from artifacts.keys import RootKey, unwrap_root
from artifacts.manifest import Manifest, manifest_key, open_inner, parse_manifest
from artifacts.progress import Progress
from artifacts.sealing import SealedArtifact
from artifacts.stores.base import Store
from artifacts.ticket import Ticket
from orchestrator.domain.errors import Reason
from orchestrator.domain.state import ReleaseState
from orchestrator.records import artifacts as artifact_records
from orchestrator.records import audit
from orchestrator.records.artifacts import Artifact
from orchestrator.records.database import writing

UPLOADER = "custody"
_FILES_A_LEAF = 1_000
Tell = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class CopyPlaces:
    """Where copies are made.

    Attributes:
        open_store: opens a store at an address, with this worker's credentials.
        stores: addresses that copies may be read from and sealed into; nothing else is opened, whatever the log says.
        state_dir: resume tickets, on custody's own disk.
        workers: threads of one copy.
        part_size: plaintext bytes per part; None leaves it to the sealing.
        monitor: tells the leak monitor's public string: what is sealed anew, and every copy's digests, are known to it.
    """

    open_store: Callable[[str], Store]
    stores: Sequence[str]
    state_dir: Path
    workers: int = 2
    part_size: int | None = None
    monitor: Callable[[], str | None] = field(default=lambda: None)


class SealsCopies(Custody):
    """Custody with what every copy needs. Arguments as `Custody`, and where copies are made."""

    def __init__(self, *arguments: Any, places: CopyPlaces, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._places = places

    def _current(self, release: str) -> ReleaseState:
        """The release by the log, every decision in it checked."""
        self.watch.catch_up()
        return self._checked(release, [event for event, _ in self.watch.history(release)]).state

    def _store(self, location: str) -> Store:
        if location not in self._places.stores:
            raise CustodyRefused(
                f"custody opens no store at {location}",
                [Reason("store", "allowed: " + ", ".join(self._places.stores))],
            )
        return self._places.open_store(location)

    def _opening(
        self, state: ReleaseState, manifest: Manifest, components: Sequence[str] | None, purpose: Purpose
    ) -> EnvelopePayload:
        """What opens an artifact inside custody; it never leaves."""
        return EnvelopePayload(
            artifact_id=manifest.artifact_id,
            manifest_digest=manifest.digest,
            release=state.release,
            step="custody",
            grant="custody",
            keys=file_keys(self._root(state, manifest, purpose), manifest, components),
            issued_at=self._clock(),
            not_after=None,
        )

    def _root(self, state: ReleaseState, manifest: Manifest, purpose: Purpose) -> RootKey:
        name = manifest.artifact_id
        held = {name: self.keeping.hold(state, manifest)}
        return self.keeping.unwrap(state, held, {name: manifest}, purpose.key)[name]

    def _sealing(self, state: ReleaseState, artifact: str, tell: Tell | None) -> dict[str, Any]:
        chosen = {} if self._places.part_size is None else {"part_size": self._places.part_size}
        return {
            "custody_recipient": self._keys.public.recipient,
            "signer": self._keys.envelopes,
            "release": state.release,
            "artifact_id": artifact,
            "state_dir": self._places.state_dir,
            "workers": self._places.workers,
            "progress": tell,
            **chosen,
        }

    def _clear(self, store: Store, of: str, artifact: str) -> None:
        """Remove what a copy left behind whose ticket is gone: nobody knows its root, and nothing of it can be used.

        Only under the id that custody derives for exactly this copy, and only while that is not complete.
        """
        begun = Ticket.exists(self._places.state_dir, f"artifact {of}", store.uri, artifact)
        if begun or store.stat(manifest_key(artifact)) is not None:
            return
        for info in list(store.list(f"artifacts/{artifact}/")):
            store.delete(info.key)

    def _take_in_copy(
        self, state: ReleaseState, sealed: SealedArtifact
    ) -> tuple[Manifest, list[dict[str, Any]]]:
        """Hold the root of what was just sealed, and read back the digests that its sealing took."""
        manifest = parse_manifest(
            sealed.manifest, trusted=[self._keys.envelopes.verify_key], expected_digest=sealed.manifest_digest
        )
        self.keeping.take_in(state, manifest, sealed.wrapped_root)
        root = unwrap_root(
            sealed.wrapped_root,
            self._keys.identity,
            manifest.digest,
            artifact_id=manifest.artifact_id,
            commitment=manifest.root_commitment,
        )
        return manifest, issued_files(manifest, root)

    def _written_down(
        self,
        state: ReleaseState,
        copy: MadeCopy,
        manifest: Manifest,
        location: str,
        body: dict[str, Any],
        files: list[dict[str, Any]],
    ) -> None:
        """The manifest into the records and the leaf into the log; then custody remembers the copy."""
        now = self._clock()
        record = Artifact(
            id=copy.artifact,
            manifest_digest=copy.manifest_digest,
            wrapped_root=None,
            location=location,
            components=sorted(manifest.components),
            size=manifest.size,
            uploader=UPLOADER,
            created_at=now,
        )
        with writing(self._engine) as session:
            artifact_records.register(session, record, manifest.data)
            for start in range(0, max(len(files), 1), _FILES_A_LEAF):
                part = files[start : start + _FILES_A_LEAF]
                leaf = {**body, "files": part} if files else body
                audit.append(session, "custody", leaf, at=now, release=state.release)
        self.copies.keep(copy)


def copied_id(release: str, of: str, purpose: str, cause: str) -> str:
    """The id of a copy: it derives from what it is for."""
    text = "\0".join(["sluice.release/copy/v1", release, of, purpose, cause])
    return "art-" + base64.b32encode(hashlib.sha256(text.encode()).digest()).decode().lower()[:26]


def issued_files(manifest: Manifest, root: RootKey) -> list[dict[str, Any]]:
    """The exact digests of a copy's files, as its sealing took them; empty for one that is no marked copy."""
    found = []
    for entry in manifest.files:
        key = root.file_key(manifest.artifact_id, entry.path, entry.version)
        inner = open_inner(manifest.artifact_id, entry, key)
        issued = (inner.signatures or {}).get("issued")
        if isinstance(issued, dict):
            found.append(issued)
    return found
