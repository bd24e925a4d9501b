"""Outages, restarts, stepping clocks and uploads in any interleaving: in the end nothing is lost, and nothing has two keys."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from artifacts.leaks import AddressPolicy
from artifacts.leaks.watching import HubOptions, Options, PollLimits, SourceError, open_source
from tests.simulators.hub import HubSimulator

STEP = st.one_of(
    st.tuples(st.just("drain"), st.just(0)),
    st.tuples(st.just("new"), st.integers(1, 30)),
    st.tuples(st.just("change"), st.integers(0, 1_000)),
    st.tuples(st.just("delete"), st.integers(0, 1_000)),
    st.tuples(st.just("poll"), st.integers(1, 40)),
    st.tuples(st.just("crash"), st.integers(1, 40)),  # polled, and the cursor was not kept
    st.tuples(st.just("fault"), st.sampled_from([429, 500, 503, "cut", "short", "lost"])),
    st.tuples(st.just("hub clock"), st.integers(-5_000, 5_000)),
    st.tuples(st.just("our clock"), st.integers(-5_000, 5_000)),
    st.tuples(st.just("time"), st.integers(1, 20_000)),
)


class World:
    """A Hub, a source with a clock of its own, and what was given so far."""

    def __init__(self, hub: HubSimulator, *, full: bool, order: str = "") -> None:
        self.hub = hub
        self.full = full
        self.skew = timedelta()
        hub.routes.page = 20
        allowed = tuple(a.removeprefix("http://") for a in (hub.endpoint, hub.storage))
        options = Options(
            addresses=AddressPolicy(allow=allowed),
            hub=HubOptions(endpoint=hub.endpoint),
            limits=PollLimits(max_wait=5, max_requests=4),
            now=lambda: datetime.now(UTC) + self.elapsed + self.skew,
        )
        self.elapsed = timedelta()
        spec = {
            "kind": "hub",
            "name": "hub",
            "repositories": ["models"],
            "min_bytes": 0,
            "overlap_minutes": 0,
        }
        self.source = open_source(spec | ({"full_every_hours": 24} if full else {}), options)
        if order:  # one order alone, so that the other cannot make up for what it misses
            self.source._lanes = [lane for lane in self.source._lanes if lane.order == order]
        self.cursor: dict | None = None
        self.kept: dict[str, str] = {}  # key to target
        self.count = 0

    def poll(self, limit: int, *, keep: bool = True) -> bool:
        """Poll once as the service does; gives whether there is more."""
        try:
            polled = self.source.poll(self.cursor, limit)
        except SourceError:
            return False
        for candidate in polled.candidates:
            assert self.kept.setdefault(candidate.key, candidate.target) == candidate.target
        if keep:
            self.cursor = json.loads(json.dumps(polled.cursor))
        return polled.more

    def drain(self) -> None:
        """Poll until it has caught up, with a Hub that does what it should."""
        self.hub.calm()
        for _ in range(300):
            if not self.poll(50):
                return
        raise AssertionError("the source never comes to an end")

    def heads(self) -> set[str]:
        return {f"hf:{r.id}@{r.head.oid}" for r in self.hub.state.repos.values()}


def _campaign(steps: list[tuple[str, object]], *, full: bool, order: str = "") -> None:
    with HubSimulator() as hub:
        world = World(hub, full=full, order=order)
        world.drain()
        for what, value in steps:
            _do(world, what, value)
        if full:
            world.elapsed += timedelta(hours=25)
            world.skew = timedelta()
        world.drain()
        missing = world.heads() - set(world.kept)
        assert not missing, missing
        targets = list(world.kept.values())
        assert len(targets) == len(set(targets))


_SETTINGS = settings(
    max_examples=int(os.environ.get("WATCH_EXAMPLES", "12")),
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # shrinking against a server takes hours
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@_SETTINGS
@given(st.lists(STEP, min_size=10, max_size=40))
def test_with_the_dates_alone_nothing_is_lost_and_nothing_has_two_keys(
    steps: list[tuple[str, object]],
) -> None:
    _campaign([s for s in steps if s[0] != "our clock"], full=False)


INTERRUPTED = [
    ("new", 30),
    ("time", 3_000),
    ("poll", 5),
    ("new", 3),
    ("time", 3_000),
    ("poll", 7),
    ("crash", 9),
]
STEPPING = [
    ("new", 25), ("time", 9_000), ("drain", 0), ("hub clock", -5_000), ("new", 10), ("poll", 3), ("time", 900),
    ("hub clock", 5_000), ("new", 4), ("fault", 503), ("poll", 5), ("time", 9_000),
]  # fmt: skip


@_SETTINGS
@example("created_at", INTERRUPTED)
@example("last_modified", INTERRUPTED)
@example("created_at", STEPPING)
@example("last_modified", STEPPING)
@given(st.sampled_from(["created_at", "last_modified"]), st.lists(STEP, min_size=10, max_size=40))
def test_each_order_loses_nothing_by_itself(order: str, steps: list[tuple[str, object]]) -> None:
    left_out = {"our clock", "change"} if order == "created_at" else {"our clock"}
    _campaign([s for s in steps if s[0] not in left_out], full=False, order=order)


@_SETTINGS
@given(st.lists(STEP, min_size=10, max_size=40))
def test_with_full_passes_clocks_may_do_as_they_like(steps: list[tuple[str, object]]) -> None:
    _campaign(steps, full=True)


def _do(world: World, what: str, value: object) -> None:
    hub, repos = world.hub, list(world.hub.state.repos.values())
    assert isinstance(value, (int, str))
    if what == "new":
        assert isinstance(value, int)
        for _ in range(value):
            hub.repo(f"org/r{world.count:05}")
            world.count += 1
    elif what == "change" and repos:
        hub.upload(repos[int(value) % len(repos)].id, {"a.bin": f"{what} {world.count}".encode()})
        world.count += 1
    elif what == "delete" and repos:
        gone = repos[int(value) % len(repos)]
        del hub.state.repos["model", gone.id.lower()]
    elif what == "drain":
        world.drain()
    elif what == "poll":
        world.poll(int(value))
    elif what == "crash":
        world.poll(int(value), keep=False)
    elif what == "fault":
        hub.fail(value)
    elif what == "hub clock":
        hub.advance(timedelta(seconds=int(value)))
        if not world.full:  # by dates alone, a step is noticed if the Hub can be asked before the next one
            world.drain()
    elif what == "our clock":
        world.skew += timedelta(seconds=int(value))
    elif what == "time":
        hub.advance(timedelta(seconds=int(value)))
        world.elapsed += timedelta(seconds=int(value))
