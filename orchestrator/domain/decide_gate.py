"""Decisions about what a gate asks for: artifacts, evidence, controls, sign-offs, delegation, the window."""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.deciding import (
    header,
    require_components,
    require_in_plan,
    require_next,
    require_permission,
    require_signed,
    require_step,
    short_id,
)
from orchestrator.domain.errors import Conflict, GateChanged, Malformed, NotPermitted, PlanRefused, Reason
from orchestrator.domain.evidence import Consideration, Evidence, EvidenceKind
from orchestrator.domain.gate import verdict
from orchestrator.domain.gate_signing import delegated_by
from orchestrator.domain.permissions import Permission
from orchestrator.domain.plan import Step, step_digest
from orchestrator.domain.plan_rules import broken_rules
from orchestrator.domain.sharing import require_fitting, require_releasable
from orchestrator.domain.stage import Stage
from orchestrator.domain.state import ReleaseState, gate_subject
from orchestrator.domain.values import statement_digest


def register_artifact(state: ReleaseState, command: cmd.RegisterArtifact, now: datetime) -> list[ev.AnyEvent]:
    """Bind components to a sealed artifact. Whoever uploads cannot sign off (rule 7)."""
    require_permission(command.actor, Permission.ARTIFACT_ADD)
    require_components(state, command.components)
    known = state.artifacts.get(command.artifact)
    if known is not None and known.manifest_digest != command.manifest_digest:
        raise Conflict(
            f"the artifact {command.artifact} is registered with another manifest; a sealed artifact never changes"
        )
    if known is not None and set(command.components) <= set(known.components):
        return []
    if command.artifact in state.superseded:
        raise Conflict(
            f"the artifact {command.artifact} was sealed anew as {state.superseded[command.artifact].by}; a key of the old one may be out"
        )
    withheld = [name for name in command.components if state.plan.components[name].withheld]
    if withheld:
        raise Conflict("withheld by the plan, so nothing is registered for them: " + ", ".join(withheld))
    out = [name for name in command.components if state.reached.get(name, Stage.CLOSED) > Stage.CLOSED]
    if out:
        raise Conflict(
            "released already, so their files cannot change: "
            + ", ".join(out)
            + "; other weights are another release"
        )
    if state.status == "entering":
        raise Conflict("a step is being entered; register the artifact when that is done")
    require_fitting(state, command)
    left = broken_rules(state.plan, barred={*state.barred, command.actor.id})
    if left:
        raise PlanRefused(
            f"with {command.actor.id} as uploader, who then cannot sign, the gates could never open",
            [reason for reason in left if reason.code == "rule-7"],
        )
    return [
        ev.ArtifactRegistered(
            **header(state, command, now),
            artifact=command.artifact,
            manifest_digest=command.manifest_digest,
            components=sorted(command.components),
            location=command.location,
            root=command.root,
            size=command.size,
            shares=command.shares,
        )
    ]


def submit_evidence(state: ReleaseState, command: cmd.SubmitEvidence, now: datetime) -> list[ev.AnyEvent]:
    """Bind a document. A risk assessment belongs to one step and answers all six considerations (§4)."""
    require_permission(command.actor, Permission.EVIDENCE_ADD)
    if command.step is not None:
        _require_ahead(state, require_step(state, command.step))
    reasons = []
    if command.kind is EvidenceKind.RISK_ASSESSMENT:
        if command.step is None:
            reasons.append(Reason("step-missing", "a risk assessment belongs to one step; name it", "step"))
        missing = [c.value for c in Consideration if c not in (command.ratings or {})]
        if missing:
            reasons.append(
                Reason("considerations", "all six are rated; missing: " + ", ".join(missing), "ratings")
            )
    elif command.ratings is not None:
        reasons.append(Reason("ratings", f"a {command.kind} carries no ratings", "ratings"))
    if reasons:
        raise Malformed("the evidence is not complete", reasons)
    evidence = Evidence(
        id=short_id("evidence", command.kind, command.step, command.digest, command.command_id),
        kind=command.kind,
        digest=command.digest,
        title=command.title,
        step=command.step,
        location=command.location,
        ratings=command.ratings,
        by=command.actor.id,
        at=max(now, state.updated_at),
    )
    return [ev.EvidenceSubmitted(**header(state, command, now), evidence=evidence)]


def _require_ahead(state: ReleaseState, step: Step) -> None:
    if state.plan.index(step.name) <= state.index:
        raise Conflict(f"`{step.name}` is entered already; evidence is for a step that is ahead")


