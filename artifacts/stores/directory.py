"""A directory as a store: the simplest place for sealed files, and what a partner's mirror is.

An object's key is its path below the root; `.sluice/` holds unfinished uploads (`artifacts.stores.spool`). An object
appears by `link`, which refuses an existing name atomically, after its bytes were synced; no symbolic link is ever
followed (`artifacts.stores.tree`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat as stat_module
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from artifacts.errors import ObjectExists, ObjectMissing, StaleObject, StoreError
from artifacts.stores import spool
from artifacts.stores.base import (
    RESERVED,
    ObjectInfo,
    PartInfo,
    SeenObjects,
    StoreFeatures,
    check_range,
    check_shape,
    valid_key,
)
from artifacts.stores.tree import NEW_FLAGS, Tree, explained, file_at, names, sub, unlink_quietly, write_all

_STAGING = f"{RESERVED}/staging"
_COMPARE_STEP = 4 * 1024 * 1024


class DirectoryStore:
    """`dir:/path`: sealed files in a directory.

    Args:
        root: the directory; made if it is missing. It may be reached through symbolic links, nothing below it may.

    Raises:
        StoreError: the root is not a directory that can be used.
    """

    def __init__(self, root: str | Path) -> None:
        self._tree = Tree(Path(root).absolute())
        self._seen = SeenObjects()
        self._features: StoreFeatures | None = None

    def __repr__(self) -> str:
        return f"DirectoryStore({str(self._tree.root)!r})"

    @property
    def uri(self) -> str:
        """`dir:` and the absolute path."""
        return f"dir:{self._tree.root}"

    def features(self) -> StoreFeatures:
        """Probed once: whether this file system refuses an existing name atomically (hard links)."""
        if self._features is None:
            linked = self._probe_links()
            lacking = {
                "part_checksums": "a file system has none; parts are hashed again when an upload is resumed",
                "presign": "files have no URLs",
                "versioning": "files have no versions",
                "object_lock": "use the file system's own means (chattr +i, a read-only mount)",
            }
            if not linked:
                lacking["conditional_create"] = (
                    "this file system has no hard links; the name is looked up before the rename, so two writers "
                    "at the very same instant could still replace one another"
                )
            self._features = StoreFeatures(
                conditional_create=linked, resume=True, range_reads=True, lacking=lacking
            )
        return self._features

    def put(self, key: str, data: bytes | bytearray | memoryview, sha256: str | None = None) -> ObjectInfo:
        """See `Store.put`. Written beside, synced, then linked to its name."""
        valid_key(key)
        with explained(self._where(key)), self._tree.folder(_STAGING, make=True) as staging:
            name = secrets.token_hex(16)
            try:
                with file_at(staging, name, NEW_FLAGS) as fd:
                    write_all(fd, data, 0)
                    os.fsync(fd)
                if not self.publish(staging, name, key):
                    self._same_or_refuse(key, data)
            finally:
                unlink_quietly(staging, name)
        return self.known(key)

    def begin(self, key: str, part_count: int, part_size: int) -> DirectoryUpload:
        """See `Store.begin`."""
        valid_key(key)
        check_shape(key, part_count, part_size)
        if self.stat(key) is not None:
            raise ObjectExists(f"{self._where(key)}: is there already; nothing is overwritten")
        upload = DirectoryUpload(self, self._tree, key, part_count, part_size)
        upload.open()
        return upload

    def stat(self, key: str) -> ObjectInfo | None:
        """See `Store.stat`."""
        valid_key(key)
        try:
            with explained(self._where(key)), self._tree.opened(key) as fd:
                return self._seen.remember(_info(key, os.fstat(fd)))
        except ObjectMissing:
            self._seen.forget(key)
            return None

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """See `Store.get_range`."""
        valid_key(key)
        where = self._where(key)
        with explained(where), self._tree.opened(key) as fd:
            info = _info(key, os.fstat(fd))
            seen = self._seen.get(key) or self._seen.remember(info)
            if seen.etag != info.etag:
                raise StaleObject(f"{where}: was changed since it was looked at; fetch it anew")
            check_range(where, start, length, info.size)
            found = os.pread(fd, length, start)
            while len(found) < length:
                piece = os.pread(fd, length - len(found), start + len(found))
                if not piece:
                    raise StaleObject(f"{where}: became shorter while it was read")
                found += piece
        return found

    def read_into(self, key: str, start: int, into: memoryview) -> None:
        """As `get_range`, into memory that the caller uses again and again."""
        valid_key(key)
        where = self._where(key)
        with explained(where), self._tree.opened(key) as fd:
            info = _info(key, os.fstat(fd))
            seen = self._seen.get(key) or self._seen.remember(info)
            if seen.etag != info.etag:
                raise StaleObject(f"{where}: was changed since it was looked at; fetch it anew")
            check_range(where, start, len(into), info.size)
            while into:
                count = os.preadv(fd, [into], start)
                if not count:
                    raise StaleObject(f"{where}: became shorter while it was read")
                into, start = into[count:], start + count

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.list`. A symbolic link (or device) found on the way is an error, not an object."""
        with explained(self.uri):
            yield from self._walk("", self._tree.fd, prefix)

    def delete(self, key: str) -> None:
        """See `Store.delete`. Folders that become empty stay."""
        valid_key(key)
        folder, _, name = key.rpartition("/")
        try:
            with explained(self._where(key)), self._tree.folder(folder) as parent:
                os.unlink(name, dir_fd=parent)
                os.fsync(parent)
        except ObjectMissing:
            pass
        self._seen.forget(key)

    def presign(self, key: str, expires_s: int) -> str | None:
        """None: files have no URLs."""
        valid_key(key)
        return None

    def abort_stale(self, older_than: timedelta) -> tuple[str, ...]:
        """See `Store.abort_stale`. Left-overs of cut-off `put`s go as well."""
        limit = datetime.now(UTC).timestamp() - older_than.total_seconds()
        with contextlib.suppress(ObjectMissing), explained(self.uri), self._tree.folder(_STAGING) as staging:
            for name in names(staging):
                if os.stat(name, dir_fd=staging, follow_symlinks=False).st_mtime <= limit:
                    unlink_quietly(staging, name)
        return spool.abort_stale(self._tree, self.uri, older_than)

    def batch(self, message: str = "Add sealed files") -> contextlib.AbstractContextManager[None]:
        """See `Store.batch`: here every object appears by itself, at once."""
        return contextlib.nullcontext()

    def close(self) -> None:
        """Close the root's descriptor."""
        self._tree.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def publish(self, source_dir: int, source: str, key: str) -> bool:
        """Give the synced file `source` its final name. False: the name is taken, and nothing changed."""
        folder, _, name = key.rpartition("/")
        with self._tree.folder(folder, make=True) as parent:
            if self.features().conditional_create:
                try:
                    os.link(source, name, src_dir_fd=source_dir, dst_dir_fd=parent, follow_symlinks=False)
                except FileExistsError:
                    return False
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.stat(name, dir_fd=parent, follow_symlinks=False)
                    return False
                os.rename(source, name, src_dir_fd=source_dir, dst_dir_fd=parent)
            os.fsync(parent)
        return True

    def known(self, key: str) -> ObjectInfo:
        """What was just written under `key`."""
        info = self.stat(key)
        if info is None:
            raise StaleObject(f"{self._where(key)}: vanished right after it was written")
        return info

    def _where(self, key: str) -> str:
        return f"{self.uri}: {key}"

    def _walk(self, base: str, fd: int, prefix: str) -> Iterator[ObjectInfo]:
        entries: list[tuple[bytes, str, os.stat_result]] = []
        for name in names(fd):
            path = base + name
            if path == RESERVED or not (path.startswith(prefix) or prefix.startswith(path + "/")):
                continue
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                # Byte order of whole keys: a folder sorts as its name with the slash.
                order = os.fsencode(name + "/" if stat_module.S_ISDIR(status.st_mode) else name)
                entries.append((order, name, status))
        for _, name, status in sorted(entries, key=lambda entry: entry[0]):
            path = base + name
            if stat_module.S_ISDIR(status.st_mode):
                with sub(fd, name) as deeper:
                    yield from self._walk(f"{path}/", deeper, prefix)
            elif not stat_module.S_ISREG(status.st_mode):
                raise StoreError(f"{self._where(path)}: is neither a file nor a folder; remove it")
            elif path.startswith(prefix):
                yield _info(path, status)

    def _same_or_refuse(self, key: str, data: bytes | bytearray | memoryview) -> None:
        data = memoryview(data).cast("B")
        with self._tree.opened(key) as fd:
            same = os.fstat(fd).st_size == len(data)
            offset = 0
            while same and offset < len(data):
                piece = os.pread(fd, _COMPARE_STEP, offset)
                same = bool(piece) and piece == data[offset : offset + len(piece)]
                offset += len(piece)
        if not same:
            raise ObjectExists(f"{self._where(key)}: holds other bytes; nothing was overwritten")

    def _probe_links(self) -> bool:
        with explained(self.uri), self._tree.folder(_STAGING, make=True) as staging:
            name = "probe-" + secrets.token_hex(8)
            with file_at(staging, name, NEW_FLAGS, 0o600):
                pass
            try:
                os.link(name, name + ".2", src_dir_fd=staging, dst_dir_fd=staging, follow_symlinks=False)
            except OSError as error:
                if error.errno in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}:
                    return False
                raise
            finally:
                unlink_quietly(staging, name)
                unlink_quietly(staging, name + ".2")
        return True


