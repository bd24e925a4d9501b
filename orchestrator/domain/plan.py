"""The plan: the policy that a release follows. Versioned, immutable, known by its digest.

Shape alone is checked here (`Plan.model_validate`); whether it keeps the rules of the gradient is checked by
`plan_rules.broken_rules`, which lists every broken one. The digest is over the canonical JSON of the parsed plan, so
comments, key order and different spellings of one duration do not change it, while every default is part of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, field_validator

from orchestrator.domain.component import Component, Kind, Mark
from orchestrator.domain.control import PlannedControl
from orchestrator.domain.evidence import EvidenceKind
from orchestrator.domain.incident import ResponseAction, Severity
from orchestrator.domain.memo import Memo
from orchestrator.domain.opening import OpeningHours
from orchestrator.domain.stage import Audience, PartnerAudience, Stage
from orchestrator.domain.values import (
    Digest,
    Duration,
    Frozen,
    Instant,
    Line,
    Name,
    Text,
    digest,
    digest_bytes,
)

FORMAT = "sluice.plan/v1"

PublicKey = Annotated[
    str,
    StringConstraints(
        pattern=r"^(ssh-ed25519|sk-ssh-ed25519@openssh\.com|sk-ecdsa-sha2-nistp256@openssh\.com) [A-Za-z0-9+/]{60,400}={0,2}( .{0,100})?$"
    ),
    Field(description="an `ssh-ed25519 …` line, or the `sk-…` line of a passkey registered in the console"),
]
Recipient = Annotated[
    str,
    StringConstraints(pattern=r"^(age1pq1[02-9ac-hj-np-z]{50,2500}|sha256:[0-9a-f]{64})$"),
    Field(
        description="an age recipient with the hybrid post-quantum KEM, as `sluice partner keygen` or `age-keygen -pq` make it"
    ),
]


class Person(Frozen):
    """Somebody who may decide: in which roles, with which keys, from inside or outside the organisation."""

    name: Line
    roles: Annotated[list[Name], Field(min_length=1)]
    external: bool = False
    organisation: Line | None = None
    keys: list[PublicKey] = Field(
        default_factory=list, description="when given, only decisions signed with one of them count"
    )

    @property
    def key_files(self) -> list[str]:
        """Keys that lie in a file, which the command line signs with; a passkey (`sk-…`) signs in a browser alone."""
        return [key for key in self.keys if not key.startswith("sk-")]


class Partner(Frozen):
    """An outside organisation that a grant may name."""

    name: Line
    recipient: Recipient | None = Field(
        default=None, description="the key that its envelopes are made for; pinned when given"
    )
    hub_account: Line | None = Field(
        default=None,
        description="its account on the Hugging Face Hub, let into a gated repository while it has a grant",
    )
    receipt_keys: list[PublicKey] = Field(
        default_factory=list,
        exclude_if=lambda value: not value,
        description="keys that its client signs receipts of delivery with, as `sluice partner receipt-key` shows",
    )


class PartnerGroup(Frozen):
    """Partners that get access together, under the same terms (§5.3)."""

    partners: Annotated[list[Name], Field(min_length=1)]
    terms: Line | None = Field(
        default=None, description="what a partner accepts before a grant, by name or digest"
    )


class Deployment(Frozen):
    """A serving platform of our own: at `hosted` and `api` it is who gets the weights' key."""

    recipient: Recipient
    endpoint: Line | None = None


class HandOut(StrEnum):
    """What of a component leaves custody at a step."""

    NOTHING = "nothing"
    KEY = "key"
    PLAINTEXT = "plaintext"


class StepComponent(Frozen):
    """A component as a step releases it. Left out, `hand_out` and `to` follow from the step's stage."""

    name: Name
    hand_out: HandOut | None = None
    to: Literal["audience", "deployments"] | None = None


class SignOffRequirement(Frozen):
    """How many people have to approve in one role."""

    role: Name
    count: Annotated[int, Field(ge=1, le=50)] = 1
    external: bool = Field(
        default=False, description="only people from outside the organisation count (§8.5)"
    )
    invited_by: Name | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="a role: each of its people may invite one outside reviewer without an account, and then counts through that reviewer alone",
    )


class EvidenceRequirement(Frozen):
    """A document that a gate asks for, and how old it may be."""

    kind: EvidenceKind
    max_age: Duration | None = None


class MonitorRequirement(Frozen):
    """A leak source that has to see: the gate stays closed when it has been blind for longer."""

    source: Name
    max_blind: Duration


