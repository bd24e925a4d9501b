"""What of a gate's clocks has passed by custody's own clock, whatever the events say.

The events' times come from the service. Custody remembers when it first saw each leaf: a window cannot have counted longer
than since custody saw its step entered (or rolled back to), a cooling-off not longer than since it saw the last approval
that counts, and an entry that needs opening hours was seen within them. Backdated events therefore gain nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from orchestrator.domain import events as ev
from orchestrator.domain.errors import Reason
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import format_duration

_ZERO = timedelta(0)


def clocks_by_custody(
    state: ReleaseState,
    history: Sequence[ev.AnyEvent],
    seen: Sequence[datetime],
    now: datetime,
    tolerance: timedelta,
) -> list[Reason]:
    """What has not passed yet; empty when everything has. See `clocks_left`."""
    return [reason for reason, _ in clocks_left(state, history, seen, now, tolerance)]


def _used_too_late(
    state: ReleaseState, history: Sequence[ev.AnyEvent], seen: Sequence[datetime], tolerance: timedelta
) -> list[Reason]:
    """Approvals of invited reviewers that custody saw after their invitation's end: a backdated one gains nothing."""
    counting = {
        record.invitation: record
        for record in state.sign_offs.values()
        if record.invitation is not None and record.decision == "approve"
    }
    found = []
    for event, seen_at in zip(history, seen, strict=True):
        if not isinstance(event, ev.SignedOff) or event.invitation not in counting:
            continue
        invitation = state.invitations.get(event.invitation or "")
        if invitation is not None and seen_at > invitation.expires_at + tolerance:
            told = f"custody first saw the sign-off of {event.by} after their invitation had expired"
            found.append(Reason("sign_off", f"{told}; invite them again"))
    return found


def clocks_left(
    state: ReleaseState,
    history: Sequence[ev.AnyEvent],
    seen: Sequence[datetime],
    now: datetime,
    tolerance: timedelta,
) -> list[tuple[Reason, timedelta | None]]:
    """What has not passed yet, each with how long it still takes; None where waiting does not help.

    Args:
        state: the checked state, entering.
        history: the release's events.
        seen: when custody first saw each of them.
        now: custody's clock.
        tolerance: how late custody may have been to look.
    """
    step = None if state.entry is None else state.plan.step(state.entry.step)
    if step is None:
        return []
    reasons: list[tuple[Reason, timedelta | None]] = []

    def last(which: Callable[[ev.AnyEvent], bool]) -> datetime | None:
        places = [place for place, event in enumerate(history) if which(event)]
        return seen[places[-1]] if places else None

    def passed(since: datetime | None, asked: timedelta | None, what: str) -> None:
        if asked is None or asked <= _ZERO or since is None or what in state.waived:
            return
        counted = now - since + tolerance
        if counted < asked:
            left = f"{format_duration(asked - counted)} of {format_duration(asked)} are left"
            reasons.append((Reason(what, f"by custody's own clock {left}"), asked - counted))

    arrived = last(lambda event: isinstance(event, ev.StepEntered | ev.RolledBack))
    passed(arrived, state.window_asked(step), "research_window")
    approving = {person for person, record in state.sign_offs.items() if record.decision == "approve"}
    approved = last(lambda event: isinstance(event, ev.SignedOff) and event.by in approving)
    passed(approved, step.gate.cooling_off, "cooling_off")
    reasons += [(reason, None) for reason in _used_too_late(state, history, seen, tolerance)]
    hours = step.gate.opening_hours
    began = last(lambda event: isinstance(event, ev.EntryBegan))
    if (
        hours is not None
        and began is not None
        and "opening_hours" not in state.waived
        and not (hours.open_at(began) or hours.open_at(began - tolerance))
    ):
        told = "custody first saw the entry outside the gate's opening hours"
        reasons.append((Reason("opening_hours", told), None))
    return reasons
