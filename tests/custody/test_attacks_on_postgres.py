"""The attacks on the database once more, on a real PostgreSQL server: what is found does not depend on SQLite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import make_url

from orchestrator.records.database import connect
from orchestrator.records.migrate import migrate
from tests.custody import test_attacks as attacks
from tests.custody.intruder import Intruder
from tests.custody.world import World
from tests.support.postgres import postgres_server, run

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server with a migrated database, `template_records`, that others are copied from."""
    with postgres_server() as url:
        run(url, "CREATE DATABASE template_records")
        migrate(make_url(url).set(database="template_records").render_as_string(hide_password=False))
        yield url


@pytest.fixture
def engine(server: str) -> Iterator[Engine]:
    name = f"records_{uuid4().hex}"
    run(server, f'CREATE DATABASE "{name}" TEMPLATE template_records')
    engine = connect(make_url(server).set(database=name).render_as_string(hide_password=False))
    yield engine
    engine.dispose()


#: Attacks on the database that docs/trust-model.md names: the state of a gate, sign-offs inserted and
#: replayed, one key for two people, plan, manifest and quorum, rejection, incident, the log, last week.
ON_THE_DATABASE: dict[str, Callable[..., None]] = {
    attack.__name__.removeprefix("test_"): attack
    for attack in (
        attacks.test_gate_state_set_to_open_in_the_read_model,
        attacks.test_sign_off_row_inserted_for_somebody_outside_the_plan,
        attacks.test_sign_off_replayed_from_another_step,
        attacks.test_sign_off_replayed_from_another_plan_version,
        attacks.test_sign_off_replayed_from_another_release,
        attacks.test_plan_swapped_in_the_read_model,
        attacks.test_plan_swapped_in_the_log,
        attacks.test_quorum_lowered_by_an_amendment_that_one_person_signed,
        attacks.test_rejection_dropped_from_the_log,
        attacks.test_incident_dropped_from_the_log,
        attacks.test_log_entry_altered_without_its_hash,
        attacks.test_last_weeks_database_restored,
    )
}
MORE: dict[str, tuple[Callable[..., None], dict[str, Any]]] = {
    "sign_off_inserted": (attacks.test_sign_off_inserted, {"made": attacks.forged_from_somebody_elses}),
    "one_key_registered_under_two_people": (
        attacks.test_one_key_registered_under_two_people,
        {"comment": ""},
    ),
    "log_entry_taken_out": (attacks.test_log_entries_deleted_or_altered, {"change": attacks.taken_out}),
    "everything_deleted": (
        attacks.test_log_entries_deleted_or_altered,
        {"change": attacks.from_the_beginning},
    ),
}


@pytest.mark.parametrize("name", [*ON_THE_DATABASE, *MORE])
def test_on_postgresql(name: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    attack, more = MORE.get(name) or (ON_THE_DATABASE[name], {})
    assert world.engine.dialect.name == "postgresql"
    attack(world, Intruder(world, monkeypatch), **more)


def test_manifest_swapped_on_postgresql(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    attacks.test_manifest_swapped_in_the_database(world, Intruder(world, monkeypatch), tmp_path)
