"""`preview(state, command, now)`: what a command would do, in words, before anybody confirms it.

Nothing is changed. The words are honest about what cannot be taken back: a key that has left, a step beyond `api`.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.decide import apply, decide
from orchestrator.domain.decide_caution import signed_payload
from orchestrator.domain.errors import SluiceError
from orchestrator.domain.gate import verdict
from orchestrator.domain.gate_views import Verdict
from orchestrator.domain.sharing import share_left_behind
from orchestrator.domain.stage import audience_words
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import Digest, Frozen, digest, format_duration


class PreviewReason(Frozen):
    """One reason why the command would be refused."""

    code: str
    message: str
    path: str | None = None


class ToSign(Frozen):
    """What a person signs who stands behind a dear command: the proposal's action and the digest of its payload."""

    action: str
    payload_digest: Digest


class Preview(Frozen):
    """What would happen.

    Attributes:
        accepted: the command would be taken; otherwise `refused_as` and `reasons` say why not.
        consequences: what would be true after it, in order.
        irreversible: something of it cannot be taken back.
        verdict: the next gate after the command; None when there is none.
    """

    accepted: bool
    refused_as: str | None = None
    reasons: list[PreviewReason] = Field(default_factory=list)
    consequences: list[str] = Field(default_factory=list)
    irreversible: bool = False
    events: list[str] = Field(default_factory=list)
    verdict: Verdict | None = None
    to_sign: ToSign | None = None


def preview(state: ReleaseState, command: cmd.AnyCommand, now: datetime) -> Preview:
    """What `command` would do to `state` at `now`."""
    signing = _to_sign(state, command)
    unsigned = command.model_copy(update={"envelope": "unsigned"}) if _may_be_signed(command) else command
    try:
        events = decide(state, unsigned, now)
    except SluiceError as error:
        reasons = [PreviewReason(code=r.code, message=r.message, path=r.path) for r in error.reasons]
        reasons = reasons or [PreviewReason(code=error.code, message=error.detail)]
        return Preview(accepted=False, refused_as=error.code, reasons=reasons, to_sign=signing)
    after = apply(state, events)
    words = [text for event in events for text in _words(state, event)]
    step = after.next_step
    found = None if step is None else verdict(after, step, now)
    before = None if state.next_step is None else verdict(state, state.next_step, now)
    irreversible = any(isinstance(e, ev.StepEntered) and not e.stage.reversible for e in events)
    if found is not None and step is not None:
        irreversible |= _gate_words(after, step.name, before, found, now, words)
    if not events:
        words.append("nothing changes: this was done already")
    return Preview(
        accepted=True,
        consequences=words,
        irreversible=irreversible,
        events=[event.type for event in events],
        verdict=found,
        to_sign=signing,
    )


def _may_be_signed(command: cmd.AnyCommand) -> bool:
    """Whether only the signature is still missing: a preview comes before signing."""
    return "envelope" in type(command).model_fields and getattr(command, "envelope", None) is None


def _to_sign(state: ReleaseState, command: cmd.AnyCommand) -> ToSign | None:
    try:
        action, payload = signed_payload(state, command)
    except SluiceError:
        return None
    return ToSign(action=action, payload_digest=digest(payload))


def entering_words(state: ReleaseState, step_name: str) -> list[str]:
    """What entering a step means, in plain words; the last one says whether it can be undone."""
    step = state.plan.step(step_name)
    if step is None:
        return []
    to = audience_words(step.audience)
    words = [f"`{step.name}` is entered: {', '.join(step.component_names)} at `{step.stage}` for {to}"]
    served = state.plan.keyed_components(step, "deployments")
    keyed = state.plan.keyed_components(step, "audience")
    if served:
        words.append(f"the keys of {', '.join(served)} go to {', '.join(step.deployments)}; no weights leave")
    if keyed and step.audience == "public":
        words.append(f"the keys of {', '.join(keyed)} become public")
    elif keyed:
        words.append(f"the keys of {', '.join(keyed)} go to {', '.join(state.plan.audience_partners(step))}")
    words.append(
        "access can be cut off again by a rollback"
        if step.stage.reversible
        else "after this, the weights cannot be recalled: only future keys and updates can be withheld"
    )
    return words


