"""What the API shows of a release: views over its stored state, judged at the moment of the request.

Every response carries `server_time`, so that a caller's clocks can count from it and not from their own.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.domain.component import Component
from orchestrator.domain.custody_wait import StandingWait
from orchestrator.domain.evidence import Evidence
from orchestrator.domain.gate import verdict
from orchestrator.domain.gate_views import Verdict
from orchestrator.domain.incident import Incident
from orchestrator.domain.plan import Plan, Step
from orchestrator.domain.preview import entering_words
from orchestrator.domain.stage import Stage, audience_words
from orchestrator.domain.state import (
    Delegation,
    EnteredStep,
    Entering,
    ReleaseState,
    Review,
    StandingHold,
    access_stands_because,
)
from orchestrator.domain.values import Digest, Instant, Line, Name
from orchestrator.records.releases import ReleaseSummary as RecordedSummary

Status = Literal["active", "entering", "completed", "aborted"]


class View(BaseModel):
    """Base of everything that is shown."""

    model_config = ConfigDict(frozen=True)


class Timed(View):
    """Carries the server's clock."""

    server_time: Instant


class CommandResult(Timed):
    """What a command did.

    `repeated`: this idempotency key had been answered before; this is the answer of the first time.
    """

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "release": "gt-mini-1.0",
                    "seq": 9,
                    "events": ["signed_off"],
                    "repeated": False,
                    "server_time": "2026-11-23T09:00:00Z",
                }
            ]
        },
    )

    release: Name
    seq: int = Field(description="number of the release's last event after the command")
    events: list[str] = Field(description="types of the events that it made; none: nothing changed")
    repeated: bool = False


class ArtifactOfRelease(View):
    """A sealed artifact that carries components of the release."""

    id: Name
    manifest_digest: Digest
    components: list[Name]
    location: Line
    size: int
    by: Name
    at: Instant


class ProposalView(View):
    """A dear decision that waits for more people. Of an amendment, the plan is left out."""

    id: Name
    action: str
    payload: dict[str, Any]
    payload_digest: Digest
    people: dict[Name, Instant]
    needed: int = Field(description="people whom the quorum asks for in all")
    expires_at: Instant


class ControlView(View):
    """The last word on a control of a step."""

    step: Name
    kind: str
    in_force: bool
    by: Name
    at: Instant
    note: str | None = None


class ReleaseSummary(View):
    """One line of the list of releases. `opens_at`: when the next gate opens if nothing changes, as of the last event."""

    id: Name
    name: Line
    version: Line
    organisation: Line
    status: Status
    stage: Stage
    current: Name | None = Field(description="the step that the release is at")
    next: Name | None = Field(description="the step whose gate is next")
    on_hold: bool
    open_incidents: int
    opens_at: Instant | None
    creator: Name
    created_at: Instant
    updated_at: Instant
    seq: int = Field(description="number of its last event")


class ReleasePage(Timed):
    """A page of releases, newest first. `next_cursor` is null on the last page."""

    items: list[ReleaseSummary]
    next_cursor: str | None


class ReleaseDetail(ReleaseSummary, Timed):
    """A release as it stands."""

    waiting_for: list[str] = Field(description="codes of what the next gate waits for now")

    plan_digest: Digest
    announced: bool
    attempt: int
    stages: dict[Name, Stage]
    components: dict[Name, Component]
    artifacts: list[ArtifactOfRelease]
    evidence: list[Evidence]
    controls: list[ControlView]
    holds: list[StandingHold]
    incidents: list[Incident]
    proposals: list[ProposalView]
    reviews: list[Review]
    delegations: list[Delegation]
    waived: list[str]
    history: list[EnteredStep]
    entry: Entering | None
    entry_failed: str | None
    custody_waits: list[StandingWait] = Field(
        default_factory=list,
        description="what custody waits for, while a step is entered or a late grant (`partner`) is made; it goes on by itself",
    )
    access_working: bool
    window_stands_because: str | None
    live_grants: int


class StepView(View):
    """One step of the plan, and where it stands."""

    name: Name
    stage: Stage
    components: list[Name]
    audience: str
    deployments: list[Name]
    position: int = Field(description="from 0")
    standing: Literal["entered", "current", "entering", "next", "ahead"]
    irreversible: bool
    entered_at: Instant | None
    gate_open: bool | None = Field(description="of the next step: whether its gate holds now")
    unmet: int | None = Field(description="of the next step: how many conditions are unmet")
    opens_at: Instant | None
    waits: StandingWait | None = Field(
        default=None, description="while the step is entered: what custody waits for, since when"
    )


class StepList(Timed):
    """The steps of a release in the order of its plan."""

    release: Name
    items: list[StepView]


class StepDetail(StepView, Timed):
    """One step with its definition from the plan."""

    release: Name
    definition: Step


class GateView(Timed):
    """The verdict on a gate now. `ETag` of the response is `verdict.etag`; decisions send it back in `If-Match`."""

    release: Name
    verdict: Verdict
    means: list[str] = Field(
        description="what entering this step means, in plain words; the last one says if it can be undone"
    )


class PlanView(Timed):
    """The plan that holds."""

    release: Name
    digest: Digest
    plan: Plan


class EvidenceList(Timed):
    """The latest documents of a release."""

    release: Name
    items: list[Evidence]


class IncidentList(Timed):
    """Incidents of a release, the latest first."""

    release: Name
    items: list[Incident]


