"""What a release is told of its copies, and old sealed files that are deleted. On the transfer queue, without custody's keys.

A command of the service's own travels as one update; its id derives from what it says, so that a retry is one command.
Deleting is asked for by a person and backed by the release's state: nothing but the superseded artifact's own files goes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine
from temporalio import activity
from temporalio.client import Client, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from activities.beating import beating
from activities.errors import at_the_edge
from activities.updating import carry_out, refusal
from artifacts.stores.base import Store
from orchestrator.contracts import names
from orchestrator.contracts.messages import AccessApplied, DeleteRequest, Outcome, TellRequest
from orchestrator.domain.errors import Conflict, NotFound, Unavailable
from orchestrator.records import audit, releases
from orchestrator.records.database import reading, writing


class TellingActivities:
    """The activities `tell_release` and `delete_sealed`.

    Args:
        engine: of the records.
        client: connected, with the product's plugin.
        open_store: opens the store at an address, with this worker's credentials.
        stores: addresses that files may be deleted from.
        clock: tells the time (aware).
    """

    def __init__(
        self,
        engine: Engine,
        client: Client | None,
        open_store: Callable[[str], Store],
        stores: Sequence[str],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._engine, self._client = engine, client
        self._open_store, self._stores, self._clock = open_store, tuple(stores), clock

    @property
    def all(self) -> list[Callable[..., Any]]:
        """Every activity, for a worker."""
        return [self.tell_release, self.delete_sealed]

    @activity.defn(name=names.TELL_RELEASE)
    async def tell_release(self, request: TellRequest) -> Outcome:
        """Send one command to the release; doing it twice is doing it once.

        Raises:
            ApplicationError: the release refused (not retried), or is entering a step (retried until it has).
        """
        if self._client is None:
            raise ApplicationError("this worker reaches no release", type=Unavailable.code)
        with at_the_edge():
            gone = NotFound(f"there is no release {request.release} that takes commands")
            try:
                again = activity.info().attempt
                return await carry_out(self._client, request.release, request.command, gone=gone, again=again)
            except WorkflowUpdateFailedError as error:
                raise refusal(error, later={"entering"}) from None

    @activity.defn(name=names.DELETE_SEALED, no_thread_cancel_exception=True)
    def delete_sealed(self, request: DeleteRequest) -> AccessApplied:
        """Delete the sealed files of an artifact in whose place another stands; logged before the first one goes."""
        with at_the_edge(), beating() as beat:
            with reading(self._engine) as session:
                state = releases.load(session, request.release)
            old = state.superseded.get(request.artifact)
            if old is None or old.fate == "kept":
                raise Conflict(f"nobody asked for the old files of {request.artifact} to be deleted")
            if old.location not in self._stores:
                raise Conflict(f"this service deletes nothing in {old.location}")
            with writing(self._engine) as session:
                audit.record_access(
                    session,
                    at=self._clock(),
                    actor="sluice",
                    action="delete_sealed",
                    release=request.release,
                    reference=request.artifact,
                )
            changes = []
            with self._open_store(old.location) as store:
                for info in list(store.list(f"artifacts/{request.artifact}/")):
                    beat.check()
                    store.delete(info.key)
                    changes.append(f"deleted {info.key}")
            return AccessApplied(changes=[f"{len(changes)} objects of {request.artifact} deleted"])
