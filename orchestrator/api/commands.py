"""The one way in: commands go to the release's workflow, and come back as an outcome or as an error of the tree.

`CommandGateway` is the port; `TemporalGateway` speaks to Temporal. Whatever happens there, a call ends within the patience
of the gateway: with an `Outcome`, with the domain's own error, or with `Unavailable`, after which the same command
(the same `command_id`) may be sent again without harm.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Literal, Protocol

import structlog
from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowExecutionStatus,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.contracts import names
from orchestrator.contracts.leak_messages import WholeRequest
from orchestrator.contracts.messages import (
    CommandMessage,
    IngestInput,
    IngestResult,
    Outcome,
    ReleaseInput,
    update_id,
)
from orchestrator.domain.commands import CreateRelease
from orchestrator.domain.errors import Conflict, Reason, ReleaseEnded, SluiceError, Unavailable, error_by_code

log = structlog.get_logger("sluice.api")

PATIENCE = timedelta(seconds=10)

# A call that is cancelled because its time is over ends in the SDK's own error, not in `TimeoutError`.
_FAILURES = (
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
    RPCError,
    TimeoutError,
    RuntimeError,  # a lazy client that cannot connect
)


class CommandGateway(Protocol):
    """Where commands go.

    Both methods raise errors of `orchestrator.domain.errors` and nothing else; `Unavailable` when it is not known what
    became of the command.
    """

    async def create(
        self, command: CreateRelease, *, request_id: str | None = None, address: str | None = None
    ) -> Outcome:
        """Start a release; answered once it stands in the records.

        Raises:
            Conflict: a release of that id was started before (by this command or another one).
        """
        ...

    async def send(self, release: str, message: CommandMessage) -> Outcome:
        """Carry out one command of a release.

        Raises:
            ReleaseEnded: no workflow of that release takes commands any more.
        """
        ...

    async def ingest(self, request: IngestInput) -> None:
        """Start an ingest; starting it twice is starting it once."""
        ...

    async def ingested(self, ingest: str) -> IngestResult | Literal["running", "failed"] | None:
        """What became of an ingest; None when there is none."""
        ...

    async def check_whole(self, check: str, request: WholeRequest) -> None:
        """Start a whole-file check of a suspect; starting it while it runs is starting it once."""
        ...

    async def ready(self) -> bool:
        """Whether commands can be sent now."""
        ...


async def _read(operation: WithStartWorkflowOperation[object, str]) -> None:
    """Look at the error that the SDK left in the operation too: unread, it is logged with its trace whenever it is collected."""
    with suppress(Exception, asyncio.CancelledError):
        async with asyncio.timeout(0):  # it is there, or it never will be
            await operation.workflow_handle()


class TemporalGateway:
    """The gateway to the workflows.

    Args:
        client: connected, with the product's plugin.
        patience: the longest that a call takes.
    """

    def __init__(self, client: Client, *, patience: timedelta = PATIENCE) -> None:
        self._client = client
        self._patience = patience.total_seconds()

    async def create(
        self, command: CreateRelease, *, request_id: str | None = None, address: str | None = None
    ) -> Outcome:
        """See `CommandGateway`."""
        operation: WithStartWorkflowOperation[object, str] = WithStartWorkflowOperation(
            names.RELEASE_WORKFLOW,
            ReleaseInput(create=command, request_id=request_id, address=address),
            id=names.release_workflow_id(command.release),
            task_queue=names.QUEUE_RELEASES,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            result_type=str,
        )
        try:
            async with asyncio.timeout(self._patience):
                outcome: Outcome = await self._client.execute_update_with_start_workflow(
                    names.UPDATE_CREATED,
                    start_workflow_operation=operation,
                    id=update_id(command),
                    result_type=Outcome,
                )
                return outcome
        except WorkflowAlreadyStartedError:
            await _read(operation)
            told = f"the release {command.release} exists already"
            raise Conflict(told, [Reason("taken", "choose another id", "id")]) from None
        except _FAILURES as error:
            await _read(operation)
            raise _translated(error, command.release) from None

    async def send(self, release: str, message: CommandMessage) -> Outcome:
        """See `CommandGateway`."""
        handle = self._client.get_workflow_handle(names.release_workflow_id(release))
        try:
            async with asyncio.timeout(self._patience):
                outcome: Outcome = await handle.execute_update(
                    names.UPDATE_COMMAND, message, id=update_id(message.command), result_type=Outcome
                )
                return outcome
        except _FAILURES as error:
            raise _translated(error, release) from None

    async def ingest(self, request: IngestInput) -> None:
        """See `CommandGateway`."""
        try:
            async with asyncio.timeout(self._patience):
                await self._client.start_workflow(
                    names.INGEST_WORKFLOW,
                    request,
                    id=names.ingest_workflow_id(request.ingest),
                    task_queue=names.QUEUE_RELEASES,
                    id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                    id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
                )
        except WorkflowAlreadyStartedError:
            return  # it was done before: the same result
        except _FAILURES as error:
            raise _translated(error, request.ingest) from None

    async def ingested(self, ingest: str) -> IngestResult | Literal["running", "failed"] | None:
        """See `CommandGateway`."""
        handle = self._client.get_workflow_handle(names.ingest_workflow_id(ingest), result_type=IngestResult)
        try:
            async with asyncio.timeout(self._patience):
                status = (await handle.describe()).status
                if status is WorkflowExecutionStatus.COMPLETED:
                    result: IngestResult = await handle.result()
                    return result
        except _FAILURES as error:
            if isinstance(error, RPCError) and error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise _translated(error, ingest) from None
        return "running" if status is WorkflowExecutionStatus.RUNNING else "failed"

    async def check_whole(self, check: str, request: WholeRequest) -> None:
        """See `CommandGateway`."""
        try:
            async with asyncio.timeout(self._patience):
                await self._client.start_workflow(
                    names.LEAK_CHECK_WORKFLOW,
                    request,
                    id=names.leak_check_workflow_id(check),
                    task_queue=names.QUEUE_RELEASES,
                    id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                    id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                )
        except _FAILURES as error:
            raise _translated(error, check) from None

    async def ready(self) -> bool:
        """See `CommandGateway`."""
        try:
            async with asyncio.timeout(min(self._patience, 3.0)):
                return await self._client.service_client.check_health()
        except (RPCError, TimeoutError, RuntimeError):
            return False


def _translated(error: Exception, release: str) -> SluiceError:
    """What a failed call means, in words of the tree."""
    if isinstance(error, WorkflowUpdateFailedError):
        return _refusal(error, release)
    if isinstance(error, RPCError) and error.status is RPCStatusCode.NOT_FOUND:
        return ReleaseEnded(f"the release {release} takes no commands any more")
    log.warning(
        "a command got no answer", release=release, error=type(error).__name__, detail=str(error)[:200]
    )
    if isinstance(error, WorkflowUpdateRPCTimeoutOrCancelledError | TimeoutError):
        return Unavailable(
            "the release service did not answer in time; what became of the command is not known",
            [Reason("timeout", "send the same request again with the same Idempotency-Key")],
        )
    return Unavailable(
        "the release service cannot be reached",
        [Reason("unreachable", "send the same request again with the same Idempotency-Key")],
    )


def _refusal(error: WorkflowUpdateFailedError, release: str) -> SluiceError:
    cause = error.cause
    if not isinstance(cause, ApplicationError) or cause.type is None:
        return Unavailable("the command was interrupted; send the same request again")
    kind = error_by_code(cause.type)
    if kind is SluiceError:
        if "Completed" in cause.type:  # the workflow ended before the update was carried out
            return ReleaseEnded(f"the release {release} takes no commands any more")
        return Unavailable("the command could not be carried out; send the same request again")
    details = cause.details[0] if cause.details else []
    reasons = (
        [_reason(item) for item in details if isinstance(item, dict)] if isinstance(details, list) else []
    )
    return kind(cause.message, reasons)


def _reason(item: dict[str, object]) -> Reason:
    path, line = item.get("path"), item.get("line")
    return Reason(
        code=str(item.get("code", "refused")),
        message=str(item.get("message", "")),
        path=path if isinstance(path, str) else None,
        line=line if isinstance(line, int) else None,
    )