class Gate(Frozen):
    """All that must hold before the step is entered."""

    sign_offs: list[SignOffRequirement] = Field(default_factory=list)
    sign_off_validity: Duration = timedelta(days=90)
    research_window: Duration | None = Field(
        default=None, description="real access at the step before, added up"
    )
    cooling_off: Duration | None = Field(default=None, description="between the last sign-off and the entry")
    evidence: list[EvidenceRequirement] = Field(default_factory=list)
    monitors: list[MonitorRequirement] = Field(default_factory=list)
    not_before: Instant | None = None
    opening_hours: OpeningHours | None = None
    shares: int | None = Field(
        default=None, ge=2, le=50, description="so many approvers' key shares are needed as a second lock"
    )
    waive_external_sign_off: Text | None = Field(
        default=None, description="why nobody from outside signs (rule 8)"
    )


class Step(Frozen):
    """One entry of the plan: which stage, which components, for which audience, behind which gate."""

    name: Name
    stage: Stage
    components: Annotated[
        list[
            Annotated[
                StepComponent,
                BeforeValidator(
                    lambda v: {"name": v} if isinstance(v, str) else v,
                    json_schema_input_type=StepComponent | Name,
                ),
            ]
        ],
        Field(min_length=1),
    ]
    audience: Audience
    deployments: list[Name] = Field(default_factory=list)
    gate: Gate = Gate()
    controls: list[PlannedControl] = Field(default_factory=list)
    grant_validity: Duration | None = Field(
        default=None, description="how long a grant lasts before it must be made anew"
    )
    publish_plaintext: bool = Field(
        default=False, description="at `open`: publish the plaintext itself, not only the keys"
    )

    @property
    def component_names(self) -> list[str]:
        """Names of its components in the order of the plan."""
        return [component.name for component in self.components]

    @property
    def partner_groups(self) -> list[str]:
        """Names of the partner groups of its audience; none unless it is gated."""
        return list(self.audience.partners) if isinstance(self.audience, PartnerAudience) else []


class Quorum(Frozen):
    """How many people, and of which roles, a dear decision needs. No roles: anybody whom the plan names."""

    count: Annotated[int, Field(ge=2, le=50)] = 2
    roles: list[Name] = Field(default_factory=list)


class Quorums(Frozen):
    """Quorums of the decisions that undo caution."""

    resume: Quorum = Quorum()
    shorten_window: Quorum = Quorum()
    close_incident: Quorum = Quorum()
    amend: Quorum = Quorum()
    break_glass: Quorum = Quorum()

    def of(self, action: str) -> Quorum:
        """The quorum of an action by its name, such as `resume`."""
        found = getattr(self, action)
        if not isinstance(found, Quorum):
            raise TypeError(f"{action} is not decided by a quorum")
        return found


class Reminders(Frozen):
    """When people are reminded of what ends soon or waits for long."""

    before: Duration = Field(
        default=timedelta(days=3), description="this long before a window, a sign-off or the like ends"
    )
    waiting: Duration | None = Field(
        default=timedelta(days=7), description="when a sign-off has been waited for this long; null: never"
    )


_RESPONSES: dict[Severity, list[ResponseAction]] = {
    Severity.LOW: [ResponseAction.NOTIFY],
    Severity.MODERATE: [ResponseAction.NOTIFY, ResponseAction.HOLD],
    Severity.SEVERE: [
        ResponseAction.NOTIFY,
        ResponseAction.HOLD,
        ResponseAction.REVOKE_GRANTS,
        ResponseAction.ROLL_BACK,
    ],
}


