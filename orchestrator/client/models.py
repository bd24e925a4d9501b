"""What goes over the wire: one model for each schema of the API."""

# Made by `python -m infra.client_code` from OpenAPI; do not edit.

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, ClassVar, Literal, Optional, Union

from pydantic import Field

from orchestrator.client.calls import Model

Category = Literal['model', 'risk_analysis', 'replication']

Confidence = Literal['reported', 'suspected', 'confirmed', 'false_alarm']

Consideration = Literal['concentration_of_power', 'disparate_performance', 'misuse', 'auditability', 'accountability', 'value_judgments']

ControlKind = Literal['model_card', 'datasheet', 'data_statement', 'system_card', 'rate_limit', 'content_filter', 'detection_model', 'hard_coded_responses', 'output_watermark', 'weight_encryption', 'adapted_model', 'bounty', 'community_flagging', 'input_monitoring', 'risk_policy', 'code_of_conduct', 'user_accounts', 'sharing_policy', 'region_limits', 'license', 'partner_terms']

EvidenceKind = Literal['model_card', 'system_card', 'datasheet', 'data_statement', 'evaluation_result', 'risk_assessment']

HandOut = Literal['nothing', 'key', 'plaintext']

IncidentKind = Literal['leak', 'misuse', 'harm']

Kind = Literal['weights', 'tokenizer', 'model_config', 'inference_code', 'query_access', 'training_data', 'fine_tuning_data', 'data_collection_process', 'crowdworker_information', 'evaluation_results', 'model_card', 'system_card', 'datasheet', 'data_statement', 'technical_paper', 'training_code', 'training_configuration', 'training_telemetry']

Permission = Literal['release:read', 'release:create', 'release:hold', 'release:resume', 'release:abort', 'release:rollback', 'release:amend', 'release:break-glass', 'gate:sign', 'gate:retry', 'window:extend', 'window:shorten', 'evidence:add', 'control:attest', 'incident:report', 'incident:triage', 'incident:close', 'grant:read', 'grant:make', 'grant:revoke', 'artifact:add', 'artifact:read', 'partner:add', 'partner:read', 'principal:add', 'audit:read', 'access:report', 'keys:rotate', 'everything:read']

Rating = Literal['low', 'moderate', 'high', 'unacceptable']

ResponseAction = Literal['notify', 'hold', 'revoke_grants', 'roll_back', 'rotate_keys']

Role = Literal['release_manager', 'approver', 'mlops', 'partner', 'auditor', 'operator']

Severity = Literal['low', 'moderate', 'severe']

Stage = Literal['closed', 'hosted', 'api', 'downloadable', 'open']

Topic = Literal['waiting', 'reminders', 'holds', 'incidents', 'break_glass', 'revocations', 'steps', 'decisions', 'grants', 'test']

WithholdingReason = Literal['intellectual_property', 'consent', 'privacy', 'competition', 'misuse']


class AbortAsked(Model):
    """End the release for good; everything that can be taken back is."""

    constants: ClassVar[frozenset[str]] = frozenset(['type'])

    type: Literal['abort'] = 'abort'
    reason: str


class AcceptanceBody(Model):
    """The acceptance, signed with the one-time key of the invitation: it shows that the caller holds it."""

    acceptance: str


class AcceptedTerms(Model):
    """Terms that a partner accepted, by name or digest."""

    terms: str
    at: datetime
    by: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""


class AccessBody(Model):
    """Whether people with access can use it."""

    working: bool
    reason: Optional[str] = None


class AmendBody(Model):
    """Another plan from here on."""

    plan: PlanInput
    reason: str
    envelope: Optional[str] = None
    """the signed statement (DSSE); needed when the plan pins keys of this person"""


class AmendPlanAsked(Model):
    """Replace the plan from here on. Needs the quorum of the plan that is replaced."""

    constants: ClassVar[frozenset[str]] = frozenset(['type'])

    type: Literal['amend_plan'] = 'amend_plan'
    plan: PlanInput
    reason: str
    envelope: Optional[str] = None


class ArtifactBody(Model):
    """A sealed artifact: its signed manifest and its root key, wrapped to custody."""

    manifest: str
    """base64 of the signed manifest, byte for byte"""
    digest: str
    """the manifest digest, as the sealer printed it"""
    location: str
    """where the sealed files lie"""
    wrapped_root: Optional[str] = None
    """the root key wrapped to custody's public key; base64"""
    signature: Optional[str] = None
    """base64 of the weight signature that sealing made, sealed to the leak monitor; without one no copy is recognised"""


class ArtifactDetail(Model):
    """A sealed artifact."""

    server_time: datetime
    id: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    manifest_digest: str
    """`sha256:` and 64 hex digits"""
    location: str
    components: list[str]
    size: int
    uploader: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    created_at: datetime
    has_root: bool


class ArtifactOfRelease(Model):
    """A sealed artifact that carries components of the release."""

    id: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    manifest_digest: str
    """`sha256:` and 64 hex digits"""
    components: list[str]
    location: str
    size: int
    by: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    at: datetime


class ArtifactPage(Model):
    """Artifacts, newest first."""

    server_time: datetime
    items: list[ArtifactView]
    next_cursor: Optional[str]


class ArtifactView(Model):
    """A sealed artifact. Its wrapped root is not shown; whether there is one is."""

    id: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    manifest_digest: str
    """`sha256:` and 64 hex digits"""
    location: str
    components: list[str]
    size: int
    uploader: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    created_at: datetime
    has_root: bool


class AssessmentBody(Model):
    """A risk assessment: all six considerations, for one step."""

    step: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    title: str
    considerations: dict[str, Finding]
    """all six"""


class AuditEntry(Model):
    """An entry of the audit log. `leaf` is the canonical JSON that was hashed; `hash` the Merkle leaf hash (hex)."""

    index: int
    kind: str
    release: Optional[str]
    at: datetime
    leaf: str
    hash: str


class AuditPage(Model):
    """Entries in order. Ask on with `start=next_start`."""

    server_time: datetime
    size: int
    """how many entries the log has"""
    items: list[AuditEntry]
    next_start: Optional[int]


class BindArtifactBody(Model):
    """Which registered artifact carries which components of the release; left out, those that its manifest names."""

    artifact: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    components: Optional[list[str]] = None


class BodyBackChannelLogout(Model):
    """BodyBackChannelLogout."""

    logout_token: str


class BodyUploadEvidence(Model):
    """BodyUploadEvidence."""

    file: str
    """the document; a risk assessment as JSON"""
    kind: EvidenceKind
    title: str
    step: Optional[str] = None


class BreakGlassAsked(Model):
    """Lift named conditions of the next gate in an emergency. Needs two people, is loud, leaves a review."""

    constants: ClassVar[frozenset[str]] = frozenset(['type'])

    type: Literal['break_glass'] = 'break_glass'
    step: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    waives: list[str]
    reason: str
    envelope: Optional[str] = None


class BreakGlassBody(Model):
    """Conditions of the gate to lift in an emergency."""

    waives: list[str]
    reason: str
    envelope: Optional[str] = None
    """the signed statement (DSSE); needed when the plan pins keys of this person"""


class Channel(Model):
    """A channel, without its address.

    Attributes:
        owner: whose it is; None: the operators' own.
        shown: of a mail address its ends, of an address of `apprise` its kind.
        topics: what it is told of; empty: all. What is always told is told whatever stands here.
        release: only this release; None: all that the owner is concerned with.
        off_reason: why it was switched off; None while it is active.
        next_number: of its next notice; numbers count from 1 without a gap.
    """

    id: str
    owner: Optional[str]
    kind: Literal['mail', 'apprise']
    shown: str
    topics: list[Topic]
    release: Optional[str]
    active: bool
    off_reason: Optional[str]
    position: int
    next_number: int
    last_success_at: Optional[datetime]
    created_at: datetime
    created_by: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""


class ChannelBody(Model):
    """A new channel, of the caller unless an operator says whose. `address`: kept sealed, never shown again."""

    kind: Literal['mail', 'apprise']
    address: str
    topics: Optional[list[Topic]] = None
    """none: all. A broken glass, and what the plan says to notify of, is always told"""
    release: Optional[str] = None
    owner: Optional[str] = None
    """for operators: whose"""
    shared: Optional[bool] = None
    """for operators: nobody's own; it is told of every release, or of `release`"""


class ChannelChange(Model):
    """Other topics, or off and on."""

    topics: Optional[list[Topic]] = None
    active: Optional[bool] = None
    reason: Optional[str] = None


class ChannelPage(Model):
    """Channels by id."""

    server_time: datetime
    items: list[Channel]
    next_cursor: Optional[str]


class ChannelView(Model):
    """A channel; never its address."""

    id: str
    owner: Optional[str]
    kind: Literal['mail', 'apprise']
    shown: str
    topics: list[Topic]
    release: Optional[str]
    active: bool
    off_reason: Optional[str]
    position: int
    next_number: int
    last_success_at: Optional[datetime]
    created_at: datetime
    created_by: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    server_time: datetime


class CheckpointView(Model):
    """The latest signed checkpoint (C2SP `tlog-checkpoint`)."""

    server_time: datetime
    size: int
    root: str
    """base64, as in the note"""
    note: str
    at: datetime
    keys: list[str]
    """the log's public keys (note verifiers)"""


class CloseIncidentAsked(Model):
    """Close an incident with a written outcome. A severe one needs a quorum."""

    constants: ClassVar[frozenset[str]] = frozenset(['type'])

    type: Literal['close_incident'] = 'close_incident'
    incident: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    outcome: str
    envelope: Optional[str] = None


class CloseIncidentBody(Model):
    """The outcome of an incident."""

    outcome: str
    envelope: Optional[str] = None
    """the signed statement (DSSE); needed when the plan pins keys of this person"""


