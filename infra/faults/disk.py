"""A disk that is full for a while: a file system in memory of its own, shrunk to what it holds and grown again.

Every write that needs another block then fails with ENOSPC, for whatever process writes there, as on a real full disk; reading, and
writing over what is there, goes on. It needs the right to mount (root). Without it a campaign says that it has no full disks.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_SIZE_MB = 600


def can_mount() -> bool:
    """Whether this process may mount a file system (Linux, root, and not in a container that forbids it)."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory(prefix="sluice-disk-") as made:
        place = Path(made)
        return _mount("-o", "size=4k", "tmpfs", place) and _unmount(place)


@dataclass(frozen=True)
class Disk:
    """A file system in memory at `place`. Use it as a context manager.

    Attributes:
        place: an empty folder; what is written there is gone at the end.
        mode: of its root.
        size_mb: how much fits while it is not full.
    """

    place: Path
    mode: str = "0700"
    size_mb: int = _SIZE_MB

    def __enter__(self) -> Self:
        """Mount it."""
        if not _mount("-o", f"size={self.size_mb}m,mode={self.mode}", "tmpfs", self.place):
            raise OSError(f"no file system could be mounted at {self.place}")
        return self

    def __exit__(self, *_: object) -> None:
        """Unmount it, with everything in it."""
        if not _unmount(self.place):
            subprocess.run(["umount", "--lazy", str(self.place)], check=False)  # noqa: S603, S607

    @contextmanager
    def full(self) -> Iterator[None]:
        """Full in the block: not a block is free."""
        found = os.statvfs(self.place)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        # one block is too little by design: the size is rounded up to a whole page, so that nothing is left
        self._resize(f"{max(used, found.f_frsize)}")
        try:
            yield
        finally:
            self._resize(f"{self.size_mb}m")

    def _resize(self, size: str) -> None:
        done = _mount("-o", f"remount,size={size}", self.place)
        if not done and size.endswith("m"):
            raise OSError(f"the file system at {self.place} could not be grown again")


def _mount(*words: str | Path) -> bool:
    command = ["mount", *(["-t", "tmpfs"] if "tmpfs" in words else []), *map(str, words)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0  # noqa: S603


def _unmount(place: Path) -> bool:
    return subprocess.run(["umount", str(place)], check=False, capture_output=True).returncode == 0  # noqa: S603, S607
