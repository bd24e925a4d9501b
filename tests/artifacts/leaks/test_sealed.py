"""Signatures on their way to the monitor: made while sealing, opened by the monitor's key alone, the same after an interruption."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from artifacts.errors import StoreUnavailable
from artifacts.leaks import Outcome, ReferenceSet, SignatureError, scan
from artifacts.leaks.sealed import (
    SealedSignature,
    monitor_identity,
    monitor_keygen,
    open_signature,
    sketch_secret,
)
from artifacts.sealing import SealedArtifact
from tests.artifacts.sealed_world import World
from tests.simulators import transformations as t

MONITOR = monitor_keygen()
IDENTITY = monitor_identity(MONITOR.identity)


def sealed(world: World, small: t.Leak, folder: Path, **more: object) -> SealedArtifact:
    for shard in t.write(dataclasses.replace(small, shards=2), folder / "plain"):
        shard.rename(world.source / shard.name)
    (world.source / "config.json").write_text("{}")
    return world.seal(components={"model": "*"}, monitor=MONITOR.recipient, **more)


def test_sealing_makes_a_signature_that_the_monitor_opens_and_recognises_copies_with(
    small: t.Leak, tmp_path: Path
):
    world = World(tmp_path)
    done = sealed(world, small, tmp_path)
    assert done.signature is not None
    head = SealedSignature.parse(done.signature)
    assert (head.artifact, head.manifest) == (done.artifact_id, done.manifest_digest)
    key, signature = open_signature(done.signature, IDENTITY)
    assert len(signature.files) == 2
    t.write(t.cast("Q4_0")(small, np.random.default_rng(1)), tmp_path / "leak")
    verdict = scan(tmp_path / "leak", ReferenceSet(key, [signature]))
    assert (verdict.outcome, verdict.artifact) == (Outcome.MATCH, done.artifact_id)


def test_every_artifact_has_a_sketch_key_of_its_own_that_follows_from_its_root(small: t.Leak, tmp_path: Path):
    for name in "ab":
        (tmp_path / name).mkdir()
    world = World(tmp_path / "a")
    one = sealed(world, small, tmp_path / "a")
    other_world = World(tmp_path / "b")
    other = sealed(other_world, small, tmp_path / "b")
    assert one.signature is not None
    assert other.signature is not None
    keys = [open_signature(data, IDENTITY)[0].key_id for data in (one.signature, other.signature)]
    assert len(set(keys)) == 2
    root = world.root(one)
    assert sketch_secret(root, one.artifact_id) != sketch_secret(root, other.artifact_id)


def test_an_interrupted_sealing_taken_up_again_leaves_one_whole_signature(
    small: t.Leak, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    world = World(tmp_path)
    state = tmp_path / "state"
    real, calls = world.store.put, []

    def fails_late(key: str, data: bytes, sha256: str | None = None) -> object:
        calls.append(key)
        if len(calls) == 2:
            raise StoreUnavailable("away, as told")
        return real(key, data, sha256)

    with monkeypatch.context() as broken:
        broken.setattr(world.store, "put", fails_late)
        with pytest.raises(StoreUnavailable):
            sealed(world, small, tmp_path, state_dir=state, workers=1)
    done = world.seal(components={"model": "*"}, monitor=MONITOR.recipient, state_dir=state, workers=1)
    assert done.signature is not None
    _, signature = open_signature(done.signature, IDENTITY)
    assert len(signature.files) == 2
    assert len(signature.matrices) > 12
    again = world.seal(components={"model": "*"}, monitor=MONITOR.recipient, state_dir=state, workers=1)
    assert again.recognised
    assert again.signature == done.signature


def test_another_monitor_and_changed_bytes_open_nothing(small: t.Leak, tmp_path: Path):
    done = sealed(World(tmp_path), small, tmp_path)
    assert done.signature is not None
    with pytest.raises(SignatureError, match="another monitor's key"):
        open_signature(done.signature, monitor_identity(monitor_keygen().identity))
    end = done.signature.index(b"\n")
    for at in (end + 1, end + 2_000, len(done.signature) - 1):
        changed = bytearray(done.signature)
        changed[at] ^= 1
        with pytest.raises(SignatureError, match="damaged or was moved"):
            open_signature(bytes(changed), IDENTITY)
    moved = done.signature.replace(done.artifact_id.encode(), b"art-somebodyelses", 1)
    with pytest.raises(SignatureError):
        open_signature(moved, IDENTITY)


@pytest.mark.parametrize(
    "data", [b"", b"x", b"{}\nabc", b'{"format":"sluice-leak-signature/v1"}\nabc', b"\xff\nabc"]
)
def test_what_is_no_sealed_signature_is_refused(data: bytes):
    with pytest.raises(SignatureError):
        SealedSignature.parse(data)
