"""The way of an artifact: sealed where the weights are, fetched and opened by a partner."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.errors import (
    EnvelopeError,
    ManifestError,
)
from artifacts.progress import Progress
from artifacts.verifying import verify_artifact
from tests.artifacts.sealed_world import World, noise, tree


def test_a_partner_gets_every_file_bit_for_bit(world: World, tmp_path: Path) -> None:
    sealed = world.seal()
    told: list[Progress] = []
    report = world.fetch(sealed, tmp_path / "copy", progress=told.append)
    assert tree(tmp_path / "copy") == tree(world.source)
    assert told[-1].bytes_done == told[-1].bytes_total == report.bytes_total
    assert told[-1].files_done == len(sealed.files)
    assert [p.bytes_done for p in told] == sorted(p.bytes_done for p in told)
    assert all(f.sha256 for f in report.files)


def test_nothing_in_the_store_holds_plaintext(world: World) -> None:
    world.seal()
    stored = b"".join(tree(world.folder / "store").values()) + b"".join(tree(world.state).values())
    for content in tree(world.source).values():
        assert len(content) < 16 or content[:64] not in stored


def test_tokenizer_keys_open_the_tokenizer_and_not_the_weights(world: World, tmp_path: Path) -> None:
    sealed = world.seal()
    payload = world.payload(sealed, components=["tokenizer"])
    world.fetch(sealed, tmp_path / "copy", payload=payload)
    assert set(tree(tmp_path / "copy")) == {"tokenizer/vocab.txt"}
    with pytest.raises(EnvelopeError, match="does not disclose"):
        world.fetch(sealed, tmp_path / "copy2", payload=payload, components=["weights"])


def test_sealing_twice_is_recognised(world: World) -> None:
    first, second = world.seal(), world.seal()
    assert second.recognised
    assert (second.artifact_id, second.manifest) == (first.artifact_id, first.manifest)


def test_sealing_twice_under_a_chosen_id_is_recognised_without_the_ticket(world: World) -> None:
    first = world.seal(artifact_id="component-1234", state_dir=None)
    second = world.seal(artifact_id="component-1234", state_dir=None)
    assert second.recognised
    assert second.manifest == first.manifest
    assert second.wrapped_root == first.wrapped_root
    (world.source / "new.bin").write_bytes(b"x")
    with pytest.raises(ManifestError, match="other files"):
        world.seal(artifact_id="component-1234", state_dir=None)


def test_verify_needs_no_key_and_finds_everything_wrong_at_once(world: World) -> None:
    sealed = world.seal()
    report = verify_artifact(world.store, sealed.artifact_id, trusted=[world.signer.verify_key])
    assert report.ok
    assert report.files == len(sealed.files)
    files = world.folder / "store" / "artifacts" / sealed.artifact_id / "files"
    (files / "one.bin").unlink()
    (files / "chunk.bin").write_bytes(noise(16384))
    changed = bytearray((files / "many.bin").read_bytes())
    changed[-1] ^= 1
    (files / "many.bin").write_bytes(changed)
    (files / "added.bin").write_bytes(b"x")
    report = verify_artifact(world.store, sealed.artifact_id, expected_digest=sealed.manifest_digest)
    assert {(p.path, p.kind) for p in report.problems} == {
        ("one.bin", "missing"),
        ("chunk.bin", "in-clear"),
        ("many.bin", "differs"),
        ("added.bin", "extra"),
    }
