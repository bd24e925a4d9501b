"""What all decisions share: who is asking, is the release still going, and the header of an event."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from orchestrator.domain.commands import Actor, Command
from orchestrator.domain.errors import Conflict, Malformed, NotFound, NotPermitted, Reason, ReleaseEnded
from orchestrator.domain.permissions import Permission
from orchestrator.domain.plan import Step
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import digest


def header(state: ReleaseState, command: Command, now: datetime) -> dict[str, Any]:
    """`at`, `by` and `command_id` of an event. Time never goes back from event to event."""
    return {"at": max(now, state.updated_at), "by": command.actor.id, "command_id": command.command_id}


def short_id(prefix: str, *parts: object) -> str:
    """A name that derives from what it is for: the same parts give the same name."""
    return f"{prefix}-{digest([str(part) for part in parts]).removeprefix('sha256:')[:12]}"


def require_going(state: ReleaseState) -> None:
    """Raise `ReleaseEnded` unless the release can still be commanded."""
    if state.ended:
        raise ReleaseEnded(
            f"the release {state.release} is {state.status}; nothing can be commanded any more"
        )


def require_permission(actor: Actor, permission: Permission) -> None:
    """Raise `NotPermitted` unless the actor carries the permission; the service itself carries them all."""
    if actor.kind == "service" or permission in actor.permissions:
        return
    raise NotPermitted(
        f"{actor.id} lacks the permission {permission}",
        [Reason("permission", f"ask an operator for a role that carries {permission}")],
    )


def require_in_plan(state: ReleaseState, actor: Actor) -> None:
    """Raise `NotPermitted` unless the plan names this person."""
    if actor.id not in state.plan.people or actor.kind != "person":
        raise NotPermitted(f"{actor.id} is not among the people of the plan of {state.release}")


def require_service(actor: Actor) -> None:
    """Raise `NotPermitted` unless the service itself asks."""
    if actor.kind != "service":
        raise NotPermitted("this is done by the service itself, never on request")


def require_step(state: ReleaseState, name: str, path: str = "step") -> Step:
    """The step of that name, or `NotFound`."""
    step = state.plan.step(name)
    if step is None:
        known = ", ".join(s.name for s in state.plan.steps)
        raise NotFound(
            f"the plan has no step `{name}`", [Reason("unknown-step", f"its steps: {known}", path)]
        )
    return step


def require_next(state: ReleaseState, name: str) -> Step:
    """The next step, which must be of that name, or `NotFound`/`Conflict`."""
    step = require_step(state, name)
    upcoming = state.next_step
    if upcoming is None or upcoming.name != name:
        told = "none is left" if upcoming is None else f"the next one is `{upcoming.name}`"
        raise Conflict(f"the gate of `{name}` is not the next one: {told}", [Reason("order", told, "step")])
    return step


def require_components(state: ReleaseState, names: list[str], path: str = "components") -> None:
    """Raise `Malformed` with every component that the plan does not have."""
    unknown = [
        Reason("unknown-component", f"the plan has no component `{name}`", f"{path}[{i}]")
        for i, name in enumerate(names)
        if name not in state.plan.components
    ]
    if unknown:
        raise Malformed("the command names components that the plan does not have", unknown)


def require_signed(state: ReleaseState, person: str, envelope: str | None) -> None:
    """Raise `NotPermitted` unless the decision is signed, where the plan pins keys of the person."""
    named = state.plan.people.get(person)
    if named is not None and named.keys and envelope is None:
        raise NotPermitted(
            f"the plan pins keys of {person}: only a signed decision counts",
            [Reason("unsigned", "sign with `sluice`, or with a passkey in the console", "envelope")],
        )