def report_control(state: ReleaseState, command: cmd.ReportControl, now: datetime) -> list[ev.AnyEvent]:
    """Attest a control, or say that it is not in force. A probe's word comes from the service alone."""
    require_permission(command.actor, Permission.CONTROL_ATTEST)
    step = require_step(state, command.step)
    planned = next((c for c in step.controls if c.kind is command.control), None)
    if planned is None or planned.waived is not None:
        declared = ", ".join(c.kind for c in step.controls if c.waived is None) or "none"
        raise Conflict(
            f"`{step.name}` does not declare the control {command.control}; it declares: {declared}"
        )
    if planned.check == "probed" and command.in_force and not command.probe:
        raise Conflict(
            f"the control {command.control} of `{step.name}` is probed by the service, not attested"
        )
    if command.probe and command.actor.kind != "service":
        raise NotPermitted("a probe's result comes from the service itself")
    return [
        ev.ControlReported(
            **header(state, command, now),
            step=step.name,
            control=command.control,
            in_force=command.in_force,
            probe=command.probe,
            evidence=command.evidence,
            note=command.note,
        )
    ]


def sign_off(state: ReleaseState, command: cmd.SignOff, now: datetime) -> list[ev.AnyEvent]:
    """One person's decision on the next gate, on exactly the subject that they saw."""
    require_permission(command.actor, Permission.GATE_SIGN)
    require_in_plan(state, command.actor)
    step = require_next(state, command.step)
    if state.status == "entering" and command.decision == "approve":
        raise Conflict(f"`{step.name}` is being entered; nothing more is to be approved")
    person = command.actor.id
    if person in state.barred and command.decision == "approve":
        raise NotPermitted(
            f"{person} created the release or uploaded its artifacts and cannot sign off its gates",
            [Reason("rule-7", "somebody else of the plan signs", "actor")],
        )
    behalf = _role_of(state, command, step, now)
    at = max(now, state.updated_at)
    latest = at + step.gate.sign_off_validity
    expires = min(command.expires_at or latest, latest)
    if expires <= at:
        raise Malformed(
            "the sign-off has expired already", [Reason("expired", "give a later expiry", "expires_at")]
        )
    require_signed(state, person, command.envelope)
    subject = gate_subject(state, step).digest
    if command.subject != subject:
        raise GateChanged(
            f"what stands at the gate of `{step.name}` is not what was signed",
            [Reason("stale", "read the gate again; its subject is now " + subject, "subject")],
        )
    require_releasable(state, command, step)
    standing = state.sign_offs.get(person)
    require_behind_once(state, command, step, now, {person, behalf or person})
    same = standing is not None and (
        standing.role,
        standing.decision,
        standing.subject,
        standing.expires_at,
        standing.shares,
    ) == (
        command.role,
        command.decision,
        subject,
        expires,
        sorted(command.shares),
    )
    # a share that came damaged is released again with another statement
    said = None if standing is None else standing.statement
    if same and not (command.shares and said != statement_digest(command.envelope)):
        return []
    return [
        ev.SignedOff(
            **header(state, command, now),
            step=step.name,
            attempt=state.attempt,
            role=command.role,
            decision=command.decision,
            subject=subject,
            step_digest=step_digest(step),
            comment=command.comment,
            expires_at=expires,
            on_behalf_of=behalf,
            envelope=command.envelope,
            shares=command.shares,
        )
    ]


def require_behind_once(
    state: ReleaseState, command: cmd.SignOff, step: Step, now: datetime, behind: set[str]
) -> None:
    """Refuse an approval that could not count: somebody who stands behind it counts at this gate already."""
    person = command.actor.id
    standing = state.sign_offs.get(person)
    if standing is not None and standing.invitation is not None:
        raise Conflict(f"{person} signed this gate as an invited reviewer; that sign-off is withdrawn first")
    if command.decision != "approve":
        return
    for view in verdict(state, step, now).sign_offs:
        counts = view.person != person and view.decision == "approve" and view.standing == "counts"
        if counts and view.behind & behind:
            who = ", ".join(sorted(view.behind & behind))
            raise Conflict(
                f"{who} counts at this gate already, through the sign-off of {view.person}",
                [Reason("counts-already", "one person counts once per gate", "actor")],
            )


def _role_of(state: ReleaseState, command: cmd.SignOff, step: Step, now: datetime) -> str | None:
    """Check that the person may decide in the role; who delegated it to them, or None when it is their own."""
    person = state.plan.people[command.actor.id]
    asked = {requirement.role: requirement for requirement in step.gate.sign_offs}
    behalf = None
    if command.role not in person.roles:
        behalf = delegated_by(state, command.actor.id, command.role, now)
        if behalf is None:
            own = ", ".join(person.roles)
            raise NotPermitted(
                f"the plan does not name {command.actor.id} as {command.role}",
                [Reason("role", f"their roles: {own}", "role")],
            )
    if command.decision == "approve" and command.role not in asked:
        roles = ", ".join(asked) or "nobody"
        raise Conflict(
            f"the gate of `{step.name}` asks for: {roles}", [Reason("role", "not asked for", "role")]
        )
    if command.decision == "approve" and asked[command.role].external and not person.external:
        raise NotPermitted(f"the sign-off as {command.role} comes from outside the organisation")
    return behalf


