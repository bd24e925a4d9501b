"""The store interface: what sealing, fetching and publishing may ask of a place that keeps sealed bytes.

Invariants that every backend keeps, and that `tests/artifacts/stores/test_contract.py` holds them to:

1. An object is written once. Putting the same bytes again is fine; different bytes are `ObjectExists`.
2. An object appears whole or not at all: no reader ever sees a part of an unfinished upload.
3. A sealed file is the concatenation of its sealed parts. All parts but the last have the size told at
   `begin`.
4. A range read gives exactly the bytes asked for, of the object last looked at under that key, or it raises.
5. An unfinished upload is found again by its key, also by another process; stored parts are never sent twice.
6. A feature is said to be there only after it was tried on the live server (`StoreFeatures`).

Stores never see plaintext or keys, and nothing that comes back is trusted: readers verify seals on their own.
Non-goals: listing as a database, renaming, and appending.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from artifacts.errors import ObjectMissing, StoreError

RESERVED = ".sluice"
"""First path component of the stores' own bookkeeping (unfinished uploads, probes); no key may begin so."""

MAX_KEY_BYTES = 900
"""Longest key, in UTF-8 bytes. S3 allows 1024 for prefix and key together."""

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store knows of one stored object.

    Attributes:
        key: the object's key, without the store's prefix.
        size: bytes.
        etag: opaque identity of exactly these bytes in this store; it changes when they do.
        sha256: lower-case hex of the whole object, only where the store knows it without reading.
        modified: when it was written, by the store's clock.
        version: the store's version id, where it keeps versions.
    """

    key: str
    size: int
    etag: str
    sha256: str | None = None
    modified: datetime | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class PartInfo:
    """One stored part of an upload: `index` from 0, `size` in bytes, `sha256` as lower-case hex."""

    index: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class StoreFeatures:
    """What the live store was seen to do when it was opened, and why it lacks what it lacks.

    Attributes:
        conditional_create: the server itself refuses to overwrite, also between two writers at once.
        part_checksums: the server refuses a part whose SHA-256 differs from the one sent with it.
        resume: stored parts of an unfinished upload are found again after a crash.
        presign: `presign` gives URLs that work without credentials.
        versioning: the store keeps old versions of an object.
        object_lock: objects can be locked against deletion for a time.
        range_reads: a part of an object can be read without the rest.
        lacking: feature name -> why it is missing and what the store does instead.
    """

    conditional_create: bool = False
    part_checksums: bool = False
    resume: bool = False
    presign: bool = False
    versioning: bool = False
    object_lock: bool = False
    range_reads: bool = False
    lacking: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = {f.name for f in fields(self)} - {"lacking"}
        silent = {n for n in names if not getattr(self, n)} - set(self.lacking)
        if silent:
            raise ValueError(f"features lacking without a reason: {sorted(silent)}")

    def describe(self) -> list[str]:
        """One line per feature, with the reason where it is missing: for `sluice store check`."""
        return [
            f"{f.name}: yes" if getattr(self, f.name) else f"{f.name}: NO ({self.lacking[f.name]})"
            for f in fields(self)
            if f.name != "lacking"
        ]


class Shape(Protocol):
    """What was said of an object when its upload began."""

    @property
    def key(self) -> str:
        """The object's key."""
        ...

    @property
    def part_count(self) -> int:
        """Number of parts of the finished object, at least 1."""
        ...

    @property
    def part_size(self) -> int:
        """Bytes of every part but the last, which may be shorter (empty only if alone)."""
        ...


@runtime_checkable
class Upload(Shape, Protocol):
    """An unfinished object. Use it from many threads, or from many processes that each `begin` it."""

    def parts(self) -> dict[int, PartInfo]:
        """The parts that are safely stored, by index; asked from the store, not from memory."""
        ...

    def put_part(self, index: int, data: bytes | bytearray | memoryview, sha256: str) -> PartInfo:
        """Store part `index`; `sha256` (hex) is of `data`, hashed by the caller once and not again here.

        Repeating the call is harmless. Other bytes under the same index replace the earlier part.

        Raises:
            StoreError: index or size out of bounds, or the store saw other bytes than the checksum says.
            AccessDenied, StoreUnavailable: see `artifacts.errors`.
        """
        ...

    def complete(self) -> ObjectInfo:
        """Make the object appear, whole. Calling it again after a lost answer gives the same info.

        Raises:
            StoreError: parts are missing or have the wrong size.
            ObjectExists: another object has this key by now; it is untouched, and so are the stored parts.
        """
        ...

    def abort(self) -> None:
        """Throw the unfinished upload and its parts away. Nothing happens if it is gone already."""
        ...


