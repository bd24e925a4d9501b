"""Where plaintext is written: only below one folder, whole files only, never over something that is there.

Unfinished files lie in `<folder>/.sluice-fetch/` (mode 0700, files 0600) and move to their name by `link`, which refuses an
existing one. No symbolic link below the folder is followed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from artifacts.errors import DestinationError
from artifacts.paths import FETCH_FOLDER

LOG = ".done"
"""Ending of the list of parts that an unfinished file has."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def explained(where: str) -> Iterator[None]:
    """Turn an `OSError` into a `DestinationError` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DestinationError(
                f"{where}: the disk is full; free some space and fetch again, it goes on where it stopped"
            ) from None
        if error.errno in {errno.ELOOP, errno.ENOTDIR}:
            raise DestinationError(
                f"{where}: a symbolic link or file is in the way; remove it or fetch elsewhere"
            ) from None
        raise DestinationError(f"{where}: cannot be written ({error.strerror})") from None


class Destination:
    """A folder that fetched files are written to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._renamed_in: set[str] = set()
        with explained(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
            self._root = os.open(folder.resolve(), _FOLDER)
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(FETCH_FOLDER, 0o700, dir_fd=self._root)
                self._work = os.open(FETCH_FOLDER, _FOLDER, dir_fd=self._root)
            except BaseException:
                os.close(self._root)
                raise

    def free_bytes(self) -> int:
        """What the disk can still take."""
        status = os.fstatvfs(self._root)
        return status.f_bavail * status.f_frsize

    def existing(self, path: str) -> int | None:
        """A read-only descriptor of the file at `path`, or None if nothing is there.

        Raises:
            DestinationError: something else than a plain file is there, or a symbolic link leads there.
        """
        with explained(path):
            try:
                with self._parent(path, make=False) as (parent, name):
                    fd = os.open(
                        name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent
                    )
            except FileNotFoundError:
                return None
            if not os.path.isfile(f"/proc/self/fd/{fd}"):  # noqa: PTH113 - a descriptor, not a path
                os.close(fd)
                raise DestinationError(
                    f"{path}: something that is no file is there; remove it or fetch elsewhere"
                )
            return fd

    def open_partial(self, path: str, suffix: str = "") -> int:
        """The unfinished file of `path`, created if it is not there."""
        with explained(path):
            return os.open(
                _work_name(path) + suffix,
                os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o600,
                dir_fd=self._work,
            )

    def partial_size(self, path: str) -> int:
        """Bytes that the unfinished file of `path` takes on the disk."""
        try:
            return os.stat(_work_name(path), dir_fd=self._work, follow_symlinks=False).st_blocks * 512
        except FileNotFoundError:
            return 0

    def drop_partial(self, path: str) -> None:
        """Remove what is unfinished of `path`."""
        for suffix in ("", LOG):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_work_name(path) + suffix, dir_fd=self._work)

    def publish(self, path: str, fd: int) -> None:
        """Sync the unfinished file and give it its name.

        Raises:
            DestinationError: the name is taken; nothing was overwritten.
        """
        with explained(path):
            os.fsync(fd)
            with self._parent(path, make=True) as (parent, name):
                try:
                    os.link(
                        _work_name(path),
                        name,
                        src_dir_fd=self._work,
                        dst_dir_fd=parent,
                        follow_symlinks=False,
                    )
                except FileExistsError:
                    raise DestinationError(f"{path}: is there already; nothing was overwritten") from None
                except OSError as error:
                    if error.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}:
                        raise
                    self._rename(path, parent, name)
                self._renamed_in.add(path.rpartition("/")[0])
        self.drop_partial(path)

    def sync(self) -> None:
        """Make the names durable: each folder that got files is synced once, not once a file."""
        for folder in sorted(self._renamed_in):
            with (
                explained(folder or str(self.folder)),
                self._parent(f"{folder}/x".lstrip("/"), make=False) as (fd, _),
            ):
                os.fsync(fd)
        self._renamed_in.clear()

    def _rename(self, path: str, parent: int, name: str) -> None:
        """For file systems without hard links: look, then rename."""
        with contextlib.suppress(FileNotFoundError):
            os.stat(name, dir_fd=parent, follow_symlinks=False)
            raise DestinationError(f"{path}: is there already; nothing was overwritten")
        os.rename(_work_name(path), name, src_dir_fd=self._work, dst_dir_fd=parent)

    @contextlib.contextmanager
    def _parent(self, path: str, *, make: bool) -> Iterator[tuple[int, str]]:
        *folders, name = path.split("/")
        fd = os.dup(self._root)
        try:
            for folder in folders:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(folder, dir_fd=fd)
                deeper = os.open(folder, _FOLDER, dir_fd=fd)
                os.close(fd)
                fd = deeper
            yield fd, name
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close descriptors, and remove the work folder if nothing unfinished is left in it."""
        with contextlib.suppress(OSError):
            os.rmdir(FETCH_FOLDER, dir_fd=self._root)
        os.close(self._work)
        os.close(self._root)


def _work_name(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()[:40]
