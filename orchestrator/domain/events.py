"""What has happened to a release. The list of them is the release; the state is their fold.

Every event says when (`at`, UTC, never before the event before it), who (`by`) and for which command. Events are
leaves of the audit log: custody folds its own state from them and believes nothing else.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from orchestrator.domain.commands import CommandId, Envelope, GrantCopy, KeyShares, ReleasedShare
from orchestrator.domain.control import ControlKind
from orchestrator.domain.custody_wait import CustodyWait
from orchestrator.domain.evidence import Evidence
from orchestrator.domain.incident import Confidence, Incident, Severity, Trace
from orchestrator.domain.plan import Plan, PublicKey
from orchestrator.domain.stage import Stage
from orchestrator.domain.values import Digest, Duration, Frozen, Instant, Line, Name, Text


class Event(Frozen):
    """What every event carries."""

    at: Instant
    by: Name
    command_id: CommandId


class ReleaseCreated(Event):
    """The release exists; its plan is this one."""

    type: Literal["release_created"] = "release_created"
    release: Name
    name: Line
    version: Line
    plan: Plan
    plan_digest: Digest


class ArtifactRegistered(Event):
    """A sealed artifact carries these components."""

    type: Literal["artifact_registered"] = "artifact_registered"
    artifact: Name
    manifest_digest: Digest
    components: list[Name]
    location: Line
    root: Envelope | None = None
    size: int = 0
    shares: KeyShares | None = Field(default=None, exclude_if=lambda value: value is None)


class EvidenceSubmitted(Event):
    """A document was bound."""

    type: Literal["evidence_submitted"] = "evidence_submitted"
    evidence: Evidence


class ControlReported(Event):
    """Somebody, or a probe, said whether a control is in force."""

    type: Literal["control_reported"] = "control_reported"
    step: Name
    control: ControlKind
    in_force: bool
    probe: bool = False
    evidence: Digest | None = None
    note: Text | None = None


class SignedOff(Event):
    """A person approved or rejected exactly this subject; `invitation`: an invited reviewer did, whose `acceptance` names their key."""

    type: Literal["signed_off"] = "signed_off"
    step: Name
    attempt: int
    role: Name
    decision: Literal["approve", "reject"]
    subject: Digest
    step_digest: Digest
    comment: Text | None = None
    expires_at: Instant
    on_behalf_of: Name | None = None
    envelope: Envelope | None = None
    invitation: Digest | None = Field(default=None, exclude_if=lambda value: value is None)
    acceptance: Envelope | None = Field(default=None, exclude_if=lambda value: value is None)
    shares: dict[Name, ReleasedShare] = Field(default_factory=dict, exclude_if=lambda value: not value)


class SignOffWithdrawn(Event):
    """A person took their sign-off back."""

    type: Literal["sign_off_withdrawn"] = "sign_off_withdrawn"
    step: Name
    attempt: int
    comment: Text | None = None
    envelope: Envelope | None = None


class Delegated(Event):
    """Somebody may sign in a role of `by` until then."""

    type: Literal["delegated"] = "delegated"
    to: Name
    role: Name
    until: Instant
    envelope: Envelope | None = None


class Invited(Event):
    """`by` lets one outside reviewer without an account sign this gate, once. `invitation`: the signed statement's digest."""

    type: Literal["invited"] = "invited"
    invitation: Digest
    step: Name
    attempt: int
    role: Name
    reviewer: Name
    organisation: Line
    subject: Digest
    key: PublicKey
    expires_at: Instant
    envelope: Envelope


class InvitationRevoked(Event):
    """An invitation was taken back."""

    type: Literal["invitation_revoked"] = "invitation_revoked"
    invitation: Digest
    step: Name | None
    reason: Text


class HoldPlaced(Event):
    """All clocks and gates stand."""

    type: Literal["hold_placed"] = "hold_placed"
    hold: Name
    reason: Text
    incident: Name | None = None


class HoldsLifted(Event):
    """A quorum lifted these holds."""

    type: Literal["holds_lifted"] = "holds_lifted"
    holds: list[Name]
    people: list[Name]


class WindowChanged(Event):
    """The research window before a step is longer or, by a quorum, shorter than it was."""

    type: Literal["window_changed"] = "window_changed"
    step: Name
    required: Duration
    reason: Text
    people: list[Name]


class Proposed(Event):
    """A dear decision waits for more people."""

    type: Literal["proposed"] = "proposed"
    proposal: Name
    action: Literal["resume", "shorten_window", "close_incident", "amend", "break_glass"]
    payload: dict[str, Any]
    payload_digest: Digest
    expires_at: Instant
    envelope: Envelope | None = None


class Endorsed(Event):
    """One more person stands behind a proposal."""

    type: Literal["endorsed"] = "endorsed"
    proposal: Name
    envelope: Envelope | None = None


