"""Incidents of all releases: what is open anywhere."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from orchestrator.api import administration as adm
from orchestrator.api.auth import Caller, guarded, requires
from orchestrator.api.deps import Parts
from orchestrator.api.routers.releases import Cursor, Limit
from orchestrator.domain.permissions import Permission
from orchestrator.records import database, incidents

router = APIRouter(prefix="/v1/incidents", tags=["caution"])


@router.get("", operation_id="listAllIncidents", **guarded(Permission.RELEASE_READ))
def list_all_incidents(
    caller: Annotated[Caller, Depends(requires(Permission.RELEASE_READ))],
    deps: Parts,
    is_open: Annotated[
        bool | None, Query(alias="open", description="only open ones, or only closed ones")
    ] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> adm.IncidentPage:
    """Incidents of all releases, newest first."""
    with database.reading(deps.engine) as session:
        page = incidents.list_incidents(session, is_open=is_open, cursor=cursor, limit=limit)
    items = [adm.IncidentEntry(release=found.release, incident=found.incident) for found in page.items]
    return adm.IncidentPage(items=items, next_cursor=page.next, server_time=deps.now())
