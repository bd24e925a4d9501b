"""The state of a release: the fold of its events, everything that a decision needs and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import Field

from orchestrator.domain.commands import Envelope, KeyShares
from orchestrator.domain.control import ControlKind, ControlReport
from orchestrator.domain.custody_wait import StandingWait
from orchestrator.domain.events import Grant
from orchestrator.domain.evidence import Evidence, EvidenceKind
from orchestrator.domain.incident import Incident
from orchestrator.domain.plan import Plan, Step, step_digest
from orchestrator.domain.stage import Stage, audience_words
from orchestrator.domain.values import Digest, Frozen, Instant, Line, Name, Text, digest

_ZERO = timedelta(0)


class RegisteredArtifact(Frozen):
    """A sealed artifact as the release knows it."""

    id: Name
    manifest_digest: Digest
    components: list[Name]
    location: Line
    root: Envelope | None = None
    size: int = 0
    by: Name
    at: Instant
    shares: KeyShares | None = Field(default=None, exclude_if=lambda value: value is None)


class Rotation(Frozen):
    """New keys for what is sealed: the artifacts (grants' own copies among them) that are sealed anew.

    Attributes:
        artifacts: those that stood when it was asked.
        done: old artifact → new one.
        ended_at: None while custody is at it.
        failed: why it ended before its end.
    """

    id: Name
    components: list[Name]
    artifacts: list[Name]
    reason: Text | None = None
    incident: Name | None = None
    delete_old: bool = False
    by: Name
    at: Instant
    done: dict[Name, Name] = Field(default_factory=dict)
    ended_at: Instant | None = None
    failed: Text | None = None

    @property
    def pending(self) -> bool:
        """Whether it still goes on."""
        return self.ended_at is None


class Superseded(Frozen):
    """An artifact in whose place another stands. `fate`: what became of its sealed files."""

    artifact: Name
    by: Name
    manifest_digest: Digest
    location: Line
    at: Instant
    rotation: Name
    fate: Literal["kept", "to_be_deleted", "deleted"] = "kept"


class SignOffRecord(Frozen):
    """One person's standing decision on the next gate.

    Attributes:
        statement: digest of the signed statement, when there is one; a withdrawal names it.
        held_before: seconds of hold until it was given.
        invitation: of an invited reviewer, the invitation that it was given on.
        shares: artifacts whose key share came with it.
    """

    person: Name
    role: Name
    decision: Literal["approve", "reject"]
    subject: Digest
    step_digest: Digest
    at: Instant
    expires_at: Instant
    on_behalf_of: Name | None = None
    comment: Text | None = None
    statement: Digest | None = None
    held_before: float = 0.0
    invitation: Digest | None = None
    shares: list[Name] = Field(default_factory=list, exclude_if=lambda value: not value)


class Delegation(Frozen):
    """`to` may sign in `role` for `person` until then."""

    person: Name
    to: Name
    role: Name
    until: Instant
    at: Instant | None = None


class Invitation(Frozen):
    """One outside reviewer without an account may sign the next gate, once.

    Attributes:
        id: digest of the signed invitation.
        subject: digest of the gate's subject that it is for; of another one it is stale.
        key: the one-time public key whose private half is in the invitation.
        used_at: when the reviewer signed on it; `acceptance`: what binds the reviewer's own key to it.
    """

    id: Digest
    by: Name
    role: Name
    reviewer: Name
    organisation: Line
    subject: Digest
    key: Text
    envelope: Envelope
    at: Instant
    expires_at: Instant
    used_at: Instant | None = None
    acceptance: Envelope | None = None
    revoked_at: Instant | None = None

    @property
    def open(self) -> bool:
        """Whether nobody has used or revoked it; that it has not expired is another matter."""
        return self.used_at is None and self.revoked_at is None


class StandingHold(Frozen):
    """A hold that nobody has lifted."""

    id: Name
    reason: Text
    by: Name
    at: Instant
    incident: Name | None = None


class Proposal(Frozen):
    """A dear decision that waits for more people. `people`: who stands behind it, and since when."""

    id: Name
    action: Literal["resume", "shorten_window", "close_incident", "amend", "break_glass"]
    payload: dict[str, Any]
    payload_digest: Digest
    people: dict[Name, Instant]
    expires_at: Instant


class Review(Frozen):
    """What breaking the glass left behind."""

    id: Name
    step: Name
    waives: list[Name]
    reason: Text
    people: list[Name]
    at: Instant


class Clock(Frozen):
    """A clock that can stand: seconds counted so far, and since when it runs (None: it stands)."""

    counted: float = 0.0
    running_since: Instant | None = None

    def at(self, now: datetime, until: datetime | None = None) -> timedelta:
        """What it shows at `now`; time after `until` does not count."""
        if self.running_since is None:
            return timedelta(seconds=self.counted)
        end = now if until is None else min(now, until)
        return timedelta(seconds=self.counted) + max(end - self.running_since, _ZERO)


class Entering(Frozen):
    """A step that is being entered."""

    step: Name
    attempt: int
    subject: Digest
    at: Instant


class AskedGrant(Frozen):
    """A grant that somebody asked for after its step was entered, and that is being made."""

    step: Name
    partner: Name
    by: Name
    at: Instant


class Signature(Frozen):
    """Who signed in which role, as the history of a step keeps it; of an invited reviewer, who invited them."""

    person: Name
    role: Name
    at: Instant
    invited_by: Name | None = None


class EnteredStep(Frozen):
    """One entry of a step, for the history. Windows in seconds."""

    step: Name
    stage: Stage
    attempt: int
    at: Instant
    signed: list[Signature]
    window_asked: float
    window_counted: float


class ReleaseState(Frozen):
    """A release as of its last event.

    Attributes:
        seq: how many events are folded in.
        attempt: which approach to a gate this is; every entry and rollback begins a new one.
        stages: the stage of each component that has one beyond nothing.
        reached: the highest stage each component ever had: what cannot be taken back stays here.
        sign_offs: standing decisions on the next gate, by person.
        clock: research time counted at the current step since it was entered.
        held: time under hold since the release began.
        custody_waits: what custody waits for, until it gives or the entry or the grant is over.
        entry_failed: why the last entry was taken back, until somebody retries.
    """

    release: Name
    name: Line
    version: Line
    creator: Name
    created_at: Instant
    updated_at: Instant
    plan: Plan
    plan_digest: Digest
    status: Literal["active", "entering", "completed", "aborted"] = "active"
    seq: int = 1
    current: Name | None = None
    attempt: int = 1
    stages: dict[Name, Stage] = Field(default_factory=dict)
    reached: dict[Name, Stage] = Field(default_factory=dict)
    artifacts: dict[Name, RegisteredArtifact] = Field(default_factory=dict)
    carried_by: dict[Name, Name] = Field(default_factory=dict, description="component → artifact")
    uploaders: list[Name] = Field(default_factory=list)
    evidence: dict[str, Evidence] = Field(
        default_factory=dict, description="`kind@step` or `kind@` → the latest"
    )
    controls: dict[str, ControlReport] = Field(
        default_factory=dict, description="`step/kind` → the last word"
    )
    sign_offs: dict[Name, SignOffRecord] = Field(default_factory=dict)
    delegations: list[Delegation] = Field(default_factory=list)
    invitations: dict[Digest, Invitation] = Field(
        default_factory=dict, description="of the next gate, by the digest of the signed invitation"
    )
    holds: dict[Name, StandingHold] = Field(default_factory=dict)
    incidents: dict[Name, Incident] = Field(default_factory=dict)
    proposals: dict[Name, Proposal] = Field(default_factory=dict)
    reviews: dict[Name, Review] = Field(default_factory=dict)
    waived: list[Name] = Field(
        default_factory=list, description="conditions of the next gate lifted by break-glass"
    )
    grants: dict[str, Grant] = Field(default_factory=dict)
    rotations: dict[Name, Rotation] = Field(default_factory=dict)
    superseded: dict[Name, Superseded] = Field(default_factory=dict)
    grants_asked: dict[str, AskedGrant] = Field(
        default_factory=dict, description="`step/partner` → what is being made"
    )
    shut_out: dict[Name, Digest] = Field(
        default_factory=dict,
        description="partner whose grant was revoked → digest of its entry in the plan then; an amended entry lets it in again",
    )
    window_required: dict[Name, float] = Field(
        default_factory=dict, description="seconds, where it differs from the plan"
    )
    clock: Clock = Clock()
    held: Clock = Clock()
    access_working: bool = True
    access_reason: Text | None = None
    monitors: dict[Name, Instant] = Field(default_factory=dict)
    approached_at: Instant | None = Field(
        default=None, description="since when this approach to the next gate goes, under this plan"
    )
    reminded: dict[str, Instant] = Field(
        default_factory=dict, description="what people were reminded of → its end"
    )
    entry: Entering | None = None
    entry_failed: Text | None = None
    custody_waits: dict[str, StandingWait] = Field(
        default_factory=dict,
        description="step → what custody waits for while it is entered; `step/partner` → for a late grant",
    )
    history: list[EnteredStep] = Field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether nothing can be commanded any more."""
        return self.status in {"completed", "aborted"}

    @property
    def current_step(self) -> Step | None:
        """The step that the release is at."""
        return None if self.current is None else self.plan.step(self.current)

    @property
    def index(self) -> int:
        """The place of the current step; -1 before the first."""
        return -1 if self.current is None else self.plan.index(self.current)

    @property
    def next_step(self) -> Step | None:
        """The step whose gate is next; None at the last step or after the end."""
        following = self.index + 1
        return None if self.ended or following >= len(self.plan.steps) else self.plan.steps[following]

    @property
    def stage(self) -> Stage:
        """The stage of the current step; `closed` before the first."""
        step = self.current_step
        return Stage.CLOSED if step is None else step.stage

    @property
    def barred(self) -> set[str]:
        """People who may not sign off: the creator and whoever uploaded artifacts (rule 7)."""
        return {self.creator, *self.uploaders}

    @property
    def open_incidents(self) -> list[Incident]:
        """Incidents that nobody has closed."""
        return [incident for incident in self.incidents.values() if incident.open]

    @property
    def pending_rotations(self) -> list[Rotation]:
        """Rotations of keys that custody is at."""
        return [rotation for rotation in self.rotations.values() if rotation.pending]

    def awaiting_renewal(self) -> list[Grant]:
        """Live grants that wait for an envelope of what was sealed anew, once the release may hand out keys."""
        if self.holds or self.open_incidents or self.entry is not None or self.pending_rotations:
            return []
        return [grant for grant in self.live_grants() if grant.renew]

    def live_grants(self, step: str | None = None) -> list[Grant]:
        """Grants that give access, of one step or of all."""
        return [g for g in self.grants.values() if g.live and (step is None or g.step == step)]

    def window_asked(self, step: Step) -> timedelta:
        """The research time asked for before `step`, with what people changed."""
        changed = self.window_required.get(step.name)
        if changed is not None:
            return timedelta(seconds=changed)
        return step.gate.research_window or _ZERO

    def window_counted(self, now: datetime) -> timedelta:
        """Real access counted at the current step until `now`."""
        return self.clock.at(now, access_ends(self))

    def evidence_for(self, step: Step) -> dict[EvidenceKind, Evidence]:
        """The latest document of each kind that holds for a step: its own before one for every step."""
        found: dict[EvidenceKind, Evidence] = {}
        for kind in EvidenceKind:
            document = self.evidence.get(f"{kind}@{step.name}") or self.evidence.get(f"{kind}@")
            if document is not None:
                found[kind] = document
        return found

    def control_report(self, step: str, kind: ControlKind) -> ControlReport | None:
        """The last word on a control at a step."""
        return self.controls.get(f"{step}/{kind}")

    def manifests_for(self, step: Step) -> dict[Name, Digest]:
        """Artifact → manifest digest, for the artifacts that carry the step's components."""
        carried = {self.carried_by[name] for name in step.component_names if name in self.carried_by}
        return {artifact: self.artifacts[artifact].manifest_digest for artifact in sorted(carried)}


class GateSubject(Frozen):
    """Exactly what a sign-off signs. Anything that changes here makes earlier sign-offs stale."""

    release: Name
    step: Name
    attempt: int
    from_stage: Stage
    to_stage: Stage
    audience: str
    plan_digest: Digest
    manifests: Mapping[Name, Digest]
    evidence: Mapping[EvidenceKind, Digest]

    @property
    def digest(self) -> str:
        """`sha256:…` over the canonical form."""
        return digest(self)


def gate_subject(state: ReleaseState, step: Step) -> GateSubject:
    """The subject of the gate into `step` as it stands now."""
    return GateSubject(
        release=state.release,
        step=step.name,
        attempt=state.attempt,
        from_stage=state.stage,
        to_stage=step.stage,
        audience=audience_words(step.audience),
        plan_digest=state.plan_digest,
        manifests=state.manifests_for(step),
        evidence={kind: document.digest for kind, document in state.evidence_for(step).items()},
    )


def access_ends(state: ReleaseState) -> datetime | None:
    """When the last working access at the current step expires by itself; None if it does not."""
    step = state.current_step
    if step is None or not step.partner_groups:
        return None
    ends = [grant.not_after for grant in state.live_grants(step.name) if grant.holder_kind == "partner"]
    return None if not ends or None in ends else max(end for end in ends if end is not None)


def access_stands_because(state: ReleaseState) -> str | None:
    """Why the research window does not run now, in words; None while it runs.

    It runs only while the current step is live, somebody outside really has access, and nothing is held (DOMAIN.md,
    "The research window counts real access").
    """
    step = state.current_step
    if state.ended:
        return "the release has ended"
    if step is None:
        return "no step has been entered yet"
    if state.holds:
        return "the release is on hold"
    if not state.access_working:
        return "access does not work" + (f": {state.access_reason}" if state.access_reason else "")
    if any(incident.severe for incident in state.open_incidents):
        return "a severe incident is open"
    live = state.live_grants(step.name)
    if step.stage.serves and step.deployments and not any(g.holder_kind == "deployment" for g in live):
        return "no deployment has a grant"
    if step.partner_groups and not any(g.holder_kind == "partner" for g in live):
        return "no partner has working access"
    if step.audience == "public" and not any(g.holder_kind == "public" for g in live):
        return "public access was revoked"
    return None


__all__ = [
    "AskedGrant",
    "Clock",
    "Delegation",
    "EnteredStep",
    "Entering",
    "GateSubject",
    "Invitation",
    "Proposal",
    "RegisteredArtifact",
    "ReleaseState",
    "Review",
    "SignOffRecord",
    "Signature",
    "StandingHold",
    "access_ends",
    "access_stands_because",
    "gate_subject",
    "step_digest",
]
