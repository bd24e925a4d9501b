"""`reminders(state, now)`: what ends soon, or waits for long, and whom to tell. The plan says how soon (`reminders:`).

A reminder begins `before` its end and is over at it. What lasts no longer than `before` altogether needs none: nobody has to be
reminded of what began less than that ago. Each has a key that stays the same for as long as it is about the same thing, so that it is
said once: `state.reminded` keeps the keys of those that were.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Literal

from orchestrator.domain.gate import verdict
from orchestrator.domain.gate_views import Verdict
from orchestrator.domain.plan import Step
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import Frozen, Instant, Name, Text, digest, format_duration

Kind = Literal[
    "window_ends",
    "cooling_off_ends",
    "sign_off_expires",
    "sign_off_waits",
    "evidence_ages",
    "delegation_ends",
    "invitation_expires",
]


class Reminder(Frozen):
    """Something that ends soon, or waits for long.

    Attributes:
        key: what it is about; the same for as long as that is the same.
        people: whom to tell; names of the plan.
        since: from when on it is told.
        due: when it ends; of `sign_off_waits`, since when it is told.
    """

    key: str
    kind: Kind
    message: Text
    step: Name | None = None
    people: list[Name]
    since: Instant
    due: Instant


def reminders(state: ReleaseState, now: datetime, gate: Verdict | None = None) -> list[Reminder]:
    """What is to be told at `now`, the soonest end first, whether it was told before or not.

    `gate`: the verdict on the next step at `now`, when the caller has it already.
    """
    found = [one for one in _all(state, now, gate) if _told_at(one, now)]
    return sorted(found, key=lambda one: (one.due, one.key))


def untold(state: ReleaseState, now: datetime) -> list[Reminder]:
    """Of these, what was not told yet."""
    return [one for one in reminders(state, now) if one.key not in state.reminded]


def next_reminder(state: ReleaseState, now: datetime) -> datetime | None:
    """When the next one begins, if nothing changes before; None: never."""
    begins = [one.since for one in _all(state, now) if one.since > now and one.key not in state.reminded]
    return min(begins, default=None)


def _told_at(one: Reminder, now: datetime) -> bool:
    return one.since <= now and (one.kind == "sign_off_waits" or now < one.due)


def _all(state: ReleaseState, now: datetime, gate: Verdict | None = None) -> Iterator[Reminder]:
    wanted = state.plan.reminders
    if wanted is None or state.ended:
        return
    step = state.next_step
    if step is not None:
        found = gate or verdict(state, step, now)
        yield from _clocks(state, step, found, wanted.before)
        yield from _sign_offs(state, step, found, wanted.before)
        yield from _waiting(state, step, found, wanted.waiting)
        yield from _evidence(state, step, wanted.before)
        yield from _invitations(state, step, found, wanted.before, now)
    yield from _delegations(state, wanted.before, now)


def _key(kind: Kind, *about: object) -> str:
    return f"{kind}-{digest([str(part) for part in about]).removeprefix('sha256:')[:20]}"


def _clocks(state: ReleaseState, step: Step, gate: Verdict, before: timedelta) -> Iterator[Reminder]:
    """Clocks that run towards the opening of the next gate: the last chance to look, to extend, to reject."""
    missing = sorted({person for c in gate.unmet if c.code == "sign_off" for person in c.who})
    people = missing or sorted(state.plan.people)
    left = f"; still missing: {', '.join(missing)}" if missing else ""
    window = gate.window
    if window.met_at is not None and window.asked > before.total_seconds():
        yield Reminder(
            key=_key("window_ends", step.name, state.attempt, window.asked),
            kind="window_ends",
            message=f"the research window before `{step.name}` ends at {_when(window.met_at)}{left}",
            step=step.name,
            people=people,
            since=window.met_at - before,
            due=window.met_at,
        )
    asked = step.gate.cooling_off
    ends = next((c.met_at for c in gate.unmet if c.code == "cooling_off"), None)
    if ends is not None and asked is not None and asked > before:
        counting = sorted(str(v.statement or v.at) for v in gate.sign_offs if v.standing == "counts")
        yield Reminder(
            key=_key("cooling_off_ends", step.name, state.attempt, *counting),
            kind="cooling_off_ends",
            message=f"the cooling-off before `{step.name}` ends at {_when(ends)}; until then its approvals can be withdrawn",
            step=step.name,
            people=sorted(state.plan.people),
            since=ends - before,
            due=ends,
        )


def _sign_offs(state: ReleaseState, step: Step, gate: Verdict, before: timedelta) -> Iterator[Reminder]:
    for view in gate.sign_offs:
        if view.decision == "approve" and view.standing == "counts" and view.expires_at - view.at > before:
            yield Reminder(
                key=_key("sign_off_expires", step.name, state.attempt, view.person, view.expires_at),
                kind="sign_off_expires",
                message=f"the sign-off of {view.person} ({view.role}) on `{step.name}` expires at {_when(view.expires_at)}",
                step=step.name,
                people=[view.invited_by or view.person],
                since=view.expires_at - before,
                due=view.expires_at,
            )


def _waiting(state: ReleaseState, step: Step, gate: Verdict, waiting: timedelta | None) -> Iterator[Reminder]:
    """Sign-offs that nothing but people keeps waiting: what they sign has been there for so long."""
    if waiting is None or any(c.code in {"artifact", "evidence", "hold", "entry_failed"} for c in gate.unmet):
        return
    there = max(
        [
            state.approached_at or (state.history[-1].at if state.history else state.created_at),
            *(document.at for document in state.evidence_for(step).values()),
            *(state.artifacts[name].at for name in state.manifests_for(step)),
        ]
    )
    for condition in gate.unmet:
        if condition.code == "sign_off" and condition.who:
            role = condition.role or ""
            yield Reminder(
                key=_key("sign_off_waits", step.name, state.attempt, role, gate.subject_digest),
                kind="sign_off_waits",
                message=f"`{step.name}` has waited since {_when(there)} ({format_duration(waiting)} and more) for {condition.message}",
                step=step.name,
                people=condition.who,
                since=there + waiting,
                due=there + waiting,
            )


def _evidence(state: ReleaseState, step: Step, before: timedelta) -> Iterator[Reminder]:
    found = state.evidence_for(step)
    for requirement in step.gate.evidence:
        document = found.get(requirement.kind)
        if document is None or requirement.max_age is None or requirement.max_age <= before:
            continue
        ends = document.at + requirement.max_age
        yield Reminder(
            key=_key("evidence_ages", step.name, document.id),
            kind="evidence_ages",
            message=f"the {requirement.kind} for `{step.name}` is too old from {_when(ends)} on",
            step=step.name,
            people=sorted(state.plan.people),
            since=ends - before,
            due=ends,
        )
    for control in step.controls:
        report = state.control_report(step.name, control.kind)
        if report is None or not report.in_force or control.max_age is None or control.max_age <= before:
            continue
        ends = report.at + control.max_age
        yield Reminder(
            key=_key("evidence_ages", step.name, control.kind, report.at),
            kind="evidence_ages",
            message=f"the control {control.kind} of `{step.name}` has to be shown again before {_when(ends)}",
            step=step.name,
            people=sorted(state.plan.people),
            since=ends - before,
            due=ends,
        )


def _invitations(
    state: ReleaseState, step: Step, gate: Verdict, before: timedelta, now: datetime
) -> Iterator[Reminder]:
    for invitation in state.invitations.values():
        stale = invitation.subject != gate.subject_digest
        if not invitation.open or stale or invitation.expires_at - invitation.at <= before:
            continue
        if invitation.expires_at > now and invitation.by in state.plan.people:
            yield Reminder(
                key=_key("invitation_expires", invitation.id),
                kind="invitation_expires",
                message=f"the invitation of {invitation.reviewer} to `{step.name}` expires unused at {_when(invitation.expires_at)}",
                step=step.name,
                people=[invitation.by],
                since=invitation.expires_at - before,
                due=invitation.expires_at,
            )


def _delegations(state: ReleaseState, before: timedelta, now: datetime) -> Iterator[Reminder]:
    for given in state.delegations:
        people = sorted({given.person, given.to} & set(state.plan.people))
        lasted = given.at is None or given.until - given.at > before
        if given.until > now and people and lasted:
            yield Reminder(
                key=_key("delegation_ends", given.person, given.to, given.role, given.until),
                kind="delegation_ends",
                message=f"{given.to} may sign as {given.role} for {given.person} until {_when(given.until)}",
                people=people,
                since=given.until - before,
                due=given.until,
            )


def _when(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
