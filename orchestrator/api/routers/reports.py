"""Leak reports: from anybody (strictly limited), from people inside, from outside monitors that sign what they send."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Path, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse
from pydantic import Field, ValidationError
from standardwebhooks import Webhook, WebhookVerificationError

from orchestrator.api import report_page
from orchestrator.api.auth import Caller, guarded, looks, requires
from orchestrator.api.context import context_of
from orchestrator.api.deps import Deps, Parts
from orchestrator.api.limiting import Limiter
from orchestrator.api.problems import Unauthenticated, documented
from orchestrator.api.reporting import (
    LeakReportBody,
    LeakReportView,
    ReportEntry,
    ReportPage,
    entry_of,
    report_of,
)
from orchestrator.api.routers.releases import Cursor, Limit
from orchestrator.domain.errors import Malformed, SluiceError
from orchestrator.domain.permissions import Permission
from orchestrator.domain.values import Frozen, Name
from orchestrator.records import database, reports
from orchestrator.records.reports import Report

router = APIRouter(tags=["leaks"])

_PUBLIC: dict[str, Any] = {"responses": documented(413, 422, 429), "status_code": 202}


class FindingsBody(Frozen):
    """What an outside monitor found: at most 100 places, each as a report."""

    findings: list[LeakReportBody] = Field(min_length=1, max_length=100)


_FINDINGS = {
    name: value
    for name, value in FindingsBody.model_json_schema(ref_template="#/components/schemas/{model}").items()
    if name != "$defs"
}


class FindingsView(Frozen):
    """The reports that were taken in, in order."""

    reports: list[Name]


def _hand_in(deps: Deps, made: list[Report]) -> list[Report]:
    with database.writing(deps.engine) as session:
        return [reports.hand_in(session, report) for report in made]


def _limited(request: Request) -> None:
    limiter: Limiter = request.app.state.limiter
    limiter.reporter(context_of(request).client)


@router.post("/v1/reports", operation_id="reportLeak", **_PUBLIC)
def report_leak(request: Request, body: LeakReportBody, deps: Parts) -> LeakReportView:
    """Report a leak without an account. Strictly limited for each address; nothing is asked at the place right away."""
    _limited(request)
    now = deps.now()
    made = report_of(
        body,
        via="public",
        at=now,
        key=f"public:{context_of(request).request_id}",
        allowed=deps.allowed_address,
    )
    (kept,) = _hand_in(deps, [made])
    return LeakReportView(id=kept.id, at=kept.at, server_time=now)


@router.post(
    "/v1/leaks/reports",
    operation_id="reportSighting",
    **guarded(Permission.INCIDENT_REPORT, 413, success=202),
)
def report_sighting(
    request: Request,
    body: LeakReportBody,
    caller: Annotated[Caller, Depends(requires(Permission.INCIDENT_REPORT))],
    deps: Parts,
) -> LeakReportView:
    """Hand in a place for the leak monitor to look at. To open an incident at once, report one on the release."""
    now = deps.now()
    made = report_of(
        body,
        via=caller.id,
        at=now,
        key=f"{caller.id}:{context_of(request).request_id}",
        allowed=deps.allowed_address,
    )
    (kept,) = _hand_in(deps, [made])
    return LeakReportView(id=kept.id, at=kept.at, server_time=now)


@router.get("/v1/leaks/reports", operation_id="listReports", **guarded(Permission.INCIDENT_TRIAGE))
def list_reports(
    caller: Annotated[Caller, Depends(looks(Permission.INCIDENT_TRIAGE))],
    deps: Parts,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> ReportPage:
    """What was handed in, newest first. Everything in it is a stranger's."""
    with database.reading(deps.engine) as session:
        page = reports.list_reports(session, cursor=cursor, limit=limit)
    items = [ReportEntry(**entry_of(report)) for report in page.items]
    return ReportPage(items=items, next_cursor=page.next, server_time=deps.now())


@router.post(
    "/v1/leaks/monitors/{monitor}/findings",
    operation_id="receiveFindings",
    responses=documented(401, 413, 422, 429),
    status_code=202,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _FINDINGS}},
        }
    },
)
async def receive_findings(
    request: Request,
    monitor: Annotated[Name, Path(description="name of the outside monitor", examples=["watchdog"])],
    deps: Parts,
) -> FindingsView:
    """What an outside monitor found, signed as Standard Webhooks says: `webhook-id`, `webhook-timestamp`, `webhook-signature`."""
    data = await request.body()
    message = _verified(request, deps, monitor, data)
    try:
        body = FindingsBody.model_validate_json(data)
    except ValidationError as error:
        where = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        raise Malformed(f"the findings cannot be read: {where}") from None
    now = deps.now()
    made = [
        _from_monitor(
            report_of(
                finding,
                via=f"monitor:{monitor}",
                at=now,
                key=f"monitor:{monitor}:{message}:{n}",
                allowed=deps.allowed_address,
            )
        )
        for n, finding in enumerate(body.findings)
    ]
    kept = await run_in_threadpool(_hand_in, deps, made)
    return FindingsView(reports=[report.id for report in kept])


def _from_monitor(report: Report) -> Report:
    """Findings of machines are a source of their own: its silence is not the public's."""
    queue = "outside-monitors" if report.queue == "reports" else report.queue
    return Report(
        report.id, queue, report.what, report.value, report.note, report.contact, report.via, report.at
    )


def _verified(request: Request, deps: Deps, monitor: str, data: bytes) -> str:
    """The id of a message whose signature holds.

    Raises:
        Unauthenticated: no such monitor, or not its signature; which of these is not said.
    """
    secret = deps.outside_monitors.get(monitor)
    try:
        if secret is not None:
            Webhook(secret).verify(data, dict(request.headers), json_parse=False)
            return str(request.headers["webhook-id"])[:200]
    except (WebhookVerificationError, ValueError):
        pass  # ValueError: a signature or body that is no text of its form
    limiter: Limiter = request.app.state.limiter
    limiter.stranger(context_of(request).client)
    raise Unauthenticated("the message is not signed by a monitor that is known here")


# --- the form -----------------------------------------------------------------------------------------------------------


@router.get("/report", include_in_schema=False)
def form() -> HTMLResponse:
    """The form."""
    return _shown(report_page.page())


@router.post("/report", include_in_schema=False)
async def filled_in(request: Request, deps: Parts) -> HTMLResponse:
    """The form, filled in; answered with a page, whatever comes of it."""
    data = (await request.body())[:64_000]
    found = parse_qs(data.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=20)
    values = {name: items[0] for name, items in found.items()}
    if values.pop("website", ""):  # only a machine fills it in
        return _shown(report_page.page("Thank you. It will be looked at."))
    try:
        _limited(request)
        fields = {name: values.get(name, "") for name in ("what", "value", "note", "contact")}
        body = LeakReportBody.model_validate(fields)
        made = report_of(
            body,
            via="public",
            at=deps.now(),
            key=f"public:{context_of(request).request_id}",
            allowed=deps.allowed_address,
        )
        (kept,) = await run_in_threadpool(_hand_in, deps, [made])
    except ValidationError:
        return _shown(report_page.page("Please fill in where it is.", wrong=True, values=values), 422)
    except SluiceError as error:
        told = "; ".join(reason.message for reason in error.reasons) or error.detail
        context_of(request).code = error.code
        return _shown(report_page.page(f"{error.title}: {told}", wrong=True, values=values), error.status)
    return _shown(report_page.page(f"Thank you. It will be looked at. Your report is {kept.id}."), 202)


def _shown(text: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(text, status, headers={"Content-Security-Policy": report_page.CSP})
