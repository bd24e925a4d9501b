"""Ranged reads from the Hub: the redirect to the storage host, checked and then followed without the token."""

from __future__ import annotations

import re
import threading
import time
from urllib.parse import urljoin

import httpx2
from huggingface_hub import hf_hub_url

from artifacts.errors import AccessDenied, ObjectMissing, StaleObject, StoreError
from artifacts.stores.base import ObjectInfo
from artifacts.stores.hub_calls import HubCalls
from artifacts.stores.retry import Again, retry_after

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_KEEP_S = 60.0
_REDIRECTS = {301, 302, 303, 307, 308}


class HubReader:
    """Reads ranges of objects of one repository at one revision. Safe to use from many threads."""

    def __init__(self, calls: HubCalls, revision: str) -> None:
        self._calls, self._revision = calls, revision
        self._client = calls.client()
        self._lock = threading.Lock()
        self._urls: dict[
            str, tuple[str, str, float]
        ] = {}  # key -> (ETag, storage URL, time): a secret, never shown

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def read(self, info: ObjectInfo, start: int, length: int) -> bytes:
        """Exactly these bytes of exactly this object; see `Store.get_range`."""
        where = f"{self._calls.where}: {info.key}"
        got = bytearray()

        def attempt() -> None:
            while len(got) < length:
                self._some(where, info, start + len(got), length - len(got), got)

        if length:
            self._calls.policy.run(where, attempt)
        return bytes(got)

    def _some(self, where: str, info: ObjectInfo, start: int, length: int, into: bytearray) -> None:
        end = start + length - 1
        asked = {"Range": f"bytes={start}-{end}", "Accept-Encoding": "identity"}
        try:
            kept = self._kept(info)
            if kept is None:
                url = hf_hub_url(
                    self._calls.repo_id, info.key, revision=self._revision, endpoint=self._calls.api.endpoint
                )
                with self._client.stream("GET", url, headers=self._calls.headers() | asked) as answer:
                    self._check_etag(where, info, answer)
                    if answer.status_code not in _REDIRECTS:
                        return self._take(where, info, answer, start, end, into)
                    kept = urljoin(url, answer.headers["location"])
                with self._lock:
                    self._urls[info.key] = (info.etag, kept, time.monotonic())
            with self._client.stream("GET", kept, headers=asked) as answer:
                if answer.status_code in {
                    401,
                    403,
                    404,
                }:  # the storage URL has expired: ask the Hub for another
                    self._forget(info.key)
                    raise Again(f"the storage host answered {answer.status_code}")
                return self._take(where, info, answer, start, end, into)
        except httpx2.TransportError as error:
            raise Again(f"the connection was cut while reading ({type(error).__name__})") from error

    def _check_etag(self, where: str, info: ObjectInfo, answer: httpx2.Response) -> None:
        status = answer.status_code
        if status == 429 or status >= 500:
            raise Again(f"the Hub answered {status}", retry_after(answer.headers.get("retry-after")))
        if status in {401, 403}:
            raise AccessDenied(f"{where}: access to this repository was not granted to this account")
        if status == 404:
            raise ObjectMissing(f"{where}: no such object")
        etag = answer.headers.get("x-linked-etag") or answer.headers.get("etag") or ""
        if etag.removeprefix("W/").strip('"') != info.etag:
            raise StaleObject(f"{where}: holds other bytes than when it was looked at")

    def _take(
        self, where: str, info: ObjectInfo, answer: httpx2.Response, start: int, end: int, into: bytearray
    ) -> None:
        if answer.status_code == 429 or answer.status_code >= 500:
            raise Again(f"the storage answered {answer.status_code}")
        match = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
        if answer.status_code != 206 or match is None:
            raise StoreError(
                f"{where}: a range was asked for, the answer was {answer.status_code} without one"
            )
        if tuple(map(int, match.groups())) != (start, end, info.size):
            raise StaleObject(f"{where}: asked for bytes {start}-{end}/{info.size}, the answer has others")
        before, wanted = len(into), end - start + 1
        for piece in answer.iter_raw():
            into += piece
        if len(into) - before > wanted:
            raise StaleObject(f"{where}: the answer is longer than it says")
        if len(into) - before < wanted:
            raise Again("an answer ended early")

    def _kept(self, info: ObjectInfo) -> str | None:
        with self._lock:
            etag, url, when = self._urls.get(info.key, ("", "", 0.0))
        return url if etag == info.etag and time.monotonic() - when < _KEEP_S else None

    def _forget(self, key: str) -> None:
        with self._lock:
            self._urls.pop(key, None)
