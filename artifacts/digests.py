"""Digests of a file's plaintext while its parts are sealed or opened out of order by several threads."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from artifacts.errors import ArtifactError

DEFAULT_DIGESTS = ("sha256",)


class Hasher(Protocol):
    """What hashlib's and BLAKE3's objects have in common."""

    def update(self, data: memoryview, /) -> Any:
        """Take in bytes."""
        ...

    def hexdigest(self) -> str:
        """The digest so far."""
        ...


def _blake3() -> Hasher:
    try:
        from blake3 import blake3
    except ImportError:
        raise ArtifactError("digest blake3: needs the package `blake3`; install it or use sha256") from None
    return blake3()


_MAKE: Mapping[str, Callable[[], Hasher]] = {"sha256": hashlib.sha256, "blake3": _blake3}


def new_hashers(names: Sequence[str]) -> dict[str, Hasher]:
    """A fresh hasher per name; `sha256` and `blake3` are known."""
    unknown = sorted(set(names) - set(_MAKE))
    if unknown or not names:
        raise ArtifactError(f"digests {list(names)}: give at least one of {sorted(_MAKE)}")
    return {name: _MAKE[name]() for name in names}


class Aborted(Exception):  # noqa: N818 - not an error of its own: another thread has already failed
    """Another thread of the same transfer failed; this one stops."""


class InOrder:
    """Lets part 0, 1, 2 ... through one after another, whichever thread brings them."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._next = 0
        self._aborted = False

    def run(self, index: int, action: Callable[[], None]) -> None:
        """Wait for this index's turn, then run `action` alone."""
        with self._turn:
            self._turn.wait_for(lambda: self._aborted or self._next == index)
            if self._aborted:
                raise Aborted
        # Only the thread whose turn it is gets here, so the lock need not be held while hashing.
        action()
        with self._turn:
            self._next = index + 1
            self._turn.notify_all()

    def abort(self) -> None:
        """Wake everyone who waits; their `run` raises `Aborted`."""
        with self._turn:
            self._aborted = True
            self._turn.notify_all()
