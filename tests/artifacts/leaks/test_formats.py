"""Every format a suspect may come in, read without trusting it and without its own library."""

from __future__ import annotations

import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest

from artifacts.leaks import Outcome, ReferenceSet, scan
from artifacts.leaks.dtypes import PLAIN, ggml_codec
from artifacts.leaks.sources import Budget, Ledger, LocalSource
from artifacts.leaks.suspects.opening import Suspect, open_inside
from artifacts.leaks.suspects.tensor import matrices, read_pieces
from tests.simulators import checkpoints
from tests.simulators import transformations as t

from .conftest import KEY, sign

DECODABLE = sorted(
    (k for k in gguf.GGMLQuantizationType if k in gguf.quants._type_traits or k.name in PLAIN),
    key=lambda k: k.name,
)


def contents(path: Path) -> dict[str, np.ndarray]:
    suspect = Suspect()
    source = LocalSource(path, Budget(1 << 30, 10_000), Ledger())
    open_inside(source, suspect)
    found = {
        m.tensor.name: read_pieces([(m, 0, m.rows * m.cols)])[0].reshape(m.shape)
        for tensor in suspect.tensors
        for m in matrices(tensor)
    }
    source.close()
    return found


def random_blocks(
    kind: gguf.GGMLQuantizationType, rows: int, cols: int, rng: np.random.Generator
) -> np.ndarray:
    """Random bytes that decode to ordinary numbers, for formats that nobody here can quantise to."""
    items, size = gguf.GGML_QUANT_SIZES[kind]
    if kind.name in PLAIN:
        values = rng.standard_normal((rows, cols)).astype(np.float32)
        return (
            np.frombuffer(t.encode(values, kind.name), np.uint8).reshape(rows, -1)
            if kind.name != "F64"
            else (values.astype("<f8").view(np.uint8).reshape(rows, -1))
        )
    need = rows * cols // items
    kept = np.zeros((0, size), np.uint8)
    while len(kept) < need:
        blocks = rng.integers(0, 256, (4 * need, size), dtype=np.uint8)
        with np.errstate(all="ignore"):
            values = gguf.quants.dequantize(blocks, kind).reshape(len(blocks), items)
            spread = values.std(axis=1)
            good = np.isfinite(values).all(axis=1) & (spread > 1e-2) & (spread < 1e2)
            good &= np.abs(values.mean(axis=1)) < 0.5 * spread
        kept = np.concatenate([kept, blocks[good]])
    return kept[:need].reshape(rows, -1)


@pytest.mark.parametrize("kind", DECODABLE, ids=lambda k: k.name)
def test_every_ggml_type_that_gguf_decodes_is_recognised(kind: gguf.GGMLQuantizationType, tmp_path: Path):
    rng = np.random.default_rng(int(kind))
    codec = ggml_codec(int(kind))
    assert codec is not None
    reference, packed = {}, {}
    for i in range(8):
        packed[f"blk.{i}.w"] = random_blocks(kind, 32, 512, rng)
        reference[f"layer.{i}.w"] = codec.decode(packed[f"blk.{i}.w"].tobytes()).reshape(32, 512)
    path = tmp_path / "suspect.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    for name, blocks in packed.items():
        writer.add_tensor(name, blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    signature = sign(t.write(t.Leak(reference), tmp_path / "ours")[0], "ours", digests=frozenset())
    verdict = scan(path, ReferenceSet(KEY, [signature]))
    assert verdict.outcome is Outcome.MATCH, verdict.document()
    assert verdict.best is not None
    assert min(e.r for e in verdict.best.tensors) > 0.99


@pytest.mark.parametrize("form", ["Q8_0", "Q5_0", "Q4_1", "Q4_0", "F16", "BF16", "F32"])
def test_gguf_as_llama_cpp_writes_it(form: str, small: t.Leak, references: ReferenceSet, tmp_path: Path):
    path = t.write_gguf(tmp_path / "m.gguf", small.weights, form)
    verdict = scan(path, references)
    assert verdict.outcome is Outcome.MATCH
    assert verdict.bytes_read < 2 << 20


def test_gguf_without_the_library_is_inconclusive_and_says_what_to_install(
    small: t.Leak, references: ReferenceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = t.write_gguf(tmp_path / "m.gguf", small.weights, "Q8_0")
    ggml_codec.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "gguf.constants", None)
    try:
        verdict = scan(path, references)
    finally:
        ggml_codec.cache_clear()
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "sluice-release[leaks]" in " ".join(verdict.reasons)


def test_the_real_stranger_is_no_match(minilm_references: ReferenceSet):
    verdict = scan(t.stranger_path(), minilm_references)
    assert verdict.outcome is Outcome.NO_MATCH
    assert verdict.bytes_read < 3 << 20


@pytest.mark.parametrize("form", ["F32", "F16", "BF16", "I8"])
def test_pytorch_checkpoints_are_read_as_data(
    form: str, small: t.Leak, references: ReferenceSet, tmp_path: Path
):
    path = checkpoints.write_checkpoint(tmp_path / "pytorch_model.bin", small.weights, form)
    verdict = scan(path, references)
    assert verdict.outcome is Outcome.MATCH, verdict.document()
    assert verdict.best is not None
    assert all(e.suspect == e.reference for e in verdict.best.tensors), (
        "tensor names come from the walked pickle"
    )


def test_pytorch_numbers_are_the_ones_that_were_saved(small: t.Leak, tmp_path: Path):
    found = contents(checkpoints.write_checkpoint(tmp_path / "m.pt", small.weights))
    for name, w in small.weights.items():
        if w.ndim == 2:
            assert np.array_equal(found[name], w)


def test_nested_checkpoints_with_optimizer_state_are_found(
    small: t.Leak, references: ReferenceSet, tmp_path: Path
):
    entries, storages = {}, {}
    for key, (name, w) in enumerate(small.weights.items()):
        storages[str(key)] = t.encode(w, "F32")
        inner = checkpoints.tensor(
            checkpoints.storage(str(key), "FloatStorage", w.size), 0, w.shape, checkpoints.row_major(w.shape)
        )
        parameter = checkpoints.global_("torch._utils", "_rebuild_parameter") + checkpoints.tuple_(
            inner, b"\x88", b"N"
        )
        entries[name] = parameter + b"R"
    body = b"".join(checkpoints.text(n) + v for n, v in entries.items())
    pickle = (
        b"\x80\x02}(" + checkpoints.text("epoch") + b"K\x03" + checkpoints.text("state") + b"]("
        + b"}(" + body + b"ue" + b"u."
    )  # fmt: skip
    path = checkpoints.write_archive(tmp_path / "c.pt", pickle, storages)
    verdict = scan(path, references)
    assert verdict.outcome is Outcome.MATCH, verdict.document()


def test_column_major_storage_is_inconclusive_by_ranges(
    small: t.Leak, references: ReferenceSet, tmp_path: Path
):
    path = checkpoints.write_checkpoint(tmp_path / "m.pt", small.weights, transposed=True)
    verdict = scan(path, references)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "column-major" in " ".join(verdict.reasons)


def test_npz_and_npy(small: t.Leak, references: ReferenceSet, tmp_path: Path):
    np.savez(tmp_path / "m.npz", **{n.replace(".", "_"): w for n, w in small.weights.items()})
    verdict = scan(tmp_path / "m.npz", references)
    assert verdict.outcome is Outcome.MATCH, verdict.document()
    folder = tmp_path / "arrays"
    folder.mkdir()
    for i, w in enumerate(w for w in small.weights.values() if w.ndim == 2):
        np.save(folder / f"{i}.npy", w.astype(np.float16))
    verdict = scan(folder, references)
    assert verdict.outcome is Outcome.MATCH, verdict.document()


def test_small_compressed_npz(small: t.Leak, references: ReferenceSet, tmp_path: Path):
    np.savez_compressed(tmp_path / "m.npz", **{n.replace(".", "_"): w for n, w in small.weights.items()})
    verdict = scan(tmp_path / "m.npz", references)
    assert verdict.outcome is Outcome.MATCH, verdict.document()


def test_weights_stored_inside_an_archive(small_path: Path, references: ReferenceSet, tmp_path: Path):
    path = tmp_path / "bundle.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("README.md", "nothing to see here\n" * 9)
        archive.write(small_path, "holiday/picture.jpg")
    verdict = scan(path, references)
    assert verdict.outcome is Outcome.MATCH


def test_the_real_zipped_copy_is_known_by_its_listing(minilm_references: ReferenceSet):
    verdict = scan(t.zipped_copy_path(), minilm_references)
    assert verdict.outcome is Outcome.PARTIAL
    assert verdict.best is not None
    assert verdict.best.exact[0].kind == "size+crc32"
    assert verdict.bytes_read < 1 << 20


def test_tokenizers_and_readmes_beside_a_stranger_do_not_blur_the_no(
    references: ReferenceSet, tmp_path: Path
):
    folder = tmp_path / "repo"
    t.write(t.Leak(t.synthetic(np.random.default_rng(12))), folder)
    (folder / "tokenizer.json").write_text('{"vocab": {"a": 1, "b": 2}}\n' * 20_000)
    (folder / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15" + bytes(range(256)) * 100)
    assert scan(folder, references).outcome is Outcome.NO_MATCH


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_plain_formats_decode_to_the_values_of_their_specification(name: str):
    codec = PLAIN[name]
    bits = np.arange(256, dtype=np.uint8).tobytes()
    values = codec.decode(bits)
    assert np.isfinite(values).all()
    expected = {
        "F8_E4M3": {0x38: 1.0, 0x7E: 448.0, 0x01: 2.0**-9, 0xB8: -1.0, 0x7F: 0.0},
        "F8_E5M2": {0x3C: 1.0, 0x7B: 57344.0, 0x01: 2.0**-16, 0xBC: -1.0, 0x7C: 0.0},
        "F8_E4M3FNUZ": {0x40: 1.0, 0x7F: 240.0, 0x80: 0.0},
        "F8_E5M2FNUZ": {0x40: 1.0, 0x7F: 57344.0, 0x80: 0.0},
        "I8": {0x01: 1.0, 0x80: -128.0},
    }.get(name)
    if expected is None:
        one = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}.get(name)
        raw = np.array([1.5, -2.0], one).tobytes() if one else b"\xc0\x3f\x00\xc0"
        assert codec.decode(raw).tolist() == [1.5, -2.0]
    else:
        assert {k: float(values[k]) for k in expected} == expected
