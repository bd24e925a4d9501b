"""NumPy `.npy` headers as hostile input; `.npz` is an archive of them. Object arrays are pickles and are never loaded."""

from __future__ import annotations

import ast
import math

from artifacts.leaks.dtypes import PLAIN
from artifacts.leaks.errors import HostileError, UnsupportedError, shown
from artifacts.leaks.sources import ByteSource
from artifacts.leaks.suspects.tensor import MAX_DIMENSIONS, SuspectTensor

MAGIC = b"\x93NUMPY"
MAX_HEADER = 10_000  # NumPy's own limit: longer literals can crash the parser
_DTYPES = {
    "<f8": "F64",
    "<f4": "F32",
    "<f2": "F16",
    "|i1": "I8",
    "<V2": "BF16",
    "|V2": "BF16",
    "bfloat16": "BF16",
}
_SIZES = {"|b1": 1, "|u1": 1, "<u2": 2, "<i2": 2, "<i4": 4, "<u4": 4, "<i8": 8, "<u8": 8}


def read(source: ByteSource, name: str) -> SuspectTensor:
    """The array of a `.npy` file, from its header.

    Raises:
        UnreadableError: hostile, big-endian, or an array of objects.
    """
    head = source.read(0, min(source.size, MAX_HEADER + 12))
    if head[:6] != MAGIC or len(head) < 12:
        raise HostileError("NumPy: not an .npy file")
    wide = head[6] >= 2
    start = 12 if wide else 10
    length = int.from_bytes(head[8:start], "little")
    if length > MAX_HEADER or start + length > source.size:
        raise HostileError(f"NumPy: a header of {length} bytes")
    try:
        fields = ast.literal_eval(head[start : start + length].decode("utf-8" if head[6] == 3 else "latin-1"))
    except (ValueError, SyntaxError, RecursionError, MemoryError, UnicodeDecodeError) as error:
        raise HostileError("NumPy: a header that is no plain dictionary") from error
    if not isinstance(fields, dict) or set(fields) != {"descr", "fortran_order", "shape"}:
        raise HostileError("NumPy: a header without descr, fortran_order and shape")
    descr, shape, fortran = fields["descr"], fields["shape"], fields["fortran_order"]
    if isinstance(descr, str) and "O" in descr:
        raise UnsupportedError("NumPy: an array of objects is a pickle, which is never loaded")
    if (
        not isinstance(shape, tuple)
        or len(shape) > MAX_DIMENSIONS
        or any(type(n) is not int or n < 0 for n in shape)
        or not isinstance(fortran, bool)
        or math.prod(shape) >= 1 << 53
    ):
        raise HostileError("NumPy: a shape that cannot be")
    dtype = _DTYPES.get(descr) if isinstance(descr, str) else None
    codec = PLAIN.get(dtype or "")
    item = codec.size if codec else _SIZES.get(descr if isinstance(descr, str) else "")
    data = start + length
    nbytes = math.prod(shape) * item if item else source.size - data
    if data + nbytes > source.size:
        raise HostileError(f"NumPy: an array of {nbytes} bytes in a file of {source.size}")
    square = len(shape) == 2 and fortran
    problem = None if codec else f"format {shown(descr, 30)} holds no plain weights"
    if codec is not None and fortran and len(shape) > 2:
        codec, problem = None, "a column-major stack is not read"
    return SuspectTensor(
        name, shape, dtype or shown(descr, 30), codec, source, data, nbytes, problem, transposed=square
    )
