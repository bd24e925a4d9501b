"""Sealing on a transfer worker: plaintext from a folder, S3 or the Hub goes sealed into a store, and is registered.

The artifact's id derives from the ingest's, so that starting an ingest twice, or again after a crash, is one artifact:
a ticket in `state_dir` lets the sealing go on at the part where it stopped. No byte of the plaintext is written
anywhere, and no key comes back: the root key leaves wrapped to custody.

Invariants: a path never leaves the ingest folder and meets no symbolic link; nothing is sealed into a store that this
worker was not given; what is registered is what the signed manifest says.
"""

from __future__ import annotations

import base64
import hashlib
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from sqlalchemy import Engine
from temporalio import activity

from activities.beating import Beat, beating
from activities.errors import at_the_edge
from artifacts.body import PART_SIZE
from artifacts.custody.shares import Dealing
from artifacts.leaks.sealed import SealedSignature
from artifacts.progress import Progress
from artifacts.sealing import SealedArtifact, SealingObserver, seal_tree
from artifacts.signing import SigningKey
from artifacts.source import Folder, PlainTree
from artifacts.source_store import open_source
from artifacts.stores.base import Store
from orchestrator.contracts import names
from orchestrator.contracts.messages import IngestInput, IngestResult
from orchestrator.domain.errors import Malformed, NotFound, Reason
from orchestrator.records import artifacts as artifact_records
from orchestrator.records import signatures
from orchestrator.records.artifacts import Artifact
from orchestrator.records.database import reading, writing

_OPTIONS = {"part_size"}


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class SealingParts:
    """What sealing needs, handed in by the composition root.

    Attributes:
        engine: of the records.
        open_store: opens a store at an address, with this worker's credentials.
        stores: addresses that may be sealed into; the first is `default`.
        signer: signs manifests on behalf of this worker.
        custody_recipient: tells custody's public string, read anew each time (custody may start later).
        state_dir: resume tickets; on a disk that survives the process.
        ingest_root: the folder that paths lie below; None refuses paths.
        workers: threads of one sealing.
        observers: makes what sees the plaintext as it passes, for an artifact id.
        monitor: tells the leak monitor's public string, read anew each time; None: no weight signature is made.
        clock: tells the time (aware).
    """

    engine: Engine
    open_store: Callable[[str], Store]
    stores: Sequence[str]
    signer: SigningKey
    custody_recipient: Callable[[], str]
    state_dir: Path
    ingest_root: Path | None = None
    workers: int = 2
    observers: Callable[[str], Sequence[SealingObserver]] = field(default=lambda _artifact: ())
    monitor: Callable[[], str | None] = field(default=lambda: None)
    clock: Callable[[], datetime] = field(default=_now)


class SealingActivities:
    """The activity `seal_tree`."""

    def __init__(self, parts: SealingParts) -> None:
        self._parts = parts

    @property
    def all(self) -> list[Callable[..., Any]]:
        """Every activity, for a worker."""
        return [self.seal_tree]

    @activity.defn(name=names.SEAL_TREE, no_thread_cancel_exception=True)
    def seal_tree(self, start: IngestInput) -> IngestResult:
        """Seal one source into one store and register the artifact; the same result however often it runs.

        Raises:
            ApplicationError: a source that cannot be sealed, a path outside the ingest folder, a changed file, a name that is
                taken: not retried. A store or database that does not answer: retried.
        """
        with at_the_edge(), beating() as beat:
            known = self._registered(start)
            if known is not None:
                return known
            artifact = artifact_id(start.ingest)
            store_uri = self._store_uri(start.store)
            part_size = _part_size(start.options)
            with self._source(start.source) as source, self._parts.open_store(store_uri) as store:
                sealed = seal_tree(
                    source,
                    store,
                    custody_recipient=self._parts.custody_recipient(),
                    signer=self._parts.signer,
                    components=start.components,
                    release=start.release,
                    part_size=part_size,
                    workers=self._parts.workers,
                    progress=_teller(beat),
                    state_dir=self._parts.state_dir,
                    artifact_id=artifact,
                    observers=self._parts.observers(artifact),
                    monitor=self._parts.monitor(),
                    shares=None
                    if start.shares is None
                    else Dealing(start.shares.threshold, start.shares.holders),
                )
            return self._register(start, store_uri, sealed)

    # --- where from, where to

    @contextmanager
    def _source(self, source: str) -> Iterator[PlainTree]:
        if not source.startswith(("s3://", "hf:")):
            yield Folder(below(self._parts.ingest_root, source))
            return
        with closing(open_source(source, self._parts.open_store)) as stored:
            yield stored

    def _store_uri(self, store: str) -> str:
        if store == "default":
            return self._parts.stores[0]
        if store not in self._parts.stores:
            allowed = ", ".join(self._parts.stores)
            raise Malformed(
                f"this service does not seal into {store}",
                [Reason("store", f"use `default`, or one of: {allowed}", "store")],
            )
        return store

    # --- the records

    def _registered(self, start: IngestInput) -> IngestResult | None:
        """What an earlier run of this ingest registered."""
        try:
            with reading(self._parts.engine) as session:
                found = artifact_records.get(session, artifact_id(start.ingest))
                manifest = artifact_records.manifest(session, found.id)
        except NotFound:
            return None
        if sorted(found.components) != sorted(start.components):
            raise Malformed(
                f"the ingest {start.ingest} was done with other components; give a new one another id",
                [Reason("ingest", "choose another id", "ingest")],
            )
        return IngestResult(
            artifact=found.id,
            manifest_digest=found.manifest_digest,
            files=_files(manifest),
            size=found.size,
            reused=True,
        )

    def _register(self, start: IngestInput, location: str, sealed: SealedArtifact) -> IngestResult:
        digest = f"sha256:{sealed.manifest_digest}"
        size = sum(file.size for file in sealed.files)
        made = Artifact(
            id=sealed.artifact_id,
            manifest_digest=digest,
            wrapped_root=sealed.wrapped_root,
            location=location,
            components=sorted({file.component for file in sealed.files}),
            size=size,
            uploader=start.uploader,
            created_at=self._parts.clock(),
        )
        with writing(self._parts.engine) as session:
            artifact_records.register(session, made, sealed.manifest)
            if sealed.signature is not None:
                key_id = SealedSignature.parse(sealed.signature).key_id
                signatures.put(
                    session, made.id, sealed.signature, key_id=key_id, by=start.uploader, at=made.created_at
                )
        return IngestResult(
            artifact=made.id,
            manifest_digest=digest,
            files=len(sealed.files),
            size=size,
            reused=sealed.recognised,
        )