class CloseReviewAsked(Model):
    """Close the review that breaking the glass left; by somebody who did not break it."""

    constants: ClassVar[frozenset[str]] = frozenset(['type'])

    type: Literal['close_review'] = 'close_review'
    review: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    outcome: str
    envelope: Optional[str] = None


class CommandResult(Model):
    """What a command did.

    `repeated`: this idempotency key had been answered before; this is the answer of the first time.
    """

    server_time: datetime
    release: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    seq: int
    """number of the release's last event after the command"""
    events: list[str]
    """types of the events that it made; none: nothing changed"""
    repeated: Optional[bool] = None


class Component(Model):
    """A named part of the system.

    Attributes:
        category: one of the paper's three; must be the one that `kind` belongs to.
        kind: what it is.
        variant: which of several sizes or versions (GPT-2 came in four, §5.2), or None.
        documentation: where its basic documentation is; needed for `open` (§5).
        withheld: why it is never released by this plan, or None.
        mark: whether partners' copies of these weights are marked; None (as by default) leaves them as they are.
    """

    category: Category
    kind: Kind
    variant: Optional[str] = None
    description: Optional[str] = None
    documentation: Optional[str] = None
    withheld: Optional[Withheld] = None
    mark: Optional[Mark] = None


class Condition(Model):
    """One thing that must hold, and does not.

    Attributes:
        code: a stable word, such as `sign_off` or `research_window`.
        message: what is missing, in words.
        who: people who can meet it; empty when nobody has to do anything (a clock) or anybody with the permission can.
        met_at: for a clock that runs, when it will be met if nothing changes; None when it stands or is no clock.
        role: of a missing sign-off, the role.
    """

    code: str
    message: str
    who: Optional[list[str]] = None
    met_at: Optional[datetime] = None
    role: Optional[str] = None


class ControlBody(Model):
    """Attest that a control is in force, or say that it is not."""

    in_force: Optional[bool] = None
    evidence: Optional[str] = None
    note: Optional[str] = None


class ControlView(Model):
    """The last word on a control of a step."""

    step: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    kind: str
    in_force: bool
    by: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    at: datetime
    note: Optional[str] = None


class CreateReleaseBody(Model):
    """A new release along a plan. Left out, the id is made of name and version."""

    name: str
    version: str
    plan: PlanInput
    id: Optional[str] = None


class DelegateAsked(Model):
    """Let somebody else sign in one of one's roles until a date."""

    constants: ClassVar[frozenset[str]] = frozenset(['type'])

    type: Literal['delegate'] = 'delegate'
    to: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    role: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    until: datetime
    envelope: Optional[str] = None


class DelegateBody(Model):
    """Let somebody else sign in one of one's roles until a date."""

    to: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    role: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    until: datetime
    envelope: Optional[str] = None
    """the signed statement (DSSE); needed when the plan pins keys of this person"""


class Delegation(Model):
    """`to` may sign in `role` for `person` until then."""

    person: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    to: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    role: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    until: datetime
    at: Optional[datetime] = None


class DelegationView(Model):
    """At this gate, `to` may sign in `role` for `person` until then."""

    person: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    to: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    role: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    until: datetime


class Delivery(Model):
    """One event for one endpoint, and what became of it. `answer`: the last HTTP status, if there was an answer."""

    number: int
    event: int
    release: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    type: str
    status: Literal['pending', 'delivered', 'dead', 'superseded']
    attempts: int
    answer: Optional[int]
    error: Optional[str]
    planned_at: datetime
    due_at: datetime
    done_at: Optional[datetime]


class DeliveryPage(Model):
    """Deliveries, newest first."""

    server_time: datetime
    items: list[Delivery]
    next_cursor: Optional[str]


class Deployment(Model):
    """A serving platform of our own: at `hosted` and `api` it is who gets the weights' key."""

    recipient: str
    """an age recipient with the hybrid post-quantum KEM, as `sluice partner keygen` or `age-keygen -pq` make it"""
    endpoint: Optional[str] = None


class Document(Model):
    """What is known of a document without opening it. `size` in bytes of its text."""

    digest: str
    """`sha256:` and 64 hex digits"""
    media_type: str
    size: int
    by: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    at: datetime


class DocumentResult(Model):
    """A document that was stored, and what binding it did."""

    server_time: datetime
    document: Document
    release: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    seq: int
    events: list[str]
    repeated: Optional[bool] = None


class EndorseAsked(Model):
    """Stand behind a proposal of somebody else, by its id."""

    constants: ClassVar[frozenset[str]] = frozenset(['type'])

    type: Literal['endorse'] = 'endorse'
    proposal: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    envelope: Optional[str] = None


class EndorseBody(Model):
    """Stand behind a proposal."""

    envelope: Optional[str] = None
    """the signed statement (DSSE); needed when the plan pins keys of this person"""


class EnteredStep(Model):
    """One entry of a step, for the history. Windows in seconds."""

    step: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    stage: Stage
    attempt: int
    at: datetime
    signed: list[Signature]
    window_asked: float
    window_counted: float


class Entering(Model):
    """A step that is being entered."""

    step: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    attempt: int
    subject: str
    """`sha256:` and 64 hex digits"""
    at: datetime


class EventPage(Model):
    """Events in order. Ask on with `after=next_after`."""

    server_time: datetime
    items: list[EventView]
    next_after: Optional[int]


class EventView(Model):
    """One event. `id` orders the events of all releases, and is its entry in the audit log; `seq` those of its release.

    `data` holds what belongs to this type; wrapped keys and whole plans are left out (the plan's digest stays).
    """

    id: int
    release: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    seq: int
    type: str
    at: datetime
    by: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    command_id: str
    data: dict[str, Any]


class Evidence(Model):
    """A document as the release knows it: its digest and where it lies, never its text.

    Attributes:
        step: the step that it belongs to, or None when it holds for every step (never for a risk assessment).
        location: where people who sign can read it.
        ratings: of a risk assessment, the six ratings.
    """

    id: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    kind: EvidenceKind
    digest: str
    """`sha256:` and 64 hex digits"""
    title: str
    by: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    at: datetime
    step: Optional[str] = None
    location: Optional[str] = None
    ratings: Optional[dict[str, Rating]] = None


class EvidenceBody(Model):
    """A document bound by its digest."""

    kind: EvidenceKind
    digest: str
    """`sha256:` and 64 hex digits"""
    title: str
    step: Optional[str] = None
    location: Optional[str] = None
    """where people who sign can read it"""
    ratings: Optional[dict[str, Rating]] = None
    """of a risk assessment: all six ratings"""


class EvidenceList(Model):
    """The latest documents of a release."""

    server_time: datetime
    release: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    items: list[Evidence]


class EvidenceRequirement(Model):
    """A document that a gate asks for, and how old it may be."""

    kind: EvidenceKind
    max_age: Optional[str] = None


class ExtendWindowAsked(Model):
    """Ask for more research time before the next step. One authorised person may."""

    constants: ClassVar[frozenset[str]] = frozenset(['type'])

    type: Literal['extend_window'] = 'extend_window'
    step: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    by: str
    reason: str


class ExtendWindowBody(Model):
    """More research time."""

    by: str
    reason: str


class FileLink(Model):
    """One sealed file. Whoever has the URL can read the ciphertext until it ends: treat it as a credential."""

    path: str
    url: str


class Finding(Model):
    """One consideration's answer: what was found, how bad it is, what is done about it."""

    finding: str
    rating: Rating
    mitigation: str


class FindingsView(Model):
    """The reports that were taken in, in order."""

    reports: list[str]


class GateInput(Model):
    """All that must hold before the step is entered."""

    sign_offs: Optional[list[SignOffRequirement]] = None
    sign_off_validity: Optional[str] = None
    research_window: Optional[str] = None
    """real access at the step before, added up"""
    cooling_off: Optional[str] = None
    """between the last sign-off and the entry"""
    evidence: Optional[list[EvidenceRequirement]] = None
    monitors: Optional[list[MonitorRequirement]] = None
    not_before: Optional[datetime] = None
    opening_hours: Optional[OpeningHours] = None
    shares: Optional[int] = None
    """so many approvers' key shares are needed as a second lock"""
    waive_external_sign_off: Optional[str] = None
    """why nobody from outside signs (rule 8)"""


class GateOutput(Model):
    """All that must hold before the step is entered."""

    sign_offs: Optional[list[SignOffRequirement]] = None
    sign_off_validity: Optional[str] = None
    research_window: Optional[str] = None
    """real access at the step before, added up"""
    cooling_off: Optional[str] = None
    """between the last sign-off and the entry"""
    evidence: Optional[list[EvidenceRequirement]] = None
    monitors: Optional[list[MonitorRequirement]] = None
    not_before: Optional[datetime] = None
    opening_hours: Optional[OpeningHours] = None
    shares: Optional[int] = None
    """so many approvers' key shares are needed as a second lock"""
    waive_external_sign_off: Optional[str] = None
    """why nobody from outside signs (rule 8)"""


class GateDocument(Model):
    """A document that is bound to the gate, and where whoever signs can read it."""

    kind: EvidenceKind
    title: str
    digest: str
    """`sha256:` and 64 hex digits"""
    location: Optional[str]


class GateSubject(Model):
    """Exactly what a sign-off signs. Anything that changes here makes earlier sign-offs stale."""

    release: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    step: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    attempt: int
    from_stage: Stage
    to_stage: Stage
    audience: str
    plan_digest: str
    """`sha256:` and 64 hex digits"""
    manifests: dict[str, str]
    evidence: dict[str, str]


class GateView(Model):
    """The verdict on a gate now. `ETag` of the response is `verdict.etag`; decisions send it back in `If-Match`."""

    server_time: datetime
    release: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    verdict: Verdict
    means: list[str]
    """what entering this step means, in plain words; the last one says if it can be undone"""


