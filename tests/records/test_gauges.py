"""What metrics are made of: why gates are closed and since when, and the log in numbers."""

from __future__ import annotations

from sqlalchemy import Engine, select

from orchestrator.domain import commands as cmd
from orchestrator.records import gauges
from orchestrator.records.audit import record_refusal
from orchestrator.records.database import reading, writing
from orchestrator.records.tables import GateReasonRow
from tests.records.story import Story
from tests.support.plans import T0


def reasons(engine: Engine, release: str = "alpha") -> dict[str, GateReasonRow]:
    with reading(engine) as session:
        rows = session.execute(select(GateReasonRow).where(GateReasonRow.release == release)).scalars()
        return {row.code: row for row in rows}


def shown(engine: Engine) -> gauges.Gauges:
    with reading(engine) as session:
        return gauges.gauges(session)


def test_a_reason_keeps_the_time_since_when_it_stands(engine):
    story = Story(engine)
    story.enter("inside")
    entered = story.now
    first = reasons(engine)
    assert {"sign_off", "evidence"} <= set(first)
    assert first["sign_off"].since == entered
    story.hold()
    after = reasons(engine)
    assert after["sign_off"].since == entered
    assert after["hold"].since == story.now > entered


def test_a_reason_that_is_met_is_gone_and_the_next_step_begins_anew(engine):
    story = Story(engine)
    story.enter("inside")
    now = reasons(engine)
    assert all(row.step != "inside" and row.since > T0 for row in now.values())
    assert "sign_off" in now


def test_an_ended_release_waits_for_nothing(engine):
    story = Story(engine)
    story.say(cmd.Abort(**story.head(), reason="over"))
    assert reasons(engine) == {}


def test_gauges_count_what_stands(engine):
    one, two = Story(engine, "alpha", version="1"), Story(engine, "beta", version="2")
    one.enter("inside")
    entered = one.now
    one.hold()
    two.report("seen")
    found = shown(engine)
    assert found.releases == {("active", "closed"): 2}
    assert found.on_hold == 1
    assert found.reasons["sign_off"].count == 1
    assert found.reasons["sign_off"].oldest == entered
    assert found.reasons["hold"].oldest == one.now
    assert found.incidents == {("leak", "low", "reported"): 1}
    assert found.log_size == one.state.seq + two.state.seq
    assert found.checkpoint_at is None
    with reading(engine) as session:
        several = {(w.release, w.number) for w in session.execute(select(gauges.WaitRow)).scalars()}
    assert sum(found.waits.values()) == len(several)  # once, however many people can do it


def test_a_clock_that_runs_says_when_it_will_be_met(engine):
    story = Story(engine)
    story.enter("inside")
    story.enter("demo")
    found = shown(engine).reasons
    running = [reason for reason in found.values() if reason.running]
    assert running
    assert all(reason.soonest is not None and reason.soonest > story.now for reason in running)


def test_entries_of_the_log_are_counted_once_each(engine):
    Story(engine)
    with reading(engine) as session:
        counts = gauges.log_end(session)
    with writing(engine) as session:
        record_refusal(session, at=T0, actor="eve", action="sign_off", code="not-permitted", detail="no")
    story = Story(engine, "beta", version="2")
    story.hold()
    for _ in range(2):  # reading on finds nothing new
        with reading(engine) as session:
            gauges.log_since(session, counts)
    assert dict(counts.entries) == {
        ("refusal", "not-permitted"): 1,
        ("event", "release_created"): 1,
        ("event", "hold_placed"): 1,
    }