class ProposalEnded(Event):
    """A proposal was carried out, or its time was over."""

    type: Literal["proposal_ended"] = "proposal_ended"
    proposal: Name
    carried: bool
    people: list[Name]


class IncidentReported(Event):
    """An incident is open."""

    type: Literal["incident_reported"] = "incident_reported"
    incident: Incident


class IncidentTriaged(Event):
    """An incident was judged."""

    type: Literal["incident_triaged"] = "incident_triaged"
    incident: Name
    severity: Severity
    confidence: Confidence
    partner: Name | None = None
    note: Text | None = None


class IncidentTraced(Event):
    """A leak was looked at for partners' marks: every partner's z, or why nothing could be compared."""

    type: Literal["incident_traced"] = "incident_traced"
    incident: Name
    trace: Trace


class IncidentClosed(Event):
    """An incident is closed with an outcome."""

    type: Literal["incident_closed"] = "incident_closed"
    incident: Name
    outcome: Text
    people: list[Name]
    envelope: Envelope | None = None


class KeysRotationAsked(Event):
    """These components get new keys and are sealed anew: the response table asks for it, or somebody does.

    `rotation` names the work; None where nothing is sealed yet, or all of it is being sealed anew already.
    """

    type: Literal["keys_rotation_asked"] = "keys_rotation_asked"
    components: list[Name]
    incident: Name | None = None
    rotation: Name | None = None
    reason: Text | None = None
    delete_old: bool = False


class ArtifactResealed(Event):
    """An artifact was sealed anew under a fresh key: `new` stands in the place of `artifact` from here on.

    Sign-offs on the old manifest are stale; envelopes of the old one are handed out no more. `grant`: it was that
    grant's own copy.
    """

    type: Literal["artifact_resealed"] = "artifact_resealed"
    rotation: Name
    artifact: Name
    new: Name
    manifest_digest: Digest
    location: Line
    size: int = 0
    grant: str | None = None


class KeysRotationEnded(Event):
    """A rotation is done, or failed. What was disclosed before stays disclosed."""

    type: Literal["keys_rotation_ended"] = "keys_rotation_ended"
    rotation: Name
    failed: Text | None = None


class SealedDeleted(Event):
    """The old sealed files of an artifact that was sealed anew are gone from the store."""

    type: Literal["sealed_deleted"] = "sealed_deleted"
    artifact: Name


class EnvelopesRenewed(Event):
    """Grants that still stand have envelopes for what was sealed anew; `refused` says who has none, and why."""

    type: Literal["envelopes_renewed"] = "envelopes_renewed"
    envelopes: dict[str, dict[Name, str]] = Field(default_factory=dict)
    refused: dict[str, Text] = Field(default_factory=dict)


class PlanAmended(Event):
    """Another plan holds from here on."""

    type: Literal["plan_amended"] = "plan_amended"
    plan: Plan
    plan_digest: Digest
    previous_digest: Digest
    reason: Text
    people: list[Name]


class GlassBroken(Event):
    """Named conditions of a gate are lifted; a review is open."""

    type: Literal["glass_broken"] = "glass_broken"
    review: Name
    step: Name
    attempt: int
    waives: list[Name]
    reason: Text
    people: list[Name]


class ReviewClosed(Event):
    """The review of a broken glass is closed."""

    type: Literal["review_closed"] = "review_closed"
    review: Name
    outcome: Text
    envelope: Envelope | None = None


class EntryBegan(Event):
    """The gate held; the step is being entered."""

    type: Literal["entry_began"] = "entry_began"
    step: Name
    attempt: int
    subject: Digest
    counted: Duration | None = Field(default=None, description="research window counted at this moment")


class Grant(Frozen):
    """One holder's access to one step's components, with its key envelope.

    Attributes:
        id: `step.attempt.holder`: it derives from what it is for, so making it twice makes one.
        holder: a partner or deployment, or `public`.
        kind: `access` (query or interface, no key), `key` (an envelope is made for the key whose digest is `recipient`), or `public` (the public record).
        envelopes: artifact → reference of its envelope; empty for `access`.
        disclosed_at: when the key first left for the holder; from then on revoking cuts the future alone.
        copies: the holder's own marked copies, which its envelopes are for.
        renew: artifacts that were sealed anew, and that it waits for an envelope of.
    """

    id: str
    step: Name
    holder: Name
    holder_kind: Literal["partner", "deployment", "public", "internal"]
    kind: Literal["access", "key", "public"]
    components: list[Name]
    recipient: Digest | None = None
    envelopes: dict[Name, str] = Field(default_factory=dict)
    made_at: Instant
    not_after: Instant | None = None
    disclosed_at: Instant | None = None
    ended_at: Instant | None = None
    end: Literal["revoked", "expired", "superseded", "rolled_back", "aborted"] | None = None
    copies: list[GrantCopy] = Field(default_factory=list, exclude_if=lambda value: not value)
    renew: list[Name] = Field(default_factory=list, exclude_if=lambda value: not value)

    @property
    def live(self) -> bool:
        """Whether it gives access."""
        return self.ended_at is None


