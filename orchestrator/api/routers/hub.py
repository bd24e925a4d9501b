"""What the sweep sees of a release's repository on the Hub: whether it is as the release left it, and what was not."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from orchestrator.api import views
from orchestrator.api.auth import Caller, ReleaseId, acting, guarded, state_of
from orchestrator.api.deps import Parts
from orchestrator.domain.permissions import Permission
from orchestrator.domain.values import Instant
from orchestrator.records import database, hub_findings
from orchestrator.records.hub_findings import HubFinding

router = APIRouter(prefix="/v1", tags=["caution"])


class HubDifferenceView(views.View):
    """One way in which the repository is not as the release left it."""

    what: str = Field(examples=["gating"])
    expected: str = Field(examples=["manual"])
    actual: str = Field(examples=["off"])
    exposes: bool = Field(description="somebody can see or download more than the step allows")


class HubFindingView(views.View):
    """Differences found together. `gone`: somebody put it right; `other`: at the next look something else was different."""

    id: str
    differences: list[HubDifferenceView]
    exposes: bool
    found_at: Instant
    last_seen_at: Instant
    closed_at: Instant | None
    outcome: Literal["open", "repaired", "gone", "other"]
    incident: str | None = Field(description="the incident that was opened for it")


class HubView(views.Timed):
    """The repository at the last look. `in_order` is null where nobody has looked, or where it cannot be looked at."""

    repository: str | None
    in_order: bool | None
    on_drift: Literal["repair", "raise"] = Field(description="what the plan says is done")
    looked_at: Instant | None
    last_success: Instant | None
    failing_since: Instant | None
    error: str | None = Field(description="why it cannot be looked at now")
    findings: list[HubFindingView] = Field(description="newest first")


@router.get("/releases/{release}/hub", operation_id="getHub", **guarded(Permission.RELEASE_READ, 404))
def get_hub(
    release: ReleaseId,
    caller: Annotated[Caller, Depends(acting(Permission.RELEASE_READ))],
    deps: Parts,
    limit: Annotated[int, Query(ge=1, le=200, description="findings at most")] = 50,
) -> HubView:
    """Whether the release's repository on the Hub is as the release left it, and what was changed there by hand."""
    with database.reading(deps.engine) as session:
        state = state_of(session, release)
        look = hub_findings.last_look(session, release)
        found = hub_findings.findings(session, release, limit=limit)
        there = hub_findings.open_finding(session, release)
    blind = look is None or look.error is not None
    return HubView(
        repository=None if look is None else look.repository,
        in_order=None if blind else there is None,
        on_drift=state.plan.hub_drift,
        looked_at=None if look is None else look.looked_at,
        last_success=None if look is None else look.last_success,
        failing_since=None if look is None else look.failing_since,
        error=None if look is None else look.error,
        findings=[_view(finding) for finding in found],
        server_time=deps.now(),
    )


def _view(finding: HubFinding) -> HubFindingView:
    return HubFindingView(
        id=finding.id,
        differences=[
            HubDifferenceView(what=d.what, expected=d.expected, actual=d.actual, exposes=d.exposes)
            for d in finding.differences
        ],
        exposes=finding.exposes,
        found_at=finding.found_at,
        last_seen_at=finding.last_seen_at,
        closed_at=finding.closed_at,
        outcome=finding.outcome,
        incident=finding.incident,
    )
