"""Parts of an unfinished object on local disk: sealed bytes only, found again after a crash.

One folder per upload below `.sluice/uploads/`, named by the digest of the key:

    shape                     JSON: key, part count, part size
    body                      the parts, each at index * part size
    <index>-<size>-<sha256>   an empty marker per part that is safely in `body`
    <index>.lock              held while that part is written

A marker is removed before its part is rewritten and made after it. What another process (or an earlier life of this
one) wrote is hashed again before it counts: a power cut may have kept the marker and lost the bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from artifacts.errors import ObjectMissing, StoreError
from artifacts.stores.base import RESERVED, PartInfo, check_complete, check_part
from artifacts.stores.tree import (
    NEW_FLAGS,
    Tree,
    explained,
    file_at,
    locked,
    names,
    remove_flat,
    sub,
    touch,
    unlink_quietly,
    write_all,
    write_back,
)

UPLOADS = f"{RESERVED}/uploads"
_MARKER = re.compile(r"(\d{5})-(\d+)-([0-9a-f]{64})")
_HASH_STEP = 4 * 1024 * 1024


class Spool:
    """The parts of one upload in a `Tree`. Its methods are those of `Upload`, up to the object's appearing."""

    def __init__(self, tree: Tree, where: str, key: str, part_count: int, part_size: int) -> None:
        self._tree, self._where = tree, f"{where} (unfinished upload)"
        self._key, self._part_count, self._part_size = key, part_count, part_size
        self._name = hashlib.sha256(key.encode()).hexdigest()[:32]
        self._trusted: set[str] = set()  # markers whose bytes this process wrote or hashed itself

    @property
    def key(self) -> str:
        """The object's key."""
        return self._key

    @property
    def part_count(self) -> int:
        """Number of parts."""
        return self._part_count

    @property
    def part_size(self) -> int:
        """Bytes of every part but the last."""
        return self._part_size

    def open(self) -> None:
        """Make the folder, or take over the one that is there if its shape is the same; else begin anew."""
        shape = {"key": self._key, "part_count": self._part_count, "part_size": self._part_size}
        for _ in range(2):
            with explained(self._where), self._tree.folder(f"{UPLOADS}/{self._name}", make=True) as fd:
                if _read_shape(fd) is None:
                    name = secrets.token_hex(8)
                    with file_at(fd, name, NEW_FLAGS, 0o600) as new:
                        write_all(new, json.dumps(shape).encode(), 0)
                    with file_at(fd, "body", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC):
                        pass
                    os.rename(name, "shape", src_dir_fd=fd, dst_dir_fd=fd)
                if _read_shape(fd) == shape:
                    return
            self.drop()
        raise StoreError(f"{self._where}: another upload of a different shape is being made at this moment")

    def parts(self) -> dict[int, PartInfo]:
        """The parts whose bytes are on disk and have the hash that their marker says."""
        with self.files() as fd, file_at(fd, "body") as body:
            found = self._marked(fd)
            for index, part in list(found.items()):
                marker = _marker(part)
                if marker in self._trusted or _hash(body, index * self._part_size, part.size) == part.sha256:
                    self._trusted.add(marker)
                else:
                    unlink_quietly(fd, marker)
                    del found[index]
        return found

    def put_part(self, index: int, data: bytes | bytearray | memoryview, sha256: str) -> PartInfo:
        """Write one part and mark it."""
        view = memoryview(data).cast("B")
        check_part(self, index, len(view), sha256)
        part = PartInfo(index, len(view), sha256)
        with self.files() as fd, locked(fd, f"{index:05d}.lock"):
            for name in names(fd):
                if name.startswith(f"{index:05d}-"):
                    if name == _marker(part) and name in self._trusted:
                        return part
                    unlink_quietly(fd, name)
            with file_at(fd, "body", os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC) as body:
                write_all(body, view, index * self._part_size)
            touch(fd, _marker(part))
            self._trusted.add(_marker(part))
        return part

    @contextlib.contextmanager
    def writing_part(self, index: int) -> Iterator[SpooledPart]:
        """See `StreamingUpload.writing_part`."""
        if not 0 <= index < self.part_count:
            raise StoreError(f"{self.key}: part {index} of {self.part_count} does not exist")
        with self.files() as fd, locked(fd, f"{index:05d}.lock"):
            for name in names(fd):
                if name.startswith(f"{index:05d}-"):
                    unlink_quietly(fd, name)
            with file_at(fd, "body", os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC) as body:
                written = SpooledPart(body, index * self._part_size, self._part_size)
                yield written
                check_part(self, index, written.written, written.sha256)
                written.flush()
            part = PartInfo(index, written.written, written.sha256)
            touch(fd, _marker(part))
            self._trusted.add(_marker(part))

    @contextlib.contextmanager
    def finished(self) -> Iterator[tuple[int, int]]:
        """The folder's descriptor and the body's size, once every part is there and the body is synced."""
        with self.files() as fd:
            size = check_complete(self, self._marked(fd))
            with file_at(fd, "body", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC) as body:
                os.ftruncate(body, size)
                os.fsync(body)
            yield fd, size

    def body_path(self) -> Path:
        """Where the body lies, for libraries that take a path."""
        return self._tree.root / UPLOADS / self._name / "body"

    def drop(self) -> None:
        """Remove the folder and everything in it."""
        with contextlib.suppress(ObjectMissing), explained(self._where), self._tree.folder(UPLOADS) as fd:
            remove_flat(fd, self._name)
        self._trusted.clear()

    @contextlib.contextmanager
    def files(self) -> Iterator[int]:
        """The upload's folder; `StoreError` if the upload was aborted meanwhile."""
        try:
            with explained(self._where), self._tree.folder(f"{UPLOADS}/{self._name}") as fd:
                yield fd
        except ObjectMissing as error:
            raise ObjectMissing(f"{self._where}: is gone; it was aborted or completed elsewhere") from error

    def _marked(self, fd: int) -> dict[int, PartInfo]:
        found: dict[int, PartInfo] = {}
        for match in filter(None, map(_MARKER.fullmatch, sorted(names(fd)))):
            found[int(match[1])] = PartInfo(int(match[1]), int(match[2]), match[3])
        return found


