"""What may be asked of a release. Each command is one message, and is the argument of one Temporal Update.

A command carries who asks (`actor`), the caller's idempotency key (`command_id`), and what is asked. It never carries
the time: that is an argument of `decide`. Commands marked internal come from the release's own main loop.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PlainSerializer, StringConstraints

from orchestrator.domain.control import ControlKind
from orchestrator.domain.custody_wait import CustodyWait
from orchestrator.domain.evidence import Consideration, EvidenceKind, Rating
from orchestrator.domain.incident import Confidence, IncidentKind, Severity, Trace
from orchestrator.domain.permissions import Permission
from orchestrator.domain.plan import Plan, PublicKey
from orchestrator.domain.values import Digest, Duration, Frozen, Instant, Line, Name, Text

CommandId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:@-]{1,128}$")]
Envelope = Annotated[str, StringConstraints(max_length=24_000)]
ReleasedShare = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9+/]+={0,2}$", max_length=4_096),
    Field(
        description="base64 of a key share, sealed to custody and bound to the sign-off that it comes with"
    ),
]


class KeyShares(Frozen):
    """That an artifact opens only with `threshold` of the shares that `holders` have, as its manifest says."""

    MOST: ClassVar[int] = 16

    threshold: int = Field(ge=2, le=16)
    holders: Annotated[list[Name], Field(min_length=2, max_length=16)]


class Actor(Frozen):
    """Who asks: a person, a machine, a partner, the service itself, or an invited reviewer without an account."""

    id: Name
    kind: Literal["person", "machine", "partner", "service", "invited"] = "person"
    permissions: Annotated[
        frozenset[Permission],
        # in order, so that one command has one digest in every process
        PlainSerializer(sorted, return_type=list[Permission]),
    ] = frozenset()


SERVICE = Actor(id="sluice", kind="service")


class Command(Frozen):
    """What every command carries."""

    command_id: CommandId
    actor: Actor


class CreateRelease(Command):
    """Start a release of `name` in `version` along a plan."""

    type: Literal["create_release"] = "create_release"
    release: Name
    name: Line
    version: Line
    plan: Plan


class RegisterArtifact(Command):
    """Say which sealed artifact carries which components. The manifest digest is what sign-offs bind to."""

    type: Literal["register_artifact"] = "register_artifact"
    artifact: Name
    manifest_digest: Digest
    components: Annotated[list[Name], Field(min_length=1)]
    location: Line
    root: Envelope | None = None
    size: int = Field(default=0, ge=0)
    shares: KeyShares | None = Field(default=None, exclude_if=lambda value: value is None)


class SubmitEvidence(Command):
    """Bind a document by its digest; of a risk assessment, with its six ratings."""

    type: Literal["submit_evidence"] = "submit_evidence"
    kind: EvidenceKind
    digest: Digest
    title: Line
    step: Name | None = None
    location: Line | None = None
    ratings: dict[Consideration, Rating] | None = None


class ReportControl(Command):
    """Attest that a control of a step is in force, or say that it is not; a probe reports the same way."""

    type: Literal["report_control"] = "report_control"
    step: Name
    control: ControlKind
    in_force: bool = True
    probe: bool = False
    evidence: Digest | None = None
    note: Text | None = None


class SignOff(Command):
    """Approve or reject one gate in one role.

    `subject` is the digest of the gate's subject as the person saw it: when the gate shows another one by then, the
    command is refused (`gate-changed`) and never counts for something unseen. `envelope` is the signed statement
    (DSSE), needed when the plan pins keys of this person. `shares`: artifact → the person's key share, released to custody
    with exactly this statement.
    """

    type: Literal["sign_off"] = "sign_off"
    step: Name
    role: Name
    decision: Literal["approve", "reject"]
    subject: Digest
    comment: Text | None = None
    expires_at: Instant | None = None
    envelope: Envelope | None = None
    shares: dict[Name, ReleasedShare] = Field(
        default_factory=dict, max_length=100, exclude_if=lambda value: not value
    )


class WithdrawSignOff(Command):
    """Take one's own sign-off (either decision) back, until the step is entered."""

    type: Literal["withdraw_sign_off"] = "withdraw_sign_off"
    step: Name
    comment: Text | None = None
    envelope: Envelope | None = None


