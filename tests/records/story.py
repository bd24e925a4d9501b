"""Releases for the records: commands through the domain, appended as the workflow would."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Engine

from orchestrator.domain import commands as cmd
from orchestrator.domain.decide import decide, decide_create
from orchestrator.domain.decide_access import planned_grants
from orchestrator.domain.events import AnyEvent
from orchestrator.domain.evolve import begin, evolve
from orchestrator.domain.incident import Confidence, IncidentKind, Severity
from orchestrator.domain.permissions import Role
from orchestrator.domain.plan import Plan
from orchestrator.domain.state import ReleaseState, gate_subject
from orchestrator.domain.values import digest
from orchestrator.records import releases
from orchestrator.records.database import writing
from orchestrator.records.releases import Append, Appended
from tests.support.plans import MANAGER, PIPELINE, RATINGS, T0, actor, five_stage_plan

PLAN = five_stage_plan()
SAM, SUE, LEA = (actor(name, Role.APPROVER, Role.RELEASE_MANAGER) for name in ("sam", "sue", "lea"))
ONE_DAY = timedelta(days=1)


def creation(release: str = "alpha", version: str = "1", **more: object) -> cmd.CreateRelease:
    given: dict[str, object] = {
        "command_id": f"create-{release}",
        "actor": MANAGER,
        "release": release,
        "name": "Model",
        "version": version,
        "plan": PLAN,
    }
    return cmd.CreateRelease.model_validate({**given, **more})


def request(
    release: str,
    first_seq: int,
    events: Sequence[AnyEvent],
    command: cmd.Command,
    request_id: str | None = "req-1",
) -> Append:
    return Append(
        release=release,
        first_seq=first_seq,
        events=events,
        command_id=command.command_id,
        command_type=command.type,
        command_digest=digest(command),
        actor=command.actor.id,
        request_id=request_id,
    )


def put(engine: Engine, asked: Append, now: datetime = T0) -> Appended:
    with writing(engine) as session:
        return releases.append(session, asked, now)


class Story:
    """One release, its state as the workflow believes it, and its clock."""

    def __init__(
        self,
        engine: Engine,
        release: str = "alpha",
        *,
        plan: Plan = PLAN,
        version: str = "1",
        name: str = "Model",
    ) -> None:
        self.engine, self.release, self.now, self.said = engine, release, T0, 0
        command = creation(release, version, plan=plan, name=name)
        self.requests: list[Append] = []
        events = decide_create(command, T0)
        assert not self._put(command, events, 1).adopted
        first = events[0]
        assert first.type == "release_created"
        self.state: ReleaseState = begin(first)

    def _put(self, command: cmd.Command, events: Sequence[AnyEvent], first_seq: int) -> Appended:
        asked = request(self.release, first_seq, events, command)
        self.requests.append(asked)
        return put(self.engine, asked, self.now)

    def head(self, who: cmd.Actor = MANAGER) -> dict[str, object]:
        self.said += 1
        return {"command_id": f"{self.release}-{self.said}", "actor": who}

    def say(self, command: cmd.AnyCommand, after: timedelta = timedelta(seconds=1)) -> list[AnyEvent]:
        """Decide, write, evolve."""
        self.now += after
        events = decide(self.state, command, self.now)
        self.write(command, events)
        return events

    def write(self, command: cmd.Command, events: Sequence[AnyEvent]) -> None:
        """Write and evolve."""
        if events:
            done = self._put(command, events, self.state.seq + 1)
            assert done.events == list(events)
            assert not done.adopted
            for event in done.events:
                self.state = evolve(self.state, event)

    def hold(self) -> list[AnyEvent]:
        return self.say(cmd.Hold(**self.head(), reason="wait"))

    def report(self, incident: str, severity: Severity = Severity.LOW) -> list[AnyEvent]:
        return self.say(
            cmd.ReportIncident(
                **self.head(SAM),
                incident=incident,
                kind=IncidentKind.LEAK,
                severity=severity,
                summary="seen elsewhere",
            )
        )

    def close(self, incident: str) -> None:
        self.say(
            cmd.TriageIncident(
                **self.head(SAM),
                incident=incident,
                severity=Severity.LOW,
                confidence=Confidence.FALSE_ALARM,
            )
        )
        for person in (SAM, LEA):
            self.say(cmd.CloseIncident(**self.head(person), incident=incident, outcome="nothing"))

    def enter(self, step: str) -> None:
        """Meet the gate of `inside` or `demo`, and enter it."""
        if "weights" not in self.state.carried_by:
            self.say(
                cmd.RegisterArtifact(
                    **self.head(PIPELINE),
                    artifact="sealed-1",
                    manifest_digest="sha256:" + "a" * 64,
                    components=["weights", "tokenizer"],
                    location="s3://bucket/sealed-1",
                    size=123,
                )
            )
        place = self.state.plan.step(step)
        assert place is not None
        for control in place.controls:
            self.say(cmd.ReportControl(**self.head(SAM), step=step, control=control.kind))
        for need in place.gate.evidence:
            rated = {"ratings": RATINGS} if need.kind == "risk_assessment" else {}
            self.say(
                cmd.SubmitEvidence.model_validate(
                    {
                        **self.head(PIPELINE),
                        "kind": need.kind,
                        "digest": digest([step, need.kind]),
                        "title": "a document",
                        "step": step,
                        **rated,
                    }
                )
            )
        for need in place.gate.sign_offs:
            subject = gate_subject(self.state, place).digest
            self.say(
                cmd.SignOff(
                    **self.head(SAM if need.role == "safety" else LEA),
                    step=step,
                    role=need.role,
                    decision="approve",
                    subject=subject,
                )
            )
        service = cmd.SERVICE
        self.say(cmd.BeginEntry(**self.head(service), step=step))
        grants = planned_grants(self.state, place, {}, self.now)
        envelopes = {
            grant.id: {"sealed-1": f"envelope/{grant.id}"} for grant in grants if grant.kind == "key"
        }
        self.say(cmd.CompleteEntry(**self.head(service), step=step, envelopes=envelopes))
        assert self.state.current == step
