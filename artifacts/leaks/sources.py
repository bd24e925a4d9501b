"""Where a suspect's bytes come from, counted and written down.

Invariants: no read is larger than what the budget has left; every answer is recorded in the ledger with offset, length,
SHA-256 and time, so that somebody else can repeat the scan; a source never returns fewer bytes than asked for.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from artifacts.leaks.errors import BudgetError, SourceFailure, UnreadableError, shown

MIB = 1 << 20
DEFAULT_BUDGET_BYTES = 8 * MIB


@dataclass(frozen=True, slots=True)
class Access:
    """One answer that a scan is built on.

    Attributes:
        location: where it was read: a path, or an address without its query (presigned queries are secrets).
        offset: first byte, or None for a listing.
        length: bytes received.
        sha256: hex digest of the bytes received.
        at: when the answer was complete, UTC, ISO 8601.
        status: HTTP status where there was one.
    """

    location: str
    offset: int | None
    length: int
    sha256: str
    at: str
    status: int | None = None


@dataclass
class Budget:
    """What one scan may spend: bytes received, requests made, seconds on the clock, and per silence. Thread-safe."""

    max_bytes: int = DEFAULT_BUDGET_BYTES
    max_requests: int = 400
    max_seconds: float = 60.0
    max_wait: float = 10.0
    clock: Callable[[], float] = time.monotonic
    bytes_used: int = 0
    requests_used: int = 0
    started: float = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self.started = self.clock()

    @property
    def bytes_left(self) -> int:
        """Bytes that may still be received."""
        return self.max_bytes - self.bytes_used

    @property
    def seconds_left(self) -> float:
        """Seconds until the scan must have ended; may be negative."""
        return self.max_seconds - (self.clock() - self.started)

    def reserve(self, count: int) -> None:
        """Take `count` bytes and one request out of the budget before they are asked for.

        Raises:
            BudgetError: if the bytes, requests or seconds do not suffice. Nothing is taken then.
        """
        with self._lock:
            if self.seconds_left <= 0:
                raise BudgetError(
                    f"the scan's {self.max_seconds:g} s are over; raise the time budget to go on"
                )
            if self.requests_used + 1 > self.max_requests:
                raise BudgetError(f"the scan's {self.max_requests} requests are used up")
            if count > self.bytes_left:
                raise BudgetError(
                    f"reading {count} more bytes would exceed the byte budget of {self.max_bytes} "
                    f"({self.bytes_used} read so far); raise the budget or scan the whole file"
                )
            self.requests_used += 1
            self.bytes_used += count

    def take(self, count: int) -> None:
        """Count bytes that came without having been reserved, of answers whose length nobody knows before.

        Raises:
            BudgetError: if the bytes or seconds are used up.
        """
        with self._lock:
            self.bytes_used += count
            if self.bytes_used > self.max_bytes:
                raise BudgetError(f"more than the {self.max_bytes} bytes that all answers together may have")
            if self.seconds_left <= 0:
                raise BudgetError(f"too slow, the {self.max_seconds:g} s are over")


@dataclass
class Ledger:
    """The list of every answer a scan received, in order of arrival. Thread-safe."""

    accesses: list[Access] = field(default_factory=list)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def record(self, location: str, offset: int | None, data: bytes, status: int | None = None) -> None:
        """Write down one answer."""
        access = Access(
            location=location,
            offset=offset,
            length=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            at=self.now().isoformat(timespec="milliseconds"),
            status=status,
        )
        with self._lock:
            self.accesses.append(access)


class ByteSource(Protocol):
    """Random access to one suspect file."""

    @property
    def location(self) -> str:
        """Printable name of the place, free of secrets."""
        ...

    @property
    def size(self) -> int:
        """Size of the whole file in bytes."""
        ...

    @property
    def bytes_left(self) -> int:
        """Bytes that the scan's budget still allows."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`.

        Raises:
            UnreadableError: budget, bounds, or a source that fails.
        """
        ...

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The same for several ranges (offset, length), in their order; neighbours may share a request."""
        ...


def check_range(location: str, size: int, offset: int, length: int) -> None:
    """Refuse a range that leaves the file.

    Raises:
        UnreadableError: if it does.
    """
    if offset < 0 or length < 0 or offset + length > size:
        raise UnreadableError(f"{location}: bytes {offset}+{length} lie outside the file of {size} bytes")


def coalesce(ranges: Sequence[tuple[int, int]], gap: int) -> list[tuple[int, int, list[int]]]:
    """Merge ranges that overlap or are at most `gap` bytes apart: (offset, length, indexes of the ranges inside)."""
    merged: list[tuple[int, int, list[int]]] = []
    for index in sorted(range(len(ranges)), key=lambda i: ranges[i]):
        offset, length = ranges[index]
        if merged and offset <= merged[-1][0] + merged[-1][1] + gap:
            start, held, inside = merged[-1]
            merged[-1] = (start, max(held, offset + length - start), [*inside, index])
        else:
            merged.append((offset, length, [index]))
    return merged


def split_merged(
    ranges: Sequence[tuple[int, int]], merged: Sequence[tuple[int, int, list[int]]], blobs: Sequence[bytes]
) -> list[bytes]:
    """Cut the answers to `coalesce`d ranges back into the ranges that were asked for."""
    out: list[bytes] = [b""] * len(ranges)
    for (start, _, inside), blob in zip(merged, blobs, strict=True):
        for index in inside:
            offset, length = ranges[index]
            out[index] = blob[offset - start : offset - start + length]
    return out


class LocalSource:
    """A file on this machine. Symbolic links are followed; devices, sockets and pipes are refused."""

    def __init__(self, path: Path, budget: Budget, ledger: Ledger) -> None:
        self._path = path
        self._budget = budget
        self._ledger = ledger
        try:
            if not path.is_file():
                raise SourceFailure(f"{shown(path)}: not a regular file")
            self._file = path.open("rb")
            self._size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise SourceFailure(f"{shown(path)}: cannot be opened: {error.strerror}") from error

    @property
    def location(self) -> str:
        """The path, printable."""
        return shown(self._path, 400)

    @property
    def size(self) -> int:
        """Size when it was opened."""
        return self._size

    @property
    def bytes_left(self) -> int:
        """Bytes that the budget still allows."""
        return self._budget.bytes_left

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset` (see `ByteSource`)."""
        check_range(self.location, self._size, offset, length)
        self._budget.reserve(length)
        try:
            data = os.pread(self._file.fileno(), length, offset)
        except OSError as error:
            raise SourceFailure(f"{self.location}: read failed at {offset}: {error.strerror}") from error
        if len(data) != length:
            raise SourceFailure(f"{self.location}: the file became shorter while it was read")
        self._ledger.record(self.location, offset, data)
        return data

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several ranges, one read each."""
        return [self.read(offset, length) for offset, length in ranges]

    def close(self) -> None:
        """Close the file."""
        self._file.close()
