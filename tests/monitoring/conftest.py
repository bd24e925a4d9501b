from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine

from orchestrator.records import database
from orchestrator.records.migrate import migrate
from tests.simulators import transformations as t
from tests.simulators.ranged_server import RangedServer, running

from .bench import LeakBench


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path / 'records.db'}"
    migrate(url)
    made = database.connect(url)
    yield made
    made.dispose()


@pytest.fixture
def bench(tmp_path: Path, engine: Engine) -> LeakBench:
    return LeakBench(engine, tmp_path)


@pytest.fixture(scope="session")
def model() -> t.Leak:
    return t.Leak(t.synthetic(np.random.default_rng(1)))


@pytest.fixture(scope="session")
def stranger() -> t.Leak:
    return t.Leak(t.synthetic(np.random.default_rng(99)))


@pytest.fixture
def server() -> Iterator[RangedServer]:
    with running() as made:
        yield made
