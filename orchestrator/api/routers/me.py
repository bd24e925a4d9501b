"""The caller: who they are, and what waits for them."""

from __future__ import annotations

from fastapi import APIRouter

from orchestrator.api import feeds
from orchestrator.api.auth import AnyCaller, guarded
from orchestrator.api.deps import Parts
from orchestrator.api.routers.releases import Cursor, Limit
from orchestrator.records import database, pending

router = APIRouter(prefix="/v1/me", tags=["me"])


@router.get("", operation_id="getMe", **guarded(None))
def get_me(caller: AnyCaller, deps: Parts) -> feeds.Me:
    """Who is asking, and what they may do."""
    return feeds.Me(
        id=caller.id,
        kind=caller.kind,
        roles=list(caller.roles),
        permissions=sorted(caller.permissions),
        partner=caller.partner,
        server_time=deps.now(),
    )


@router.get("/pending", operation_id="listPending", **guarded(None))
def list_pending(
    caller: AnyCaller, deps: Parts, cursor: Cursor = None, limit: Limit = 50
) -> feeds.PendingPage:
    """What waits for the caller in all releases, soonest first."""
    with database.reading(deps.engine) as session:
        page = pending.for_person(session, caller.id, cursor=cursor, limit=limit)
    return feeds.PendingPage(items=page.items, next_cursor=page.next, server_time=deps.now())