def artifact_id(ingest: str) -> str:
    """The id of the artifact that an ingest makes: starting it twice makes one."""
    drawn = hashlib.sha256(b"sluice.release/ingest/v1\0" + ingest.encode()).digest()
    return "art-" + base64.b32encode(drawn).decode().lower()[:26]


def below(root: Path | None, source: str) -> Path:
    """The path of a source below the ingest folder.

    Raises:
        Malformed: there is no such folder, the path leaves it, nothing is there, or a symbolic link is on the way.
    """
    if root is None:
        raise Malformed(
            "this service reads no paths",
            [Reason("no-ingest-folder", "set SLUICE_INGEST_DIR, or seal from s3:// or hf:", "source")],
        )
    given = PurePosixPath(source)
    inside = given.relative_to(root) if given.is_absolute() and given.is_relative_to(root) else given
    if inside.is_absolute() or ".." in inside.parts or "\0" in source or not inside.parts:
        raise Malformed(
            f"{source!a} is not a path below the ingest folder",
            [Reason("path-leaves-folder", "name a folder or file below it, without `..`", "source")],
        )
    path = root.resolve()
    for part in inside.parts:
        path = path / part
        try:
            mode = path.lstat().st_mode
        except OSError as error:
            raise Malformed(
                f"{source!a}: {error.strerror}", [Reason("source-missing", "put it there first", "source")]
            ) from None
        if stat.S_ISLNK(mode):
            raise Malformed(
                f"{source!a}: {part!a} is a symbolic link",
                [Reason("symbolic-link", "put the files themselves there", "source")],
            )
    return path


def _part_size(options: dict[str, Any]) -> int:
    unknown = sorted(set(options) - _OPTIONS)
    if unknown:
        raise Malformed(
            "unknown options of an ingest: " + ", ".join(unknown),
            [Reason("option", "known: " + ", ".join(sorted(_OPTIONS)), "options")],
        )
    size = options.get("part_size", PART_SIZE)
    if not isinstance(size, int) or not 16_384 <= size <= 1 << 30 or size % 16_384:
        raise Malformed(
            "a part is a multiple of 16 KiB, from 16 KiB to 1 GiB",
            [Reason("part-size", "leave it out for 64 MiB", "options.part_size")],
        )
    return size


def _teller(beat: Beat) -> Callable[[Progress], None]:
    sealed = activity.metric_meter().create_counter(
        "sluice_sealed_bytes", "Plaintext bytes that were sealed and stored.", "bytes"
    )
    counted = 0

    def tell(progress: Progress) -> None:
        nonlocal counted
        now = progress.bytes_done - progress.bytes_reused
        if now > counted:
            sealed.add(now - counted)
            counted = now
        beat.details = [progress.bytes_done, progress.bytes_total]
        beat.check()

    return tell


def _files(manifest: bytes) -> int:
    from artifacts.manifest import parse_manifest

    return len(parse_manifest(manifest, trusted=None, expected_digest=_digest(manifest)).files)


def _digest(manifest: bytes) -> str:
    from artifacts.errors import ManifestError
    from artifacts.manifest import MAX_MANIFEST_BYTES, PAYLOAD_TYPE
    from artifacts.signing import parse_dsse

    payload, _ = parse_dsse(manifest, PAYLOAD_TYPE, ManifestError, "manifest", MAX_MANIFEST_BYTES)
    return hashlib.sha256(payload).hexdigest()
