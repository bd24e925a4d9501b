"""Tensors of sealed safetensors files: the index, ranged reads, hostile headers."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from artifacts.body import CHUNK, HEADER, WIRE_CHUNK
from artifacts.errors import IntegrityError, ObjectMissing
from artifacts.manifest import open_inner
from artifacts.opened import OpenedArtifact
from artifacts.tensors import Tensor, TensorInfo, memory_file, read_index
from tests.artifacts.sealed_world import World, noise, tree

RNG = np.random.default_rng(7)
TENSORS = {
    "embed.weight": RNG.normal(size=(300, 257)).astype(np.float32),
    "layer.0.secret_name": RNG.normal(size=(64, 64)).astype(np.float16),
    "bias": RNG.integers(-5, 5, size=(33,)).astype(np.int64),
    "empty": np.zeros((0, 4), np.float32),
    "scalar": np.array(3.5, np.float64),
}


@pytest.fixture
def model(world: World) -> World:
    save_file(TENSORS, world.source / "model.safetensors")
    save_file({"other": np.ones((5,), np.float32)}, world.source / "second.safetensors")
    return world


def test_each_tensor_loads_by_name_from_whichever_file_has_it(model: World) -> None:
    sealed = model.seal()
    with OpenedArtifact(model.store, sealed.manifest, model.payload(sealed)) as artifact:
        assert set(artifact.tensors()) == {*TENSORS, "other"}
        for name, expected in TENSORS.items():
            found = artifact.load_tensor(name).numpy()
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)
        with pytest.raises(ObjectMissing, match="no tensor"):
            artifact.load_tensor("nothing")


def test_tensor_names_are_in_clear_nowhere(model: World) -> None:
    sealed = model.seal()
    stored = b"".join(p.read_bytes() for p in (model.folder / "store").rglob("*") if p.is_file())
    assert b"secret_name" not in stored + sealed.manifest
    assert b"secret_name" in (model.source / "model.safetensors").read_bytes()


def test_one_tensor_fetches_its_chunks_and_no_more(model: World) -> None:
    """At most the tensor, two chunks at each end, and the heads of the parts it lies in."""
    sealed = model.seal()
    with OpenedArtifact(model.store, sealed.manifest, model.payload(sealed)) as artifact:
        info = artifact.tensors()["embed.weight"]
        artifact.load_tensor("embed.weight")
        fetched = artifact._shared("model.safetensors").bytes_fetched
        size = info.end - info.start
        parts = 2 + size // (4 * CHUNK)
        assert fetched <= size + 4 * WIRE_CHUNK + parts * HEADER + (size // CHUNK + 2) * 16


def test_safe_open_works_without_plaintext_on_disk(model: World) -> None:
    sealed = model.seal()
    before = set(model.folder.rglob("*"))
    with (
        OpenedArtifact(model.store, sealed.manifest, model.payload(sealed)) as artifact,
        artifact.safetensors("model.safetensors") as handle,
        memory_file(artifact.open("one.bin")) as path,
    ):
        assert Path(path).read_bytes() == tree(model.source)["one.bin"]
        assert set(handle.keys()) == set(TENSORS)
        np.testing.assert_array_equal(handle.get_tensor("embed.weight"), TENSORS["embed.weight"])
    assert set(model.folder.rglob("*")) == before
    assert not Path(path).exists()


def test_without_an_index_in_the_manifest_the_header_is_read_from_the_sealed_file(
    model: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("artifacts.sealing_file._INDEX_LIMIT", 10)
    sealed = model.seal()
    payload = model.payload(sealed)
    inner = open_inner(
        sealed.artifact_id, model.manifest(sealed).file("model.safetensors"), payload.key("model.safetensors")
    )
    assert inner.tensors is None
    with OpenedArtifact(model.store, sealed.manifest, payload) as artifact:
        np.testing.assert_array_equal(artifact.load_tensor("bias").numpy(), TENSORS["bias"])


def test_a_malformed_safetensors_file_is_sealed_and_fetched_like_any_other(
    world: World, tmp_path: Path
) -> None:
    (world.source / "broken.safetensors").write_bytes(noise(5000))
    (world.source / "tiny.safetensors").write_bytes(b"1234")
    sealed = world.seal()
    world.fetch(sealed, tmp_path / "copy")
    assert (tmp_path / "copy" / "broken.safetensors").read_bytes() == noise(5000)


def test_bfloat16_widens_exactly_and_small_floats_stay_bytes() -> None:
    values = np.array([0.0, 1.0, -2.5, 3.0e38, np.inf], np.float32)
    data = (values.view("<u4") >> 16).astype("<u2").tobytes()
    bf16 = Tensor(TensorInfo("x", "BF16", (5,), 0, 10), data).numpy()
    np.testing.assert_array_equal(bf16, (values.view("<u4") >> 16 << 16).view("<f4"))
    f8 = Tensor(TensorInfo("x", "F8_E4M3", (2, 2), 0, 4), b"\1\2\3\4").numpy()
    assert (f8.dtype, f8.shape) == (np.uint8, (2, 2))
    assert "data" not in repr(Tensor(TensorInfo("x", "U8", (4,), 0, 4), b"data"))


def header(value: Any, tail: int = 0, length: int | None = None) -> bytes:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(tail)


def index(data: bytes) -> dict[str, TensorInfo]:
    return read_index(lambda start, length: data[start : start + length], len(data), "suspect")


def f32(shape: list[Any], start: Any, end: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


HOSTILE = {
    "too short": b"1234",
    "header of ten gigabytes": header({}, length=10 * 2**30),
    "header as long as 2^63": header({}, length=2**63),
    "header longer than the file": header({}, length=100),
    "not json": header(b"{"),
    "not an object": header([1]),
    "deeply nested": header(b'{"a":' * 60_000),
    "duplicate names": header(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{}}'),
    "overlapping tensors": header({"a": f32([2], 0, 8), "b": f32([2], 4, 12)}, 12),
    "a hole between tensors": header({"a": f32([1], 0, 4), "b": f32([1], 8, 12)}, 12),
    "data after the tensors": header({"a": f32([1], 0, 4)}, 5),
    "tensor outside the file": header({"a": f32([4], 0, 16)}, 8),
    "shape that does not fit": header({"a": f32([3], 0, 8)}, 8),
    "negative offset": header({"a": f32([2], -8, 0)}, 8),
    "negative dimension": header({"a": f32([-2], 0, 8)}, 8),
    "offsets reversed": header({"a": f32([2], 8, 0)}, 8),
    "huge dimensions": header({"a": f32([2**62, 2**62], 0, 8)}, 8),
    "offsets as text": header({"a": f32([2], "0", "8")}, 8),
    "offset as bool": header({"a": f32([1], False, 4)}, 4),
    "unknown dtype": header({"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, 4),
    "dtype that is a list": header({"a": {"dtype": [], "shape": [1], "data_offsets": [0, 4]}}, 4),
    "missing member": header({"a": {"dtype": "F32"}}),
    "entry that is text": header({"a": "b"}),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_header_is_an_integrity_error(attack: str) -> None:
    with pytest.raises(IntegrityError):
        index(HOSTILE[attack])


def test_nothing_is_read_on_the_word_of_a_hostile_length() -> None:
    asked: list[int] = []

    def read_at(start: int, length: int) -> bytes:
        asked.append(length)
        return struct.pack("<Q", 99 * 2**20)[:length]

    with pytest.raises(IntegrityError, match="header of"):
        read_index(read_at, 1000, "suspect")
    assert asked == [8]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_an_index_or_an_integrity_error(data: bytes, framed: bool) -> None:
    try:
        found = index(header(data) if framed else data)
    except IntegrityError:
        return
    assert all(t.start <= t.end for t in found.values())


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=8).filter(lambda n: n != "__metadata__"), st.integers(0, 50), min_size=1, max_size=6
    )
)
def test_wellformed_files_index_exactly(sizes: dict[str, int]) -> None:
    entries, position = {}, 0
    for name, size in sizes.items():
        entries[name] = {"dtype": "U8", "shape": [size], "data_offsets": [position, position + size]}
        position += size
    entries["__metadata__"] = {"format": "pt"}  # type: ignore[dict-item]
    data = header(entries, position)
    found = index(data)
    assert {n: t.end - t.start for n, t in found.items()} == sizes
