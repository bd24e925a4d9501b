"""Commands that a worker sends to a release: one update on its workflow, whose ID derives from what the command says."""

from __future__ import annotations

from collections.abc import Collection

from temporalio.client import Client, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.contracts import names
from orchestrator.contracts.messages import CommandMessage, Outcome, update_id
from orchestrator.domain.commands import AnyCommand
from orchestrator.domain.errors import SluiceError, Unavailable


async def carry_out(
    client: Client, release: str, command: AnyCommand, *, gone: SluiceError, again: int | None = None
) -> Outcome:
    """Have a release carry out a command; doing it twice is doing it once.

    Args:
        client: connected, with the product's plugin.
        release: whose workflow is asked.
        command: what to carry out.
        gone: raised when no workflow takes commands for it.
        again: tells tries apart, so that a command which was refused before is judged anew; None: one answer holds for all tries.

    Raises:
        WorkflowUpdateFailedError: it was refused (`refusal`).
        Unavailable: Temporal cannot be reached.
    """
    handle = client.get_workflow_handle(names.release_workflow_id(release))
    try:
        outcome: Outcome = await handle.execute_update(
            names.UPDATE_COMMAND,
            CommandMessage(command=command),
            id=update_id(command) if again is None else f"{update_id(command)}~{again}",
            result_type=Outcome,
        )
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise gone from None
        raise Unavailable("the release service cannot be reached") from None
    return outcome


def refusal(error: WorkflowUpdateFailedError, *, later: Collection[str] = ()) -> ApplicationError:
    """A refused command as an activity's failure: retried when it was interrupted, or for a reason with one of the codes `later`."""
    cause = error.cause
    if not isinstance(cause, ApplicationError):
        return ApplicationError("the command was interrupted", type=Unavailable.code)
    reasons = cause.details[0] if cause.details else []
    codes = {r.get("code") for r in reasons if isinstance(r, dict)} if isinstance(reasons, list) else set()
    retried = cause.type in {None, Unavailable.code} or not codes.isdisjoint(later)
    return ApplicationError(cause.message, *cause.details, type=cause.type, non_retryable=not retried)
