"""What changes on the way: plans, keys, people's minds, emergencies; and what custody makes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from activities.custody.keys import load_or_make, rewrap_file
from artifacts.custody.base import WrappedKey, wrapping_context
from artifacts.custody.errors import WrappedKeyInvalid
from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.permissions import Role
from orchestrator.domain.plan import Plan, recipient_digest
from orchestrator.domain.preview import preview
from orchestrator.records import partners
from orchestrator.records.database import writing
from orchestrator.trust.keys import PrivateKey
from tests.custody.intruder import Intruder
from tests.custody.world import KEYS, NGO, PLATFORM, UNI, World, signed_plan
from tests.support.plans import actor

MANAGING = (Role.APPROVER, Role.RELEASE_MANAGER)


@pytest.fixture
def intruder(world: World, monkeypatch: pytest.MonkeyPatch) -> Intruder:
    return Intruder(world, monkeypatch)


def amended(world: World, **changes: object) -> Plan:
    raw = {**world.state.plan.model_dump(mode="json"), **changes}
    return Plan.model_validate(raw)


def test_an_amendment_by_the_old_plans_quorum_wraps_anew_and_the_old_context_opens_nothing(
    world: World,
) -> None:
    world.to("demo")
    before = world.memory.holding(world.artifact.artifact_id)
    assert before is not None
    plan = amended(world, title="Another title")
    world.dear(cmd.AmendPlan, ["sam", "lea"], plan=plan, reason="a better title")
    assert world.custody.take_in("alpha") == [world.artifact.artifact_id]
    after = world.memory.holding(world.artifact.artifact_id)
    assert after is not None
    assert after.plan_digest == plan.digest != before.plan_digest
    assert world.provider is not None
    old = wrapping_context("alpha", after.artifact, before.plan_digest)
    with pytest.raises(WrappedKeyInvalid):
        world.provider.unwrap(WrappedKey.parse(after.wrapped), old)
    made = world.enter("query")
    world.opened(made["query.3.platform"][world.artifact.artifact_id], PLATFORM)


def test_an_amendment_counts_only_with_two_different_people(world: World) -> None:
    world.to("demo")
    plan = amended(world, title="Another title")
    world.dear(cmd.AmendPlan, ["sam", "sam"], plan=plan, reason="a better title")
    assert world.state.plan_digest == world.plan.digest
    world.custody.take_in("alpha")
    held = world.memory.holding(world.artifact.artifact_id)
    assert held is not None
    assert held.plan_digest == world.plan.digest


def test_the_key_encryption_key_is_rotated_and_every_root_comes_along(world: World) -> None:
    world.to("inside")
    world.custody.take_in("alpha")
    before = world.memory.holdings()
    assert world.custody.rotate() == (2, 1)
    after = world.memory.holdings()
    assert [WrappedKey.parse(held.wrapped).version for held in before] == [1]
    assert [WrappedKey.parse(held.wrapped).version for held in after] == [2]
    made = world.enter("demo")
    world.opened(made["demo.2.platform"][world.artifact.artifact_id], PLATFORM)
    assert [leaf["action"] for leaf in world.custody_leaves()] == ["kek_rotated", "unwrap"]


def test_a_rotation_that_was_cut_short_is_gone_on_with_and_custodys_own_keys_come_along(world: World) -> None:
    assert world.provider is not None
    world.to("inside")
    world.custody.take_in("alpha")
    world.provider.rotate()  # and there the operator's machine went down
    assert world.custody.rotate(resume=True, by="mia") == (2, 1)
    assert world.custody.rotate(resume=True, by="mia") == (2, 0), "done already: nothing is wrapped twice"
    assert world.custody_leaves()[-1]["by"] == "mia"
    file = world.folder / "keys.json"
    rewrap_file(file, world.provider)
    stored = json.loads(file.read_text())
    assert {WrappedKey.parse(stored[name]).version for name in ("identity", "envelopes", "log")} == {2}
    assert file.stat().st_mode & 0o077 == 0
    assert load_or_make(file, world.provider, "sluice.example/log").public == world.keys.public


def test_a_partner_rotates_its_key_by_an_amendment_and_the_next_envelope_is_for_the_new_one(
    world: World,
) -> None:
    """Pinned recipients are policy: another key for a partner is another plan, with its quorum."""
    world.to("query")
    raw = world.plan.model_dump(mode="json")
    raw["partners"]["uni"]["recipient"] = NGO.recipient
    world.dear(
        cmd.AmendPlan, ["sam", "lea"], plan=Plan.model_validate(raw), reason="the university made a new key"
    )
    made = world.enter("download")
    reference = made["download.4.uni"][world.artifact.artifact_id]
    world.opened(reference, NGO)
    with pytest.raises(Exception, match="envelope"):
        world.opened(reference, UNI)


@pytest.fixture
def registering(engine: Engine, tmp_path: Path) -> World:
    """A plan that takes the keys that partners register."""
    raw = signed_plan().model_dump(mode="json")
    raw["partner_keys"] = "registered"
    return World(engine, tmp_path, plan=Plan.model_validate(raw))


def test_a_registered_key_is_used_until_it_is_revoked(
    registering: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = registering
    world.to("query")
    world.add_partner_key("ngo", NGO.recipient)
    world.wait("download")
    world.prepare("download")
    world.approve("download")
    ready = {"ngo": recipient_digest(NGO.recipient)}
    asked = replace(world.begin("download"), partners=ready)
    made = world.custody.make_envelopes(asked)
    world.opened(made["download.4.ngo"][world.artifact.artifact_id], NGO)
    with writing(world.engine) as session:
        partners.revoke_key(session, "ngo", ready["ngo"], at=world.clock(), by="mia")
    Intruder(world, monkeypatch).gets_nothing(asked, "of ngo was revoked")
    world.close()


def test_revoked_before_disclosure_no_envelope_and_no_way_back_through_custody(world: World) -> None:
    world.to("download")
    grant = world.state.grants["download.4.uni"]
    assert grant.disclosed_at is None
    revoke = cmd.Revoke(**world.head(actor("mia", *MANAGING)), grant=grant.id, reason="no longer")
    told = preview(world.state, revoke, world.clock()).consequences
    assert told[0] == "download.4.uni ends: its key was never handed over, so this is complete"
    [ended] = world.say(revoke)
    assert isinstance(ended, ev.GrantEnded)
    assert ended.disclosed is False, "the key never left: revoking is complete"


def test_revoked_after_disclosure_says_that_only_the_future_is_cut(world: World) -> None:
    world.to("download")
    world.say(cmd.DiscloseGrant(**world.head(cmd.SERVICE), grant="download.4.uni"))
    manager = actor("mia", *MANAGING)
    revoke = cmd.Revoke(**world.head(manager), grant="download.4.uni", reason="no longer")
    told = preview(world.state, revoke, world.clock()).consequences
    assert told[0] == "download.4.uni ends: its key was handed over before, so only future access is cut"
    [ended] = world.say(revoke)
    assert isinstance(ended, ev.GrantEnded)
    assert ended.disclosed is True


def test_a_deployment_loses_the_next_envelope_when_its_step_is_rolled_back(
    world: World, intruder: Intruder
) -> None:
    world.to("demo")
    world.say(cmd.RollBack(**world.head(actor("mia", *MANAGING)), to="inside", reason="a doubt"))
    intruder.gets_nothing(replace(world.asked("demo"), attempt=2), "is not entering")
    world.prepare("demo")
    world.approve("demo")
    made = world.custody.make_envelopes(world.begin("demo"))
    assert set(made) == {"demo.4.platform"}, "a new approach, a new sign-off, a new envelope"


def test_broken_glass_lifts_the_window_and_nothing_that_people_decide(
    world: World, intruder: Intruder
) -> None:
    world.to("demo")
    world.prepare("query")
    fields = {"step": "query", "waives": ["research_window"], "reason": "the other copy leaked"}
    made = world.dear(cmd.BreakGlass, ["sam", "lea"], **fields)
    assert [event.type for event in made] == ["endorsed", "proposal_ended", "glass_broken"]
    intruder.forge(intruder.entry("query"))
    reasons = intruder.gets_nothing("query", "its gate did not hold")
    assert {reason.code for reason in reasons} == {"sign_off"}, (
        "the sign-offs are still asked for, the window is not"
    )
    world.say(cmd.TakeBackEntry(**world.head(cmd.SERVICE), step="query", reason="too early", failed=False))
    world.approve("query")
    asked = world.begin("query")
    envelopes = world.custody.make_envelopes(asked)
    world.complete("query", envelopes)
    world.opened(envelopes["query.3.platform"][world.artifact.artifact_id], PLATFORM)
    # the gate after it waits for the review, which somebody else closes with a signature
    world.wait("download")
    world.prepare("download")
    world.approve("download")
    intruder.forge(intruder.entry("download"))
    intruder.gets_nothing("download", "of a broken glass is open")
    world.say(cmd.TakeBackEntry(**world.head(cmd.SERVICE), step="download", reason="review", failed=False))
    review = next(iter(world.state.reviews))
    intruder.forge(ev.ReviewClosed(**intruder.head("sue"), review=review, outcome="fine"))
    intruder.forge(intruder.entry("download"))
    intruder.gets_nothing("download", "of a broken glass is open")


def test_a_review_closed_by_somebody_else_lets_the_release_go_on(world: World) -> None:
    world.to("demo")
    world.prepare("query")
    world.dear(cmd.BreakGlass, ["sam", "lea"], step="query", waives=["research_window"], reason="urgent")
    world.approve("query")
    world.complete("query", world.custody.make_envelopes(world.begin("query")))
    world.dear(cmd.CloseReview, ["sue"], review=next(iter(world.state.reviews)), outcome="it was right")
    assert set(world.enter("download")) == {"download.4.uni"}


def test_an_incident_closed_with_a_signature_and_a_hold_lifted_by_two_let_it_go_on(world: World) -> None:
    from orchestrator.domain.incident import IncidentKind, Severity

    world.to("inside")
    report = {"incident": "leak-1", "kind": IncidentKind.LEAK, "severity": Severity.SEVERE, "summary": "seen"}
    world.say(cmd.ReportIncident(**world.head(actor("sam", *MANAGING)), **report))
    world.dear(cmd.CloseIncident, ["sam", "lea"], incident="leak-1", outcome="an old model")
    world.dear(cmd.Resume, ["sam", "lea"])
    made = world.enter("demo")
    world.opened(made["demo.2.platform"][world.artifact.artifact_id], PLATFORM)


def test_people_without_pinned_keys_count_only_where_custody_is_told_to_take_them(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = signed_plan().model_dump(mode="json")
    raw["people"]["sam"]["keys"] = []
    world = World(engine, tmp_path, plan=Plan.model_validate(raw))
    world.to("inside")
    world.prepare("demo")
    world.sign("sam", "demo", "safety")
    asked = world.begin("demo")
    lax, strict = world.custody, world.new_custody(signed_only=True)
    world.custody = strict
    Intruder(world, monkeypatch).gets_nothing(asked, "the plan pins no key of sam")
    assert lax.make_envelopes(asked)
    world.close()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"people": ["mia", "rex"]}, "of a broken glass is open"),
        ({"reason": "a better reason"}, "of research access counted"),
    ],
)
def test_a_broken_glass_whose_people_or_reason_were_altered(
    world: World, intruder: Intruder, change: dict[str, Any], told: str
) -> None:
    """Whoever broke it does not close its review by leaving themselves out; and another reason is another proposal."""
    world.to("demo")
    world.prepare("query")
    glass = {"step": "query", "waives": ["research_window"], "reason": "urgent"}
    honest = world.write

    def altering(events: Any, command: Any, **more: Any) -> None:
        altered = [e.model_copy(update=change) if e.type == "glass_broken" else e for e in events]
        honest(altered, command, **more)

    world.write = altering  # type: ignore[method-assign]
    world.dear(cmd.BreakGlass, ["sam", "lea"], **glass)
    world.write = honest  # type: ignore[method-assign]
    world.approve("query")
    if "people" not in change:
        intruder.forge(intruder.entry("query"))
        intruder.gets_nothing("query", told)
        return
    world.complete("query", world.custody.make_envelopes(world.begin("query")))
    world.dear(cmd.CloseReview, ["sam"], review=next(iter(world.state.reviews)), outcome="it was right")
    assert world.state.reviews == {}, "the service takes the event's word"
    world.wait("download")
    world.prepare("download")
    world.approve("download")
    intruder.forge(intruder.entry("download"))
    intruder.gets_nothing("download", told)


def test_a_person_makes_a_new_key_by_an_amendment_and_the_old_one_signs_no_more(
    world: World, intruder: Intruder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People's keys are policy too: the old plan's quorum lets the new key in, and what the stolen one signed counts for nothing."""
    world.to("inside")
    world.prepare("demo")
    old, new = KEYS["sam"], PrivateKey.generate()
    raw = world.plan.model_dump(mode="json")
    raw["people"]["sam"]["keys"] = [new.public.text()]
    plan = Plan.model_validate(raw)
    world.dear(cmd.AmendPlan, ["lea", "sue"], plan=plan, reason="sam's laptop was stolen")
    subject = world.subject("demo")
    intruder.forge(intruder.signed_off("sam", "demo", "safety", world.statement("sam", subject, "safety")))
    intruder.forge(intruder.entry("demo"))
    reasons = intruder.gets_nothing("demo", "1 more sign-off as safety")
    assert any("signed_off by sam) has no effect" in reason.message for reason in reasons)
    world.say(cmd.TakeBackEntry(**world.head(cmd.SERVICE), step="demo", reason="forged", failed=False))
    monkeypatch.setitem(KEYS, "sam", new)
    world.sign("sam", "demo", "safety")
    made = world.custody.make_envelopes(world.begin("demo"))
    world.opened(made["demo.2.platform"][world.artifact.artifact_id], PLATFORM)
    assert old.public.key_id != new.public.key_id
