"""Uploading through Xet or LFS: which way is taken, and what a Hub gets to see. The content store of Xet is not simulated."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.utils._runtime import is_xet_available

from artifacts.errors import StoreError, StoreUnavailable
from artifacts.stores.hub import HubStore
from artifacts.stores.retry import RetryPolicy
from tests.artifacts.sealed_world import noise
from tests.artifacts.stores.conftest import Place
from tests.simulators.hub import HubSimulator

pytestmark = pytest.mark.stack

PARTS = [noise(5 * 1024 * 1024), noise(1000, 2)]


def opened(place: Place, transfer: str) -> HubStore:
    store = place.open(transfer=transfer)
    assert isinstance(store, HubStore)
    store.calls.policy = RetryPolicy(attempts=2, first_s=0.01)
    return store


def upload(store: HubStore, key: str) -> Any:
    upload = store.begin(key, len(PARTS), len(PARTS[0]))
    stored = upload.parts()
    for index, data in enumerate(PARTS):
        if index not in stored:
            upload.put_part(index, data, hashlib.sha256(data).hexdigest())
    return upload, len(stored)


def asked(hub: HubSimulator, what: str) -> list[str]:
    return [seen.path for seen in hub.requests if what in seen.path]


def test_hf_xet_is_there_so_that_these_tests_mean_something() -> None:
    assert is_xet_available()


def test_auto_takes_lfs_where_the_hub_knows_no_xet_and_asks_once(hub: HubSimulator, hub_place: Place) -> None:
    with opened(hub_place, "auto") as store:
        for key in ("one.sealed", "two.sealed"):
            assert upload(store, key)[0].complete().size == sum(map(len, PARTS))
            assert store.get_range(key, 0, 100) == PARTS[0][:100]
    assert len(asked(hub, "xet-write-token")) == 1
    assert asked(hub, "info/lfs/objects/batch")


def test_lfs_never_asks_for_a_xet_token(hub: HubSimulator, hub_place: Place) -> None:
    with opened(hub_place, "lfs") as store:
        upload(store, "one.sealed")[0].complete()
    assert not asked(hub, "xet")


def test_a_xet_store_that_does_not_answer_keeps_every_part_and_lfs_goes_on(
    hub: HubSimulator, hub_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """hf_xet itself asks for its token here, and finds nobody at the content store that the token names."""
    monkeypatch.setattr(hub.routes, "xet_cas", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_MAX_ATTEMPTS", "1")
    with opened(hub_place, "auto") as store:
        pending, stored = upload(store, "one.sealed")
        assert stored == 0
        with pytest.raises(StoreUnavailable) as failed:
            pending.complete()
        assert "xet-simulated" not in str(failed.value)
        assert asked(hub, "xet-write-token")
        assert store.stat("one.sealed") is None
    with opened(hub_place, "lfs") as store:
        pending, stored = upload(store, "one.sealed")
        assert stored == len(PARTS)
        assert pending.complete().size == sum(map(len, PARTS))


def test_xet_that_is_asked_for_and_not_there_is_an_error(
    hub_place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("artifacts.stores.hub.is_xet_available", lambda: False)
    with pytest.raises(StoreError, match="hf_xet"):
        hub_place.open(transfer="xet")
