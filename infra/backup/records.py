"""The records in a backup: taken in one transaction, put back into an empty database, their log checked from the leaves on."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Engine, inspect, text

from infra.backup.manifest import BackupError, Manifest, copy_private
from orchestrator.domain.errors import Malformed
from orchestrator.records import audit, migrate
from orchestrator.records.database import reading, told, writing
from orchestrator.trust.checkpoints import NoteVerifier, verify_checkpoint
from orchestrator.trust.errors import TrustError
from orchestrator.trust.merkle import CompactTree, leaf_hash

SQLITE = "records.db"
FOLDER = "records"
_VERSION = "alembic_version"
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v"}


def database_file(engine: Engine) -> Path:
    """The file of an SQLite database."""
    return Path(engine.url.database or "").absolute()


def take(engine: Engine, folder: Path) -> list[str]:
    """Copy one moment of the records into `folder`; the tables.

    Raises:
        BackupError: there are no records.
        Unavailable: the database does not answer.
    """
    if engine.dialect.name == "sqlite":
        return _take_sqlite(database_file(engine), folder / SQLITE)
    (folder / FOLDER).mkdir(mode=0o700)
    try:
        return _take_tables(engine, folder / FOLDER)
    except psycopg.Error as error:  # the driver's own, since COPY goes past SQLAlchemy
        raise BackupError(
            f"PostgreSQL broke off the copy: {type(error).__name__}; make another backup"
        ) from None


def _take_tables(engine: Engine, folder: Path) -> list[str]:
    with reading(engine) as session:
        connection = session.connection()
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        inspector = inspect(connection)
        tables = sorted(set(inspector.get_table_names()) - {_VERSION})
        if "audit_leaf" not in tables:
            raise BackupError("the database holds no records; is SLUICE_DATABASE_URL right?")
        driver: Any = connection.connection.driver_connection
        for name in tables:
            key = inspector.get_pk_constraint(name)["constrained_columns"]
            order = f" ORDER BY {_columns(key)}" if key else ""
            columns = _columns([column["name"] for column in inspector.get_columns(name)])
            query = f'COPY (SELECT {columns} FROM "{name}"{order}) TO STDOUT'  # noqa: S608 - names of our own tables
            descriptor = os.open(folder / f"{name}.copy", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file, driver.cursor() as cursor, cursor.copy(query) as copy:
                file.write(f"{columns}\n".encode())
                for data in copy:
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
    return tables


def _columns(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _take_sqlite(source: Path, target: Path) -> list[str]:
    if not source.is_file():
        raise BackupError(f"there are no records at {source}; is SLUICE_DATABASE_URL right?")
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with (
            closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=15)) as old,
            closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
            new.execute("PRAGMA journal_mode=DELETE")
            found = new.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    except sqlite3.Error as error:
        raise BackupError(f"{source} can't be copied: {error}") from None
    tables = sorted({name for (name,) in found} - {_VERSION})
    if "audit_leaf" not in tables:
        raise BackupError(f"{source} holds no records; is SLUICE_DATABASE_URL right?")
    return tables


# --- checking ----------------------------------------------------------------------------------------------------------


def check_log(folder: Path, manifest: Manifest | None, verifier: NoteVerifier | None) -> CompactTree:
    """Compute the log's root from the leaves of a backup, and hold events, stored head, checkpoints and manifest against it.

    Args:
        folder: the backup.
        manifest: what it says; None while a backup is being made.
        verifier: the log's key, for the newest checkpoint.

    Raises:
        BackupError: something does not fit; the first entry that does not is named.
    """
    tree = CompactTree()
    roots: dict[int, bytes] = {}
    wanted, newest = {}, (0, "")
    for size, root, note in _rows(folder, "audit_checkpoint", ("size", "root", "note")):
        wanted[size] = root
        newest = max(newest, (size, note))
    events = _rows(folder, "event", ("id", "release", "seq", "body"))
    event = next(events, None)
    for index, kind, body, hashed in _rows(folder, "audit_leaf", ("index", "kind", "body", "hash")):
        if index != tree.size:
            raise BackupError(f"the log in {folder} lacks entry {tree.size}: entry {index} stands there")
        if not isinstance(body, bytes) or leaf_hash(body) != hashed:
            raise BackupError(f"entry {index} of the log in {folder} does not fit its hash: it was altered")
        tree.append_hash(hashed)
        if tree.size in wanted:
            roots[tree.size] = tree.root()
        if kind == "event":
            if event is None or event[0] != index or not _is_of(body, *event[1:]):
                raise BackupError(
                    f"entry {index} of the log in {folder} is an event, but the table of events says otherwise"
                )
            event = next(events, None)
    if event is not None:
        raise BackupError(f"the event {event[2]} of {event[1]} in {folder} has no entry in the log")
    for size, root in sorted(wanted.items()):
        if roots.get(size) != root:
            raise BackupError(
                f"the checkpoint over {size} entries in {folder} does not fit the log: it was rewritten"
            )
    stored = next(_rows(folder, "audit_head", ("frontier",)), (b"",))[0]
    if stored != tree.to_bytes():
        raise BackupError(f"the log in {folder} has {tree.size} entries, but its stored head is another")
    if manifest is not None and (manifest.log_size, manifest.log_root) != (tree.size, tree.root().hex()):
        raise BackupError(
            f"the manifest of {folder} says {manifest.log_size} entries with root {manifest.log_root[:16]}…, the log in it has "
            f"{tree.size} with root {tree.root().hex()[:16]}…"
        )
    if verifier is not None and newest[1]:
        try:
            verify_checkpoint(newest[1], verifier)
        except TrustError as error:
            raise BackupError(f"the checkpoint over {newest[0]} entries in {folder}: {error}") from None
    return tree


def _is_of(leaf: bytes, release: str, seq: int, body: str) -> bool:
    """Whether a leaf is that of an event; composed as `records.event_log` does, compared without parsing."""
    from orchestrator.domain.values import canonical

    end = b'"event":%s,"kind":"event","release":%s,"seq":%d}' % (body.encode(), canonical(release), seq)
    return leaf.endswith(end)


def _rows(folder: Path, name: str, columns: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    """Columns of a table in a backup, in the order of its key."""
    if (folder / SQLITE).exists():
        query = f'SELECT {_columns(columns)} FROM "{name}" ORDER BY 1'  # noqa: S608 - names of our own tables
        try:
            with closing(
                sqlite3.connect(f"file:{folder / SQLITE}?mode=ro&immutable=1", uri=True)
            ) as database:
                yield from database.execute(query)
        except sqlite3.Error as error:
            raise BackupError(f"{folder / SQLITE} can't be read: {error}") from None
        return
    path = folder / FOLDER / f"{name}.copy"
    with path.open(encoding="utf-8", newline="\n") as file:
        header = [part.strip('"') for part in file.readline().rstrip("\n").split(", ")]
        places = [header.index(column) for column in columns]
        for line in file:
            fields = line.rstrip("\n").split("\t")
            yield tuple(_value(column, fields[place]) for column, place in zip(columns, places, strict=True))


_NUMBERS = frozenset({"id", "index", "seq", "size"})
_BYTES = frozenset({"root", "frontier", "hash"})


def _value(column: str, field: str) -> Any:
    plain = _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), field)
    if column in _NUMBERS:
        return int(plain)
    if column in _BYTES or (column == "body" and plain.startswith("\\x")):
        return bytes.fromhex(plain[2:])
    return plain


# --- putting back ------------------------------------------------------------------------------------------------------


def refuse_unless_empty(engine: Engine) -> None:
    """See that nothing would be overwritten.

    Raises:
        BackupError: there are records already.
    """
    if engine.dialect.name == "sqlite":
        path = database_file(engine)
        for there in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
            if there.exists():
                raise BackupError(f"{there} exists: a restore never overwrites. Move it away, and keep it.")
        return
    with told(), engine.connect() as connection:
        tables = inspect(connection).get_table_names()
    if tables:
        raise BackupError(
            f"the database has tables already (`{tables[0]}`): a restore never overwrites. Make another, empty database."
        )


def put_back(folder: Path, manifest: Manifest, engine: Engine) -> None:
    """Write the records of a verified backup into an empty database.

    Raises:
        BackupError: another kind of database, another version of the schema, or not empty.
    """
    if engine.dialect.name != manifest.database:
        raise BackupError(
            f"the backup is of {manifest.database}, SLUICE_DATABASE_URL is of {engine.dialect.name}: restore into the same kind"
        )
    refuse_unless_empty(engine)
    if manifest.database == "sqlite":
        _put_back_file(folder / SQLITE, database_file(engine))
        return
    if manifest.schema_revision != migrate.newest():
        raise BackupError(
            f"the backup has the schema {manifest.schema_revision}, this version of the service {migrate.newest()}: restore with "
            "the version that made it, then upgrade"
        )
    migrate.migrate(engine)
    try:
        with writing(engine) as session:
            connection = session.connection()
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            for name in manifest.tables:  # what migrations write into a new database
                connection.execute(text(f'DELETE FROM "{name}"'))  # noqa: S608 - names of our own tables
            driver: Any = connection.connection.driver_connection
            for name in manifest.tables:
                with (folder / FOLDER / f"{name}.copy").open("rb") as file, driver.cursor() as cursor:
                    columns = file.readline().decode().strip()
                    with cursor.copy(f'COPY "{name}" ({columns}) FROM STDIN') as copy:
                        while data := file.read(1 << 20):
                            copy.write(data)
    except (
        psycopg.Error
    ) as error:  # the driver's own, since COPY goes past SQLAlchemy; its words may quote a row
        raise BackupError(f"PostgreSQL refuses the backup's rows: {type(error).__name__}") from None


def _put_back_file(source: Path, target: Path) -> None:
    unfinished = target.with_name(f".{target.name}.restoring")
    unfinished.unlink(missing_ok=True)
    copy_private(source, unfinished)
    try:
        os.link(unfinished, target)  # refuses an existing file, at the very same instant too
    except FileExistsError:
        raise BackupError(f"{target} exists: a restore never overwrites") from None
    finally:
        with suppress(OSError):
            unfinished.unlink()


def root_at(engine: Engine, size: int) -> bytes:
    """The log's root over its first `size` entries.

    Raises:
        Malformed: the log is shorter.
    """
    from orchestrator.trust import merkle

    with reading(engine) as session:
        if size > audit.head(session).size:
            raise Malformed(f"the log has fewer than {size} entries")
        return merkle.root_at(size, audit.node_reader(session))
