"""PyTorch checkpoints (the zip form): tables of tensors from the walked pickle, numbers from the archive's members."""

from __future__ import annotations

import math
import zipfile

from artifacts.leaks.dtypes import PLAIN
from artifacts.leaks.errors import HostileError, UnsupportedError, shown
from artifacts.leaks.sources import ByteSource
from artifacts.leaks.suspects import archive, pickled
from artifacts.leaks.suspects.tensor import MAX_DIMENSIONS, SuspectTensor

MAX_TENSORS = 100_000
_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16", "CharStorage": "I8",
    "QInt8Storage": "I8", "Float8_e4m3fnStorage": "F8_E4M3", "Float8_e5m2Storage": "F8_E5M2",
}  # fmt: skip
_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int8": "I8", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ",
}  # fmt: skip
_OPAQUE = {
    "ByteStorage": 1,
    "BoolStorage": 1,
    "ShortStorage": 2,
    "IntStorage": 4,
    "LongStorage": 8,
    "QUInt8Storage": 1,
}


def root_of(names: dict[str, zipfile.ZipInfo]) -> str | None:
    """The folder of `data.pkl` (with its slash), if this is a checkpoint."""
    found = [n for n in names if n == "data.pkl" or n.endswith("/data.pkl")]
    return min(found, key=len).removesuffix("data.pkl") if found else None


def read(source: ByteSource, names: dict[str, zipfile.ZipInfo], root: str) -> list[SuspectTensor]:
    """The tensors of a checkpoint.

    Args:
        source: the archive.
        names: its members.
        root: from `root_of`.

    Raises:
        UnreadableError: hostile, of the other byte order, or not understood.
    """
    order = names.get(f"{root}byteorder")
    if order is not None and order.file_size < 32:
        member = archive.open_member(source, order)
        if member.read(0, member.size).strip() != b"little":
            raise UnsupportedError("PyTorch: a big-endian checkpoint is not read")
    pickle = archive.open_member(source, names[f"{root}data.pkl"])
    if pickle.size > pickled.MAX_PICKLE:
        raise HostileError(f"PyTorch: data.pkl of {pickle.size} bytes")
    found = list(pickled.tensors(pickled.walk(pickle.read(0, pickle.size))))
    if len(found) > MAX_TENSORS:
        raise HostileError(f"PyTorch: {len(found)} tensors; at most {MAX_TENSORS} are read")
    storages: dict[str, archive.StoredMember | archive.InflatedMember] = {}
    out = []
    for tensor in found:
        name = f"{root}data/{tensor.storage.key}"
        if name not in names:
            raise HostileError(
                f"PyTorch: {shown(tensor.name)} has its numbers in {shown(name)}, which is not there"
            )
        if name not in storages:
            storages[name] = archive.open_member(source, names[name])
        out.append(_tensor(tensor, storages[name]))
    return out


def _tensor(
    tensor: pickled.PickledTensor, storage: archive.StoredMember | archive.InflatedMember
) -> SuspectTensor:
    name = shown(tensor.name)
    dtype = _DTYPES.get(tensor.dtype or "") if tensor.dtype else _STORAGES.get(tensor.storage.kind)
    codec = PLAIN.get(dtype or "")
    shape, strides = tensor.shape, tensor.strides
    if (
        len(shape) != len(strides)
        or len(shape) > MAX_DIMENSIONS
        or min((*shape, *strides, tensor.offset), default=0) < 0
    ):
        raise HostileError(f"PyTorch: {name} has a shape or strides that cannot be")
    if math.prod(shape) >= 1 << 53 or tensor.offset >= 1 << 53 or max(strides, default=0) >= 1 << 53:
        raise HostileError(f"PyTorch: {name} has an impossible shape")
    item = codec.size if codec else _OPAQUE.get(tensor.storage.kind, 1)
    span = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) if math.prod(shape) else 0
    if (tensor.offset + span) * item > storage.size:
        raise HostileError(f"PyTorch: {name} leaves its storage of {storage.size} bytes")
    plain, column_major = _layout(shape, strides)
    problem = None
    if codec is None:
        problem = f"format {shown(tensor.dtype or tensor.storage.kind, 30)} holds no plain weights"
    elif not (plain or column_major):
        codec, problem = None, "a view with gaps or repeats is not read"
    return SuspectTensor(
        name=tensor.name,
        shape=shape,
        dtype=dtype or tensor.storage.kind,
        codec=codec,
        source=storage,
        offset=tensor.offset * item,
        nbytes=span * item,
        problem=problem,
        transposed=column_major and not plain,
    )


def _layout(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[bool, bool]:
    """Whether the numbers lie row-major without gaps, and whether (2-D) column-major without gaps."""
    expected = 1
    plain = True
    for side, stride in zip(reversed(shape), reversed(strides), strict=True):
        plain = plain and (stride == expected or side == 1)
        expected *= max(side, 1)
    return plain, len(shape) == 2 and strides == (1, shape[0])