class GrantDetail(Model):
    """A grant."""

    server_time: datetime
    id: str
    release: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    name: str
    version: str
    step: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    stage: Stage
    holder: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    holder_kind: Literal['partner', 'deployment', 'public', 'internal']
    kind: Literal['access', 'key', 'public']
    components: list[str]
    artifacts: list[ArtifactOfRelease]
    recipient: Optional[str]
    envelopes: list[str]
    """artifacts that there is an envelope of"""
    renew: list[str]
    """artifacts that were sealed anew, and that it waits for an envelope of"""
    receipt_keys: list[str]
    """keys that its holder's client may sign receipts with"""
    live: bool
    on_hold: bool
    """no key is handed over while the release is on hold"""
    made_at: datetime
    not_after: Optional[datetime]
    disclosed_at: Optional[datetime]
    ended_at: Optional[datetime]
    end: Optional[str]


class GrantLinks(Model):
    """Links in the order asked for; all of them end `expires_in` seconds after `server_time`."""

    server_time: datetime
    items: list[FileLink]
    expires_in: int
    """seconds"""


class GrantPage(Model):
    """Grants, newest first."""

    server_time: datetime
    items: list[GrantView]
    next_cursor: Optional[str]


class GrantView(Model):
    """One holder's access to one step's components.

    `disclosed_at` tells whether revoking is complete (null) or cuts the future alone.
    """

    id: str
    release: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    name: str
    version: str
    step: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    stage: Stage
    holder: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    holder_kind: Literal['partner', 'deployment', 'public', 'internal']
    kind: Literal['access', 'key', 'public']
    components: list[str]
    artifacts: list[ArtifactOfRelease]
    recipient: Optional[str]
    envelopes: list[str]
    """artifacts that there is an envelope of"""
    renew: list[str]
    """artifacts that were sealed anew, and that it waits for an envelope of"""
    receipt_keys: list[str]
    """keys that its holder's client may sign receipts with"""
    live: bool
    on_hold: bool
    """no key is handed over while the release is on hold"""
    made_at: datetime
    not_after: Optional[datetime]
    disclosed_at: Optional[datetime]
    ended_at: Optional[datetime]
    end: Optional[str]


class Health(Model):
    """The process answers."""

    status: Optional[str] = None


class HoldAsked(Model):
    """Stop all clocks and gates. One authorised person may."""

    constants: ClassVar[frozenset[str]] = frozenset(['type'])

    type: Literal['hold'] = 'hold'
    reason: str


class HubDifferenceView(Model):
    """One way in which the repository is not as the release left it."""

    what: str
    expected: str
    actual: str
    exposes: bool
    """somebody can see or download more than the step allows"""


class HubFindingView(Model):
    """Differences found together. `gone`: somebody put it right; `other`: at the next look something else was different."""

    id: str
    differences: list[HubDifferenceView]
    exposes: bool
    found_at: datetime
    last_seen_at: datetime
    closed_at: Optional[datetime]
    outcome: Literal['open', 'repaired', 'gone', 'other']
    incident: Optional[str]
    """the incident that was opened for it"""


class HubView(Model):
    """The repository at the last look. `in_order` is null where nobody has looked, or where it cannot be looked at."""

    server_time: datetime
    repository: Optional[str]
    in_order: Optional[bool]
    on_drift: Literal['repair', 'raise']
    """what the plan says is done"""
    looked_at: Optional[datetime]
    last_success: Optional[datetime]
    failing_since: Optional[datetime]
    error: Optional[str]
    """why it cannot be looked at now"""
    findings: list[HubFindingView]
    """newest first"""


class Incident(Model):
    """One incident as the release knows it.

    Attributes:
        components: what of ours is concerned; empty means all of it.
        partner: whose copy it seems to be, when that is known; of several, who was named last.
        partners: everybody who was named, in that order: several may be guilty.
        traces: what custody found when it looked for marks, and why it could not; the newest 20.
        sighting: a reference to what was seen and where.
        triaged_at: when somebody first looked and judged; None until then.
        closed_at: when it was closed with `outcome`; None while it is open.
        quorum: a leak: closing it takes the plan's quorum, however small it is.
    """

    id: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    kind: IncidentKind
    severity: Severity
    confidence: Confidence
    summary: str
    components: list[str]
    by: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    at: datetime
    partner: Optional[str] = None
    partners: Optional[list[str]] = None
    traces: Optional[list[Trace]] = None
    sighting: Optional[str] = None
    triaged_by: Optional[str] = None
    triaged_at: Optional[datetime] = None
    closed_at: Optional[datetime] = None
    outcome: Optional[str] = None
    quorum: Optional[bool] = None


class IncidentBody(Model):
    """A leak, misuse or harm that was seen. Left out, its id is made up."""

    kind: IncidentKind
    severity: Severity
    summary: str
    id: Optional[str] = None
    confidence: Optional[Confidence] = None
    components: Optional[list[str]] = None
    partner: Optional[str] = None
    sighting: Optional[str] = None


class IncidentEntry(Model):
    """An incident and the release that it belongs to."""

    release: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    incident: Incident


class IncidentList(Model):
    """Incidents of a release, the latest first."""

    server_time: datetime
    release: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    items: list[Incident]


class IncidentPage(Model):
    """Incidents of all releases, newest first."""

    server_time: datetime
    items: list[IncidentEntry]
    next_cursor: Optional[str]


class IngestBody(Model):
    """Plaintext to seal and register. The same request again is the same ingest."""

    source: str
    """a path below the configured ingest folder, `s3://…` or `hf:…`"""
    store: str
    """where the sealed files go"""
    components: dict[str, list[str]]
    """component → glob patterns of its files"""
    release: Optional[str] = None
    """bind the artifact to this release afterwards"""
    shares: Optional[ShareDealing] = None
    """who gets a share of the key, where the plan asks for key shares (`shares:`)"""


class IngestView(Model):
    """An ingest. `running`, `done` (then with its artifact) or `failed`."""

    server_time: datetime
    id: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    status: Literal['running', 'done', 'failed']
    artifact: Optional[str] = None
    manifest_digest: Optional[str] = None
    files: Optional[int] = None
    size: Optional[int] = None


class InvitationList(Model):
    """Every invitation to the next gate, the oldest first."""

    server_time: datetime
    items: list[InvitationView]


class InvitationView(Model):
    """An invitation to the next gate. `standing`: `open` until it is used, revoked, expired, or stale because the gate changed."""

    id: str
    """`sha256:` and 64 hex digits"""
    role: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    reviewer: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    organisation: str
    invited_by: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    at: datetime
    expires_at: datetime
    standing: Literal['open', 'used', 'revoked', 'expired', 'stale']
    used_at: Optional[datetime]
    revoked_at: Optional[datetime]


class InviteBody(Model):
    """Let one outside reviewer without an account sign the gate, once."""

    role: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    reviewer: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    organisation: str
    subject: str
    """`subject_digest` of the gate that was read"""
    key: str
    """the one-time public key of the invitation"""
    expires_at: datetime
    envelope: Optional[str] = None
    """the signed invitation (DSSE); always needed"""


class InvitedSignOffBody(Model):
    """An invited reviewer's decision."""

    acceptance: str
    decision: Literal['approve', 'reject']
    envelope: str
    """the sign-off, signed with the accepted key"""
    comment: Optional[str] = None
    expires_at: Optional[datetime] = None


class InvitedView(Model):
    """What an invited reviewer is asked to sign.

    Attributes:
        envelope: the signed invitation, to be verified against what is shown.
        subject: the gate's subject as it stands now; its digest is what the invitation names, unless it is stale.
        means: what entering the step means, in words.
        sign_off: the reviewer's own standing decision on this invitation; null before, and after a withdrawal.
    """

    server_time: datetime
    invitation: InvitationView
    envelope: str
    title: str
    """title of the release's plan"""
    name: str
    """what is released"""
    version: str
    subject: GateSubject
    subject_digest: str
    """`sha256:` and 64 hex digits"""
    means: list[str]
    irreversible: bool
    documents: list[GateDocument]
    longest: int
    """for how many seconds a sign-off can count at most"""
    sign_off: Optional[SignOffView]


class InvitedWithdrawBody(Model):
    """An invited reviewer takes their sign-off back."""

    acceptance: str
    envelope: str
    """the withdrawal, signed with the accepted key"""
    comment: Optional[str] = None


class IssuedCopyList(Model):
    """Issued copies of a release in the order in which they were made."""

    server_time: datetime
    release: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    items: list[IssuedCopyView]


class IssuedCopyView(Model):
    """One partner's marked copy, with the exact digests that only it has."""

    entry: int
    """its place in the audit log"""
    artifact: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    of: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    step: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    grant: str
    holder: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    manifest_digest: str
    """`sha256:` and 64 hex digits"""
    mark: str
    """the commitment to the key of its mark"""
    files: list[IssuedFile]
    at: datetime


class IssuedFile(Model):
    """What identifies one file of an issued copy exactly. Digests in hex; None where one could not be computed."""

    path: str
    size: int
    sha256: str
    btv2_root: Optional[str] = None
    xet_hash: Optional[str] = None


class IssuedTokenView(Model):
    """A new token. `text` is shown this once and kept nowhere."""

    server_time: datetime
    token: Token
    text: str


class JudgementPage(Model):
    """Judgements, newest first."""

    server_time: datetime
    items: list[JudgementView]
    next_cursor: Optional[str]


class JudgementView(Model):
    """A suspect, and what it was judged to be when it was held against an artifact."""

    suspect: str
    """what it is deduplicated by"""
    title: str
    source: str
    target: str
    size: Optional[int]
    seen_at: datetime
    artifact: str
    outcome: str
    tier: int
    """that decided; -1: none did"""
    reason: str
    verdict: Optional[str]
    """digest of the signed verdict"""
    attempts: int
    next_at: Optional[datetime]
    """when it is tried again"""
    at: datetime


