"""Safetensors inside sealed files: the index, one tensor by ranged reads, and `safe_open` without plaintext on disk.

A safetensors file is 8 bytes of header length (little-endian), a JSON header, and the tensors' bytes. Headers here may be
hostile: the length is capped before anything is allocated, every offset is checked, and tensors must tile the data
exactly (no holes, no overlaps), as the format demands.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from artifacts.errors import ArtifactError, IntegrityError

MAX_HEADER = 100_000_000
"""The format's own limit, as its reference implementation has it."""

MAX_TENSORS = 1_000_000

_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
_NUMPY = {
    "BOOL": "?", "U8": "<u1", "I8": "<i1", "I16": "<i2", "U16": "<u2", "F16": "<f2", "I32": "<i4", "U32": "<u4",
    "F32": "<f4", "I64": "<i8", "U64": "<u8", "F64": "<f8", "C64": "<c8",
}  # fmt: skip

ReadAt = Callable[[int, int], bytes]
"""(offset, length) -> exactly those bytes, or an error."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: `start` and `end` are byte offsets in the file, header included."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor's bytes, little-endian, as they lie in the file."""

    info: TensorInfo
    data: bytes | bytearray

    def __repr__(self) -> str:
        return f"Tensor({self.info.name!r}, {self.info.dtype}, {list(self.info.shape)})"

    def numpy(self) -> NDArray[Any]:
        """As an array of the tensor's shape. BF16 widens to float32, exactly; 8-bit and smaller floats stay bytes (uint8)."""
        dtype, shape = self.info.dtype, self.info.shape
        if dtype == "BF16":
            wide = np.frombuffer(self.data, "<u2").astype("<u4") << 16
            return wide.view("<f4").reshape(shape)
        if dtype in _NUMPY:
            return np.frombuffer(self.data, _NUMPY[dtype]).reshape(shape)
        flat = np.frombuffer(self.data, np.uint8)
        return flat.reshape(shape) if _BITS[dtype] == 8 else flat


def read_index(read_at: ReadAt, size: int, where: str) -> dict[str, TensorInfo]:
    """The tensors of a safetensors file of `size` bytes, read through `read_at` (two reads: length, header).

    Raises:
        IntegrityError: not a well-formed safetensors file; says which rule it breaks.
    """
    if size < 8:
        raise IntegrityError(f"{where}: {size} bytes are too few for a safetensors file")
    (length,) = struct.unpack("<Q", read_at(0, 8))
    if length > min(MAX_HEADER, size - 8):
        raise IntegrityError(
            f"{where}: header of {length} bytes; more than the file holds or than {MAX_HEADER}"
        )
    try:
        header = json.loads(read_at(8, length).decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise IntegrityError(f"{where}: the safetensors header is not JSON with unique names") from None
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise IntegrityError(
            f"{where}: the safetensors header is not an object of at most {MAX_TENSORS} tensors"
        )
    found = [
        _tensor(name, value, 8 + length, size, where)
        for name, value in header.items()
        if name != "__metadata__"
    ]
    position = 8 + length
    for info in sorted(found, key=lambda t: (t.start, t.end)):
        if info.start != position:
            raise IntegrityError(
                f"{where}: tensor {info.name[:120]!a}: overlaps another one or leaves a hole before it"
            )
        position = info.end
    if position != size:
        raise IntegrityError(f"{where}: the tensors end at byte {position}, the file at {size}")
    return {info.name: info for info in found}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate name")
    return found


def _tensor(name: str, value: Any, base: int, size: int, where: str) -> TensorInfo:
    shown = f"{where}: tensor {name[:120]!a}"
    try:
        dtype, shape, (start, end) = value["dtype"], value["shape"], value["data_offsets"]
        numbers = [*shape, start, end]
    except (TypeError, KeyError, ValueError):
        raise IntegrityError(f"{shown}: needs dtype, shape and data_offsets") from None
    if any(type(n) is not int or not 0 <= n <= 8 * size for n in numbers) or len(shape) > 64:
        raise IntegrityError(f"{shown}: a dimension or offset is not a number within the file")
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise IntegrityError(f"{shown}: unknown dtype {str(dtype)[:20]!a}")
    if start > end or base + end > size or (end - start) * 8 != math.prod(shape) * _BITS[dtype]:
        raise IntegrityError(f"{shown}: its offsets do not fit its shape and dtype, or leave the file")
    return TensorInfo(name, dtype, tuple(shape), base + start, base + end)


def index_to_json(index: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """The index as it stands in a manifest's inner part: name -> [dtype, shape, start, end]."""
    return {t.name: [t.dtype, list(t.shape), t.start, t.end] for t in index.values()}


def index_from_json(value: Mapping[str, Any], size: int, where: str) -> dict[str, TensorInfo]:
    """The other way round, checked: it comes from a signed place, but reading must not depend on that."""
    found: dict[str, TensorInfo] = {}
    for name, entry in value.items():
        try:
            dtype, shape, start, end = entry
            raw = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
        except (TypeError, ValueError):
            raise IntegrityError(f"{where}: tensor {name[:120]!a}: malformed index entry") from None
        found[name] = _tensor(name, raw, 0, size, where)
    return found


class _Readable(Protocol):
    @property
    def size(self) -> int: ...
    def read_at(self, offset: int, length: int) -> bytes: ...


@contextlib.contextmanager
def memory_file(source: _Readable, name: str = "sealed") -> Iterator[str]:
    """A path to the plaintext of `source` in anonymous memory (Linux memfd), for libraries that take only a path.

    Nothing reaches a disk, and the memory is gone when the context ends. It holds the whole plaintext.
    """
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, source.size)
        step = 8 * 1024 * 1024
        for offset in range(0, source.size, step):
            block = memoryview(source.read_at(offset, min(step, source.size - offset)))
            while block:
                count = os.pwrite(fd, block, offset)
                block, offset = block[count:], offset + count  # noqa: PLW2901
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


@contextlib.contextmanager
def open_safetensors(source: _Readable, framework: str = "np") -> Iterator[Any]:
    """`safetensors.safe_open` over a sealed file, without plaintext on disk.

    Raises:
        ArtifactError: the package `safetensors` is not installed.
    """
    try:
        from safetensors import safe_open
    except ImportError:
        raise ArtifactError("safe_open needs the package `safetensors`: pip install safetensors") from None

    with memory_file(source) as path, safe_open(path, framework=framework) as handle:
        yield handle
