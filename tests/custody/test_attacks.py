"""With write access to everything but custody's memory and key: no key comes out, and each attack leaves a trace."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from temporalio import workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import Worker

from activities.copies.activity import CopyActivities
from activities.custody.activity import CustodyActivities
from activities.custody.base import Asked
from artifacts.errors import EnvelopeError
from orchestrator.contracts import names
from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.errors import NotFound
from orchestrator.domain.evidence import Evidence
from orchestrator.domain.incident import Confidence, IncidentKind, Severity
from orchestrator.domain.permissions import Role
from orchestrator.domain.plan import Plan, recipient_digest
from orchestrator.domain.values import digest
from orchestrator.records import audit
from orchestrator.records.database import writing
from orchestrator.records.errors import RecordsBroken
from orchestrator.trust.errors import LogInvalid
from orchestrator.trust.keys import PublicKey
from tests.custody.intruder import Intruder
from tests.custody.world import KEYS, MALLORY, PLATFORM, Clock, World, sealed, signed_plan
from tests.support.plans import PIPELINE, T0, actor

DAY = timedelta(days=1)
MANAGING = (Role.APPROVER, Role.RELEASE_MANAGER)


@pytest.fixture
def intruder(world: World, monkeypatch: pytest.MonkeyPatch) -> Intruder:
    return Intruder(world, monkeypatch)


def at_demo(world: World) -> None:
    """Everything but the sign-off of the first gate that hands out a key."""
    world.to("inside")
    world.prepare("demo")


# --- the state of a gate ---------------------------------------------------------------------------------------------


def test_gate_state_set_to_open_in_the_read_model(world: World, intruder: Intruder) -> None:
    at_demo(world)
    state = json.loads(world.state.model_dump_json())
    state["status"] = "entering"
    state["entry"] = {
        "step": "demo",
        "attempt": 2,
        "subject": world.subject("demo").digest,
        "at": world.clock().isoformat(),
    }
    intruder.sql(
        "UPDATE release SET status = 'entering', opens_at = :now, state = :state",
        now=T0.isoformat(),
        state=json.dumps(state),
    )
    intruder.gets_nothing("demo", "is not entering `demo`")


def test_entry_forged_without_any_sign_off(world: World, intruder: Intruder) -> None:
    at_demo(world)
    intruder.forge(intruder.entry("demo"))
    intruder.gets_nothing("demo", "1 more sign-off as safety")


def test_entry_forged_for_a_step_that_is_not_next(world: World, intruder: Intruder) -> None:
    at_demo(world)
    intruder.forge(intruder.entry("open"))
    intruder.gets_nothing("open", "not next")


def test_step_forged_as_entered_to_reach_the_next_gate(world: World, intruder: Intruder) -> None:
    at_demo(world)
    intruder.forge(intruder.entered("demo"))
    intruder.forge(intruder.entry("query"))
    intruder.gets_nothing("query", "the step was not being entered")


def test_rollback_forged_forwards(world: World, intruder: Intruder) -> None:
    at_demo(world)
    jump = ev.RolledBack(
        **intruder.head("mia"), from_step="inside", to_step="query", irrevocable=[], reason="x"
    )
    intruder.forge(jump)
    intruder.gets_nothing("download", "a rollback goes back")


def test_grant_forged_so_that_the_window_runs(world: World, intruder: Intruder) -> None:
    world.to("demo")
    made_up = ev.Grant(
        id="demo.3.nobody",
        step="demo",
        holder="nobody",
        holder_kind="partner",
        kind="access",
        components=["weights"],
        made_at=world.clock(),
    )
    intruder.forge(ev.GrantMade(**intruder.head("mia"), grant=made_up))
    intruder.gets_nothing("query", "the plan does not make the grant")


# --- sign-offs -------------------------------------------------------------------------------------------------------


def forged_by_nobody(world: World, subject: Any) -> str | None:
    return None


def forged_with_another_key(world: World, subject: Any) -> str | None:
    own = world.statement("lea", subject, "safety")
    return own.replace(KEYS["lea"].public.key_id, KEYS["sam"].public.key_id)


def forged_from_somebody_elses(world: World, subject: Any) -> str | None:
    return world.statement("lea", subject, "safety")


def forged_as_a_rejection(world: World, subject: Any) -> str | None:
    return world.statement("sam", subject, "safety", "reject")


def forged_in_another_role(world: World, subject: Any) -> str | None:
    return world.statement("sam", subject, "legal")


@pytest.mark.parametrize(
    "made",
    [
        forged_by_nobody,
        forged_with_another_key,
        forged_from_somebody_elses,
        forged_as_a_rejection,
        forged_in_another_role,
    ],
)
def test_sign_off_inserted(
    world: World, intruder: Intruder, made: Callable[[World, Any], str | None]
) -> None:
    at_demo(world)
    envelope = made(world, world.subject("demo"))
    intruder.forge(intruder.signed_off("sam", "demo", "safety", envelope))
    intruder.forge(intruder.entry("demo"))
    reasons = intruder.gets_nothing("demo", "1 more sign-off as safety")
    assert any("signed_off by sam) has no effect" in reason.message for reason in reasons), "it is named"


def test_sign_off_row_inserted_for_somebody_outside_the_plan(world: World, intruder: Intruder) -> None:
    at_demo(world)
    intruder.forge(intruder.signed_off("mallory", "demo", "safety", None))
    intruder.forge(intruder.entry("demo"))
    intruder.gets_nothing("demo", "the plan does not name mallory")


def test_sign_off_replayed_from_another_step(world: World, intruder: Intruder) -> None:
    at_demo(world)
    envelope = world.statement("sam", world.subject("demo"), "safety")
    world.sign("sam", "demo", "safety", envelope=envelope)
    asked = world.begin("demo")
    world.complete("demo", world.custody.make_envelopes(asked))
    world.wait("query")
    world.prepare("query")
    world.sign("lea", "query", "legal")
    intruder.forge(intruder.signed_off("sam", "query", "safety", envelope))
    intruder.forge(intruder.entry("query"))
    intruder.gets_nothing("query", "step is 'demo', not 'query'")


def test_sign_off_replayed_after_a_rollback(world: World, intruder: Intruder) -> None:
    at_demo(world)
    envelope = world.statement("sam", world.subject("demo"), "safety")
    world.sign("sam", "demo", "safety", envelope=envelope)
    asked = world.begin("demo")
    world.complete("demo", world.custody.make_envelopes(asked))
    manager = actor("mia", *MANAGING)
    world.say(cmd.RollBack(**world.head(manager), to="inside", reason="again"))
    intruder.forge(intruder.signed_off("sam", "demo", "safety", envelope))
    intruder.forge(intruder.entry("demo"))
    intruder.gets_nothing("demo", "attempt is 2, not 4")


def test_sign_off_replayed_after_it_was_withdrawn(world: World, intruder: Intruder) -> None:
    at_demo(world)
    envelope = world.statement("sam", world.subject("demo"), "safety")
    world.sign("sam", "demo", "safety", envelope=envelope)
    world.withdraw("sam", "demo")
    intruder.forge(intruder.signed_off("sam", "demo", "safety", envelope))
    intruder.forge(intruder.entry("demo"))
    intruder.gets_nothing("demo", "one signature counts once")


def test_sign_off_replayed_from_another_plan_version(world: World, intruder: Intruder) -> None:
    at_demo(world)
    envelope = world.statement("sam", world.subject("demo"), "safety")
    amended = world.plan.model_copy(update={"title": "Another title"})
    world.dear(
        cmd.AmendPlan,
        ["sam", "lea"],
        plan=Plan.model_validate(amended.model_dump(mode="json")),
        reason="title",
    )
    assert world.state.plan_digest != world.plan.digest
    intruder.forge(intruder.signed_off("sam", "demo", "safety", envelope))
    intruder.forge(intruder.entry("demo"))
    intruder.gets_nothing("demo", "plan_digest is")


def test_sign_off_replayed_from_another_release(world: World, intruder: Intruder) -> None:
    at_demo(world)
    world.create("beta")
    envelope = world.statement("sam", world.subject("demo").model_copy(update={"release": "beta"}), "safety")
    intruder.forge(intruder.signed_off("sam", "demo", "safety", envelope))
    intruder.forge(intruder.entry("demo"))
    intruder.gets_nothing("demo", "release is 'beta', not 'alpha'")


def test_sign_off_for_evidence_that_was_changed_since(world: World, intruder: Intruder) -> None:
    at_demo(world)
    envelope = world.statement("sam", world.subject("demo"), "safety")
    document = {"kind": "model_card", "digest": digest("another card"), "title": "Card", "step": "demo"}
    world.say(cmd.SubmitEvidence.model_validate({**world.head(PIPELINE), **document}))
    intruder.forge(intruder.signed_off("sam", "demo", "safety", envelope))
    intruder.forge(intruder.entry("demo"))
    intruder.gets_nothing("demo", "evidence_digests is")


def test_sign_off_counts_no_longer_than_was_signed(world: World, intruder: Intruder) -> None:
    at_demo(world)
    envelope = world.statement("sam", world.subject("demo"), "safety")
    forged = intruder.signed_off("sam", "demo", "safety", envelope)
    intruder.forge(forged.model_copy(update={"expires_at": world.clock() + 400 * DAY}))
    world.clock.now += 100 * DAY
    intruder.forge(intruder.entry("demo"))
    intruder.gets_nothing("demo", "sam's is expired")


def test_sign_off_that_has_expired(world: World, intruder: Intruder) -> None:
    at_demo(world)
    world.sign("sam", "demo", "safety")
    world.clock.now += 100 * DAY
    intruder.forge(intruder.entry("demo"))
    intruder.gets_nothing("demo", "sam's is expired")


@pytest.mark.parametrize("comment", ["", " lea@example"])
def test_one_key_registered_under_two_people(world: World, intruder: Intruder, comment: str) -> None:
    raw = world.plan.model_dump(mode="json")
    raw["people"]["lea"]["keys"] = [KEYS["sam"].public.text() + comment]
    digest_of_it = Plan.model_validate(raw).digest
    world.create("beta")

    def swap(entry: dict[str, Any]) -> None:
        entry["event"]["plan"], entry["event"]["plan_digest"] = raw, digest_of_it

    # the API is got round, before custody has looked: the release begins with that plan
    intruder.altered("release_created", swap)
    reasons = intruder.gets_nothing(Asked("beta", "demo", 2, world.clock(), {}), "the plan breaks rules")
    assert "rule-7" in {reason.code for reason in reasons}


def test_one_key_signs_for_two_people_at_one_gate(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = signed_plan().model_dump(mode="json")
    # as a passkey the same key has another text, so that the plan's own rule does not see it
    twin = PublicKey("passkey-eddsa", KEYS["sam"].public.material, "console.example")
    raw["people"]["lea"]["keys"] = [twin.text()]
    raw["steps"][1]["gate"]["sign_offs"] = [{"role": "safety"}, {"role": "legal"}]
    world = World(engine, tmp_path, plan=Plan.model_validate(raw))
    intruder = Intruder(world, monkeypatch)
    at_demo(world)
    world.sign("sam", "demo", "safety")
    envelope = world.statement("sam", world.subject("demo"), "legal")
    intruder.forge(intruder.signed_off("lea", "demo", "legal", envelope))
    intruder.forge(intruder.entry("demo"))
    intruder.gets_nothing("demo", "one key is one person")
    world.close()


# --- plan, manifest, quorum ------------------------------------------------------------------------------------------


def weaker(world: World) -> Plan:
    raw = world.plan.model_dump(mode="json")
    raw["people"]["sam"]["keys"] = [KEYS["dan"].public.text()]
    raw["people"]["dan"]["keys"] = []
    return Plan.model_validate(raw)


def test_plan_swapped_in_the_read_model(world: World, intruder: Intruder) -> None:
    at_demo(world)
    plan = weaker(world)
    state = world.state.model_copy(update={"plan": plan, "plan_digest": plan.digest})
    intruder.sql(
        "UPDATE release SET plan_digest = :digest, state = :state",
        digest=plan.digest,
        state=state.model_dump_json(),
    )
    intruder.gets_nothing("demo", "is not entering")


def test_plan_swapped_in_the_log(world: World, intruder: Intruder) -> None:
    at_demo(world)
    kept = world.custody.sign_checkpoint()
    plan = weaker(world)

    def swap(entry: dict[str, Any]) -> None:
        entry["event"]["plan"] = plan.model_dump(mode="json")
        entry["event"]["plan_digest"] = plan.digest

    intruder.altered("release_created", swap)
    intruder.gets_nothing("demo", "was altered or dropped")
    with pytest.raises(LogInvalid):
        intruder.verify(kept)


def test_plan_amended_by_nobody(world: World, intruder: Intruder) -> None:
    at_demo(world)
    plan = weaker(world)
    amended = ev.PlanAmended(
        **intruder.head("sam"),
        plan=plan,
        plan_digest=plan.digest,
        previous_digest=world.plan.digest,
        reason="x",
        people=["sam", "lea"],
    )
    intruder.forge(amended)
    intruder.gets_nothing("demo", "no quorum carried it")


def proposal_of(
    world: World, intruder: Intruder, action: Any, payload: dict[str, Any], by: str, envelope: str | None
) -> ev.Proposed:
    return ev.Proposed(
        **intruder.head(by),
        proposal="p-1",
        action=action,
        payload=payload,
        payload_digest=digest(payload),
        expires_at=world.clock() + DAY,
        envelope=envelope,
    )


def test_quorum_lowered_by_an_amendment_that_one_person_signed(world: World, intruder: Intruder) -> None:
    at_demo(world)
    raw = world.plan.model_dump(mode="json")
    raw["steps"][3]["gate"]["sign_offs"] = raw["steps"][3]["gate"]["sign_offs"][1:]
    plan = Plan.model_validate(raw)
    manager = actor("sam", *MANAGING)
    command = cmd.AmendPlan(**world.head(manager), plan=plan, reason="faster")
    made = world.dear(cmd.AmendPlan, ["sam"], plan=plan, reason="faster")
    proposed = made[0]
    assert isinstance(proposed, ev.Proposed)
    head = intruder.head("lea")
    intruder.forge(
        ev.Endorsed(**head, proposal=proposed.proposal, envelope=proposed.envelope),
        ev.ProposalEnded(**head, proposal=proposed.proposal, carried=True, people=["lea", "sam"]),
        ev.PlanAmended(
            **head,
            plan=plan,
            plan_digest=plan.digest,
            previous_digest=world.plan.digest,
            reason=command.reason,
            people=["lea", "sam"],
        ),
    )
    intruder.gets_nothing("demo", "no quorum carried it")


def test_manifest_swapped_in_the_database(world: World, intruder: Intruder, tmp_path: Path) -> None:
    at_demo(world)
    world.approve("demo")
    asked = world.begin("demo")
    other, _ = sealed(tmp_path / "other", world.keys.public.recipient)
    intruder.sql("UPDATE artifact SET manifest = :manifest", manifest=other.manifest)
    intruder.gets_nothing(asked, "is not the one that was signed")


def test_manifest_swapped_in_the_log(world: World, intruder: Intruder) -> None:
    at_demo(world)
    known = world.state.artifacts[world.artifact.artifact_id]
    swapped = ev.ArtifactRegistered(
        **intruder.head("ci"),
        artifact=known.id,
        manifest_digest="sha256:" + "b" * 64,
        components=["weights"],
        location=known.location,
        root=known.root,
    )
    intruder.forge(swapped)
    world.approve("demo")
    intruder.forge(intruder.entry("demo"))
    intruder.gets_nothing("demo", "the artifact's manifest was swapped")


def test_wrapped_root_of_somebody_elses_artifact(world: World, intruder: Intruder, tmp_path: Path) -> None:
    at_demo(world)
    other, _ = sealed(tmp_path / "other", world.keys.public.recipient)
    known = world.state.artifacts[world.artifact.artifact_id]
    swapped = ev.ArtifactRegistered(
        **intruder.head("ci"),
        artifact=known.id,
        manifest_digest=known.manifest_digest,
        components=known.components,
        location=known.location,
        root=other.wrapped_root,
    )
    intruder.forge(swapped)
    world.approve("demo")
    asked = world.begin("demo")
    intruder.gets_nothing(asked)


# --- time ------------------------------------------------------------------------------------------------------------


def test_clock_moved_so_that_a_whole_history_is_backdated(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window of 30 days has passed by the events; custody sees all of them for the first time today."""
    custody_clock = Clock(T0 + timedelta(days=40))
    world = World(engine, tmp_path, custody_clock=custody_clock)
    honest = world.custody.watch.catch_up
    monkeypatch.setattr(world.custody.watch, "catch_up", lambda: None)
    world.to("inside")
    world.prepare("demo")
    world.approve("demo")
    world.begin("demo")
    made = {"demo.2.platform": {world.artifact.artifact_id: "envelope-made-up"}}
    world.complete("demo", made)
    world.wait("query")
    world.prepare("query")
    world.approve("query")
    asked = world.begin("query")
    monkeypatch.setattr(world.custody.watch, "catch_up", honest)
    intruder = Intruder(world, monkeypatch)
    intruder.gets_nothing(asked, "by custody's own clock")
    custody_clock.now += timedelta(days=31)
    assert world.custody.make_envelopes(asked), "it passes when it has passed by custody's clock"
    world.close()


