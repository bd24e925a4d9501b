"""What a backup is: a folder with `manifest.json`, which names every file in it with its size and SHA-256.

    manifest.json            this module's `Manifest`
    records.db               the records, when they lie in SQLite; or
    records/TABLE.copy       the records, when they lie in PostgreSQL: each table in COPY's text form
    store/…                  the files of a directory store; or
    store.jsonl              of another store: each object's key, size and checksums, not its bytes
    custody-public.json      custody's public half

Folders have mode 0700 and files 0600. No secret is in it: `docs/recover.md` says what must be kept elsewhere.
"""

from __future__ import annotations

import hashlib
import os
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

NAME = "manifest.json"
FORMAT = "sluice-backup/v1"
_CHUNK = 1 << 20


class BackupError(Exception):
    """A backup can't be made, used or believed. The text says what, where, and what to do."""


class File(BaseModel):
    """One file of a backup. `modified` (nanoseconds): of a store's file, when it was written there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    size: int
    sha256: str
    modified: int | None = None


class Manifest(BaseModel):
    """What a backup holds, and where the audit log ended when it was made (`log_root`: hex)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["sluice-backup/v1"] = "sluice-backup/v1"
    made_at: datetime
    database: Literal["sqlite", "postgresql"]
    schema_revision: str
    tables: list[str]
    log_size: int
    log_root: str
    store: str
    store_copied: bool
    files: list[File]

    def write(self, folder: Path) -> str:
        """Write it, as the last file of a backup; its SHA-256."""
        data = self.model_dump_json(indent=1).encode() + b"\n"
        write_private(folder / NAME, data)
        return hashlib.sha256(data).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a backup.

    Raises:
        BackupError: there is none, or it is not of this form.
    """
    path = folder / NAME
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BackupError(f"{path}: {error.strerror}; a backup that was cut short has no manifest") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BackupError(f"{path} is no manifest of a backup: {where}: {first['msg']}") from None


def sha256_of(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file."""
    hashed, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            hashed.update(chunk)
            size += len(chunk)
    return size, hashed.hexdigest()


def private_folder(path: Path) -> None:
    """A folder (0700), and those above it that are missing; `mkdir(parents=True)` would leave those open to others."""
    for folder in (*reversed(path.parents), path):
        if not folder.exists():
            folder.mkdir(mode=0o700, exist_ok=True)


def copy_private(source: Path, target: Path) -> tuple[int, str]:
    """Copy bytes into a new file (0600), synced; size and SHA-256 of what was copied."""
    private_folder(target.parent)
    hashed, size = hashlib.sha256(), 0
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as out, source.open("rb") as file:
        while chunk := file.read(_CHUNK):
            out.write(chunk)
            hashed.update(chunk)
            size += len(chunk)
        out.flush()
        os.fsync(out.fileno())
    return size, hashed.hexdigest()


def write_private(path: Path, data: bytes) -> None:
    """A new file, readable by its owner alone, synced."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def inside(folder: Path, name: str) -> Path:
    """The path of a file that a manifest names.

    Raises:
        BackupError: it leads out of the folder.
    """
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts:
        raise BackupError(f"the manifest of {folder} names {name!r}, which leads out of the backup")
    return folder / name
