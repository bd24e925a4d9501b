"""Verifying an artifact in a store without any key: is every sealed byte the one that the manifest lists?

It reads every object once, part by part and in parallel, and reports all problems, not the first one. What it cannot
know without a key is whether the parts open; their digests were made by whoever sealed and signed.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from artifacts.errors import ArtifactError, NotSealedError, ObjectMissing, StoreUnavailable
from artifacts.fetching import check_sealed_size
from artifacts.manifest import MAX_MANIFEST_BYTES, FileEntry, Manifest, manifest_key, parse_manifest
from artifacts.parallel import run_parts
from artifacts.progress import Meter, ProgressCallback
from artifacts.sealing import read_object
from artifacts.signing import VerifyKey
from artifacts.sources import Blob, Source, StoreSource, read_pieces
from artifacts.stores.base import Store


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as the manifest says. `kind`: missing, differs, in-clear, or extra."""

    path: str
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was found; `ok` when nothing is wrong."""

    artifact_id: str
    manifest_digest: str
    signer: str | None
    files: int
    sealed_bytes: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether everything is as the manifest says."""
        return not self.problems


def load_manifest(
    store: Store,
    artifact_id: str,
    *,
    trusted: Sequence[VerifyKey] | None = None,
    expected_digest: str | None = None,
) -> Manifest:
    """Read and check an artifact's manifest from a store; see `parse_manifest` for what vouches for it."""
    data = read_object(store, manifest_key(artifact_id), MAX_MANIFEST_BYTES)
    manifest = parse_manifest(data, trusted=trusted, expected_digest=expected_digest)
    if manifest.artifact_id != artifact_id:
        raise ArtifactError(
            f"{store.uri}: the manifest of {artifact_id} is that of {manifest.artifact_id}; moved"
        )
    return manifest


def verify_artifact(
    store: Store,
    artifact_id: str,
    *,
    trusted: Sequence[VerifyKey] | None = None,
    expected_digest: str | None = None,
    workers: int = 2,
    progress: ProgressCallback | None = None,
) -> VerifyReport:
    """Hold every sealed file of an artifact against its manifest, without a key.

    Raises:
        ManifestError, IntegrityError: the manifest itself is not acceptable.
        StoreUnavailable: the store cannot be read now.
    """
    manifest = load_manifest(store, artifact_id, trusted=trusted, expected_digest=expected_digest)
    return verify_tree(StoreSource(store, artifact_id), manifest, workers=workers, progress=progress)


def verify_tree(
    source: Source, manifest: Manifest, *, workers: int = 2, progress: ProgressCallback | None = None
) -> VerifyReport:
    """The same for any source of sealed files and a manifest that was checked already."""
    meter = Meter(sum(f.sealed_size for f in manifest.files), len(manifest.files), progress)
    problems: list[Problem] = [
        Problem(path, "extra", f"{path!a}: is there but not in the manifest")
        for path in source.unlisted(f.path for f in manifest.files)
    ]
    lock = threading.Lock()

    def jobs() -> Iterator[tuple[_FileCheck, int]]:
        for entry in manifest.files:
            job = _FileCheck(entry, source.blob(entry.path), problems, lock, meter)
            if job.size_fits():
                yield from ((job, index) for index in range(entry.layout.part_count))

    run_parts(jobs(), max(1, workers))
    return VerifyReport(
        artifact_id=manifest.artifact_id,
        manifest_digest=manifest.digest,
        signer=None if manifest.signer is None else manifest.signer.fingerprint,
        files=len(manifest.files),
        sealed_bytes=sum(f.sealed_size for f in manifest.files),
        problems=tuple(sorted(problems, key=lambda p: (p.path, p.kind, p.message))),
    )


class _FileCheck:
    def __init__(
        self, entry: FileEntry, blob: Blob, problems: list[Problem], lock: threading.Lock, meter: Meter
    ) -> None:
        self._entry, self._blob, self._problems, self._lock, self._meter = entry, blob, problems, lock, meter

    def size_fits(self) -> bool:
        """Look at the size before reading; a wrong one is a problem of its own."""
        try:
            size = self._blob.size()
            if size is not None:
                check_sealed_size(self._entry, size, self._blob.label)
        except StoreUnavailable:
            raise
        except ArtifactError as error:
            self._problem(error)
            self._meter.add(self._entry.path, self._entry.sealed_size, file_done=True)
            return False
        return True

    def run_part(self, index: int) -> None:
        """Hash one sealed part."""
        layout, path = self._entry.layout, self._entry.path
        length = layout.sealed_length(index)
        try:
            digest = hashlib.sha256()
            for piece in read_pieces(self._blob, layout.sealed_start(index), length):
                digest.update(piece)
            if digest.hexdigest() != self._entry.parts[index].sha256:
                self._note("differs", f"{path}: part {index}: not the bytes that the manifest lists")
        except StoreUnavailable:
            raise
        except ArtifactError as error:
            self._problem(error)
        self._meter.add(path, length, file_done=index == layout.part_count - 1)

    def stop(self) -> None:
        """Nothing waits for a turn here."""

    def _problem(self, error: ArtifactError) -> None:
        kind = "missing" if isinstance(error, ObjectMissing) else "differs"
        self._note("in-clear" if isinstance(error, NotSealedError) else kind, str(error))

    def _note(self, kind: str, message: str) -> None:
        with self._lock:
            self._problems.append(Problem(self._entry.path, kind, message))
