"""Where sealed bytes are read from: a store, a file, a URL. One object is a `Blob`, an artifact's files are a `Source`.

Nothing here is trusted: whatever comes back is verified by who reads it. Answers are held to the range asked for, so
that a lying server can neither shift bytes nor send without end. URLs may be presigned: they are never shown or logged.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import httpx

from artifacts.errors import AccessDenied, ObjectMissing, StoreError, StoreUnavailable
from artifacts.manifest import file_object_key, file_prefix
from artifacts.stores.base import Store, open_store
from artifacts.stores.directory import DirectoryStore

_ATTEMPTS = 5
TIMEOUT = httpx.Timeout(30.0, connect=10.0)
"""Seconds without a byte, and for a connection."""

LOCAL_STEP = 1024 * 1024
"""Local files are read in pieces of this size, into memory that is used again and stays in the processor's cache."""

_mine = threading.local()

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class Blob(Protocol):
    """One sealed object. Methods may be called from many threads."""

    @property
    def label(self) -> str:
        """How to name it in errors; never a URL with a query."""
        ...

    def size(self) -> int | None:
        """Bytes, or None where only reading would tell.

        Raises:
            ObjectMissing, AccessDenied, StoreUnavailable: as stores do.
        """
        ...

    def read(self, start: int, length: int) -> bytes:
        """Exactly these bytes, or a `StoreError`."""
        ...


class Source(Protocol):
    """The sealed files of one artifact."""

    def blob(self, path: str) -> Blob:
        """The sealed file at `path`."""
        ...

    def unlisted(self, known: Iterable[str]) -> list[str]:
        """Paths that lie beside `known` in the artifact and should not; empty where a source cannot list."""
        ...


@runtime_checkable
class LocalBlob(Protocol):
    """A blob that is read without a round trip."""

    def read_into(self, start: int, into: memoryview) -> None:
        """Fill `into` with the bytes at `start`, or raise a `StoreError`."""
        ...


def read_pieces(blob: Blob, start: int, length: int) -> Iterator[bytes | memoryview]:
    """The range in pieces: small ones from a local disk, one from everywhere else, where a request costs a round trip.

    A piece is valid until this thread asks for the next one.
    """
    if not isinstance(blob, LocalBlob):
        yield blob.read(start, length)
        return
    if not hasattr(_mine, "piece"):
        _mine.piece = memoryview(bytearray(LOCAL_STEP))
    for offset in range(start, start + length, LOCAL_STEP):
        piece = _mine.piece[: min(LOCAL_STEP, start + length - offset)]
        blob.read_into(offset, piece)
        yield piece


class StoreBlob:
    """An object of a store."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key

    @property
    def label(self) -> str:
        """The object's key."""
        return self._key

    def size(self) -> int | None:
        """See `Blob.size`."""
        info = self._store.stat(self._key)
        if info is None:
            raise ObjectMissing(f"{self._store.uri}: {self._key}: no such object")
        return info.size

    def read(self, start: int, length: int) -> bytes:
        """See `Blob.read`."""
        return self._store.get_range(self._key, start, length)


class DirectoryBlob(StoreBlob):
    """An object of a directory."""

    def __init__(self, store: DirectoryStore, key: str) -> None:
        super().__init__(store, key)
        self._directory = store

    def read_into(self, start: int, into: memoryview) -> None:
        """See `LocalBlob.read_into`."""
        self._directory.read_into(self._key, start, into)


class BytesBlob:
    """A sealed object in memory."""

    def __init__(self, data: bytes, label: str = "sealed bytes") -> None:
        self._data, self._label = data, label

    @property
    def label(self) -> str:
        """As given."""
        return self._label

    def size(self) -> int | None:
        """See `Blob.size`."""
        return len(self._data)

    def read(self, start: int, length: int) -> bytes:
        """See `Blob.read`."""
        if start < 0 or start + length > len(self._data):
            raise StoreError(
                f"{self._label}: bytes {start} to {start + length} are outside its {len(self._data)}"
            )
        return self._data[start : start + length]


class FileBlob:
    """A sealed file on this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def label(self) -> str:
        """The path."""
        return str(self._path)

    def size(self) -> int | None:
        """See `Blob.size`."""
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            raise ObjectMissing(f"{self._path}: no such file") from None
        except OSError as error:
            raise StoreError(f"{self._path}: {error.strerror}") from None

    def read(self, start: int, length: int) -> bytes:
        """See `Blob.read`."""
        data = bytearray(length)
        self.read_into(start, memoryview(data))
        return bytes(data)

    def read_into(self, start: int, into: memoryview) -> None:
        """See `LocalBlob.read_into`."""
        done = 0
        try:
            with self._path.open("rb") as file:
                while done < len(into) and (count := os.preadv(file.fileno(), [into[done:]], start + done)):
                    done += count
        except FileNotFoundError:
            raise ObjectMissing(f"{self._path}: no such file") from None
        except OSError as error:
            raise StoreError(f"{self._path}: {error.strerror}") from None
        if done != len(into):
            raise StoreError(f"{self._path}: ends at byte {start + done}, {start + len(into)} were expected")


class _HideQueries(logging.Filter):
    """httpx logs each URL; a presigned one is a credential until it expires."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                a.copy_with(query=None, userinfo=b"") if isinstance(a, httpx.URL) else a for a in record.args
            )
        return True


logging.getLogger("httpx").addFilter(_HideQueries())


