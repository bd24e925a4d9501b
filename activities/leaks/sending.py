"""Commands of the service itself to releases: updates on their workflows, as anybody's."""

from __future__ import annotations

from typing import Protocol

from temporalio.client import Client, WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.contracts import names
from orchestrator.contracts.messages import CommandMessage, Outcome
from orchestrator.domain.commands import AnyCommand
from orchestrator.domain.errors import ReleaseEnded, SluiceError, Unavailable, error_by_code
from orchestrator.domain.values import digest


class Commands(Protocol):
    """Where the service's own commands go."""

    async def send(self, release: str, command: AnyCommand) -> Outcome:
        """Carry out a command of a release.

        Raises:
            ReleaseEnded: it takes no commands any more.
            Unavailable: it is not known what became of the command; the same one may be sent again.
            SluiceError: it was refused.
        """
        ...


class ReleaseCommands:
    """`Commands` over Temporal."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def send(self, release: str, command: AnyCommand) -> Outcome:
        """See `Commands`."""
        handle = self._client.get_workflow_handle(names.release_workflow_id(release))
        try:
            outcome: Outcome = await handle.execute_update(
                names.UPDATE_COMMAND,
                CommandMessage(command=command),
                id=f"{command.command_id}~{digest(command).removeprefix('sha256:')[:16]}",
                result_type=Outcome,
            )
        except WorkflowUpdateFailedError as error:
            raise _refusal(error) from None
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise ReleaseEnded(f"the release {release} takes no commands any more") from None
            raise Unavailable("the release service cannot be reached") from None
        except WorkflowUpdateRPCTimeoutOrCancelledError:
            raise Unavailable("the release service did not answer in time") from None
        return outcome


def _refusal(error: WorkflowUpdateFailedError) -> SluiceError:
    cause = error.cause
    if not isinstance(cause, ApplicationError) or cause.type is None:
        return Unavailable("the command was interrupted")
    kind = error_by_code(cause.type)
    if kind is SluiceError:
        return ReleaseEnded(cause.message) if "Completed" in cause.type else Unavailable(cause.message)
    return kind(cause.message)
