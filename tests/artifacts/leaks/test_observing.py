"""Signatures made by the sealing pipeline: in parts, sealed once more, put together again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from artifacts.leaks import (
    Outcome,
    ReferenceSet,
    SignatureError,
    SignatureObserver,
    SketchKey,
    scan,
    signature_of,
)
from artifacts.leaks.observing import seal, unseal
from artifacts.manifest import open_inner
from tests.artifacts.sealed_world import World
from tests.simulators import transformations as t

from .conftest import KEY, sign

PART = 100_000


def observed(paths: list[Path], key: SketchKey = KEY) -> list[dict[str, object]]:
    """What sealing leaves: each file on its own, parts in order, through JSON."""
    left = []
    for path in paths:
        seen = SignatureObserver(key).begin(path.name, "weights", path.stat().st_size)
        if seen is None:
            continue
        data = path.read_bytes()
        for at in range(0, len(data), PART):
            buffer = bytearray(data[at : at + PART])
            seen.update(at, memoryview(buffer))
            buffer[:] = bytes(len(buffer))  # the view is valid during the call only
        left.append(json.loads(json.dumps(seen.finish())))
    return left


def test_the_parts_of_a_sharded_model_make_its_signature(small: t.Leak, tmp_path: Path):
    shards = t.write(dataclasses.replace(small, shards=3), tmp_path / "ours")
    signature = signature_of("ours", reversed(observed(shards)), KEY)
    whole = sign(shards, "ours")
    assert {(m.name, m.samples.tobytes()) for m in signature.matrices} == {
        (m.name, m.samples.tobytes()) for m in whole.matrices
    }
    assert signature.files == whole.files
    assert signature.weights == whole.weights
    assert signature.embedding is not None
    assert len({p.name for p in signature.projected}) >= 12


@pytest.mark.parametrize("name", ["Q4_0", "neuron permutation with signs", "rename + layer shuffle + Q4_0"])
def test_what_sealing_leaves_recognises_copies(name: str, small: t.Leak, tmp_path: Path):
    shards = t.write(dataclasses.replace(small, shards=3), tmp_path / "ours")
    references = ReferenceSet(KEY, [signature_of("ours", observed(shards), KEY)])
    t.write(t.TRANSFORMATIONS[name](small, np.random.default_rng(1)), tmp_path / "leak")
    verdict = scan(tmp_path / "leak", references)
    assert verdict.outcome is Outcome.MATCH, verdict.document()
    assert scan(shards[1], references).best.tier == 0  # type: ignore[union-attr]


def test_a_partner_who_opens_the_manifest_cannot_read_which_weights_are_sampled(small_path: Path):
    (part,) = observed([small_path])
    clear = sign(small_path, "m").matrices[0].samples.tobytes()
    assert set(part) == {"v", "key_id", "sealed"}
    assert clear[:64] not in str(part).encode()
    with pytest.raises(SignatureError, match="another sketch key"):
        unseal(part, SketchKey(bytes(32)))
    with pytest.raises(SignatureError, match="damaged"):
        unseal({**part, "key_id": SketchKey(bytes(32)).key_id}, SketchKey(bytes(32)))


@pytest.mark.parametrize(
    "value", [None, [], {}, {"v": 2, "sealed": ""}, {"v": 1, "key_id": KEY.key_id, "sealed": "!"}]
)
def test_what_is_no_sealed_signature_is_refused(value: object):
    with pytest.raises(SignatureError):
        unseal(value, KEY)


def test_a_flipped_byte_in_a_sealed_part_is_an_error(small_path: Path):
    part = seal(sign(small_path, "m"), KEY)
    text = str(part["sealed"])
    for at in (0, 30, len(text) // 2):
        changed = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        with pytest.raises(SignatureError):
            unseal({**part, "sealed": changed}, KEY)


def test_small_files_are_not_observed():
    assert SignatureObserver(KEY).begin("config.json", "config", 600) is None


def test_sealing_a_model_leaves_its_signature_in_the_manifest(small: t.Leak, tmp_path: Path):
    """The real pipeline: sealed once, nothing read twice, and a copy is recognised from what the manifest keeps."""
    world = World(tmp_path)
    for shard in t.write(dataclasses.replace(small, shards=2), tmp_path / "plain"):
        shard.rename(world.source / shard.name)
    (world.source / "config.json").write_text("{}")
    sealed = world.seal(observers=[SignatureObserver(KEY)], components={"model": "*"})
    manifest, root = world.manifest(sealed), world.root(sealed)
    inners = [
        open_inner(sealed.artifact_id, f, root.file_key(sealed.artifact_id, f.path)) for f in manifest.files
    ]
    left = [inner.signatures["leaks"] for inner in inners if inner.signatures]
    assert len(left) == 2
    signature = signature_of(sealed.artifact_id, left, KEY)
    assert {f.sha256 for f in signature.files} == {i.digests["sha256"] for i in inners if i.signatures}
    t.write(t.cast("Q4_0")(small, np.random.default_rng(1)), tmp_path / "leak")
    verdict = scan(tmp_path / "leak", ReferenceSet(KEY, [signature]))
    assert (verdict.outcome, verdict.artifact) == (Outcome.MATCH, sealed.artifact_id)
