"""A folder that nothing can lead out of: the file calls behind the directory store and the Hub's spool.

Every path is walked component by component from the root's descriptor with `O_NOFOLLOW`, so that no symbolic link is
ever followed, also not one that appears between two calls. Errors of the system become the stores' errors.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from artifacts.errors import AccessDenied, ObjectMissing, StoreError, StoreUnavailable

DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
NEW_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_IN_THE_WAY = {errno.ELOOP, errno.ENOTDIR, errno.EMLINK, errno.EISDIR, errno.ENAMETOOLONG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def explained(where: str) -> Iterator[None]:
    """Turn an `OSError` into the store's own errors, told with `where`."""
    try:
        yield
    except FileNotFoundError as error:
        raise ObjectMissing(f"{where}: no such object") from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in _IN_THE_WAY:
            hint = "a symbolic link, file or folder stands in the way, and links are not followed"
            raise StoreError(f"{where}: {reason} ({hint})") from error
        if error.errno in _DENIED:
            raise AccessDenied(f"{where}: {reason}; check the folder's owner and mode") from error
        if error.errno in _FULL:
            raise StoreError(f"{where}: {reason}; free some space and run the same command again") from error
        raise StoreUnavailable(f"{where}: {reason}") from error


class Tree:
    """A root folder, held by its descriptor.

    Args:
        root: made if it is missing. It may itself be reached through symbolic links; nothing below it may.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        with explained(str(root)):
            root.mkdir(parents=True, exist_ok=True)
            self.fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Close the root's descriptor; calling it twice is fine."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    @contextlib.contextmanager
    def folder(self, path: str, *, make: bool = False) -> Iterator[int]:
        """A descriptor of the folder `path` below the root; `make` creates (and syncs) what is missing."""
        fd = os.dup(self.fd)
        try:
            for name in path.split("/") if path else []:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, 0o777, dir_fd=fd)
                        os.fsync(fd)
                deeper = os.open(name, DIR_FLAGS, dir_fd=fd)
                os.close(fd)
                fd = deeper
            yield fd
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def opened(self, path: str) -> Iterator[int]:
        """A read descriptor of the regular file at `path`. A folder counts as no object."""
        folder, _, name = path.rpartition("/")
        with self.folder(folder) as parent:
            # O_NONBLOCK: a pipe that somebody put there must not hang us; regular files ignore it.
            fd = os.open(name, READ_FLAGS | os.O_NONBLOCK, dir_fd=parent)
        try:
            mode = os.fstat(fd).st_mode
            if stat.S_ISDIR(mode):
                raise ObjectMissing(f"{self.root}: {path}: is a folder, not an object")
            if not stat.S_ISREG(mode):
                raise StoreError(f"{self.root}: {path}: is not a regular file")
            yield fd
        finally:
            os.close(fd)


def names(fd: int) -> list[str]:
    """The names in an open folder."""
    return os.listdir(fd)


@contextlib.contextmanager
def sub(parent: int, name: str) -> Iterator[int]:
    """A descriptor of the folder `name` in the open folder `parent`."""
    fd = os.open(name, DIR_FLAGS, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def file_at(parent: int, name: str, flags: int = READ_FLAGS, mode: int = 0o666) -> Iterator[int]:
    """A descriptor of the file `name` in the open folder `parent`."""
    fd = os.open(name, flags, mode, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def locked(parent: int, name: str) -> Iterator[None]:
    """Hold the lock file `name`, over threads and processes: `flock` belongs to the open file, not the process."""
    with file_at(parent, name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield


def write_all(fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write every byte of `data` at `offset`."""
    view = memoryview(data).cast("B")
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def write_back(fd: int, start: int, length: int) -> None:
    """Have the kernel begin to write a range to the disk now, so that the sync at the end has little to wait for."""
    if hasattr(os, "posix_fadvise"):  # not on macOS
        os.posix_fadvise(fd, start, length, os.POSIX_FADV_DONTNEED)


def touch(parent: int, name: str) -> None:
    """Make an empty file."""
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent))


def unlink_quietly(parent: int, name: str) -> None:
    """Remove a file; a missing one is fine."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=parent)


def remove_flat(parent: int, name: str) -> None:
    """Remove a folder of files; a missing one is fine."""
    with contextlib.suppress(FileNotFoundError):
        with sub(parent, name) as fd:
            for entry in names(fd):
                unlink_quietly(fd, entry)
        os.rmdir(name, dir_fd=parent)
