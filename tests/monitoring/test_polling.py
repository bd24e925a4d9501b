"""No candidate is lost by an outage, a crash between two writes, or a second worker; and a blind source is not a quiet one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from activities.beating import Beat
from activities.leaks.polling import Polling
from artifacts.leaks.watching import Candidate, Cursor, Polled, RateLimits, SourceError, Trouble
from orchestrator.domain.errors import Unavailable
from orchestrator.records import database, monitors, suspects

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Listing:
    """A source over a list that grows: everything behind a place, `limit` at a time, as every source of the product answers."""

    name, kind = "listing", "hub"

    def __init__(self) -> None:
        self.entries: list[Candidate] = []
        self.error: SourceError | Exception | None = None
        self.asked = 0
        self.stuck = False

    def publish(self, number: int, size: int | None = None) -> None:
        for _ in range(number):
            place = len(self.entries)
            key = f"hf:somebody/model-{place}@1"
            self.entries.append(
                Candidate(source=self.name, key=key, target=key, title=key, size=size, seen_at=NOW)
            )

    def poll(self, cursor: Cursor | None, limit: int) -> Polled:
        self.asked += 1
        if self.error is not None:
            raise self.error
        at = (cursor or {}).get("at", 0)
        page = self.entries[at : at + min(limit, 50)]
        new = at if self.stuck else at + len(page)
        return Polled(
            candidates=tuple(page),
            cursor={"at": new},
            more=self.stuck or new < len(self.entries),
            limits=RateLimits(limit=500, remaining=500 - self.asked),
        )


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def listing() -> Listing:
    return Listing()


@pytest.fixture
def polling(engine: Engine, listing: Listing, clock: Clock) -> Polling:
    made = Polling(engine, {"listing": listing}, every=timedelta(minutes=1), clock=clock)
    made.prepare()
    return made


def kept(engine: Engine) -> int:
    with database.reading(engine) as session:
        return suspects.counts(session)["suspects"]


def standing(engine: Engine, name: str = "listing") -> monitors.SourceStanding:
    with database.reading(engine) as session:
        return monitors.get(session, name)


def test_an_outage_of_hours_loses_no_candidate_and_shows(
    polling: Polling, listing: Listing, clock: Clock, engine: Engine
):
    listing.publish(120)
    assert polling.poll("listing", "a", Beat()).new == 120
    listing.error = SourceError("asked to wait", Trouble.RATE_LIMITED, retry_after_s=600)
    clock.now += timedelta(minutes=2)
    found = polling.poll("listing", "a", Beat())
    assert (found.state, found.why) == ("blind", "asked to wait")
    asked = listing.asked
    clock.now += timedelta(minutes=5)
    assert polling.poll("listing", "a", Beat()).state == "resting", (
        "it asked to be left alone for ten minutes"
    )
    assert listing.asked == asked
    shown = standing(engine)
    assert (shown.error, shown.trouble, shown.last_success) == ("asked to wait", "rate_limited", NOW)
    assert shown.failing_since == NOW + timedelta(minutes=2)
    listing.publish(777)
    listing.error = None
    clock.now += timedelta(hours=9)
    assert polling.poll("listing", "a", Beat()).new == 777
    shown = standing(engine)
    assert (shown.error, shown.failing_since, shown.last_success) == (None, None, clock.now)
    assert shown.limits["limit"] == 500
    assert kept(engine) == 897


def test_a_crash_between_two_pages_goes_on_behind_what_was_kept(
    polling: Polling, listing: Listing, clock: Clock, engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    listing.publish(300)
    real, calls = suspects.keep, []

    def dies(*arguments: object) -> int:
        calls.append(1)
        if len(calls) == 3:
            raise Unavailable("the database went away in the middle of the third page")
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(suspects, "keep", dies)
    with pytest.raises(Unavailable):
        polling.poll("listing", "a", Beat())
    assert kept(engine) == 100
    with database.reading(engine) as session:
        assert monitors.held(session, "listing", "a").cursor == {"at": 100}, "no further than what was kept"
    again = polling.poll("listing", "a", Beat())  # the retry of the same sweep takes its own lease again
    assert (again.state, again.new) == ("looked", 200)
    assert kept(engine) == 300


def test_a_dead_holders_lease_ends_and_two_do_not_poll_at_once(
    polling: Polling, listing: Listing, clock: Clock, engine: Engine
):
    listing.publish(10)
    with database.writing(engine) as session:
        lease = monitors.lease(
            session, "listing", "dead", clock.now, at_most=timedelta(minutes=10), every=timedelta(minutes=1)
        )
        assert lease is not None
    clock.now += timedelta(minutes=5)
    assert polling.poll("listing", "b", Beat()).state == "resting"
    clock.now += timedelta(minutes=6)
    assert polling.poll("listing", "b", Beat()).new == 10
    with database.writing(engine) as session:  # the dead one wakes up and wants to move the cursor back
        late = monitors.moved(
            session, lease, clock.now, cursor={"at": 0}, behind_seconds=0, limits={}, notes=[], done=True
        )
    assert late is None


def test_a_source_that_gives_the_same_page_for_ever_is_left_and_says_so(
    polling: Polling, listing: Listing, engine: Engine
):
    listing.publish(10)
    listing.stuck = True
    found = polling.poll("listing", "a", Beat())
    assert found.state == "looked"
    assert listing.asked < 6
    assert "same page" in standing(engine).notes[0]
    assert kept(engine) == 10


def test_a_sources_own_mistake_is_blindness_not_quiet(polling: Polling, listing: Listing, engine: Engine):
    listing.error = ValueError("a bug")
    assert polling.poll("listing", "a", Beat()).state == "blind"
    assert "ValueError" in (standing(engine).error or "")
    assert polling.poll("nobody", "a", Beat()).state == "blind"
    unknown = standing(engine, "nobody")
    assert (unknown.configured, unknown.trouble) == (False, "setting")


def test_what_was_seen_in_part_is_kept_and_the_source_is_blind_all_the_same(
    engine: Engine, polling: Polling, listing: Listing, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing.publish(3)
    polling.poll("listing", "a", Beat())
    seen = clock.now
    listing.publish(2)
    whole = listing.poll
    monkeypatch.setattr(
        listing,
        "poll",
        lambda cursor, limit: whole(cursor, limit).model_copy(update={"failed": "spaces: 500"}),
    )
    clock.now += timedelta(minutes=5)
    result = polling.poll("listing", "a", Beat())
    assert (result.state, result.new) == ("blind", 2)
    assert kept(engine) == 5
    with database.reading(engine) as session:
        standing = monitors.get(session, "listing")
    assert standing.last_success == seen
    assert standing.error == "spaces: 500"


def test_a_clock_that_was_ahead_blinds_no_source_once_it_is_right_again(
    polling: Polling, listing: Listing, clock: Clock, engine: Engine
):
    listing.publish(1)
    clock.now += timedelta(hours=3)
    assert polling.poll("listing", "a", Beat()).new == 1
    with database.writing(engine) as session:  # and a worker that died holding the source, at the wrong time
        monitors.lease(
            session,
            "listing",
            "dead",
            clock.now + timedelta(minutes=2),
            at_most=timedelta(minutes=15),
            every=timedelta(minutes=1),
        )
    clock.now = NOW + timedelta(minutes=2)
    listing.publish(3)
    found = polling.poll("listing", "b", Beat())
    assert (found.state, found.new) == ("looked", 3)
    assert standing(engine).last_success == clock.now
