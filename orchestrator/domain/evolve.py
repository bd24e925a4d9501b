"""`evolve(state, event) -> state`: what an event changes. Total, and never asks whether it should have happened.

What each kind of event changes stands in the modules beside this one, in tables: `evolve_gate`, `evolve_caution`, `evolve_keys`,
`evolve_access`.

Invariants kept here: `seq` counts the events; clocks are advanced with every event and run exactly while
`access_stands_because` says nothing; a new approach to a gate (entry, rollback) forgets sign-offs and waivers.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

from orchestrator.domain import events as ev
from orchestrator.domain import evolve_access, evolve_caution, evolve_gate, evolve_keys
from orchestrator.domain import state as st
from orchestrator.domain.evolving import Change, Changes
from orchestrator.domain.state import Clock, ReleaseState


def fold(events: Iterable[ev.AnyEvent]) -> ReleaseState:
    """The state after a whole history, which begins with `release_created`.

    Raises:
        ValueError: the history is empty or begins with something else.
    """
    history = iter(events)
    first = next(history, None)
    if not isinstance(first, ev.ReleaseCreated):
        raise ValueError("a release's history begins with release_created")  # noqa: TRY004 - a history is a value
    return reduce(evolve, history, begin(first))


def begin(event: ev.ReleaseCreated) -> ReleaseState:
    """The state after the first event."""
    return ReleaseState(
        release=event.release,
        name=event.name,
        version=event.version,
        creator=event.by,
        created_at=event.at,
        updated_at=event.at,
        plan=event.plan,
        plan_digest=event.plan_digest,
    )


def evolve(state: ReleaseState, event: ev.AnyEvent) -> ReleaseState:
    """The state after one more event."""
    change = _CHANGES[type(event)](state, event)
    changed = state.model_copy(update={**change, "seq": state.seq + 1, "updated_at": event.at})
    return _tick(state, changed, event)


def apply_events(state: ReleaseState, events: Iterable[ev.AnyEvent]) -> ReleaseState:
    """The state after some more events."""
    return reduce(evolve, events, state)


def _tick(before: ReleaseState, after: ReleaseState, event: ev.AnyEvent) -> ReleaseState:
    """Advance the clocks to the event, and let them run or stand by the state after it."""
    now = event.at
    counted = before.clock.at(now, st.access_ends(before)).total_seconds()
    if isinstance(event, ev.StepEntered | ev.RolledBack):
        counted = 0.0
    runs = st.access_stands_because(after) is None
    held = before.held.at(now).total_seconds()
    return after.model_copy(
        update={
            "clock": Clock(counted=counted, running_since=now if runs else None),
            "held": Clock(counted=held, running_since=now if after.holds else None),
        }
    )


def _nothing(state: ReleaseState, e: ev.AnyEvent) -> Change:
    return {}


_CHANGES: Changes = {
    ev.ReleaseCreated: _nothing,
    **evolve_gate.CHANGES,
    **evolve_caution.CHANGES,
    **evolve_keys.CHANGES,
    **evolve_access.CHANGES,
}