class KeyShares(Model):
    """That an artifact opens only with `threshold` of the shares that `holders` have, as its manifest says."""

    threshold: int
    holders: list[str]


class LeakReportBody(Model):
    """Where something of ours seems to be. It is looked at by a machine first, by people when it is ours."""

    what: Literal['url', 'repository', 'sha256', 'magnet', 'torrent']
    """what `value` is"""
    value: str
    """the address of a file, `hf:owner/name`, a SHA-256 in hex, a magnet link, or a torrent file in base64"""
    note: Optional[str] = None
    """anything that helps; no secrets, please"""
    contact: Optional[str] = None
    """how to reach you, if you like"""


class LeakReportView(Model):
    """A report that was taken in. The id lets you refer to it; nothing else is said about what becomes of it."""

    server_time: datetime
    id: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    at: datetime


class LinksBody(Model):
    """Which sealed files links are wanted for."""

    artifact: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    paths: list[str]
    """paths in the manifest"""


class LockRequest(Model):
    """One key that people have to approve at the key service.

    Attributes:
        about: the artifact whose key is asked for.
        accessor: what approvers look at and approve the request by; it opens nothing.
        expires_at: when the request lapses; custody then makes a new one.
        approved_by: who has approved so far, as the key service names them.
    """

    about: str
    accessor: str
    expires_at: Optional[datetime] = None
    approved_by: Optional[list[str]] = None


class MakeGrantAsked(Model):
    """Ask for the grant of a partner who became ready after the step was entered; renews one, or makes it for a new key.

    `step`: one that stands; left out, the current one.
    """

    constants: ClassVar[frozenset[str]] = frozenset(['type'])

    type: Literal['make_grant'] = 'make_grant'
    partner: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    step: Optional[str] = None


class MakeGrantBody(Model):
    """The grant of a partner who became ready after the step was entered, renewed, or for its new key."""

    partner: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    step: Optional[str] = None
    """a step that stands; left out, the current one"""


class Mark(Model):
    """Every partner's copy of these weights is marked, so that a leaked one tells whose it was (docs/leaks.md).

    Attributes:
        strength: of the mark, in standard deviations of each row of weights.
    """

    strength: Optional[float] = None
    """of the mark, in standard deviations of each row of weights"""


class Me(Model):
    """The caller."""

    server_time: datetime
    id: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    kind: Literal['person', 'machine', 'partner']
    roles: list[Role]
    permissions: list[Permission]
    partner: Optional[str]


class MonitorKeyView(Model):
    """The leak monitor's public keys: who weight signatures are sealed to, and who signs verdicts."""

    server_time: datetime
    recipient: str
    verdict_key: str


class MonitorList(Model):
    """Leak sources, and what cannot be recognised."""

    server_time: datetime
    items: list[SourceView]
    unrecognisable: list[str]
    """artifacts that are withheld and have no weight signature: no copy of them is recognised"""
    judged: dict[str, int]
    """outcome → judgements; `suspects` → suspects in all"""


class MonitorRequirement(Model):
    """A leak source that has to see: the gate stays closed when it has been blind for longer."""

    source: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    max_blind: str


class NewSecretView(Model):
    """An endpoint and, this once, its secret."""

    server_time: datetime
    webhook: Webhook
    secret: str


class NoticeNumbers(Model):
    """The numbers of notices that are sent, or sent again."""

    server_time: datetime
    numbers: list[int]


class NoticePage(Model):
    """Notices, newest first."""

    server_time: datetime
    items: list[Told]
    next_cursor: Optional[str]


class OpeningHours(Model):
    """When a gate may open: each occurrence of `rrule` (wall-clock time of `time_zone`) opens it for `duration`."""

    rrule: str
    duration: str
    time_zone: Optional[str] = None


class ParentBody(Model):
    """A public model that ours descend from: what a suspect shares with it is no leak."""

    name: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    place: str
    """`hf:owner/name@revision`, `s3://bucket/prefix`, or a folder of the leak worker's"""
    artifact: Optional[str] = None
    """only for this artifact; left out: for all"""


class ParentDetail(Model):
    """A public parent."""

    server_time: datetime
    name: str
    place: str
    artifact: Optional[str]
    by: str
    at: datetime
    signed: list[str]
    errors: dict[str, str]


class ParentList(Model):
    """Public parents, by name."""

    server_time: datetime
    items: list[ParentView]


class ParentView(Model):
    """A public parent. `signed`: artifacts whose verdicts it is taken out of; `errors`: artifact → why not yet."""

    name: str
    place: str
    artifact: Optional[str]
    by: str
    at: datetime
    signed: list[str]
    errors: dict[str, str]


class Partner(Model):
    """An outside organisation that a grant may name."""

    name: str
    recipient: Optional[str] = None
    """the key that its envelopes are made for; pinned when given"""
    hub_account: Optional[str] = None
    """its account on the Hugging Face Hub, let into a gated repository while it has a grant"""
    receipt_keys: Optional[list[str]] = None
    """keys that its client signs receipts of delivery with, as `sluice partner receipt-key` shows"""


class PartnerAudience(Model):
    """A gated audience: the partners of the named groups (§5.3)."""

    partners: list[str]
    """names of partner groups of the plan"""


class PartnerBody(Model):
    """A new partner."""

    id: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    name: str


class PartnerChange(Model):
    """Switch a partner off (no new grant is made for it) or on again."""

    active: bool


class PartnerGroup(Model):
    """Partners that get access together, under the same terms (§5.3)."""

    partners: list[str]
    terms: Optional[str] = None
    """what a partner accepts before a grant, by name or digest"""


class PartnerKey(Model):
    """An age recipient of a partner. `statement`: the signed envelope that it was registered with, if there is one."""

    partner: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    digest: str
    """`sha256:` and 64 hex digits"""
    recipient: str
    statement: Optional[str]
    added_at: datetime
    added_by: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    revoked_at: Optional[datetime]
    revoked_by: Optional[str]


class PartnerKeyBody(Model):
    """A recipient to register."""

    recipient: str
    """an age recipient (hybrid post-quantum), as `sluice partner keygen` or `age-keygen -pq` make it"""
    statement: Optional[str] = None
    """the signed envelope that it is registered with"""


class PartnerKeyView(Model):
    """A registered recipient."""

    server_time: datetime
    partner: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    digest: str
    """`sha256:` and 64 hex digits"""
    recipient: str
    statement: Optional[str]
    added_at: datetime
    added_by: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    revoked_at: Optional[datetime]
    revoked_by: Optional[str]


class PartnerPage(Model):
    """Partners by id."""

    server_time: datetime
    items: list[RegisteredPartner]
    next_cursor: Optional[str]


class PartnerView(Model):
    """A partner with its keys and the terms that it accepted."""

    server_time: datetime
    id: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    name: str
    active: bool
    terms: list[AcceptedTerms]
    keys: list[PartnerKey]
    created_at: datetime
    created_by: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""


class Pending(Model):
    """One thing that a person can do: `domain.waits.Wait` of one release, for one of its people.

    Attributes:
        what: `sign_off`, `endorse`, `triage`, …
        step: which gate, if it is about one.
        reference: the proposal, incident or review, if it is about one.
        due: by when it matters.
    """

    release: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    name: str
    version: str
    what: str
    message: str
    step: Optional[str]
    reference: Optional[str]
    since: datetime
    due: datetime


class PendingPage(Model):
    """What waits for somebody, soonest first."""

    server_time: datetime
    items: list[Pending]
    next_cursor: Optional[str]


class Person(Model):
    """Somebody who may decide: in which roles, with which keys, from inside or outside the organisation."""

    name: str
    roles: list[str]
    external: Optional[bool] = None
    organisation: Optional[str] = None
    keys: Optional[list[str]] = None
    """when given, only decisions signed with one of them count"""


class PlanInput(Model):
    """The whole policy. `digest` names it; two plans with one digest are one plan."""

    constants: ClassVar[frozenset[str]] = frozenset(['format'])

    format: Literal['sluice.plan/v1'] = 'sluice.plan/v1'
    title: str
    organisation: str
    components: dict[str, Component]
    people: dict[str, Person]
    steps: list[StepInput]
    description: Optional[str] = None
    announced: Optional[bool] = None
    """whether the system's existence may be told while it is closed (§5.1)"""
    partners: Optional[dict[str, Partner]] = None
    partner_groups: Optional[dict[str, PartnerGroup]] = None
    deployments: Optional[dict[str, Deployment]] = None
    quorums: Optional[Quorums] = None
    responses: Optional[dict[str, list[ResponseAction]]] = None
    partner_keys: Optional[Literal['pinned', 'registered']] = None
    """`pinned`: only recipients that this plan pins get envelopes; `registered`: also those that partners registered, which trusts the service's records"""
    hub_drift: Optional[Literal['repair', 'raise']] = None
    reminders: Optional[RemindersInput] = None
    """when people are reminded; null: never"""


class PlanOutput(Model):
    """The whole policy. `digest` names it; two plans with one digest are one plan."""

    constants: ClassVar[frozenset[str]] = frozenset(['format'])

    format: Literal['sluice.plan/v1'] = 'sluice.plan/v1'
    title: str
    organisation: str
    components: dict[str, Component]
    people: dict[str, Person]
    steps: list[StepOutput]
    description: Optional[str] = None
    announced: Optional[bool] = None
    """whether the system's existence may be told while it is closed (§5.1)"""
    partners: Optional[dict[str, Partner]] = None
    partner_groups: Optional[dict[str, PartnerGroup]] = None
    deployments: Optional[dict[str, Deployment]] = None
    quorums: Optional[Quorums] = None
    responses: Optional[dict[str, list[ResponseAction]]] = None
    partner_keys: Optional[Literal['pinned', 'registered']] = None
    """`pinned`: only recipients that this plan pins get envelopes; `registered`: also those that partners registered, which trusts the service's records"""
    hub_drift: Optional[Literal['repair', 'raise']] = None
    reminders: Optional[RemindersOutput] = None
    """when people are reminded; null: never"""


