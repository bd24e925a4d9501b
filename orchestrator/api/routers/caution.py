"""Holds, incidents, reviews, amendments, proposals: caution, which is cheap, and its undoing, which is dear."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from orchestrator.api import bodies, views
from orchestrator.api.auth import commanded, guarded, reading
from orchestrator.api.deps import Parts
from orchestrator.api.sending import Sending, sends
from orchestrator.domain import commands as cmd
from orchestrator.domain.deciding import short_id
from orchestrator.domain.permissions import Permission
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import Name

router = APIRouter(prefix="/v1/releases/{release}", tags=["caution"])

IncidentId = Annotated[Name, Path(description="id of the incident")]


@router.post("/hold", operation_id="hold", **commanded(Permission.RELEASE_HOLD))
async def hold(
    body: bodies.ReasonBody, send: Annotated[Sending, Depends(sends(Permission.RELEASE_HOLD))]
) -> views.CommandResult:
    """Stop all clocks and gates, at once. One person may."""
    return await send(cmd.Hold(**send.head, reason=body.reason))


@router.post("/resume", operation_id="resume", **commanded(Permission.RELEASE_RESUME))
async def resume(
    body: bodies.ResumeBody, send: Annotated[Sending, Depends(sends(Permission.RELEASE_RESUME))]
) -> views.CommandResult:
    """Lift the holds that stand now: proposed at first, carried out when a quorum stands behind it."""
    return await send(cmd.Resume(**send.head, **dict(body)))


@router.get("/incidents", operation_id="listIncidents", **guarded(Permission.RELEASE_READ, 404))
def list_incidents(state: Annotated[ReleaseState, Depends(reading())], deps: Parts) -> views.IncidentList:
    """Incidents of the release, the latest first."""
    items = sorted(state.incidents.values(), key=lambda incident: incident.at, reverse=True)
    return views.IncidentList(release=state.release, items=items, server_time=deps.now())


@router.post("/incidents", operation_id="reportIncident", **commanded(Permission.INCIDENT_REPORT))
async def report_incident(
    body: bodies.IncidentBody, send: Annotated[Sending, Depends(sends(Permission.INCIDENT_REPORT))]
) -> views.CommandResult:
    """Report a leak, misuse or harm. The plan's response table acts at once."""
    fields = dict(body)
    incident = fields.pop("id") or short_id("incident", send.command_id)
    return await send(cmd.ReportIncident(**send.head, incident=incident, **fields))


@router.post(
    "/incidents/{incident}/triage", operation_id="triageIncident", **commanded(Permission.INCIDENT_TRIAGE)
)
async def triage_incident(
    incident: IncidentId,
    body: bodies.TriageBody,
    send: Annotated[Sending, Depends(sends(Permission.INCIDENT_TRIAGE))],
) -> views.CommandResult:
    """Judge an incident: how bad, how sure, whose copy."""
    return await send(cmd.TriageIncident(**send.head, incident=incident, **dict(body)))


@router.post(
    "/incidents/{incident}/close", operation_id="closeIncident", **commanded(Permission.INCIDENT_CLOSE)
)
async def close_incident(
    incident: IncidentId,
    body: bodies.CloseIncidentBody,
    send: Annotated[Sending, Depends(sends(Permission.INCIDENT_CLOSE))],
) -> views.CommandResult:
    """Close an incident with a written outcome; a severe one, and every leak, by a quorum."""
    return await send(cmd.CloseIncident(**send.head, incident=incident, **dict(body)))


@router.post("/amendments", operation_id="amendPlan", **commanded(Permission.RELEASE_AMEND))
async def amend(
    body: bodies.AmendBody, send: Annotated[Sending, Depends(sends(Permission.RELEASE_AMEND))]
) -> views.CommandResult:
    """Replace the plan from here on, by the quorum of the plan that is replaced."""
    return await send(cmd.AmendPlan(**send.head, **dict(body)))


@router.post("/proposals/{proposal}/endorse", operation_id="endorse", **commanded(Permission.RELEASE_READ))
async def endorse(
    proposal: Annotated[Name, Path(description="id of the proposal")],
    body: bodies.EndorseBody,
    send: Annotated[Sending, Depends(sends(Permission.RELEASE_READ))],
) -> views.CommandResult:
    """Stand behind somebody else's proposal. What is proposed decides which permission is needed."""
    return await send(cmd.Endorse(**send.head, proposal=proposal, envelope=body.envelope))


@router.post(
    "/reviews/{review}/close", operation_id="closeReview", **commanded(Permission.RELEASE_BREAK_GLASS)
)
async def close_review(
    review: Annotated[Name, Path(description="id of the review")],
    body: bodies.ReviewBody,
    send: Annotated[Sending, Depends(sends(Permission.RELEASE_BREAK_GLASS))],
) -> views.CommandResult:
    """Close the review of a broken glass; by somebody who did not break it."""
    return await send(cmd.CloseReview(**send.head, review=review, **dict(body)))


@router.post("/rollback", operation_id="rollBack", **commanded(Permission.RELEASE_ROLLBACK))
async def roll_back(
    body: bodies.RollBackBody, send: Annotated[Sending, Depends(sends(Permission.RELEASE_ROLLBACK))]
) -> views.CommandResult:
    """Go back to an earlier step. What is out already is said in the preview and stays out."""
    return await send(cmd.RollBack(**send.head, **dict(body)))


@router.post("/abort", operation_id="abort", **commanded(Permission.RELEASE_ABORT))
async def abort(
    body: bodies.ReasonBody, send: Annotated[Sending, Depends(sends(Permission.RELEASE_ABORT))]
) -> views.CommandResult:
    """End the release for good."""
    return await send(cmd.Abort(**send.head, reason=body.reason))


@router.post("/delegations", operation_id="delegate", **commanded(Permission.GATE_SIGN))
async def delegate(
    body: bodies.DelegateBody, send: Annotated[Sending, Depends(sends(Permission.GATE_SIGN))]
) -> views.CommandResult:
    """Let somebody else sign in one of one's roles until a date."""
    return await send(cmd.Delegate(**send.head, **dict(body)))


@router.post("/access", operation_id="reportAccess", **commanded(Permission.ACCESS_REPORT))
async def report_access(
    body: bodies.AccessBody, send: Annotated[Sending, Depends(sends(Permission.ACCESS_REPORT))]
) -> views.CommandResult:
    """Say whether people with access can really use it; an outage stops the research window."""
    return await send(cmd.ReportAccess(**send.head, **dict(body)))
