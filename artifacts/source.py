"""The folder to seal: what is in it, which component each file belongs to, and whether it stays as it was.

Symbolic links, devices, sockets and hard-to-write names are refused. A file is identified by device, inode, size,
modification and change time; any difference between the scan and the end of sealing is a `SourceChangedError`.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from artifacts.body import Plaintext, read_exactly
from artifacts.encoding import prefixed, u64
from artifacts.errors import SourceChangedError, SourceError
from artifacts.paths import check_paths

_SAMPLES, _SAMPLE = 16, 4096


class PlainFile(Protocol):
    """One file of a source of plaintext, as it was when it was scanned."""

    @property
    def path(self) -> str:
        """Its path in the source."""
        ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    @property
    def identity(self) -> tuple[int | str, ...]:
        """Whatever changes when the file does."""
        ...

    def open(self) -> Plaintext:
        """Open exactly the scanned file."""
        ...

    def check(self, opened: Plaintext) -> None:
        """Raise `SourceChangedError` unless the open file is still as it was scanned."""
        ...


class PlainTree(Protocol):
    """A source of plaintext: a folder, or a store that holds plaintext (`artifacts.source_store`)."""

    @property
    def label(self) -> str:
        """Where it is: what a resume ticket and errors name it by."""
        ...

    def scan(self) -> Sequence[PlainFile]:
        """All files, ordered by path."""
        ...


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder (or single file) on this machine as a source."""

    root: Path

    @property
    def label(self) -> str:
        """Its real path."""
        return str(self.root.resolve())

    def scan(self) -> list[SourceFile]:
        """See `scan`."""
        return scan(self.root)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of the folder as it was when it was scanned."""

    path: str
    location: Path
    size: int
    identity: tuple[int, int, int, int, int]

    def open(self) -> Plaintext:
        """A read-only descriptor of exactly the scanned file."""
        try:
            fd = os.open(self.location, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise SourceChangedError(f"{self.path}: cannot be opened any more ({error.strerror})") from None
        try:
            self.check(fd)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def check(self, opened: Plaintext) -> None:
        """Raise `SourceChangedError` unless the open file is still as it was scanned."""
        if not isinstance(opened, int) or _identity(os.fstat(opened)) != self.identity:
            raise SourceChangedError(
                f"{self.path}: changed while it was sealed; stop what writes to it and seal again"
            )


def close(opened: Plaintext) -> None:
    """Give back what `PlainFile.open` gave."""
    if isinstance(opened, int):
        os.close(opened)
    else:
        opened.close()


def _identity(status: os.stat_result) -> tuple[int, int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def scan(root: Path) -> list[SourceFile]:
    """All files below `root` (or `root` itself if it is a file), ordered by path.

    Raises:
        SourceError: nothing there, not readable, or something that is neither a file nor a folder.
        PathError: a name that not every disk can hold, or two that collide.
    """
    try:
        base = root.resolve(strict=True)
        status = base.lstat()
    except OSError as error:
        raise SourceError(f"{root}: {error.strerror or error}") from None
    found: list[SourceFile] = []
    if stat.S_ISREG(status.st_mode):
        found.append(SourceFile(base.name, base, status.st_size, _identity(status)))
    elif stat.S_ISDIR(status.st_mode):
        _walk(base, "", found)
    else:
        raise SourceError(f"{root}: is neither a file nor a folder")
    if not found:
        raise SourceError(f"{root}: holds no file")
    found.sort(key=lambda f: f.path.encode("utf-8", "surrogatepass"))
    check_paths(f.path for f in found)
    return found


def _walk(folder: Path, prefix: str, found: list[SourceFile]) -> None:
    try:
        with os.scandir(folder) as entries:
            listed = list(entries)
    except OSError as error:
        raise SourceError(f"{prefix or folder}: cannot be listed ({error.strerror})") from None
    for entry in listed:
        path = prefix + entry.name
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            raise SourceError(f"{path!a}: is a symbolic link; put the file itself there")
        if stat.S_ISDIR(status.st_mode):
            _walk(Path(entry.path), path + "/", found)
        elif stat.S_ISREG(status.st_mode):
            found.append(SourceFile(path, Path(entry.path), status.st_size, _identity(status)))
        else:
            raise SourceError(f"{path!a}: is neither a file nor a folder")


def assign(files: Sequence[PlainFile], components: Mapping[str, str | Sequence[str]]) -> dict[str, str]:
    """Path -> component. The first component (in the mapping's order) with a fitting pattern takes a file.

    A pattern is a path, a folder (everything below), or a glob in which `*` also crosses folders.

    Raises:
        SourceError: a file that no component takes, or a component that takes none.
    """
    assigned: dict[str, str] = {}
    for file in files:
        for name, given in components.items():
            patterns = [given] if isinstance(given, str) else list(given)
            if any(_fits(file.path, pattern) for pattern in patterns):
                assigned[file.path] = name
                break
        else:
            raise SourceError(f"{file.path!a}: belongs to no component; add a pattern for it or move it away")
    empty = sorted(set(components) - set(assigned.values()))
    if empty:
        raise SourceError(f"component {empty[0]!a}: no file fits its patterns")
    return assigned


def _fits(path: str, pattern: str) -> bool:
    folder = pattern.rstrip("/")
    return path == pattern or path.startswith(folder + "/") or fnmatch.fnmatchcase(path, pattern)


def fingerprint(files: Sequence[PlainFile]) -> str:
    """Hex SHA-256 over names, sizes and identities: the same folder, untouched."""
    return hashlib.sha256(json.dumps([[f.path, *f.identity] for f in files]).encode()).hexdigest()


def plaintext_secret(files: Sequence[PlainFile]) -> bytes:
    """32 bytes that only somebody with the plaintext can compute: a hash over samples of every file.

    Small files are read whole; of larger ones 16 spread windows of 4 KiB. It guards the root key in a resume ticket.
    """
    digest = hashlib.sha256()
    for file in files:
        digest.update(prefixed(file.path.encode(), u64(file.size)))
        fd = file.open()
        try:
            if file.size <= _SAMPLES * _SAMPLE:
                starts, length = [0], file.size
            else:
                starts, length = (
                    [i * (file.size - _SAMPLE) // (_SAMPLES - 1) for i in range(_SAMPLES)],
                    _SAMPLE,
                )
            for start in starts:
                sample = bytearray(length)
                read_exactly(fd, memoryview(sample), start, file.path)
                digest.update(sample)
        finally:
            close(fd)
    return digest.digest()
