"""Whole answers of servers that are not trusted: listings, headers, small documents.

Every request of a scan or a source that is not a range of a suspect goes through an `Asker`, also those that the Hub's
client and boto3 make (`hub_requests`, `s3_requests`): the address policy holds for each connection, redirects are
followed here and checked, every answer is bounded in bytes and seconds, and nobody repeats a request behind our back.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self

import httpx

from artifacts.leaks.errors import AddressRefused, BusyError, LyingError, SourceFailure, shown
from artifacts.leaks.ranged import MAX_REDIRECTS, AddressPolicy, GuardedClient, public_url
from artifacts.leaks.sources import Budget
from artifacts.stores.retry import retry_after

MAX_ANSWER = 16 << 20
LONGEST_WAIT_S = 24 * 3600.0
_KEPT_ACROSS_ORIGINS = frozenset({"accept", "accept-encoding", "range", "user-agent"})


@dataclass(frozen=True)
class Answer:
    """One answer, read whole.

    Attributes:
        url: where it came from in the end.
        status: HTTP status; never 429 or 5xx.
        headers: as sent.
        body: at most what was allowed; empty when only the headers were asked for.
    """

    url: str
    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def date(self) -> datetime | None:
        """The server's clock, where it tells."""
        try:
            said = parsedate_to_datetime(self.headers.get("date", ""))
        except ValueError:
            return None
        return said if said.tzinfo else None


class Asker:
    """Asks servers within an address policy and a budget. Close it, or use it as a context manager."""

    def __init__(
        self,
        addresses: AddressPolicy,
        budget: Budget,
        *,
        max_answer: int = MAX_ANSWER,
        on_answer: Callable[[Answer], None] = lambda answer: None,
    ) -> None:
        """Nothing is asked yet.

        Args:
            addresses: which addresses may be connected to.
            budget: of all answers together.
            max_answer: bytes that one answer may have.
            on_answer: told of every answer, before a status of 429 or 5xx becomes an error.
        """
        self.budget = budget
        self._client = GuardedClient(addresses, budget.max_wait)
        self._max_answer = max_answer
        self.on_answer = on_answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        headers_only: bool = False,
        at_most: int | None = None,
    ) -> Answer:
        """The answer to one request, redirects followed.

        Args:
            method: HTTP method; redirects of others than GET and HEAD are not followed.
            url: address.
            headers: credentials among them go to the address's own origin only.
            body: sent along.
            headers_only: hang up when the headers are there.
            at_most: hang up after so many bytes of the body; by default a longer one is an error.

        Raises:
            AddressRefused: it leads to an address that may not be asked, or away from https.
            BusyError: status 429 or 5xx.
            LyingError: an endless, compressed or malformed answer, too many redirects.
            SourceFailure: no answer, or a cut one.
            BudgetError: the budget is used up.
        """
        where = public_url(url)
        sent = {**(headers or {}), "Accept-Encoding": "identity"}
        try:
            answer = self._follow(method, httpx.URL(url), sent, body, where, 0 if headers_only else at_most)
        except httpx.TimeoutException as error:
            raise SourceFailure(f"{where}: no answer within {self._client.timeout:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise SourceFailure(f"{where}: {type(error).__name__}: the connection failed") from error
        except ValueError as error:
            raise LyingError(f"{where}: an address or answer that is malformed") from error
        self.on_answer(answer)
        if answer.status == 429 or answer.status >= 500:
            wait = retry_after(answer.headers.get("retry-after"))
            if wait is not None and not wait <= LONGEST_WAIT_S:  # also what is no number
                wait = LONGEST_WAIT_S
            said = f", asks to come back in {wait:g} s" if wait is not None else ""
            raise BusyError(f"{where}: answered {answer.status}{said}", answer.status, wait)
        return answer

    def _follow(
        self,
        method: str,
        url: httpx.URL,
        headers: dict[str, str],
        body: bytes | None,
        where: str,
        at_most: int | None,
    ) -> Answer:
        first = (url.scheme, url.host, url.port)
        for _ in range(MAX_REDIRECTS + 1):
            if url.scheme not in ("http", "https"):
                raise AddressRefused(f"{where}: leads to {shown(url.scheme, 20)}:, which is not followed")
            if (url.scheme, url.host, url.port) != first:
                headers = {k: v for k, v in headers.items() if k.lower() in _KEPT_ACROSS_ORIGINS}
            self.budget.reserve(0)
            with self._client.http.stream(method, url, headers=headers, content=body) as answer:
                if not (answer.has_redirect_location and method in ("GET", "HEAD")):
                    data = b"" if at_most == 0 or method == "HEAD" else self._body(answer, where, at_most)
                    return Answer(str(url), answer.status_code, answer.headers, data)
                target = url.join(answer.headers["location"])
            if url.scheme == "https" and target.scheme != "https":
                raise AddressRefused(f"{where}: redirects from https to {shown(target.scheme, 20)}")
            url = target
        raise LyingError(f"{where}: more than {MAX_REDIRECTS} redirects")

    def _body(self, answer: httpx.Response, where: str, at_most: int | None) -> bytes:
        encoding = answer.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise LyingError(f"{where}: answers compressed ({shown(encoding, 20)}) though asked not to")
        data = bytearray()
        for chunk in answer.iter_raw(64 * 1024):
            self.budget.take(len(chunk))
            data += chunk
            if at_most is not None and len(data) >= at_most:
                return bytes(data[:at_most])
            if len(data) > self._max_answer:
                raise LyingError(
                    f"{where}: sends more than the {self._max_answer} bytes that one answer may have"
                )
        return bytes(data)


@contextlib.contextmanager
def hub_requests(asker: Asker, *, first_url: str | None = None) -> Iterator[None]:
    """Within it, what huggingface_hub asks in this thread goes through `asker`.

    Args:
        asker: who asks.
        first_url: asked instead of the first request's own address: how a listing is resumed at a later page.
    """
    import httpx2

    from artifacts.stores.hub_calls import routed

    resumed = first_url

    def send(request: httpx2.Request) -> httpx2.Response:
        nonlocal resumed
        url, resumed = resumed or str(request.url), None
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP}
        answer = asker.ask(request.method, url, headers, request.read() or None)
        kept = [(k, v) for k, v in answer.headers.multi_items() if k.lower() not in _HOP_BY_HOP]
        return httpx2.Response(answer.status, headers=kept, content=answer.body, request=request)

    with routed(send):
        yield


_HOP_BY_HOP = frozenset(
    {"accept-encoding", "connection", "content-length", "host", "keep-alive", "transfer-encoding"}
)


def s3_requests(client: Any, asker: Asker) -> None:
    """From now on, what this boto3 client asks goes through `asker` (botocore's `before-send` hook)."""
    from botocore.awsrequest import AWSResponse

    class Raw(io.BytesIO):
        def stream(self) -> Iterator[bytes]:
            yield self.read()

    def send(request: Any, **_: Any) -> Any:
        headers = {
            k: v.decode() if isinstance(v, bytes) else str(v)
            for k, v in request.headers.items()
            if k.lower() not in _HOP_BY_HOP
        }
        body = request.body if isinstance(request.body, (bytes, bytearray)) else None
        answer = asker.ask(request.method, request.url, headers, bytes(body) if body else None)
        return AWSResponse(answer.url, answer.status, dict(answer.headers), Raw(answer.body))

    client.meta.events.register("before-send.s3", send)
