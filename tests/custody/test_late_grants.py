"""Grants after their step was entered: custody makes the envelope of who may have one, and of nobody else."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from activities.custody.base import Asked
from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.decide_late import entered_attempt, late_grant
from orchestrator.domain.errors import Conflict
from orchestrator.domain.permissions import Role
from orchestrator.domain.plan import Plan
from orchestrator.records import partners
from orchestrator.records.database import connect, writing
from tests.custody.intruder import Intruder
from tests.custody.world import MALLORY, NGO, UNI, World, recipient_digest, signed_plan
from tests.support.plans import actor

DAY = timedelta(days=1)
MANAGER = actor("mia", Role.RELEASE_MANAGER)


def registered_plan() -> Plan:
    return signed_plan(partner_keys="registered")


@pytest.fixture
def intruder(request: pytest.FixtureRequest, world: World, monkeypatch: pytest.MonkeyPatch) -> Intruder:
    if "downloading" in request.fixturenames:
        request.getfixturevalue("downloading")
    return Intruder(world, monkeypatch)


@pytest.fixture(scope="module")
def walked(template: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world that has walked to `download`, at rest; tests go on with copies of it."""
    folder = tmp_path_factory.mktemp("walked")
    shutil.copyfile(template, folder / "records.db")
    world = World(connect(f"sqlite:///{folder}/records.db"), folder)
    world.create(plan=registered_plan())
    world.register()
    world.to("download")
    world.add_partner_key("ngo", NGO.recipient)
    world.close()
    world.engine.dispose()
    return world


@pytest.fixture
def downloading(world: World, walked: World) -> World:
    """At `download`, entered when ngo had no key; by now it has registered one."""
    world.goes_on_as(walked)
    return world


def ask(world: World, partner: str = "ngo", **more: Any) -> Asked:
    """Somebody asks for a grant; what custody is then asked."""
    world.say(cmd.MakeGrant(**world.head(MANAGER), partner=partner, **more))
    return asked_of(world, partner)


def asked_of(world: World, partner: str, key: str = NGO.recipient, step: str = "download") -> Asked:
    attempt = entered_attempt(world.state, world.step(step))
    recipient = {partner: recipient_digest(key)}
    return Asked("alpha", step, attempt or 0, world.state.updated_at, recipient, late=partner)


def complete(world: World, partner: str, recipient: str, envelopes: dict[str, str]) -> ev.Grant:
    done = cmd.CompleteGrant(
        **world.head(cmd.SERVICE),
        step="download",
        partner=partner,
        recipient=recipient_digest(recipient),
        envelopes=envelopes,
    )
    (made,) = world.say(done)
    assert isinstance(made, ev.GrantMade)
    return made.grant


# --- who may have one ------------------------------------------------------------------------------------------------


def test_a_partner_who_registers_its_key_late_gets_its_envelope(downloading: World) -> None:
    world = downloading
    made = world.custody.make_envelopes(ask(world))
    ((grant, envelopes),) = made.items()
    assert grant == "download.4.ngo"
    payload = world.opened(envelopes[world.artifact.artifact_id], NGO)
    assert (payload.step, payload.grant) == ("download", "download.4.ngo")
    assert complete(world, "ngo", NGO.recipient, envelopes).id == grant
    world.enter("open")  # custody believes the whole history, with the late grant in it


def test_a_grant_that_ran_out_is_renewed_under_a_new_id(downloading: World) -> None:
    world = downloading
    world.clock.now += 201 * DAY
    world.say(cmd.Expire(**world.head(cmd.SERVICE)))
    assert world.state.grants["download.4.uni"].end == "expired"
    asked = replace(ask(world, "uni"), partners={"uni": recipient_digest(UNI.recipient)})
    ((grant, envelopes),) = world.custody.make_envelopes(asked).items()
    assert grant == "download.4.uni.2"
    payload = world.opened(envelopes[world.artifact.artifact_id], UNI)
    assert payload.not_after is not None
    assert payload.not_after > world.clock() + 199 * DAY
    complete(world, "uni", UNI.recipient, envelopes)


def test_a_new_key_gets_an_envelope_and_the_grant_of_the_old_one_ends(downloading: World) -> None:
    world = downloading
    ((_, first),) = world.custody.make_envelopes(ask(world)).items()
    old = complete(world, "ngo", NGO.recipient, first)
    with writing(world.engine) as session:
        partners.add_key(session, "ngo", MALLORY.recipient, at=world.clock(), by="mia")
        partners.revoke_key(session, "ngo", recipient_digest(NGO.recipient), at=world.clock(), by="mia")
    asked = replace(ask(world), partners={"ngo": recipient_digest(MALLORY.recipient)})
    ((_, second),) = world.custody.make_envelopes(asked).items()
    new = complete(world, "ngo", MALLORY.recipient, second)
    world.opened(second[world.artifact.artifact_id], MALLORY)
    assert (new.id, world.state.grants[old.id].end) == ("download.4.ngo.2", "superseded")


