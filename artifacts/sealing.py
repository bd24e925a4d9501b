"""Sealing a folder into a store: streaming, parallel by part, resumable, and without a secret of the service.

`seal_tree` runs where the weights are. It draws the root key, seals every file part by part while reading it once,
uploads the parts, signs the manifest, wraps the root to custody's public key and forgets it. What it leaves behind:

- in the store: `artifacts/<id>/files/<path>`, then `signature-….sealed` (with a monitor), `root.wrapped`, last
  `artifacts/<id>/manifest.dsse.json`;
- in `state_dir`: a ticket (`artifacts.ticket`) by which the same call goes on after kill -9, re-using every stored part.

Invariants: nothing of the plaintext is written anywhere; a part never goes out under a salt used before; the digest in
the manifest is of the very bytes that were sealed; memory is 2 x part size x workers, whatever the files' sizes.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from artifacts.body import CHUNK, PART_SIZE, part_size_for
from artifacts.digests import DEFAULT_DIGESTS, new_hashers
from artifacts.errors import ArtifactError, ManifestError, ObjectExists, ObjectMissing, SourceChangedError
from artifacts.keys import RootKey, custody_recipient, wrap_half, wrap_root
from artifacts.manifest import (
    MAX_MANIFEST_BYTES,
    PAYLOAD_TYPE,
    FileEntry,
    Manifest,
    build_manifest,
    check_artifact_id,
    file_object_key,
    manifest_key,
    parse_manifest,
    signature_key,
    wrapped_root_key,
)
from artifacts.parallel import run_parts
from artifacts.progress import Meter, ProgressCallback
from artifacts.sealing_file import FileSealing, Observer
from artifacts.signatures import MAX_SIGNATURE_BYTES, monitor_fingerprint, signature_for, signature_observer
from artifacts.signing import SigningKey, parse_dsse
from artifacts.source import Folder, PlainFile, PlainTree, assign, fingerprint, plaintext_secret
from artifacts.stores.base import Store
from artifacts.ticket import Ticket

if TYPE_CHECKING:
    from artifacts.custody.shares import Dealing

MEMORY = 4 * PART_SIZE
"""Bytes of buffers that sealing keeps to, by running fewer threads when a huge file has larger parts."""


@dataclass(frozen=True, slots=True)
class SealedArtifact:
    """What a sealing gave: everything that registering the artifact needs, and no secret.

    Attributes:
        artifact_id: names the artifact in the store.
        manifest_digest: hex; what plans, sign-offs and envelopes refer to.
        manifest: the DSSE file.
        wrapped_root: the root key (with key shares: custody's half), wrapped to custody and bound to the manifest digest.
        files: the manifest's entries.
        store_uri: where it lies.
        recognised: it had been sealed before; nothing was done.
        bytes_reused: plaintext bytes whose parts an earlier, interrupted run had stored.
        signature: the weight signature, sealed to the leak monitor; None when no monitor was named.
    """

    artifact_id: str
    manifest_digest: str
    manifest: bytes
    wrapped_root: str
    files: tuple[FileEntry, ...]
    store_uri: str
    recognised: bool = False
    bytes_reused: int = 0
    signature: bytes | None = None

    def __repr__(self) -> str:
        return f"SealedArtifact({self.artifact_id}, {len(self.files)} files, digest={self.manifest_digest})"


class SealingObserver(Protocol):
    """Sees the plaintext of files while they are sealed, so that nothing has to be read twice (leak signatures)."""

    @property
    def name(self) -> str:
        """The member of `Inner.signatures` that this observer fills."""
        ...

    def begin(self, path: str, component: str, size: int) -> Observer | None:
        """An observer for one file, or None if it is of no interest."""
        ...


def new_artifact_id() -> str:
    """`art-` and 26 characters of 130 random bits: stable, not secret, tells nothing of the content."""
    return "art-" + base64.b32encode(secrets.token_bytes(17)).decode().lower()[:26]


def seal_tree(
    source: Path | PlainTree,
    store: Store,
    *,
    custody_recipient: str,
    signer: SigningKey,
    components: Mapping[str, str | Sequence[str]],
    release: str | None = None,
    part_size: int = PART_SIZE,
    workers: int = 2,
    progress: ProgressCallback | None = None,
    state_dir: Path | None = None,
    artifact_id: str | None = None,
    digests: Sequence[str] = DEFAULT_DIGESTS,
    observers: Sequence[SealingObserver] = (),
    monitor: str | None = None,
    shares: Dealing | None = None,
) -> SealedArtifact:
    """Seal the folder (or single file, or plaintext in a store) `source` into `store` as one artifact.

    Args:
        source: what to seal; every file in it. A path, or `artifacts.source_store.StoreTree` for S3 and the Hub.
        store: where sealed files go.
        custody_recipient: custody's public string, `sluicecustody1...`; the root key is wrapped to it.
        signer: signs the manifest; a key of whoever seals, not of the service.
        components: component -> path, folder or glob (or a list); see `artifacts.source.assign`.
        release: release id to write into the manifest, if it is known already.
        part_size: plaintext bytes per part, a multiple of 16 KiB; raised for files that would have over 10 000 parts.
        workers: threads; fewer where larger parts would need more memory than `MEMORY`. Memory is `2 * part_size *
            workers` and what the store needs.
        progress: told after each part.
        state_dir: for the resume ticket; without it an interrupted sealing starts anew.
        artifact_id: chosen by the caller, else drawn; with the same one, a finished artifact in the store is recognised
            also without the ticket.
        digests: of the plaintext, kept sealed in the manifest: `sha256`, `blake3`.
        observers: see the plaintext as it passes.
        monitor: the leak monitor's public string, `sluicemonitor1...`: a weight signature is made in the same pass, sealed
            to it, and laid beside the manifest (`artifacts.leaks.sealed`). Needs the extra `leaks`.
        shares: who holds shares of the artifact's key, if it is to have that second lock (`artifacts.custody.shares`).

    Raises:
        SharesInvalid: `shares` cannot be dealt like that.
        SourceError, PathError: the folder cannot be sealed as it is.
        SourceChangedError: something changed in it meanwhile; nothing is published.
        StoreError: the store failed; call again to go on where it stopped.
    """
    tree = Folder(source) if isinstance(source, Path) else source
    files = tree.scan()
    assigned = assign(files, components)
    new_hashers(digests)
    if part_size < CHUNK or part_size % CHUNK:
        raise ArtifactError(f"part size {part_size}: must be a multiple of {CHUNK} bytes")
    if artifact_id is not None:
        check_artifact_id(artifact_id)
    run = _Run(
        store,
        files,
        assigned,
        custody_recipient,
        signer,
        release,
        part_size,
        workers,
        tuple(digests),
        observers,
        monitor,
        shares,
    )
    guard = (
        Ticket.held(state_dir, tree.label, store.uri, artifact_id)
        if state_dir is not None
        else nullcontext(None)
    )
    with guard as ticket, store.batch():
        return run.seal(tree, ticket, artifact_id, progress)


class _Run:
    def __init__(
        self,
        store: Store,
        files: Sequence[PlainFile],
        assigned: dict[str, str],
        custody: str,
        signer: SigningKey,
        release: str | None,
        part_size: int,
        workers: int,
        digests: tuple[str, ...],
        observers: Sequence[SealingObserver],
        monitor: str | None = None,
        shares: Dealing | None = None,
    ) -> None:
        self.store, self.files, self.assigned, self.signer = store, files, assigned, signer
        self.custody, self.release, self.part_size, self.workers = (
            custody,
            release,
            part_size,
            max(1, workers),
        )
        self.digests, self.observers = digests, observers
        self.custody_fingerprint = custody_recipient(custody).fingerprint
        self.parameters: dict[str, Any] = {
            "custody": self.custody_fingerprint,
            "components": assigned,
            "release": release,
            "part_size": part_size,
            "digests": list(digests),
            "observers": [observer.name for observer in observers],
        }
        self.monitor = monitor
        if monitor is not None:
            self.parameters["monitor"] = monitor_fingerprint(monitor)
        self.shares = shares
        if shares is not None:
            shares.check()
            self.parameters["shares"] = [shares.threshold, shares.fingerprints()]

    def seal(
        self,
        source: PlainTree,
        ticket: Ticket | None,
        wanted_id: str | None,
        progress: ProgressCallback | None,
    ) -> SealedArtifact:
        seen = fingerprint(self.files)
        if ticket is not None and ticket.matches(seen, self.parameters) and ticket.finished is not None:
            data, wrapped = ticket.finished
            manifest = parse_manifest(data, expected_digest=_digest_of(data))
            return self._publish(manifest, wrapped, recognised=True)
        if wanted_id is not None and self.store.stat(manifest_key(wanted_id)) is not None:
            return self._already_there(wanted_id)
        root, artifact_id, done, resumed = self._start(ticket, seen, wanted_id)
        if self.monitor is not None:
            self.observers = (*self.observers, signature_observer(root, artifact_id))
        meter = Meter(sum(f.size for f in self.files), len(self.files), progress)
        entries = self._seal_files(root, artifact_id, done, ticket, meter, resumed=resumed)
        if fingerprint(source.scan()) != seen:
            raise SourceChangedError(
                f"{source.label}: files were added, removed or changed while it was sealed; seal again"
            )
        manifest, wrapped = self._described(root, artifact_id, entries)
        if self.monitor is not None:
            self._put_signature(signature_for(manifest, root, self.monitor), manifest)
        if ticket is not None:
            ticket.finish(manifest.data, wrapped)
        return self._publish(manifest, wrapped, reused=meter.reused)

    def _described(
        self, root: RootKey, artifact_id: str, entries: Sequence[FileEntry]
    ) -> tuple[Manifest, str]:
        """The manifest, and what custody gets: the root, or its half of one that people's shares lock too."""
        dealt = None
        if self.shares is not None:
            from artifacts.custody.shares import deal

            dealt = deal(root, artifact_id, self.shares, self.custody)
        manifest = build_manifest(
            artifact_id=artifact_id,
            release=self.release,
            root_commitment=root.commitment(artifact_id),
            custody_fingerprint=self.custody_fingerprint,
            files=entries,
            signer=self.signer,
            shares=None if dealt is None else dealt.record,
        )
        if dealt is not None:
            return manifest, wrap_half(dealt.half, self.custody, manifest.digest)
        return manifest, wrap_root(root, self.custody, manifest.digest)

    def _start(
        self, ticket: Ticket | None, seen: str, wanted_id: str | None
    ) -> tuple[RootKey, str, dict[str, FileEntry], bool]:
        """Root, id, files already stored, and whether all of that goes on from an earlier run."""
        if ticket is None:
            return RootKey.generate(), wanted_id or new_artifact_id(), {}, False
        secret = plaintext_secret(self.files)
        if ticket.matches(seen, self.parameters):
            root = ticket.root(secret)
            if root is not None:
                return root, ticket.artifact_id, ticket.entries(), True
        root, artifact_id = RootKey.generate(), wanted_id or new_artifact_id()
        ticket.begin(artifact_id, seen, self.parameters, root, secret)
        return root, artifact_id, {}, False

    def _put_signature(self, sealed: bytes, manifest: Manifest) -> None:
        """Lay the signature beside the manifest; one that an earlier run left for the same manifest stays."""
        with suppress(ObjectExists):
            self.store.put(signature_key(manifest.artifact_id, manifest.digest), sealed)

    def _signature(self, manifest: Manifest) -> bytes | None:
        """The signature that lies beside the manifest."""
        if self.monitor is None:
            return None
        key = signature_key(manifest.artifact_id, manifest.digest)
        return None if self.store.stat(key) is None else read_object(self.store, key, MAX_SIGNATURE_BYTES)

    def _publish(
        self, manifest: Manifest, wrapped: str, *, recognised: bool = False, reused: int = 0
    ) -> SealedArtifact:
        """Put the wrapped root, then the manifest: an artifact exists when its manifest does. Safe to repeat."""
        was_there = recognised and self.store.stat(manifest_key(manifest.artifact_id)) is not None
        if not was_there:
            self.store.put(wrapped_root_key(manifest.artifact_id), wrapped.encode())
            self.store.put(manifest_key(manifest.artifact_id), manifest.data)
        return self._result(manifest, wrapped, recognised=was_there, reused=reused)

    def _already_there(self, artifact_id: str) -> SealedArtifact:
        """An artifact under the id that the caller chose, sealed by an earlier call whose ticket is gone."""
        data = read_object(self.store, manifest_key(artifact_id), MAX_MANIFEST_BYTES)
        manifest = parse_manifest(data, trusted=[self.signer.verify_key])
        wrapped = read_object(self.store, wrapped_root_key(artifact_id), 65536).decode("ascii", "replace")
        there = {f.path: (f.size, f.component) for f in manifest.files}
        if there != {f.path: (f.size, self.assigned[f.path]) for f in self.files}:
            raise ManifestError(
                f"artifact {artifact_id}: is in {self.store.uri} already, with other files; choose another artifact id"
            )
        if manifest.custody != self.custody_fingerprint or manifest.release != self.release:
            raise ManifestError(
                f"artifact {artifact_id}: is in {self.store.uri} already, for another custody key or release"
            )
        dealt = manifest.shares
        found = None if dealt is None else [dealt.threshold, {h.holder: h.recipient for h in dealt.holders}]
        if found != self.parameters.get("shares"):
            raise ManifestError(
                f"artifact {artifact_id}: is in {self.store.uri} already, with other key shares; choose another artifact id"
            )
        return self._result(manifest, wrapped, recognised=True, reused=0)

    def _result(self, manifest: Manifest, wrapped: str, *, recognised: bool, reused: int) -> SealedArtifact:
        return SealedArtifact(
            artifact_id=manifest.artifact_id,
            manifest_digest=manifest.digest,
            manifest=manifest.data,
            wrapped_root=wrapped,
            files=manifest.files,
            store_uri=self.store.uri,
            recognised=recognised,
            bytes_reused=reused,
            signature=self._signature(manifest),
        )

    def _seal_files(
        self,
        root: RootKey,
        artifact_id: str,
        done: dict[str, FileEntry],
        ticket: Ticket | None,
        meter: Meter,
        *,
        resumed: bool,
    ) -> list[FileEntry]:
        entries: list[FileEntry] = []
        lock = threading.Lock()
        open_files: list[FileSealing] = []

        def finished(entry: FileEntry) -> None:
            if ticket is not None:
                ticket.stored(entry)
            with lock:
                entries.append(entry)
            meter.add(entry.path, 0, file_done=True)

        def jobs() -> Iterator[tuple[FileSealing, int]]:
            for file in self.files:
                known = done.get(file.path)
                if known is not None and self._still_stored(artifact_id, known):
                    with lock:
                        entries.append(known)
                    meter.add(file.path, file.size, reused=True, file_done=True)
                    continue
                component = self.assigned[file.path]
                sealing = FileSealing(
                    store=self.store,
                    file=file,
                    artifact_id=artifact_id,
                    component=component,
                    key=root.file_key(artifact_id, file.path),
                    part_size=part_size_for(file.size, self.part_size),
                    digests=self.digests,
                    observers=[
                        (watch.name, seen)
                        for watch in self.observers
                        if (seen := watch.begin(file.path, component, file.size)) is not None
                    ],
                    resuming=resumed,
                    meter=meter,
                    finished=finished,
                )
                open_files.append(sealing)
                yield from ((sealing, index) for index in range(sealing.layout.part_count))

        try:
            run_parts(jobs(), self._threads())
        except BaseException as error:
            # A changed source cannot be resumed; without a ticket nobody could.
            for sealing in open_files:
                sealing.close(abort_upload=ticket is None or isinstance(error, SourceChangedError))
            raise
        return entries

    def _threads(self) -> int:
        """How many threads keep their buffers within `MEMORY`."""
        largest = max(min(part_size_for(f.size, self.part_size), max(f.size, 1)) for f in self.files)
        return max(1, min(self.workers, MEMORY // (2 * largest)))

    def _still_stored(self, artifact_id: str, entry: FileEntry) -> bool:
        info = self.store.stat(file_object_key(artifact_id, entry.path))
        return info is not None and info.size == entry.sealed_size


def _digest_of(data: bytes) -> str:
    payload, _ = parse_dsse(data, PAYLOAD_TYPE, ManifestError, "manifest", MAX_MANIFEST_BYTES)
    return hashlib.sha256(payload).hexdigest()


def read_object(store: Store, key: str, max_bytes: int) -> bytes:
    """A whole small object; refused before reading if it is larger than `max_bytes`.

    Raises:
        ObjectMissing: nothing there.
        ManifestError: too large.
    """
    info = store.stat(key)
    if info is None:
        raise ObjectMissing(f"{store.uri}: {key}: no such object")
    if info.size > max_bytes:
        raise ManifestError(f"{store.uri}: {key}: {info.size} bytes, at most {max_bytes} are accepted")
    return store.get_range(key, 0, info.size)
