"""Messages of workflows and activities: one model an argument, small (references travel, bytes do not)."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, model_validator

from orchestrator.domain.commands import (
    AnyCommand,
    Command,
    CreateRelease,
    GrantCopy,
    KeyShares,
    PartnerReady,
)
from orchestrator.domain.events import AnyEvent
from orchestrator.domain.plan import FORMAT, Plan
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import Digest, Frozen, Instant, Line, Name, digest


class CommandMessage(Frozen):
    """The argument of the update `command`. `if_match`: the gate's ETag that the caller decided on, or None."""

    command: AnyCommand
    if_match: str | None = None
    request_id: str | None = None
    address: str | None = Field(default=None, description="where it came from, for the audit log")


def update_id(command: Command) -> str:
    """The ID of the update that carries a command.

    The server answers a known update ID without looking at its argument, within one run. The digest in the ID lets a key that
    comes back with another command reach the workflow, which refuses it.
    """
    return f"{command.command_id}~{digest(command).removeprefix('sha256:')[:16]}"


class Outcome(Frozen):
    """What a command did: the events it made, by type, and the sequence number of the last event after it.

    `repeated` says that the command ID had been handled before; the outcome is that of the first time.
    """

    release: Name
    seq: int
    events: list[str]
    repeated: bool = False


class Handled(Frozen):
    """A handled command as it travels through continue-as-new: its digest and what it did."""

    command_id: str
    command_digest: str
    seq: int
    events: list[str]


class ReleaseInput(Frozen):
    """The argument of `ReleaseWorkflow`: a creation, or what a previous run carried over."""

    create: CreateRelease
    state: ReleaseState | None = None
    handled: list[Handled] = Field(default_factory=list)
    applied_seq: int = 0
    request_id: str | None = Field(default=None, description="of the creation")
    address: str | None = Field(default=None, description="where the creation came from")
    history_limit: int | None = Field(
        default=None, description="continue as new after so many history events; None: the server says"
    )


def carried_over(create: CreateRelease) -> CreateRelease:
    """A creation as later runs need it: who made what. Its plan is the state's, and need not travel twice.

    Continuing with an argument of more than 2 MiB ends a workflow, and two large plans are as much.
    """
    return create.model_copy(update={"plan": _PLAN_OF_THE_STATE})


#: Stands in the place of a plan that nothing reads, once there is a state.
_PLAN_OF_THE_STATE = Plan.model_validate(
    {
        "format": FORMAT,
        "title": "see the state",
        "organisation": "see the state",
        "components": {"none": {"category": "model", "kind": "weights"}},
        "people": {"nobody": {"name": "Nobody", "roles": ["none"]}},
        "steps": [{"name": "none", "stage": "closed", "audience": "internal", "components": ["none"]}],
    }
)


class RecordRequest(Frozen):
    """The argument of `record_events`: append these events at `first_seq`, exactly once.

    `attempt` is what the audit log keeps of the command: who asked what, from where.
    """

    release: Name
    first_seq: int
    events: list[AnyEvent]
    command_id: str
    command_type: str
    command_digest: str
    actor: Name
    request_id: str | None = None
    address: str | None = None


class Recorded(Frozen):
    """What stands in the event log from `first_seq` on.

    `adopted`: another writer was first (a worker that was killed after writing): these are its events, and the
    release evolves from them.
    """

    events: list[AnyEvent]
    adopted: bool = False


class PartnersRequest(Frozen):
    """Which partners a step is about to be entered for."""

    release: Name
    step: Name
    partners: list[Name]


class PartnersFound(Frozen):
    """Partners that are ready (they have a key and have accepted the terms), and those that lack something."""

    ready: list[PartnerReady]
    absent: list[Name] = Field(default_factory=list)


class StepRequest(Frozen):
    """The argument of activities that act on one approach to one step."""

    release: Name
    step: Name
    attempt: int
    seq: int


class Published(Frozen):
    """What publishing a step made, by reference, so that it can be taken back."""

    references: list[str]


class EnvelopeRequest(Frozen):
    """The argument of `make_envelopes`: custody re-derives everything else from the log.

    `attempt` and `at`: of the entry that is under way; of a late grant, the attempt of the step's entry and when it was
    asked for.
    """

    release: Name
    step: Name
    attempt: int
    partners: list[PartnerReady]
    at: Instant
    absent: list[Name] = Field(default_factory=list, description="partners that get nothing now")
    late: Name | None = Field(
        default=None, description="the partner whose grant was asked for after the step was entered"
    )