class StepEntered(Event):
    """The step is entered, with all its grants: this one event is what lets keys out."""

    type: Literal["step_entered"] = "step_entered"
    step: Name
    stage: Stage
    attempt: int
    grants: list[Grant]
    waiting_partners: list[Name] = Field(
        default_factory=list, description="in the audience, but without a key yet"
    )
    completed: bool = Field(default=False, description="`open`: nothing is left to release")


class EntryTakenBack(Event):
    """The entry was undone; nothing of it is left. `failed`: somebody has to mend something and retry."""

    type: Literal["entry_taken_back"] = "entry_taken_back"
    step: Name
    reason: Text
    failed: bool = False


class CustodyWaits(Event):
    """Custody waits before it gives the keys of the entry that is under way, or of a late grant (`partner`); it goes on by itself."""

    type: Literal["custody_waits"] = "custody_waits"
    step: Name
    attempt: int
    partner: Name | None = None
    wait: CustodyWait


class EntryRetried(Event):
    """Somebody asked to try the entry again."""

    type: Literal["entry_retried"] = "entry_retried"
    step: Name


class GrantAsked(Event):
    """Somebody asks for the grant of a partner at a step that is entered; it is being made."""

    type: Literal["grant_asked"] = "grant_asked"
    step: Name
    partner: Name


class GrantNotMade(Event):
    """The grant that was asked for is not made, and why."""

    type: Literal["grant_not_made"] = "grant_not_made"
    step: Name
    partner: Name
    reason: Text


class GrantMade(Event):
    """A partner who became ready later, or whose grant is renewed, has its grant. `replaces`: the one that ends with it."""

    type: Literal["grant_made"] = "grant_made"
    grant: Grant
    replaces: str | None = None


class GrantDisclosed(Event):
    """The key of a grant left for its holder."""

    type: Literal["grant_disclosed"] = "grant_disclosed"
    grant: str


class GrantEnded(Event):
    """A grant gives no access any more. `disclosed`: the key was out before, so only the future is cut."""

    type: Literal["grant_ended"] = "grant_ended"
    grant: str
    end: Literal["revoked", "expired"]
    disclosed: bool
    reason: Text


class RolledBack(Event):
    """The release is back at an earlier step. `irrevocable` components were downloadable and stay out."""

    type: Literal["rolled_back"] = "rolled_back"
    from_step: Name
    to_step: Name
    irrevocable: list[Name]
    reason: Text


class AccessReported(Event):
    """Whether people with access can use it."""

    type: Literal["access_reported"] = "access_reported"
    working: bool
    reason: Text | None = None


class MonitorReported(Event):
    """A leak source was last seen to work then."""

    type: Literal["monitor_reported"] = "monitor_reported"
    source: Name
    last_success: Instant


class Reminded(Event):
    """Something ends soon or waits for long; these people are told, this once. `reminder`: what it is about.

    The kinds are those of `domain.reminders`: a window, a cooling-off, a delegation that ends, a sign-off or an invitation that
    expires, evidence that gets too old, a sign-off that is waited for.
    """

    type: Literal["reminded"] = "reminded"
    reminder: str
    kind: Line
    message: Text
    step: Name | None = None
    people: list[Name]
    due: Instant


class Aborted(Event):
    """The release has ended without reaching its last step."""

    type: Literal["aborted"] = "aborted"
    reason: Text
    irrevocable: list[Name]


AnyEvent = Annotated[
    ReleaseCreated
    | ArtifactRegistered
    | EvidenceSubmitted
    | ControlReported
    | SignedOff
    | SignOffWithdrawn
    | Delegated
    | Invited
    | InvitationRevoked
    | HoldPlaced
    | HoldsLifted
    | WindowChanged
    | Proposed
    | Endorsed
    | ProposalEnded
    | IncidentReported
    | IncidentTriaged
    | IncidentTraced
    | IncidentClosed
    | KeysRotationAsked
    | ArtifactResealed
    | KeysRotationEnded
    | SealedDeleted
    | EnvelopesRenewed
    | PlanAmended
    | GlassBroken
    | ReviewClosed
    | EntryBegan
    | StepEntered
    | EntryTakenBack
    | CustodyWaits
    | EntryRetried
    | GrantAsked
    | GrantNotMade
    | GrantMade
    | GrantDisclosed
    | GrantEnded
    | RolledBack
    | AccessReported
    | MonitorReported
    | Reminded
    | Aborted,
    Field(discriminator="type"),
]

EVENT: TypeAdapter[AnyEvent] = TypeAdapter(AnyEvent)
EVENTS: TypeAdapter[list[AnyEvent]] = TypeAdapter(list[AnyEvent])
