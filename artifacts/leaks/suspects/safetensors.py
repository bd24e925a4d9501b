"""safetensors headers, read as hostile input.

Layout: 8 bytes little-endian header length, that many bytes of JSON, then the data. Checked here, before anything is
believed: the length against a cap and the file, the JSON's depth and repeated keys, every dtype, shape and offset, the
product of the shape against the bytes, and that no two tensors share bytes.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

from artifacts.leaks.dtypes import OPAQUE_SIZES, PLAIN
from artifacts.leaks.errors import HostileError, UnreadableError, shown
from artifacts.leaks.sources import ByteSource
from artifacts.leaks.suspects.tensor import MAX_DIMENSIONS, SuspectTensor

MAX_HEADER = 32 << 20
MAX_TENSORS = 200_000
FIRST_READ = 64 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a header: name, dtype, shape, and the tensor's bytes relative to the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


def looks_like(head: bytes, size: int) -> bool:
    """Whether a file that starts with `head` claims to be safetensors."""
    return len(head) > 8 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] >= 2 and size > 8


def header_length(head: bytes, size: int) -> int:
    """The length of the JSON, from the first 8 bytes.

    Raises:
        HostileError: if it is over the cap or leaves the file.
    """
    if len(head) < 8:
        raise HostileError("safetensors: the file is shorter than its length field")
    (length,) = struct.unpack("<Q", head[:8])
    if length > MAX_HEADER:
        raise HostileError(f"safetensors: a header of {length} bytes; at most {MAX_HEADER} are read")
    if 8 + length > size:
        raise HostileError(f"safetensors: a header of {length} bytes in a file of {size}")
    return int(length)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise HostileError("safetensors: the header names a tensor or a field twice")
    return out


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 53:
        raise HostileError("safetensors: a size or offset that is not a whole number in range")
    return value


def parse_header(text: bytes, size: int) -> list[Entry]:
    """Entries of a header, ordered by offset.

    Args:
        text: the JSON.
        size: of the whole file, against which every offset is checked.

    Raises:
        HostileError: with the first thing that does not add up.
    """
    try:
        table = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, ValueError) as error:
        raise HostileError(f"safetensors: the header is not JSON: {type(error).__name__}") from error
    if not isinstance(table, dict):
        raise HostileError("safetensors: the header is not an object")
    table.pop("__metadata__", None)
    if len(table) > MAX_TENSORS:
        raise HostileError(f"safetensors: {len(table)} tensors; at most {MAX_TENSORS} are read")
    start = 8 + len(text)
    entries = [_entry(name, row, start, size) for name, row in table.items()]
    entries.sort(key=lambda e: (e.offset, e.nbytes))
    end = start
    for entry in entries:
        if entry.offset < end:
            raise HostileError(f"safetensors: tensor {shown(entry.name)} overlaps the one before it")
        end = entry.offset + entry.nbytes
    return entries


def _entry(name: str, row: object, start: int, size: int) -> Entry:
    if not isinstance(row, dict):
        raise HostileError(f"safetensors: the entry of {shown(name)} is not an object")
    dtype, shape, offsets = row.get("dtype"), row.get("shape"), row.get("data_offsets")
    if (
        not isinstance(dtype, str)
        or not isinstance(shape, list)
        or not isinstance(offsets, list)
        or len(offsets) != 2
    ):
        raise HostileError(f"safetensors: the entry of {shown(name)} lacks dtype, shape or data_offsets")
    if len(shape) > MAX_DIMENSIONS:
        raise HostileError(f"safetensors: {shown(name)} has {len(shape)} dimensions")
    begin, end = _whole(offsets[0]), _whole(offsets[1])
    count = 1
    for side in shape:
        count *= _whole(side)
        if count >= 1 << 53:
            raise HostileError(f"safetensors: {shown(name)} has an impossible shape")
    if begin > end or start + end > size:
        raise HostileError(f"safetensors: {shown(name)} at {begin}..{end} leaves the file of {size} bytes")
    item = PLAIN[dtype].size if dtype in PLAIN else OPAQUE_SIZES.get(dtype)
    if item is not None and count * item != end - begin:
        raise HostileError(f"safetensors: {shown(name)} is {shown(dtype)}{shape} but has {end - begin} bytes")
    return Entry(name, dtype, tuple(shape), start + begin, end - begin)


def read(source: ByteSource) -> list[SuspectTensor]:
    """The tensors of a safetensors file, from its header alone (one or two reads).

    Raises:
        UnreadableError: hostile or unreadable header.
    """
    head = source.read(0, min(FIRST_READ, source.size))
    length = header_length(head, source.size)
    if 8 + length > source.bytes_left + len(head):
        raise UnreadableError(f"safetensors: a header of {length} bytes is over the scan's byte budget")
    text = head[8 : 8 + length]
    if len(text) < length:
        text += source.read(len(head), length - len(text))
    return [
        SuspectTensor(
            name=entry.name,
            shape=entry.shape,
            dtype=entry.dtype,
            codec=PLAIN.get(entry.dtype),
            source=source,
            offset=entry.offset,
            nbytes=entry.nbytes,
            problem=None
            if entry.dtype in PLAIN
            else f"format {shown(entry.dtype, 20)} holds no plain weights",
        )
        for entry in parse_header(text, source.size)
    ]
