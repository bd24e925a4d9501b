"""A database from its URL: SQLite in a file, or PostgreSQL. One transaction per request or activity.

    reading(engine)   one consistent snapshot; nothing is written
    writing(engine)   one transaction that is committed when the block ends, rolled back when it raises

A writer on SQLite begins with BEGIN IMMEDIATE: it waits for its turn at the start and cannot fail in the middle because
it read before it wrote. WAL with synchronous=NORMAL loses nothing when a process is killed; when the machine loses power
the last commits may be missing, never half of one (the release says `records-behind` then). Readers never wait.

Values never stand in an error's message (`hide_parameters`): they may be what must not be in a log.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine, Executable, Table, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from orchestrator.domain.errors import Malformed, Unavailable
from orchestrator.records.errors import RecordsBroken

BUSY_TIMEOUT_MS = 15_000
WRITE_OPTION = "sluice_write"


def connect(url: str, *, password: str | None = None, pool_size: int = 10) -> Engine:
    """An engine for `sqlite:///file.db` or `postgresql://user@host/name`; nothing is opened yet.

    Args:
        url: where the records are.
        password: of the database user, when the URL holds none.
        pool_size: the most connections that one process keeps.

    Raises:
        Malformed: another kind of database, or no URL.
    """
    parsed = _parsed(url)
    if password is not None:
        parsed = parsed.set(password=password)
    if parsed.get_backend_name() == "sqlite":
        engine = sqlalchemy.create_engine(  # by its module: tracing wraps it there
            parsed,
            hide_parameters=True,
            pool_size=pool_size,
            max_overflow=pool_size,
            connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000},
        )
        event.listen(engine, "connect", _sqlite_pragmas)
        event.listen(engine, "begin", _sqlite_begin)
        return engine
    return sqlalchemy.create_engine(
        parsed,
        hide_parameters=True,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        pool_recycle=1800,
        connect_args={
            "connect_timeout": 10,
            "application_name": "sluice",
            "options": f"-c lock_timeout={BUSY_TIMEOUT_MS} -c statement_timeout=60000 -c timezone=UTC",
        },
    )


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError):
        raise Malformed("the database URL cannot be read; write sqlite:///… or postgresql://…") from None
    if backend in {"postgresql", "postgres"}:
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise Malformed(f"records do not go into {backend!r}; use sqlite:///… or postgresql://…")
    if parsed.database in {None, "", ":memory:"}:
        raise Malformed("records need a file: every connection to :memory: would see another database")
    return parsed


def _sqlite_pragmas(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself; `_sqlite_begin` does
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
        "cache_size=-4000",
        "temp_store=MEMORY",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _sqlite_begin(connection: Connection) -> None:
    write = connection.get_execution_options().get(WRITE_OPTION, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A session that sees one moment of the database, and writes nothing.

    Raises:
        Unavailable: the database does not answer.
    """
    options: dict[str, Any] = {}
    if engine.dialect.name == "postgresql":
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with told(), Session(engine, autoflush=False, expire_on_commit=False) as session:
        session.connection(execution_options=options)
        yield session


@contextmanager
def writing(engine: Engine) -> Iterator[Session]:
    """A session whose work is committed as a whole when the block ends, and not at all when it raises.

    Raises:
        Unavailable: the database does not answer, or others held what was needed for too long.
    """
    with told(), Session(engine, autoflush=False, expire_on_commit=False) as session:
        session.connection(execution_options={WRITE_OPTION: True})
        yield session
        session.commit()


def ping(engine: Engine) -> None:
    """Whether the database answers and holds our tables.

    Raises:
        Unavailable: it does not.
    """
    with reading(engine) as session:
        session.execute(text("SELECT size FROM audit_head WHERE id = 1")).one()


@contextmanager
def told() -> Iterator[None]:
    """The database's failures as an error of the rules, without statement or values.

    Raises:
        Unavailable: it does not answer, or not in time.
        RecordsBroken: it refused a statement; the server's own words may quote a row, so they are not repeated.
    """
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        raise Unavailable(f"the database does not answer: {_reason(error)}") from None
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Unavailable("the connection to the database was cut") from None
        raise RecordsBroken(
            f"the database refused a statement: {type(error.orig).__name__} at {_place(error)}"
        ) from None


def _reason(error: Exception) -> str:
    if isinstance(error, DBAPIError) and error.orig is not None:
        first = str(error.orig).strip().splitlines()
        return f"{type(error.orig).__name__}: {first[0][:200] if first else 'no reason given'}"
    return "no free connection"


def _place(error: Exception) -> str:
    """The innermost line outside of libraries."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "site-packages" not in frame.filename]
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "an unknown place"


@lru_cache(maxsize=256)
def _insert_new(dialect: str, table: Table) -> Executable:
    keys = list(table.primary_key)
    if dialect == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing().returning(*keys)
    return sqlite.insert(table).on_conflict_do_nothing().returning(*keys)


def insert_new(session: Session, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert one row unless a row with one of its keys is there; whether it was inserted.

    On PostgreSQL this waits for another transaction that is just inserting the same key.
    """
    connection = session.connection()
    done = connection.execute(_insert_new(connection.dialect.name, table), dict(row))
    return done.first() is not None


@lru_cache(maxsize=256)
def _upsert(dialect: str, table: Table) -> Executable:
    keys = [column.name for column in table.primary_key]
    others = [column.name for column in table.columns if column.name not in keys]
    if dialect == "postgresql":
        new = postgresql.insert(table)
        return new.on_conflict_do_update(index_elements=keys, set_={n: new.excluded[n] for n in others})
    lite = sqlite.insert(table)
    return lite.on_conflict_do_update(index_elements=keys, set_={n: lite.excluded[n] for n in others})


def upsert(session: Session, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows by their primary key, or put them in the place of those that are there."""
    if rows:
        connection = session.connection()
        connection.execute(_upsert(connection.dialect.name, table), [dict(row) for row in rows])
