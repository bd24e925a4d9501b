"""Compressed archives unpacked for tier 3: into a private folder, up to a limit, removed afterwards."""

from __future__ import annotations

import contextlib
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from artifacts.leaks.errors import HostileError, UnreadableError, UnsupportedError, shown
from artifacts.leaks.sources import Budget, Ledger, LocalSource
from artifacts.leaks.suspects import archive, torch_zip

STEP = 1 << 20


@contextlib.contextmanager
def unpacked(paths: Sequence[Path], limit: int) -> Iterator[list[Path]]:
    """The same files, with the members of compressed archives in place of the archives.

    Args:
        paths: files of this machine.
        limit: bytes that may be unpacked in all; a bomb ends there.

    Raises:
        UnreadableError: a hostile or encrypted archive, or one over the limit.
    """
    with tempfile.TemporaryDirectory(prefix="sluice-suspect-") as folder:
        out: list[Path] = []
        left = limit
        for path in paths:
            with path.open("rb") as file:
                is_zip = file.read(4) == b"PK\x03\x04"
            members = _compressed(path) if is_zip else []
            if not members:
                out.append(path)
            for info in members:
                target = Path(folder) / f"{len(out):05d}"
                left -= _inflate(path, info, target, left)
                out.append(target)
        yield out


def _compressed(path: Path) -> list[zipfile.ZipInfo]:
    """The members of an archive that has compressed ones and is no checkpoint; none if it can be read as it is."""
    source = LocalSource(path, Budget(1 << 62, 1 << 62, 3600), Ledger())
    try:
        names = archive.members(source)
    finally:
        source.close()
    if torch_zip.root_of(names) is not None or all(
        i.compress_type == zipfile.ZIP_STORED for i in names.values()
    ):
        return []
    return [i for i in names.values() if i.file_size >= 1024 and not i.is_dir()]


def _inflate(path: Path, info: zipfile.ZipInfo, target: Path, limit: int) -> int:
    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UnsupportedError(
            f"{shown(path)}: {shown(info.filename)} is encrypted or packed in an unknown way"
        )
    if info.file_size > limit:
        raise HostileError(
            f"{shown(path)}: {shown(info.filename)} would unpack to {info.file_size} bytes, over the limit"
        )
    written = 0
    try:
        with zipfile.ZipFile(path) as held, held.open(info) as member, target.open("wb") as out:
            while data := member.read(STEP):
                written += len(data)
                if written > info.file_size:
                    raise HostileError(f"{shown(path)}: {shown(info.filename)} is longer than it promises")
                out.write(data)
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, NotImplementedError, EOFError) as error:
        raise UnreadableError(
            f"{shown(path)}: {shown(info.filename)} is damaged: {type(error).__name__}"
        ) from error
    return written
