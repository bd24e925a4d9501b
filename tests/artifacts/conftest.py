from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.artifacts.sealed_world import World, write_tree


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    write_tree(made.source)
    yield made
    made.store.close()
