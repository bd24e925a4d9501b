"""Request bodies of commands. Who asks, the command's id and the time never stand in a body; names in the path neither.

Each body becomes one command of `orchestrator.domain.commands`, whose fields it shares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, cast

from pydantic import ConfigDict, Field, create_model

from orchestrator.domain import commands as cmd
from orchestrator.domain.commands import Envelope, ReleasedShare
from orchestrator.domain.evidence import Consideration, EvidenceKind, Rating
from orchestrator.domain.incident import Confidence, IncidentKind, Severity
from orchestrator.domain.plan import Plan, PublicKey
from orchestrator.domain.values import Digest, Duration, Frozen, Instant, Line, Name, Text


def _example(**fields: Any) -> ConfigDict:
    return ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [fields]})


_SIGNED = Field(
    default=None, description="the signed statement (DSSE); needed when the plan pins keys of this person"
)


class CreateReleaseBody(Frozen):
    """A new release along a plan. Left out, the id is made of name and version."""

    id: Name | None = None
    name: Line = Field(examples=["gt-mini"])
    version: Line = Field(examples=["1.0"])
    plan: Plan


class SignOffBody(Frozen):
    """One person's decision on the gate as they saw it."""

    model_config = _example(
        role="safety", decision="approve", subject="sha256:" + "ab" * 32, comment="Evaluations look sound."
    )

    role: Name
    decision: Literal["approve", "reject"]
    subject: Digest = Field(description="`subject_digest` of the gate that was read")
    comment: Text | None = None
    expires_at: Instant | None = None
    envelope: Envelope | None = _SIGNED
    shares: dict[Name, ReleasedShare] = Field(
        default_factory=dict,
        max_length=100,
        description="artifact → this person's key share, sealed to custody and bound to the signed statement (`sluice sign --share-key`); where the gate asks for shares",
    )


class WithdrawBody(Frozen):
    """Take one's own sign-off back."""

    comment: Text | None = None
    envelope: Envelope | None = _SIGNED


class DelegateBody(Frozen):
    """Let somebody else sign in one of one's roles until a date."""

    model_config = _example(to="dan", role="safety", until="2027-01-31T00:00:00Z")

    to: Name
    role: Name
    until: Instant
    envelope: Envelope | None = _SIGNED


class InviteBody(Frozen):
    """Let one outside reviewer without an account sign the gate, once."""

    model_config = _example(
        role="reviewer",
        reviewer="jane.doe",
        organisation="A University",
        subject="sha256:" + "ab" * 32,
        key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICAp6HtXCHL+uJ6LmNG/tmI9wHLvN8EPeTty8qA+nJM8",
        expires_at="2027-01-31T00:00:00Z",
    )

    role: Name
    reviewer: Name
    organisation: Line
    subject: Digest = Field(description="`subject_digest` of the gate that was read")
    key: PublicKey = Field(description="the one-time public key of the invitation")
    expires_at: Instant
    envelope: Envelope | None = Field(default=None, description="the signed invitation (DSSE); always needed")


class EvidenceBody(Frozen):
    """A document bound by its digest."""

    model_config = _example(
        kind="model_card", digest="sha256:" + "cd" * 32, title="Model card of gt-mini 1.0", step="demo"
    )

    kind: EvidenceKind
    digest: Digest
    title: Line
    step: Name | None = None
    location: Line | None = Field(default=None, description="where people who sign can read it")
    ratings: dict[Consideration, Rating] | None = Field(
        default=None, description="of a risk assessment: all six ratings"
    )


class ControlBody(Frozen):
    """Attest that a control is in force, or say that it is not."""

    model_config = _example(in_force=True, note="60 requests, refilled at 1 a second")

    in_force: bool = True
    evidence: Digest | None = None
    note: Text | None = None


class IncidentBody(Frozen):
    """A leak, misuse or harm that was seen. Left out, its id is made up."""

    model_config = _example(
        kind="leak", severity="severe", summary="The weights are on a public tracker.", components=["weights"]
    )

    id: Name | None = None
    kind: IncidentKind
    severity: Severity
    confidence: Confidence = Confidence.REPORTED
    summary: Text
    components: list[Name] = Field(default_factory=list, max_length=500)
    partner: Name | None = None
    sighting: Text | None = None


class TriageBody(Frozen):
    """How bad, how sure, whose copy."""

    model_config = _example(severity="severe", confidence="confirmed", partner="uni")

    severity: Severity
    confidence: Confidence
    partner: Name | None = None
    note: Text | None = None


class CloseIncidentBody(Frozen):
    """The outcome of an incident."""

    outcome: Text
    envelope: Envelope | None = _SIGNED


