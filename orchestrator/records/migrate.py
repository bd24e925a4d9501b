"""Bring a database to the schema of this version, and tell whether it is there.

    migrate(engine)   make or upgrade the tables; several processes may start at once, one does it
    schema(engine)    which revision the database has
    drift(engine)     in what the database differs from the models (for tests and `sluice doctor`)

There is no way back: before an upgrade, a backup is what one returns to.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, text

from orchestrator.domain.errors import Unavailable
from orchestrator.records import hub_tables, invitations, monitor_tables, notice_tables
from orchestrator.records.database import WRITE_OPTION, connect, told
from orchestrator.records.tables import METADATA

_LOCK = 0x51_0C_E5  # the key of PostgreSQL's advisory lock under which one process migrates
_FOLDER = Path(__file__).parent / "migrations"
_MORE_TABLES = (
    hub_tables,
    monitor_tables,
    invitations,
    notice_tables,
)  # imported so that their tables are among the models


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    return config


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """One transaction, in which no other process migrates."""
    with (
        told(),
        engine.connect().execution_options(**{WRITE_OPTION: True}) as connection,
        connection.begin(),
    ):
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        yield connection


def migrate(database: Engine | str) -> str:
    """Upgrade to the newest revision, in one transaction; the revision that the database then has.

    Raises:
        Unavailable: the database does not answer, or was made by a newer version of the service.
    """
    engine = connect(database) if isinstance(database, str) else database
    config = _config()
    try:
        with _alone(engine) as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            done = MigrationContext.configure(connection).get_current_revision()
    except CommandError as error:
        raise Unavailable(
            f"the database cannot be upgraded: {error}; it may have been made by a newer version of the service"
        ) from None
    finally:
        if isinstance(database, str):
            engine.dispose()
    return str(done)


def newest() -> str:
    """The revision of this version of the service."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def schema(engine: Engine) -> str | None:
    """The revision that a database has; None before the first `migrate`."""
    with told(), engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def drift(engine: Engine) -> list[Any]:
    """In what the database differs from the models; empty when in nothing."""
    with told(), engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, METADATA))
