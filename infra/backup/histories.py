"""What Temporal's histories hold of releases: every event that a workflow evolved by, with its place.

A workflow keeps the answer of each local activity `record_events` in a marker, encrypted by the codec. Its place is counted: a
run begins at the state that it was given (none: before the first event), and evolves by every answer in order. Runs are followed
back through continue-as-new as far as Temporal still keeps them. The commands stand in the updates that were accepted.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.contracts import messages as msg
from orchestrator.contracts import names
from orchestrator.domain.events import AnyEvent
from orchestrator.domain.values import digest

_PREFIX = names.release_workflow_id("")


@dataclass(frozen=True, slots=True)
class Asked:
    """The command behind events: what the log keeps of it."""

    type: str
    digest: str
    request_id: str | None
    address: str | None = None


@dataclass(slots=True)
class Held:
    """What the histories of one release hold.

    Attributes:
        release: its id.
        seq: the sequence number of the last event that the workflow evolved by.
        events: by sequence number; numbers below the first stand in runs that Temporal no longer keeps.
        asked: commands by their ID, where a person or pipeline sent them.
        running: whether the workflow still runs.
    """

    release: str
    seq: int = 0
    events: dict[int, AnyEvent] = field(default_factory=dict)
    asked: dict[str, Asked] = field(default_factory=dict)
    running: bool = False


async def releases_in_temporal(client: Client) -> AsyncIterator[str]:
    """Ids of releases that Temporal lists. Its list may lag behind by seconds; a release in the records is asked for by its id."""
    seen = set()
    async for found in client.list_workflows(f"WorkflowType = '{names.RELEASE_WORKFLOW}'"):
        if found.id.startswith(_PREFIX) and found.id not in seen:
            seen.add(found.id)
            yield found.id.removeprefix(_PREFIX)


async def read_history(client: Client, release: str) -> Held | None:
    """What Temporal holds of a release; None when it does not know its workflow.

    Raises:
        CodecError: a payload can't be decrypted; the codec keys are others.
        RPCError: Temporal does not answer.
    """
    held = Held(release)
    run: str | None = None
    while True:
        handle = client.get_workflow_handle(names.release_workflow_id(release), run_id=run)
        try:
            if run is None:
                seen = await handle.describe()
                held.running = seen.close_time is None
                handle = client.get_workflow_handle(names.release_workflow_id(release), run_id=seen.run_id)
            history = await handle.fetch_history()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None if run is None else held
            raise
        run = await _read_run(client, history.events, held, newest=run is None)
        if not run:
            return held


async def _read_run(client: Client, history: Any, held: Held, *, newest: bool) -> str:
    """Take up one run; the id of the run before it, or nothing."""
    before, seq = "", 0
    for event in history:
        match event.event_type:
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
                started = event.workflow_execution_started_event_attributes
                before = started.continued_execution_run_id
                given: msg.ReleaseInput
                (given,) = await client.data_converter.decode(started.input.payloads, [msg.ReleaseInput])
                seq = 0 if given.state is None else given.state.seq
                if given.state is None:  # later runs do not carry the plan that was asked for
                    create = given.create
                    held.asked[create.command_id] = Asked(
                        "release_created", digest(create), given.request_id, given.address
                    )
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED:
                await _command(client, event, held)
            case EventType.EVENT_TYPE_MARKER_RECORDED:
                recorded = await _recorded(client, event)
                for one in () if recorded is None else recorded.events:
                    seq += 1
                    held.events[seq] = one
            case _:
                pass
    if newest:
        held.seq = seq
    return before


async def _command(client: Client, event: HistoryEvent, held: Held) -> None:
    asked = event.workflow_execution_update_accepted_event_attributes.accepted_request.input
    if asked.name == names.UPDATE_COMMAND:
        message: msg.CommandMessage
        (message,) = await client.data_converter.decode(asked.args.payloads, [msg.CommandMessage])
        command = message.command
        held.asked[command.command_id] = Asked(
            command.type, digest(command), message.request_id, message.address
        )


async def _recorded(client: Client, event: HistoryEvent) -> msg.Recorded | None:
    """The answer of `record_events` in a marker; None when it is of something else, or of a failure."""
    marker = event.marker_recorded_event_attributes
    if marker.marker_name != "core_local_activity" or marker.HasField("failure"):
        return None
    about = json.loads(marker.details["data"].payloads[0].data)
    if about.get("activity_type") != names.RECORD_EVENTS or "result" not in marker.details:
        return None
    recorded: msg.Recorded
    (recorded,) = await client.data_converter.decode(marker.details["result"].payloads, [msg.Recorded])
    return recorded
