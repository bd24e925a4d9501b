"""Steps and their gates: the verdict, previews, and the decisions that people make at a gate."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from orchestrator.api import bodies, views
from orchestrator.api.auth import ETAG, AnyCaller, StepName, commanded, decided, guarded, reading
from orchestrator.api.context import context_of
from orchestrator.api.deps import Parts
from orchestrator.api.sending import Sending, decides, sends
from orchestrator.domain import commands as cmd
from orchestrator.domain.control import ControlKind
from orchestrator.domain.deciding import require_step
from orchestrator.domain.permissions import Permission
from orchestrator.domain.preview import Preview, preview
from orchestrator.domain.state import ReleaseState

router = APIRouter(prefix="/v1/releases/{release}", tags=["gates"])

State = Annotated[ReleaseState, Depends(reading())]


@router.get("/steps", operation_id="listSteps", **guarded(Permission.RELEASE_READ, 404))
def list_steps(state: State, deps: Parts) -> views.StepList:
    """The steps of a release in the order of its plan, each with where it stands."""
    return views.step_list(state, deps.now())


@router.get("/steps/{step}", operation_id="getStep", **guarded(Permission.RELEASE_READ, 404))
def get_step(state: State, step: StepName, deps: Parts) -> views.StepDetail:
    """One step with its definition."""
    now = deps.now()
    found = require_step(state, step)
    shown = views.step_view(state, found, now)
    return views.StepDetail(**dict(shown), definition=found, release=state.release, server_time=now)


@router.get(
    "/steps/{step}/gate", operation_id="getGate", **guarded(Permission.RELEASE_READ, 404, headers=ETAG)
)
def get_gate(state: State, step: StepName, deps: Parts, response: Response) -> views.GateView:
    """The verdict on the gate now: every unmet condition, who can meet it, and when a clock will."""
    found = views.gate_view(state, require_step(state, step), deps.now())
    response.headers["ETag"] = f'"{found.verdict.etag}"'
    return found


@router.post(
    "/steps/{step}/gate/preview", operation_id="previewCommand", **guarded(Permission.RELEASE_READ, 404)
)
def preview_command(
    request: Request, state: State, step: StepName, body: bodies.PreviewBody, caller: AnyCaller, deps: Parts
) -> Preview:
    """What a command would do if the caller sent it now; nothing is changed and nothing is logged as refused."""
    context_of(request).audited = False
    require_step(state, step)
    command = bodies.command_of(body.command, actor=caller.actor, command_id=f"{caller.id}:preview")
    return preview(state, command, deps.now())


@router.post("/steps/{step}/sign-offs", operation_id="signOff", **decided(Permission.GATE_SIGN))
async def sign_off(
    step: StepName, body: bodies.SignOffBody, send: Annotated[Sending, Depends(decides(Permission.GATE_SIGN))]
) -> views.CommandResult:
    """Approve or reject the gate in one role, exactly as it was read."""
    return await send(cmd.SignOff(**send.head, step=step, **dict(body)))


@router.post(
    "/steps/{step}/sign-offs/withdraw", operation_id="withdrawSignOff", **decided(Permission.GATE_SIGN)
)
async def withdraw(
    step: StepName,
    body: bodies.WithdrawBody,
    send: Annotated[Sending, Depends(decides(Permission.GATE_SIGN))],
) -> views.CommandResult:
    """Take one's own sign-off back, until the step is entered."""
    return await send(cmd.WithdrawSignOff(**send.head, step=step, **dict(body)))


@router.post("/steps/{step}/retry", operation_id="retryEntry", **decided(Permission.GATE_RETRY))
async def retry(
    step: StepName, send: Annotated[Sending, Depends(decides(Permission.GATE_RETRY))]
) -> views.CommandResult:
    """Try again to enter a step whose entry was taken back."""
    return await send(cmd.RetryEntry(**send.head, step=step))


@router.post(
    "/steps/{step}/break-glass", operation_id="breakGlass", **decided(Permission.RELEASE_BREAK_GLASS)
)
async def break_glass(
    step: StepName,
    body: bodies.BreakGlassBody,
    send: Annotated[Sending, Depends(decides(Permission.RELEASE_BREAK_GLASS))],
) -> views.CommandResult:
    """Lift conditions of the next gate in an emergency; the second person carries it out. Leaves a review."""
    return await send(cmd.BreakGlass(**send.head, step=step, **dict(body)))


@router.post(
    "/steps/{step}/window/extend", operation_id="extendWindow", **commanded(Permission.WINDOW_EXTEND)
)
async def extend_window(
    step: StepName,
    body: bodies.ExtendWindowBody,
    send: Annotated[Sending, Depends(sends(Permission.WINDOW_EXTEND))],
) -> views.CommandResult:
    """Ask for more research time before the step. One person may, at once."""
    return await send(cmd.ExtendWindow(**send.head, step=step, **dict(body)))


@router.post(
    "/steps/{step}/window/shorten", operation_id="shortenWindow", **decided(Permission.WINDOW_SHORTEN)
)
async def shorten_window(
    step: StepName,
    body: bodies.ShortenWindowBody,
    send: Annotated[Sending, Depends(decides(Permission.WINDOW_SHORTEN))],
) -> views.CommandResult:
    """Ask for less research time. Proposed at first; carried out when a quorum stands behind it."""
    return await send(cmd.ShortenWindow(**send.head, step=step, **dict(body)))


@router.put(
    "/steps/{step}/controls/{control}", operation_id="reportControl", **commanded(Permission.CONTROL_ATTEST)
)
async def report_control(
    step: StepName,
    control: ControlKind,
    body: bodies.ControlBody,
    send: Annotated[Sending, Depends(sends(Permission.CONTROL_ATTEST))],
) -> views.CommandResult:
    """Attest that a control of the step is in force, or say that it is not."""
    return await send(cmd.ReportControl(**send.head, step=step, control=control, **dict(body)))