class ReasonBody(Frozen):
    """Why."""

    model_config = _example(reason="Something in the evaluation looks odd.")

    reason: Text


class ResumeBody(Frozen):
    """Lift the holds that stand now."""

    reason: Text | None = None
    envelope: Envelope | None = _SIGNED


class ExtendWindowBody(Frozen):
    """More research time."""

    model_config = _example(by="14d", reason="The red team asked for two more weeks.")

    by: Duration
    reason: Text


class ShortenWindowBody(Frozen):
    """Less research time."""

    model_config = _example(to="30d", reason="Findings are in early.")

    to: Duration
    reason: Text | None = None
    envelope: Envelope | None = _SIGNED


class AmendBody(Frozen):
    """Another plan from here on."""

    plan: Plan
    reason: Text
    envelope: Envelope | None = _SIGNED


class BreakGlassBody(Frozen):
    """Conditions of the gate to lift in an emergency."""

    model_config = _example(waives=["research_window"], reason="A patched model has to go out today.")

    waives: Annotated[list[Name], Field(min_length=1, max_length=20)]
    reason: Text
    envelope: Envelope | None = _SIGNED


class ReviewBody(Frozen):
    """What came of the review."""

    outcome: Text
    envelope: Envelope | None = _SIGNED


class EndorseBody(Frozen):
    """Stand behind a proposal."""

    envelope: Envelope | None = _SIGNED


class RevokeBody(Frozen):
    """End one grant, or all of a partner."""

    model_config = _example(partner="uni", reason="Terms were broken.")

    grant: Annotated[str, Field(max_length=200)] | None = None
    partner: Name | None = None
    reason: Text


class MakeGrantBody(Frozen):
    """The grant of a partner who became ready after the step was entered, renewed, or for its new key."""

    model_config = _example(partner="uni", step="download")

    partner: Name
    step: Annotated[Name | None, Field(description="a step that stands; left out, the current one")] = None


class RollBackBody(Frozen):
    """Which earlier step to go back to."""

    model_config = _example(to="demo", reason="The endpoint leaks training data.")

    to: Name
    reason: Text


class AccessBody(Frozen):
    """Whether people with access can use it."""

    model_config = _example(working=False, reason="The endpoint is down.")

    working: bool
    reason: Text | None = None


class BindArtifactBody(Frozen):
    """Which registered artifact carries which components of the release; left out, those that its manifest names."""

    artifact: Name
    components: Annotated[list[Name], Field(min_length=1, max_length=500)] | None = None


# --- any command, for previews

_FOR_PREVIEW: tuple[type[cmd.Command], ...] = (
    cmd.RegisterArtifact,
    cmd.SubmitEvidence,
    cmd.ReportControl,
    cmd.SignOff,
    cmd.WithdrawSignOff,
    cmd.Delegate,
    cmd.Hold,
    cmd.Resume,
    cmd.ExtendWindow,
    cmd.ShortenWindow,
    cmd.ReportIncident,
    cmd.TriageIncident,
    cmd.CloseIncident,
    cmd.Endorse,
    cmd.AmendPlan,
    cmd.BreakGlass,
    cmd.CloseReview,
    cmd.Revoke,
    cmd.MakeGrant,
    cmd.RotateKeys,
    cmd.RollBack,
    cmd.Abort,
    cmd.ReportAccess,
    cmd.RetryEntry,
)


def _asked(command: type[cmd.Command]) -> type[Frozen]:
    """The command without who asks and its id; its `type` has to be said."""
    fields: dict[str, Any] = {
        name: (
            info.annotation if name == "type" else info.rebuild_annotation(),
            ... if name == "type" else info,
        )
        for name, info in command.model_fields.items()
        if name not in {"command_id", "actor"}
    }
    return create_model(command.__name__ + "Asked", __base__=Frozen, __doc__=command.__doc__, **fields)


if TYPE_CHECKING:
    AnyAsked = Frozen
else:
    AnyAsked = Annotated[
        Union[tuple(_asked(command) for command in _FOR_PREVIEW)],  # noqa: UP007 - made at run time
        Field(discriminator="type"),
    ]

_COMMANDS = {command.model_fields["type"].default: command for command in _FOR_PREVIEW}


class PreviewBody(Frozen):
    """A command that somebody thinks about."""

    model_config = _example(command={"type": "hold", "reason": "Something in the evaluation looks odd."})

    command: AnyAsked


def command_of(asked: Frozen, *, actor: cmd.Actor, command_id: str) -> cmd.AnyCommand:
    """The command that a preview asks about."""
    fields = {name: getattr(asked, name) for name in type(asked).model_fields}
    command = _COMMANDS[fields["type"]](command_id=command_id, actor=actor, **fields)
    return cast("cmd.AnyCommand", command)
