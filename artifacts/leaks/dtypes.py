"""Number formats: raw bytes to float32, block by block.

A codec decodes whole blocks of `items` weights in `size` bytes; plain formats have blocks of one weight. The decoded array
is float32; NaN and infinity become 0, because a stranger's file may hold them and one of them would spoil every sum.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from artifacts.leaks.errors import UnsupportedError

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Codec:
    """One number format.

    Attributes:
        name: as the safetensors or GGUF specification calls it.
        items: weights per block.
        size: bytes per block.
        raw: decodes whole blocks into any float array; use `decode`.
    """

    name: str
    items: int
    size: int
    raw: Callable[[bytes], npt.NDArray[Any]]

    def nbytes(self, count: int) -> int:
        """Bytes that `count` weights take (a whole number of blocks)."""
        return -(-count // self.items) * self.size

    def decode(self, data: bytes) -> F32:
        """All weights in `data`, a whole number of blocks, as finite float32."""
        with np.errstate(all="ignore"):
            values = np.asarray(self.raw(data), dtype=np.float32).reshape(-1)
        if not np.isfinite(values).all():
            values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        return values


def _bf16(data: bytes) -> F32:
    return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)


@cache
def _fp8_table(exponent_bits: int, bias: int, flavour: str) -> F32:
    """The 256 values of an 8-bit float. Flavours: `ieee` has infinities, `fn` one NaN per sign, `fnuz` one NaN at -0."""
    mantissa_bits = 7 - exponent_bits
    code = np.arange(256)
    sign = np.where(code & 0x80, -1.0, 1.0)
    exponent = (code >> mantissa_bits) & ((1 << exponent_bits) - 1)
    mantissa = (code & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    value = np.where(
        exponent == 0, mantissa * 2.0 ** (1 - bias), (1 + mantissa) * 2.0 ** (exponent.astype(float) - bias)
    )
    value = (sign * value).astype(np.float32)
    if flavour == "ieee":
        value[exponent == (1 << exponent_bits) - 1] = 0.0
    elif flavour == "fn":
        value[[0x7F, 0xFF]] = 0.0
    else:
        value[0x80] = 0.0
    return value


def _fp8(exponent_bits: int, bias: int, flavour: str) -> Callable[[bytes], F32]:
    def decode(data: bytes) -> F32:
        return _fp8_table(exponent_bits, bias, flavour)[np.frombuffer(data, np.uint8)]

    return decode


def _plain(dtype: str) -> Callable[[bytes], npt.NDArray[Any]]:
    def decode(data: bytes) -> npt.NDArray[Any]:
        return np.frombuffer(data, dtype)

    return decode


PLAIN: dict[str, Codec] = {
    "F64": Codec("F64", 1, 8, _plain("<f8")),
    "F32": Codec("F32", 1, 4, _plain("<f4")),
    "F16": Codec("F16", 1, 2, _plain("<f2")),
    "BF16": Codec("BF16", 1, 2, _bf16),
    "F8_E4M3": Codec("F8_E4M3", 1, 1, _fp8(4, 7, "fn")),
    "F8_E5M2": Codec("F8_E5M2", 1, 1, _fp8(5, 15, "ieee")),
    "F8_E4M3FNUZ": Codec("F8_E4M3FNUZ", 1, 1, _fp8(4, 8, "fnuz")),
    "F8_E5M2FNUZ": Codec("F8_E5M2FNUZ", 1, 1, _fp8(5, 16, "fnuz")),
    "I8": Codec("I8", 1, 1, _plain("i1")),
}

# Sizes of formats that hold no plain weights (indices, masks, packed quantisations of unknown layout): enough to check
# a table of tensors against, never decoded.
OPAQUE_SIZES: dict[str, int] = {
    "BOOL": 1, "U8": 1, "I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8, "F8_E8M0": 1, "C64": 8,
}  # fmt: skip


@cache
def ggml_codec(type_id: int) -> Codec | None:
    """The codec of a GGML tensor type, through the `gguf` library; None for a type that it cannot decode.

    Raises:
        UnsupportedError: if `gguf` is not installed (`pip install sluice-release[leaks]`) or the number is unknown.
    """
    try:
        constants: Any = importlib.import_module("gguf.constants")
        quants: Any = importlib.import_module("gguf.quants")
    except ImportError as error:
        raise UnsupportedError(
            "GGUF files need the `gguf` library: pip install 'sluice-release[leaks]'"
        ) from error
    try:
        kind = constants.GGMLQuantizationType(type_id)
    except ValueError as error:
        raise UnsupportedError(
            f"unknown GGML tensor type {type_id}: an unknown quantisation is never called 'no'"
        ) from error
    items, size = constants.GGML_QUANT_SIZES[kind]
    if kind.name in PLAIN:
        return PLAIN[kind.name]
    if kind not in getattr(quants, "_type_traits", {}):
        return None

    def decode(data: bytes) -> npt.NDArray[Any]:
        blocks = np.frombuffer(data, np.uint8).reshape(1, -1)
        values: npt.NDArray[Any] = quants.dequantize(blocks, kind)
        return values

    return Codec(kind.name, int(items), int(size), decode)


def ggml_block(type_id: int) -> tuple[str, int, int]:
    """Name, weights per block and bytes per block of a GGML type, decodable or not (see `ggml_codec` for errors)."""
    constants: Any = importlib.import_module("gguf.constants")
    kind = constants.GGMLQuantizationType(type_id)
    items, size = constants.GGML_QUANT_SIZES[kind]
    return str(kind.name), int(items), int(size)
