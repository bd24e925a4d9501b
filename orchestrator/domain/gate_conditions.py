"""What must hold at a gate besides signatures and clocks: the release itself, its artifacts, evidence, controls, monitors."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from orchestrator.domain.evidence import EvidenceKind
from orchestrator.domain.gate_views import Condition
from orchestrator.domain.plan import HandOut, Step
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import format_duration


def release_unmet(state: ReleaseState, step: Step) -> Iterator[Condition]:
    """What of the release itself is in the way: it has ended, another step is next, a wait, a failed entry, a rotation, holds, incidents, reviews."""
    people = sorted(state.plan.people)
    if state.ended:
        yield Condition(code="ended", message=f"the release is {state.status}")
    upcoming = state.next_step
    if upcoming is None or upcoming.name != step.name:
        told = "none is left" if upcoming is None else f"the next step is `{upcoming.name}`"
        yield Condition(code="order", message=f"`{step.name}` is not next: {told}")
    if state.status == "entering":
        yield Condition(code="entering", message="the step is being entered")
    waits = state.custody_waits.get(step.name)
    if waits is not None:
        code = "second_lock" if waits.what == "second_lock" else "custody_clock"
        yield Condition(code=code, message=f"custody waits: {waits.message}")
    if state.entry_failed is not None:
        yield Condition(
            code="entry_failed",
            message=f"the last entry was taken back: {state.entry_failed}; mend it, then retry",
            who=sorted(state.plan.people),
        )
    for rotation in state.pending_rotations:
        told = ", ".join(rotation.components)
        yield Condition(
            code="rotation", message=f"{told}: being sealed anew under fresh keys ({rotation.id})"
        )
    for hold in state.holds.values():
        yield Condition(code="hold", message=f"on hold ({hold.id}) by {hold.by}: {hold.reason}", who=people)
    for incident in state.open_incidents:
        message = f"{incident.severity} {incident.kind} incident {incident.id} is open: {incident.summary}"
        yield Condition(code="incident", message=message, who=people)
    for review in state.reviews.values():
        if (
            review.step != step.name or not state.waived
        ):  # the gate whose glass was broken may open; the ones after it wait
            others = [person for person in people if person not in review.people]
            yield Condition(
                code="review", message=f"the review {review.id} of a broken glass is open", who=others
            )


def artifacts_unmet(state: ReleaseState, step: Step) -> Iterator[Condition]:
    """Components of the step that hand out files, and have no sealed artifact yet."""
    missing = []
    for component in step.components:
        known = state.plan.components.get(component.name)
        given = state.plan.hand_out(step, component)[0] is not HandOut.NOTHING
        if known is not None and known.has_files and given and component.name not in state.carried_by:
            missing.append(component.name)
    if missing:
        yield Condition(
            code="artifact", message="no sealed artifact is registered for: " + ", ".join(missing)
        )


def evidence_unmet(state: ReleaseState, step: Step, now: datetime) -> Iterator[Condition]:
    """Evidence that is missing or too old, and a rating that nobody may sign away."""
    found = state.evidence_for(step)
    for requirement in step.gate.evidence:
        document = found.get(requirement.kind)
        if document is None or (
            requirement.kind is EvidenceKind.RISK_ASSESSMENT and document.step != step.name
        ):
            article = "an" if requirement.kind[0] in "aeiou" else "a"
            told = f"{article} {requirement.kind} for `{step.name}` is missing"
            yield Condition(code="evidence", message=told)
        elif requirement.max_age is not None and now - document.at >= requirement.max_age:
            age = format_duration(now - document.at)
            yield Condition(
                code="evidence_age",
                message=f"the {requirement.kind} is {age} old; at most {format_duration(requirement.max_age)} is asked",
            )
    assessment = found.get(EvidenceKind.RISK_ASSESSMENT)
    if assessment is not None and assessment.unacceptable:
        rated = ", ".join(assessment.unacceptable)
        yield Condition(code="risk", message=f"rated unacceptable, whoever signs: {rated}")


def controls_unmet(state: ReleaseState, step: Step, now: datetime) -> Iterator[Condition]:
    """Controls of the step that are not in force, and those of the current step that have lapsed."""
    for control in step.controls:
        if control.waived is not None:
            continue
        report = state.control_report(step.name, control.kind)
        how = "attested" if control.check == "attested" else "probed"
        who = sorted(state.plan.people) if control.check == "attested" else []
        if report is None:
            message = f"the control {control.kind} has not been {how} for `{step.name}`"
        elif not report.in_force:
            message = f"the control {control.kind} is not in force" + (
                f": {report.note}" if report.note else ""
            )
        elif control.max_age is not None and now - report.at >= control.max_age:
            message = f"the control {control.kind} was last {how} {format_duration(now - report.at)} ago"
        else:
            continue
        yield Condition(code="control", message=message, who=who)
    current = state.current_step
    if current is not None and current.name != step.name:
        for control in current.controls:
            report = state.control_report(current.name, control.kind)
            if report is not None and not report.in_force:
                message = f"the control {control.kind} of the current step `{current.name}` has lapsed"
                yield Condition(code="control", message=message, who=sorted(state.plan.people))


def monitors_unmet(state: ReleaseState, step: Step, now: datetime) -> Iterator[Condition]:
    """Leak sources that the gate asks for and that have been silent for too long."""
    for monitor in step.gate.monitors:
        seen = state.monitors.get(monitor.source)
        if seen is None:
            yield Condition(code="monitor", message=f"the leak source {monitor.source} has never reported")
        elif now - seen > monitor.max_blind:
            blind = format_duration(now - seen)
            yield Condition(
                code="monitor", message=f"the leak source {monitor.source} has been blind for {blind}"
            )
