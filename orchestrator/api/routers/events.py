"""What has happened: events as a list, and as a live stream (server-sent events) that can be resumed.

A stream's ids are event numbers: `Last-Event-ID` resumes behind one, without a gap and without a repetition. Streams look
into the records, so that every API process serves every release.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.concurrency import run_in_threadpool
from sse_starlette import EventSourceResponse, ServerSentEvent

from orchestrator.api import feeds
from orchestrator.api.auth import Caller, ReleaseId, acting, guarded, requires
from orchestrator.api.deps import Deps, Parts
from orchestrator.domain.errors import Malformed, Reason
from orchestrator.domain.permissions import Permission
from orchestrator.records import database, releases
from orchestrator.records.releases import StoredEvent

router = APIRouter(prefix="/v1", tags=["events"])

BATCH = 100

After = Annotated[int | None, Query(ge=0, le=2**53, description="only events behind this number")]
Limit = Annotated[int, Query(ge=1, le=200, description="items on a page")]
LastEventId = Annotated[
    str | None, Header(alias="Last-Event-ID", max_length=20, description="resume behind this event")
]
_STREAM = {
    200: {
        "description": "one `event` per event of the release: its `id`, its type, and an `EventView` as JSON `data`",
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": 'id: 12\r\nevent: hold_placed\r\ndata: {"id":940,"seq":12,"type":"hold_placed"}\r\n\r\n',
            }
        },
    }
}


def _streamed(permission: Permission, *statuses: int) -> dict[str, Any]:
    told = guarded(permission, *statuses)
    return {**told, "responses": {**told["responses"], **_STREAM}, "response_class": EventSourceResponse}


@router.get("/releases/{release}/events", operation_id="listEvents", **guarded(Permission.RELEASE_READ, 404))
def list_events(
    release: ReleaseId,
    caller: Annotated[Caller, Depends(acting(Permission.RELEASE_READ))],
    deps: Parts,
    after: After = None,
    limit: Limit = 100,
) -> feeds.EventPage:
    """Events of a release in order, a page at a time; `next_after` is null when these were the last so far."""
    with database.reading(deps.engine) as session:
        found = releases.events(session, release, after=after or 0, limit=limit + 1)
    return _page(found, limit, deps, release)


@router.get("/events", operation_id="listAllEvents", **guarded(Permission.RELEASE_READ))
def list_all_events(
    caller: Annotated[Caller, Depends(requires(Permission.RELEASE_READ))],
    deps: Parts,
    after: After = None,
    limit: Limit = 100,
) -> feeds.EventPage:
    """Events of all releases in the order of their commits: who keeps the last `id` misses none."""
    with database.reading(deps.engine) as session:
        found = releases.feed(session, after=-1 if after is None else after, limit=limit + 1)
    return _page(found, limit, deps, None)


def _page(found: list[StoredEvent], limit: int, deps: Deps, release: str | None) -> feeds.EventPage:
    shown = found[:limit]
    last = None
    if len(found) > limit:
        last = shown[-1].id if release is None else shown[-1].seq
    return feeds.EventPage(
        items=[feeds.event_view(e) for e in shown], next_after=last, server_time=deps.now()
    )


@router.get(
    "/releases/{release}/events/stream",
    operation_id="streamEvents",
    **_streamed(Permission.RELEASE_READ, 404),
)
async def stream_events(
    request: Request,
    release: ReleaseId,
    caller: Annotated[Caller, Depends(acting(Permission.RELEASE_READ))],
    deps: Parts,
    after: After = None,
    last_event_id: LastEventId = None,
) -> EventSourceResponse:
    """Events of a release as they happen, beginning behind `Last-Event-ID` (or `after`). Ends with the release."""
    start = _start(last_event_id, after)
    return _respond(_follow(deps, release, 0 if start is None else start), deps)


@router.get("/events/stream", operation_id="streamAllEvents", **_streamed(Permission.RELEASE_READ))
async def stream_all_events(
    request: Request,
    caller: Annotated[Caller, Depends(requires(Permission.RELEASE_READ))],
    deps: Parts,
    after: After = None,
    last_event_id: LastEventId = None,
) -> EventSourceResponse:
    """Events of all releases as they happen; without a place to begin at, from now on."""
    start = _start(last_event_id, after)
    if start is None:
        start = await run_in_threadpool(_newest, deps)
    return _respond(_follow(deps, None, start), deps)


def _start(last_event_id: str | None, after: int | None) -> int | None:
    if last_event_id is None or not last_event_id.strip():
        return after
    text = last_event_id.strip()
    if not (text.isascii() and text.isdigit()):
        raise Malformed(
            "`Last-Event-ID` is the number of an event",
            [Reason("last-event-id", "send back the last `id` of the stream", "header.Last-Event-ID")],
        )
    return min(int(text), 2**53)


def _newest(deps: Deps) -> int:
    with database.reading(deps.engine) as session:
        return releases.last_event(session)


def _read(deps: Deps, release: str | None, after: int) -> list[StoredEvent]:
    with database.reading(deps.engine) as session:
        if release is None:
            return releases.feed(session, after=after, limit=BATCH)
        return releases.events(session, release, after=after, limit=BATCH)


def _over(deps: Deps, release: str) -> bool:
    with database.reading(deps.engine) as session:
        return releases.summary(session, release).status in {"completed", "aborted"}


async def _follow(deps: Deps, release: str | None, after: int) -> AsyncIterator[ServerSentEvent]:
    """Events behind `after`, for as long as the caller listens, or until the release has ended."""
    ended = False
    while True:
        found = await run_in_threadpool(_read, deps, release, after)
        for stored in found:
            after = stored.id if release is None else stored.seq
            view = feeds.event_view(stored)
            yield ServerSentEvent(data=view.model_dump_json(), event=view.type, id=str(after))
            if release is not None and feeds.ends_release(stored.event):
                return
        if not found and release is not None:
            if ended:
                return
            ended = await run_in_threadpool(_over, deps, release)
            if ended:
                continue  # its last events may have come between the two looks
        if len(found) < BATCH:
            await anyio.sleep(deps.settings.stream_poll)


def _respond(events: AsyncIterator[ServerSentEvent], deps: Deps) -> EventSourceResponse:
    return EventSourceResponse(
        events,
        ping=deps.settings.stream_heartbeat,
        send_timeout=30,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
