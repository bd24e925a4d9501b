"""A thin client of the API (`/v1`): one method per call shape, JSON in and out, refusals as `Refused`.

Every command carries an `Idempotency-Key`, so that a call that got no answer is sent again without harm: the client
does so itself, a few times, with growing pauses (and as long as `Retry-After` says). Decisions at a gate carry the
gate's `ETag` in `If-Match`: they are refused when the gate is not the one that was read.

Redirects are not followed: a token goes to the configured address and nowhere else.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from orchestrator.cli.config import Config, load_config
from orchestrator.cli.failures import Refused, Unreachable, refused_by

JSON = dict[str, Any]
TRANSPORT: httpx.BaseTransport | None = None
"""How requests travel: over the network, unless a program that embeds the client puts something else here."""

_AGAIN = frozenset({429, 502, 503, 504})
_ATTEMPTS = 4
_LONGEST_PAUSE = 20.0


def path_of(*parts: str) -> str:
    """`/v1/…` with each part quoted, so that no name can leave its place in the path."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


class Client:
    """A client of one service, on behalf of one caller. Use it as a context manager."""

    def __init__(
        self,
        config: Config | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.config = config or load_config()
        headers = {"User-Agent": f"sluice/{version('sluice-release')}", "Accept": "application/json"}
        if self.config.token:
            headers["Authorization"] = f"Bearer {self.config.token}"
        self._http = httpx.Client(
            base_url=self.config.url,
            headers=headers,
            timeout=httpx.Timeout(30.0, connect=5.0),
            follow_redirects=False,
            transport=transport or TRANSPORT,
        )
        self._sleep = sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back connections."""
        self._http.close()

    # --- calls

    def get(self, *parts: str, **params: Any) -> JSON:
        """`GET /v1/parts…`; parameters that are None are left out.

        Raises:
            Refused: the service refused, or did not answer.
        """
        return self._json(self._send("GET", path_of(*parts), params=_given(params)))

    def read(self, *parts: str, **params: Any) -> bytes:
        """The same for an answer that is not JSON."""
        return self._send("GET", path_of(*parts), params=_given(params)).content

    def post(
        self,
        *parts: str,
        body: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        if_match: str | None = None,
        key: str | None = None,
        method: str = "POST",
    ) -> JSON:
        """Send a command; with an idempotency key in any case.

        Args:
            parts: the path below `/v1`.
            body: JSON; members that are None are left out.
            content: bytes instead of JSON.
            if_match: the gate's ETag as it was read.
            key: the idempotency key; drawn when left out.
            method: `PUT` and `DELETE` go the same way.
        """
        headers = {"Idempotency-Key": key or secrets.token_hex(16)}
        if if_match is not None:
            headers["If-Match"] = if_match
        if content is not None:
            headers["Content-Type"] = "application/octet-stream"
            return self._json(self._send(method, path_of(*parts), headers=headers, content=content))
        payload = None if body is None else _given(body)
        return self._json(self._send(method, path_of(*parts), headers=headers, json=payload))

    def upload(
        self,
        *parts: str,
        file: tuple[str, bytes, str],
        form: Mapping[str, str],
        key: str | None = None,
    ) -> JSON:
        """Send a file (name, bytes, media type) with form fields, as a command with its idempotency key."""
        headers = {"Idempotency-Key": key or secrets.token_hex(16)}
        return self._json(
            self._send("POST", path_of(*parts), headers=headers, files={"file": file}, data=dict(form))
        )

    def items(self, *parts: str, limit: int | None = None, **params: Any) -> Iterator[JSON]:
        """All items of a list, page after page, at most `limit`."""
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            page = self.get(*parts, cursor=cursor, limit=200 if left is None else min(left, 200), **params)
            for item in page.get("items", []):
                yield item
                if left is not None:
                    left -= 1
            cursor = page.get("next_cursor")
            if not cursor:
                return

    def gate(self, release: str, step: str) -> tuple[JSON, str]:
        """The gate of a step, and the ETag that a decision on it sends back."""
        answer = self._send("GET", path_of("releases", release, "steps", step, "gate"))
        return self._json(answer), answer.headers.get("ETag", "")

    def events(self, release: str, *, after: int = 0, patience: float = 60.0) -> Iterator[JSON]:
        """Events of a release as they happen, each once, also over cut connections; ends when the release has.

        Args:
            release: its id.
            after: the number behind which to begin.
            patience: seconds without any connection before it is given up.

        Raises:
            Refused: the service refused, or could not be reached for `patience`.
        """
        path = path_of("releases", release, "events", "stream")
        lost_at: float | None = None
        while True:
            try:
                for number, event in self._stream(path, after):
                    after, lost_at = number, None
                    yield event
                return
            except httpx.TransportError as error:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > patience:
                    raise Unreachable(
                        f"{self.config.url}: {_words(error)}; start it, or say with SLUICE_URL where it is"
                    ) from None
                self._sleep(1.0)

    # --- plumbing

    def _stream(self, path: str, after: int) -> Iterator[tuple[int, JSON]]:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        with self._http.stream(
            "GET", path, headers=headers, timeout=httpx.Timeout(60.0, connect=5.0)
        ) as answer:
            if answer.is_error:
                answer.read()
                raise _refusal(answer)
            yield from parse_events(answer.iter_lines())

    def _send(self, method: str, path: str, **how: Any) -> httpx.Response:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                answer = self._http.request(method, path, **how)
            except httpx.TransportError as error:
                if attempt == _ATTEMPTS:
                    raise Unreachable(
                        f"{self.config.url}: {_words(error)}; start it, or say with SLUICE_URL where it is"
                    ) from None
                self._sleep(0.25 * 2**attempt)
                continue
            if answer.status_code in _AGAIN and attempt < _ATTEMPTS:
                self._sleep(_pause(answer, attempt))
                continue
            if not answer.is_success:
                raise _refusal(answer)
            return answer
        raise AssertionError("the last attempt returns or raises")

    def _json(self, answer: httpx.Response) -> JSON:
        try:
            value = answer.json() if answer.content else {}
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise Refused(
                502,
                "not-the-api",
                "Something else answered",
                f"{self.config.url} did not answer as the API does",
            )
        return value


def parse_events(lines: Iterator[str]) -> Iterator[tuple[int, JSON]]:
    """Server-sent events with their numbers; comments, and what has no number, are passed over."""
    number, data = "", list[str]()
    for line in lines:
        if not line:
            if data and number.isdigit():
                yield int(number), json.loads("\n".join(data))
            number, data = "", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            number = value
        elif name == "data":
            data.append(value)


def _given(values: Mapping[str, Any]) -> JSON:
    return {name: value for name, value in values.items() if value is not None}


def _pause(answer: httpx.Response, attempt: int) -> float:
    told = answer.headers.get("Retry-After", "")
    return min(float(told) if told.isdigit() else 0.25 * 2**attempt, _LONGEST_PAUSE)


def _refusal(answer: httpx.Response) -> Refused:
    if answer.is_redirect:
        return Refused(
            502, "redirect", "The service sent us elsewhere", "redirects are not followed; correct SLUICE_URL"
        )
    try:
        document = answer.json()
    except ValueError:
        document = None
    return refused_by(answer.status_code, document if isinstance(document, dict) else {})


def _words(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return str(error) or type(error).__name__
