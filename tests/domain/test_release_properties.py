"""Any commands, by any people, at any times: what must never happen, checked against the events alone.

The oracle below reads the event list naively and shares no code with the rules: it knows people, holds, incidents,
intervals of access, and what the plan asks for.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.control import ControlKind
from orchestrator.domain.decide import apply, decide, decide_create, due, wakes_at
from orchestrator.domain.errors import SluiceError
from orchestrator.domain.evidence import Consideration
from orchestrator.domain.evolve import begin, fold
from orchestrator.domain.gate import verdict
from orchestrator.domain.incident import IncidentKind, Severity
from orchestrator.domain.preview import _words, preview
from orchestrator.domain.stage import Stage
from orchestrator.domain.waits import waits
from tests.support.plans import MANAGER, PIPELINE, RECIPIENT, T0, actor, five_stage_plan, five_stages

PEOPLE = ["mia", "sam", "sue", "lea", "dan", "rex", "nobody"]
ROLES = ["safety", "legal", "reviewer", "standin", "manager"]
STEPS = ["inside", "demo", "query", "download", "open"]


def hasty_plan() -> Any:
    """The five stages with clocks of hours, so that random times often cross them."""
    plan = five_stages()
    for step in plan["steps"]:
        gate = step.get("gate", {})
        if "research_window" in gate:
            gate["research_window"] = "3h"
        if "cooling_off" in gate:
            gate["cooling_off"] = "1h"
        if gate:
            gate["sign_off_validity"] = "20h"
        if step["name"] == "download":
            step["grant_validity"] = "9h"
    return five_stage_plan(**plan)


class Oracle:
    """What the event list says, read naively."""

    def __init__(self, events: list[ev.AnyEvent]) -> None:
        self.events = events

    def standing(self) -> dict[str, ev.SignedOff]:
        found: dict[str, ev.SignedOff] = {}
        for event in self.events:
            match event:
                case ev.StepEntered() | ev.RolledBack() | ev.Aborted():
                    found = {}
                case ev.SignedOff():
                    found[event.by] = event
                case ev.SignOffWithdrawn():
                    found.pop(event.by)
        return found

    def holds(self) -> set[str]:
        names: set[str] = set()
        for event in self.events:
            if isinstance(event, ev.HoldPlaced):
                names.add(event.hold)
            if isinstance(event, ev.HoldsLifted):
                assert len(set(event.people)) >= 2, "one person lifted a hold"
                names -= set(event.holds)
        return names

    def incidents(self) -> dict[str, Severity]:
        found: dict[str, Severity] = {}
        leaks = set()
        for event in self.events:
            match event:
                case ev.IncidentReported():
                    found[event.incident.id] = event.incident.severity
                    if event.incident.kind is IncidentKind.LEAK:
                        leaks.add(event.incident.id)
                case ev.IncidentTriaged():
                    found[event.incident] = event.severity
                case ev.IncidentClosed():
                    dear = found.pop(event.incident) is Severity.SEVERE or event.incident in leaks
                    assert not dear or len(set(event.people)) >= 2
        return found

    def access(self) -> float:
        """Seconds of real access at the current step, second by second over the intervals between events."""
        total, step, working = 0.0, None, True
        held: set[str] = set()
        severe: dict[str, Severity] = {}
        grants: dict[str, ev.Grant] = {}
        for event, following in zip(self.events, [*self.events[1:], None], strict=True):
            match event:
                case ev.StepEntered():
                    total, step, working = 0.0, None if event.completed else event, True
                    grants.update({g.id: g for g in event.grants})
                case ev.RolledBack():
                    total, working = 0.0, working
                    entered = [
                        e
                        for e in self.events
                        if isinstance(e, ev.StepEntered) and e.step == event.to_step and e.at <= event.at
                    ]
                    step = entered[-1]
                    keep = STEPS[: STEPS.index(event.to_step) + 1]
                    grants = {i: g for i, g in grants.items() if g.step in keep}
                case ev.GrantEnded():
                    grants.pop(event.grant, None)
                case ev.GrantMade():
                    grants[event.grant.id] = event.grant
                    grants.pop(event.replaces or "", None)
                case ev.HoldPlaced():
                    held.add(event.hold)
                case ev.HoldsLifted():
                    held -= set(event.holds)
                case ev.IncidentReported():
                    severe[event.incident.id] = event.incident.severity
                case ev.IncidentTriaged():
                    severe[event.incident] = event.severity
                case ev.IncidentClosed():
                    severe.pop(event.incident)
                case ev.AccessReported():
                    working = event.working
                case ev.Aborted():
                    grants, step = {}, None
            if following is None or step is None:
                continue
            here = [g for g in grants.values() if g.step == step.step]
            users = (
                [g for g in here if g.holder_kind in ("partner", "public")]
                if step.stage is not Stage.CLOSED
                else [None]
            )
            if step.stage in (Stage.HOSTED, Stage.API) and not any(
                g.holder_kind == "deployment" for g in here
            ):
                users = []
            if users and working and not held and Severity.SEVERE not in severe.values():
                end = following.at
                expiries = [g.not_after for g in users if g is not None]
                if expiries and None not in expiries:
                    end = min(end, max(e for e in expiries if e is not None))
                total += max((end - event.at).total_seconds(), 0.0)
        return total


class Releases(RuleBasedStateMachine):
    """Random commands; the main loop's own steps are rules like any other, so that they come late or early."""

    def __init__(self) -> None:
        super().__init__()
        self.plan = hasty_plan()
        self.now: datetime = T0
        self.count = 0
        self.resealed: dict[str, tuple[str, str, str]] = {}
        create = cmd.CreateRelease(
            command_id="c0", actor=MANAGER, release="r", name="M", version="1", plan=self.plan
        )
        self.events: list[ev.AnyEvent] = decide_create(create, self.now)
        first = self.events[0]
        assert isinstance(first, ev.ReleaseCreated)
        self.state = begin(first)

    def cid(self) -> str:
        self.count += 1
        return f"c{self.count}"

    def do(self, command: Any) -> bool:
        foreseen = preview(self.state, command, self.now)
        try:
            made = decide(self.state, command, self.now)
        except SluiceError:
            assert not foreseen.accepted
            return False
        assert foreseen.accepted
        assert foreseen.events == [event.type for event in made]
        if command.actor.kind != "service":
            silent = [event.type for event in made if not _words(self.state, event)]
            assert not silent, "whoever confirms it is told of everything that it makes happen"
        for event in made:
            if isinstance(event, ev.EntryBegan):
                self.check_gate(event)
            self.events.append(event)
        self.state = apply(self.state, made)
        return True

    def check_gate(self, event: ev.EntryBegan) -> None:
        oracle = Oracle([*self.events, event])
        step = self.plan.step(event.step)
        assert step is not None
        assert not oracle.holds(), "a step was entered under a hold"
        assert not oracle.incidents(), "a step was entered with an open incident"
        standing = oracle.standing()
        assert not [s for s in standing.values() if s.decision == "reject"], (
            "a step was entered against a rejection"
        )
        counted: set[str] = set()
        times = []
        for need in step.gate.sign_offs:
            able = {
                person
                for person, s in standing.items()
                if s.role == need.role
                and s.subject == event.subject
                and s.expires_at > event.at
                and person not in ("mia", "ci")
                and (need.role in self.plan.people[person].roles or s.on_behalf_of is not None)
                and (self.plan.people[person].external or not need.external)
            }
            assert len(able) >= need.count, "a quorum was not filled"
            assert not able & counted, "a person counted twice"
            counted |= able
            times += [standing[person].at for person in able]
        asked = step.gate.research_window or timedelta(0)
        changes = [e for e in self.events if isinstance(e, ev.WindowChanged) and e.step == step.name]
        required = changes[-1].required if changes else asked
        assert oracle.access() >= required.total_seconds() - 1e-6, "the window had not counted enough access"
        if step.gate.cooling_off is not None and times:
            assert event.at - max(times) >= step.gate.cooling_off

    @initialize(steps=st.integers(0, 3))
    def begin_somewhere(self, steps: int) -> None:
        self.loop()
        self.do(
            cmd.RegisterArtifact(
                command_id=self.cid(), actor=PIPELINE, artifact="a", manifest_digest="sha256:" + "0" * 64,
                components=["weights", "tokenizer"], location="dir:x",
            )
        )  # fmt: skip
        for _ in range(steps):
            self.advance()

    @rule()
    def calm(self) -> None:
        """Two people lift what stands in the way."""
        for incident in self.state.open_incidents:
            for person in ("sam", "lea"):
                if incident.id in self.state.incidents and self.state.incidents[incident.id].open:
                    close = cmd.CloseIncident(
                        command_id=self.cid(), actor=actor(person), incident=incident.id, outcome="done"
                    )
                    self.do(close)
        for person in ("sam", "lea"):
            self.do(cmd.Resume(command_id=self.cid(), actor=actor(person)))
        self.do(cmd.ReportAccess(command_id=self.cid(), actor=MANAGER, working=True))
        for person in PEOPLE:
            self.review(person)
            self.withdraw(person)

    @precondition(lambda self: self.state.next_step is not None)
    @rule()
    def advance(self) -> None:
        """What people do who want the next step: ready everything, sign, and let the clocks run."""
        self.calm()
        self.everything_ready()
        self.now += timedelta(hours=4)
        self.loop()

    @rule()
    def loop(self) -> None:
        for command in due(self.state, self.now):
            self.do(command)
        if self.state.entry is not None:
            step = self.state.entry.step
            envelopes = {
                f"{step}.{self.state.attempt}.{holder}": {"a": "e"} for holder in ("uni", "ngo", "platform")
            }
            complete = cmd.CompleteEntry(
                command_id=self.cid(), actor=cmd.SERVICE, step=step, envelopes=envelopes
            )
            if not self.do(complete):
                self.do(
                    cmd.TakeBackEntry(
                        command_id=self.cid(), actor=cmd.SERVICE, step=step, reason="x", failed=False
                    )
                )

    @rule(seconds=st.sampled_from([0, 1, 600, 3_600, 4 * 3_600, 10 * 3_600]))
    def time(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @precondition(lambda self: wakes_at(self.state, self.now) is not None)
    @rule()
    def next_clock(self) -> None:
        wakes = wakes_at(self.state, self.now)
        assert wakes is not None
        assert wakes > self.now
        self.now = wakes
        self.loop()

    @precondition(lambda self: self.state.next_step is not None)
    @rule()
    def everything_ready(self) -> None:
        step = self.state.next_step
        assert step is not None
        for kind in ("model_card", "risk_assessment"):
            self.do(self.evidence(kind, step.name, "low"))
        for control in step.controls:
            self.do(
                cmd.ReportControl(
                    command_id=self.cid(), actor=actor("sam"), step=step.name, control=control.kind
                )
            )
        for person, role in (("sam", "safety"), ("lea", "legal"), ("rex", "reviewer")):
            self.sign(person, role, "approve", seen=True)

    def evidence(self, kind: str, step: str, rating: str) -> Any:
        ratings = dict.fromkeys(Consideration, rating) if kind == "risk_assessment" else None
        return cmd.SubmitEvidence(
            command_id=self.cid(), actor=actor("sam"), kind=kind, digest="sha256:" + f"{self.count % 10}" * 64,
            title="t", step=step, ratings=ratings,
        )  # fmt: skip

    @rule(step=st.sampled_from(STEPS), rating=st.sampled_from(["low", "high", "unacceptable"]))
    def submit(self, step: str, rating: str) -> None:
        self.do(self.evidence("risk_assessment", step, rating))

    @rule(step=st.sampled_from(STEPS), kind=st.sampled_from(list(ControlKind)), ok=st.booleans())
    def control(self, step: str, kind: ControlKind, ok: bool) -> None:
        self.do(
            cmd.ReportControl(command_id=self.cid(), actor=actor("lea"), step=step, control=kind, in_force=ok)
        )

    @rule(
        person=st.sampled_from(PEOPLE),
        role=st.sampled_from(ROLES),
        decision=st.sampled_from(["approve", "approve", "approve", "reject"]),
        seen=st.sampled_from([True, True, True, False]),
    )
    def sign(self, person: str, role: str, decision: str, seen: bool) -> None:
        step = self.state.next_step
        if step is None:
            return
        subject = verdict(self.state, step, self.now).subject_digest if seen else "sha256:" + "f" * 64
        self.do(
            cmd.SignOff(
                command_id=self.cid(),
                actor=actor(person),
                step=step.name,
                role=role,
                decision=decision,
                subject=subject,
            )
        )

    @rule(person=st.sampled_from(PEOPLE))
    def withdraw(self, person: str) -> None:
        if self.state.next_step is not None:
            self.do(
                cmd.WithdrawSignOff(
                    command_id=self.cid(), actor=actor(person), step=self.state.next_step.name
                )
            )

    @rule(giver=st.sampled_from(PEOPLE), taker=st.sampled_from(PEOPLE), role=st.sampled_from(ROLES))
    def delegate(self, giver: str, taker: str, role: str) -> None:
        until = self.now + timedelta(hours=6)
        self.do(cmd.Delegate(command_id=self.cid(), actor=actor(giver), to=taker, role=role, until=until))

    @rule(person=st.sampled_from(PEOPLE))
    def hold(self, person: str) -> None:
        placed = self.do(cmd.Hold(command_id=self.cid(), actor=actor(person), reason="x"))
        assert placed or self.state.ended, "a hold was blocked"

    @rule(person=st.sampled_from(PEOPLE))
    def resume(self, person: str) -> None:
        self.do(cmd.Resume(command_id=self.cid(), actor=actor(person)))

    @rule(person=st.sampled_from(PEOPLE))
    def endorse(self, person: str) -> None:
        for proposal in list(self.state.proposals):
            self.do(cmd.Endorse(command_id=self.cid(), actor=actor(person), proposal=proposal))

    @rule(person=st.sampled_from(PEOPLE), shorter=st.booleans())
    def window(self, person: str, shorter: bool) -> None:
        step = self.state.next_step
        if step is None:
            return
        if shorter:
            self.do(cmd.ShortenWindow(command_id=self.cid(), actor=actor(person), step=step.name, to="2h"))
        else:
            self.do(
                cmd.ExtendWindow(
                    command_id=self.cid(), actor=actor(person), step=step.name, by="1h", reason="x"
                )
            )

    @rule(
        severity=st.sampled_from(list(Severity)),
        partner=st.sampled_from([None, "uni"]),
        kind=st.sampled_from(["leak", "harm"]),
    )
    def incident(self, severity: Severity, partner: str | None, kind: str) -> None:
        command = cmd.ReportIncident(
            command_id=self.cid(), actor=actor("dan"), incident=f"i{self.count}", kind=kind, severity=severity,
            summary="seen", partner=partner, confidence="confirmed",
        )  # fmt: skip
        if self.do(command) and kind == "leak":
            assert self.state.holds, "a confirmed leak did not hold the release"

    @rule(person=st.sampled_from(PEOPLE), severity=st.sampled_from(list(Severity)))
    def triage(self, person: str, severity: Severity) -> None:
        for incident in self.state.open_incidents:
            self.do(
                cmd.TriageIncident(
                    command_id=self.cid(),
                    actor=actor(person),
                    incident=incident.id,
                    severity=severity,
                    confidence="suspected",
                )
            )

    @rule(person=st.sampled_from(PEOPLE))
    def close(self, person: str) -> None:
        for incident in self.state.open_incidents:
            self.do(
                cmd.CloseIncident(
                    command_id=self.cid(), actor=actor(person), incident=incident.id, outcome="done"
                )
            )

    @rule(working=st.booleans())
    def outage(self, working: bool) -> None:
        self.do(cmd.ReportAccess(command_id=self.cid(), actor=MANAGER, working=working))

    @rule(to=st.sampled_from(STEPS))
    def roll_back(self, to: str) -> None:
        self.do(cmd.RollBack(command_id=self.cid(), actor=actor("sam"), to=to, reason="x"))

    @rule(partner=st.sampled_from(["uni", "ngo", "platform", "public"]))
    def revoke(self, partner: str) -> None:
        live = [g for g in self.state.live_grants() if g.holder == partner]
        worked = self.do(cmd.Revoke(command_id=self.cid(), actor=actor("lea"), partner=partner, reason="x"))
        assert worked or not live or self.state.ended, "a revocation was blocked"
        assert self.state.ended or not [g for g in self.state.live_grants() if g.holder == partner]

    @rule(partner=st.sampled_from(["uni", "ngo"]), step=st.sampled_from([None, *STEPS]))
    def late_grant(self, partner: str, step: str | None) -> None:
        self.do(cmd.MakeGrant(command_id=self.cid(), actor=MANAGER, partner=partner, step=step))

    @rule(made=st.booleans())
    def late_grants_answered(self, made: bool) -> None:
        for asked in list(self.state.grants_asked.values()):
            whom = {"step": asked.step, "partner": asked.partner}
            if made:
                shut = asked.partner in self.state.shut_out
                complete = cmd.CompleteGrant(
                    command_id=self.cid(),
                    actor=cmd.SERVICE,
                    recipient=RECIPIENT,
                    envelopes={"a": "e"},
                    **whom,
                )
                worked = self.do(complete)
                assert not (worked and (shut or self.state.holds)), "a grant was made that something forbade"
            else:
                self.do(cmd.DropGrant(command_id=self.cid(), actor=cmd.SERVICE, reason="x", **whom))

    @rule(person=st.sampled_from(["sam", "lea"]), delete_old=st.booleans())
    def rotate_keys(self, person: str, delete_old: bool) -> None:
        command = cmd.RotateKeys(
            command_id=self.cid(),
            actor=actor(person),
            components=["weights"],
            reason="x",
            delete_old=delete_old,
        )
        self.do(command)

    @rule(failed=st.booleans())
    def sealed_anew(self, failed: bool) -> None:
        for rotation in self.state.pending_rotations:
            for artifact in rotation.artifacts:
                new, manifest = f"n{self.count}", f"sha256:{self.count:064x}"
                complete = cmd.CompleteResealing(
                    command_id=self.cid(),
                    actor=cmd.SERVICE,
                    rotation=rotation.id,
                    artifact=artifact,
                    new=new,
                    manifest_digest=manifest,
                    location="dir:x",
                )
                if not failed and self.do(complete):
                    self.resealed[new] = (artifact, rotation.id, manifest)
                    live = [g for g in self.state.live_grants() if artifact in g.envelopes]
                    assert not live, "an envelope of the old files is still handed out"
                    assert artifact not in self.state.carried_by.values()
            told = "the store lost it" if failed else None
            self.do(
                cmd.EndRotation(command_id=self.cid(), actor=cmd.SERVICE, rotation=rotation.id, failed=told)
            )

    @rule()
    def renew_envelopes(self) -> None:
        waiting = self.state.awaiting_renewal()
        envelopes = {g.id: {a: f"e-{g.id}-{a}" for a in g.renew} for g in waiting}
        self.do(cmd.RenewEnvelopes(command_id=self.cid(), actor=cmd.SERVICE, envelopes=envelopes))
        assert not self.state.awaiting_renewal()

    @rule()
    def disclose(self) -> None:
        for grant in self.state.live_grants():
            if self.do(cmd.DiscloseGrant(command_id=self.cid(), actor=cmd.SERVICE, grant=grant.id)):
                assert not self.state.holds, "a key was handed over under a hold"

    @rule(person=st.sampled_from(PEOPLE))
    def break_glass(self, person: str) -> None:
        if self.state.next_step is not None:
            self.do(
                cmd.BreakGlass(
                    command_id=self.cid(),
                    actor=actor(person),
                    step=self.state.next_step.name,
                    waives=["control"],
                    reason="x",
                )
            )

    @rule(person=st.sampled_from(PEOPLE))
    def review(self, person: str) -> None:
        for review in list(self.state.reviews):
            done = self.do(
                cmd.CloseReview(command_id=self.cid(), actor=actor(person), review=review, outcome="x")
            )
            assert not done or person in self.plan.people

    @precondition(lambda self: self.count > 60)
    @rule()
    def abort(self) -> None:
        self.do(cmd.Abort(command_id=self.cid(), actor=MANAGER, reason="x"))

    @invariant()
    def events_are_the_state(self) -> None:
        if self.count % 7 == 0:
            saved = ev.EVENTS.validate_json(ev.EVENTS.dump_json(self.events))
            assert fold(saved) == self.state
        assert self.state.seq == len(self.events)

    @invariant()
    def holds_are_kept(self) -> None:
        assert set(self.state.holds) == Oracle(self.events).holds()

    @invariant()
    def clocks_agree(self) -> None:
        probe = ev.AccessReported(
            at=max(self.now, self.state.updated_at), by="x", command_id="x", working=True
        )
        counted = self.state.window_counted(probe.at).total_seconds()
        assert abs(counted - Oracle([*self.events, probe]).access()) < 1e-3

    @invariant()
    def a_verdict_is_open_exactly_when_nothing_is_unmet(self) -> None:
        step = self.state.next_step
        if step is not None:
            found = verdict(self.state, step, self.now)
            assert found.open == (not found.unmet)
            assert found.changes_at is None or found.changes_at > self.now
        assert waits(self.state, self.now) == sorted(
            waits(self.state, self.now), key=lambda w: (w.due, w.what, w.message)
        )


@pytest.mark.parametrize("steps", [30, 90])
def test_no_commands_by_anybody_at_any_time_walk_round_a_gate(steps: int):
    run_state_machine_as_test(
        Releases,
        settings=settings(
            max_examples=60 if steps == 30 else 40,
            stateful_step_count=steps,
            deadline=None,
            phases=[
                Phase.reuse,
                Phase.generate,
            ],  # to shrink ninety steps takes longer than a test may: they are printed
            suppress_health_check=list(HealthCheck),
        ),
    )