class DirectoryUpload(spool.Spool):
    """An unfinished object of a `DirectoryStore`: a spool whose body becomes the object by a link."""

    def __init__(self, store: DirectoryStore, tree: Tree, key: str, part_count: int, part_size: int) -> None:
        super().__init__(tree, f"{store.uri}: {key}", key, part_count, part_size)
        self._store = store
        self._done: ObjectInfo | None = None

    def parts(self) -> dict[int, PartInfo]:
        """See `Upload.parts`."""
        return {} if self._done else super().parts()

    def complete(self) -> ObjectInfo:
        """See `Upload.complete`. The body is synced and linked to its name."""
        if self._done:
            return self._done
        with self.finished() as (fd, _):
            if not self._store.publish(fd, "body", self.key):
                ours = os.stat("body", dir_fd=fd, follow_symlinks=False).st_ino
                with self._tree.opened(self.key) as there:
                    if os.fstat(there).st_ino != ours:  # else: an earlier run linked it and was cut off
                        raise ObjectExists(f"{self._store.uri}: {self.key}: holds other bytes; left as it is")
        self._done = self._store.known(self.key)
        self.drop()
        return self._done

    def abort(self) -> None:
        """See `Upload.abort`."""
        self.drop()


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    etag = f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"
    return ObjectInfo(key, status.st_size, etag, modified=datetime.fromtimestamp(status.st_mtime, UTC))
