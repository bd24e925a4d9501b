"""Releases: create, list, look at; their plan."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import anyio
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from orchestrator.api import bodies, views
from orchestrator.api.auth import Caller, guarded, reading, requires
from orchestrator.api.context import context_of
from orchestrator.api.deps import Deps, Parts
from orchestrator.api.sending import RequiredIdempotencyKey, Sending, keyed, prior
from orchestrator.contracts.messages import Outcome
from orchestrator.domain import commands as cmd
from orchestrator.domain.decide import decide_create
from orchestrator.domain.errors import Conflict, Malformed, NotFound, Reason
from orchestrator.domain.permissions import Permission
from orchestrator.domain.stage import Stage
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import Name
from orchestrator.records import database, releases
from orchestrator.records.releases import Filter

router = APIRouter(prefix="/v1/releases", tags=["releases"])

Cursor = Annotated[
    str | None,
    Query(max_length=2000, description="`next_cursor` of the page before; left out: the first page"),
]
Limit = Annotated[int, Query(ge=1, le=200, description="items on a page")]


@router.post(
    "",
    operation_id="createRelease",
    **guarded(
        Permission.RELEASE_CREATE,
        409,
        413,
        success=201,
        headers={"Location": "where the release is", "Idempotency-Key": "the key of this request"},
    ),
)
async def create_release(
    request: Request,
    response: Response,
    body: bodies.CreateReleaseBody,
    caller: Annotated[Caller, Depends(requires(Permission.RELEASE_CREATE))],
    deps: Parts,
    key: RequiredIdempotencyKey,
) -> views.CommandResult:
    """Start a release along a plan. A plan that breaks rules is refused with every broken one."""
    context = context_of(request)
    release = body.id or release_id(body.name, body.version)
    context.release = release
    send = Sending(deps, caller, context, release, keyed(context, key), given=True)
    command = cmd.CreateRelease(
        **send.head, release=release, name=body.name, version=body.version, plan=body.plan
    )
    context.command = command.type
    response.headers["Location"] = f"/v1/releases/{release}"
    known = await run_in_threadpool(prior, deps, release, command)
    if known is not None:
        return send.result(known)
    decide_create(command, deps.now())  # a refused one never starts a workflow, so its id stays free
    await run_in_threadpool(_require_new, deps, command)
    try:
        return send.result(
            await deps.gateway.create(command, request_id=context.request_id, address=context.client)
        )
    except Conflict:
        known = await _sent_twice(deps, command)
        if known is None:
            raise
        return send.result(known)


async def _sent_twice(deps: Deps, command: cmd.CreateRelease) -> Outcome | None:
    """The answer of this very request, when it was sent twice at once and the other one was first."""
    for _ in range(20):
        known = await run_in_threadpool(prior, deps, command.release, command)
        if known is not None or await run_in_threadpool(_exists, deps, command.release):
            return known
        await anyio.sleep(0.1)  # its workflow runs, and has not written yet
    return None


def _exists(deps: Deps, release: str) -> bool:
    with database.reading(deps.engine) as session:
        try:
            releases.summary(session, release)
        except NotFound:
            return False
    return True


def _require_new(deps: Deps, command: cmd.CreateRelease) -> None:
    with database.reading(deps.engine) as session:
        known = releases.find(session, command.name, command.version)
    if known is not None and known.id != command.release:
        raise Conflict(
            f"a release of `{command.name}` in version `{command.version}` exists already",
            [Reason("taken", "choose another version", "body.version")],
        )


def release_id(name: str, version: str) -> str:
    """An id made of name and version: `gt-mini-1.0`.

    Raises:
        Malformed: nothing usable is left of them.
    """
    words = re.sub(r"[^a-z0-9._-]+", "-", f"{name}-{version}".lower()).strip("-._")[:63].strip("-._")
    if not words:
        raise Malformed(
            "no id can be made of name and version", [Reason("id", "give the release an `id`", "body.id")]
        )
    return words


@router.get("", operation_id="listReleases", **guarded(Permission.RELEASE_READ))
def list_releases(
    caller: Annotated[Caller, Depends(requires(Permission.RELEASE_READ))],
    deps: Parts,
    stage: Annotated[Stage | None, Query(description="only at this stage")] = None,
    status: Annotated[views.Status | None, Query(description="only of this status")] = None,
    name: Annotated[
        str | None, Query(max_length=200, description="only names that begin so, in any case")
    ] = None,
    waiting_for: Annotated[
        Name | None, Query(description="only those that wait for this person; `me` is the caller")
    ] = None,
    order: Annotated[
        Literal["created", "updated", "name"], Query(description="newest, last changed, or by name")
    ] = "created",
    cursor: Cursor = None,
    limit: Limit = 50,
) -> views.ReleasePage:
    """Releases, a page at a time."""
    person = caller.id if waiting_for == "me" else waiting_for
    where = Filter(
        status=status, stage=None if stage is None else stage.value, name_prefix=name, waiting_for=person
    )
    with database.reading(deps.engine) as session:
        page = releases.list_releases(session, where, order=order, cursor=cursor, limit=limit)
    return views.ReleasePage.model_construct(
        items=[views.summary(row) for row in page.items], next_cursor=page.next, server_time=deps.now()
    )


@router.get("/{release}", operation_id="getRelease", **guarded(Permission.RELEASE_READ, 404))
def get_release(state: Annotated[ReleaseState, Depends(reading())], deps: Parts) -> views.ReleaseDetail:
    """A release as it stands now."""
    return views.detail(state, deps.now())


@router.get("/{release}/plan", operation_id="getPlan", **guarded(Permission.RELEASE_READ, 404))
def get_plan(state: Annotated[ReleaseState, Depends(reading())], deps: Parts) -> views.PlanView:
    """The plan that holds, with its digest."""
    return views.PlanView(
        release=state.release, digest=state.plan_digest, plan=state.plan, server_time=deps.now()
    )
