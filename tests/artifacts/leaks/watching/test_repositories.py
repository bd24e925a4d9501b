"""Named repositories: refs, pull requests, history, digests from listings."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from artifacts.leaks import ListedFile
from artifacts.leaks.watching import Options, SourceError, Trouble, open_source
from tests.artifacts.leaks.watching.conftest import drain
from tests.simulators.hub import HubSimulator

Make = Callable[..., Options]
SPEC = {"kind": "repositories", "name": "ours", "repositories": ["hf:acme/model"]}


def test_every_ref_and_what_was_pushed_and_deleted(hub: HubSimulator, options: Make) -> None:
    repo = hub.repo("acme/model")
    first = repo.head.oid
    leaked = hub.upload("acme/model", {"model.safetensors": b"w" * 1000})
    hub.upload("acme/model", {"model.safetensors": b"-"})
    head = hub.upload("acme/model", {"README.md": b"gone"})
    pull = hub.upload("acme/model", {"pr.bin": b"x" * 10}, pull_request=True)
    found, last = drain(open_source(SPEC, options()))
    keys = {c.key for c in found}
    assert {f"hf:acme/model@{oid}" for oid in (first, leaked, head, pull)} <= keys
    assert len(keys) == len(found) == 5
    by_key = {c.key: c for c in found}
    tip = by_key[f"hf:acme/model@{pull}"]
    listed = {d.path: d for d in tip.digests}
    entry = repo.commits[pull].files["pr.bin"]
    assert (listed["pr.bin"].sha256, listed["pr.bin"].xet_hash, listed["pr.bin"].size) == (
        entry.sha256,
        entry.xet,
        10,
    )
    assert ListedFile("pr.bin", 10, sha256=listed["pr.bin"].sha256)
    requests = len(hub.requests)
    assert drain(open_source(SPEC, options()), last.cursor)[0] == []
    assert len(hub.requests) == requests + 1  # one call says that nothing moved
    after = hub.upload("acme/model", {"new.bin": b"y"})
    found, _ = drain(open_source(SPEC, options()), last.cursor)
    assert f"hf:acme/model@{after}" in {c.key for c in found}


def test_many_refs_in_small_steps_lose_none(hub: HubSimulator, options: Make) -> None:
    hub.repo("acme/model")
    pulls = {
        f"hf:acme/model@{hub.upload('acme/model', {f'{i}.bin': b'x'}, pull_request=True)}" for i in range(25)
    }
    found, _ = drain(open_source(SPEC, options(max_requests=8)), limit=3)
    assert pulls <= {c.key for c in found}


def test_one_that_is_not_there_does_not_hide_the_others_and_is_said(hub: HubSimulator, options: Make) -> None:
    hub.repo("acme/model")
    spec = SPEC | {"repositories": ["hf:acme/missing", "hf:acme/model", "hf:datasets/acme/data"]}
    hub.repo("acme/data", kind="dataset")
    polled = open_source(spec, options()).poll(None, 50)
    assert {c.target.partition("@")[0] for c in polled.candidates} == {
        "hf:acme/model",
        "hf:datasets/acme/data",
    }
    assert "acme/missing" in polled.failed
    with pytest.raises(SourceError) as caught:
        open_source(SPEC | {"repositories": ["hf:acme/missing"]}, options()).poll(None, 50)
    assert caught.value.trouble in {Trouble.GONE, Trouble.DENIED}


def test_a_repository_of_100_000_files_is_bounded_and_said(hub: HubSimulator, options: Make) -> None:
    hub.repo("acme/model")
    oid = hub.many_files("acme/model", 100_000)
    polled = open_source(SPEC | {"history": False}, options(max_entries=5_000)).poll(None, 50)
    (tip,) = polled.candidates
    assert tip.key == f"hf:acme/model@{oid}"
    assert len(tip.digests) == 200
    assert tip.detail["files"] == 5_000
    assert tip.detail["files_complete"] is False
    assert "the first 5000 files" in polled.notes[0]
    assert len(hub.requests) <= 7
