"""Weight signatures: made in one pass, the same whatever the parts, small, and saying exactly what was seen."""

from __future__ import annotations

import dataclasses
import hashlib
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.leaks import (
    ReferenceSet,
    SignatureBuilder,
    SignatureError,
    SketchKey,
    WeightSignature,
    digest_stream,
)
from artifacts.leaks.digests import BLOCK, PiecesRoot
from artifacts.leaks.rows import FINDING, TESTING, natural_key
from artifacts.leaks.signature import EmbeddingRows, MatrixSketch, ProjectedRows, thinned
from artifacts.leaks.sketch import SAMPLES, WINDOW, normalise, structured
from tests.simulators import transformations as t

from .conftest import KEY, sign

QUICK = frozenset[str]()


def test_any_cut_into_parts_gives_the_same_signature(small_path: Path):
    whole = sign(small_path, "m", part=1 << 30, digests=QUICK).to_bytes()
    for part in (997, 65_536, 1 << 20):
        assert sign(small_path, "m", part=part, digests=QUICK).to_bytes() == whole


def test_parts_sealed_in_parallel_may_arrive_out_of_order(small_path: Path):
    data = small_path.read_bytes()
    parts = [(at, data[at : at + 100_000]) for at in range(0, len(data), 100_000)]
    builder = SignatureBuilder("m", KEY, digests=QUICK)
    for i in range(0, len(parts), 2):
        for at, part in reversed(parts[i : i + 2]):
            builder.feed(small_path.name, at, memoryview(part))
    builder.finish_file(small_path.name)
    assert builder.finish().to_bytes() == sign(small_path, "m", digests=QUICK).to_bytes()


def test_bytes_too_far_ahead_are_refused_instead_of_filling_memory(small_path: Path):
    builder = SignatureBuilder("m", KEY, digests=QUICK, reorder_limit=1000)
    with pytest.raises(SignatureError, match="waiting for the ones at 0"):
        builder.feed("f.safetensors", 500, bytes(1001))


def test_bytes_fed_twice_are_refused(small_path: Path):
    builder = SignatureBuilder("m", KEY, digests=QUICK)
    builder.feed("f", 0, bytes(10))
    with pytest.raises(SignatureError, match="twice"):
        builder.feed("f", 5, bytes(10))


def test_a_file_cut_off_while_sealing_makes_no_signature(small_path: Path):
    data = small_path.read_bytes()
    builder = SignatureBuilder("m", KEY, digests=QUICK)
    builder.feed("f.safetensors", 0, data[:-4])
    with pytest.raises(SignatureError, match="never fed"):
        builder.finish_file("f.safetensors")


def test_a_gap_in_the_fed_bytes_makes_no_signature():
    builder = SignatureBuilder("m", KEY, digests=QUICK)
    builder.feed("f", 10, b"later")
    with pytest.raises(SignatureError, match="never fed"):
        builder.finish_file("f")


def test_samples_are_the_windows_at_the_keyed_positions(small: t.Leak, small_signature: WeightSignature):
    sketch = next(m for m in small_signature.matrices if m.name.endswith("layer.1.intermediate.dense.weight"))
    flat = small.weights[sketch.name].reshape(-1)
    for i, start in enumerate(KEY.starts(sketch.rows, sketch.cols)):
        expected = normalise(flat[start : start + WINDOW])
        held = sketch.samples.reshape(2, WINDOW)[i]
        assert np.corrcoef(expected, held)[0, 1] > 0.9995


def test_positions_hang_on_key_and_shape_alone():
    assert KEY.starts(100, 200) == SketchKey(bytes(range(32))).starts(100, 200)
    assert KEY.starts(100, 200) != KEY.starts(200, 100)
    assert KEY.starts(100, 200) != SketchKey(bytes(32)).starts(100, 200)


def test_the_key_is_never_printed():
    assert bytes(range(32)).hex() not in repr(KEY)
    assert repr(bytes(range(32))) not in repr(KEY)