class SpooledPart:
    """One part on its way into the body."""

    def __init__(self, fd: int, start: int, room: int) -> None:
        self._fd, self._start, self._room = fd, start, room
        self.written = 0
        self.sha256 = ""

    def write(self, data: memoryview) -> None:
        """The next bytes."""
        if self.written + len(data) > self._room:
            raise StoreError(f"a part of at most {self._room} bytes was announced; refused")
        write_all(self._fd, data, self._start + self.written)
        self.written += len(data)

    def flush(self) -> None:
        """Begin to write the part out."""
        write_back(self._fd, self._start, self.written)


def abort_stale(tree: Tree, where: str, older_than: timedelta) -> tuple[str, ...]:
    """Remove the folders of uploads in which nothing was written for longer than `older_than`; gives their keys."""
    limit = datetime.now(UTC).timestamp() - older_than.total_seconds()
    aborted: list[str] = []
    with contextlib.suppress(ObjectMissing), explained(where), tree.folder(UPLOADS) as uploads:
        for name in sorted(names(uploads)):
            with sub(uploads, name) as fd:
                times = [os.stat(entry, dir_fd=fd, follow_symlinks=False).st_mtime for entry in names(fd)]
                if max([os.fstat(fd).st_mtime, *times]) > limit:
                    continue
                shape = _read_shape(fd) or {}
            remove_flat(uploads, name)
            aborted.append(str(shape.get("key", name)))
    return tuple(aborted)


def _marker(part: PartInfo) -> str:
    return f"{part.index:05d}-{part.size}-{part.sha256}"


def _hash(fd: int, start: int, size: int) -> str:
    digest = hashlib.sha256()
    while size:
        piece = os.pread(fd, min(size, _HASH_STEP), start)
        if not piece:
            return "short"
        digest.update(piece)
        start, size = start + len(piece), size - len(piece)
    return digest.hexdigest()


def _read_shape(fd: int) -> dict[str, object] | None:
    try:
        with file_at(fd, "shape") as shape:
            loaded = json.loads(os.read(shape, 65536))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}  # torn: equals no shape, so the upload is begun anew
    return loaded if isinstance(loaded, dict) else {}