class PlanView(Model):
    """The plan that holds."""

    server_time: datetime
    release: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    digest: str
    """`sha256:` and 64 hex digits"""
    plan: PlanOutput


class PlannedControl(Model):
    """A control as a step declares it, or waives it with a written reason.

    Attributes:
        parameters: what the kind needs, such as `capacity` (requests) and `refill_per_second` of a rate limit.
        check: `attested` by a named person with evidence, or `probed` by the service against the live endpoint.
        max_age: how old the last attestation or probe may be.
        waived: why this control is not in force at this step; then nothing else is asked of it.
    """

    kind: ControlKind
    parameters: Optional[dict[str, Union[str, int, bool, list[str]]]] = None
    check: Optional[Literal['attested', 'probed']] = None
    max_age: Optional[str] = None
    waived: Optional[str] = None


class Preview(Model):
    """What would happen.

    Attributes:
        accepted: the command would be taken; otherwise `refused_as` and `reasons` say why not.
        consequences: what would be true after it, in order.
        irreversible: something of it cannot be taken back.
        verdict: the next gate after the command; None when there is none.
    """

    accepted: bool
    refused_as: Optional[str] = None
    reasons: Optional[list[PreviewReason]] = None
    consequences: Optional[list[str]] = None
    irreversible: Optional[bool] = None
    events: Optional[list[str]] = None
    verdict: Optional[Verdict] = None
    to_sign: Optional[ToSign] = None


class PreviewBody(Model):
    """A command that somebody thinks about."""

    command: Annotated[Union[RegisterArtifactAsked, SubmitEvidenceAsked, ReportControlAsked, SignOffAsked, WithdrawSignOffAsked, DelegateAsked, HoldAsked, ResumeAsked, ExtendWindowAsked, ShortenWindowAsked, ReportIncidentAsked, TriageIncidentAsked, CloseIncidentAsked, EndorseAsked, AmendPlanAsked, BreakGlassAsked, CloseReviewAsked, RevokeAsked, MakeGrantAsked, RotateKeysAsked, RollBackAsked, AbortAsked, ReportAccessAsked, RetryEntryAsked], Field(discriminator='type')]


class PreviewReason(Model):
    """One reason why the command would be refused."""

    code: str
    message: str
    path: Optional[str] = None


class Principal(Model):
    """Somebody or something that may call. `partner`: whom an account of kind `partner` belongs to."""

    id: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    kind: Literal['person', 'machine', 'partner']
    name: str
    roles: list[Role]
    partner: Optional[str]
    active: bool
    created_at: datetime
    created_by: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""


class PrincipalBody(Model):
    """Somebody or something that may call."""

    id: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    name: str
    roles: list[Role]
    kind: Optional[Literal['person', 'machine', 'partner']] = None
    partner: Optional[str] = None
    """of a partner's account: the partner"""


class PrincipalChange(Model):
    """New roles, or off (its tokens stop at once) or on. Left out: as it was."""

    roles: Optional[list[Role]] = None
    active: Optional[bool] = None


class PrincipalPage(Model):
    """Principals by id."""

    server_time: datetime
    items: list[Principal]
    next_cursor: Optional[str]


class PrincipalView(Model):
    """A principal."""

    server_time: datetime
    id: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    kind: Literal['person', 'machine', 'partner']
    name: str
    roles: list[Role]
    partner: Optional[str]
    active: bool
    created_at: datetime
    created_by: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""


class Problem(Model):
    """A problem document (RFC 9457) that lists every reason."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    reasons: list[ProblemReason]
    request_id: Optional[str] = None
    """only when an unexpected error happened"""


class ProblemReason(Model):
    """One reason of a refusal."""

    code: str
    """a stable word for machines"""
    message: str
    """what is wrong and what to do"""
    path: Optional[str] = None
    """where in the input"""
    line: Optional[int] = None
    """line of the input's text, from 1"""


class ProofView(Model):
    """A Merkle proof (RFC 9162): hashes in base64, in order."""

    server_time: datetime
    first: int
    """the entry, or the smaller log"""
    size: int
    """the log that it is about"""
    path: list[str]


class ProposalView(Model):
    """A dear decision that waits for more people. Of an amendment, the plan is left out."""

    id: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    action: str
    payload: dict[str, Any]
    payload_digest: str
    """`sha256:` and 64 hex digits"""
    people: dict[str, datetime]
    needed: int
    """people whom the quorum asks for in all"""
    expires_at: datetime


class Quorum(Model):
    """How many people, and of which roles, a dear decision needs. No roles: anybody whom the plan names."""

    count: Optional[int] = None
    roles: Optional[list[str]] = None


class Quorums(Model):
    """Quorums of the decisions that undo caution."""

    resume: Optional[Quorum] = None
    shorten_window: Optional[Quorum] = None
    close_incident: Optional[Quorum] = None
    amend: Optional[Quorum] = None
    break_glass: Optional[Quorum] = None


class Readiness(Model):
    """Whether each part that is needed answers."""

    ready: bool
    records: bool
    commands: bool


class ReasonBody(Model):
    """Why."""

    reason: str


class ReceiptBody(Model):
    """A receipt that the partner's client signed (docs/predicates/receipt.md)."""

    envelope: str


class ReceiptDetail(Model):
    """A receipt."""

    server_time: datetime
    entry: int
    grant: str
    partner: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    member: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    statement: str
    """`sha256:` and 64 hex digits"""
    copy_digest: str
    """`sha256:` and 64 hex digits"""
    manifests: dict[str, str]
    envelope: str
    at: datetime


class ReceiptList(Model):
    """Receipts of a grant in the order in which they came."""

    server_time: datetime
    release: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    items: list[ReceiptView]


class ReceiptView(Model):
    """A receipt as it stands in the audit log."""

    entry: int
    grant: str
    partner: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    member: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    statement: str
    """`sha256:` and 64 hex digits"""
    copy_digest: str
    """`sha256:` and 64 hex digits"""
    manifests: dict[str, str]
    envelope: str
    at: datetime


class RedriveBody(Model):
    """Which dead delivery to try again; left out, all."""

    number: Optional[int] = None


class RedriveNotices(Model):
    """Which dead notice to try again, with those of its message; left out, all."""

    number: Optional[int] = None


class Redriven(Model):
    """The numbers that are tried again."""

    server_time: datetime
    numbers: list[int]


class RegisterArtifactAsked(Model):
    """Say which sealed artifact carries which components. The manifest digest is what sign-offs bind to."""

    constants: ClassVar[frozenset[str]] = frozenset(['type'])

    type: Literal['register_artifact'] = 'register_artifact'
    artifact: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    manifest_digest: str
    """`sha256:` and 64 hex digits"""
    components: list[str]
    location: str
    root: Optional[str] = None
    size: Optional[int] = None
    shares: Optional[KeyShares] = None


class RegisteredPartner(Model):
    """A partner with its keys and the terms that it accepted."""

    id: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    name: str
    active: bool
    terms: list[AcceptedTerms]
    keys: list[PartnerKey]
    created_at: datetime
    created_by: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""


class ReleaseDetail(Model):
    """A release as it stands."""

    server_time: datetime
    id: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    name: str
    version: str
    organisation: str
    status: Literal['active', 'entering', 'completed', 'aborted']
    stage: Stage
    current: Optional[str]
    """the step that the release is at"""
    next: Optional[str]
    """the step whose gate is next"""
    on_hold: bool
    open_incidents: int
    opens_at: Optional[datetime]
    creator: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    created_at: datetime
    updated_at: datetime
    seq: int
    """number of its last event"""
    waiting_for: list[str]
    """codes of what the next gate waits for now"""
    plan_digest: str
    """`sha256:` and 64 hex digits"""
    announced: bool
    attempt: int
    stages: dict[str, Stage]
    components: dict[str, Component]
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
    entry: Optional[Entering]
    entry_failed: Optional[str]
    access_working: bool
    window_stands_because: Optional[str]
    live_grants: int
    custody_waits: Optional[list[StandingWait]] = None
    """what custody waits for, while a step is entered or a late grant (`partner`) is made; it goes on by itself"""


class ReleasePage(Model):
    """A page of releases, newest first. `next_cursor` is null on the last page."""

    server_time: datetime
    items: list[ReleaseSummary]
    next_cursor: Optional[str]


class ReleaseSummary(Model):
    """One line of the list of releases. `opens_at`: when the next gate opens if nothing changes, as of the last event."""

    id: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    name: str
    version: str
    organisation: str
    status: Literal['active', 'entering', 'completed', 'aborted']
    stage: Stage
    current: Optional[str]
    """the step that the release is at"""
    next: Optional[str]
    """the step whose gate is next"""
    on_hold: bool
    open_incidents: int
    opens_at: Optional[datetime]
    creator: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    created_at: datetime
    updated_at: datetime
    seq: int
    """number of its last event"""


class RemindersInput(Model):
    """When people are reminded of what ends soon or waits for long."""

    before: Optional[str] = None
    """this long before a window, a sign-off or the like ends"""
    waiting: Optional[str] = None
    """when a sign-off has been waited for this long; null: never"""


class RemindersOutput(Model):
    """When people are reminded of what ends soon or waits for long."""

    before: Optional[str] = None
    """this long before a window, a sign-off or the like ends"""
    waiting: Optional[str] = None
    """when a sign-off has been waited for this long; null: never"""


