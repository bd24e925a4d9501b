"""The clocks of a gate: research window, cooling-off, not-before, opening hours; when it opens, and when time alone changes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from orchestrator.domain.gate_signing import counting_for
from orchestrator.domain.gate_views import Condition, DelegationView, SignOffView, WindowView
from orchestrator.domain.plan import Step
from orchestrator.domain.state import ReleaseState, access_stands_because
from orchestrator.domain.values import format_duration


def research_window(state: ReleaseState, step: Step, now: datetime) -> WindowView:
    """The research window that `step` asks, and how much of it has been counted at `now`."""
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


def clocks_unmet(
    state: ReleaseState, step: Step, now: datetime, views: Sequence[SignOffView], window: WindowView
) -> Iterator[Condition]:
    """What time has not brought yet: research window, cooling-off, not-before, opening hours."""
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
    complete = all(len(counting_for(state, need, views)) >= need.count for need in step.gate.sign_offs)
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


def opens_when(step: Step, unmet: Sequence[Condition], now: datetime) -> datetime | None:
    """When the last of the running clocks is met, inside the opening hours; None when something unmet is no clock that runs."""
    times = [condition.met_at for condition in unmet]
    if not times or any(time is None for time in times):
        return None
    latest = max(time for time in times if time is not None)
    hours = step.gate.opening_hours
    return latest if hours is None else hours.next_opening(max(latest, now))


def changes_when(
    state: ReleaseState,
    step: Step,
    unmet: Sequence[Condition],
    views: Sequence[SignOffView],
    delegations: Sequence[DelegationView],
    now: datetime,
) -> datetime | None:
    """The next instant after `now` at which time alone changes the verdict; None when there is none."""
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