def disclosed_words(state: ReleaseState, components: list[str], until: datetime | None = None) -> str:
    """What new keys for components cannot take back: who had a key of the old files."""
    holders = sorted(
        {
            grant.holder
            for grant in state.grants.values()
            if grant.disclosed_at is not None
            and (until is None or grant.disclosed_at <= until)
            and set(grant.components) & set(components)
        }
    )
    if not holders:
        return "no key of the old files was ever handed over"
    named = ", ".join(holders[:3]) + (f" and {len(holders) - 3} more" if len(holders) > 3 else "")
    return (
        f"what was disclosed stays disclosed: {named} had a key of the old files and may go on reading them"
    )


def rotation_words(state: ReleaseState, components: list[str], *, delete_old: bool = False) -> list[str]:
    """What new keys for components change, and what they cannot; the same words wherever somebody confirms it."""
    told = ", ".join(components)
    words = [
        f"{told}: sealed anew under fresh keys; no gate opens until that is done, and sign-offs on the old manifest become stale",
        disclosed_words(state, components),
        "grants that still stand get an envelope for the new files; those that were revoked or ran out get none",
    ]
    words.append(
        "the old sealed files are deleted from our store afterwards; copies elsewhere stay"
        if delete_old
        else "the old sealed files are kept"
    )
    return words


def _gate_words(
    state: ReleaseState, step: str, before: Verdict | None, found: Verdict, now: datetime, words: list[str]
) -> bool:
    if found.open and (before is None or not before.open or before.step != found.step):
        words.append("the gate then holds and opens at once:")
        words += entering_words(state, step)
        return found.irreversible
    if found.opens_at is not None and not found.open:
        left = format_duration(found.opens_at - now)
        words.append(f"nobody has to do anything more: the gate of `{step}` then opens by itself in {left}:")
        words += entering_words(state, step)
        return found.irreversible
    if not found.open:
        words.append(f"the gate of `{step}` then still waits: " + "; ".join(c.message for c in found.unmet))
    return False


def _asked_words(state: ReleaseState, event: ev.GrantAsked) -> str:
    step = state.plan.step(event.step)
    told = f"{event.partner} gets a grant of `{event.step}`, if it has accepted the terms"
    if step is None or not state.plan.keyed_components(step, "audience"):
        return told
    told += " and has a key: custody checks everything again and makes its envelope"
    return (
        told if step.stage.reversible else told + "; once it is handed over, the weights cannot be recalled"
    )


def _share_words(state: ReleaseState, event: ev.SignedOff) -> list[str]:
    """What becomes of the key shares of whoever approves."""
    step = state.plan.step(event.step)
    if step is None or event.decision != "approve" or event.invitation is not None:
        return []
    left = [name for name in share_left_behind(state, event.by, step) if name not in event.shares]
    how = f"`sluice sign {state.release} {step.name} --approve --share-key FILE` releases it"
    return [f"the key share of {name} that {event.by} holds is NOT released by this; {how}" for name in left]


