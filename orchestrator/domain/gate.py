"""`verdict(state, step, now)`: does the gate hold, and if not, every condition that is unmet.

A gate holds when its conditions all do; there is no other flag anywhere. Each unmet condition says in words what is
missing, who could meet it, and, for a clock that runs, when it will be met if nothing else changes.

Conditions are looked at in groups: the release (ended, order, holds, incidents, reviews), what is released (artifacts),
what is known (evidence, risk, controls, monitors), who agreed (sign-offs, rejections), and time (window, cooling-off,
not-before, opening hours). Only those in `WAIVABLE` can be lifted by break-glass: never a person's decision, a hold, an
incident, a rating, or what is being released.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Literal

from pydantic import Field

from orchestrator.domain.custody_wait import StandingWait
from orchestrator.domain.evidence import EvidenceKind
from orchestrator.domain.memo import Memo
from orchestrator.domain.plan import HandOut, SignOffRequirement, Step, step_digest
from orchestrator.domain.sharing import keyed_artifacts, share_gaps
from orchestrator.domain.state import (
    GateSubject,
    ReleaseState,
    SignOffRecord,
    access_stands_because,
    gate_subject,
)
from orchestrator.domain.values import Digest, Frozen, Instant, Line, Name, digest, format_duration

WAIVABLE = frozenset(
    {"research_window", "cooling_off", "not_before", "opening_hours", "evidence_age", "control", "monitor"}
)
_ZERO = timedelta(0)

Standing = Literal["counts", "stale", "expired", "not_in_plan", "barred", "revoked", "counted_already"]


class Condition(Frozen):
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
    who: list[str] = Field(default_factory=list)
    met_at: Instant | None = None
    role: Name | None = None


class SignOffView(Frozen):
    """A standing decision and whether it counts: `counts`, or why not.

    Attributes:
        standing: `revoked`: the invitation was taken back; `counted_already`: one of the people who stand behind it (the
            person, whoever delegated to them, or whoever invited them) counts at this gate already.
        invited_by: of an invited reviewer, who invited them; `organisation`: where the invitation says that they stand.
    """

    person: Name
    role: Name
    decision: Literal["approve", "reject"]
    standing: Standing
    at: Instant
    expires_at: Instant
    on_behalf_of: Name | None = None
    comment: str | None = None
    statement: Digest | None = None
    invited_by: Name | None = None
    organisation: Line | None = None
    shares: list[Name] = Field(default_factory=list, exclude_if=lambda value: not value)

    @property
    def behind(self) -> set[str]:
        """Who of the plan stands behind it: each counts once at a gate."""
        if self.invited_by is not None:
            return {self.invited_by}
        return {self.person} if self.on_behalf_of is None else {self.person, self.on_behalf_of}


class ShareView(Frozen):
    """The key shares of one artifact that a gate hands out: how many are needed, who holds one, whose counts."""

    artifact: Name
    threshold: int
    holders: list[Name]
    released: list[Name]


class DelegationView(Frozen):
    """At this gate, `to` may sign in `role` for `person` until then."""

    person: Name
    to: Name
    role: Name
    until: Instant


class WindowView(Frozen):
    """The research window: seconds asked and counted, and whether the clock runs."""

    asked: float
    counted: float
    running: bool
    stands_because: str | None = None
    met_at: Instant | None = None


class Verdict(Frozen):
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

    step: Name
    open: bool
    unmet: list[Condition]
    waived: list[str]
    sign_offs: list[SignOffView]
    delegations: list[DelegationView] = Field(default_factory=list)
    window: WindowView
    shares: list[ShareView] = Field(default_factory=list, exclude_if=lambda value: not value)
    subject: GateSubject
    subject_digest: Digest
    irreversible: bool
    opens_at: Instant | None
    changes_at: Instant | None
    etag: str
    waits: StandingWait | None = None


#: The last verdict on each state. Whoever acts on a release asks several times in one instant: validator, handler, main loop.
_VERDICTS: Memo[ReleaseState, tuple[Step, datetime, Verdict]] = Memo()


def verdict(state: ReleaseState, step: Step, now: datetime) -> Verdict:
    """The whole verdict on the gate into `step`.

    Args:
        state: the release.
        step: a step of its plan; one that is not next has the condition `order`.
        now: the instant to judge at (aware).
    """
    known = _VERDICTS.get(state)
    if known is not None and known[0] is step and known[1] == now:
        return known[2]
    return _VERDICTS.keep(state, (step, now, _judge(state, step, now)))[2]


def _judge(state: ReleaseState, step: Step, now: datetime) -> Verdict:
    subject = gate_subject(state, step)
    subject_digest = subject.digest
    views = [_view(state, record, subject_digest, step, now) for record in state.sign_offs.values()]
    views.sort(key=lambda view: (view.at, view.person))
    views = _each_once(views)
    delegations = list(_delegations(state, step, now))
    window = _window(state, step, now)
    found = [
        *_release(state, step),
        *_artifacts(state, step),
        *_evidence(state, step, now),
        *_controls(state, step, now),
        *_monitors(state, step, now),
        *_sign_offs(state, step, views, delegations),
        *_shares(state, step, views, now),
        *_time(state, step, now, views, window),
    ]
    unmet = [condition for condition in found if condition.code not in state.waived]
    opens_at = _opens_at(step, unmet, now)
    return Verdict(
        step=step.name,
        open=not unmet,
        unmet=unmet,
        waived=sorted({condition.code for condition in found} & set(state.waived)),
        sign_offs=views,
        delegations=delegations,
        window=window,
        shares=_share_views(state, step, views),
        subject=subject,
        subject_digest=subject_digest,
        irreversible=not step.stage.reversible,
        opens_at=now if not unmet else opens_at,
        changes_at=_changes_at(state, step, unmet, views, delegations, now),
        etag=_etag(state, subject_digest, views, step),
        waits=state.custody_waits.get(step.name),
    )


def still_holds(state: ReleaseState, step: Step, now: datetime) -> list[Condition]:
    """What of the gate does not hold any more while its step is being entered.

    Everything is looked at again but opening hours: the entry began inside them.
    """
    entering = state.model_copy(update={"status": "active", "custody_waits": {}})
    return [
        condition for condition in verdict(entering, step, now).unmet if condition.code != "opening_hours"
    ]


def _release(state: ReleaseState, step: Step) -> Iterator[Condition]:
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


def _artifacts(state: ReleaseState, step: Step) -> Iterator[Condition]:
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


def _evidence(state: ReleaseState, step: Step, now: datetime) -> Iterator[Condition]:
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


def _controls(state: ReleaseState, step: Step, now: datetime) -> Iterator[Condition]:
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


def _monitors(state: ReleaseState, step: Step, now: datetime) -> Iterator[Condition]:
    for monitor in step.gate.monitors:
        seen = state.monitors.get(monitor.source)
        if seen is None:
            yield Condition(code="monitor", message=f"the leak source {monitor.source} has never reported")
        elif now - seen > monitor.max_blind:
            blind = format_duration(now - seen)
            yield Condition(
                code="monitor", message=f"the leak source {monitor.source} has been blind for {blind}"
            )


def _each_once(views: Sequence[SignOffView]) -> list[SignOffView]:
    """One person counts once per gate: also through whom they delegated to, or whom they invited."""
    taken: set[str] = set()
    found = []
    for view in views:
        if view.decision == "approve" and view.standing == "counts":
            if view.behind & taken:
                view = view.model_copy(update={"standing": "counted_already"})  # noqa: PLW2901 - the same, judged
            else:
                taken |= view.behind
        found.append(view)
    return found


def _view(state: ReleaseState, record: SignOffRecord, subject: str, step: Step, now: datetime) -> SignOffView:
    invitation = None if record.invitation is None else state.invitations.get(record.invitation)
    standing = (
        _standing(state, record, subject, step, now)
        if record.invitation is None
        else _invited_standing(state, record, subject, step, now)
    )
    return SignOffView(
        person=record.person,
        role=record.role,
        decision=record.decision,
        standing=standing,
        at=record.at,
        expires_at=record.expires_at,
        on_behalf_of=_on_behalf_of(state, record, now),
        comment=record.comment,
        statement=record.statement,
        invited_by=None if invitation is None else invitation.by,
        organisation=None if invitation is None else invitation.organisation,
        shares=record.shares,
    )


def _on_behalf_of(state: ReleaseState, record: SignOffRecord, now: datetime) -> str | None:
    """Whose role it was given in; from the delegations themselves, whatever the event said."""
    person = state.plan.people.get(record.person)
    if person is None or record.role in person.roles or record.invitation is not None:
        return record.on_behalf_of
    return delegated_by(state, record.person, record.role, now) or record.on_behalf_of


def _invited_standing(
    state: ReleaseState, record: SignOffRecord, subject: str, step: Step, now: datetime
) -> Standing:
    """Whether a decision that was given on an invitation counts. A rejection does until it is withdrawn or the step changes."""
    if record.decision == "reject":
        return "counts" if record.step_digest == step_digest(step) else "stale"
    invitation = state.invitations.get(record.invitation or "")
    if invitation is None or invitation.revoked_at is not None:
        return "revoked"
    if invitation.by in state.barred:
        return "barred"
    if not may_invite(state, step, invitation.by, record.role):
        return "not_in_plan"
    if record.subject != subject:
        return "stale"
    return "expired" if record.expires_at <= now else "counts"


def may_invite(state: ReleaseState, step: Step, person: str, role: str) -> bool:
    """Whether the plan lets a person invite an outside reviewer who then signs this gate in a role."""
    return any(
        need.role == role and person in state.plan.inviters(need)
        for need in step.gate.sign_offs
        if need.external
    )


def _standing(
    state: ReleaseState, record: SignOffRecord, subject: str, step: Step, now: datetime
) -> Standing:
    person = state.plan.people.get(record.person)
    standing: Standing = "counts"
    if record.decision == "reject":
        # anybody whom the plan names may stop a gate, and does until they withdraw it or the step is another one
        if person is None:
            standing = "not_in_plan"
        elif record.step_digest != step_digest(step):
            standing = "stale"
    elif person is None or not may_sign_as(state, record.person, record.role, now):
        standing = "not_in_plan"
    elif record.person in state.barred:
        standing = "barred"
    elif record.subject != subject:
        standing = "stale"
    elif record.expires_at <= now:
        standing = "expired"
    return standing


def counting_approvals(state: ReleaseState, step: Step, now: datetime) -> list[SignOffView]:
    """The approvals that count at a gate, whether its step is being entered or not."""
    entering = state.model_copy(update={"status": "active"})
    views = verdict(entering, step, now).sign_offs
    return [view for view in views if view.decision == "approve" and view.standing == "counts"]


def may_sign_as(state: ReleaseState, person: str, role: str, now: datetime) -> bool:
    """Whether the plan names a person for a role, or somebody whom it does has delegated the role to them."""
    known = state.plan.people.get(person)
    if known is None:
        return False
    return role in known.roles or delegated_by(state, person, role, now) is not None


def _delegations(state: ReleaseState, step: Step, now: datetime) -> Iterator[DelegationView]:
    """Those that touch this gate: of a role that it asks for, and in force."""
    asked = {need.role for need in step.gate.sign_offs}
    for given in state.delegations:
        if (
            given.to in state.plan.people
            and given.role in asked
            and delegated_by(state, given.to, given.role, now) == given.person
        ):
            yield DelegationView(person=given.person, to=given.to, role=given.role, until=given.until)


def delegated_by(state: ReleaseState, person: str, role: str, now: datetime) -> str | None:
    """Who lets `person` sign in `role` now; None when nobody does."""
    for delegation in state.delegations:
        giver = state.plan.people.get(delegation.person)
        current = delegation.to == person and delegation.role == role and delegation.until > now
        if current and giver is not None and role in giver.roles and delegation.person not in state.barred:
            return delegation.person
    return None


def _counting(
    state: ReleaseState, requirement: SignOffRequirement, views: Sequence[SignOffView]
) -> list[SignOffView]:
    return [
        view
        for view in views
        if view.decision == "approve"
        and view.standing == "counts"
        and view.role == requirement.role
        and _from_where_asked(state, requirement, view)
    ]


def _from_where_asked(state: ReleaseState, requirement: SignOffRequirement, view: SignOffView) -> bool:
    if view.invited_by is not None:
        return requirement.external and view.invited_by in state.plan.inviters(requirement)
    return not requirement.external or state.plan.people[view.person].external


def _sign_offs(
    state: ReleaseState, step: Step, views: Sequence[SignOffView], delegations: Sequence[DelegationView]
) -> Iterator[Condition]:
    taken: set[str] = set()
    for view in views:
        if view.standing == "counts":
            taken |= view.behind if view.decision == "approve" else {view.person}
    for requirement in step.gate.sign_offs:
        missing = requirement.count - len(_counting(state, requirement, views))
        if missing > 0:
            able = state.plan.people_in_role(requirement.role, external_only=requirement.external)
            inviters = state.plan.inviters(requirement)
            lent = {
                given.to
                for given in delegations
                if given.role == requirement.role
                and given.person not in taken
                and (state.plan.people[given.to].external or not requirement.external)
            }
            who = sorted({*able, *inviters, *lent} - state.barred - taken)
            outside = " from outside" if requirement.external else ""
            message = f"{missing} more sign-off{'s' if missing > 1 else ''} as {requirement.role}{outside}"
            may = sorted(set(inviters) - state.barred - taken)
            if may:
                message += f"; {' or '.join(may)} may invite one"
            late = [
                v
                for v in views
                if v.role == requirement.role and v.standing not in {"counts", "not_in_plan", "barred"}
            ]
            if late:
                message += (
                    " (" + ", ".join(f"{v.person}'s is {v.standing.replace('_', ' ')}" for v in late) + ")"
                )
            yield Condition(code="sign_off", message=message, who=who, role=requirement.role)
    for view in views:
        if view.decision == "reject" and view.standing == "counts":
            told = f": {view.comment}" if view.comment else ""
            yield Condition(
                code="rejection", message=f"{view.person} ({view.role}) rejected{told}", who=[view.person]
            )


def _released(views: Sequence[SignOffView]) -> dict[str, list[str]]:
    return {v.person: v.shares for v in views if v.decision == "approve" and v.standing == "counts"}


def _shares(
    state: ReleaseState, step: Step, views: Sequence[SignOffView], now: datetime
) -> Iterator[Condition]:
    roles = [need.role for need in step.gate.sign_offs]

    def able(person: str) -> bool:
        known = state.plan.people.get(person)
        signs = any(may_sign_as(state, person, role, now) for role in roles)
        return signs and known is not None and bool(known.key_files) and person not in state.barred

    for gap in share_gaps(state, step, _released(views), able):
        yield Condition(code="shares", message=gap.message, who=gap.who)


def _share_views(state: ReleaseState, step: Step, views: Sequence[SignOffView]) -> list[ShareView]:
    released = _released(views)
    dealt = {name: state.artifacts[name].shares for name in keyed_artifacts(state, step)}
    return [
        ShareView(
            artifact=name,
            threshold=shares.threshold,
            holders=shares.holders,
            released=[person for person in shares.holders if name in released.get(person, ())],
        )
        for name, shares in dealt.items()
        if shares is not None
    ]


def _window(state: ReleaseState, step: Step, now: datetime) -> WindowView:
    asked = state.window_asked(step)
    counted = state.window_counted(now)
    why = access_stands_because(state)
    met_at = None
    if counted < asked and why is None:
        met_at = now + (asked - counted)
    return WindowView(
        asked=asked.total_seconds(),
        counted=counted.total_seconds(),
        running=why is None,
        stands_because=why,
        met_at=met_at,
    )


def _time(
    state: ReleaseState, step: Step, now: datetime, views: Sequence[SignOffView], window: WindowView
) -> Iterator[Condition]:
    if window.counted < window.asked:
        asked, counted = timedelta(seconds=window.asked), timedelta(seconds=window.counted)
        state_of_it = "it runs" if window.running else f"it stands: {window.stands_because}"
        yield Condition(
            code="research_window",
            message=f"{format_duration(counted)} of {format_duration(asked)} of research access counted; {state_of_it}",
            met_at=window.met_at,
        )
    yield from _cooling_off(state, step, now, views)
    gate = step.gate
    if gate.not_before is not None and now < gate.not_before:
        yield Condition(
            code="not_before", message=f"not before {gate.not_before.isoformat()}", met_at=gate.not_before
        )
    if gate.opening_hours is not None and not gate.opening_hours.open_at(now):
        opening = gate.opening_hours.next_opening(now)
        told = "never opens" if opening is None else f"opens next at {opening.isoformat()}"
        yield Condition(code="opening_hours", message=f"outside its opening hours; {told}", met_at=opening)


def _cooling_off(
    state: ReleaseState, step: Step, now: datetime, views: Sequence[SignOffView]
) -> Iterator[Condition]:
    asked = step.gate.cooling_off
    if asked is None:
        return
    complete = all(len(_counting(state, need, views)) >= need.count for need in step.gate.sign_offs)
    counting = {view.person for view in views if view.decision == "approve" and view.standing == "counts"}
    if not complete:
        message = f"{format_duration(asked)} of cooling-off begin with the last sign-off"
        yield Condition(code="cooling_off", message=message)
        return
    held = state.held.at(now).total_seconds()
    passed = min(
        (
            now - record.at - timedelta(seconds=held - record.held_before)
            for person, record in state.sign_offs.items()
            if person in counting
        ),
        default=now - state.created_at,
    )
    if passed < asked:
        left = asked - passed
        yield Condition(
            code="cooling_off",
            message=f"{format_duration(left)} of {format_duration(asked)} of cooling-off are left",
            met_at=None if state.holds else now + left,
        )


def _opens_at(step: Step, unmet: Sequence[Condition], now: datetime) -> datetime | None:
    times = [condition.met_at for condition in unmet]
    if not times or any(time is None for time in times):
        return None
    latest = max(time for time in times if time is not None)
    hours = step.gate.opening_hours
    return latest if hours is None else hours.next_opening(max(latest, now))


def _changes_at(
    state: ReleaseState,
    step: Step,
    unmet: Sequence[Condition],
    views: Sequence[SignOffView],
    delegations: Sequence[DelegationView],
    now: datetime,
) -> datetime | None:
    times = [condition.met_at for condition in unmet]
    times += [delegation.until for delegation in delegations]
    times += [view.expires_at for view in views if view.standing == "counts"]
    times += [grant.not_after for grant in state.live_grants()]
    times += [proposal.expires_at for proposal in state.proposals.values()]
    hours = step.gate.opening_hours
    if hours is not None:
        times.append(hours.next_closing(now))
    found = state.evidence_for(step)
    for requirement in step.gate.evidence:
        if requirement.max_age is not None and requirement.kind in found:
            times.append(found[requirement.kind].at + requirement.max_age)
    return min((time for time in times if time is not None and time > now), default=None)


def _etag(state: ReleaseState, subject: str, views: Sequence[SignOffView], step: Step) -> str:
    seen: dict[str, object] = {
        "subject": subject,
        "step": step_digest(step),
        "status": state.status,
        "sign_offs": [[v.person, v.role, v.decision, v.standing] for v in views],
        "holds": sorted(state.holds),
        "incidents": sorted(incident.id for incident in state.open_incidents),
        "waived": state.waived,
    }
    released = {view.person: view.shares for view in views if view.shares}
    if released:
        seen["shares"] = released
    return digest(seen).removeprefix("sha256:")[:32]
