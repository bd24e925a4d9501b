"""What one looks at: what waits for me, releases, one release, one gate. Reading alone; nothing here changes anything."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from orchestrator.api import views
from orchestrator.api.auth import Caller, state_of
from orchestrator.api.context import context_of
from orchestrator.api.deps import Parts
from orchestrator.console.showing import ConsoleRoute, looking, page
from orchestrator.domain.deciding import require_step
from orchestrator.domain.permissions import Permission
from orchestrator.domain.preview import entering_words
from orchestrator.domain.stage import Stage
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import Name
from orchestrator.records import database, pending, releases
from orchestrator.records.releases import Filter
from orchestrator.trust.decisions import pinned_keys
from orchestrator.trust.errors import TrustError

router = APIRouter(prefix="/console", include_in_schema=False, route_class=ConsoleRoute)

Looking = Annotated[Caller, Depends(looking)]
_EVENTS = 40


@router.get("")
def home(request: Request, caller: Looking, deps: Parts) -> Response:
    """What waits for the person, and the releases that changed last."""
    with database.reading(deps.engine) as session:
        waits = pending.for_person(session, caller.id, limit=50).items
        latest = (
            releases.list_releases(session, Filter(), order="updated", limit=10).items
            if caller.may(Permission.RELEASE_READ)
            else []
        )
    return page(
        request, "home.html", caller=caller, waits=waits, releases=[views.summary(row) for row in latest]
    )


@router.get("/releases")
def release_list(
    request: Request,
    caller: Looking,
    deps: Parts,
    stage: Annotated[Stage | None, Query()] = None,
    status: Annotated[views.Status | None, Query()] = None,
    name: Annotated[str | None, Query(max_length=200)] = None,
    cursor: Annotated[str | None, Query(max_length=2000)] = None,
) -> Response:
    """Releases, a page at a time."""
    caller.require(Permission.RELEASE_READ)
    where = Filter(status=status, stage=None if stage is None else stage.value, name_prefix=name or None)
    with database.reading(deps.engine) as session:
        found = releases.list_releases(
            session, where, order="name" if name else "created", cursor=cursor, limit=50
        )
    return page(
        request,
        "releases.html",
        caller=caller,
        releases=[views.summary(row) for row in found.items],
        next_cursor=found.next,
        stages=list(Stage),
        stage=stage,
        status=status,
        name=name or "",
    )


@router.get("/releases/{release}")
def release_page(request: Request, release: Name, caller: Looking, deps: Parts) -> Response:
    """One release as it stands."""
    state = _state(request, release, caller, deps)
    now = deps.now()
    with database.reading(deps.engine) as session:
        events = releases.events(session, release, after=max(0, state.seq - _EVENTS))
    return page(
        request,
        "release.html",
        caller=caller,
        state=state,
        detail=views.detail(state, now),
        steps=views.step_list(state, now).items,
        grants=sorted(state.grants.values(), key=lambda grant: grant.made_at, reverse=True),
        events=[stored.event for stored in reversed(events)],
        incident_components=sorted(state.plan.components),
        named=caller.id in state.plan.people,
    )


@router.get("/releases/{release}/steps/{step}")
def gate_page(request: Request, release: Name, step: Name, caller: Looking, deps: Parts) -> Response:
    """One gate: what is missing, who and what can meet it, what a sign-off signs, and the person's own decision."""
    state = _state(request, release, caller, deps)
    context_of(request).step = step
    found = require_step(state, step)
    now = deps.now()
    following = state.next_step
    person = state.plan.people.get(caller.id)
    return page(
        request,
        "gate.html",
        caller=caller,
        state=state,
        step=found,
        gate=views.gate_view(state, found, now),
        standing=views.step_view(state, found, now),
        is_next=following is not None and following.name == step,
        means=entering_words(state, step),
        person=person,
        roles=[] if person is None else person.roles,
        mine=state.sign_offs.get(caller.id),
        barred=caller.id in state.barred,
        documents=state.evidence_for(found),
        keys=_keys(state, caller.id),
    )


def _keys(state: ReleaseState, person: str) -> str:
    """What the plan pins for a person: `none`, `passkey`, or `file` alone."""
    try:
        kinds = {key.kind for key in pinned_keys(state.plan, person)}
    except TrustError:
        return "file"
    if not kinds:
        return "none"
    return "passkey" if any(kind.startswith("passkey") for kind in kinds) else "file"


def _state(request: Request, release: str, caller: Caller, deps: Parts) -> ReleaseState:
    context_of(request).release = release
    caller.require(Permission.RELEASE_READ)
    with database.reading(deps.engine) as session:
        return state_of(session, release)
