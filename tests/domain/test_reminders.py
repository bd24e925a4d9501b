"""Who is reminded of what, when, and once; with nothing but the pure rules and a clock."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator.domain import commands as cmd
from orchestrator.domain.decide import decide, reminding
from orchestrator.domain.errors import NotPermitted
from orchestrator.domain.plan import Plan, Reminders
from orchestrator.domain.reminders import next_reminder, reminders
from orchestrator.domain.waits import waits
from tests.domain.walker import MOMENT, Walker, person
from tests.support.plans import five_stages

DAY = timedelta(days=1)


def plan(**changes) -> Plan:
    return Plan.model_validate(five_stages(**changes))


def walker(**changes) -> Walker:
    """At `demo`; the gate of `query` asks for 30 days of research, safety and legal."""
    made = Walker(plan(**changes))
    made.walk("demo")
    made.prepare(made.state.next_step)
    return made


def told(walk: Walker) -> list:
    """What the release says now, of its own."""
    command = reminding(walk.state, walk.now)
    return [] if command is None else walk._take(command)


def later(walk: Walker, by: timedelta) -> list:
    """Whatever is said in the meantime, with when: the release wakes by itself, as the workflow does."""
    end, said = walk.now + by, []
    while (wakes := next_reminder(walk.state, walk.now)) is not None and wakes <= end:
        walk.now = wakes
        said += told(walk)
    walk.now = end
    return said + told(walk)


def test_the_digest_of_a_plan_that_asks_for_nothing_stays_and_another_is_kept() -> None:
    assert "reminders" not in plan().model_dump(mode="json")
    changed = plan(reminders={"before": "1d"})
    assert changed.digest != plan().digest
    assert Plan.model_validate(changed.model_dump(mode="json")) == changed
    assert Plan.model_validate(plan(reminders=None).model_dump(mode="json")).reminders is None
    assert plan(reminders={"before": "3d", "waiting": "7d"}).digest == plan().digest


def test_a_window_is_told_three_days_before_its_end_once_to_who_is_missing() -> None:
    walk = walker()
    asked = walk.state.window_asked(walk.state.next_step)
    assert asked > 10 * DAY
    said = [e for e in later(walk, asked - 3 * DAY - MOMENT) if e.kind == "window_ends"]
    assert said == [], "not a moment earlier"
    said = [e for e in later(walk, 2 * DAY) if e.kind == "window_ends"]
    assert len(said) == 1, "and once"
    assert said[0].people == ["lea", "sam", "sue"], "who can still sign"
    assert "the research window before `query` ends at" in said[0].message
    assert said[0].due - said[0].at == 3 * DAY


def test_a_window_that_was_extended_is_told_anew_and_one_on_hold_is_not() -> None:
    walk = walker()
    later(walk, walk.state.window_asked(walk.state.next_step) - 2 * DAY)
    walk.do(cmd.Hold, person("mia"), reason="look at it")
    assert not [one for one in reminders(walk.state, walk.now) if one.kind == "window_ends"]
    extended = walker()
    later(extended, extended.state.window_asked(extended.state.next_step) - 2 * DAY)
    extended.do(cmd.ExtendWindow, person("mia"), step="query", by=10 * DAY, reason="more")
    said = [e for e in later(extended, 10 * DAY) if e.kind == "window_ends"]
    assert len(said) == 1


def test_a_pending_sign_off_is_told_once_after_a_week() -> None:
    walk = walker()
    said = later(walk, 6 * DAY)
    assert [e for e in said if e.kind == "sign_off_waits"] == []
    said = [e for e in later(walk, 10 * DAY) if e.kind == "sign_off_waits"]
    assert sorted(tuple(e.people) for e in said) == [("lea", "sue"), ("sam", "sue")], "one for each role"
    walk.sign(walk.state.next_step, "sam", "safety")
    assert [e for e in later(walk, 5 * DAY) if e.kind == "sign_off_waits"] == []


def test_a_sign_off_that_expires_is_told_to_its_person() -> None:
    walk = walker()
    step = walk.state.next_step
    walk.sign(step, "sam", "safety")
    record = walk.state.sign_offs["sam"]
    said = [e for e in later(walk, record.expires_at - walk.now - MOMENT) if e.kind == "sign_off_expires"]
    assert [(e.people, e.due) for e in said] == [(["sam"], record.expires_at)]
    assert said[0].at == record.expires_at - 3 * DAY
    pending = [wait for wait in waits(walk.state, walk.now) if wait.what == "sign_off_expires"]
    assert [wait.people for wait in pending] == [["sam"]]
    walk.now += 2 * MOMENT
    assert not [wait for wait in waits(walk.state, walk.now) if wait.what == "sign_off_expires"]


def test_a_short_sign_off_needs_no_reminder() -> None:
    walk = walker()
    step = walk.state.next_step
    subject = walk.sign(step, "sam", "safety")[0].subject
    walk.do(
        cmd.SignOff,
        person("lea"),
        step=step.name,
        role="legal",
        decision="approve",
        subject=subject,
        expires_at=walk.now + 2 * DAY,
    )
    assert [e for e in later(walk, 3 * DAY) if e.kind == "sign_off_expires"] == []


def test_a_delegation_that_ends_is_told_to_both() -> None:
    walk = walker()
    walk.do(cmd.Delegate, person("sam"), to="dan", role="safety", until=walk.now + 20 * DAY)
    said = [e for e in later(walk, 19 * DAY) if e.kind == "delegation_ends"]
    assert [e.people for e in said] == [["dan", "sam"]]


def test_evidence_that_gets_too_old_is_told() -> None:
    raw = five_stages()
    query = next(step for step in raw["steps"] if step["name"] == "query")
    query["gate"]["evidence"] = [{"kind": "model_card", "max_age": "20d"}, {"kind": "risk_assessment"}]
    walk = Walker(Plan.model_validate(raw))
    walk.walk("demo")
    walk.prepare(walk.state.next_step)
    said = [e for e in later(walk, 25 * DAY) if e.kind == "evidence_ages"]
    assert len(said) == 1
    assert "model_card for `query` is too old from" in said[0].message


def test_a_cooling_off_is_told_to_everybody() -> None:
    walk = Walker(plan())
    walk.walk("query")
    step = walk.state.next_step
    assert step.gate.cooling_off is not None
    assert step.gate.cooling_off > 3 * DAY
    walk.wait_for_window(step)
    walk.prepare(step)
    for role, name in walk.signers(step):
        walk.sign(step, name, role)
    said = [e for e in later(walk, step.gate.cooling_off - MOMENT) if e.kind == "cooling_off_ends"]
    assert [e.people for e in said] == [sorted(walk.plan.people)]


def test_nobody_is_reminded_where_the_plan_says_so_and_only_the_release_reminds() -> None:
    walk = walker(reminders=None)
    assert later(walk, 60 * DAY) == []
    with pytest.raises(NotPermitted):
        decide(walk.state, cmd.Remind(command_id="x", actor=person("mia")), walk.now)
    assert Reminders().before == 3 * DAY


def test_a_gate_that_asks_for_nothing_but_a_sign_off_waits_since_the_release_was_made() -> None:
    changed = five_stages()
    changed["steps"][0]["gate"] = {"sign_offs": [{"role": "safety"}]}
    walk = Walker(Plan.model_validate(changed))
    said = [e for e in later(walk, 8 * DAY) if e.kind == "sign_off_waits"]
    assert [e.due for e in said] == [walk.state.created_at + 7 * DAY]