def test_clock_of_the_service_runs_ahead(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(engine, tmp_path, custody_clock=Clock())
    intruder = Intruder(world, monkeypatch)
    world.to("inside")
    world.enter("demo")
    world.wait("query")
    world.prepare("query")
    world.approve("query")
    intruder.gets_nothing(world.begin("query"), "lies in the future of custody's clock")
    world.close()


def test_clock_of_custody_set_back(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(engine, tmp_path)
    intruder = Intruder(world, monkeypatch)
    at_demo(world)
    world.approve("demo")
    asked = world.begin("demo")
    world.clock.now -= DAY
    intruder.gets_nothing(asked, "custody's clock shows")
    world.close()


def test_event_older_than_the_one_before_it(world: World, intruder: Intruder) -> None:
    at_demo(world)
    late = intruder.signed_off(
        "sam", "demo", "safety", world.statement("sam", world.subject("demo"), "safety")
    )
    intruder.forge(late.model_copy(update={"at": T0 - DAY}))
    intruder.gets_nothing("demo", "is older than the one before it")


def test_window_shortened_by_nobody(world: World, intruder: Intruder) -> None:
    world.to("demo")
    world.prepare("query")
    forged = ev.WindowChanged(
        **intruder.head("sam"), step="query", required=timedelta(seconds=1), reason="x", people=["sam", "lea"]
    )
    intruder.forge(forged)
    world.clock.now += DAY
    world.approve("query")
    intruder.forge(intruder.entry("query"))
    intruder.gets_nothing("query", "of research access counted")


def test_cooling_off_skipped(world: World, intruder: Intruder) -> None:
    world.to("query")
    world.wait("download")
    world.prepare("download")
    for role, person in (("safety", "sam"), ("legal", "lea"), ("reviewer", "rex")):
        world.sign(person, "download", role)
    intruder.forge(intruder.entry("download"))
    intruder.gets_nothing("download", "of cooling-off are left")


# --- what was said against it ----------------------------------------------------------------------------------------


def test_rejection_dropped_from_the_log(world: World, intruder: Intruder) -> None:
    at_demo(world)
    world.sign("sam", "demo", "safety")
    world.sign("lea", "demo", "legal", "reject")
    kept = world.custody.sign_checkpoint()
    intruder.without("signed_off")
    intruder.gets_nothing("demo", "audit log")
    with pytest.raises(LogInvalid):
        intruder.verify(kept)


def test_rejection_withdrawn_by_nobody(world: World, intruder: Intruder) -> None:
    at_demo(world)
    world.sign("sam", "demo", "safety")
    world.sign("lea", "demo", "legal", "reject")
    intruder.forge(ev.SignOffWithdrawn(**intruder.head("lea"), step="demo", attempt=world.state.attempt))
    intruder.forge(intruder.entry("demo"))
    intruder.gets_nothing("demo", "lea (legal) rejected")


def test_rejection_withdrawn_by_the_statement_that_took_back_another(
    world: World, intruder: Intruder
) -> None:
    at_demo(world)
    world.sign("sam", "demo", "safety")
    world.sign("lea", "demo", "legal", "reject")
    [withdrawn] = world.withdraw("lea", "demo")
    assert isinstance(withdrawn, ev.SignOffWithdrawn)
    world.sign("lea", "demo", "legal", "reject")
    intruder.forge(withdrawn.model_copy(update=intruder.head("lea")))
    intruder.forge(intruder.entry("demo"))
    intruder.gets_nothing("demo", "lea (legal) rejected")


def reported(world: World, severity: Severity, kind: IncidentKind = IncidentKind.LEAK) -> None:
    manager = actor("sam", *MANAGING)
    world.say(
        cmd.ReportIncident(
            **world.head(manager),
            incident="leak-1",
            kind=kind,
            severity=severity,
            summary="seen elsewhere",
        )
    )


def test_incident_dropped_from_the_log(world: World, intruder: Intruder) -> None:
    at_demo(world)
    reported(world, Severity.LOW)
    world.approve("demo")
    kept = world.custody.sign_checkpoint()
    intruder.without("incident_reported")
    intruder.gets_nothing("demo", "audit log")
    with pytest.raises(LogInvalid):
        intruder.verify(kept)


@pytest.mark.parametrize("severity", [Severity.LOW, Severity.SEVERE])
def test_incident_closed_by_nobody(world: World, intruder: Intruder, severity: Severity) -> None:
    at_demo(world)
    reported(world, severity)
    holds = list(world.state.holds)
    intruder.forge(
        ev.IncidentTriaged(
            **intruder.head("sam"),
            incident="leak-1",
            severity=Severity.LOW,
            confidence=Confidence.FALSE_ALARM,
        )
    )
    intruder.forge(
        ev.IncidentClosed(**intruder.head("sam"), incident="leak-1", outcome="nothing", people=["sam"])
    )
    if holds:
        intruder.forge(ev.HoldsLifted(**intruder.head("sam"), holds=holds, people=["sam", "lea"]))
    world.approve("demo")
    intruder.forge(intruder.entry("demo"))
    intruder.gets_nothing("demo", "incident leak-1 is open")


def test_small_leak_closed_by_one_person_with_a_real_signature(world: World, intruder: Intruder) -> None:
    """A leak of any severity takes the quorum: one real signature, of which the service makes a closing, is not enough."""
    at_demo(world)
    reported(world, Severity.LOW)
    (proposed,) = world.dear(cmd.CloseIncident, ["sam"], incident="leak-1", outcome="nothing")
    assert isinstance(proposed, ev.Proposed)
    intruder.forge(
        ev.IncidentClosed(
            **intruder.head("sam"),
            incident="leak-1",
            outcome="nothing",
            people=["sam"],
            envelope=proposed.envelope,
        )
    )
    assert not world.state.open_incidents, "the service was taken in"
    world.approve("demo")
    intruder.forge(intruder.entry("demo"))
    intruder.gets_nothing("demo", "incident leak-1 is open")


def test_severe_incident_closed_by_one_person_after_a_forged_triage(world: World, intruder: Intruder) -> None:
    """One real signature on the outcome; the severity was made smaller in the log, so that one would do."""
    at_demo(world)
    reported(world, Severity.SEVERE, IncidentKind.MISUSE)
    intruder.forge(
        ev.IncidentTriaged(
            **intruder.head("sam"), incident="leak-1", severity=Severity.LOW, confidence=Confidence.REPORTED
        )
    )
    world.dear(cmd.CloseIncident, ["sam"], incident="leak-1", outcome="nothing")
    assert not world.state.open_incidents, "the service was taken in"
    world.dear(cmd.Resume, ["sam", "lea"])
    world.approve("demo")
    asked = world.begin("demo")
    intruder.gets_nothing(asked, "incident leak-1 is open")


def test_hold_lifted_by_nobody(world: World, intruder: Intruder) -> None:
    at_demo(world)
    world.approve("demo")
    world.say(cmd.Hold(**world.head(actor("mia", *MANAGING)), reason="wait"))
    intruder.forge(
        ev.HoldsLifted(**intruder.head("sam"), holds=list(world.state.holds), people=["sam", "lea"])
    )
    intruder.forge(intruder.entry("demo"))
    intruder.gets_nothing("demo", "on hold")


def test_hold_lifted_with_the_agreement_on_an_earlier_one(world: World, intruder: Intruder) -> None:
    at_demo(world)
    manager = actor("mia", *MANAGING)
    world.say(cmd.Hold(**world.head(manager), reason="first"))
    agreed = world.dear(cmd.Resume, ["sam", "lea"])
    lifted = next(event for event in agreed if isinstance(event, ev.HoldsLifted))
    world.approve("demo")
    world.say(cmd.Hold(**world.head(manager), reason="second"))
    again = [event.model_copy(update=intruder.head(event.by)) for event in agreed[-2:]]
    intruder.forge(again[-1].model_copy(update={"holds": list(world.state.holds)}))
    assert lifted.holds != again[-1].model_dump()["holds"] or world.state.holds == {}
    intruder.forge(intruder.entry("demo"))
    intruder.gets_nothing("demo", "on hold")


def test_glass_broken_by_nobody(world: World, intruder: Intruder) -> None:
    world.to("demo")
    world.prepare("query")
    world.approve("query")
    forged = ev.GlassBroken(
        **intruder.head("sam"),
        review="review-1",
        step="query",
        attempt=world.state.attempt,
        waives=["research_window"],
        reason="x",
        people=["sam", "lea"],
    )
    intruder.forge(forged)
    intruder.forge(intruder.entry("query"))
    intruder.gets_nothing("query", "of research access counted")


def test_document_rated_better_than_it_was(world: World, intruder: Intruder) -> None:
    world.to("inside")
    world.prepare("demo")
    rated = next(e for e in world.state.evidence.values() if e.ratings).model_dump()
    worst = {**rated["ratings"], "misuse": "unacceptable"}
    assert set(worst) == set(rated["ratings"])
    for ratings in (worst, rated["ratings"]):
        head = intruder.head("ci")
        evidence = Evidence.model_validate({**rated, "ratings": ratings, "at": head["at"]})
        intruder.forge(ev.EvidenceSubmitted(**head, evidence=evidence))
    world.sign("sam", "demo", "safety")
    intruder.forge(intruder.entry("demo"))
    intruder.gets_nothing("demo", "rated unacceptable, whoever signs")


# --- the log ---------------------------------------------------------------------------------------------------------


def cut_off(bodies: list[bytes]) -> list[bytes]:
    return bodies[:-1]


def taken_out(bodies: list[bytes]) -> list[bytes]:
    return bodies[:3] + bodies[4:]


def exchanged(bodies: list[bytes]) -> list[bytes]:
    return [*bodies[:3], bodies[4], bodies[3], *bodies[5:]]


def one_byte(bodies: list[bytes]) -> list[bytes]:
    return [*bodies[:-1], bodies[-1].replace(b'"by":"', b'"by":"x', 1)]


def from_the_beginning(bodies: list[bytes]) -> list[bytes]:
    return []


@pytest.mark.parametrize("change", [cut_off, taken_out, exchanged, one_byte, from_the_beginning])
def test_log_entries_deleted_or_altered(
    world: World, intruder: Intruder, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    at_demo(world)
    world.approve("demo")
    asked = world.begin("demo")
    kept = world.custody.sign_checkpoint()
    intruder.rewrite(change)
    intruder.gets_nothing(asked)
    with pytest.raises((LogInvalid, RecordsBroken, NotFound)):
        intruder.verify(kept)


def test_log_entry_altered_without_its_hash(world: World, intruder: Intruder) -> None:
    at_demo(world)
    world.approve("demo")
    asked = world.begin("demo")
    kept = world.custody.sign_checkpoint()
    intruder.sql(
        'UPDATE audit_leaf SET body = :body WHERE "index" = 2',
        body=intruder.leaves()[2].replace(b"inside", b"outside"),
    )
    assert b"outside" in intruder.leaves()[2]
    intruder.gets_nothing(asked, "was altered or dropped")
    with pytest.raises(LogInvalid):
        intruder.verify(kept)


def test_last_weeks_database_restored(world: World, intruder: Intruder) -> None:
    at_demo(world)
    world.sign("sam", "demo", "safety")
    asked = world.begin("demo")
    kept = ""
    with intruder.last_week():
        world.say(cmd.TakeBackEntry(**world.head(cmd.SERVICE), step="demo", reason="doubt", failed=False))
        world.sign("lea", "demo", "legal", "reject")
        kept = world.custody.sign_checkpoint()
    intruder.gets_nothing(asked, "custody has seen")
    with pytest.raises((LogInvalid, NotFound)):
        intruder.verify(kept)


def test_garbage_appended_to_the_log_stops_nothing_and_opens_nothing(
    world: World, intruder: Intruder
) -> None:
    at_demo(world)
    with writing(world.engine) as session:
        for body in (b"\xff\xfe", b"[]", b'{"kind":"event"}', b"{" * 5000):
            audit.append_leaves(session, [audit.NewLeaf("event", body, world.clock(), "alpha")])
    world.approve("demo")
    assert world.custody.make_envelopes(world.begin("demo"))


# --- the queue -------------------------------------------------------------------------------------------------------


def test_custody_asked_directly_with_made_up_arguments(world: World, intruder: Intruder) -> None:
    at_demo(world)
    now = world.clock()
    for asked in (
        Asked("alpha", "demo", 2, now, {}),
        Asked("alpha", "open", 2, now, {}),
        Asked("alpha", "nothing", 1, now, {}),
        Asked("omega", "open", 1, now, {}),
        Asked("", "", 0, now, {"uni": "sha256:" + "0" * 64}),
    ):
        intruder.gets_nothing(asked)
    world.approve("demo")
    honest = world.begin("demo")
    for asked in (replace(honest, step="open"), replace(honest, attempt=1), replace(honest, release="beta")):
        intruder.gets_nothing(asked)
    assert world.custody.make_envelopes(honest)


@workflow.defn(sandboxed=False)
class Impostor:
    """What anybody can run who reaches Temporal: an activity of custody's, with arguments of their own."""

    @workflow.run
    async def run(self, name: str, argument: dict[str, Any]) -> str:
        try:
            await workflow.execute_activity(
                name,
                argument,
                task_queue=names.QUEUE_CUSTODY,
                schedule_to_close_timeout=timedelta(seconds=20),
                retry_policy=RetryPolicy(maximum_attempts=1),
            )
        except ActivityError as error:
            cause = error.cause
            assert isinstance(cause, ApplicationError)
            return str(cause.type)
        return "given"


@pytest.mark.stack
async def test_custody_asked_directly_over_its_queue(
    world: World, intruder: Intruder, temporal_client: Client
) -> None:
    at_demo(world)
    at = world.clock().isoformat()
    honest = {"release": "alpha", "step": "demo", "attempt": 2, "partners": [], "at": at}
    ready = [{"partner": "uni", "recipient": recipient_digest(MALLORY.recipient)}]
    asked = {
        "a gate that is not open": honest,
        "the last step": {**honest, "step": "open"},
        "another key": {**honest, "step": "download", "attempt": 4, "partners": ready},
        "a late grant": {**honest, "step": "download", "attempt": 4, "partners": ready, "late": "uni"},
        "no release": {**honest, "release": "omega"},
    }
    # everything else that custody does for somebody on a queue
    others = {"rotation": "r-1", "artifact": world.artifact.artifact_id}
    everything: list[tuple[str, dict[str, Any]]] = [
        *((names.MAKE_ENVELOPES, argument) for argument in asked.values()),
        *((names.MAKE_COPIES, argument) for argument in asked.values()),
        (names.TAKE_IN_ROOT, {"release": "omega", "seq": 1}),
        (names.RENEW_ENVELOPES, {"release": "omega", "seq": 1}),
        (names.RESEAL_ARTIFACT, {"release": "alpha", **others}),
    ]
    copies = CopyActivities(world.custody)
    with ThreadPoolExecutor(4) as threads:
        worker = Worker(
            temporal_client,
            task_queue=names.QUEUE_CUSTODY,
            workflows=[Impostor],
            activities=[*CustodyActivities(world.custody).all, *copies.short, *copies.long],
            activity_executor=threads,
        )
        async with worker:
            for number, (activity, argument) in enumerate(everything):
                told = await temporal_client.execute_workflow(
                    Impostor.run,
                    args=[activity, argument],
                    id=f"impostor-{number}",
                    task_queue=names.QUEUE_CUSTODY,
                )
                assert told in {"custody-refused", "unbacked"}, (activity, argument)
    assert (world.envelopes_kept(), intruder.unwraps) == (0, 0)
    refused = [leaf["release"] for leaf in world.custody_leaves() if leaf["action"] == "refused"]
    assert refused == [argument["release"] for _, argument in everything], "each is in the log"


def test_custody_asked_for_a_partners_envelope_under_another_key(world: World, intruder: Intruder) -> None:
    """A row with Mallory's key, and a request that names it: the plan pins the partner's key, so nothing is made for it."""
    world.to("query")
    world.wait("download")
    world.prepare("download")
    world.approve("download")
    world.add_partner_key("ngo", MALLORY.recipient)
    asked = world.begin("download")
    made_up = {"ngo": recipient_digest(MALLORY.recipient), "uni": recipient_digest(MALLORY.recipient)}
    made = world.custody.make_envelopes(replace(asked, partners=made_up))
    assert set(made) == {"download.4.uni"}
    reference = made["download.4.uni"][world.artifact.artifact_id]
    with pytest.raises(EnvelopeError):
        world.opened(reference, MALLORY)


def test_recipient_text_swapped_where_the_plan_pins_its_digest(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = signed_plan().model_dump(mode="json")
    raw["deployments"]["platform"]["recipient"] = recipient_digest(PLATFORM.recipient)
    world = World(engine, tmp_path, plan=Plan.model_validate(raw))
    intruder = Intruder(world, monkeypatch)
    world.add_partner_key("platform", PLATFORM.recipient)
    at_demo(world)
    world.approve("demo")
    asked = world.begin("demo")
    intruder.sql("UPDATE partner_key SET recipient = :text", text=MALLORY.recipient)
    intruder.gets_nothing(asked, "fits the digest that the plan pins")
    world.close()


def test_second_release_binds_the_same_artifact_under_weaker_rules(world: World, intruder: Intruder) -> None:
    world.to("inside")
    raw = world.plan.model_dump(mode="json")
    for person in raw["people"].values():
        person["keys"] = []
    raw["deployments"]["platform"]["recipient"] = MALLORY.recipient
    world.create("fake", Plan.model_validate(raw))
    world.register("fake")
    world.custody.take_in("alpha")
    asked = fake_entry(world)
    intruder.gets_nothing(asked, "is bound to the release alpha")


def test_second_release_comes_first_but_the_artifact_was_sealed_for_the_other(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(engine, tmp_path, release_in_manifest="alpha")
    intruder = Intruder(world, monkeypatch)
    world.create("alpha")
    raw = world.plan.model_dump(mode="json")
    raw["deployments"]["platform"]["recipient"] = MALLORY.recipient
    world.create("fake", Plan.model_validate(raw))
    world.register("fake")
    intruder.gets_nothing(fake_entry(world), "was sealed for the release alpha")
    world.close()


def fake_entry(world: World) -> Asked:
    """The fake release reaches its first gate with a key by its own, real decisions."""
    world.say(cmd.BeginEntry(**world.head(cmd.SERVICE), step="inside"), release="fake")
    world.complete("inside", {}, "fake")
    world.prepare("demo", "fake")
    world.sign("sam", "demo", "safety", release="fake")
    return world.begin("demo", "fake")


# --- what was stored -------------------------------------------------------------------------------------------------


def test_envelope_swapped_in_the_database(world: World, intruder: Intruder) -> None:
    world.to("inside")
    made = world.enter("demo")
    reference = made["demo.2.platform"][world.artifact.artifact_id]
    demo = world.envelope(reference)
    later = world.enter("query")["query.3.platform"][world.artifact.artifact_id]
    intruder.sql("UPDATE envelope SET data = :data WHERE reference = :reference", data=demo, reference=later)
    payload = world.opened(later, PLATFORM)
    assert payload.step == "demo", "it says what it is; a client that asked for another step refuses it"
    intruder.sql("UPDATE envelope SET data = :data", data=demo[:-1] + b"x")
    with pytest.raises(EnvelopeError):
        world.opened(reference, PLATFORM)


def _folder(world: World, name: str) -> Path:
    folder = world.folder / name
    folder.mkdir()
    return folder
