"""Custody beside real records on SQLite."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from orchestrator.records.database import connect
from orchestrator.records.migrate import migrate
from tests.custody.world import World


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database without a row, to copy."""
    path = tmp_path_factory.mktemp("template") / "records.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def engine(template: Path, tmp_path: Path) -> Iterator[Engine]:
    shutil.copyfile(template, tmp_path / "records.db")
    engine = connect(f"sqlite:///{tmp_path}/records.db")
    yield engine
    engine.dispose()


@pytest.fixture
def world(engine: Engine, tmp_path: Path) -> Iterator[World]:
    world = World(engine, tmp_path)
    yield world
    world.close()