def summary(row: RecordedSummary) -> ReleaseSummary:
    """A line of the list, from the read model."""
    return ReleaseSummary.model_construct(
        id=row.id,
        name=row.name,
        version=row.version,
        organisation=row.organisation,
        status=cast("Status", row.status),
        stage=Stage(row.stage),
        current=row.current_step,
        next=row.next_step,
        on_hold=row.on_hold,
        open_incidents=row.open_incidents,
        opens_at=row.opens_at,
        creator=row.creator,
        created_at=row.created_at,
        updated_at=row.updated_at,
        seq=row.seq,
    )


def artifacts_of(state: ReleaseState, components: list[str] | None = None) -> list[ArtifactOfRelease]:
    """Artifacts that carry these components (all: None), without their wrapped roots."""
    wanted = (
        set(state.carried_by.values())
        if components is None
        else {state.carried_by[name] for name in components if name in state.carried_by}
    )
    return [
        ArtifactOfRelease(
            id=a.id,
            manifest_digest=a.manifest_digest,
            components=a.components,
            location=a.location,
            size=a.size,
            by=a.by,
            at=a.at,
        )
        for a in sorted(state.artifacts.values(), key=lambda found: found.id)
        if components is None or a.id in wanted
    ]


def detail(state: ReleaseState, now: datetime) -> ReleaseDetail:
    """Everything about a release but its plan's steps and its events."""
    controls = []
    for key, report in sorted(state.controls.items()):
        step, _, kind = key.partition("/")
        controls.append(
            ControlView(
                step=step, kind=kind, in_force=report.in_force, by=report.by, at=report.at, note=report.note
            )
        )
    following = state.next_step
    found = None if following is None else verdict(state, following, now)
    return ReleaseDetail(
        id=state.release,
        name=state.name,
        version=state.version,
        organisation=state.plan.organisation,
        status=state.status,
        stage=state.stage,
        current=state.current,
        next=None if following is None else following.name,
        on_hold=bool(state.holds),
        open_incidents=len(state.open_incidents),
        opens_at=None if found is None else found.opens_at,
        creator=state.creator,
        created_at=state.created_at,
        updated_at=state.updated_at,
        seq=state.seq,
        waiting_for=[] if found is None else list(dict.fromkeys(c.code for c in found.unmet)),
        server_time=now,
        plan_digest=state.plan_digest,
        announced=state.plan.announced,
        attempt=state.attempt,
        stages=state.stages,
        components=state.plan.components,
        artifacts=artifacts_of(state),
        evidence=_by_time(state),
        controls=controls,
        holds=list(state.holds.values()),
        incidents=sorted(state.incidents.values(), key=lambda i: i.at, reverse=True),
        proposals=[
            ProposalView(
                id=p.id,
                action=p.action,
                payload={key: value for key, value in p.payload.items() if key != "plan"},
                payload_digest=p.payload_digest,
                people=p.people,
                needed=state.plan.quorums.of(p.action).count,
                expires_at=p.expires_at,
            )
            for p in state.proposals.values()
        ],
        reviews=list(state.reviews.values()),
        delegations=[d for d in state.delegations if d.until > now],
        waived=state.waived,
        history=state.history,
        entry=state.entry,
        entry_failed=state.entry_failed,
        custody_waits=list(state.custody_waits.values()),
        access_working=state.access_working,
        window_stands_because=access_stands_because(state),
        live_grants=len(state.live_grants()),
    )


def _by_time(state: ReleaseState) -> list[Evidence]:
    return sorted(state.evidence.values(), key=lambda document: document.at, reverse=True)


def evidence_list(state: ReleaseState, now: datetime) -> EvidenceList:
    """The latest documents of each kind and step, newest first."""
    return EvidenceList(release=state.release, items=_by_time(state), server_time=now)


def step_view(state: ReleaseState, step: Step, now: datetime) -> StepView:
    """Where one step stands."""
    place, following = state.plan.index(step.name), state.next_step
    entered = [entry.at for entry in state.history if entry.step == step.name]
    standing: Literal["entered", "current", "entering", "next", "ahead"] = "ahead"
    if state.entry is not None and state.entry.step == step.name:
        standing = "entering"
    elif place == state.index:
        standing = "current"
    elif place < state.index:
        standing = "entered"
    elif following is not None and following.name == step.name:
        standing = "next"
    found = verdict(state, step, now) if standing == "next" else None
    return StepView(
        name=step.name,
        stage=step.stage,
        components=step.component_names,
        audience=audience_words(step.audience),
        deployments=step.deployments,
        position=place,
        standing=standing,
        irreversible=not step.stage.reversible,
        entered_at=entered[-1] if entered and standing in {"current", "entered"} else None,
        gate_open=None if found is None else found.open,
        unmet=None if found is None else len(found.unmet),
        opens_at=None if found is None else found.opens_at,
        waits=state.custody_waits.get(step.name),
    )


def step_list(state: ReleaseState, now: datetime) -> StepList:
    """All steps of a release."""
    items = [step_view(state, step, now) for step in state.plan.steps]
    return StepList(release=state.release, items=items, server_time=now)


def gate_view(state: ReleaseState, step: Step, now: datetime) -> GateView:
    """The whole verdict, and what entering would mean."""
    return GateView(
        release=state.release,
        verdict=verdict(state, step, now),
        means=entering_words(state, step.name),
        server_time=now,
    )
