"""Sources against a simulated Hub on loopback, which the address policy has to allow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from artifacts.leaks import AddressPolicy
from artifacts.leaks.watching import Candidate, HubOptions, Options, Polled, PollLimits, Source
from tests.simulators.hub import HubSimulator


@pytest.fixture
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as simulator:
        yield simulator


@pytest.fixture
def options(hub: HubSimulator) -> Callable[..., Options]:
    def make(
        *, now: Callable[[], datetime] = lambda: datetime.now(UTC), allow: bool = True, **limits: Any
    ) -> Options:
        allowed = tuple(a.removeprefix("http://") for a in (hub.endpoint, hub.storage)) if allow else ()
        return Options(
            addresses=AddressPolicy(allow=allowed),
            hub=HubOptions(endpoint=hub.endpoint),
            limits=PollLimits(**{"max_wait": 5.0, **limits}),
            now=now,
        )

    return make


def drain(
    source: Source, cursor: dict[str, Any] | None = None, limit: int = 50
) -> tuple[list[Candidate], Polled]:
    """Poll until there is no more at once; at most 200 polls."""
    out: list[Candidate] = []
    for _ in range(200):
        polled = source.poll(cursor, limit)
        out += polled.candidates
        cursor = polled.cursor
        if not polled.more:
            return out, polled
    raise AssertionError("the source never comes to an end")