class ReplayBody(Model):
    """Behind which event everything is delivered again; -1: from the beginning."""

    after: int


class ReportAccessAsked(Model):
    """Say whether people with access can really use it now; an outage stops the research window."""

    constants: ClassVar[frozenset[str]] = frozenset(['type'])

    type: Literal['report_access'] = 'report_access'
    working: bool
    reason: Optional[str] = None


class ReportControlAsked(Model):
    """Attest that a control of a step is in force, or say that it is not; a probe reports the same way."""

    constants: ClassVar[frozenset[str]] = frozenset(['type'])

    type: Literal['report_control'] = 'report_control'
    step: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    control: ControlKind
    in_force: Optional[bool] = None
    probe: Optional[bool] = None
    evidence: Optional[str] = None
    note: Optional[str] = None


class ReportEntry(Model):
    """A report, for the people of the service. What is in it is a stranger's."""

    id: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    queue: str
    what: str
    value: str
    note: str
    contact: str
    via: str
    at: datetime


class ReportIncidentAsked(Model):
    """Report a leak, misuse or harm. The plan's response table acts at once."""

    constants: ClassVar[frozenset[str]] = frozenset(['type'])

    type: Literal['report_incident'] = 'report_incident'
    incident: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    kind: IncidentKind
    severity: Severity
    summary: str
    confidence: Optional[Confidence] = None
    components: Optional[list[str]] = None
    partner: Optional[str] = None
    sighting: Optional[str] = None


class ReportPage(Model):
    """Reports, newest first."""

    server_time: datetime
    items: list[ReportEntry]
    next_cursor: Optional[str]


class ResumeAsked(Model):
    """Lift the holds that stand now. Needs a quorum; the same command from another person adds to it."""

    constants: ClassVar[frozenset[str]] = frozenset(['type'])

    type: Literal['resume'] = 'resume'
    reason: Optional[str] = None
    envelope: Optional[str] = None


class ResumeBody(Model):
    """Lift the holds that stand now."""

    reason: Optional[str] = None
    envelope: Optional[str] = None
    """the signed statement (DSSE); needed when the plan pins keys of this person"""


class RetryEntryAsked(Model):
    """Try again to enter a step whose entry was taken back."""

    constants: ClassVar[frozenset[str]] = frozenset(['type'])

    type: Literal['retry_entry'] = 'retry_entry'
    step: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""


class Review(Model):
    """What breaking the glass left behind."""

    id: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    step: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    waives: list[str]
    reason: str
    people: list[str]
    at: datetime


class ReviewBody(Model):
    """What came of the review."""

    outcome: str
    envelope: Optional[str] = None
    """the signed statement (DSSE); needed when the plan pins keys of this person"""


class RevokeAsked(Model):
    """End grants: one by id, or all of a partner."""

    constants: ClassVar[frozenset[str]] = frozenset(['type'])

    type: Literal['revoke'] = 'revoke'
    reason: str
    grant: Optional[str] = None
    partner: Optional[str] = None


class RevokeBody(Model):
    """End one grant, or all of a partner."""

    reason: str
    grant: Optional[str] = None
    partner: Optional[str] = None


class RollBackAsked(Model):
    """Go back to an earlier step: what can be taken back is, what cannot is said. One authorised person may."""

    constants: ClassVar[frozenset[str]] = frozenset(['type'])

    type: Literal['roll_back'] = 'roll_back'
    to: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    reason: str


class RollBackBody(Model):
    """Which earlier step to go back to."""

    to: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    reason: str


class RotateBody(Model):
    """For how long the old secret signs beside the new one; at most 30 days."""

    overlap: Optional[str] = None


class RotateKeysAsked(Model):
    """Seal components anew under fresh keys, because a key of theirs is or may be out. One authorised person may.

    What was disclosed stays disclosed: whoever has the old key and the old files keeps both.
    """

    constants: ClassVar[frozenset[str]] = frozenset(['type'])

    type: Literal['rotate_keys'] = 'rotate_keys'
    components: list[str]
    reason: str
    delete_old: Optional[bool] = None
    """delete the old sealed files once the new ones are complete"""


class RotateKeysBody(Model):
    """Which components get new keys, and what becomes of the old sealed files."""

    components: list[str]
    reason: str
    delete_old: Optional[bool] = None
    """delete the old sealed files once the new ones are complete"""


class RotationList(Model):
    """Rotations of a release, the latest first, and what they replaced."""

    server_time: datetime
    release: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    items: list[RotationView]
    superseded: list[SupersededView]


class RotationView(Model):
    """One rotation. `disclosed` says plainly what it cannot take back."""

    id: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    status: Literal['pending', 'done', 'failed']
    components: list[str]
    artifacts: list[str]
    """what is sealed anew: artifacts, and grants' own copies"""
    done: dict[str, str]
    """old artifact → new one"""
    reason: Optional[str]
    incident: Optional[str]
    delete_old: bool
    by: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    at: datetime
    ended_at: Optional[datetime]
    failed: Optional[str]
    disclosed: str


class ShareDealing(Model):
    """Who gets a share of the key of what is sealed, as a second lock, and how many of the shares are needed."""

    threshold: int
    holders: dict[str, str]
    """person of the plan → their public key, as `sluice partner keygen` makes it"""


class ShareView(Model):
    """The key shares of one artifact that a gate hands out: how many are needed, who holds one, whose counts."""

    artifact: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    threshold: int
    holders: list[str]
    released: list[str]


class ShortenWindowAsked(Model):
    """Ask for less research time than now. Needs a quorum."""

    constants: ClassVar[frozenset[str]] = frozenset(['type'])

    type: Literal['shorten_window'] = 'shorten_window'
    step: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    to: str
    reason: Optional[str] = None
    envelope: Optional[str] = None


class ShortenWindowBody(Model):
    """Less research time."""

    to: str
    reason: Optional[str] = None
    envelope: Optional[str] = None
    """the signed statement (DSSE); needed when the plan pins keys of this person"""


class SignInView(Model):
    """How people sign in from a command line: authorisation code with PKCE, to a port of their own machine."""

    issuer: str
    client_id: str
    scopes: list[str]
    authorization_endpoint: str
    token_endpoint: str


class SignOffAsked(Model):
    """Approve or reject one gate in one role.

    `subject` is the digest of the gate's subject as the person saw it: when the gate shows another one by then, the
    command is refused (`gate-changed`) and never counts for something unseen. `envelope` is the signed statement
    (DSSE), needed when the plan pins keys of this person. `shares`: artifact → the person's key share, released to custody
    with exactly this statement.
    """

    constants: ClassVar[frozenset[str]] = frozenset(['type'])

    type: Literal['sign_off'] = 'sign_off'
    step: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    role: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    decision: Literal['approve', 'reject']
    subject: str
    """`sha256:` and 64 hex digits"""
    comment: Optional[str] = None
    expires_at: Optional[datetime] = None
    envelope: Optional[str] = None
    shares: Optional[dict[str, str]] = None


class SignOffBody(Model):
    """One person's decision on the gate as they saw it."""

    role: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    decision: Literal['approve', 'reject']
    subject: str
    """`subject_digest` of the gate that was read"""
    comment: Optional[str] = None
    expires_at: Optional[datetime] = None
    envelope: Optional[str] = None
    """the signed statement (DSSE); needed when the plan pins keys of this person"""
    shares: Optional[dict[str, str]] = None
    """artifact → this person's key share, sealed to custody and bound to the signed statement (`sluice sign --share-key`); where the gate asks for shares"""


class SignOffRequirement(Model):
    """How many people have to approve in one role."""

    role: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    count: Optional[int] = None
    external: Optional[bool] = None
    """only people from outside the organisation count (§8.5)"""
    invited_by: Optional[str] = None
    """a role: each of its people may invite one outside reviewer without an account, and then counts through that reviewer alone"""


class SignOffView(Model):
    """A standing decision and whether it counts: `counts`, or why not.

    Attributes:
        standing: `revoked`: the invitation was taken back; `counted_already`: one of the people who stand behind it (the
            person, whoever delegated to them, or whoever invited them) counts at this gate already.
        invited_by: of an invited reviewer, who invited them; `organisation`: where the invitation says that they stand.
    """

    person: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    role: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    decision: Literal['approve', 'reject']
    standing: Literal['counts', 'stale', 'expired', 'not_in_plan', 'barred', 'revoked', 'counted_already']
    at: datetime
    expires_at: datetime
    on_behalf_of: Optional[str] = None
    comment: Optional[str] = None
    statement: Optional[str] = None
    invited_by: Optional[str] = None
    organisation: Optional[str] = None
    shares: Optional[list[str]] = None


class Signature(Model):
    """Who signed in which role, as the history of a step keeps it; of an invited reviewer, who invited them."""

    person: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    role: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    at: datetime
    invited_by: Optional[str] = None


class SourceView(Model):
    """A leak source as it stands.

    A source that could not look is blind since `last_success`: `error` says why, `retry_at` when it is asked again.
    """

    name: str
    kind: str
    configured: bool
    """whether the leak worker has a setting for it; a plan may name one that it has not"""
    sees: bool
    """it looked when it last tried"""
    last_success: Optional[datetime]
    last_attempt: Optional[datetime]
    blind_seconds: Optional[float]
    """since it last saw; null: it never did"""
    behind_seconds: float
    """how far what it has looked at is behind the newest entry"""
    failing_since: Optional[datetime]
    trouble: Optional[str]
    error: Optional[str]
    retry_at: Optional[datetime]
    polls: int
    candidates: int
    limits: dict[str, Any]
    """what the other side says about rates"""
    notes: list[str]


