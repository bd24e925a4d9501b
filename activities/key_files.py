"""Files with keys of a worker's own: made once, whole or not at all, for their owner's eyes alone."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_once(path: Path, data: bytes) -> None:
    """Write a file (0600) where none is. One that is there already stays: two workers may start at once, and the first one's keys hold."""
    temporary = _written(path, data)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    finally:
        temporary.unlink(missing_ok=True)


def write_over(path: Path, data: bytes) -> None:
    """Put other bytes (0600) in the place of a file, in one step."""
    _written(path, data).replace(path)


def _written(path: Path, data: bytes) -> Path:
    """A file of another name beside it, with the bytes on the disk."""
    temporary = path.with_suffix(f".{secrets.token_hex(8)}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary
