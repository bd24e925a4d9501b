"""Headers that lie. Each attack ends in a reason, quickly and in little memory; none ends in a crash or in a 'no'."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifacts.leaks import HostileError, Outcome, ReferenceSet, scan
from artifacts.leaks.sources import Budget, Ledger, LocalSource
from artifacts.leaks.suspects import pickled
from artifacts.leaks.suspects.opening import Suspect, open_inside
from tests.simulators import checkpoints as c
from tests.simulators import transformations as t


def safetensors(header: dict[str, Any] | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def row(begin: int, end: int, shape: list[Any] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {
        "dtype": dtype,
        "shape": [(end - begin) // 4] if shape is None else shape,
        "data_offsets": [begin, end],
    }


SAFETENSORS: dict[str, bytes] = {
    "a header of 10 GB": safetensors(b"{" + b" " * 100, length=10 * 1024**3),
    "a header of 2^64-1 bytes": safetensors(b"{}", length=2**64 - 1),
    "a header longer than the file": safetensors(b"{}", length=500),
    "overlapping tensors": safetensors({"a": row(0, 64), "b": row(60, 124)}, bytes(200)),
    "two tensors on the same bytes": safetensors({"a": row(0, 64), "b": row(0, 64)}, bytes(200)),
    "a tensor that leaves the file": safetensors({"a": row(0, 1 << 40)}, bytes(64)),
    "offsets backwards": safetensors(
        {"a": {"dtype": "F32", "shape": [4], "data_offsets": [64, 48]}}, bytes(64)
    ),
    "negative offsets": safetensors(
        {"a": {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]}}, bytes(64)
    ),
    "offsets that are no numbers": safetensors(
        {"a": {"dtype": "F32", "shape": [4], "data_offsets": ["0", 16]}}, bytes(64)
    ),
    "offsets that are fractions": safetensors(
        {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0.5, 16]}}, bytes(64)
    ),
    "a shape that does not fit its bytes": safetensors({"a": row(0, 64, [1000, 1000])}, bytes(64)),
    "a shape whose product overflows": safetensors({"a": row(0, 64, [2**52, 2**52])}, bytes(64)),
    "a shape of a hundred dimensions": safetensors({"a": row(0, 4, [1] * 100)}, bytes(64)),
    "a negative side": safetensors({"a": row(0, 64, [-4, -4])}, bytes(64)),
    "true as a side": safetensors({"a": row(0, 4, [True])}, bytes(64)),
    "the same tensor twice": safetensors(
        b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}',
        bytes(64),
    ),
    "nested a hundred thousand deep": safetensors(
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", bytes(64)
    ),
    "a number with a million digits": safetensors(b'{"a":' + b"9" * 1_000_000 + b"}", bytes(64)),
    "not UTF-8": safetensors(b'{"\xff\xfe":1}', bytes(64)),
    "a list instead of a table": safetensors(b"{" + b"]", bytes(64)),
    "an entry that is a string": safetensors({"a": "b"}, bytes(64)),
}


def gguf(tensors: int = 0, keys: int = 0, body: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + body


def gguf_text(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if length is None else length) + value


def gguf_info(name: bytes, dims: list[int], kind: int, offset: int) -> bytes:
    return gguf_text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def array(kind: int, count: int) -> bytes:
    return struct.pack("<IIQ", 9, kind, count)


GGUF: dict[str, bytes] = {
    "2^63 tensors": gguf(tensors=2**63, body=bytes(100)),
    "2^63 keys": gguf(keys=2**63, body=bytes(100)),
    "a key of 2^62 bytes": gguf(keys=1, body=gguf_text(b"x", 2**62)),
    "a string of 2^63 bytes": gguf(
        keys=1, body=gguf_text(b"k") + struct.pack("<I", 8) + gguf_text(b"v", 2**63)
    ),
    "an array of 2^60 strings": gguf(keys=1, body=gguf_text(b"k") + array(8, 2**60) + bytes(4096)),
    "an array of 2^60 numbers": gguf(keys=1, body=gguf_text(b"k") + array(4, 2**60)),
    "arrays in arrays for ever": gguf(
        keys=1, body=gguf_text(b"k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 2000
    ),
    "an unknown value type": gguf(keys=1, body=gguf_text(b"k") + struct.pack("<I", 77)),
    "a header that never ends": gguf(
        keys=60_000, body=(gguf_text(b"k") + struct.pack("<I", 0) + b"x") * 60_000
    ),
    "another byte order": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "nine dimensions": gguf(1, body=gguf_info(b"a", [2] * 9, 0, 0) + bytes(4096)),
    "a tensor that leaves the file": gguf(1, body=gguf_info(b"a", [1 << 40], 0, 0) + bytes(4096)),
    "an offset of 2^63": gguf(1, body=gguf_info(b"a", [8], 0, 2**63) + bytes(4096)),
    "overlapping tensors": gguf(
        2, body=gguf_info(b"a", [64, 8], 0, 0) + gguf_info(b"b", [64, 8], 0, 1024) + bytes(1 << 16)
    ),
    "rows that are not whole blocks": gguf(1, body=gguf_info(b"a", [33, 8], 2, 0) + bytes(4096)),
    "a shape whose product overflows": gguf(1, body=gguf_info(b"a", [2**40, 2**40], 0, 0) + bytes(4096)),
    "an alignment of 3": gguf(keys=1, body=gguf_text(b"general.alignment") + struct.pack("<II", 4, 3)),
    "an unknown quantisation": gguf(1, body=gguf_info(b"a", [256, 64], 999, 0) + bytes(1 << 16)),
    "cut off": gguf(5, 5, b"\x01"),
}


def tensor_pickle(
    *, offset: int = 0, shape: tuple[int, ...] = (64, 64), strides: tuple[int, ...] = (64, 1), key: str = "0"
) -> bytes:
    return c.state_dict({"w": c.tensor(c.storage(key, "FloatStorage", 4096), offset, shape, strides)})


TORCH: dict[str, bytes] = {
    "a shape beyond the storage": tensor_pickle(shape=(1 << 30, 64)),
    "an offset beyond the storage": tensor_pickle(offset=1 << 40),
    "strides beyond the storage": tensor_pickle(strides=(1 << 40, 1)),
    "a negative offset": tensor_pickle(offset=-100),
    "negative strides": tensor_pickle(strides=(-64, 1)),
    "more strides than sides": tensor_pickle(strides=(64, 1, 1)),
    "a storage that is not in the archive": tensor_pickle(key="../../../etc/passwd"),
    "a pickle that does not end": b"\x80\x02" + b"(" * 50_000,
    "a pickle that is cut off": tensor_pickle()[:-30],
    "an empty pickle": b"",
    "an unknown opcode": b"\x80\x02\xff.",
    "a string of 4 GB": b"\x80\x04\x8d" + struct.pack("<Q", 2**32) + b"x.",
    "a memo that was never set": b"\x80\x02h\x05.",
    "pops of an empty stack": b"\x80\x0200000.",
    "an extension code": b"\x80\x02\x82\x01.",
}


class Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (f"touch {self.path}",)


def judged(path: Path, references: ReferenceSet) -> str:
    """Scan; the verdict must be inconclusive, within 64 MiB of memory. Returns the reasons."""
    tracemalloc.start()
    try:
        verdict = scan(path, references)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert verdict.outcome is Outcome.INCONCLUSIVE, verdict.document()
    assert verdict.reasons
    assert peak < 64 << 20, f"{peak} bytes"
    return " ".join(verdict.reasons)


@pytest.mark.parametrize("attack", SAFETENSORS)
def test_safetensors(attack: str, references: ReferenceSet, tmp_path: Path):
    (tmp_path / "m.safetensors").write_bytes(SAFETENSORS[attack])
    judged(tmp_path / "m.safetensors", references)


@pytest.mark.parametrize("attack", GGUF)
def test_gguf(attack: str, references: ReferenceSet, tmp_path: Path):
    (tmp_path / "m.gguf").write_bytes(GGUF[attack])
    judged(tmp_path / "m.gguf", references)


@pytest.mark.parametrize("attack", TORCH)
def test_pytorch(attack: str, references: ReferenceSet, tmp_path: Path):
    c.write_archive(tmp_path / "m.pt", TORCH[attack], {"0": bytes(4 * 4096)})
    judged(tmp_path / "m.pt", references)


def test_a_ten_gigabyte_sparse_file_costs_nothing(references: ReferenceSet, tmp_path: Path):
    path = tmp_path / "huge.safetensors"
    path.write_bytes(safetensors(b'{"a": [', length=10 * 1024**3 - 100))
    os.truncate(path, 10 * 1024**3)
    assert "header of" in judged(path, references)


def test_pickles_that_run_commands_run_nothing(small: t.Leak, references: ReferenceSet, tmp_path: Path):
    canary = tmp_path / "was-run"
    evil = pickle.dumps(Canary(canary))
    c.write_archive(tmp_path / "m.pt", evil, {})
    scan(tmp_path / "m.pt", references)
    assert not canary.exists()
    # and hidden beside real weights, which are still recognised
    entries = {"evil": evil.removeprefix(b"\x80\x04")[9:-1]}
    storages = {}
    for key, (name, w) in enumerate(small.weights.items()):
        storages[str(key)] = t.encode(w, "F32")
        entries[name] = c.tensor(
            c.storage(str(key), "FloatStorage", w.size), 0, w.shape, c.row_major(w.shape)
        )
    c.write_archive(tmp_path / "n.pt", c.state_dict(entries).replace(b"\x80\x02", b"\x80\x04", 1), storages)
    assert scan(tmp_path / "n.pt", references).outcome is Outcome.MATCH
    assert not canary.exists()


@pytest.mark.parametrize("module", ["os", "builtins", "torch._utils"])
def test_a_global_is_only_a_pair_of_names(module: str):
    found = pickled.walk(b"\x80\x02" + c.global_(module, "system") + c.tuple_(c.text("true")) + b"R.")
    assert found == pickled.Call(pickled.Global(module, "system"), ("true",))


def test_a_billion_laughs_of_shared_lists_is_walked_once():
    body = b"]q\x00" + b"".join(
        b"]" + f"r{i}".encode()[:0] + b"(" + b"h\x00" * 2 + b"eq\x00" for i in range(60)
    )
    root = pickled.walk(b"\x80\x02" + body + b".")
    assert list(pickled.tensors(root)) == []


def test_a_list_that_holds_itself_ends():
    assert list(pickled.tensors(pickled.walk(b"\x80\x02]q\x00h\x00a."))) == []


def test_a_zip_bomb_of_one_member_is_not_inflated(references: ReferenceSet, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m.safetensors", bytes(300 << 20))
    assert "compressed" in judged(tmp_path / "bomb.zip", references)


def test_a_zip_bomb_that_lies_about_its_size_is_cut(references: ReferenceSet, tmp_path: Path):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(200 << 20))
    data = held.getvalue().replace(struct.pack("<I", 200 << 20), struct.pack("<I", 1000))
    (tmp_path / "bomb.pt").write_bytes(data)
    assert "promises" in judged(tmp_path / "bomb.pt", references)


def test_a_zip_bomb_of_overlapping_members_is_refused(references: ReferenceSet, tmp_path: Path):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("a.npy", bytes(50_000))
        archive.writestr("b.npy", bytes(50_000))
    data = held.getvalue()
    second = data.index(b"PK\x03\x04", 4)
    data = data.replace(struct.pack("<I", second) + b"b.npy", struct.pack("<I", 0) + b"b.npy")
    (tmp_path / "quine.npz").write_bytes(data)
    assert "overlaps" in judged(tmp_path / "quine.npz", references)


def test_a_zip_of_a_zip_of_a_zip_is_not_followed_for_ever(references: ReferenceSet, tmp_path: Path):
    data = np.random.default_rng(1).bytes(20_000)
    for _ in range(6):
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w") as archive:
            archive.writestr("inner.zip", data)
        data = held.getvalue()
    (tmp_path / "m.zip").write_bytes(data)
    assert "nested" in judged(tmp_path / "m.zip", references)


def test_encrypted_members_are_inconclusive(references: ReferenceSet, tmp_path: Path):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("m.safetensors", bytes(50_000))
    data = bytearray(held.getvalue())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "m.zip").write_bytes(data)
    assert "encrypted" in judged(tmp_path / "m.zip", references)


def npy(header: bytes, length: int | None = None, version: bytes = b"\x01\x00") -> bytes:
    size = len(header) if length is None else length
    return b"\x93NUMPY" + version + size.to_bytes(2 if version[0] == 1 else 4, "little") + header + bytes(64)


NPY: dict[str, bytes] = {
    "objects": npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (3,)}"),
    "code in the header": npy(
        b"{'descr': __import__('os').system('true'), 'fortran_order': False, 'shape': (3,)}"
    ),
    "a header of 4 GB": npy(b"{", 2**32 - 1, b"\x02\x00"),
    "a deep header": npy(b"(" * 9000 + b")" * 900),
    "a huge shape": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 99999999999)}"),
    "an array that leaves the file": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000, 1000)}"),
    "a negative shape": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -16)}"),
    "missing fields": npy(b"{'descr': '<f4'}"),
    "cut off": b"\x93NUMPY\x01",
}


@pytest.mark.parametrize("attack", NPY)
def test_numpy(attack: str, references: ReferenceSet, tmp_path: Path):
    (tmp_path / "m.npy").write_bytes(NPY[attack])
    judged(tmp_path / "m.npy", references)


def seeds(tmp_path: Path) -> list[bytes]:
    rng = np.random.default_rng(2)
    weights = {f"{n}.weight": rng.standard_normal((96, 96)).astype(np.float32) for n in "abcdefg"}
    paths = [
        t.write(t.Leak(weights), tmp_path / "st")[0],
        t.write_gguf(tmp_path / "m.gguf", weights, "Q8_0"),
        c.write_checkpoint(tmp_path / "m.pt", weights),
    ]
    np.savez(tmp_path / "m.npz", **weights)
    return [p.read_bytes() for p in [*paths, tmp_path / "m.npz"]]


@pytest.fixture(scope="module")
def seed_files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return seeds(tmp_path_factory.mktemp("seeds"))


@settings(
    deadline=None,
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "250")),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_mutated_files_raise_nothing(
    data: st.DataObject, seed_files: list[bytes], references: ReferenceSet, tmp_path: Path
):
    blob = bytearray(data.draw(st.sampled_from(seed_files)))
    edges = st.one_of(
        st.integers(0, min(3000, len(blob) - 1)), st.integers(max(0, len(blob) - 800), len(blob) - 1)
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(edges)
        piece = data.draw(st.binary(min_size=1, max_size=8))
        blob[at : at + len(piece)] = piece
    path = tmp_path / "m"
    path.write_bytes(
        bytes(blob[: data.draw(st.integers(1, len(blob)))] if data.draw(st.booleans()) else blob)
    )
    verdict = scan(path, references)
    assert verdict.outcome in (Outcome.INCONCLUSIVE, Outcome.NO_MATCH)
    assert verdict.to_bytes()


def test_hostile_names_are_shortened_and_printable(tmp_path: Path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors({"\x1b[31m" + "x" * 5000: row(0, 1 << 40)}, bytes(64)))
    source = LocalSource(path, Budget(), Ledger())
    with pytest.raises(HostileError) as caught:
        open_inside(source, Suspect())
    source.close()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