def test_an_earlier_step_that_still_stands_takes_late_partners(world: World) -> None:
    """The plan goes on to another gated download; who was late for the first still gets the first."""
    plan = registered_plan().model_dump(mode="json", exclude_defaults=True)
    plan["format"] = "sluice.plan/v1"
    again = {**plan["steps"][3], "name": "again"}
    plan["steps"] = [*plan["steps"][:4], again]
    world.create(plan=Plan.model_validate(plan))
    world.register()
    world.to("again")
    world.add_partner_key("ngo", NGO.recipient)
    assert list(world.custody.make_envelopes(ask(world, step="download"))) == ["download.4.ngo"]


# --- who may not -----------------------------------------------------------------------------------------------------


def test_nobody_asked(downloading: World, intruder: Intruder) -> None:
    intruder.gets_nothing(asked_of(downloading, "ngo"), "nobody asks for a grant of ngo")


def test_not_in_the_audience(downloading: World, intruder: Intruder) -> None:
    world = downloading
    world.add_partner_key("mallory", MALLORY.recipient)
    intruder.forge(ev.GrantAsked(**intruder.head("mia"), step="download", partner="mallory"))
    asked = asked_of(world, "mallory", MALLORY.recipient)
    intruder.gets_nothing(asked, "mallory is not in the audience of `download`")


def test_a_deployment_is_no_partner(downloading: World, intruder: Intruder) -> None:
    intruder.forge(ev.GrantAsked(**intruder.head("mia"), step="demo", partner="platform"))
    asked = asked_of(downloading, "platform", step="demo")
    intruder.gets_nothing(asked, "platform is not in the audience of `demo`")


def test_somebody_elses_key(downloading: World, intruder: Intruder) -> None:
    asked = replace(ask(downloading), partners={"ngo": recipient_digest(MALLORY.recipient)})
    intruder.gets_nothing(asked, "no registered key of ngo fits")


def test_a_key_that_was_revoked(downloading: World, intruder: Intruder) -> None:
    world = downloading
    asked = ask(world)
    with writing(world.engine) as session:
        partners.revoke_key(session, "ngo", recipient_digest(NGO.recipient), at=world.clock(), by="mia")
    intruder.gets_nothing(asked, "was revoked")


def test_a_registered_key_where_the_plan_takes_pinned_ones_alone(world: World, intruder: Intruder) -> None:
    world.to("download")
    world.add_partner_key("ngo", NGO.recipient)
    intruder.gets_nothing(ask(world), "ngo gets no key, or has none yet")


def test_after_its_grant_was_revoked(downloading: World, intruder: Intruder) -> None:
    world = downloading
    world.say(cmd.Revoke(**world.head(MANAGER), partner="uni", reason="terms were broken"))
    with pytest.raises(Conflict, match="revoked"):
        ask(world, "uni")
    intruder.forge(ev.GrantAsked(**intruder.head("mia"), step="download", partner="uni"))
    intruder.gets_nothing(asked_of(world, "uni", UNI.recipient), "a grant of uni was revoked")


def test_revoked_between_the_asking_and_the_making(downloading: World, intruder: Intruder) -> None:
    world = downloading
    asked = replace(ask(world, "uni"), partners={"uni": recipient_digest(UNI.recipient)})
    world.say(cmd.Revoke(**world.head(MANAGER), partner="uni", reason="terms were broken"))
    intruder.gets_nothing(asked, "a grant of uni was revoked")


def test_a_plan_amended_by_a_quorum_lets_a_revoked_partner_in_again(world: World) -> None:
    world.to("download")
    world.say(cmd.Revoke(**world.head(MANAGER), partner="uni", reason="its key was stolen"))
    raw = world.state.plan.model_dump(mode="json")
    raw["partners"]["uni"]["recipient"] = NGO.recipient
    world.dear(cmd.AmendPlan, ["sam", "lea"], plan=Plan.model_validate(raw), reason="a new key")
    asked = replace(ask(world, "uni"), partners={})
    ((grant, envelopes),) = world.custody.make_envelopes(asked).items()
    assert grant == "download.4.uni.2"
    world.opened(envelopes[world.artifact.artifact_id], NGO)


