"""What the Hub may do to us: limits, outages, lost answers, stale bodies, other people's commits; and batches."""

from __future__ import annotations

import hashlib
import logging
import secrets
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from artifacts.errors import (
    AccessDenied,
    ObjectExists,
    ObjectMissing,
    StaleObject,
    StoreError,
    StoreUnavailable,
)
from artifacts.stores import open_store
from artifacts.stores.hub import HubStore
from artifacts.stores.retry import RetryPolicy
from tests.artifacts.stores.conftest import Place
from tests.simulators.hub import HubSimulator

pytestmark = pytest.mark.stack
PART = 1024 * 1024
BINARY = b"\x00\xff" * 500


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def repo_id(hub_place: Place) -> str:
    return hub_place.uri.removeprefix("hf:")


@pytest.fixture
def store(hub: HubSimulator, hub_place: Place) -> Iterator[HubStore]:
    opened = hub_place.open()
    assert isinstance(opened, HubStore)
    opened.calls.policy = RetryPolicy(attempts=4, first_s=0.01, longest_s=0.05)
    hub.calm()
    with opened:
        yield opened


@pytest.mark.parametrize("kind", [500, 503, 429, "cut"])
def test_an_outage_is_retried_and_said(
    hub: HubSimulator, store: HubStore, caplog: pytest.LogCaptureFixture, kind: int | str
) -> None:
    store.put("k", BINARY)
    hub.fail(kind, contains="/paths-info/", times=2, headers={"Retry-After": "0"} if kind == 429 else None)
    with caplog.at_level(logging.WARNING, "artifacts.stores.retry"):
        assert store.stat("k") is not None
    assert caplog.text.count("attempt") == 2


def test_an_outage_that_lasts_is_unavailable(hub: HubSimulator, store: HubStore) -> None:
    hub.fail(503, contains="/api/", times=1000)
    for attempt in (lambda: store.stat("k"), lambda: list(store.list()), lambda: store.begin("k", 1, PART)):
        with pytest.raises(StoreUnavailable, match="4 attempts"):
            attempt()


def test_a_rate_limit_is_waited_for(hub: HubSimulator, store: HubStore) -> None:
    store.calls.policy = RetryPolicy(attempts=6, first_s=0.3, longest_s=0.4)
    hub.rate_limit(3, 1.0)
    for _ in range(6):
        assert store.stat("k") is None


@pytest.mark.parametrize("where", ["/commit/", "/preupload/", "/lfs/"])
@pytest.mark.parametrize("kind", ["lost", "cut", 503])
def test_a_commit_survives_faults_on_its_way_without_doubling(
    hub: HubSimulator, store: HubStore, repo_id: str, where: str, kind: int | str
) -> None:
    before = len(hub.get(repo_id).commits)
    hub.fail(kind, contains=where)
    assert store.put("k", BINARY).sha256 == sha(BINARY)
    assert len(hub.get(repo_id).commits) == before + 1
    assert hub.files(repo_id)["k"] == BINARY


