"""The schema: migrations make what the models say, and a database that cannot be used is told apart."""

from __future__ import annotations

import importlib.resources

import pytest
from sqlalchemy import insert, inspect, text

from orchestrator.domain.errors import Malformed, Unavailable
from orchestrator.records.database import connect, ping, reading, writing
from orchestrator.records.errors import RecordsBroken
from orchestrator.records.migrate import drift, migrate, newest, schema
from orchestrator.records.tables import METADATA, UtcTime
from tests.records.story import Story
from tests.support.plans import T0


@pytest.fixture
def empty(databases):
    engine = connect(databases.empty())
    yield engine
    engine.dispose()


def test_migrations_make_exactly_what_the_models_say(empty):
    assert schema(empty) is None
    assert drift(empty) != []
    assert migrate(empty) == newest()
    assert drift(empty) == []
    assert set(inspect(empty).get_table_names()) == {*METADATA.tables, "alembic_version"}
    ping(empty)


def test_a_column_that_only_the_database_or_only_the_model_has_is_drift(empty):
    migrate(empty)
    with writing(empty) as session:
        session.execute(text("ALTER TABLE token ADD COLUMN plaintext VARCHAR"))
    assert [found[0] for found in drift(empty)] == ["remove_column"]


def test_migrating_again_changes_nothing_and_keeps_the_rows(empty):
    migrate(empty)
    story = Story(empty)
    assert migrate(empty) == newest()
    story.hold()


def test_a_database_of_a_newer_version_is_refused(empty):
    migrate(empty)
    with writing(empty) as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Unavailable, match="newer version"):
        migrate(empty)


def test_a_database_without_tables_is_not_ready(empty):
    with pytest.raises((Unavailable, RecordsBroken)):
        ping(empty)


def test_migrations_are_packaged():
    files = importlib.resources.files("orchestrator.records.migrations")
    assert files.joinpath("env.py").is_file()
    assert [f.name for f in files.joinpath("versions").iterdir() if f.name.startswith("v0001")]


@pytest.mark.parametrize(
    "url", ["mysql://localhost/x", "sqlite://", "sqlite:///:memory:", "no url", "", "postgresql:/"]
)
def test_a_url_that_is_no_place_for_records_is_refused_in_words(url):
    with pytest.raises(Malformed):
        connect(url)


def test_a_server_that_is_not_there_is_unavailable_and_its_password_stays_unsaid(tmp_path):
    engine = connect(f"postgresql://sluice@/records?host={tmp_path}", password="hunter2-secret")
    with pytest.raises(Unavailable) as found:
        ping(engine)
    assert "hunter2" not in str(found.value) + repr(engine)
    lost = connect(f"sqlite:///{tmp_path}/no/such/folder/records.db")
    with pytest.raises(Unavailable, match="unable to open"), reading(lost):
        pass


def test_a_row_that_the_database_refuses_is_not_quoted(engine):
    row = {"principal": "canary-value", "key": "k", "digest": "d", "reference": None, "at": T0}
    with pytest.raises(RecordsBroken, match=r"refused a statement: \w+ at test_migrations.py") as found:
        insert_null(engine, row)
    assert "canary" not in str(found.value)
    assert found.value.__suppress_context__


def insert_null(engine, row):
    with writing(engine) as session:
        session.execute(insert(METADATA.tables["idempotency"]), row)


def test_a_time_without_a_zone_does_not_go_into_the_records(engine):
    from datetime import datetime

    with pytest.raises(ValueError, match="time zone"):
        UtcTime().process_bind_param(datetime(2026, 1, 1), engine.dialect)  # noqa: DTZ001 - that is the point


def test_sqlite_runs_with_the_pragmas_that_it_needs(tmp_path):
    engine = connect(f"sqlite:///{tmp_path}/records.db")
    with engine.connect() as connection:
        found = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert found == ["wal", 1, 1]
    engine.dispose()