def withdraw(state: ReleaseState, command: cmd.WithdrawSignOff, now: datetime) -> list[ev.AnyEvent]:
    """Take one's own sign-off back until the step is entered."""
    require_permission(command.actor, Permission.GATE_SIGN)
    require_next(state, command.step)
    standing = state.sign_offs.get(command.actor.id)
    if standing is None:
        raise Conflict(f"{command.actor.id} has no standing sign-off on the gate of `{command.step}`")
    if standing.decision == "reject":
        require_signed(state, command.actor.id, command.envelope)
    return [
        ev.SignOffWithdrawn(
            **header(state, command, now),
            step=command.step,
            attempt=state.attempt,
            comment=command.comment,
            envelope=command.envelope,
        )
    ]


def delegate(state: ReleaseState, command: cmd.Delegate, now: datetime) -> list[ev.AnyEvent]:
    """Let somebody else sign in one of one's roles; never somebody who counts already."""
    require_permission(command.actor, Permission.GATE_SIGN)
    require_in_plan(state, command.actor)
    require_signed(state, command.actor.id, command.envelope)
    giver = state.plan.people[command.actor.id]
    reasons = []
    if command.role not in giver.roles:
        reasons.append(Reason("role", f"{command.actor.id} does not hold the role {command.role}", "role"))
    receiver = state.plan.people.get(command.to)
    if receiver is None:
        reasons.append(Reason("unknown-person", f"the plan does not name {command.to}", "to"))
    elif command.to == command.actor.id or command.to in state.barred:
        reasons.append(Reason("rule-7", f"{command.to} cannot take it", "to"))
    else:
        asked = {need.role for step in state.plan.steps[state.index + 1 :] for need in step.gate.sign_offs}
        if asked & set(receiver.roles):
            reasons.append(
                Reason("counts-already", f"{command.to} signs in a role of their own and counts once", "to")
            )
        counts = _counts_through(state, command.to, now)
        if counts is not None:
            told = f"{command.to} counts at the gate of `{counts[0]}` already, through the sign-off of {counts[1]}"
            reasons.append(Reason("counts-already", told, "to"))
        if giver.external != receiver.external:
            reasons.append(
                Reason("external", "an outside role goes to somebody outside, an inside one inside", "to")
            )
    if command.until <= now or command.until > now + timedelta(days=366):
        reasons.append(Reason("until", "the end lies ahead, at most a year", "until"))
    if reasons:
        raise Conflict("this cannot be delegated", reasons)
    return [
        ev.Delegated(
            **header(state, command, now),
            to=command.to,
            role=command.role,
            until=command.until,
            envelope=command.envelope,
        )
    ]


def _counts_through(state: ReleaseState, person: str, now: datetime) -> tuple[str, str] | None:
    """At which gate and through whose sign-off a person counts already; None when they do not."""
    step = state.next_step
    if step is None:
        return None
    for view in verdict(state, step, now).sign_offs:
        if view.decision == "approve" and view.standing == "counts" and person in view.behind:
            return step.name, view.person
    return None


def extend_window(state: ReleaseState, command: cmd.ExtendWindow, now: datetime) -> list[ev.AnyEvent]:
    """Ask for more research time: one authorised person may."""
    require_permission(command.actor, Permission.WINDOW_EXTEND)
    step = require_next(state, command.step)
    return [
        ev.WindowChanged(
            **header(state, command, now),
            step=step.name,
            required=state.window_asked(step) + command.by,
            reason=command.reason,
            people=[command.actor.id],
        )
    ]


def begin_entry(state: ReleaseState, command: cmd.BeginEntry, now: datetime) -> list[ev.AnyEvent]:
    """Begin to enter the next step. The gate must hold; nothing else opens it."""
    step = require_next(state, command.step)
    found = verdict(state, step, now)
    if not found.open:
        reasons = [Reason(condition.code, condition.message, "step") for condition in found.unmet]
        raise Conflict(f"the gate of `{step.name}` does not hold", reasons)
    counted = state.window_counted(now)
    return [
        ev.EntryBegan(
            **header(state, command, now),
            step=step.name,
            attempt=state.attempt,
            subject=found.subject_digest,
            counted=counted if counted.total_seconds() >= 1 else None,
        )
    ]