def _words(state: ReleaseState, event: ev.AnyEvent) -> list[str]:
    match event:
        case ev.SignedOff():
            signed = f"{event.by} {event.decision}s the gate of `{event.step}` as {event.role}, until {event.expires_at:%Y-%m-%d %H:%M} UTC"
            return [signed, *_share_words(state, event)]
        case ev.Invited():
            return [
                f"{event.reviewer} of {event.organisation} may sign the gate of `{event.step}` as {event.role}, once, until {event.expires_at:%Y-%m-%d %H:%M} UTC",
                f"{event.by} then counts at this gate through {event.reviewer} alone",
            ]
        case ev.InvitationRevoked():
            return ["nobody can sign on this invitation any more; an approval given on it counts no more"]
        case ev.SignOffWithdrawn():
            return [f"the sign-off of {event.by} counts no more"]
        case ev.HoldPlaced():
            return [
                "all clocks and gates of the release stand until a quorum resumes it; revocations still work"
            ]
        case ev.HoldsLifted():
            return ["clocks and gates go on"]
        case ev.Proposed():
            quorum = state.plan.quorums.of(event.action)
            return [
                f"{event.action.replace('_', ' ')} is proposed; {quorum.count - 1} more of the plan's people must agree"
            ]
        case ev.GrantEnded():
            told = [f"{event.grant} ends: its key was never handed over, so this is complete"]
            if event.disclosed:
                told = [f"{event.grant} ends: its key was handed over before, so only future access is cut"]
            ended = state.grants[event.grant]
            if event.end == "revoked" and ended.holder_kind == "partner":
                told.append(
                    f"{ended.holder} gets no other grant of this release until the plan is amended to let it in again"
                )
            return told
        case ev.GrantAsked():
            return [_asked_words(state, event)]
        case ev.RolledBack():
            kept = ", ".join(event.irrevocable)
            told = [f"the release goes back from `{event.from_step}` to `{event.to_step}`; later grants end"]
            return (
                [*told, f"out already and not to be recalled: {kept}"]
                if kept
                else [*told, "nothing had left for good"]
            )
        case ev.Aborted():
            kept = ", ".join(event.irrevocable)
            told = ["the release ends for good; every grant ends"]
            return [*told, f"out already and not to be recalled: {kept}"] if kept else told
        case ev.KeysRotationAsked():
            return rotation_words(state, event.components, delete_old=event.delete_old)
        case ev.PlanAmended():
            return ["another plan holds; every standing sign-off is stale"]
        case ev.GlassBroken():
            return [
                f"lifted for this gate: {', '.join(event.waives)}; everyone in the plan is told, and a review stays open"
            ]
        case ev.EvidenceSubmitted():
            return [f"the {event.evidence.kind} is bound; sign-offs given on other evidence become stale"]
        case ev.ArtifactRegistered():
            return [
                f"{', '.join(event.components)} are carried by {event.artifact}; sign-offs on another manifest become stale"
            ]
        case _:
            return _caution_words(event)


def _caution_words(event: ev.AnyEvent) -> list[str]:
    match event:
        case ev.IncidentReported():
            incident = event.incident
            return [
                f"a {incident.severity} {incident.kind} incident is open; no gate opens until it is closed"
            ]
        case ev.IncidentTriaged():
            return [f"{event.incident} is judged: {event.severity}, {event.confidence}"]
        case ev.IncidentClosed():
            return [f"{event.incident} is closed and stands in no gate's way any more: {event.outcome}"]
        case ev.WindowChanged():
            return [
                f"the research window before `{event.step}` asks for {format_duration(event.required)} of real access"
            ]
        case ev.ControlReported():
            told = "in force" if event.in_force else "not in force: the gate waits for it"
            return [f"the control {event.control} of `{event.step}` is {told}"]
        case ev.AccessReported():
            return [
                "access works; the research window runs while nothing else stops it"
                if event.working
                else "access does not work; the research window stands until it does"
            ]
        case ev.Delegated():
            return [
                f"{event.to} may sign as {event.role} for {event.by} until {event.until:%Y-%m-%d %H:%M} UTC"
            ]
        case ev.Endorsed():
            return [f"{event.by} stands behind the proposal {event.proposal}"]
        case ev.ProposalEnded():
            return [
                f"the proposal {event.proposal} is "
                + ("carried out" if event.carried else "over; nothing of it is carried out")
            ]
        case ev.ReviewClosed():
            return [f"the review {event.review} of the broken glass is closed"]
        case ev.EntryRetried():
            return [f"`{event.step}` is entered again as soon as its gate holds"]
        case _:
            return []
