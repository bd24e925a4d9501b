"""Sealed files behind links that end: presigned URLs, asked for a few at a time and again when their time is over.

Whoever hands the links out decides each time whether there are any: a grant that ends in the middle of a download ends
the download with the links that are out. The bytes are held against the manifest like those from anywhere else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

import httpx

from artifacts.errors import AccessDenied, ObjectMissing
from artifacts.sources import TIMEOUT, Blob, UrlBlob

Ask = Callable[[Sequence[str]], tuple[Mapping[str, str], float]]
"""Paths → their links, and how many seconds these are good for."""

AT_ONCE = 100
"""Links asked for together: a folder of small files needs few requests, and no link waits long before it is used."""

_MARGIN = 30.0


class LinkedSource:
    """An artifact's sealed files behind links. Usable from many threads; satisfies `artifacts.sources.Source`.

    Args:
        ask: gets links; called by one thread at a time.
        paths: the files in the order in which they will be read.
        client: for tests; one of its own by default.
        clock: seconds that only go forward. The server's clock plays no part.
    """

    def __init__(
        self,
        ask: Ask,
        paths: Sequence[str],
        *,
        client: httpx.Client | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask, self._clock = ask, clock
        self._order = list(paths)
        self._place = {path: index for index, path in enumerate(self._order)}
        self._links: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()
        self._client = client or httpx.Client(timeout=TIMEOUT, follow_redirects=True, max_redirects=5)
        self._own = client is None

    def __repr__(self) -> str:
        return f"LinkedSource({len(self._order)} files)"

    def blob(self, path: str) -> Blob:
        """See `Source.blob`."""
        if path not in self._place:
            raise ObjectMissing(f"{path}: no link can be asked for; it is not in the manifest")
        return _LinkedBlob(self, self._client, path)

    def unlisted(self, known: Iterable[str]) -> list[str]:
        """Links are made for known paths alone."""
        return []

    def url(self, path: str) -> str:
        """A link that is good now."""
        with self._lock:
            held = self._links.get(path)
            if held is not None and self._clock() < held[1]:
                return held[0]
            return self._renewed(path)

    def refused(self, path: str, url: str) -> str:
        """The store did not take `url`: its time was over sooner than was said, or it was withdrawn. A newer link."""
        with self._lock:
            held = self._links.get(path)
            if held is not None and held[0] != url:
                return held[0]  # another thread was faster
            self._links.clear()  # they were made together, so they end together
            return self._renewed(path)

    def _renewed(self, path: str) -> str:
        start, now = self._place[path], self._clock()
        held = {name for name, (_, until) in self._links.items() if now < until}
        wanted = [path, *(p for p in self._order[start + 1 : start + AT_ONCE] if p not in held)]
        links, seconds = self._ask(wanted)
        until = self._clock() + seconds - min(_MARGIN, seconds / 4)
        self._links.update((name, (url, until)) for name, url in links.items())
        if path not in links:
            raise ObjectMissing(f"{path}: no link was given for it")
        return links[path]

    def close(self) -> None:
        """Give back connections, and forget the links."""
        self._links.clear()
        if self._own:
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _LinkedBlob(UrlBlob):
    """A sealed file whose link changes while it is read."""

    def __init__(self, source: LinkedSource, client: httpx.Client, path: str) -> None:
        super().__init__(client, "", path)
        self._source = source

    def _get(self, start: int, length: int, into: bytearray) -> None:
        url, before = self._source.url(self.label), len(into)
        try:
            self._get_from(url, start, length, into)
        except AccessDenied:
            # Once for each request: a store that also refuses the newer link refuses us.
            got = len(into) - before
            self._get_from(self._source.refused(self.label, url), start + got, length - got, into)
