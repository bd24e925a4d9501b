"""Finished sealed objects that wait on local disk for their commit: `.sluice/staged/<digest of key>/{key,body}`.

A commit to the Hub is a heavy thing (and limited to about a hundred an hour), so a batch collects objects here and
commits them together. What a crash left behind is found again and goes with the next batch.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path

from artifacts.errors import ObjectMissing
from artifacts.stores.base import RESERVED, ObjectInfo
from artifacts.stores.tree import (
    NEW_FLAGS,
    Tree,
    explained,
    file_at,
    names,
    remove_flat,
    sub,
    write_all,
)

STAGED = f"{RESERVED}/staged"


class Staging:
    """The staged objects of one repository in its spool."""

    def __init__(self, tree: Tree, where: str) -> None:
        self._tree, self._where = tree, where

    def add_body(self, key: str, folder: int, size: int) -> ObjectInfo:
        """Stage the file `body` of the open folder under `key`; the file is linked, not copied."""
        with explained(self._where), self._tree.folder(f"{STAGED}/{_name(key)}", make=True) as fd:
            with contextlib.suppress(FileExistsError):
                os.link("body", "body", src_dir_fd=folder, dst_dir_fd=fd, follow_symlinks=False)
            self._note_key(fd, key)
        return ObjectInfo(key, size, f"staged-{_name(key)}")

    def add_bytes(self, key: str, data: bytes | bytearray | memoryview) -> ObjectInfo:
        """Stage `data` under `key`."""
        with explained(self._where), self._tree.folder(f"{STAGED}/{_name(key)}", make=True) as fd:
            temporary = secrets.token_hex(8)
            with file_at(fd, temporary, NEW_FLAGS) as new:
                write_all(new, data, 0)
                os.fsync(new)
            os.rename(temporary, "body", src_dir_fd=fd, dst_dir_fd=fd)
            self._note_key(fd, key)
        return ObjectInfo(key, memoryview(data).nbytes, f"staged-{_name(key)}")

    def all(self) -> dict[str, Path]:
        """Key and body of everything that is staged, in the order in which it was."""
        found: list[tuple[int, str, Path]] = []
        with contextlib.suppress(ObjectMissing), explained(self._where), self._tree.folder(STAGED) as staged:
            for name in names(staged):
                with contextlib.suppress(FileNotFoundError), sub(staged, name) as fd:
                    with file_at(fd, "key") as noted:
                        key = os.read(noted, 65536).decode()
                        when = os.fstat(noted).st_mtime_ns
                    found.append((when, key, self._tree.root / STAGED / name / "body"))
        return {key: path for _, key, path in sorted(found)}

    def find(self, key: str) -> ObjectInfo | None:
        """What is staged under `key`."""
        try:
            with (
                explained(self._where),
                self._tree.folder(f"{STAGED}/{_name(key)}") as fd,
                file_at(fd, "key"),
            ):
                size = os.stat("body", dir_fd=fd, follow_symlinks=False).st_size
        except ObjectMissing:
            return None
        return ObjectInfo(key, size, f"staged-{_name(key)}")

    def read(self, key: str, start: int, length: int) -> bytes:
        """Bytes of a staged object."""
        with explained(self._where), self._tree.opened(f"{STAGED}/{_name(key)}/body") as fd:
            return os.pread(fd, length, start)

    def drop(self, key: str) -> None:
        """Forget a staged object: it was committed, or is not wanted."""
        with contextlib.suppress(ObjectMissing), explained(self._where), self._tree.folder(STAGED) as staged:
            remove_flat(staged, _name(key))

    def abort_stale(self, older_than: timedelta) -> tuple[str, ...]:
        """Forget what has waited for longer than `older_than`; gives the keys."""
        limit = datetime.now(UTC).timestamp() - older_than.total_seconds()
        stale = tuple(key for key, path in self.all().items() if path.stat().st_mtime <= limit)
        for key in stale:
            self.drop(key)
        return stale

    def _note_key(self, fd: int, key: str) -> None:
        """The `key` file comes last: without it the body does not count."""
        with contextlib.suppress(FileExistsError):
            temporary = secrets.token_hex(8)
            with file_at(fd, temporary, NEW_FLAGS) as new:
                write_all(new, key.encode(), 0)
            os.rename(temporary, "key", src_dir_fd=fd, dst_dir_fd=fd)
        os.fsync(fd)


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:32]
