"""Zip archives as hostile input: members as sources, without ever unpacking more than was promised and is allowed.

PyTorch checkpoints and `.npz` files are zip archives whose members are stored plainly, so their bytes can be read by
ranges. Compressed members are inflated only when small. Refused: encrypted members, members that overlap each other (the
trick of small archives that unpack to petabytes), directories over 8 MiB, sizes that are not kept.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Sequence

from artifacts.leaks.errors import HostileError, UnreadableError, UnsupportedError, shown
from artifacts.leaks.sources import ByteSource, check_range

MAX_READ = 8 << 20
MAX_MEMBERS = 100_000
MAX_INFLATED = 64 << 20
TAIL = 64 * 1024
MAX_AHEAD = 64 * 1024
_LOCAL = struct.Struct("<4s5H3I2H")


class _Window(io.RawIOBase):
    """A source as the file object that `zipfile` wants; reads are capped, the tail is fetched once."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._at = 0
        self._tail_start = max(0, source.size - TAIL)
        self._tail = source.read(self._tail_start, source.size - self._tail_start)

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._source.size}[whence]
        if base + offset < 0:
            raise OSError("seek before the start")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._source.size - self._at)
        count = left if size is None or size < 0 else min(size, left)
        if count > MAX_READ:
            raise HostileError(f"zip: a directory of {count} bytes; at most {MAX_READ} are read")
        if self._at >= self._tail_start:
            data = self._tail[self._at - self._tail_start :][:count]
        else:
            data = self._source.read(self._at, count)
        self._at += count
        return data


class StoredMember:
    """A member that is stored plainly: a range of the archive. Its place is looked up when it is first read."""

    def __init__(self, source: ByteSource, info: zipfile.ZipInfo) -> None:
        self._source = source
        self._info = info
        self._start: int | None = None
        self._head = b""

    @property
    def location(self) -> str:
        """Archive and member."""
        return f"{self._source.location}!{shown(self._info.filename)}"

    @property
    def size(self) -> int:
        """Bytes of the member."""
        return self._info.file_size

    @property
    def bytes_left(self) -> int:
        """As the archive."""
        return self._source.bytes_left

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`."""
        return self.read_many([(offset, length)])[0]

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The same for several ranges."""
        for offset, length in ranges:
            check_range(self.location, self.size, offset, length)
        if self._start is None:
            # The local header and the first bytes behind it in one request, where that is what is asked for.
            wanted = ranges[0][1] if len(ranges) == 1 and ranges[0][0] == 0 else 0
            self._start, self._head = _data_start(
                self._source, self._info, wanted if wanted <= MAX_AHEAD else 0
            )
        start = self._start
        if len(ranges) == 1 and sum(ranges[0]) <= len(self._head):
            return [self._head[ranges[0][0] : sum(ranges[0])]]
        return self._source.read_many([(start + offset, length) for offset, length in ranges])


class InflatedMember:
    """A small compressed member, inflated into memory when it is first read."""

    def __init__(self, source: ByteSource, info: zipfile.ZipInfo) -> None:
        self._source = source
        self._info = info
        self._data: bytes | None = None

    @property
    def location(self) -> str:
        """Archive and member."""
        return f"{self._source.location}!{shown(self._info.filename)}"

    @property
    def size(self) -> int:
        """Bytes once inflated, as promised."""
        return self._info.file_size

    @property
    def bytes_left(self) -> int:
        """As the archive."""
        return self._source.bytes_left

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`."""
        check_range(self.location, self.size, offset, length)
        if self._data is None:
            self._data = _inflate(self._source, self._info)
        return self._data[offset : offset + length]

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The same for several ranges."""
        return [self.read(offset, length) for offset, length in ranges]


def _data_start(source: ByteSource, info: zipfile.ZipInfo, ahead: int = 0) -> tuple[int, bytes]:
    """Where a member's data start, and up to `ahead` of its bytes that came with the local header."""
    names = len(info.filename.encode()) + 96  # extra fields are short; if they are not, nothing came along
    length = _LOCAL.size if not ahead else min(_LOCAL.size + names + ahead, source.size - info.header_offset)
    check_range(source.location, source.size, info.header_offset, max(length, _LOCAL.size))
    head = source.read(info.header_offset, max(length, _LOCAL.size))
    fields = _LOCAL.unpack(head[: _LOCAL.size])
    if fields[0] != b"PK\x03\x04":
        raise HostileError(f"zip: {shown(info.filename)} is not where the directory says")
    skip = _LOCAL.size + int(fields[9]) + int(fields[10])
    start = info.header_offset + skip
    check_range(source.location, source.size, start, info.compress_size)
    return start, head[skip : skip + info.compress_size]


def _inflate(source: ByteSource, info: zipfile.ZipInfo) -> bytes:
    if info.file_size > MAX_INFLATED:
        raise UnsupportedError(
            f"zip: {shown(info.filename)} is compressed and large: only the whole file can tell"
        )
    packed = source.read(_data_start(source, info)[0], info.compress_size)
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = unpacker.decompress(packed, info.file_size + 1)
    except zlib.error as error:
        raise HostileError(f"zip: {shown(info.filename)} is damaged") from error
    if len(data) != info.file_size or not unpacker.eof:
        raise HostileError(
            f"zip: {shown(info.filename)} is not of the {info.file_size} bytes that it promises"
        )
    if zlib.crc32(data) != info.CRC:
        raise HostileError(f"zip: {shown(info.filename)} is damaged")
    return data


def members(source: ByteSource) -> dict[str, zipfile.ZipInfo]:
    """The members of an archive by name.

    Raises:
        UnreadableError: if the directory is hostile or damaged.
    """
    try:
        with zipfile.ZipFile(_Window(source)) as archive:
            found = archive.infolist()
    except UnreadableError:
        raise
    except Exception as error:
        raise HostileError(f"zip: the directory cannot be read: {type(error).__name__}") from error
    if len(found) > MAX_MEMBERS:
        raise HostileError(f"zip: {len(found)} members; at most {MAX_MEMBERS} are read")
    out: dict[str, zipfile.ZipInfo] = {}
    end = 0
    for info in sorted(found, key=lambda i: i.header_offset):
        if info.header_offset < end:
            raise HostileError(f"zip: member {shown(info.filename)} overlaps the one before it")
        end = info.header_offset + _LOCAL.size + info.compress_size
        if end > source.size or info.compress_size < 0 or info.file_size < 0:
            raise HostileError(f"zip: member {shown(info.filename)} leaves the archive")
        if (
            info.compress_type == zipfile.ZIP_STORED
            and info.compress_size != info.file_size
            and not info.flag_bits & 1
        ):
            raise HostileError(f"zip: member {shown(info.filename)} has two sizes")
        if info.filename in out:
            raise HostileError(f"zip: two members are called {shown(info.filename)}")
        out[info.filename] = info
    return out


def open_member(source: ByteSource, info: zipfile.ZipInfo) -> StoredMember | InflatedMember:
    """A member as a source.

    Raises:
        UnsupportedError: if it is encrypted or packed by an unknown method.
    """
    if info.flag_bits & 1:
        raise UnsupportedError(f"zip: {shown(info.filename)} is encrypted")
    if info.compress_type == zipfile.ZIP_STORED:
        return StoredMember(source, info)
    if info.compress_type == zipfile.ZIP_DEFLATED:
        return InflatedMember(source, info)
    raise UnsupportedError(f"zip: {shown(info.filename)} is packed by method {info.compress_type}")