class Delegate(Command):
    """Let somebody else sign in one of one's roles until a date."""

    type: Literal["delegate"] = "delegate"
    to: Name
    role: Name
    until: Instant
    envelope: Envelope | None = None


class Invite(Command):
    """Let one outside reviewer without an account sign one gate, once.

    `subject` is the digest of the gate's subject: the invitation is for exactly that. `key` is the one-time public key whose
    private half is in the invitation. `envelope` is the signed invitation (DSSE); nothing counts without it.
    """

    type: Literal["invite"] = "invite"
    step: Name
    role: Name
    reviewer: Name
    organisation: Line
    subject: Digest
    key: PublicKey
    expires_at: Instant
    envelope: Envelope | None = None


class RevokeInvitation(Command):
    """Take an invitation back: its reviewer's approval counts no more; a rejection stands."""

    type: Literal["revoke_invitation"] = "revoke_invitation"
    invitation: Digest
    reason: Text


class SignInvited(Command):
    """An invited reviewer approves or rejects. `acceptance` binds their own key to the invitation; `envelope` is the sign-off."""

    type: Literal["sign_invited"] = "sign_invited"
    step: Name
    invitation: Digest
    decision: Literal["approve", "reject"]
    subject: Digest
    comment: Text | None = None
    expires_at: Instant | None = None
    acceptance: Envelope
    envelope: Envelope


class WithdrawInvited(Command):
    """An invited reviewer takes their sign-off back, until the step is entered."""

    type: Literal["withdraw_invited"] = "withdraw_invited"
    step: Name
    invitation: Digest
    comment: Text | None = None
    envelope: Envelope


class Hold(Command):
    """Stop all clocks and gates. One authorised person may."""

    type: Literal["hold"] = "hold"
    reason: Text


class Resume(Command):
    """Lift the holds that stand now. Needs a quorum; the same command from another person adds to it."""

    type: Literal["resume"] = "resume"
    reason: Text | None = None
    envelope: Envelope | None = None


class ExtendWindow(Command):
    """Ask for more research time before the next step. One authorised person may."""

    type: Literal["extend_window"] = "extend_window"
    step: Name
    by: Duration
    reason: Text


class ShortenWindow(Command):
    """Ask for less research time than now. Needs a quorum."""

    type: Literal["shorten_window"] = "shorten_window"
    step: Name
    to: Duration
    reason: Text | None = None
    envelope: Envelope | None = None


class ReportIncident(Command):
    """Report a leak, misuse or harm. The plan's response table acts at once."""

    type: Literal["report_incident"] = "report_incident"
    incident: Name
    kind: IncidentKind
    severity: Severity
    confidence: Confidence = Confidence.REPORTED
    summary: Text
    components: list[Name] = Field(default_factory=list)
    partner: Name | None = None
    sighting: Text | None = None


class TriageIncident(Command):
    """Judge an incident: how bad, how sure, whose copy. The response table acts on what is new."""

    type: Literal["triage_incident"] = "triage_incident"
    incident: Name
    severity: Severity
    confidence: Confidence
    partner: Name | None = None
    note: Text | None = None


class ReportTrace(Command):
    """Note what tracing a leak came to, or why it came to nothing. Whoever is accused is judged by `TriageIncident`."""

    type: Literal["report_trace"] = "report_trace"
    incident: Name
    trace: Trace


class CloseIncident(Command):
    """Close an incident with a written outcome. A severe one needs a quorum."""

    type: Literal["close_incident"] = "close_incident"
    incident: Name
    outcome: Text
    envelope: Envelope | None = None


class Endorse(Command):
    """Stand behind a proposal of somebody else, by its id."""

    type: Literal["endorse"] = "endorse"
    proposal: Name
    envelope: Envelope | None = None


