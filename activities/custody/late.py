"""Custody's judgement on a grant that is asked for after its step was entered.

The same one as of an entry, from the log alone: somebody asked, the step was entered through a gate that held (by the
signatures and by custody's own clocks as they stood then) and still stands, the partner is in its audience, and nothing
stands in the way now: no hold, no severe incident, no revocation of an earlier grant.

Where the gate asked for key shares, those that its sign-offs released are opened once more: they were given for this
step and its whole audience, lie in the log under custody's key, and are bound to those sign-offs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from activities.custody.clocks import clocks_by_custody
from activities.custody.errors import CustodyRefused
from activities.custody.sharing import Released, released_shares
from orchestrator.domain import events as ev
from orchestrator.domain.decide_late import asked_key, entered_attempt, late_faults, late_grant
from orchestrator.domain.errors import Reason
from orchestrator.domain.plan import Step
from orchestrator.domain.state import ReleaseState

if TYPE_CHECKING:
    from activities.custody.base import Asked
    from activities.custody.checking import Checked

Fold = Callable[[Sequence[ev.AnyEvent]], "Checked"]


@dataclass(frozen=True, slots=True)
class LateGrant:
    """The state, the one grant that is to get envelopes, and the key shares that its step's sign-offs released."""

    state: ReleaseState
    grant: ev.Grant
    released: Mapping[str, Sequence[Released]]


def judge_late(
    asked: Asked,
    checked: Checked,
    events: Sequence[ev.AnyEvent],
    seen: Sequence[datetime],
    fold: Fold,
    tolerance: timedelta,
) -> LateGrant:
    """The state, and the one grant that is to get envelopes.

    Args:
        asked: the request; `late` names the partner.
        checked: the release as custody believes it.
        events: its events, as verified against the log.
        seen: when custody first saw each of them.
        fold: the checked state after a part of the events.
        tolerance: how late custody may have been to look.

    Raises:
        CustodyRefused: it is not to be made, with every reason.
    """
    state, partner = checked.state, asked.late or ""
    step, known = state.plan.step(asked.step), state.grants_asked.get(asked_key(asked.step, partner))
    if step is None or known is None or known.at != asked.at:
        raise CustodyRefused(
            f"by the log, nobody asks for a grant of {partner} at `{asked.step}`", checked.ignored
        )
    reasons = late_faults(state, step, partner)
    released: Mapping[str, Sequence[Released]] = {}
    attempt = entered_attempt(state, step)
    if attempt != asked.attempt:
        reasons.append(Reason("order", f"`{step.name}` was entered in approach {attempt}"))
    elif attempt is not None:
        begun, entered = _entry(step, attempt, events)
        if begun is None or entered is None:
            reasons.append(Reason("order", f"the log does not say when `{step.name}` was entered"))
        else:
            # events of an entry that custody was never asked about could be backdated; what it saw when could not
            past, then = events[: begun + 1], fold(events[: begun + 1]).state
            reasons += clocks_by_custody(then, past, seen[: begun + 1], seen[entered], tolerance)
            released = released_shares(then, step, past, events[begun].at)
    grant = late_grant(state, step, partner, asked.partners.get(partner), state.updated_at)
    if not reasons and (grant is None or grant.kind != "key"):
        reasons.append(Reason("no-key", f"by the plan, {partner} gets no key, or has none yet"))
    if reasons or grant is None:
        raise CustodyRefused(
            f"no grant of {partner} at `{step.name}` can be made", [*reasons, *checked.ignored]
        )
    return LateGrant(state, grant, released)


def _entry(step: Step, attempt: int, events: Sequence[ev.AnyEvent]) -> tuple[int | None, int | None]:
    """The places at which an approach to a step began to enter it, the last time, and entered it."""
    begun = entered = None
    for place, event in enumerate(events):
        if isinstance(event, ev.EntryBegan) and (event.step, event.attempt) == (step.name, attempt):
            begun = place
        if isinstance(event, ev.StepEntered) and (event.step, event.attempt) == (step.name, attempt):
            entered = place
    return begun, entered