def test_a_plan_amended_otherwise_does_not(world: World) -> None:
    world.to("download")
    world.say(cmd.Revoke(**world.head(MANAGER), partner="uni", reason="terms were broken"))
    raw = {**world.state.plan.model_dump(mode="json"), "title": "Another title"}
    world.dear(cmd.AmendPlan, ["sam", "lea"], plan=Plan.model_validate(raw), reason="a title")
    with pytest.raises(Conflict, match="revoked"):
        ask(world, "uni")


def test_during_a_hold(downloading: World, intruder: Intruder) -> None:
    world = downloading
    asked = ask(world)
    world.say(cmd.Hold(**world.head(MANAGER), reason="wait"))
    intruder.gets_nothing(asked, "on hold")


def test_a_hold_lifted_by_nobody_still_holds(downloading: World, intruder: Intruder) -> None:
    world = downloading
    asked = ask(world)
    world.say(cmd.Hold(**world.head(MANAGER), reason="wait"))
    holds = list(world.state.holds)
    intruder.forge(ev.HoldsLifted(**intruder.head("mia"), holds=holds, people=["mia", "sam"]))
    intruder.gets_nothing(asked, "on hold")


def test_while_a_severe_incident_is_open(downloading: World, intruder: Intruder) -> None:
    world = downloading
    asked = ask(world)
    world.say(
        cmd.ReportIncident(
            **world.head(MANAGER), incident="leak-1", kind="leak", severity="severe", summary="seen"
        )
    )
    intruder.gets_nothing(asked, "severe incident leak-1")


def test_after_a_rollback_of_the_step(downloading: World, intruder: Intruder) -> None:
    world = downloading
    asked = ask(world)
    world.say(cmd.RollBack(**world.head(MANAGER), to="query", reason="a mistake"))
    intruder.gets_nothing(asked, "nobody asks")
    intruder.forge(ev.GrantAsked(**intruder.head("mia"), step="download", partner="ngo"))
    intruder.gets_nothing(replace(asked, at=world.state.updated_at), "`download` is not entered")


def test_for_a_step_that_is_not_entered(world: World, intruder: Intruder) -> None:
    world.create(plan=registered_plan())
    world.register()
    world.to("query")
    world.add_partner_key("ngo", NGO.recipient)
    intruder.forge(ev.GrantAsked(**intruder.head("mia"), step="download", partner="ngo"))
    intruder.gets_nothing(asked_of(world, "ngo"), "`download` is not entered")


def test_a_step_forged_as_entered(world: World, intruder: Intruder) -> None:
    world.create(plan=registered_plan())
    world.register()
    world.at_gate("download")
    world.add_partner_key("ngo", NGO.recipient)
    intruder.forge(intruder.entry("download"))
    intruder.forge(intruder.entered("download"))
    intruder.forge(ev.GrantAsked(**intruder.head("mia"), step="download", partner="ngo"))
    intruder.gets_nothing(asked_of(world, "ngo"), "its gate did not hold")


def test_an_entry_backdated_past_its_cooling_off(world: World, intruder: Intruder) -> None:
    """Signed by everybody, and entered at once with a date behind the cooling-off: custody saw when it really was."""
    world.create(plan=registered_plan())
    world.register()
    world.at_gate("download")
    world.add_partner_key("ngo", NGO.recipient)
    for person, role in (("sam", "safety"), ("lea", "legal"), ("rex", "reviewer")):
        world.sign(person, "download", role, watched=False)
    signed = world.clock()
    world.clock.now += 7 * DAY + timedelta(seconds=1)
    entry, entered = intruder.entry("download"), None
    intruder.forge(entry)
    entered = intruder.entered("download")
    intruder.forge(entered)
    intruder.forge(ev.GrantAsked(**intruder.head("mia"), step="download", partner="ngo"))
    assert world.clock() - signed > 7 * DAY
    # only now does custody look, for the first time since: it saw the sign-offs and the entry at once
    intruder.gets_nothing(asked_of(world, "ngo"), "by custody's own clock")


def test_a_late_grant_forged_into_the_log(downloading: World, intruder: Intruder) -> None:
    world = downloading
    step = world.step("download")
    grant = late_grant(world.state, step, "ngo", recipient_digest(MALLORY.recipient), world.clock())
    assert grant is not None
    intruder.forge(ev.GrantMade(**intruder.head("mia"), grant=grant))
    world.clock.now += 60 * DAY
    intruder.gets_nothing(asked_of(world, "ngo"), "nobody asked for it")
