"""What of an event is shown: to insiders by the API and by webhooks, and to a partner.

Wrapped keys and whole plans are left out of what insiders see (the plan's digest stays), and so are signed envelopes' plans in
proposals. A partner sees its own grants and nothing else of a release: no step, no person, no reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from orchestrator.domain import events as ev

_HEAD = {"type", "at", "by", "command_id"}

#: Events that can end grants without naming them.
ENDS_GRANTS = (ev.StepEntered, ev.RolledBack, ev.Aborted)


def event_data(event: ev.AnyEvent) -> dict[str, Any]:
    """What belongs to this type of event, as JSON for insiders."""
    data = event.model_dump(mode="json", exclude=_HEAD | {"root", "plan"})
    if isinstance(data.get("payload"), dict):
        data["payload"].pop("plan", None)
    return data


def partner_data(
    event: ev.AnyEvent, partner: str, grants: Iterable[ev.Grant]
) -> tuple[str, dict[str, Any]] | None:
    """What a partner sees of an event: a type (`grants_made`, `grants_ended`, `grant_disclosed`) and its own grants.

    Args:
        event: what has happened.
        partner: the partner.
        grants: its grants of this release as they stand now.

    Returns:
        None when nothing of the event is this partner's.
    """
    own = {grant.id: grant for grant in grants if grant.holder == partner and grant.holder_kind == "partner"}
    match event:
        case ev.StepEntered():
            made = [g for g in event.grants if g.holder == partner and g.holder_kind == "partner"]
            ended = [g for g in own.values() if g.ended_at == event.at]
        case ev.GrantMade():
            made = [event.grant] if event.grant.id in own else []
            ended = []
        case ev.GrantEnded():
            made, ended = [], [own[event.grant]] if event.grant in own else []
        case ev.GrantDisclosed() if event.grant in own:
            return "grant_disclosed", {"grants": [_grant(own[event.grant])]}
        case ev.RolledBack() | ev.Aborted():
            made, ended = [], [g for g in own.values() if g.ended_at == event.at]
        case _:
            return None
    if made:
        return "grants_made", {"grants": [_grant(g) for g in made]}
    if ended:
        return "grants_ended", {"grants": [_grant(g) for g in ended]}
    return None


def _grant(grant: ev.Grant) -> dict[str, Any]:
    return grant.model_dump(
        mode="json",
        include={"id", "step", "kind", "components", "made_at", "not_after", "ended_at", "end"},
    )


#: Every type of event, by its name.
EVENT_TYPES: tuple[str, ...] = tuple(
    sorted(kind.model_fields["type"].default for kind in ev.Event.__subclasses__())
)

#: Every type that a partner's endpoint may ask for.
PARTNER_EVENT_TYPES: tuple[str, ...] = ("grant_disclosed", "grants_ended", "grants_made")
