"""Fetching: from sealed files anywhere to plaintext in a folder, verified while it downloads.

Each sealed chunk is opened (its tag verified) before it is written to an unfinished file; the part counts only once the
SHA-256 of its sealed bytes is the one that the signed manifest lists, and the file gets its name only once all parts do.
The manifest's digests and the key settle the plaintext, so it is not hashed a second time; it is, from the disk, when
parts come from an earlier run, and on request (`recheck`). What was fetched is not fetched again: unfinished files go
on at the first missing part, finished ones are recognised by their digest, and anything else that is in the way is left
alone and reported.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from artifacts.body import BLOCK, PartOpener, part_context, read_exactly
from artifacts.destination import LOG, Destination, explained
from artifacts.digests import new_hashers
from artifacts.envelope import EnvelopePayload
from artifacts.errors import (
    DestinationError,
    EnvelopeError,
    ExpiredError,
    IntegrityError,
    NotSealedError,
    SourceChangedError,
)
from artifacts.keys import FileKey
from artifacts.manifest import FileEntry, Manifest, open_inner, parse_manifest
from artifacts.parallel import run_parts
from artifacts.progress import Meter, ProgressCallback
from artifacts.signing import VerifyKey
from artifacts.sources import Blob, Source, as_source, read_pieces
from artifacts.stores.base import Store
from artifacts.stores.tree import write_back


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """One plaintext file; the digests are those that the signed manifest keeps of it.

    `sha256` is None if the sealer recorded other digests only.
    """

    path: str
    component: str
    size: int
    sha256: str | None
    digests: Mapping[str, str]
    was_there: bool


@dataclass(frozen=True, slots=True)
class FetchReport:
    """What a fetch did. `bytes_reused` had been fetched by an earlier run."""

    artifact_id: str
    manifest_digest: str
    destination: Path
    files: tuple[FetchedFile, ...]
    bytes_total: int
    bytes_reused: int


def fetch_artifact(
    source: Store | Mapping[str, str] | str | Source,
    manifest: Manifest | bytes,
    payload: EnvelopePayload,
    destination: Path,
    *,
    workers: int = 2,
    progress: ProgressCallback | None = None,
    components: Sequence[str] | None = None,
    now: datetime | None = None,
    trusted: Sequence[VerifyKey] | None = None,
    recheck: bool = False,
) -> FetchReport:
    """Fetch and open the files that an envelope has keys for.

    Args:
        source: a store or its address, path -> URL, or a base URL.
        manifest: the DSSE file, or the parsed manifest. It must be the one that the envelope names.
        payload: the opened envelope (`open_envelope`) or public record.
        destination: the folder to write to; made if missing. Files get mode 0600.
        workers: threads; each needs a sealed part's memory where files come over a network, a few MiB else.
        progress: told after each part.
        components: only files of these.
        now: for the envelope's end; the current time by default.
        trusted: if given, one of these must have signed the manifest.
        recheck: read every finished file from the disk once more and hold its digest against the manifest's.

    Raises:
        ExpiredError: the envelope's time is over.
        IntegrityError: a file differs from the manifest, is in clear, or something is there that should not be.
        DestinationError: a file is in the way, or the disk is full.
        StoreError: a file is missing or cannot be read now; call again to go on.
    """
    if payload.not_after is not None and (now or datetime.now(UTC)) >= payload.not_after:
        raise ExpiredError(
            f"envelope: ended {payload.not_after.isoformat()}; ask for a new one before fetching"
        )
    if isinstance(manifest, bytes):
        manifest = parse_manifest(manifest, trusted=trusted, expected_digest=payload.manifest_digest)
    if manifest.digest != payload.manifest_digest or manifest.artifact_id != payload.artifact_id:
        raise IntegrityError(
            f"artifact {manifest.artifact_id}: the envelope is for another manifest ({payload.manifest_digest}); "
            "fetch the manifest that it names"
        )
    wanted = _wanted(manifest, payload, components)
    with as_source(source, manifest.artifact_id) as opened:
        unlisted = opened.unlisted(f.path for f in manifest.files)
        if unlisted:
            raise IntegrityError(
                f"artifact {manifest.artifact_id}: {unlisted[0]!a} is there but not in the manifest; refused"
            )
        place = Destination(destination)
        try:
            return _fetch(opened, manifest, payload, place, wanted, workers, progress, recheck=recheck)
        finally:
            place.close()


def _wanted(
    manifest: Manifest, payload: EnvelopePayload, components: Sequence[str] | None
) -> list[FileEntry]:
    for path in payload.keys:
        manifest.file(path)
    chosen = manifest.files if components is None else manifest.of_components(components)
    wanted = [entry for entry in chosen if entry.path in payload.keys]
    if not wanted:
        raise EnvelopeError(
            f"envelope: holds no key for any file asked for; the step {payload.step!a} does not disclose it"
        )
    return wanted


def _fetch(
    source: Source,
    manifest: Manifest,
    payload: EnvelopePayload,
    place: Destination,
    wanted: list[FileEntry],
    workers: int,
    progress: ProgressCallback | None,
    *,
    recheck: bool,
) -> FetchReport:
    meter = Meter(sum(f.size for f in wanted), len(wanted), progress)
    fetched: dict[str, FetchedFile] = {}
    files: list[_FileFetch] = []
    needed = sum(max(0, entry.size - place.partial_size(entry.path)) for entry in wanted)

    def jobs() -> Iterator[tuple[_FileFetch, int]]:
        nonlocal needed
        todo = []
        for entry in wanted:
            file = _FileFetch(
                manifest.artifact_id, entry, payload.key(entry.path), place, meter, fetched, recheck=recheck
            )
            if file.is_there():
                needed -= max(0, entry.size - place.partial_size(entry.path))
            else:
                todo.append(file)
        if needed > place.free_bytes():
            raise DestinationError(
                f"{place.folder}: {needed} bytes are needed, the disk has {place.free_bytes()} free; free some space"
            )
        for file in todo:
            files.append(file)
            file.begin(source.blob(file.entry.path))
            yield from ((file, index) for index in range(file.entry.layout.part_count))

    try:
        run_parts(jobs(), max(1, workers))
    finally:
        for file in files:
            file.close()
        place.sync()
    return FetchReport(
        artifact_id=manifest.artifact_id,
        manifest_digest=manifest.digest,
        destination=place.folder,
        files=tuple(fetched[entry.path] for entry in wanted),
        bytes_total=sum(entry.size for entry in wanted),
        bytes_reused=meter.reused,
    )


_buffers = threading.local()


def _opener() -> PartOpener:
    if not hasattr(_buffers, "opener"):
        _buffers.opener = PartOpener()
    opener: PartOpener = _buffers.opener
    return opener


class _FileFetch:
    """One file on its way to the disk."""

    def __init__(
        self,
        artifact_id: str,
        entry: FileEntry,
        key: FileKey,
        place: Destination,
        meter: Meter,
        fetched: dict[str, FetchedFile],
        *,
        recheck: bool,
    ) -> None:
        self.entry, self._recheck = entry, recheck
        self._artifact_id, self._key, self._place, self._meter, self._fetched = (
            artifact_id,
            key,
            place,
            meter,
            fetched,
        )
        inner = open_inner(artifact_id, entry, key)
        self._digests = dict(inner.digests)
        self._lock = threading.Lock()
        self._left = entry.layout.part_count
        self._blob: Blob | None = None
        self._fd = self._log = -1
        self._done: set[int] = set()

    def is_there(self) -> bool:
        """Whether the finished file is there already, by its digest. Another file there is an error."""
        fd = self._place.existing(self.entry.path)
        if fd is None:
            return False
        try:
            same = self._is_what_was_sealed(fd)
        finally:
            os.close(fd)
        if not same:
            raise DestinationError(
                f"{self.entry.path}: another file is there; nothing was overwritten, fetch elsewhere"
            )
        self._report(was_there=True)
        self._meter.add(self.entry.path, self.entry.size, reused=True, file_done=True)
        self._place.drop_partial(self.entry.path)
        return True

    def _is_what_was_sealed(self, fd: int) -> bool:
        """Read a plaintext file and hold its digests against those in the manifest."""
        if os.fstat(fd).st_size != self.entry.size:
            return False
        hashers, step = new_hashers(list(self._digests)), memoryview(bytearray(BLOCK))
        try:
            for offset in range(0, self.entry.size, len(step)):
                block = step[: min(len(step), self.entry.size - offset)]
                read_exactly(fd, block, offset, self.entry.path)
                for hasher in hashers.values():
                    hasher.update(block)
        except SourceChangedError:
            return False
        return {name: hasher.hexdigest() for name, hasher in hashers.items()} == self._digests

    def begin(self, blob: Blob) -> None:
        """Check the sealed file's size, and find out what an earlier run has."""
        entry = self.entry
        self._blob = blob
        size = blob.size()
        if size is not None:
            check_sealed_size(entry, size, blob.label)
        self._fd = self._place.open_partial(entry.path)
        if entry.layout.part_count == 1:
            # Nothing to go on with: the one part is there or it is not. What lies there may be another artifact's.
            with explained(entry.path):
                os.ftruncate(self._fd, 0)
            return
        self._log = self._place.open_partial(entry.path, LOG)
        self._done = self._read_log()
        if not self._done:
            with explained(entry.path):
                os.ftruncate(self._log, 0)
                os.ftruncate(self._fd, 0)
                os.pwrite(self._log, self._log_head(), 0)

    def _log_head(self) -> bytes:
        inner = hashlib.sha256(self.entry.inner.encode()).hexdigest()
        return f"{self._artifact_id} {inner}\n".encode()

    def _read_log(self) -> set[int]:
        """Indices of parts in the unfinished file. A wrong log does no harm: the whole digest is checked at the end."""
        data = os.pread(self._log, 16 * 1024 * 1024, 0)
        head, whole = self._log_head(), data[: data.rfind(b"\n") + 1]
        if not whole.startswith(head):
            return set()
        layout = self.entry.layout
        indices = {int(n) for n in whole[len(head) :].split() if n.isdigit() and len(n) < 8}
        size = os.fstat(self._fd).st_size
        return {
            i
            for i in indices
            if i < layout.part_count and layout.plain_start(i) + layout.plain_length(i) <= size
        }

    def stop(self) -> None:
        """Another part failed; nobody waits for a turn here."""

    def close(self) -> None:
        """Close descriptors; what is unfinished stays for the next run."""
        for fd in (self._fd, self._log):
            if fd >= 0:
                os.close(fd)
        self._fd = self._log = -1

    def run_part(self, index: int) -> None:
        """Fetch, verify, open and write part `index`; the last one to end finishes the file."""
        entry, layout, blob = self.entry, self.entry.layout, self._blob
        if blob is None:
            raise AssertionError("begin comes before run_part")
        where = f"{entry.path}: part {index}"
        start, length = layout.plain_start(index), layout.plain_length(index)
        reused = index in self._done
        if not reused:
            context = part_context(self._artifact_id, entry.path, index, layout)
            pieces = read_pieces(blob, layout.sealed_start(index), layout.sealed_length(index))
            written = _Written(self._fd, start, entry.path)
            _opener().open(
                pieces, length, self._key, context, where, written.write, entry.parts[index].sha256
            )
            size = blob.size()
            if size is not None:
                check_sealed_size(entry, size, blob.label)
            write_back(self._fd, start, length)
        if not reused and self._log >= 0:
            with explained(entry.path), self._lock:
                os.lseek(self._log, 0, os.SEEK_END)
                os.write(self._log, f"{index}\n".encode())
        self._meter.add(entry.path, length, reused=reused)
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._finish()

    def _finish(self) -> None:
        path = self.entry.path
        if (self._done or self._recheck) and not self._is_what_was_sealed(self._fd):
            self._place.drop_partial(path)
            raise IntegrityError(
                f"{path}: the plaintext is not the one that was sealed; removed, fetch it again"
            )
        self._place.publish(path, self._fd)
        self.close()
        self._report(was_there=False)
        self._meter.add(path, 0, file_done=True)

    def _report(self, *, was_there: bool) -> None:
        entry = self.entry
        self._fetched[entry.path] = FetchedFile(
            entry.path, entry.component, entry.size, self._digests.get("sha256"), self._digests, was_there
        )


def check_sealed_size(entry: FileEntry, size: int, label: str) -> None:
    """Hold an object's size against the manifest.

    Raises:
        NotSealedError: it has the plaintext's size: somebody put the file there in clear.
        IntegrityError: cut off or extended.
    """
    if size == entry.sealed_size:
        return
    if size == entry.size:
        raise NotSealedError(f"{label}: is not sealed, it has the size of the plaintext; refused")
    raise IntegrityError(
        f"{label}: {size} bytes, the manifest says {entry.sealed_size}; cut off, extended or not sealed"
    )


class _Written:
    """The place of a part in its unfinished file."""

    def __init__(self, fd: int, offset: int, path: str) -> None:
        self._fd, self._offset, self._path = fd, offset, path

    def write(self, data: memoryview) -> None:
        """The next bytes."""
        with explained(self._path):
            while data:
                count = os.pwrite(self._fd, data, self._offset)
                data, self._offset = data[count:], self._offset + count
