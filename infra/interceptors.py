"""Carries the request from the API call through workflow and activities, so that every log line names release, step and request.

The request id travels in a header, encrypted like every payload. In a workflow it follows the update or signal that is being
handled; what the main loop does later, on a clock, has no request of its own and shows the one that started the run.
"""

# ruff: noqa: A002 - `input` and `next` are the SDK's argument names
from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any, NoReturn, TypeVar

import structlog
from temporalio import activity, client, worker, workflow
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadConverter

from infra.logs import bound, named_workflow

HEADER = "sluice-request"

_request: ContextVar[str | None] = ContextVar("sluice_request", default=None)
_converter = PayloadConverter.default
_Headers = Mapping[str, Payload]
_Carrier = TypeVar("_Carrier")


def _with_request(headers: _Headers, request: str | None) -> _Headers:
    return (
        headers if not request or HEADER in headers else {**headers, HEADER: _converter.to_payload(request)}
    )


def _request_of(headers: _Headers) -> str | None:
    payload = headers.get(HEADER)
    if payload is None:
        return None
    value: str = _converter.from_payload(payload, str)
    return value


def _stamped(carrier: _Carrier, request: str | None) -> _Carrier:
    """The call with the request in its headers."""
    carrier.headers = _with_request(carrier.headers, request)  # type: ignore[attr-defined]
    return carrier


def _named(args: Sequence[Any], name: str) -> str | None:
    """`release`, `step` or `request_id` as the first argument's message model says it."""
    for attribute in (name, f"{name}_id"):
        value = getattr(args[0], attribute, None) if args else None
        if isinstance(value, str):
            return value
    return None


class ContextInterceptor(client.Interceptor, worker.Interceptor):
    """Hands the request on, from client to workflow to activity, and binds it for the log lines of activities."""

    def intercept_client(self, next: client.OutboundInterceptor) -> client.OutboundInterceptor:
        """See base class."""
        return _ClientOutbound(next)

    def intercept_activity(
        self, next: worker.ActivityInboundInterceptor
    ) -> worker.ActivityInboundInterceptor:
        """See base class."""
        return _ActivityInbound(next)

    def workflow_interceptor_class(
        self,
        input: worker.WorkflowInterceptorClassInput,
    ) -> type[worker.WorkflowInboundInterceptor] | None:
        """See base class."""
        return _WorkflowInbound


class _ClientOutbound(client.OutboundInterceptor):
    """Stamps what leaves the API with the request on its logging context."""

    @staticmethod
    def _current() -> str | None:
        request = structlog.contextvars.get_contextvars().get("request")
        return request if isinstance(request, str) else None

    async def start_workflow(self, input: client.StartWorkflowInput) -> client.WorkflowHandle[Any, Any]:
        return await self.next.start_workflow(_stamped(input, self._current()))

    async def start_workflow_update(
        self,
        input: client.StartWorkflowUpdateInput,
    ) -> client.WorkflowUpdateHandle[Any]:
        return await self.next.start_workflow_update(_stamped(input, self._current()))

    async def signal_workflow(self, input: client.SignalWorkflowInput) -> None:
        await self.next.signal_workflow(_stamped(input, self._current()))


class _ActivityInbound(worker.ActivityInboundInterceptor):
    """Binds release, step, request, activity and attempt around each activity, and in its thread."""

    async def execute_activity(self, input: worker.ExecuteActivityInput) -> Any:
        info = activity.info()
        context = named_workflow(info.workflow_id or "") | {
            "step": _named(input.args, "step"),
            "request": _request_of(input.headers) or _named(input.args, "request"),
            "activity": info.activity_type,
            "attempt": str(info.attempt) if info.attempt > 1 else None,
        }
        release = _named(input.args, "release")
        with bound(**(context | {"release": release} if release else context)):
            return await self.next.execute_activity(input)


class _WorkflowInbound(worker.WorkflowInboundInterceptor):
    """Remembers whose request is being handled. Runs inside the workflow: no IO, no clock."""

    def init(self, outbound: worker.WorkflowOutboundInterceptor) -> None:
        self.next.init(_WorkflowOutbound(outbound))

    async def execute_workflow(self, input: worker.ExecuteWorkflowInput) -> Any:
        _request.set(_request_of(input.headers))
        return await self.next.execute_workflow(input)

    async def handle_signal(self, input: worker.HandleSignalInput) -> None:
        token = _request.set(_request_of(input.headers) or _request.get())
        try:
            await self.next.handle_signal(input)
        finally:
            _request.reset(token)

    async def handle_update_handler(self, input: worker.HandleUpdateInput) -> Any:
        token = _request.set(_request_of(input.headers) or _request.get())
        try:
            return await self.next.handle_update_handler(input)
        finally:
            _request.reset(token)


class _WorkflowOutbound(worker.WorkflowOutboundInterceptor):
    """Stamps what a workflow starts."""

    def continue_as_new(self, input: worker.ContinueAsNewInput) -> NoReturn:
        self.next.continue_as_new(_stamped(input, _request.get()))

    def start_activity(self, input: worker.StartActivityInput) -> workflow.ActivityHandle[Any]:
        return self.next.start_activity(_stamped(input, _request.get()))

    def start_local_activity(self, input: worker.StartLocalActivityInput) -> workflow.ActivityHandle[Any]:
        return self.next.start_local_activity(_stamped(input, _request.get()))

    async def start_child_workflow(
        self,
        input: worker.StartChildWorkflowInput,
    ) -> workflow.ChildWorkflowHandle[Any, Any]:
        return await self.next.start_child_workflow(_stamped(input, _request.get()))