def test_somebody_elses_commit_in_between_is_no_conflict(
    hub: HubSimulator, store: HubStore, repo_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, times = store.calls.api.create_commit, [2]

    def late(*args: object, **more: object) -> object:
        if times[0]:
            times[0] -= 1
            hub.upload(repo_id, {f"other{times[0]}": b"\x00x"})
        return real(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(store.calls.api, "create_commit", late)
    store.put("k", BINARY)
    assert {"k", "other0", "other1"} <= hub.files(repo_id).keys()


def test_somebody_elses_object_under_our_key_in_between_is_not_overwritten(
    hub: HubSimulator, store: HubStore, repo_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = store.calls.api.create_commit

    def late(*args: object, **more: object) -> object:
        hub.upload(repo_id, {"k": b"\x00theirs"})
        return real(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(store.calls.api, "create_commit", late)
    with pytest.raises(ObjectExists):
        store.put("k", BINARY)
    assert hub.files(repo_id)["k"] == b"\x00theirs"


@pytest.mark.parametrize("data", [BINARY, b"only text " * 100], ids=["large-file", "regular-file"])
def test_reads_are_checked(hub: HubSimulator, store: HubStore, repo_id: str, data: bytes) -> None:
    store.put("k", data)
    assert store.get_range("k", 10, 50) == data[10:60]
    contains = "/storage/" if data is BINARY else "/resolve/"
    hub.fail("short", contains=contains, times=2)
    assert store.get_range("k", 0, len(data)) == data
    hub.fail("no-range", contains=contains)
    with pytest.raises(StoreError, match="range"):
        store.get_range("k", 10, 50)
    hub.upload(repo_id, {"k": data[::-1] + b"x"})
    store._reader._urls.clear()
    with pytest.raises(StaleObject):
        store.get_range("k", 10, 50)


def test_the_token_stays_with_the_hub(hub: HubSimulator, store: HubStore, hub_place: Place) -> None:
    store.put("k", BINARY)
    assert (
        store.get_range("k", 0, 10) == BINARY[:10]
    )  # the simulated storage host refuses requests with a token
    assert any(
        r.path.startswith("/storage/") and r.user is None and r.range == "bytes=0-9" for r in hub.requests
    )
    token = str(hub_place.options["token"])
    hub.fail(403, times=100)
    with pytest.raises(AccessDenied) as caught:
        store.stat("k")
    for text in (repr(store), repr(store.calls), str(caught.value)):
        assert token not in text


def test_an_expired_storage_address_is_asked_for_anew(hub: HubSimulator, store: HubStore) -> None:
    store.put("k", BINARY)
    assert store.get_range("k", 0, 10) == BINARY[:10]
    hub.fail(403, contains="/storage/")
    assert store.get_range("k", 0, 10) == BINARY[:10]


@pytest.mark.parametrize("wrong", ["hf:acme", "hf:acme/model/x", "hf:/x", "hf:acme/"])
def test_a_malformed_address_is_refused(wrong: str) -> None:
    with pytest.raises(StoreError, match="expected"):
        open_store(wrong)


def test_a_missing_repository_and_a_wrong_token_are_explained(hub: HubSimulator, hub_place: Place) -> None:
    for uri, token in (
        ("hf:acme/nothing", hub_place.options["token"]),
        (hub_place.uri, "hf_wrong"),
        (hub_place.uri, False),
    ):
        with (
            open_store(uri, **(hub_place.options | {"token": token})) as store,
            pytest.raises(AccessDenied, match=r"no such repository|check the token|may not see"),
        ):
            store.stat("k")


def test_a_read_token_is_told_what_could_not_be_tried(
    hub: HubSimulator, hub_place: Place, repo_id: str
) -> None:
    reader = hub.add_user("reader", orgs=["acme"], role="read")
    hub.upload(repo_id, {"k": BINARY})
    with Place("hub", hub_place.uri, hub_place.options | {"token": reader.token}).open() as store:
        assert store.get_range("k", 0, 4) == BINARY[:4]
        assert "may not write" in store.features().lacking["conditional_create"]
        with pytest.raises(AccessDenied):
            store.put("x", b"y")


def test_the_probe_leaves_no_trace(hub: HubSimulator, store: HubStore, repo_id: str) -> None:
    before = hub.get(repo_id).head.oid
    assert store.features().versioning
    assert hub.get(repo_id).head.oid == before
    assert hub.get(repo_id).branches.keys() == {"main"}


def test_a_revision_can_be_read(hub: HubSimulator, store: HubStore, hub_place: Place, repo_id: str) -> None:
    store.put("k", b"old text")
    hub.get(repo_id).tags["step/one"] = hub.get(repo_id).head.oid
    store.delete("k")
    assert store.stat("k") is None
    with Place("hub", hub_place.uri + "@step/one", hub_place.options).open() as pinned:
        assert pinned.get_range("k", 0, 8) == b"old text"
        assert pinned.uri.endswith("@step/one")


# -- batches ---------------------------------------------------------------------------------------------------------


def seal(store: HubStore, key: str, *parts: bytes) -> None:
    upload = store.begin(key, len(parts), len(parts[0]))
    for index, part in enumerate(parts):
        upload.put_part(index, part, sha(part))
    upload.complete()


def test_a_batch_is_one_commit_and_sees_its_own_objects(
    hub: HubSimulator, store: HubStore, repo_id: str
) -> None:
    commits = len(hub.get(repo_id).commits)
    big = secrets.token_bytes(PART)
    with store.batch("Seal sparrow"):
        for number in range(20):
            store.put(f"small/{number:02}", b"\x00" + bytes([number]))
        seal(store, "weights", big, b"end")
        with store.batch():
            store.put("manifest.json", b"{}")
        assert store.stat("weights").size == PART + 3  # type: ignore[union-attr]
        assert store.get_range("weights", PART - 2, 5) == big[-2:] + b"end"
        store.put("small/03", b"\x00\x03")
        with pytest.raises(ObjectExists):
            store.put("small/03", b"other")
        with pytest.raises(ObjectExists):
            store.begin("weights", 1, PART)
        assert hub.files(repo_id).keys() == {".gitattributes"}
    assert len(hub.get(repo_id).commits) == commits + 1
    assert hub.get(repo_id).head.title == "Seal sparrow"
    assert hub.files(repo_id)["weights"] == big + b"end"
    assert len(list(store.list("small/"))) == 20
    assert store.get_range("small/07", 0, 2) == b"\x00\x07"


def test_what_a_killed_batch_left_goes_with_the_next(
    hub: HubSimulator, hub_place: Place, repo_id: str
) -> None:
    script = textwrap.dedent(
        f"""
        import os
        from artifacts.stores import open_store
        store = open_store({hub_place.uri!r}, endpoint={hub_place.options["endpoint"]!r}, transfer="lfs",
                           token={hub_place.options["token"]!r}, spool={str(hub_place.options["spool"])!r})
        with store.batch():
            store.put("one", b"\\x00one")
            store.put("two", b"\\x00two")
            os.kill(os.getpid(), 9)
        """
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == -9
    assert "one" not in hub.files(repo_id)
    with hub_place.open() as store, store.batch():
        assert store.stat("one").size == 4  # type: ignore[union-attr]
        store.put("three", b"\x00three")
    assert {"one", "two", "three"} <= hub.files(repo_id).keys()
    spool = Path(str(hub_place.options["spool"]))
    assert not list((spool / ".sluice/staged").iterdir())


def test_a_batch_that_fails_keeps_what_waits(hub: HubSimulator, store: HubStore, repo_id: str) -> None:
    with pytest.raises(StoreError, match="store key"), store.batch():  # noqa: PT012 - the batch is what raises
        store.put("one", b"\x00one")
        store.put("../two", b"")
    assert store.stat("one") is None  # outside of a batch only what is on the Hub counts
    hub.fail(503, contains="/commit/", times=1000)
    with pytest.raises(StoreUnavailable), store.batch():
        store.put("two", b"\x00two")
    hub.calm()
    with store.batch():
        pass
    assert {"one", "two"} <= hub.files(repo_id).keys()


def test_what_a_failed_batch_left_can_be_dropped(hub: HubSimulator, store: HubStore, repo_id: str) -> None:
    with pytest.raises(StoreError), store.batch():  # noqa: PT012 - the batch is what raises
        store.put("one", b"\x00one")
        store.put("../two", b"")
    assert store.abort_stale(timedelta(hours=1)) == ()
    assert store.abort_stale(timedelta(seconds=-5)) == ("one",)
    with store.batch():
        pass
    assert hub.files(repo_id).keys() == {".gitattributes"}


def test_a_spool_holds_ciphertext_parts_only_until_the_commit(store: HubStore, hub_place: Place) -> None:
    part = secrets.token_bytes(PART)
    upload = store.begin("w", 2, PART)
    upload.put_part(0, part, sha(part))
    spool = Path(str(hub_place.options["spool"]))
    assert any(part[:64] in p.read_bytes() for p in spool.rglob("body"))
    upload.put_part(1, b"end", sha(b"end"))
    upload.complete()
    assert not [p for p in spool.rglob("*") if p.is_file()]


def test_threads_commit_one_after_the_other(hub: HubSimulator, store: HubStore, repo_id: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: store.put(f"k{n}", b"\x00" + bytes([n])), range(8)))
    assert {f"k{n}" for n in range(8)} <= hub.files(repo_id).keys()
    with pytest.raises(ObjectMissing):
        store.get_range("k9", 0, 1)
    assert store.abort_stale(timedelta(0)) == ()


def test_a_silent_hub_is_given_up(hub: HubSimulator, hub_place: Place) -> None:
    with Place("hub", hub_place.uri, hub_place.options | {"read_timeout_s": 0.2}).open() as store:
        assert isinstance(store, HubStore)
        store.calls.policy = RetryPolicy(attempts=1)
        store.put("k", BINARY)
        hub.fail("slow", contains="/resolve/")
        with pytest.raises(StoreUnavailable, match=r"ReadTimeout"):
            store.get_range("k", 0, 1)
