"""The Hub as a source: what it finds, what it costs, and how it behaves when the Hub does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from artifacts.leaks.watching import Options, SourceError, Trouble, open_source
from tests.artifacts.leaks.watching.conftest import drain
from tests.simulators.hub import HubSimulator

BIG = 1 << 30
Make = Callable[..., Options]


def _fill(hub: HubSimulator, count: int, *, prefix: str = "m", parameters: int = 7_000_000_000) -> set[str]:
    for i in range(count):
        hub.repo(f"org/{prefix}{i:04}", parameters=parameters, storage=BIG)
    return {f"org/{prefix}{i:04}" for i in range(count)}


def _names(candidates: list) -> set[str]:
    return {c.detail["repository"] for c in candidates}


def test_models_by_size_and_everything_by_name_pinned_to_its_commit(hub: HubSimulator, options: Make) -> None:
    hub.repo("a/right-size", parameters=7_000_000_000, storage=BIG)
    hub.repo("a/too-small", parameters=1_000_000, storage=BIG)
    hub.repo("a/acme-odd", storage=BIG)  # the Hub could not count its parameters
    hub.repo("b/Acme-data", kind="dataset", storage=BIG)
    hub.repo("b/other-data", kind="dataset", storage=BIG)
    hub.repo("c/acme-demo", kind="space", storage=BIG)
    hub.repo("c/acme-empty", kind="space", storage=10)
    spec = {
        "kind": "hub",
        "name": "hub",
        "parameters": {"min": 6_000_000_000, "max": 8_000_000_000},
        "names": ["*acme*"],
    }
    found, last = drain(open_source(spec, options()))
    assert _names(found) == {"a/right-size", "a/acme-odd", "b/Acme-data", "c/acme-demo"}
    by_name = {c.detail["repository"]: c for c in found}
    head = hub.get("b/Acme-data", "dataset").head.oid
    assert by_name["b/Acme-data"].target == f"hf:datasets/b/Acme-data@{head}" == by_name["b/Acme-data"].key
    assert by_name["a/right-size"].size == BIG
    assert last.failed == ""
    assert last.behind_s == 0
    assert drain(open_source(spec, options()), last.cursor)[0] == []


def test_a_change_is_a_new_candidate_and_the_same_state_is_not(hub: HubSimulator, options: Make) -> None:
    _fill(hub, 3)
    source = open_source({"kind": "hub", "name": "hub", "repositories": ["models"]}, options())
    _, last = drain(source)
    hub.upload("org/m0001", {"model.safetensors": b"x" * 100})
    found, last = drain(source, last.cursor)
    assert [c.key for c in found] == [f"hf:org/m0001@{hub.get('org/m0001').head.oid}"]
    assert drain(source, last.cursor)[0] == []


def test_pull_requests_are_candidates_of_their_own(hub: HubSimulator, options: Make) -> None:
    hub.repo("org/base", storage=BIG)
    oid = hub.upload("org/base", {"w.bin": b"leak"}, pull_request=True)
    spec = {"kind": "hub", "name": "hub", "repositories": ["models"], "pull_requests": True}
    found, _ = drain(open_source(spec, options()))
    assert {c.key for c in found} == {f"hf:org/base@{hub.get('org/base').head.oid}", f"hf:org/base@{oid}"}


def test_hundreds_with_one_time_lose_nobody_over_small_pages(hub: HubSimulator, options: Make) -> None:
    at = datetime.now(UTC) - timedelta(hours=1)
    for i in range(340):
        hub.repo(f"org/same{i:03}", storage=BIG, created=at)
    source = open_source({"kind": "hub", "name": "hub", "repositories": ["models"]}, options())
    found, last = drain(source, limit=33)
    assert len(_names(found)) == 340
    assert len(json.dumps(last.cursor)) < 40_000


def test_more_than_a_cursor_remembers_comes_to_an_end(hub: HubSimulator, options: Make) -> None:
    names = ["*a*", "*b*", "*c*", "*d*", "*e*"]
    expected = _fill(hub, 900, prefix="abcde")
    spec = {"kind": "hub", "name": "hub", "repositories": ["models"], "names": names}
    source = open_source(spec, options())
    found, last = drain(source, limit=200)
    assert _names(found) == expected
    assert len(hub.requests) < 300
    again, last = drain(
        source, last.cursor, limit=200
    )  # some are given again, under their keys, and then no more
    assert {c.key for c in again} <= {c.key for c in found}
    assert len(json.dumps(last.cursor)) < 60_000


def test_an_outage_of_hours_loses_nobody(hub: HubSimulator, options: Make) -> None:
    source = open_source({"kind": "hub", "name": "hub", "repositories": ["models"]}, options(max_requests=3))
    _fill(hub, 5, prefix="before")
    _, last = drain(source)
    cursor = last.cursor
    expected: set[str] = set()
    for hour in range(6):
        for i in range(60):
            name = f"org/out{hour}-{i:02}"
            hub.repo(name, storage=BIG, created=datetime.now(UTC) - timedelta(hours=6 - hour, seconds=i))
            expected.add(name)
    hub.fail(503, times=3)
    for _ in range(3):
        with pytest.raises(SourceError) as caught:
            source.poll(cursor, 50)
        assert caught.value.trouble is Trouble.UNREACHABLE
        assert caught.value.retryable
    # The mark is where it was before the outage, hours back by the Hub's dates.
    cursor["lanes"] = {k: {**v, "mark": "2026-01-01T00:00:00+00:00"} for k, v in cursor["lanes"].items()}
    found, last = drain(source, cursor)
    assert expected <= _names(found)
    assert last.behind_s == 0


def test_rate_limits_are_respected_and_visible(hub: HubSimulator, options: Make) -> None:
    _fill(hub, 1)
    source = open_source({"kind": "hub", "name": "hub"}, options())
    hub.rate_limit(2, 300)
    polled = source.poll(None, 50)  # two lanes, and the Hub says that nothing is left
    assert len(polled.candidates) == 1
    assert "rate limit" in polled.notes[0]
    assert not polled.more
    assert 0 < (polled.limits.resets_in_s or 0) <= 301
    assert polled.limits.limit == 2
    assert polled.limits.remaining == 0
    with pytest.raises(SourceError) as caught:
        source.poll(polled.cursor, 50)
    assert caught.value.trouble is Trouble.RATE_LIMITED
    assert 0 < (caught.value.retry_after_s or 0) <= 301
    assert len(hub.requests) == 3  # nobody repeats behind our back


@pytest.mark.parametrize("fault", ["cut", "short", "lost", 500, 502])
def test_a_failing_hub_is_an_error_that_says_so(hub: HubSimulator, options: Make, fault: str | int) -> None:
    _fill(hub, 3)
    source = open_source({"kind": "hub", "name": "hub"}, options())
    hub.fail(fault)
    with pytest.raises(SourceError, match=r"^hub: ") as caught:
        source.poll(None, 50)
    assert caught.value.trouble is Trouble.UNREACHABLE
    assert len(hub.requests) <= 1  # a cut one is not in the log
    assert source.poll(None, 50).candidates


def test_the_same_page_for_ever_ends_and_is_said(hub: HubSimulator, options: Make) -> None:
    _fill(hub, 120)
    source = open_source({"kind": "hub", "name": "hub", "repositories": ["models"]}, options())
    hub.same_page_for_ever()
    polled = source.poll(None, 1_000)
    assert "the same page for ever" in polled.failed
    assert not polled.more
    assert len(hub.requests) <= 6
    assert 100 <= len(polled.candidates) < 120  # one page of each order
    hub.calm()
    assert len(_names(drain(source, polled.cursor)[0] + list(polled.candidates))) == 120


@pytest.mark.parametrize(
    "address",
    ["http://169.254.169.254/latest/meta-data", "http://127.0.0.1:9/api/models", "file:///etc/passwd"],
)
def test_a_next_page_inside_our_network_is_never_asked_for(
    hub: HubSimulator, options: Make, address: str
) -> None:
    _fill(hub, 120)
    hub.next_page_at(address)
    polled = open_source({"kind": "hub", "name": "hub", "repositories": ["models"]}, options()).poll(
        None, 1_000
    )
    assert "not public" in polled.failed or "not followed" in polled.failed
    assert len(polled.candidates) == 100


def test_a_private_hub_must_be_allowed(hub: HubSimulator, options: Make) -> None:
    with pytest.raises(SourceError, match="allow it explicitly") as caught:
        open_source({"kind": "hub", "name": "hub"}, options(allow=False)).poll(None, 10)
    assert caught.value.trouble is Trouble.ADDRESS
    assert not caught.value.retryable
    assert hub.requests == []


def test_an_answer_without_end_is_cut_off(hub: HubSimulator, options: Make) -> None:
    _fill(hub, 100)
    with pytest.raises(SourceError, match="sends more than the 2000 bytes") as caught:
        open_source(
            {"kind": "hub", "name": "hub", "repositories": ["models"]}, options(max_answer_bytes=2_000)
        ).poll(None, 10)
    assert caught.value.trouble is Trouble.MISBEHAVING


def test_a_private_repository_that_opens_with_an_old_date_is_found_by_the_full_pass(
    hub: HubSimulator, options: Make
) -> None:
    now = datetime.now(UTC)
    clock = [now]
    hub.repo("org/hidden", private=True, storage=BIG, created=now - timedelta(days=90))
    spec = {"kind": "hub", "name": "hub", "repositories": ["models"], "full_every_hours": 6}
    source = open_source(spec, options(now=lambda: clock[0]))
    found, last = drain(source)
    assert found == []
    hub.get("org/hidden").private = False
    clock[0] += timedelta(hours=1)
    found, last = drain(source, last.cursor)
    assert found == []  # no date of it is new
    clock[0] += timedelta(hours=6)
    found, _ = drain(source, last.cursor)
    assert _names(found) == {"org/hidden"}


def test_a_cursor_of_something_else_is_refused_with_words(hub: HubSimulator, options: Make) -> None:
    source = open_source({"kind": "hub", "name": "hub"}, options())
    for cursor in ({"turn": "x"}, {"lanes": {"models created_at all": {"mark": "yesterday"}}}, {"lanes": 3}):
        with pytest.raises(SourceError, match="cursor") as caught:
            source.poll(cursor, 10)
        assert caught.value.trouble is Trouble.SETTING
