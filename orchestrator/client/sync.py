"""The client for ordinary code."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import httpx

from orchestrator.client import core
from orchestrator.client import models as m
from orchestrator.client.calls import Answer, Call, filled
from orchestrator.client.errors import NotSeen, Unreachable


class Sluice:
    """A client of one service, on behalf of one caller; use it as a context manager.

        with Sluice("https://sluice.example", token) as sluice:
            release = sluice.do(operations.get_release("gt-mini-1.0"))

    Args:
        url: the API's address; https, or this machine.
        token: an API token or a JWT; or a function that gives one, asked before each request.
        transport: how requests travel, for programs that embed the service.
        sleep: waits between attempts.
    """

    def __init__(
        self,
        url: str,
        token: core.Token = None,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = url
        self._token = token
        self._http = httpx.Client(**core.options(url), transport=transport)
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

    def do(self, call: Call[Answer]) -> Answer:
        """Send one call and read its answer; a call without an answer is sent again where that does no harm.

        Raises:
            Refused: the service refused, with every reason.
            Unreachable: nothing answered.
            NotTheApi: something else answered.
        """
        sent = core.Sent(call, self._token)
        while True:
            try:
                answer = self._http.request(**sent.request())
            except httpx.TransportError as error:
                self._sleep(sent.lost(self.url, error))
                continue
            pause = sent.judged(answer)
            if pause is None:
                return sent.read(answer.content)
            self._sleep(pause)

    def items(self, call: Call[core.Paged[core.Item_co]]) -> Iterator[core.Item_co]:
        """Every item of a list, page after page.

        Raises:
            Refused, Unreachable, NotTheApi: as `do`.
        """
        following: Call[core.Paged[core.Item_co]] | None = call
        while following is not None:
            page = self.do(following)
            yield from page.items
            following = core.following(following, page)

    def events(
        self, release: str | None = None, *, after: int = 0, patience: float = 60.0
    ) -> Iterator[m.EventView]:
        """Events as they happen, each once, also over cut connections; of a release it ends when the release has.

        Args:
            release: its id; None: of all releases.
            after: the number behind which to begin: a release's own, or the log's.
            patience: seconds without a connection before it is given up.

        Raises:
            Refused, Unreachable: as `do`.
        """
        for event in self._beats(release, after, patience):
            if event is not None:
                yield event

    def wait_for(self, release: str, *types: str, after: int = 0, within: float = 3600.0) -> m.EventView:
        """The first event of one of these types behind `after`.

        Raises:
            NotSeen: it did not come in `within` seconds, or the release ended without it.
            Refused, Unreachable: as `do`.
        """
        deadline = time.monotonic() + within
        for event in self._beats(release, after, 60.0):
            if event is not None and event.type in types:
                return event
            if time.monotonic() > deadline:
                raise NotSeen(f"{release}: none of {', '.join(types)} in {within:g} s")
        raise NotSeen(f"{release} has ended without any of {', '.join(types)}")

    def _beats(self, release: str | None, after: int, patience: float) -> Iterator[m.EventView | None]:
        """Events, and None for each sign of life between them."""
        path = stream_path(release)
        events = core.Events(after)
        lost_at: float | None = None
        while True:
            try:
                with self._http.stream(
                    "GET", path, headers=dict(events.headers(self._token)), timeout=core.STREAM_TIMEOUT
                ) as answer:
                    if answer.is_error:
                        answer.read()
                        raise core.refusal(answer)
                    for line in answer.iter_lines():
                        lost_at = None
                        yield events.line(line)
                return
            except httpx.TransportError as error:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > patience:
                    raise Unreachable(f"{self.url}: {error or 'no answer'}") from None
                self._sleep(1.0)


def stream_path(release: str | None) -> str:
    """Where events are streamed."""
    if release is None:
        return "/v1/events/stream"
    return filled("/v1/releases/{release}/events/stream", release=release)


def etag(gate: m.GateView) -> str:
    """What a decision on this gate sends as `if_match`."""
    value: Any = gate.verdict.etag
    return f'"{value}"'