class AmendPlan(Command):
    """Replace the plan from here on. Needs the quorum of the plan that is replaced."""

    type: Literal["amend_plan"] = "amend_plan"
    plan: Plan
    reason: Text
    envelope: Envelope | None = None


class BreakGlass(Command):
    """Lift named conditions of the next gate in an emergency. Needs two people, is loud, leaves a review."""

    type: Literal["break_glass"] = "break_glass"
    step: Name
    waives: Annotated[list[Name], Field(min_length=1)]
    reason: Text
    envelope: Envelope | None = None


class CloseReview(Command):
    """Close the review that breaking the glass left; by somebody who did not break it."""

    type: Literal["close_review"] = "close_review"
    review: Name
    outcome: Text
    envelope: Envelope | None = None


class Revoke(Command):
    """End grants: one by id, or all of a partner."""

    type: Literal["revoke"] = "revoke"
    grant: str | None = None
    partner: Name | None = None
    reason: Text


class GrantCopy(Frozen):
    """The marked copy of an artifact that custody made for one grant alone.

    Attributes:
        of: the artifact that it was made from.
        artifact: the copy, sealed under a key of its own.
        components: what is in it.
        mark: the commitment to the key of its mark.
    """

    of: Name
    artifact: Name
    manifest_digest: Digest
    location: Line
    components: list[Name]
    size: int = 0
    mark: Digest


class MakeGrant(Command):
    """Ask for the grant of a partner who became ready after the step was entered; renews one, or makes it for a new key.

    `step`: one that stands; left out, the current one.
    """

    type: Literal["make_grant"] = "make_grant"
    partner: Name
    step: Name | None = None


class CompleteGrant(Command):
    """The partner is ready and its envelopes are made: the grant that was asked for is made. Internal."""

    type: Literal["complete_grant"] = "complete_grant"
    step: Name
    partner: Name
    recipient: Digest | None = None
    envelopes: dict[Name, str] = Field(default_factory=dict)
    copies: list[GrantCopy] = Field(default_factory=list, exclude_if=lambda value: not value)


class DropGrant(Command):
    """The grant that was asked for is not made. Internal."""

    type: Literal["drop_grant"] = "drop_grant"
    step: Name
    partner: Name
    reason: Text


class DiscloseGrant(Command):
    """Note that a grant's key is being handed over; from then on revoking cuts the future alone. Internal."""

    type: Literal["disclose_grant"] = "disclose_grant"
    grant: str


class RotateKeys(Command):
    """Seal components anew under fresh keys, because a key of theirs is or may be out. One authorised person may.

    What was disclosed stays disclosed: whoever has the old key and the old files keeps both.
    """

    type: Literal["rotate_keys"] = "rotate_keys"
    components: Annotated[list[Name], Field(min_length=1)]
    reason: Text
    delete_old: bool = Field(
        default=False, description="delete the old sealed files once the new ones are complete"
    )


class CompleteResealing(Command):
    """Custody has sealed one artifact of a rotation anew. Internal; custody's own memory is what backs it."""

    type: Literal["complete_resealing"] = "complete_resealing"
    rotation: Name
    artifact: Name = Field(description="the old one")
    new: Name
    manifest_digest: Digest
    location: Line
    size: int = Field(default=0, ge=0)


class EndRotation(Command):
    """Everything of a rotation that can be sealed anew is; or it failed, and why. Internal."""

    type: Literal["end_rotation"] = "end_rotation"
    rotation: Name
    failed: Text | None = None


class NoteDeletion(Command):
    """The old sealed files of an artifact are gone from the store. Internal."""

    type: Literal["note_deletion"] = "note_deletion"
    artifact: Name


class RenewEnvelopes(Command):
    """Grants that still stand have envelopes for what was sealed anew. Internal."""

    type: Literal["renew_envelopes"] = "renew_envelopes"
    envelopes: dict[str, dict[Name, str]] = Field(
        default_factory=dict, description="grant id → artifact → reference of its envelope"
    )
    refused: dict[str, Text] = Field(default_factory=dict, description="grant id → why it gets none")


