"""Walks a release along any plan with nothing but decide, evolve and verdict: what people would do, and a clock.

The walker owns no rule. It registers, submits, attests and signs what the verdict says is unmet, lets time pass to where
the domain says something changes, and does what `due` asks for. Before every entry it makes sure that the gate did not
open a moment too early.
"""

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from orchestrator.domain import commands as cmd
from orchestrator.domain.decide import apply, decide, decide_create, due, wakes_at
from orchestrator.domain.decide_access import planned_grants
from orchestrator.domain.errors import SluiceError
from orchestrator.domain.evidence import Consideration, EvidenceKind, Rating
from orchestrator.domain.evolve import fold
from orchestrator.domain.gate import verdict
from orchestrator.domain.permissions import Role, permissions_of
from orchestrator.domain.plan import Plan, Step
from orchestrator.domain.state import gate_subject
from orchestrator.domain.values import digest

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
MOMENT = timedelta(seconds=1)
RATINGS = dict.fromkeys(Consideration, Rating.LOW)
PIPELINE = cmd.Actor(id="pipeline", kind="machine", permissions=permissions_of([Role.MLOPS]))


def person(name: str) -> cmd.Actor:
    return cmd.Actor(id=name, permissions=permissions_of([Role.APPROVER]))


class Walker:
    """One release on its way. `entered_at` keeps when each step was entered."""

    def __init__(self, plan: Plan, *, release: str = "walk-1", now: datetime = START) -> None:
        self.now = now
        self.events = decide_create(
            cmd.CreateRelease(
                command_id="create",
                actor=PIPELINE,
                release=release,
                name=plan.title,
                version="1",
                plan=plan,
            ),
            now,
        )
        self.state = fold(self.events)
        self.entered_at: dict[str, datetime] = {}
        self._ids = count(1)

    @property
    def plan(self) -> Plan:
        return self.state.plan

    def do(self, asked: type, actor: cmd.Actor, /, **fields: object) -> list:
        """One command, decided and folded in; the events that it made."""
        command = asked(command_id=f"c-{next(self._ids)}", actor=actor, **fields)
        return self._take(command)

    def _take(self, command: object) -> list:
        made = decide(self.state, command, self.now)
        self.events += made
        self.state = apply(self.state, made)
        return made

    def register_everything(self) -> None:
        """One sealed artifact per component that has files and is not withheld, uploaded by the pipeline."""
        for name, component in self.plan.components.items():
            if component.has_files and not component.withheld:
                self.do(
                    cmd.RegisterArtifact,
                    PIPELINE,
                    artifact=f"artifact.{name}",
                    manifest_digest=digest(["manifest", name]),
                    components=[name],
                    location=f"dir:/sealed/{name}",
                )

    def walk(self, until: str | None = None) -> "Walker":
        """Enter every step up to `until` (or to the end), as slowly as the plan asks."""
        if not self.state.artifacts:
            self.register_everything()
        while self.state.next_step is not None and (until is None or self.state.current != until):
            self.enter(self.state.next_step)
        return self

    def enter(self, step: Step) -> None:
        """Meet every condition of a gate, and let the release enter by itself."""
        self.wait_for_window(step)
        self.prepare(step)
        for role, name in self.signers(step):
            self.assert_shut(step)
            self.sign(step, name, role)
        self.wait_until_entered(step)

    def prepare(self, step: Step) -> None:
        """Evidence and controls, fresh."""
        for requirement in step.gate.evidence:
            assessment = requirement.kind is EvidenceKind.RISK_ASSESSMENT
            self.do(
                cmd.SubmitEvidence,
                PIPELINE,
                kind=requirement.kind,
                digest=digest([requirement.kind, step.name, self.state.attempt]),
                title=f"{requirement.kind} for {step.name}",
                step=step.name,
                ratings=RATINGS if assessment else None,
            )
        somebody = person(next(iter(self.plan.people)))
        for control in step.controls:
            if control.waived is None:
                probe = control.check == "probed"
                actor = cmd.SERVICE if probe else somebody
                self.do(cmd.ReportControl, actor, step=step.name, control=control.kind, probe=probe)

    def signers(self, step: Step) -> list[tuple[str, str]]:
        """Different people for every place of the gate, found by trying: (role, person)."""
        places = [need for need in step.gate.sign_offs for _ in range(need.count)]

        def fill(index: int, taken: tuple[str, ...]) -> list[tuple[str, str]] | None:
            if index == len(places):
                return []
            need = places[index]
            for name in self.plan.people_in_role(need.role, external_only=need.external):
                if name in taken or name in self.state.barred:
                    continue
                rest = fill(index + 1, (*taken, name))
                if rest is not None:
                    return [(need.role, name), *rest]
            return None

        found = fill(0, ())
        assert found is not None, f"nobody can fill {step.name}"
        return found

    def sign(self, step: Step, name: str, role: str, decision: str = "approve") -> list:
        subject = gate_subject(self.state, step).digest
        return self.do(
            cmd.SignOff, person(name), step=step.name, role=role, decision=decision, subject=subject
        )

    def assert_shut(self, step: Step) -> None:
        """The gate does not hold, the release does not want to enter, and being told to changes nothing."""
        found = verdict(self.state, step, self.now)
        assert not found.open
        assert found.unmet
        assert not [c for c in due(self.state, self.now) if isinstance(c, cmd.BeginEntry)]
        begin_entry = cmd.BeginEntry(command_id="too-early", actor=cmd.SERVICE, step=step.name)
        with pytest.raises(SluiceError) as refused:
            decide(self.state, begin_entry, self.now)
        assert {reason.code for reason in refused.value.reasons} == {c.code for c in found.unmet}

    def wait_for_window(self, step: Step) -> None:
        while True:
            self.look_around()
            window = verdict(self.state, step, self.now).window
            if window.counted >= window.asked:
                return
            assert window.met_at is not None, f"the window of {step.name} stands: {window.stands_because}"
            self.pass_time(window.met_at)

    def wait_until_entered(self, step: Step) -> None:
        for _ in range(10_000):
            self.look_around()
            if self.state.current == step.name:
                return
            found = verdict(self.state, step, self.now)
            assert not found.open
            assert found.opens_at is not None, [c.message for c in found.unmet]
            self.pass_time(found.opens_at - MOMENT)
            self.assert_shut(step)
            self.pass_time(found.opens_at)
        raise AssertionError(f"{step.name} was never entered")

    def look_around(self) -> None:
        """Monitors report, and the release does what is due."""
        for source in {monitor.source for step in self.plan.steps for monitor in step.gate.monitors}:
            self.do(cmd.ReportMonitor, cmd.SERVICE, source=source, last_success=self.now)
        for command in due(self.state, self.now):
            self._take(command)
            if isinstance(command, cmd.BeginEntry):
                self.complete(command.step)

    def complete(self, name: str) -> None:
        """What the saga does once everything outside is in place."""
        step = self.plan.step(name)
        ready = [
            cmd.PartnerReady(partner=partner, recipient=digest(["recipient", partner]))
            for partner in self.plan.audience_partners(step)
        ]
        recipients = {r.partner: r.recipient for r in ready}
        envelopes = {
            grant.id: {"artifact": f"envelopes/{grant.id}"}
            for grant in planned_grants(self.state, step, recipients, self.now)
            if grant.kind == "key"
        }
        self.do(cmd.CompleteEntry, cmd.SERVICE, step=name, partners=ready, envelopes=envelopes)
        self.entered_at[name] = self.now

    def pass_time(self, until: datetime) -> None:
        """Let time pass, in pieces that keep the monitors seeing, and with all that is due on the way."""
        pieces = [m.max_blind / 2 for step in self.plan.steps[-2:] for m in step.gate.monitors]
        pace = min(pieces, default=None)
        while self.now < until:
            stops = [until, wakes_at(self.state, self.now)]
            if pace is not None and until - self.now < 40 * pace:
                stops.append(self.now + pace)
            self.now = min(stop for stop in stops if stop is not None)
            if self.now < until:
                self.look_around()
        self.now = max(self.now, until)
