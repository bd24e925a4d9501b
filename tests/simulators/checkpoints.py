"""PyTorch checkpoints, made by hand from opcodes: the real library is large, and the evil ones it would not write."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np

from tests.simulators.transformations import Weights, encode

STORAGES = {"F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage", "I8": "CharStorage"}


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def global_(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def tuple_(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def storage(key: str, kind: str, count: int) -> bytes:
    return tuple_(text("storage"), global_("torch", kind), text(key), text("cpu"), number(count)) + b"Q"


def tensor(saved: bytes, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    ordered = global_("collections", "OrderedDict") + b")R"
    arguments = tuple_(
        saved, number(offset), tuple_(*map(number, shape)), tuple_(*map(number, strides)), b"\x89", ordered
    )
    return global_("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def state_dict(entries: dict[str, bytes]) -> bytes:
    body = b"".join(text(name) + value for name, value in entries.items())
    return b"\x80\x02" + global_("collections", "OrderedDict") + b")R(" + body + b"u."


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides = []
    step = 1
    for side in reversed(shape):
        strides.append(step)
        step *= side
    return tuple(reversed(strides))


def write_archive(path: Path, pickle: bytes, storages: dict[str, bytes], *, compress: bool = False) -> Path:
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", pickle)
        archive.writestr("archive/byteorder", "little")
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", "3\n")
    return path


def write_checkpoint(
    path: Path, weights: Weights, form: str = "F32", *, transposed: bool = False, compress: bool = False
) -> Path:
    """A state dict as `torch.save` writes it: one storage per tensor."""
    entries: dict[str, bytes] = {}
    storages: dict[str, bytes] = {}
    for key, (name, w) in enumerate(weights.items()):
        kind = form if w.ndim == 2 else "F32"
        flip = transposed and w.ndim == 2
        storages[str(key)] = encode(np.ascontiguousarray(w.T) if flip else w, kind)
        strides = (1, w.shape[0]) if flip else row_major(w.shape)
        entries[name] = tensor(storage(str(key), STORAGES[kind], w.size), 0, w.shape, strides)
    return write_archive(path, state_dict(entries), storages, compress=compress)