class RollBack(Command):
    """Go back to an earlier step: what can be taken back is, what cannot is said. One authorised person may."""

    type: Literal["roll_back"] = "roll_back"
    to: Name
    reason: Text


class Abort(Command):
    """End the release for good; everything that can be taken back is."""

    type: Literal["abort"] = "abort"
    reason: Text


class ReportAccess(Command):
    """Say whether people with access can really use it now; an outage stops the research window."""

    type: Literal["report_access"] = "report_access"
    working: bool
    reason: Text | None = None


class ReportMonitor(Command):
    """Say when a leak source was last seen to work."""

    type: Literal["report_monitor"] = "report_monitor"
    source: Name
    last_success: Instant


class RetryEntry(Command):
    """Try again to enter a step whose entry was taken back."""

    type: Literal["retry_entry"] = "retry_entry"
    step: Name


class BeginEntry(Command):
    """The gate holds: begin to enter. Internal."""

    type: Literal["begin_entry"] = "begin_entry"
    step: Name


class PartnerReady(Frozen):
    """A partner as the records know it when a step is entered: its key, if the plan does not pin one."""

    partner: Name
    recipient: Digest | None = None


class CompleteEntry(Command):
    """Everything that the step needs is in place: it is entered, in one event. Internal."""

    type: Literal["complete_entry"] = "complete_entry"
    step: Name
    partners: list[PartnerReady] = Field(default_factory=list)
    absent: list[Name] = Field(
        default_factory=list,
        exclude_if=lambda value: not value,
        description="partners that lack something (a key, the terms) or are switched off: no grant for them now",
    )
    envelopes: dict[str, dict[Name, str]] = Field(
        default_factory=dict, description="grant id → artifact → reference of its envelope"
    )
    copies: dict[str, list[GrantCopy]] = Field(
        default_factory=dict,
        exclude_if=lambda value: not value,
        description="grant id → its marked copies, where the plan asks for marks",
    )


class TakeBackEntry(Command):
    """The entry failed, or the gate closed meanwhile: what was done is undone. Internal."""

    type: Literal["take_back_entry"] = "take_back_entry"
    step: Name
    reason: Text
    failed: bool = Field(
        default=True, description="something did not work, so a person retries; not: the gate closed"
    )


class NoteCustodyWait(Command):
    """Custody waits for people or for its clock before it gives the keys of an entry, or of `partner`'s late grant. Internal."""

    type: Literal["note_custody_wait"] = "note_custody_wait"
    step: Name
    attempt: int
    partner: Name | None = None
    wait: CustodyWait


class Expire(Command):
    """End grants and proposals whose time is over. Internal."""

    type: Literal["expire"] = "expire"


class Remind(Command):
    """Tell people of what ends soon or waits for long, each thing once. Internal."""

    type: Literal["remind"] = "remind"


AnyCommand = Annotated[
    RegisterArtifact
    | SubmitEvidence
    | ReportControl
    | SignOff
    | WithdrawSignOff
    | Delegate
    | Invite
    | RevokeInvitation
    | SignInvited
    | WithdrawInvited
    | Hold
    | Resume
    | ExtendWindow
    | ShortenWindow
    | ReportIncident
    | TriageIncident
    | ReportTrace
    | CloseIncident
    | Endorse
    | AmendPlan
    | BreakGlass
    | CloseReview
    | Revoke
    | MakeGrant
    | CompleteGrant
    | DropGrant
    | DiscloseGrant
    | RotateKeys
    | CompleteResealing
    | EndRotation
    | NoteDeletion
    | RenewEnvelopes
    | RollBack
    | Abort
    | ReportAccess
    | ReportMonitor
    | RetryEntry
    | BeginEntry
    | CompleteEntry
    | TakeBackEntry
    | NoteCustodyWait
    | Expire
    | Remind
    | CreateRelease,
    Field(discriminator="type"),
]

PROPOSAL_LIFETIME = timedelta(days=14)
