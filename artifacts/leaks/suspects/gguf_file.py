"""GGUF headers, read as hostile input; the weights are decoded by the `gguf` library, block by block.

Layout (little-endian): magic, version, tensor count, key/value count, the key/values (tokenizers make them megabytes long),
the tensor infos, padding, data. Nothing is believed: counts are walked and never allocated for, strings are skipped within a
cap of 16 MiB for the whole header, arrays of numbers are jumped over without being read, every tensor's offset and size is
checked against the file and its neighbours.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from artifacts.leaks.dtypes import Codec, ggml_block, ggml_codec
from artifacts.leaks.errors import BudgetError, HostileError, UnsupportedError, shown
from artifacts.leaks.sources import ByteSource
from artifacts.leaks.suspects.tensor import SuspectTensor

MAGIC = b"GGUF"
MAX_HEADER = 16 << 20
MAX_TENSORS = 100_000
MAX_KEYS = 65_536
MAX_DIMS = 4
MAX_DEPTH = 4
_CHUNKS = (256 << 10, 512 << 10, 1 << 20, 2 << 20)
_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY, _UINT32 = 8, 9, 4
_LENGTH = struct.Struct("<Q")


class _Cursor:
    """Walks a header, fetching it in growing pieces, and never past the cap."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._limit = min(source.size, MAX_HEADER)
        self._start = 0
        self._data = b""
        self._fetched = 0
        self.at = 0

    def _load(self, count: int) -> int:
        """Make `count` bytes at the position available; returns their index in the buffer."""
        index = self.at - self._start
        if index + count <= len(self._data):
            return index
        if self.at + count > self._limit:
            what = "the file ends" if self._limit == self._source.size else f"it is over {MAX_HEADER} bytes"
            raise HostileError(f"GGUF: the header does not end before {what}")
        step = _CHUNKS[min(self._fetched, len(_CHUNKS) - 1)]
        self._fetched += 1
        kept = self._data[index:] if index < len(self._data) else b""
        begin = self.at + len(kept)
        length = min(max(step, count - len(kept)), self._limit - begin)
        # Never ask for more than the budget has, if less will do.
        length = max(min(length, self._source.bytes_left), count - len(kept))
        if length > self._source.bytes_left and begin + length > 64 * 1024:
            raise BudgetError(
                f"GGUF: the header is longer than the {self._source.bytes_left} bytes left of the budget"
            )
        self._data = kept + self._source.read(begin, length)
        self._start = self.at
        return 0

    def skip(self, count: int) -> None:
        """Jump over bytes without reading them."""
        if count < 0 or self.at + count > self._limit:
            raise HostileError("GGUF: a value leaves the header")
        self.at += count

    def u32(self) -> int:
        """An unsigned 32-bit number."""
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        """An unsigned 64-bit number."""
        return int.from_bytes(self.take(8), "little")

    def take(self, count: int) -> bytes:
        """The next bytes."""
        index = self._load(count)
        self.at += count
        return self._data[index : index + count]

    def text(self) -> str:
        """A short string (keys, names)."""
        length = self.u64()
        if length > 4096:
            raise HostileError(f"GGUF: a name of {length} bytes")
        return self.take(length).decode("utf-8", "replace")

    def skip_strings(self, count: int) -> None:
        """Jump over `count` strings; each takes at least 8 bytes, so the cap bounds the walk."""
        for _ in range(count):
            index = self._load(8)
            (length,) = _LENGTH.unpack_from(self._data, index)
            self.at += 8
            self.skip(length)


def _skip_value(cursor: _Cursor, kind: int, depth: int = 0) -> None:
    if kind in _SCALARS:
        cursor.skip(_SCALARS[kind])
    elif kind == _STRING:
        cursor.skip_strings(1)
    elif kind == _ARRAY:
        if depth >= MAX_DEPTH:
            raise HostileError(f"GGUF: arrays nested deeper than {MAX_DEPTH}")
        inner, count = cursor.u32(), cursor.u64()
        if inner in _SCALARS:
            cursor.skip(count * _SCALARS[inner])
        elif inner == _STRING:
            cursor.skip_strings(count)
        else:
            for _ in range(count):
                _skip_value(cursor, inner, depth + 1)
    else:
        raise HostileError(f"GGUF: unknown value type {kind}")


@dataclass(frozen=True, slots=True)
class _Info:
    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


def _infos(cursor: _Cursor) -> tuple[list[_Info], int]:
    """The tensor infos and the alignment of the data."""
    if cursor.take(4) != MAGIC:
        raise HostileError("GGUF: not a GGUF file")
    version = cursor.u32()
    if version not in (2, 3):
        raise UnsupportedError(f"GGUF version {version} (or another byte order) is not read")
    tensors, keys = cursor.u64(), cursor.u64()
    if tensors > MAX_TENSORS or keys > MAX_KEYS:
        raise HostileError(f"GGUF: {tensors} tensors and {keys} keys are over the caps")
    alignment = 32
    for _ in range(keys):
        key, kind = cursor.text(), cursor.u32()
        if key == "general.alignment" and kind == _UINT32:
            alignment = cursor.u32()
        else:
            _skip_value(cursor, kind)
    if not 8 <= alignment <= 1 << 20 or alignment & (alignment - 1):
        raise HostileError(f"GGUF: an alignment of {alignment}")
    infos = []
    for _ in range(tensors):
        name, count = cursor.text(), cursor.u32()
        if not 1 <= count <= MAX_DIMS:
            raise HostileError(f"GGUF: {shown(name)} has {count} dimensions")
        dims = [cursor.u64() for _ in range(count)]
        infos.append(_Info(name, tuple(reversed(dims)), cursor.u32(), cursor.u64()))
    return infos, alignment


def read(source: ByteSource) -> list[SuspectTensor]:
    """The tensors of a GGUF file, from its header alone.

    Raises:
        UnreadableError: hostile, of an unknown version, or longer than the budget.
    """
    cursor = _Cursor(source)
    infos, alignment = _infos(cursor)
    start = -(-cursor.at // alignment) * alignment
    infos.sort(key=lambda i: i.offset)
    out: list[SuspectTensor] = []
    end = start
    for number, info in enumerate(infos):
        offset = start + info.offset
        if offset < end:
            raise HostileError(f"GGUF: tensor {shown(info.name)} overlaps the one before it")
        following = start + infos[number + 1].offset if number + 1 < len(infos) else source.size
        codec, dtype, nbytes, problem = _format(info, min(following, source.size) - offset)
        end = offset + nbytes
        if end > source.size or nbytes < 0:
            raise HostileError(f"GGUF: tensor {shown(info.name)} leaves the file of {source.size} bytes")
        out.append(SuspectTensor(info.name, info.shape, dtype, codec, source, offset, nbytes, problem))
    return out


def _format(info: _Info, room: int) -> tuple[Codec | None, str, int, str | None]:
    """Codec, name, bytes, problem of a tensor; an unknown type is given the room up to the next tensor."""
    count = 1
    for side in info.shape:
        count *= side
        if count >= 1 << 53:
            raise HostileError(f"GGUF: {shown(info.name)} has an impossible shape")
    try:
        codec = ggml_codec(info.kind)
        name, items, size = ggml_block(info.kind)
    except UnsupportedError as error:
        return None, f"type {info.kind}", room, str(error)
    if info.shape[-1] % items:
        raise HostileError(f"GGUF: rows of {shown(info.name)} are not whole {name} blocks")
    nbytes = count // items * size
    return (
        codec,
        name,
        nbytes,
        None if codec is not None else f"GGML type {name} cannot be decoded by the gguf library",
    )
