"""The records in a backup: SQLite and PostgreSQL alike, a moment of a database that goes on being written."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from infra.backup import making, records
from infra.backup.manifest import BackupError
from orchestrator.records import audit, event_log
from orchestrator.records.database import connect, reading
from orchestrator.records.tables import METADATA
from tests.records.story import Story


def no_store(uri):
    raise AssertionError(f"{uri} is no store of this test")


def rows(engine):
    with reading(engine) as session:
        return {
            name: sorted(map(repr, session.execute(select(table)).all()))
            for name, table in METADATA.tables.items()
        }


def test_every_row_comes_back_as_it_was(engine, databases, tmp_path):
    story = Story(engine, name="Model with \\ and ü")
    story.hold()
    story.report("i1")
    before = rows(engine)
    store = f"dir:{tmp_path / 'store'}"
    (tmp_path / "store").mkdir()
    made = making.create(engine, store, no_store, tmp_path / "none", tmp_path / "b")
    story.close("i1")
    verified = making.verify(tmp_path / "b", digest=made.digest)
    with pytest.raises(BackupError, match="never overwrites"):
        making.restore(verified, engine, store, no_store)
    other = connect(databases.empty())
    assert making.restore(verified, other, f"dir:{tmp_path / 'other'}", no_store).files == 0
    assert rows(other) == before
    with reading(other) as session:
        tree = audit.head(session)
        assert (tree.size, tree.root().hex()) == (made.manifest.log_size, made.manifest.log_root)
        assert records.root_at(other, tree.size) == tree.root()
        event_log.check_events(session, "alpha")
    Story(other, "beta", version="2")  # and it can be gone on with
    other.dispose()


def test_a_database_without_records_is_no_backup(databases, tmp_path):
    engine = connect(databases.empty())
    with pytest.raises(BackupError, match="no records"):
        making.create(engine, f"dir:{tmp_path}", no_store, tmp_path / "none", tmp_path / "b")
    engine.dispose()
