"""What the API shows of events, of the caller, and of what waits for them."""

from __future__ import annotations

from typing import Any, Literal

from orchestrator.api.views import Timed, View
from orchestrator.domain.events import Aborted, AnyEvent, StepEntered
from orchestrator.domain.permissions import Permission, Role
from orchestrator.domain.showing import event_data
from orchestrator.domain.values import Instant, Name
from orchestrator.records.pending import Pending
from orchestrator.records.releases import StoredEvent


class Me(Timed):
    """The caller."""

    id: Name
    kind: Literal["person", "machine", "partner"]
    roles: list[Role]
    permissions: list[Permission]
    partner: Name | None


class PendingPage(Timed):
    """What waits for somebody, soonest first."""

    items: list[Pending]
    next_cursor: str | None


class EventView(View):
    """One event. `id` orders the events of all releases, and is its entry in the audit log; `seq` those of its release.

    `data` holds what belongs to this type; wrapped keys and whole plans are left out (the plan's digest stays).
    """

    id: int
    release: Name
    seq: int
    type: str
    at: Instant
    by: Name
    command_id: str
    data: dict[str, Any]


class EventPage(Timed):
    """Events in order. Ask on with `after=next_after`."""

    items: list[EventView]
    next_after: int | None


def event_view(stored: StoredEvent) -> EventView:
    """An event as it is shown."""
    event = stored.event
    return EventView(
        id=stored.id,
        release=stored.release,
        seq=stored.seq,
        type=event.type,
        at=event.at,
        by=event.by,
        command_id=event.command_id,
        data=event_data(event),
    )


def ends_release(event: AnyEvent) -> bool:
    """Whether nothing comes after this event."""
    return isinstance(event, Aborted) or (isinstance(event, StepEntered) and event.completed)
