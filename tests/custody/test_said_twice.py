"""Attacks that write something over what stands, or use a real signature once more: no key comes out of either."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.evidence import Evidence
from orchestrator.domain.incident import IncidentKind, Severity
from orchestrator.domain.plan import Plan
from orchestrator.domain.values import digest
from orchestrator.trust.keys import PrivateKey
from tests.custody.intruder import Intruder
from tests.custody.test_attacks import MANAGING, at_demo, reported
from tests.custody.world import UNI, World, recipient_digest
from tests.support.plans import actor

DAY = timedelta(days=1)


@pytest.fixture
def intruder(world: World, monkeypatch: pytest.MonkeyPatch) -> Intruder:
    return Intruder(world, monkeypatch)


# --- a rejection -----------------------------------------------------------------------------------------------------


def rejected(world: World) -> None:
    at_demo(world)
    world.sign("sam", "demo", "safety")
    world.sign("lea", "demo", "legal", "reject")


@pytest.mark.parametrize("signed", [True, False])
def test_rejection_dropped_by_another_one_that_is_stale(
    world: World, intruder: Intruder, signed: bool
) -> None:
    """A rejection ends when the step is another one: one that names another step is written over it."""
    rejected(world)
    real = world.statement("lea", world.subject("demo"), "legal", "reject") if signed else None
    made = intruder.signed_off("lea", "demo", "legal", real)
    intruder.forge(made.model_copy(update={"decision": "reject", "step_digest": digest("another step")}))
    intruder.forge(intruder.entry("demo"))
    intruder.gets_nothing("demo", "lea (legal) rejected")


def test_rejection_replaced_by_an_earlier_one_whose_withdrawal_is_known(
    world: World, intruder: Intruder
) -> None:
    rejected(world)
    first = world.statement("lea", world.subject("demo"), "legal", "reject")
    [withdrawn] = world.withdraw("lea", "demo")
    world.sign("lea", "demo", "legal", "reject", envelope=first)
    [withdrawn] = world.withdraw("lea", "demo")
    assert isinstance(withdrawn, ev.SignOffWithdrawn)
    world.sign("lea", "demo", "legal", "reject")
    again = intruder.signed_off("lea", "demo", "legal", first)
    intruder.forge(again.model_copy(update={"decision": "reject"}))
    intruder.forge(withdrawn.model_copy(update=intruder.head("lea")))
    intruder.forge(intruder.entry("demo"))
    intruder.gets_nothing("demo", "lea (legal) rejected")


def test_rejection_dropped_by_an_approval_that_was_kept_back(world: World, intruder: Intruder) -> None:
    """Lea approved first and then rejected; whoever carries her approval hands it in after her rejection."""
    at_demo(world)
    world.sign("sam", "demo", "safety")
    kept_back = world.statement("lea", world.subject("demo"), "legal")
    world.clock.now += timedelta(minutes=10)
    world.sign("lea", "demo", "legal", "reject")
    intruder.forge(intruder.signed_off("lea", "demo", "legal", kept_back))
    intruder.forge(intruder.entry("demo"))
    intruder.gets_nothing("demo", "lea (legal) rejected")


def test_a_person_who_rejected_may_reject_again_and_approve_later(world: World) -> None:
    at_demo(world)
    world.sign("sam", "demo", "safety", "reject")
    world.sign("sam", "demo", "safety", "reject")
    world.sign("sam", "demo", "safety")
    assert world.custody.make_envelopes(world.begin("demo"))


def test_rejection_during_the_entry_passed_over_by_a_late_grant(world: World, intruder: Intruder) -> None:
    """The gate held when the entry began; then somebody rejected. The step is forged as entered, and a grant asked for."""
    world.to("query")
    world.wait("download")
    world.prepare("download")
    world.approve("download")
    world.begin("download")
    world.sign("lea", "download", "legal", "reject")
    attempt = world.state.attempt
    intruder.forge(intruder.entered("download"))
    intruder.forge(ev.GrantAsked(**intruder.head("mia"), step="download", partner="uni"))
    at = world.state.updated_at
    asked = world.asked("download", uni=recipient_digest(UNI.recipient))
    intruder.gets_nothing(replace(asked, attempt=attempt, at=at, late="uni"), "lea (legal) rejected")


# --- an agreement of a quorum ----------------------------------------------------------------------------------------


def weaker(world: World) -> Plan:
    raw = world.plan.model_dump(mode="json")
    raw["people"]["sam"]["keys"] = [PrivateKey.generate().public.text()]
    return Plan.model_validate(raw)


@pytest.mark.parametrize("when", ["while it is open", "after it was carried"])
def test_proposal_written_over_one_that_people_stand_behind(
    world: World, intruder: Intruder, when: str
) -> None:
    """Two people agreed to resume; another proposal of the same name would be the amendment that they carry."""
    at_demo(world)
    world.say(cmd.Hold(**world.head(actor("mia", *MANAGING)), reason="wait"))
    made = world.dear(cmd.Resume, ["sam"])
    (proposed,) = made
    assert isinstance(proposed, ev.Proposed)
    if when == "after it was carried":
        world.dear(cmd.Resume, ["lea"])
    else:
        (endorsement,) = [e for e in world.dear(cmd.Resume, ["lea"]) if isinstance(e, ev.Endorsed)]
        assert endorsement.proposal == proposed.proposal
    plan = weaker(world)
    payload = {"plan_digest": plan.digest, "plan": plan.model_dump(mode="json"), "reason": "x"}
    over = ev.Proposed(
        **intruder.head("sam"),
        proposal=proposed.proposal,
        action="amend",
        payload=payload,
        payload_digest=digest(payload),
        expires_at=world.clock() + DAY,
    )
    head = intruder.head("lea")
    amended = ev.PlanAmended(
        **head,
        plan=plan,
        plan_digest=plan.digest,
        previous_digest=world.plan.digest,
        reason="x",
        people=["sam", "lea"],
    )
    ended = ev.ProposalEnded(**head, proposal=proposed.proposal, carried=True, people=["sam", "lea"])
    intruder.forge(over)
    intruder.forge(ended, amended)
    intruder.gets_nothing("demo", "no quorum carried it")


def test_shorter_window_agreed_to_once_used_again_after_it_was_extended(
    world: World, intruder: Intruder
) -> None:
    world.to("demo")
    world.prepare("query")
    agreed = world.dear(cmd.ShortenWindow, ["sam"], step="query", to="1d")
    agreed += world.dear(cmd.ShortenWindow, ["lea"], step="query", to="1d")
    manager = actor("mia", *MANAGING)
    world.say(cmd.ExtendWindow(**world.head(manager), step="query", by="20d", reason="one more look"))
    name = "proposal-again"
    for event in agreed:
        update = intruder.head(event.by)
        if not isinstance(event, ev.WindowChanged):
            update["proposal"] = name
        intruder.forge(event.model_copy(update=update))
    world.clock.now += 2 * DAY
    world.approve("query")
    intruder.forge(intruder.entry("query"))
    intruder.gets_nothing("query", "of research access counted")


# --- an incident, a document, a delegation, an end --------------------------------------------------------------------


@pytest.mark.parametrize("closed", [True, False])
def test_incident_dropped_by_another_of_the_same_name(world: World, intruder: Intruder, closed: bool) -> None:
    at_demo(world)
    reported(world, Severity.SEVERE)
    holds = list(world.state.holds)
    known = world.state.incidents["leak-1"]
    changed: dict[str, Any] = {"severity": Severity.LOW, "kind": IncidentKind.MISUSE, "quorum": False}
    if closed:
        changed |= {"closed_at": world.clock(), "outcome": "nothing"}
    over = known.model_copy(update=changed)
    intruder.forge(ev.IncidentReported(**intruder.head("sam"), incident=over))
    if not closed:
        # one real signature on the outcome, which is enough for the small one
        world.dear(cmd.CloseIncident, ["sam"], incident="leak-1", outcome="nothing")
    assert not world.state.open_incidents, "the service was taken in"
    if holds:
        world.dear(cmd.Resume, ["sam", "lea"])
    world.approve("demo")
    intruder.forge(intruder.entry("demo"))
    intruder.gets_nothing("demo", "incident leak-1 is open")


@pytest.mark.parametrize("left", ["none", "five"])
def test_document_rated_worse_loses_its_ratings(world: World, intruder: Intruder, left: str) -> None:
    world.to("inside")
    world.prepare("demo")
    rated = next(e for e in world.state.evidence.values() if e.ratings).model_dump()
    worst = {**rated["ratings"], "misuse": "unacceptable"}
    fewer = None if left == "none" else {c: r for c, r in rated["ratings"].items() if c != "misuse"}
    for ratings in (worst, fewer):
        head = intruder.head("ci")
        evidence = Evidence.model_validate({**rated, "ratings": ratings, "at": head["at"]})
        intruder.forge(ev.EvidenceSubmitted(**head, evidence=evidence))
    world.sign("sam", "demo", "safety")
    intruder.forge(intruder.entry("demo"))
    intruder.gets_nothing("demo", "rated unacceptable, whoever signs")


def test_release_that_was_ended_goes_on_by_a_forged_event(world: World, intruder: Intruder) -> None:
    world.to("inside")
    world.say(cmd.Abort(**world.head(actor("mia", *MANAGING)), reason="over"))
    assert world.state.status == "aborted"
    intruder.forge(ev.EntryTakenBack(**intruder.head("sluice"), step="demo", reason="x"))
    assert world.state.status == "active", "the service was taken in"
    world.prepare("demo")
    world.approve("demo")
    asked = world.begin("demo")
    intruder.gets_nothing(asked, "not next")


def test_review_of_a_broken_glass_written_over_by_another(
    world: World, intruder: Intruder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who broke the glass does not close its review: another breaking, by others, does not take its place."""
    world.to("demo")
    world.prepare("query")
    breaking: dict[str, Any] = {"step": "query", "waives": ["research_window"]}
    first = world.dear(cmd.BreakGlass, ["sam", "lea"], reason="one", **breaking)
    (review,) = (event.review for event in first if isinstance(event, ev.GlassBroken))
    honest = world.write

    def over(events: Any, command: Any, **more: Any) -> None:
        same = {"review": review}
        honest(
            [e.model_copy(update=same) if isinstance(e, ev.GlassBroken) else e for e in events],
            command,
            **more,
        )

    monkeypatch.setattr(world, "write", over)
    world.dear(cmd.BreakGlass, ["sue", "mia"], reason="two", **breaking)
    assert world.state.reviews[review].people == ["mia", "sue"], "the service was taken in"
    world.approve("query")
    world.complete("query", world.custody.make_envelopes(world.begin("query")))
    world.dear(cmd.CloseReview, ["sam"], review=review, outcome="it was right")
    world.wait("download")
    world.prepare("download")
    world.approve("download")
    intruder.gets_nothing(world.begin("download"), "of a broken glass is open")
