"""Sealing straight to the Hub: one commit for an artifact, also after a cut, and fetched by a partner's account."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.errors import StoreUnavailable
from artifacts.stores.hub import HubStore
from artifacts.stores.retry import RetryPolicy
from tests.artifacts.sealed_world import World, write_tree
from tests.artifacts.stores.conftest import Place
from tests.simulators.hub import HubSimulator

pytestmark = pytest.mark.stack


def plaintexts(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_artifact_is_one_commit_and_opens_again(
    hub: HubSimulator, hub_place: Place, tmp_path: Path
) -> None:
    repo_id = hub_place.uri.removeprefix("hf:")
    world = World(tmp_path)
    write_tree(world.source)
    before = len(hub.get(repo_id).commits)
    with hub_place.open() as store:
        assert isinstance(store, HubStore)
        store.calls.policy = RetryPolicy(attempts=2, first_s=0.01)
        hub.fail(503, contains="/commit/", times=1000)
        with pytest.raises(StoreUnavailable):
            world.seal(store=store)
    assert len(hub.get(repo_id).commits) == before
    hub.calm()
    with hub_place.open() as store:  # another process, later: what was sealed is not sealed again
        sealed = world.seal(store=store)
        assert len(hub.get(repo_id).commits) == before + 1
        for info in store.list():
            data = store.get_range(info.key, 0, info.size)
            assert not any(len(plain) > 16 and plain in data for plain in plaintexts(world.source).values())
        target = tmp_path / "opened"
        world.fetch(sealed, target, source=store)
    assert plaintexts(target) == plaintexts(world.source)