class UrlBlob:
    """A sealed object behind a URL that answers range requests (S3 presigned, Hub, any web server)."""

    def __init__(self, client: httpx.Client, url: str, label: str) -> None:
        self._client, self._url, self._label = client, url, label
        self._size: int | None = None

    @property
    def label(self) -> str:
        """The path within the artifact, not the URL."""
        return self._label

    def size(self) -> int | None:
        """Learnt from the first answer; None before."""
        return self._size

    def read(self, start: int, length: int) -> bytes:
        """See `Blob.read`. Cut connections, 429 and 5xx are tried again, going on at the byte reached."""
        if length == 0:
            return b""
        buffer = bytearray()
        failures = 0
        while True:
            before = len(buffer)
            try:
                self._get(start + before, length - before, buffer)
                return bytes(buffer)
            except (StoreUnavailable, httpx.HTTPError) as error:
                # A connection that brings something before it is cut is slow, not gone.
                failures = 1 if len(buffer) > before else failures + 1
                if failures < _ATTEMPTS:
                    time.sleep(min(4.0, 0.1 * 4 ** (failures - 1)))
                    continue
                if isinstance(error, StoreUnavailable):
                    raise
                raise StoreUnavailable(
                    f"{self._label}: connection failed {_ATTEMPTS} times ({type(error).__name__}); try again later"
                ) from None

    def _get(self, start: int, length: int, into: bytearray) -> None:
        self._get_from(self._url, start, length, into)

    def _get_from(self, url: str, start: int, length: int, into: bytearray) -> None:
        headers = {"Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "identity"}
        with self._client.stream("GET", url, headers=headers) as answer:
            self._check(answer, start, length)
            wanted = len(into) + length
            for block in answer.iter_raw():
                into += block
                if len(into) > wanted:
                    del into[wanted:]
                    raise StoreError(f"{self._label}: the server sent more than the range asked for; refused")
            if len(into) != wanted:
                raise StoreUnavailable(
                    f"{self._label}: the server sent less than the range asked for; try again later"
                )

    def _check(self, answer: httpx.Response, start: int, length: int) -> None:
        status = answer.status_code
        if status in {401, 403}:
            raise AccessDenied(
                f"{self._label}: access denied ({status}); the link may have ended, ask for a new one"
            )
        if status in {404, 410}:
            raise ObjectMissing(f"{self._label}: not there ({status})")
        if status == 416:
            raise StoreError(f"{self._label}: is shorter than the manifest says (416)")
        if status == 429 or status >= 500:
            raise StoreUnavailable(f"{self._label}: the server answers {status}; try again later")
        encoding = answer.headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise StoreError(f"{self._label}: the server re-encodes content ({encoding[:20]}); refused")
        if status == 206:
            found = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
            if not found or (int(found[1]), int(found[2])) != (start, start + length - 1):
                raise StoreError(
                    f"{self._label}: the server answered another range than was asked for; refused"
                )
            self._size = int(found[3])
        elif status == 200 and start == 0 and answer.headers.get("content-length") == str(length):
            self._size = length
        else:
            raise StoreError(f"{self._label}: the server does not answer range requests ({status})")


class StoreSource:
    """An artifact's files in a store."""

    def __init__(self, store: Store, artifact_id: str) -> None:
        self._store, self._artifact_id = store, artifact_id

    def blob(self, path: str) -> Blob:
        """See `Source.blob`."""
        key = file_object_key(self._artifact_id, path)
        if isinstance(self._store, DirectoryStore):
            return DirectoryBlob(self._store, key)
        return StoreBlob(self._store, key)

    def unlisted(self, known: Iterable[str]) -> list[str]:
        """See `Source.unlisted`."""
        prefix, expected = file_prefix(self._artifact_id), set(known)
        found = (info.key.removeprefix(prefix) for info in self._store.list(prefix))
        return [path for path in found if path not in expected]


class UrlSource:
    """An artifact's files behind URLs: one per path (presigned), or a base to which the path is added."""

    def __init__(self, urls: Mapping[str, str] | str, client: httpx.Client | None = None) -> None:
        self._urls = urls
        self._client = client or httpx.Client(timeout=TIMEOUT, follow_redirects=True, max_redirects=5)
        self._own = client is None

    def blob(self, path: str) -> Blob:
        """See `Source.blob`."""
        if isinstance(self._urls, str):
            url = self._urls.rstrip("/") + "/" + urllib.parse.quote(path)
        else:
            found = self._urls.get(path)
            if found is None:
                raise ObjectMissing(f"{path}: no link was given for it; ask for one")
            url = found
        return UrlBlob(self._client, url, path)

    def unlisted(self, known: Iterable[str]) -> list[str]:
        """URLs cannot be listed; links beyond `known` are what is extra."""
        return [] if isinstance(self._urls, str) else sorted(set(self._urls) - set(known))

    def close(self) -> None:
        """Give back connections."""
        if self._own:
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextlib.contextmanager
def as_source(given: Store | Mapping[str, str] | str | Source, artifact_id: str) -> Iterator[Source]:
    """A source from what a caller has: a store, `dir:`/`s3:`/`hf:` address, path -> URL, a base URL, or a source."""
    if isinstance(given, str) and given.startswith(("http://", "https://")):
        with UrlSource(given) as urls:
            yield urls
    elif isinstance(given, str):
        with open_store(given) as store:
            yield StoreSource(store, artifact_id)
    elif isinstance(given, Mapping):
        with UrlSource(given) as urls:
            yield urls
    elif isinstance(given, Store):
        yield StoreSource(given, artifact_id)
    else:
        yield given
