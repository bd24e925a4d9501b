"""A repository as a scan's target, when the Hub fails, lies, leads inside, or lists without end."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from artifacts.leaks import AddressPolicy, HubOptions, Outcome, ReferenceSet, ScanLimits, scan
from tests.simulators.hub import HubSimulator


@pytest.fixture
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as simulator:
        simulator.repo("a/b")
        yield simulator


def _scan(
    hub: HubSimulator, references: ReferenceSet, *, allow: bool = True, **limits: int
) -> tuple[Outcome, str]:
    allowed = tuple(a.removeprefix("http://") for a in (hub.endpoint, hub.storage)) if allow else ()
    verdict = scan(
        "hf:a/b",
        references,
        limits=ScanLimits(**limits),
        addresses=AddressPolicy(allow=allowed),
        hub=HubOptions(endpoint=hub.endpoint),
    )
    return verdict.outcome, "; ".join(verdict.reasons)


@pytest.mark.parametrize("fault", ["cut", "lost", "short", 500, 503, 429])
def test_a_failing_hub_is_inconclusive_at_once(
    hub: HubSimulator, references: ReferenceSet, fault: str | int
) -> None:
    hub.fail(fault, contains="/api/", times=5)
    started = time.monotonic()
    outcome, why = _scan(hub, references)
    assert outcome is Outcome.INCONCLUSIVE
    assert why
    assert time.monotonic() - started < 20  # nobody waits and repeats without a word
    assert len(hub.requests) <= 1


def test_a_hub_inside_must_be_allowed(hub: HubSimulator, references: ReferenceSet) -> None:
    outcome, why = _scan(hub, references, allow=False)
    assert outcome is Outcome.INCONCLUSIVE
    assert "not public" in why
    assert hub.requests == []


def test_100_000_files_are_listed_in_part_and_said(hub: HubSimulator, references: ReferenceSet) -> None:
    hub.many_files("a/b", 100_000)
    outcome, why = _scan(hub, references, max_requests=40)
    assert outcome is Outcome.INCONCLUSIVE
    assert "only the first 20000 files" in why
    assert len(hub.requests) <= 60