def test_exact_digests_equal_the_independent_ones(small_path: Path, small_signature: WeightSignature):
    hf_xet = pytest.importorskip("hf_xet")
    data = small_path.read_bytes()
    (found,) = small_signature.files
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    assert found.size == len(data)
    assert found.crc32 == zlib.crc32(data)
    assert found.xet_hash == hf_xet.hash_files([str(small_path)])[0].hash
    assert found.btv2_root == reference_pieces_root(data)
    assert found.distinctive


def reference_pieces_root(data: bytes) -> str:
    """BEP 52, written down as it is defined: all leaves, padded with zero hashes, hashed pairwise."""
    leaves = [hashlib.sha256(data[i : i + BLOCK]).digest() for i in range(0, len(data), BLOCK)]
    width = 1
    while width < len(leaves):
        width *= 2
    leaves += [bytes(32)] * (width - len(leaves))
    while len(leaves) > 1:
        leaves = [hashlib.sha256(leaves[i] + leaves[i + 1]).digest() for i in range(0, len(leaves), 2)]
    return leaves[0].hex()


@settings(deadline=None, max_examples=30)
@given(st.binary(max_size=5 * BLOCK // 2), st.integers(1, 2 * BLOCK))
def test_the_pieces_root_does_not_hang_on_how_bytes_arrive(data: bytes, step: int):
    root = PiecesRoot()
    for at in range(0, len(data), step):
        root.update(data[at : at + step])
    assert root.hexdigest() == (reference_pieces_root(data) if data else None)


@pytest.mark.parametrize("size", [0, 1, BLOCK, BLOCK + 1, 3_000_000])
def test_the_xet_hash_of_a_stream_is_that_of_the_file(tmp_path: Path, size: int):
    hf_xet = pytest.importorskip("hf_xet")
    data = np.random.default_rng(size).bytes(size)
    path = tmp_path / "f"
    path.write_bytes(data)
    assert digest_stream("f", [data[:7], data[7:]]).xet_hash == hf_xet.hash_files([str(path)])[0].hash


def test_a_tokenizer_beside_the_weights_is_not_distinctive():
    builder = SignatureBuilder("m", KEY, digests=QUICK)
    builder.feed("tokenizer.json", 0, b'{"version": "1.0"}')
    assert not builder.finish_file("tokenizer.json").distinctive


def test_serialised_signatures_round_trip(small_signature: WeightSignature):
    again = WeightSignature.from_bytes(small_signature.to_bytes())
    assert again.to_bytes() == small_signature.to_bytes()
    assert again.digest() == small_signature.digest()
    assert len(again.matrices) == 25


def test_every_flipped_byte_of_a_signature_is_noticed_or_changes_its_digest(small_signature: WeightSignature):
    data = small_signature.to_bytes()
    for at in [*range(40), *range(40, len(data), 4999), len(data) - 1]:
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(SignatureError):
            WeightSignature.from_bytes(changed)


@pytest.mark.parametrize("cut", [0, 5, 8, 20, 1000, -1])
def test_a_cut_off_signature_is_refused(small_signature: WeightSignature, cut: int):
    with pytest.raises(SignatureError):
        WeightSignature.from_bytes(small_signature.to_bytes()[:cut])


def test_signatures_of_another_key_are_not_compared(small_signature: WeightSignature):
    with pytest.raises(SignatureError, match="scan each key's signatures on their own"):
        ReferenceSet(SketchKey(bytes(32)), [small_signature])


def seven_billion(rng: np.random.Generator) -> WeightSignature:
    """A signature with the shapes of LLaMA-7B and Gaussian weights, which compress worst."""
    shapes = {"model.embed_tokens.weight": (32000, 4096), "lm_head.weight": (32000, 4096)}
    for i in range(32):
        for part in ("q", "k", "v", "o"):
            shapes[f"model.layers.{i}.self_attn.{part}_proj.weight"] = (4096, 4096)
        shapes[f"model.layers.{i}.mlp.gate_proj.weight"] = (11008, 4096)
        shapes[f"model.layers.{i}.mlp.up_proj.weight"] = (11008, 4096)
        shapes[f"model.layers.{i}.mlp.down_proj.weight"] = (4096, 11008)

    def gauss(*shape: int, spread: float) -> np.ndarray:
        return np.clip(np.rint(spread * rng.standard_normal(shape)), -127, 127).astype(np.int8)

    projected = [n for n, s in shapes.items() if s[1] == 4096 and s[0] < 20000][::5][:40]
    return WeightSignature(
        "llama-7b",
        KEY.key_id,
        tuple(MatrixSketch(n, 0, r, c, gauss(SAMPLES, spread=12)) for n, (r, c) in shapes.items()),
        EmbeddingRows("model.embed_tokens.weight", 32000, 4096, gauss(128, 4096, spread=1.5)),
        tuple(
            ProjectedRows(
                n,
                *shapes[n],
                i,
                gauss(1024, FINDING, spread=3),
                rng.integers(0, 256, (1024, TESTING // 8), np.uint8),
            )
            for i, n in enumerate(projected)
        ),
        (digest_stream("model-00001-of-00002.safetensors", [b"x"], frozenset()),) * 2,
        weights=sum(r * c for r, c in shapes.values()),
    )


def test_the_signature_of_a_seven_billion_model_is_under_one_megabyte():
    signature = thinned(seven_billion(np.random.default_rng(7)), 1_000_000)
    data = signature.to_bytes()
    assert len(data) < 1_000_000
    assert len(signature.matrices) == 226, "every matrix keeps its two windows"
    assert signature.embedding is not None
    assert len(signature.projected) >= 12, "and enough is left for the aligned test"
    assert min(len(p.finding) for p in signature.projected) >= 384


def test_constants_that_anybody_would_compute_are_left_out(tmp_path: Path):
    rng = np.random.default_rng(3)
    width, length = 128, 512
    place = np.arange(length)[:, None] / 10_000 ** (np.arange(0, width, 2) / width)
    table = np.stack([np.sin(place), np.cos(place)], axis=2).reshape(length, width)
    tensors = {
        "position_table": table,
        "causal_mask": np.tril(np.ones((256, 256))),
        "ones": np.ones((64, 128)),
        "learned": rng.standard_normal((256, 256)),
    }
    tensors["tied"] = tensors["learned"]
    path = t.write_safetensors(
        tmp_path / "m.safetensors", {n: ("F32", w.shape, t.encode(w, "F32")) for n, w in tensors.items()}
    )
    signature = sign(path, "m", digests=QUICK)
    assert [m.name for m in signature.matrices] == ["learned"]
    assert set(signature.left_out) == {"position_table", "causal_mask", "ones", "tied"}


def test_learned_weights_are_never_taken_for_constants(minilm: t.Leak):
    for name in ("encoder.layer.0.output.dense.weight", "embeddings.word_embeddings.weight"):
        w = minilm.weights[name]
        windows = np.stack([normalise(w.reshape(-1)[s : s + WINDOW]) for s in KEY.starts(*w.shape)])
        assert not structured(windows, w.shape[1])


def test_a_partners_copy_adds_its_digests(small_signature: WeightSignature):
    copy = small_signature.with_copy(
        (dataclasses.replace(small_signature.files[0], sha256="ab" * 32),), "acme"
    )
    assert [f.copy for f in copy.files] == [None, "acme"]
    assert WeightSignature.from_bytes(copy.to_bytes()).files == copy.files


def test_layers_are_ordered_as_people_count():
    assert sorted(["l.10.w", "l.2.w", "l.1.w"], key=natural_key) == ["l.1.w", "l.2.w", "l.10.w"]