class PartWriter(Protocol):
    """One part on its way to a disk."""

    sha256: str
    """Hex; set by the caller once everything is written. Without it the part does not count."""

    @property
    def written(self) -> int:
        """Bytes so far."""
        ...

    def write(self, data: memoryview) -> None:
        """The next bytes."""
        ...


@runtime_checkable
class StreamingUpload(Protocol):
    """An upload that takes a part piece by piece, so that no part lies in memory whole (a disk can, S3 cannot)."""

    def writing_part(self, index: int) -> AbstractContextManager[PartWriter]:
        """Write part `index`; it counts when the block ends with `sha256` set. As `Upload.put_part` otherwise."""
        ...


@runtime_checkable
class Store(Protocol):
    """A place for sealed files, manifests, envelopes and signed records."""

    @property
    def uri(self) -> str:
        """The store's address as given to `open_store`, free of secrets."""
        ...

    def features(self) -> StoreFeatures:
        """What was seen at start-up on the live store; probing happens once and is remembered."""
        ...

    def put(self, key: str, data: bytes | bytearray | memoryview, sha256: str | None = None) -> ObjectInfo:
        """Create an object in one go; the cheapest way for everything that fits one part.

        `sha256` (hex) is the caller's hash of `data`, where it has one already.

        Raises:
            ObjectExists: the key holds other bytes. The same bytes already there are a success.
        """
        ...

    def begin(self, key: str, part_count: int, part_size: int) -> Upload:
        """Start a large object, or find the unfinished upload of that key again.

        An unfinished upload whose stored parts do not fit `part_count` and `part_size` is aborted and begun anew.

        Raises:
            ObjectExists: the key holds a finished object already (`stat`, `read_parts` tell of it).
        """
        ...

    def stat(self, key: str) -> ObjectInfo | None:
        """The finished object under that key, or None."""
        ...

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Exactly `length` bytes from offset `start`.

        Raises:
            ObjectMissing: no such object.
            StoreError: the range leaves the object, or the answer was short, of the wrong range, or of other
                bytes than stood under the key when it was last looked at (`StaleObject`); `stat` looks anew.
        """
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Finished objects whose key begins with `prefix`, in key order."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; a missing one is fine. It frees the key."""
        ...

    def presign(self, key: str, expires_s: int) -> str | None:
        """A URL that reads this object without credentials for `expires_s` seconds; None if impossible."""
        ...

    def abort_stale(self, older_than: timedelta) -> tuple[str, ...]:
        """Abort unfinished uploads that stored nothing for longer than `older_than`; gives their keys."""
        ...

    def batch(self, message: str = "Add sealed files") -> AbstractContextManager[None]:
        """Within it, finished objects may wait and appear together at its end; `stat` sees them at once.

        On the Hub that is a few commits instead of one per object (it allows about a hundred an hour). Elsewhere it
        changes nothing. If the block raises, what waits is kept and goes with the next batch on this machine.
        """
        ...

    def close(self) -> None:
        """Give back connections. The store must not be used afterwards."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class SeenObjects:
    """Which bytes stood under a key when this store looked: the memory behind the refusal of stale answers.

    `stat` looks anew; `get_range` holds the object to what was seen last. Bounded: the oldest keys are forgotten.
    """

    def __init__(self, limit: int = 100_000) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, ObjectInfo] = {}
        self._limit = limit

    def remember(self, info: ObjectInfo) -> ObjectInfo:
        """Note `info` as what stands under its key now; gives it back."""
        with self._lock:
            self._seen.pop(info.key, None)
            self._seen[info.key] = info
            if len(self._seen) > self._limit:
                del self._seen[next(iter(self._seen))]
        return info

    def forget(self, key: str) -> None:
        """Nothing is known of `key` any more (it was deleted, or found missing)."""
        with self._lock:
            self._seen.pop(key, None)

    def get(self, key: str) -> ObjectInfo | None:
        """What was seen under `key` last."""
        with self._lock:
            return self._seen.get(key)


def check_range(where: str, start: int, length: int, size: int) -> None:
    """Refuse a range that leaves an object of `size` bytes."""
    if start < 0 or length < 0 or start + length > size:
        raise StoreError(f"{where}: bytes {start}+{length} are outside of its {size} bytes")


def valid_key(key: str) -> str:
    """Give `key` back if it may name an object, else raise `StoreError`.

    A key is a relative POSIX path in UTF-8 without empty, `.` or `..` components, control characters or
    backslashes, at most 255 bytes per component and `MAX_KEY_BYTES` in all, outside `RESERVED`.
    """
    parts = key.split("/")
    encoded = key.encode("utf-8", "surrogatepass")
    if not key or len(encoded) > MAX_KEY_BYTES or "\ud800" <= max(key, default="") <= "\udfff":
        raise StoreError(f"store key {key[:80]!r}: must be 1 to {MAX_KEY_BYTES} bytes of valid UTF-8")
    if _FORBIDDEN.search(key):
        raise StoreError(f"store key {key!r}: control characters and backslashes are not allowed")
    if any(p in {"", ".", ".."} or len(p.encode("utf-8", "surrogatepass")) > 255 for p in parts):
        raise StoreError(f"store key {key!r}: must be a relative path without empty, '.' or '..' components")
    if parts[0] == RESERVED:
        raise StoreError(f"store key {key!r}: {RESERVED}/ is kept for the store's own bookkeeping")
    return key


def check_shape(key: str, part_count: int, part_size: int) -> None:
    """Refuse an upload shape that no store could keep (10 000 parts is S3's limit)."""
    if not 1 <= part_count <= 10_000:
        raise StoreError(f"{key}: {part_count} parts; an upload has 1 to 10000")
    if part_size < 1:
        raise StoreError(f"{key}: part size {part_size}; must be at least 1 byte")


def check_part(upload: Shape, index: int, size: int, sha256: str) -> None:
    """Refuse a part that does not fit the upload's shape, before any byte is sent."""
    if not 0 <= index < upload.part_count:
        raise StoreError(f"{upload.key}: part {index} of {upload.part_count} does not exist")
    last = index == upload.part_count - 1
    if (not last and size != upload.part_size) or size > upload.part_size:
        raise StoreError(f"{upload.key}: part {index} has {size} bytes, expected {upload.part_size}")
    if size == 0 and upload.part_count > 1:
        raise StoreError(f"{upload.key}: part {index} is empty")
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise StoreError(f"{upload.key}: part {index}: SHA-256 must be 64 lower-case hex digits")


def check_complete(upload: Shape, parts: Mapping[int, PartInfo]) -> int:
    """The finished object's size if `parts` are all there with the right sizes, else `StoreError`."""
    missing = [i for i in range(upload.part_count) if i not in parts]
    if missing:
        shown = ", ".join(map(str, missing[:10])) + (" ..." if len(missing) > 10 else "")
        raise StoreError(
            f"{upload.key}: cannot complete, {len(missing)} of {upload.part_count} parts missing: {shown}"
        )
    for part in parts.values():
        check_part(upload, part.index, part.size, part.sha256)
    return sum(p.size for p in parts.values())


def read_parts(store: Store, key: str, part_size: int) -> dict[int, PartInfo]:
    """Read a finished object and hash it part by part: what `Upload.parts()` would have said of it.

    For a sealing that was cut off after `complete` but before its manifest was written. Memory: one part.
    """
    info = store.stat(key)
    if info is None:
        raise ObjectMissing(f"{store.uri}: {key}: no such object")
    found: dict[int, PartInfo] = {}
    for index, start in enumerate(range(0, max(info.size, 1), part_size)):
        data = store.get_range(key, start, min(part_size, info.size - start))
        found[index] = PartInfo(index, len(data), hashlib.sha256(data).hexdigest())
    return found


def open_store(uri: str, **options: Any) -> Store:
    """The store at `uri`.

    Args:
        uri: `dir:/path`, `s3://bucket/prefix` or `hf:owner/name` (`hf:owner/name@revision` reads a revision).
        options: backend options, documented at `DirectoryStore`, `S3Store` and `HubStore`.

    Raises:
        StoreError: the scheme is unknown or the address malformed.
    """
    scheme, _, rest = uri.partition(":")
    if not rest:
        raise StoreError(f"store {uri!r}: expected dir:/path, s3://bucket/prefix or hf:owner/name")
    if scheme == "dir":
        from artifacts.stores.directory import DirectoryStore

        return DirectoryStore(rest, **options)
    if scheme == "s3":
        from artifacts.stores.s3 import S3Store

        bucket, _, prefix = rest.removeprefix("//").partition("/")
        return S3Store(bucket, prefix, **options)
    if scheme == "hf":
        from artifacts.stores.hub import HubStore

        return HubStore(rest.removeprefix("//"), **options)
    raise StoreError(f"store {uri!r}: unknown scheme {scheme!r}; expected dir:, s3: or hf:")
