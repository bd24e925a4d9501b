"""Commands of the service itself to releases: updates on their workflows, as anybody's."""

from __future__ import annotations

from typing import Protocol

from temporalio.client import Client, WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.exceptions import ApplicationError

from activities.updating import carry_out
from orchestrator.contracts.messages import Outcome
from orchestrator.domain.commands import AnyCommand
from orchestrator.domain.errors import ReleaseEnded, SluiceError, Unavailable, error_by_code


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
        gone = ReleaseEnded(f"the release {release} takes no commands any more")
        try:
            return await carry_out(self._client, release, command, gone=gone)
        except WorkflowUpdateFailedError as error:
            raise _refusal(error) from None
        except WorkflowUpdateRPCTimeoutOrCancelledError:
            raise Unavailable("the release service did not answer in time") from None


def _refusal(error: WorkflowUpdateFailedError) -> SluiceError:
    cause = error.cause
    if not isinstance(cause, ApplicationError) or cause.type is None:
        return Unavailable("the command was interrupted")
    kind = error_by_code(cause.type)
    if kind is SluiceError:
        return ReleaseEnded(cause.message) if "Completed" in cause.type else Unavailable(cause.message)
    return kind(cause.message)
