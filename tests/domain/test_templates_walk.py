"""Every template walked through the pure domain: no gate opens early, every step is entered, and the story holds."""

from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.errors import ReleaseEnded
from orchestrator.domain.evolve import fold
from orchestrator.domain.gate import verdict
from orchestrator.domain.incident import Confidence, IncidentKind, Severity
from orchestrator.domain.stage import Stage
from orchestrator.plans.library import get_template, template_names
from tests.domain.walker import PIPELINE, Walker, person

DAY = timedelta(days=1)


def walker(name: str) -> Walker:
    return Walker(get_template(name).plan())


@pytest.mark.parametrize("name", template_names())
def test_a_template_can_be_walked_to_its_end(name):
    walk = walker(name).walk()
    assert list(walk.entered_at) == [step.name for step in walk.plan.steps]
    assert walk.state.current == walk.plan.steps[-1].name
    assert walk.state.status == ("completed" if walk.state.stage is Stage.OPEN else "active")


@pytest.mark.parametrize("name", template_names())
def test_windows_and_cooling_off_really_passed(name):
    walk = walker(name).walk()
    for entry in walk.state.history:
        step = walk.plan.step(entry.step)
        asked = step.gate.research_window or timedelta(0)
        assert entry.window_asked == asked.total_seconds()
        assert entry.window_counted >= entry.window_asked
        if step.gate.cooling_off:
            assert entry.at - max(s.at for s in entry.signed) >= step.gate.cooling_off


@pytest.mark.parametrize("name", template_names())
def test_every_gate_was_signed_by_different_people_in_the_roles_asked(name):
    walk = walker(name).walk()
    for entry in walk.state.history:
        step = walk.plan.step(entry.step)
        people = [s.person for s in entry.signed]
        assert len(people) == len(set(people))
        roles = [s.role for s in entry.signed]
        for need in step.gate.sign_offs:
            assert roles.count(need.role) == need.count
        assert PIPELINE.id not in people


@pytest.mark.parametrize("name", template_names())
def test_a_walk_replays_from_its_events(name):
    walk = walker(name).walk()
    assert fold(walk.events) == walk.state


@pytest.mark.parametrize("name", template_names())
def test_weights_leave_at_downloadable_or_open_alone(name):
    walk = walker(name).walk()
    weights = {c for c, known in walk.plan.components.items() if known.kind == "weights"}
    for grant in walk.state.grants.values():
        if grant.kind in {"key", "public"} and weights & set(grant.components):
            stage = walk.plan.step(grant.step).stage
            assert stage >= Stage.DOWNLOADABLE or grant.holder_kind == "deployment"


def test_five_stages_ends_open_for_everybody_and_takes_no_more_commands():
    walk = walker("five-stages").walk()
    assert set(walk.state.reached.values()) == {Stage.OPEN}
    with pytest.raises(ReleaseEnded):
        walk.do(cmd.Hold, person("ada"), reason="too late")


def test_gpt_2_takes_its_months_and_ends_with_four_sizes_out():
    walk = walker("gpt-2").walk()
    assert walk.entered_at["xl"] - walk.entered_at["small"] >= timedelta(days=60 + 90 + 60)
    sizes = [f"weights-{size}" for size in ("124m", "355m", "774m", "1558m")]
    assert {walk.state.stages[name] for name in sizes} == {Stage.DOWNLOADABLE}
    assert walk.state.stages.get("webtext") is None


def test_gpt_2_had_its_small_size_out_while_the_largest_was_closed():
    walk = walker("gpt-2").walk(until="small")
    assert walk.state.stages["weights-124m"] is Stage.DOWNLOADABLE
    assert walk.state.stages["weights-1558m"] is Stage.CLOSED


def test_gpt_3_gives_no_key_to_anybody_but_its_own_cluster():
    walk = walker("gpt-3").walk()
    assert {g.holder for g in walk.state.grants.values() if g.kind == "key"} == {"api-cluster"}


def test_dall_e_2_goes_public_in_its_opening_hours():
    walk = walker("dall-e-2").walk()
    local = walk.entered_at["public-beta"].astimezone(ZoneInfo("America/Los_Angeles"))
    assert local.weekday() < 4
    assert 9 <= local.hour < 15


def test_stable_diffusion_is_held_when_its_weights_leak_twelve_days_in():
    walk = walker("stable-diffusion").walk(until="hosted-test")
    walk.pass_time(walk.now + 12 * DAY)
    made = walk.do(
        cmd.ReportIncident,
        cmd.SERVICE,
        incident="leak-1",
        kind=IncidentKind.LEAK,
        severity=Severity.SEVERE,
        confidence=Confidence.CONFIRMED,
        summary="The weights lie on a public forum.",
        components=["weights-v1"],
    )
    assert {type(e) for e in made} >= {ev.IncidentReported, ev.HoldPlaced, ev.RolledBack}
    assert walk.state.current == "internal"
    step = walk.state.next_step
    codes = {c.code for c in verdict(walk.state, step, walk.now).unmet}
    assert {"hold", "incident"} <= codes
    walk.pass_time(walk.now + 400 * DAY)
    assert walk.state.current == "internal"


def test_stable_diffusion_does_not_move_while_its_monitor_is_blind():
    walk = walker("stable-diffusion").walk(until="hosted-test")
    step = walk.state.next_step
    walk.wait_for_window(step)
    walk.prepare(step)
    for role, name in walk.signers(step):
        walk.sign(step, name, role)
    walk.now += 30 * timedelta(hours=1)
    found = verdict(walk.state, step, walk.now)
    assert [c.code for c in found.unmet] == ["monitor"]
    assert "blind for" in found.unmet[0].message


def test_opt_175b_gives_each_partner_its_own_grant_that_ends():
    walk = walker("opt-175b").walk()
    grants = [g for g in walk.state.live_grants("largest-on-request") if g.holder_kind == "partner"]
    assert {g.holder for g in grants} == {"university-labs", "civil-society", "government-labs"}
    assert {g.not_after - g.made_at for g in grants} == {365 * DAY}
    walk.pass_time(walk.now + 366 * DAY)
    walk.look_around()
    assert walk.state.live_grants("largest-on-request") == []


def test_galactica_is_taken_back_within_three_days_and_comes_back_by_a_quorum_alone():
    walk = walker("galactica").walk(until="demo")
    walk.pass_time(walk.now + 2 * DAY)
    walk.do(
        cmd.ReportIncident,
        person("gita"),
        incident="harm-1",
        kind=IncidentKind.HARM,
        severity=Severity.MODERATE,
        summary="Fluent, wrong science is cited as fact.",
    )
    assert walk.state.current == "internal"
    assert walk.now - walk.entered_at["demo"] < 3 * DAY
    assert walk.state.live_grants("demo") == []
    walk.do(cmd.CloseIncident, person("alma"), incident="harm-1", outcome="The demo stays off.")
    walk.do(cmd.Resume, person("alma"))
    assert walk.state.holds
    walk.do(cmd.Resume, person("hugo"))
    assert not walk.state.holds
    walk.assert_shut(walk.state.next_step)


def test_bloom_and_gpt_j_hand_everything_to_everybody():
    for name in ("bloom", "gpt-j"):
        walk = walker(name).walk()
        public = [g for g in walk.state.grants.values() if g.holder_kind == "public"]
        assert set(public[-1].components) == set(walk.plan.components)
