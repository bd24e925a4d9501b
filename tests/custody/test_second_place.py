"""Checkpoints in a second place: a rewritten log is noticed there, even when everything at home was rewritten too."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from moto import mock_aws

from activities.custody.activity import Watching
from activities.custody.second_place import (
    Bucket,
    Folder,
    SecondPlaces,
    Witness,
    note_name,
    open_place,
)
from orchestrator.domain.errors import Malformed
from orchestrator.records import audit
from orchestrator.records.database import reading
from orchestrator.trust.audit import verify_export
from orchestrator.trust.checkpoints import Checkpoint, sign_checkpoint
from orchestrator.trust.errors import LogInvalid, LogRewritten
from orchestrator.trust.merkle import CompactTree
from tests.custody.intruder import Intruder
from tests.custody.world import World
from tests.support.plans import T0


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="elsewhere", ObjectLockEnabledForBucket=True)
        yield client


def test_a_log_that_was_rewritten_with_everything_at_home_is_noticed(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The intruder has custody's log key as well, and signs a checkpoint over a log without the rejection."""
    watching = Watching(world.custody, 1.0, [Folder(tmp_path / "elsewhere")])
    world.to("inside")
    world.prepare("demo")
    world.sign("lea", "demo", "legal", "reject")
    watching.look()
    [kept] = sorted((tmp_path / "elsewhere").iterdir())
    intruder = Intruder(world, monkeypatch)
    intruder.without("signed_off")
    intruder.sql("DELETE FROM audit_checkpoint")
    with reading(world.engine) as session:
        tree = audit.head(session)
        bodies = [leaf.body for leaf in audit.leaves(session)]
    forged = sign_checkpoint(Checkpoint(world.keys.log.name, tree.size, tree.root()), world.keys.log)
    from orchestrator.trust.audit import export_lines

    lines = list(export_lines(world.keys.log.name, bodies, [forged]))
    verify_export(lines, world.keys.public.log_verifier)
    with pytest.raises(LogInvalid):
        verify_export(lines, world.keys.public.log_verifier, previous_checkpoint=kept.read_text())


def test_the_watch_takes_roots_in_and_copies_each_checkpoint_once(world: World, tmp_path: Path) -> None:
    watching = Watching(world.custody, 1.0, [Folder(tmp_path / "elsewhere")])
    world.create()
    watching.look()
    world.register()
    watching.look()
    watching.look()
    assert [path.name for path in sorted((tmp_path / "elsewhere").iterdir())] == [note_name(1), note_name(2)]
    assert [held.release for held in world.memory.holdings()] == ["alpha"]
    watching.start()
    watching.stop()
    assert not watching.is_alive()


def note_of(world: World, *leaves: bytes) -> str:
    tree = CompactTree()
    for leaf in leaves:
        tree.append(leaf)
    return sign_checkpoint(Checkpoint("log.example", tree.size, tree.root()), world.keys.log)


def test_every_kind_of_place_keeps_what_came_first(world: World, bucket: Any, tmp_path: Path) -> None:
    there: dict[str, bytes] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        size, body = request.headers["Checkpoint-Size"], request.read()
        return httpx.Response(204 if there.setdefault(size, body) == body else 409)

    places = [
        Folder(tmp_path / "elsewhere"),
        Bucket(bucket, "elsewhere", "log/", timedelta(days=30), lambda: T0.replace(year=2999)),
        Witness("https://witness.example/notes?token=secret", httpx.MockTransport(answer)),
    ]
    honest, other = note_of(world, b"a"), note_of(world, b"b")
    for place in places:
        place.put(1, honest)
        place.put(1, honest)
        with pytest.raises(LogRewritten, match="another checkpoint over 1 entries"):
            place.put(1, other)
        assert "secret" not in place.name
    found = bucket.head_object(Bucket="elsewhere", Key="log/" + note_name(1))
    assert found["ObjectLockMode"] == "COMPLIANCE"


def test_a_place_that_is_away_gets_everything_when_it_is_back(world: World) -> None:
    got: list[str] = []
    up = False

    def answer(request: httpx.Request) -> httpx.Response:
        if not up:
            return httpx.Response(503)
        got.append(request.headers["Checkpoint-Size"])
        return httpx.Response(204)

    places = SecondPlaces([Witness("https://witness.example/", httpx.MockTransport(answer))])
    assert places.push(note_of(world, b"a")) == 1
    assert places.push(note_of(world, b"a", b"b")) == 2
    up = True
    assert places.push() == 0
    assert got == ["1", "2"]


def test_a_conflict_is_kept_and_does_not_stop_the_next(world: World, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "elsewhere")
    folder.put(1, note_of(world, b"b"))
    places = SecondPlaces([folder])
    assert places.push(note_of(world, b"a")) == 0
    assert len(places.conflicts) == 1
    assert places.push(note_of(world, b"a", b"c")) == 0
    assert (tmp_path / "elsewhere" / note_name(2)).exists()


@pytest.mark.parametrize(
    "text",
    ["", "elsewhere", "file:relative", "http://witness.example/", "s3://b/p?lock_days=x", "s3://b/p?x=1"],
)
def test_what_is_no_place_is_refused(text: str, bucket: Any) -> None:
    with pytest.raises(Malformed):
        open_place(text, lambda: T0)


def test_places_are_opened_from_their_settings(bucket: Any, tmp_path: Path) -> None:
    names = [
        open_place(text, lambda: T0).name
        for text in (f"file:{tmp_path}", "s3://elsewhere/log?lock_days=30", "https://witness.example/notes")
    ]
    assert names == [f"file:{tmp_path}", "s3://elsewhere/log/", "https://witness.example/notes"]