class EnvelopesMade(Frozen):
    """Grant id → artifact → reference of its envelope."""

    envelopes: dict[str, dict[Name, str]]


class TakeInRequest(Frozen):
    """The argument of `take_in_root`: hold the roots of this release's artifacts under the plan that holds now."""

    release: Name
    seq: int


class TakenIn(Frozen):
    """Artifacts whose roots custody holds."""

    artifacts: list[Name]


class AccessRequest(Frozen):
    """The argument of `apply_access`: make the outside look like the state at `seq`; idempotent."""

    release: Name
    seq: int


class AccessApplied(Frozen):
    """What was changed outside, in words."""

    changes: list[str]


class SweepHub(Frozen):
    """The argument of `HubSweepWorkflow` and `sweep_hub`: look at this deployment's repository once."""


class HubSwept(Frozen):
    """What a sweep did, by release. `busy`: the release was just changing; `blind`: it could not be looked at."""

    in_order: list[Name] = Field(default_factory=list)
    repaired: list[Name] = Field(default_factory=list)
    raised: list[Name] = Field(default_factory=list)
    busy: list[Name] = Field(default_factory=list)
    blind: list[Name] = Field(default_factory=list)


class ShareDealing(Frozen):
    """Who gets a share of the key of what is sealed, as a second lock, and how many of the shares are needed."""

    threshold: int = Field(ge=2, le=KeyShares.MOST)
    holders: Annotated[
        dict[Name, Annotated[str, StringConstraints(pattern=r"^age1pq1[02-9ac-hj-np-z]{50,2500}$")]],
        Field(min_length=2, max_length=KeyShares.MOST),
    ] = Field(description="person of the plan → their public key, as `sluice partner keygen` makes it")

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        if self.threshold > len(self.holders):
            raise ValueError(f"{self.threshold} shares are needed, but {len(self.holders)} people get one")
        if len(set(self.holders.values())) < len(self.holders):
            raise ValueError("two holders have one key; a share belongs to one person")
        return self


class IngestInput(Frozen):
    """The argument of `IngestWorkflow`: seal plaintext from a place into a store and register the artifact."""

    ingest: Name
    source: Line = Field(description="a path below the configured ingest folder, `s3://…` or `hf:…`")
    store: Line
    components: dict[Name, list[str]] = Field(description="component → glob patterns of its files")
    uploader: Name
    release: Name | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    shares: ShareDealing | None = Field(default=None, exclude_if=lambda value: value is None)


class IngestResult(Frozen):
    """What an ingest made."""

    artifact: Name
    manifest_digest: Digest
    files: int
    size: int
    reused: bool = False


class BindRequest(Frozen):
    """The argument of `bind_artifact`: bind a registered artifact to a release, on behalf of its uploader."""

    release: Name
    artifact: Name
    actor: Name


class CopiesMade(Frozen):
    """Grant id → its marked copies: the answer of `make_copies`, whose argument is an `EnvelopeRequest`."""

    copies: dict[str, list[GrantCopy]]


class RotationInput(Frozen):
    """The argument of `RotationWorkflow`: seal these artifacts of a release anew."""

    release: Name
    rotation: Name
    artifacts: list[Name]
    delete_old: bool = False


class ResealRequest(Frozen):
    """The argument of `reseal_artifact`: custody re-derives from the log whether it may, and with which keys."""

    release: Name
    rotation: Name
    artifact: Name


class Resealed(Frozen):
    """What was sealed anew. `new` is None when nothing had to be: the grant whose own copy it was has ended."""

    artifact: Name
    new: Name | None = None
    manifest_digest: Digest | None = None
    location: Line | None = None
    size: int = 0
    reused: int = Field(default=0, description="plaintext bytes whose parts an interrupted run had stored")


class RenewRequest(Frozen):
    """The argument of `renew_envelopes`: envelopes of what was sealed anew, for grants that still stand."""

    release: Name
    seq: int


class EnvelopesRenewed(Frozen):
    """Grant id → artifact → reference; and why a grant has none."""

    envelopes: dict[str, dict[Name, str]]
    refused: dict[str, str] = Field(default_factory=dict)


class DeleteRequest(Frozen):
    """The argument of `delete_sealed`: the old sealed files of an artifact that was sealed anew."""

    release: Name
    artifact: Name


class TellRequest(Frozen):
    """The argument of `tell_release`: one command of the service's own, as an update of the release's workflow."""

    release: Name
    command: AnyCommand
