"""Make, verify and restore a backup. The records are taken first, then the store: what records name lies in a store before they name it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine

from artifacts.errors import ArtifactError
from artifacts.stores.base import RESERVED, Store
from infra.backup import records
from infra.backup.manifest import (
    NAME,
    BackupError,
    File,
    Manifest,
    copy_private,
    inside,
    private_folder,
    read_manifest,
    sha256_of,
    write_private,
)
from orchestrator.records import migrate
from orchestrator.trust.checkpoints import NoteVerifier

STORE = "store"
LISTING = "store.jsonl"
PUBLIC = "custody-public.json"


@dataclass(frozen=True, slots=True)
class Verified:
    """What holds of a backup. `digest`: SHA-256 of its manifest; `signed`: whether the log's own key was used."""

    folder: Path
    manifest: Manifest
    digest: str
    signed: bool


def create(
    engine: Engine,
    store_uri: str,
    open_store: Callable[[str], Store],
    public: Path,
    folder: Path,
    *,
    since: Path | None = None,
) -> Verified:
    """Make a backup in a new folder, and check it.

    Args:
        engine: of the records.
        store_uri: the store; the files of `dir:` are copied, of another only the listing is.
        open_store: opens another store.
        public: custody's public file; left out when there is none.
        folder: where to; must not exist.
        since: an earlier backup: store files that are unchanged since are linked to its own (one copy on the disk).

    Raises:
        BackupError: it exists, there are no records, or what was copied does not hold together.
        Unavailable: the database does not answer.
    """
    earlier = {} if since is None else {file.path: file for file in read_manifest(since).files}
    private_folder(folder.absolute().parent)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        raise BackupError(f"{folder} exists: every backup goes into a folder of its own") from None
    made_at = datetime.now(UTC)
    revision = migrate.schema(engine)
    tables = records.take(engine, folder)
    tree = records.check_log(folder, None, None)
    if public.exists():
        copy_private(public, folder / PUBLIC)
    files = [_file(folder, path) for path in sorted(folder.rglob("*")) if path.is_file()]
    copied = store_uri.startswith("dir:")
    try:
        if copied:
            files += _copy_store(Path(store_uri.removeprefix("dir:")), folder, since, earlier)
        else:
            with open_store(store_uri) as store:
                write_private(folder / LISTING, b"".join(_listing(store)))
            files.append(_file(folder, folder / LISTING))
    except OSError as error:
        raise BackupError(
            f"{store_uri}: {error.strerror or type(error).__name__} at {error.filename}"
        ) from None
    manifest = Manifest(
        made_at=made_at,
        database="sqlite" if engine.dialect.name == "sqlite" else "postgresql",
        schema_revision=revision or "",
        tables=tables,
        log_size=tree.size,
        log_root=tree.root().hex(),
        store=store_uri,
        store_copied=copied,
        files=files,
    )
    return Verified(folder, manifest, manifest.write(folder), signed=False)


def _file(folder: Path, path: Path) -> File:
    size, sha256 = sha256_of(path)
    return File(path=path.relative_to(folder).as_posix(), size=size, sha256=sha256)


def _store_files(root: Path) -> Iterator[Path]:
    """Every object of a directory store; unfinished uploads are none."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.relative_to(root).parts[0] != RESERVED:
            yield path


def _copy_store(root: Path, folder: Path, since: Path | None, earlier: dict[str, File]) -> Iterator[File]:
    for path in _store_files(root):
        name = f"{STORE}/{path.relative_to(root).as_posix()}"
        there = path.stat()
        known = earlier.get(name)
        target = folder / name
        if since is not None and known and (known.size, known.modified) == (there.st_size, there.st_mtime_ns):
            private_folder(target.parent)
            try:
                os.link(inside(since, name), target)
            except OSError:  # gone there, or on another file system: copied like a new one
                pass
            else:
                yield known
                continue
        try:
            size, sha256 = copy_private(path, target)
        except FileNotFoundError:  # deleted meanwhile, by the service itself
            continue
        yield File(path=name, size=size, sha256=sha256, modified=there.st_mtime_ns)


def _listing(store: Store) -> Iterator[bytes]:
    for found in store.list():
        one = {"key": found.key, "size": found.size, "etag": found.etag, "sha256": found.sha256}
        yield json.dumps({**one, "version": found.version}).encode() + b"\n"


def verify(folder: Path, verifier: NoteVerifier | None = None, *, digest: str | None = None) -> Verified:
    """Check every file's digest, and the audit log from its leaves to its head.

    Args:
        folder: the backup.
        verifier: the log's key, pinned elsewhere: its newest checkpoint must be signed with it.
        digest: SHA-256 of the manifest, as it was printed when the backup was made.

    Raises:
        BackupError: a file was altered, is missing or too many, or the log does not verify.
    """
    manifest = read_manifest(folder)
    _, found = sha256_of(folder / NAME)
    if digest is not None and digest.removeprefix("sha256:") != found:
        raise BackupError(
            f"{folder / NAME} has the SHA-256 {found}, not {digest}: it is another, or was altered"
        )
    named = set()
    for file in manifest.files:
        path = inside(folder, file.path)
        named.add(path)
        try:
            size, sha256 = sha256_of(path)
        except OSError as error:
            raise BackupError(f"{path}: {error.strerror}; the manifest names it") from None
        if (size, sha256) != (file.size, file.sha256):
            raise BackupError(f"{path} was altered: it is not the file that the manifest names")
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path not in named and path != folder / NAME:
            raise BackupError(f"{path} is not named by the manifest: it was added afterwards")
    records.check_log(folder, manifest, verifier)
    return Verified(folder, manifest, found, signed=verifier is not None)


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did. `lacking`: objects of the listing that the store does not hold with that size."""

    files: int
    lacking: list[str]


def restore(backup: Verified, engine: Engine, store_uri: str, open_store: Callable[[str], Store]) -> Restored:
    """Put records and store back where nothing is.

    Raises:
        BackupError: something is there already, or does not fit.
        Unavailable: the database does not answer.
    """
    manifest = backup.manifest
    if manifest.store_copied != store_uri.startswith("dir:"):
        raise BackupError(
            f"the backup is of {manifest.store}, SLUICE_STORE_URI is {store_uri}: restore into the same kind"
        )
    root = Path(store_uri.removeprefix("dir:"))
    if manifest.store_copied and next(_store_files(root), None) is not None:
        raise BackupError(
            f"{root} holds files: a restore never overwrites. Give an empty folder, and keep this one."
        )
    records.refuse_unless_empty(engine)
    objects = [file for file in manifest.files if file.path.startswith(f"{STORE}/")]
    for file in objects:
        target = inside(root, file.path.removeprefix(f"{STORE}/"))
        if copy_private(inside(backup.folder, file.path), target) != (file.size, file.sha256):
            raise BackupError(f"{file.path} was altered while it was restored")
    lacking = [] if manifest.store_copied else list(_lacking(backup.folder, store_uri, open_store))
    records.put_back(backup.folder, manifest, engine)
    return Restored(len(objects), lacking)


def _lacking(folder: Path, store_uri: str, open_store: Callable[[str], Store]) -> Iterator[str]:
    try:
        with open_store(store_uri) as store:
            sizes = {found.key: found.size for found in store.list()}
    except ArtifactError as error:
        raise BackupError(f"{store_uri}: {error}") from None
    for line in (folder / LISTING).read_bytes().splitlines():
        wanted = json.loads(line)
        if sizes.get(wanted["key"]) != wanted["size"]:
            yield str(wanted["key"])