class Plan(Frozen):
    """The whole policy. `digest` names it; two plans with one digest are one plan."""

    format: Literal["sluice.plan/v1"]
    title: Line
    description: Text | None = None
    organisation: Line
    announced: bool = Field(
        default=False, description="whether the system's existence may be told while it is closed (§5.1)"
    )
    components: Annotated[dict[Name, Component], Field(min_length=1, max_length=500)]
    people: Annotated[dict[Name, Person], Field(min_length=1, max_length=500)]
    partners: dict[Name, Partner] = Field(default_factory=dict, max_length=2_000)
    partner_groups: dict[Name, PartnerGroup] = Field(default_factory=dict, max_length=200)
    deployments: dict[Name, Deployment] = Field(default_factory=dict, max_length=200)
    quorums: Quorums = Quorums()
    responses: dict[Severity, list[ResponseAction]] = Field(default_factory=lambda: dict(_RESPONSES))
    partner_keys: Literal["pinned", "registered"] = Field(
        default="pinned",
        description="`pinned`: only recipients that this plan pins get envelopes; `registered`: also those that partners registered, which trusts the service's records",
    )
    hub_drift: Literal["repair", "raise"] = "raise"
    reminders: Reminders | None = Field(
        default=Reminders(),
        exclude_if=lambda value: value == Reminders(),
        description="when people are reminded; null: never",
    )
    steps: Annotated[list[Step], Field(min_length=1, max_length=100)]

    @field_validator("responses", mode="after")
    @classmethod
    def _every_severity(
        cls, value: dict[Severity, list[ResponseAction]]
    ) -> dict[Severity, list[ResponseAction]]:
        return {severity: value.get(severity, _RESPONSES[severity]) for severity in Severity}

    @cached_property
    def digest(self) -> str:
        """`sha256:…` over the canonical JSON form."""
        return digest(self.model_dump(mode="json"))

    def step(self, name: str) -> Step | None:
        """The step of that name."""
        return next((step for step in self.steps if step.name == name), None)

    def index(self, name: str) -> int:
        """The place of the step of that name, from 0; -1 when there is none."""
        return next((i for i, step in enumerate(self.steps) if step.name == name), -1)

    def hand_out(
        self, step: Step, component: StepComponent
    ) -> tuple[HandOut, Literal["audience", "deployments"]]:
        """What of a component leaves custody at a step, and to whom; the defaults follow the stage (§5).

        At `hosted` and `api` the weights' key goes to deployments and the other components stay; at `downloadable`
        and `open` keys go to the audience.
        """
        known = self.components.get(component.name)
        if step.stage is Stage.CLOSED or known is None or not known.has_files:
            usual: tuple[HandOut, Literal["audience", "deployments"]] = (HandOut.NOTHING, "audience")
        elif step.stage.serves:
            served = known.kind in {Kind.WEIGHTS, Kind.TOKENIZER, Kind.MODEL_CONFIG, Kind.INFERENCE_CODE}
            usual = (HandOut.KEY if served else HandOut.NOTHING, "deployments")
        else:
            usual = (HandOut.PLAINTEXT if step.publish_plaintext else HandOut.KEY, "audience")
        return component.hand_out or usual[0], component.to or usual[1]

    def keyed_components(self, step: Step, to: Literal["audience", "deployments"]) -> list[str]:
        """Names of the components whose keys (or plaintext) a step hands to its audience, or to its deployments."""
        return [
            component.name
            for component in step.components
            if self.hand_out(step, component)[0] is not HandOut.NOTHING
            and self.hand_out(step, component)[1] == to
        ]

    def marks(self, step: Step, holder_kind: str, components: Iterable[str]) -> dict[str, Mark]:
        """The marks that a grant's copy of these components carries, by component.

        Whoever gets weights from outside gets a marked copy where the plan says so: partners, and everybody at a public
        `downloadable`. Never at `open`, and never our own deployments.
        """
        if step.stage is Stage.OPEN or holder_kind not in {"partner", "public"}:
            return {}
        marks = {name: known.mark for name in components if (known := self.components.get(name)) is not None}
        return {name: mark for name, mark in marks.items() if mark is not None}

    def audience_partners(self, step: Step) -> list[str]:
        """Names of the partners in a step's gated audience, each once, sorted."""
        groups = (self.partner_groups.get(name) for name in step.partner_groups)
        return sorted({partner for group in groups if group is not None for partner in group.partners})

    def people_in_role(self, role: str, *, external_only: bool = False) -> Iterator[str]:
        """Names of the people who hold a role, optionally only those from outside."""
        for name, person in self.people.items():
            if role in person.roles and (person.external or not external_only):
                yield name

    def inviters(self, requirement: SignOffRequirement) -> list[str]:
        """Names of the people who may invite somebody for a requirement: of its role, and with a key to sign the invitation."""
        if requirement.invited_by is None:
            return []
        return [name for name in self.people_in_role(requirement.invited_by) if self.people[name].keys]

    def withheld_below_open(self, entered: Mapping[str, Stage]) -> list[str]:
        """Components that nobody outside can download yet, given each one's stage so far."""
        return [name for name in self.components if entered.get(name, Stage.CLOSED) < Stage.DOWNLOADABLE]


#: Every verdict asks for it, and a step never changes.
_STEP_DIGESTS: Memo[Step, str] = Memo()


def recipient_digest(recipient: str) -> str:
    """What pins a recipient: `sha256:…` of its text, or the digest itself when it is one already."""
    return recipient if recipient.startswith("sha256:") else digest_bytes(recipient.encode())


def step_digest(step: Step) -> str:
    """`sha256:…` of one step's definition: a rejection stands until this changes."""
    return _STEP_DIGESTS.get(step) or _STEP_DIGESTS.keep(step, digest(step.model_dump(mode="json")))


def json_schema() -> dict[str, Any]:
    """The published JSON Schema (2020-12) of a plan."""
    schema = Plan.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": FORMAT, **schema}


PlanDigest = Digest
