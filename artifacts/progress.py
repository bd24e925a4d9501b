"""Progress of a long transfer, told to whoever shows it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a transfer is.

    Attributes:
        path: the file that moved last.
        bytes_done: plaintext bytes done, `bytes_reused` among them.
        bytes_total: plaintext bytes in all.
        bytes_reused: of those done, how many an earlier run had done.
        files_done: files finished.
        files_total: files in all.
    """

    path: str
    bytes_done: int
    bytes_total: int
    bytes_reused: int
    files_done: int
    files_total: int


ProgressCallback = Callable[[Progress], None]


class Meter:
    """Counts from many threads and tells one callback, one call at a time, in order."""

    def __init__(self, bytes_total: int, files_total: int, tell: ProgressCallback | None) -> None:
        self._lock = threading.Lock()
        self._tell = tell
        self._bytes_total, self._files_total = bytes_total, files_total
        self._bytes = self._reused = self._files = 0

    def add(self, path: str, count: int, *, reused: bool = False, file_done: bool = False) -> None:
        """Count `count` bytes of `path`."""
        with self._lock:
            self._bytes += count
            self._reused += count if reused else 0
            self._files += 1 if file_done else 0
            if self._tell is not None:
                self._tell(
                    Progress(
                        path, self._bytes, self._bytes_total, self._reused, self._files, self._files_total
                    )
                )

    @property
    def reused(self) -> int:
        """Bytes that an earlier run had done."""
        return self._reused
