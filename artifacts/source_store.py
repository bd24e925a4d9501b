"""Plaintext that lies in a store: sealed straight out of S3 or the Hub, without a copy on a disk in between.

An object is identified by its ETag (on the Hub: by its commit and blob); a read that meets other bytes is a
`SourceChangedError`. Each thread keeps one window of an object, so that a part costs few requests. Nothing here writes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from artifacts.body import Plaintext
from artifacts.errors import ObjectMissing, SourceChangedError, SourceError, StaleObject, StoreError
from artifacts.paths import check_paths
from artifacts.stores.base import ObjectInfo, Store

WINDOW = 8 * 1024 * 1024
"""Bytes asked for at a time."""

_CARD = "README.md"  # a Hub store keeps its own card out of its list; as a source it is a file like others


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One object as it was when it was listed."""

    store: Store = field(repr=False)
    path: str
    info: ObjectInfo

    @property
    def size(self) -> int:
        """Bytes."""
        return self.info.size

    @property
    def identity(self) -> tuple[str, ...]:
        """ETag and size."""
        return self.info.etag, str(self.info.size)

    def open(self) -> Plaintext:
        """Begin to read it."""
        opened = _Opened(self)
        self.check(opened)
        return opened

    def check(self, opened: Plaintext) -> None:
        """Raise `SourceChangedError` unless the store still holds what was listed."""
        now = self.store.stat(self.info.key)
        if now is None or (now.etag, now.size) != (self.info.etag, self.info.size):
            raise SourceChangedError(
                f"{self.path}: changed in {self.store.uri} while it was sealed; stop what writes to it and seal again"
            )


class _Opened:
    """Reads one object through windows, one a thread."""

    def __init__(self, file: StoredFile) -> None:
        self._file = file
        self._windows = threading.local()

    def read_at(self, into: memoryview, offset: int) -> int:
        """See `artifacts.body.ReadsAt`."""
        info = self._file.info
        count = min(len(into), info.size - offset)
        if count <= 0:
            return 0
        start, data = getattr(self._windows, "at", (0, b""))
        if not start <= offset < start + len(data):
            start = offset
            try:
                data = self._file.store.get_range(info.key, start, min(WINDOW, info.size - start))
            except (StaleObject, ObjectMissing):
                raise SourceChangedError(
                    f"{self._file.path}: changed in {self._file.store.uri} while it was read; seal again"
                ) from None
            self._windows.at = (start, data)
        piece = data[offset - start : offset - start + count]
        into[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        """Forget the windows."""
        self._windows = threading.local()


class StoreTree:
    """All objects of a store as a source of plaintext.

    Args:
        store: opened at what is to be sealed.
        label: how to name it, where that differs from the store's address.
        only: the one key to take; None takes all.
    """

    def __init__(self, store: Store, *, label: str | None = None, only: str | None = None) -> None:
        self._store, self._label, self._only = store, label or store.uri, only

    @property
    def label(self) -> str:
        """Its address."""
        return self._label

    def scan(self) -> list[StoredFile]:
        """All objects, ordered by path.

        Raises:
            SourceError: nothing there.
            PathError: a name that not every disk can hold, or two that collide.
        """
        if self._only is not None:
            one = self._store.stat(self._only)
            found = [] if one is None else [one]
        else:
            found = list(self._store.list())
            card = self._store.stat(_CARD) if all(info.key != _CARD for info in found) else None
            found += [] if card is None else [card]
        if not found:
            raise SourceError(f"{self._label}: holds no file")
        found.sort(key=lambda info: info.key.encode())
        check_paths(info.key for info in found)
        return [StoredFile(self._store, info.key, info) for info in found]

    def close(self) -> None:
        """Give back the store's connections."""
        self._store.close()


def open_source(uri: str, open_at: Callable[[str], Store]) -> StoreTree:
    """The plaintext at `s3://bucket/prefix-or-object` or `hf:owner/name[@revision]`; close it when it is done with.

    Args:
        uri: where. On the Hub the revision is resolved to a commit first, so that the whole source is of one moment.
        open_at: opens a store at an address, with the credentials for it.

    Raises:
        SourceError: another kind of address, or nothing there.
        StoreError: the store cannot be read.
    """
    scheme = uri.partition(":")[0]
    if scheme == "hf":
        from artifacts.stores.hub import HubStore

        address, _, revision = uri.partition("@")
        with open_at(uri) as named:
            if not isinstance(named, HubStore):
                raise SourceError(f"{uri}: did not open as a repository of the Hub")
            commit = named.calls.head(revision or "main")
        return StoreTree(open_at(f"{address}@{commit}"), label=f"{address}@{commit}")
    if scheme != "s3":
        raise SourceError(f"{uri}: expected a path, s3://bucket/prefix or hf:owner/name")
    whole = open_at(uri)
    if next(iter(whole.list()), None) is not None:
        return StoreTree(whole)
    parent, _, name = uri.rstrip("/").rpartition("/")
    if name and parent != "s3:/":
        holder = open_at(parent)
        try:
            there = holder.stat(name)
        except StoreError:
            there = None
        if there is not None:
            whole.close()
            return StoreTree(holder, label=uri, only=name)
        holder.close()
    whole.close()
    raise SourceError(f"{uri}: there is nothing below it")