class StandingHold(Model):
    """A hold that nobody has lifted."""

    id: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    reason: str
    by: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    at: datetime
    incident: Optional[str] = None


class StandingWait(Model):
    """A wait that stands: since when, at which approach to which step, and for which partner's late grant if for one."""

    what: Literal['second_lock', 'clock']
    message: str
    step: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    attempt: int
    since: datetime
    approvers: Optional[str] = None
    requests: Optional[list[LockRequest]] = None
    partner: Optional[str] = None


class StepInput(Model):
    """One entry of the plan: which stage, which components, for which audience, behind which gate."""

    name: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    stage: Stage
    components: list[Union[StepComponent, str]]
    audience: Union[Literal['internal', 'public'], PartnerAudience]
    deployments: Optional[list[str]] = None
    gate: Optional[GateInput] = None
    controls: Optional[list[PlannedControl]] = None
    grant_validity: Optional[str] = None
    """how long a grant lasts before it must be made anew"""
    publish_plaintext: Optional[bool] = None
    """at `open`: publish the plaintext itself, not only the keys"""


class StepOutput(Model):
    """One entry of the plan: which stage, which components, for which audience, behind which gate."""

    name: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    stage: Stage
    components: list[StepComponent]
    audience: Union[Literal['internal', 'public'], PartnerAudience]
    deployments: Optional[list[str]] = None
    gate: Optional[GateOutput] = None
    controls: Optional[list[PlannedControl]] = None
    grant_validity: Optional[str] = None
    """how long a grant lasts before it must be made anew"""
    publish_plaintext: Optional[bool] = None
    """at `open`: publish the plaintext itself, not only the keys"""


class StepComponent(Model):
    """A component as a step releases it. Left out, `hand_out` and `to` follow from the step's stage."""

    name: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    hand_out: Optional[HandOut] = None
    to: Optional[Literal['audience', 'deployments']] = None


class StepDetail(Model):
    """One step with its definition from the plan."""

    server_time: datetime
    name: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    stage: Stage
    components: list[str]
    audience: str
    deployments: list[str]
    position: int
    """from 0"""
    standing: Literal['entered', 'current', 'entering', 'next', 'ahead']
    irreversible: bool
    entered_at: Optional[datetime]
    gate_open: Optional[bool]
    """of the next step: whether its gate holds now"""
    unmet: Optional[int]
    """of the next step: how many conditions are unmet"""
    opens_at: Optional[datetime]
    release: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    definition: StepOutput
    waits: Optional[StandingWait] = None
    """while the step is entered: what custody waits for, since when"""


class StepList(Model):
    """The steps of a release in the order of its plan."""

    server_time: datetime
    release: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    items: list[StepView]


class StepView(Model):
    """One step of the plan, and where it stands."""

    name: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    stage: Stage
    components: list[str]
    audience: str
    deployments: list[str]
    position: int
    """from 0"""
    standing: Literal['entered', 'current', 'entering', 'next', 'ahead']
    irreversible: bool
    entered_at: Optional[datetime]
    gate_open: Optional[bool]
    """of the next step: whether its gate holds now"""
    unmet: Optional[int]
    """of the next step: how many conditions are unmet"""
    opens_at: Optional[datetime]
    waits: Optional[StandingWait] = None
    """while the step is entered: what custody waits for, since when"""


class SubmitEvidenceAsked(Model):
    """Bind a document by its digest; of a risk assessment, with its six ratings."""

    constants: ClassVar[frozenset[str]] = frozenset(['type'])

    type: Literal['submit_evidence'] = 'submit_evidence'
    kind: EvidenceKind
    digest: str
    """`sha256:` and 64 hex digits"""
    title: str
    step: Optional[str] = None
    location: Optional[str] = None
    ratings: Optional[dict[str, Rating]] = None


class SupersededView(Model):
    """An artifact in whose place another stands, and what became of its sealed files."""

    artifact: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    by: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    manifest_digest: str
    """`sha256:` and 64 hex digits"""
    location: str
    at: datetime
    rotation: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    fate: Literal['kept', 'to_be_deleted', 'deleted']


class SwitchBody(Model):
    """Switch an endpoint off or on."""

    active: bool
    reason: Optional[str] = None


class TermsBody(Model):
    """Terms that the partner accepts, by name or digest, as its partner group in the plan names them."""

    terms: str


class ToSign(Model):
    """What a person signs who stands behind a dear command: the proposal's action and the digest of its payload."""

    action: str
    payload_digest: str
    """`sha256:` and 64 hex digits"""


class Token(Model):
    """A token as lists show it: never its text. `id` names it."""

    id: str
    principal: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    label: str
    created_at: datetime
    expires_at: Optional[datetime]
    revoked_at: Optional[datetime]
    last_used_at: Optional[datetime]


class TokenBody(Model):
    """A token to issue."""

    label: str
    expires_at: Optional[datetime] = None


class TokenList(Model):
    """A principal's tokens, newest first."""

    server_time: datetime
    items: list[Token]


class TokenView(Model):
    """A token; never its text."""

    server_time: datetime
    id: str
    principal: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    label: str
    created_at: datetime
    expires_at: Optional[datetime]
    revoked_at: Optional[datetime]
    last_used_at: Optional[datetime]


class Told(Model):
    """One notice of a channel, and what became of it. `message`: the number of the first notice in its message."""

    number: int
    topic: Topic
    type: str
    release: Optional[str]
    event: Optional[int]
    message: Optional[int]
    urgent: bool
    status: Literal['pending', 'delivered', 'dead', 'superseded']
    attempts: int
    error: Optional[str]
    planned_at: datetime
    due_at: datetime
    done_at: Optional[datetime]


class Trace(Model):
    """Whose copy a suspect is, as custody found; or why nobody could be looked for.

    Attributes:
        component: whose marks were looked for.
        report: digest of the report that custody signed; None where there is none.
        partners: every partner with its z, largest first, at most 200; the report names all.
        not_traced: why nothing could be compared, which acquits nobody.
    """

    component: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    at: datetime
    report: Optional[str] = None
    partners: Optional[list[TracedPartner]] = None
    not_traced: Optional[str] = None


class TracedPartner(Model):
    """What a trace says of one partner.

    Attributes:
        partner: whose mark it is; `*` and a name: a copy that everybody may have.
        z: standard normal for an innocent one; None where nothing could be compared.
        suspicion: `accused` at z ≥ 8 or by a file of exactly its copy, `investigate` from 6, else `clear`.
    """

    partner: str
    suspicion: Literal['accused', 'investigate', 'clear', 'not_compared']
    z: Optional[float] = None


class TriageBody(Model):
    """How bad, how sure, whose copy."""

    severity: Severity
    confidence: Confidence
    partner: Optional[str] = None
    note: Optional[str] = None


class TriageIncidentAsked(Model):
    """Judge an incident: how bad, how sure, whose copy. The response table acts on what is new."""

    constants: ClassVar[frozenset[str]] = frozenset(['type'])

    type: Literal['triage_incident'] = 'triage_incident'
    incident: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    severity: Severity
    confidence: Confidence
    partner: Optional[str] = None
    note: Optional[str] = None


class Verdict(Model):
    """What stands at a gate now.

    Attributes:
        open: every condition holds.
        unmet: every condition that does not, waived ones left out.
        waived: codes that break-glass lifted, of those that would be unmet.
        delegations: who may sign this gate in somebody else's role, for whom, and until when.
        opens_at: when the gate will open if nothing changes; None when somebody has to do something first.
        changes_at: the next instant at which time alone changes this verdict (a clock is met, a sign-off expires).
        waits: what custody waits for while the step is being entered; also among the unmet conditions.
        etag: changes exactly when what people decide on changes; clocks do not change it.
    """

    step: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    open: bool
    unmet: list[Condition]
    waived: list[str]
    sign_offs: list[SignOffView]
    window: WindowView
    subject: GateSubject
    subject_digest: str
    """`sha256:` and 64 hex digits"""
    irreversible: bool
    opens_at: Optional[datetime]
    changes_at: Optional[datetime]
    etag: str
    delegations: Optional[list[DelegationView]] = None
    shares: Optional[list[ShareView]] = None
    waits: Optional[StandingWait] = None


class VerdictView(Model):
    """A signed verdict: `envelope` is the DSSE envelope around an in-toto statement. `log_index`: its entry in the audit log."""

    server_time: datetime
    digest: str
    """`sha256:` and 64 hex digits"""
    suspect: str
    artifact: str
    outcome: str
    tier: int
    log_index: int
    at: datetime
    verdict_key: Optional[str]
    """the monitor's key, as it stands now; pin it yourself"""
    envelope: dict[str, Any]


class Webhook(Model):
    """An endpoint, without its secret.

    Attributes:
        types: event types that are delivered; empty: all.
        release: only events of this release; None: of all that the owner may see.
        off_reason: why it was switched off; None while it is active.
        position: the event up to which deliveries are planned.
        next_number: the number of the next delivery; numbers count from 1 without a gap.
        overlap_until: until when the secret before the last rotation signs too.
    """

    id: str
    owner: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    url: str
    types: list[str]
    release: Optional[str]
    active: bool
    off_reason: Optional[str]
    position: int
    next_number: int
    overlap_until: Optional[datetime]
    last_success_at: Optional[datetime]
    created_at: datetime
    created_by: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""


class WebhookBody(Model):
    """A new endpoint of the caller. `types`: none means all; `after`: begin behind this event instead of with the next."""

    url: str
    types: Optional[list[str]] = None
    release: Optional[str] = None
    after: Optional[int] = None


class WebhookPage(Model):
    """Endpoints by id."""

    server_time: datetime
    items: list[Webhook]
    next_cursor: Optional[str]


class WebhookView(Model):
    """An endpoint; never its secret."""

    id: str
    owner: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    url: str
    types: list[str]
    release: Optional[str]
    active: bool
    off_reason: Optional[str]
    position: int
    next_number: int
    overlap_until: Optional[datetime]
    last_success_at: Optional[datetime]
    created_at: datetime
    created_by: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    server_time: datetime


class WholeCheckBody(Model):
    """Compare the whole of a suspect with the whole of an artifact (tier 3), where the leak worker may read both."""

    suspect: str
    artifact: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""


class WholeCheckView(Model):
    """A whole-file check that was asked for; its verdict comes with the suspect's judgement."""

    server_time: datetime
    id: str


class WindowView(Model):
    """The research window: seconds asked and counted, and whether the clock runs."""

    asked: float
    counted: float
    running: bool
    stands_because: Optional[str] = None
    met_at: Optional[datetime] = None


class WithdrawBody(Model):
    """Take one's own sign-off back."""

    comment: Optional[str] = None
    envelope: Optional[str] = None
    """the signed statement (DSSE); needed when the plan pins keys of this person"""


class WithdrawSignOffAsked(Model):
    """Take one's own sign-off (either decision) back, until the step is entered."""

    constants: ClassVar[frozenset[str]] = frozenset(['type'])

    type: Literal['withdraw_sign_off'] = 'withdraw_sign_off'
    step: str
    """lower-case letters, digits, dot, dash and underscore; at most 63"""
    comment: Optional[str] = None
    envelope: Optional[str] = None


class Withheld(Model):
    """A component that is not released, and why. It keeps the release below `open`."""

    reason: WithholdingReason
    note: Optional[str] = None

AbortAsked.model_rebuild()
AcceptanceBody.model_rebuild()
AcceptedTerms.model_rebuild()
AccessBody.model_rebuild()
AmendBody.model_rebuild()
AmendPlanAsked.model_rebuild()
ArtifactBody.model_rebuild()
ArtifactDetail.model_rebuild()
ArtifactOfRelease.model_rebuild()
ArtifactPage.model_rebuild()
ArtifactView.model_rebuild()
AssessmentBody.model_rebuild()
AuditEntry.model_rebuild()
AuditPage.model_rebuild()
BindArtifactBody.model_rebuild()
BodyBackChannelLogout.model_rebuild()
BodyUploadEvidence.model_rebuild()
BreakGlassAsked.model_rebuild()
BreakGlassBody.model_rebuild()
Channel.model_rebuild()
ChannelBody.model_rebuild()
ChannelChange.model_rebuild()
ChannelPage.model_rebuild()
ChannelView.model_rebuild()
CheckpointView.model_rebuild()
CloseIncidentAsked.model_rebuild()
CloseIncidentBody.model_rebuild()
CloseReviewAsked.model_rebuild()
CommandResult.model_rebuild()
Component.model_rebuild()
Condition.model_rebuild()
ControlBody.model_rebuild()
ControlView.model_rebuild()
CreateReleaseBody.model_rebuild()
DelegateAsked.model_rebuild()
DelegateBody.model_rebuild()
Delegation.model_rebuild()
DelegationView.model_rebuild()
Delivery.model_rebuild()
DeliveryPage.model_rebuild()
Deployment.model_rebuild()
Document.model_rebuild()
DocumentResult.model_rebuild()
EndorseAsked.model_rebuild()
EndorseBody.model_rebuild()
EnteredStep.model_rebuild()
Entering.model_rebuild()
EventPage.model_rebuild()
EventView.model_rebuild()
Evidence.model_rebuild()
EvidenceBody.model_rebuild()
EvidenceList.model_rebuild()
EvidenceRequirement.model_rebuild()
ExtendWindowAsked.model_rebuild()
ExtendWindowBody.model_rebuild()
FileLink.model_rebuild()
Finding.model_rebuild()
FindingsView.model_rebuild()
GateInput.model_rebuild()
GateOutput.model_rebuild()
GateDocument.model_rebuild()
GateSubject.model_rebuild()
GateView.model_rebuild()
GrantDetail.model_rebuild()
GrantLinks.model_rebuild()
GrantPage.model_rebuild()
GrantView.model_rebuild()
Health.model_rebuild()
HoldAsked.model_rebuild()
HubDifferenceView.model_rebuild()
HubFindingView.model_rebuild()
HubView.model_rebuild()
Incident.model_rebuild()
IncidentBody.model_rebuild()
IncidentEntry.model_rebuild()
IncidentList.model_rebuild()
IncidentPage.model_rebuild()
IngestBody.model_rebuild()
IngestView.model_rebuild()
InvitationList.model_rebuild()
InvitationView.model_rebuild()
InviteBody.model_rebuild()
InvitedSignOffBody.model_rebuild()
InvitedView.model_rebuild()
InvitedWithdrawBody.model_rebuild()
IssuedCopyList.model_rebuild()
IssuedCopyView.model_rebuild()
IssuedFile.model_rebuild()
IssuedTokenView.model_rebuild()
JudgementPage.model_rebuild()
JudgementView.model_rebuild()
KeyShares.model_rebuild()
LeakReportBody.model_rebuild()
LeakReportView.model_rebuild()
LinksBody.model_rebuild()
LockRequest.model_rebuild()
MakeGrantAsked.model_rebuild()
MakeGrantBody.model_rebuild()
Mark.model_rebuild()
Me.model_rebuild()
MonitorKeyView.model_rebuild()
MonitorList.model_rebuild()
MonitorRequirement.model_rebuild()
NewSecretView.model_rebuild()
NoticeNumbers.model_rebuild()
NoticePage.model_rebuild()
OpeningHours.model_rebuild()
ParentBody.model_rebuild()
ParentDetail.model_rebuild()
ParentList.model_rebuild()
ParentView.model_rebuild()
Partner.model_rebuild()
PartnerAudience.model_rebuild()
PartnerBody.model_rebuild()
PartnerChange.model_rebuild()
PartnerGroup.model_rebuild()
PartnerKey.model_rebuild()
PartnerKeyBody.model_rebuild()
PartnerKeyView.model_rebuild()
PartnerPage.model_rebuild()
PartnerView.model_rebuild()
Pending.model_rebuild()
PendingPage.model_rebuild()
Person.model_rebuild()
PlanInput.model_rebuild()
PlanOutput.model_rebuild()
PlanView.model_rebuild()
PlannedControl.model_rebuild()
Preview.model_rebuild()
PreviewBody.model_rebuild()
PreviewReason.model_rebuild()
Principal.model_rebuild()
PrincipalBody.model_rebuild()
PrincipalChange.model_rebuild()
PrincipalPage.model_rebuild()
PrincipalView.model_rebuild()
Problem.model_rebuild()
ProblemReason.model_rebuild()
ProofView.model_rebuild()
ProposalView.model_rebuild()
Quorum.model_rebuild()
Quorums.model_rebuild()
Readiness.model_rebuild()
ReasonBody.model_rebuild()
ReceiptBody.model_rebuild()
ReceiptDetail.model_rebuild()
ReceiptList.model_rebuild()
ReceiptView.model_rebuild()
RedriveBody.model_rebuild()
RedriveNotices.model_rebuild()
Redriven.model_rebuild()
RegisterArtifactAsked.model_rebuild()
RegisteredPartner.model_rebuild()
ReleaseDetail.model_rebuild()
ReleasePage.model_rebuild()
ReleaseSummary.model_rebuild()
RemindersInput.model_rebuild()
RemindersOutput.model_rebuild()
ReplayBody.model_rebuild()
ReportAccessAsked.model_rebuild()
ReportControlAsked.model_rebuild()
ReportEntry.model_rebuild()
ReportIncidentAsked.model_rebuild()
ReportPage.model_rebuild()
ResumeAsked.model_rebuild()
ResumeBody.model_rebuild()
RetryEntryAsked.model_rebuild()
Review.model_rebuild()
ReviewBody.model_rebuild()
RevokeAsked.model_rebuild()
RevokeBody.model_rebuild()
RollBackAsked.model_rebuild()
RollBackBody.model_rebuild()
RotateBody.model_rebuild()
RotateKeysAsked.model_rebuild()
RotateKeysBody.model_rebuild()
RotationList.model_rebuild()
RotationView.model_rebuild()
ShareDealing.model_rebuild()
ShareView.model_rebuild()
ShortenWindowAsked.model_rebuild()
ShortenWindowBody.model_rebuild()
SignInView.model_rebuild()
SignOffAsked.model_rebuild()
SignOffBody.model_rebuild()
SignOffRequirement.model_rebuild()
SignOffView.model_rebuild()
Signature.model_rebuild()
SourceView.model_rebuild()
StandingHold.model_rebuild()
StandingWait.model_rebuild()
StepInput.model_rebuild()
StepOutput.model_rebuild()
StepComponent.model_rebuild()
StepDetail.model_rebuild()
StepList.model_rebuild()
StepView.model_rebuild()
SubmitEvidenceAsked.model_rebuild()
SupersededView.model_rebuild()
SwitchBody.model_rebuild()
TermsBody.model_rebuild()
ToSign.model_rebuild()
Token.model_rebuild()
TokenBody.model_rebuild()
TokenList.model_rebuild()
TokenView.model_rebuild()
Told.model_rebuild()
Trace.model_rebuild()
TracedPartner.model_rebuild()
TriageBody.model_rebuild()
TriageIncidentAsked.model_rebuild()
Verdict.model_rebuild()
VerdictView.model_rebuild()
Webhook.model_rebuild()
WebhookBody.model_rebuild()
WebhookPage.model_rebuild()
WebhookView.model_rebuild()
WholeCheckBody.model_rebuild()
WholeCheckView.model_rebuild()
WindowView.model_rebuild()
WithdrawBody.model_rebuild()
WithdrawSignOffAsked.model_rebuild()
Withheld.model_rebuild()
