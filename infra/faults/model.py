"""What a release should have come to: the pure domain core, fed the commands that really arrived.

The commands come from the release's Temporal histories (every accepted update, with its outcome), not from the records. The core
decides each of them again, at the instant at which it was decided, from the state that its own earlier decisions led to. What
comes out is held against the records: decision by decision, and in the end state by state.

What nobody sent (beginning an entry, completing it, taking it back) the core has to find due by itself, or is made again from the
event; only what comes from outside it (references of envelopes, why an entry was taken back) is then taken on trust.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowFailureError

from infra.faults.counting import Checks
from infra.settings import Settings
from infra.temporal import connect
from orchestrator.contracts import messages as msg
from orchestrator.contracts import names
from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.decide import decide, decide_create, due
from orchestrator.domain.errors import SluiceError
from orchestrator.domain.evolve import begin, evolve
from orchestrator.domain.state import ReleaseState


@dataclass
class Heard:
    """What arrived at a release.

    Attributes:
        create: the creation, None if nothing was ever started.
        commands: command id → the command.
        outcomes: command id → what its caller was told that it did; what was refused is not in it.
    """

    create: cmd.CreateRelease | None = None
    commands: dict[str, cmd.AnyCommand] = field(default_factory=dict)
    outcomes: dict[str, msg.Outcome] = field(default_factory=dict)


async def ended(settings: Settings, release: str, *, patience: float = 60.0) -> bool:
    """Whether the release's workflow came to its end, with everything outside made like its last state.

    Raises:
        TemporalError: Temporal does not answer.
    """
    client = await connect(settings)
    handle = client.get_workflow_handle(names.release_workflow_id(release), result_type=str)
    try:
        async with asyncio.timeout(patience):
            return bool(await handle.result() == "completed")
    except (TimeoutError, WorkflowFailureError):
        return False


async def heard(settings: Settings, release: str) -> Heard:
    """Every command that reached a release, from the histories of all runs of its workflow, the oldest first.

    Raises:
        TemporalError: Temporal does not answer.
    """
    client = await connect(settings)
    found = Heard()
    for history in await _runs(client, names.release_workflow_id(release)):
        ids: dict[int, str] = {}
        for event in history:
            if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
                payloads = event.workflow_execution_started_event_attributes.input.payloads
                found.create = (await _decoded(client, payloads, msg.ReleaseInput)).create
            elif event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED:
                asked = event.workflow_execution_update_accepted_event_attributes.accepted_request
                if asked.input.name == names.UPDATE_COMMAND:
                    message = await _decoded(client, asked.input.args.payloads, msg.CommandMessage)
                    ids[event.event_id] = message.command.command_id
                    found.commands.setdefault(message.command.command_id, message.command)
            elif event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED:
                done = event.workflow_execution_update_completed_event_attributes
                command_id = ids.get(done.accepted_event_id)
                if command_id is not None and done.outcome.HasField("success"):
                    told = await _decoded(client, done.outcome.success.payloads, msg.Outcome)
                    found.outcomes.setdefault(command_id, told)
    return found


async def _runs(client: Client, workflow_id: str) -> list[list[Any]]:
    """The histories of all runs, the oldest first."""
    runs: list[list[Any]] = []
    run: str | None = None
    while True:
        history = await client.get_workflow_handle(workflow_id, run_id=run).fetch_history()
        runs.append(list(history.events))
        run = history.events[0].workflow_execution_started_event_attributes.continued_execution_run_id
        if not run:
            return runs[::-1]


async def _decoded(client: Client, payloads: Sequence[Any], kind: type[Any]) -> Any:
    (found,) = await client.data_converter.decode(payloads, [kind])
    return found


def check_model(found: Heard, history: Sequence[ev.AnyEvent], recorded: ReleaseState, checks: Checks) -> None:
    """Hold the records against what the core makes of the same commands.

    Args:
        found: what arrived.
        history: the events of the records, in order.
        recorded: the state of the records.
        checks: where each check is counted.
    """
    state = _decided_again(found, history, checks)
    if state is not None:
        checks.equal(recorded, state, "the records' state and the state that the model predicts")
    groups = [command_id for command_id, _ in groupby(history, key=lambda event: event.command_id)]
    doubled = sorted({command_id for command_id in groups if groups.count(command_id) > 1})
    checks.equal(doubled, [], "commands that were carried out twice")
    for command_id, told in found.outcomes.items():
        kinds = [event.type for event in history if event.command_id == command_id]
        checks.equal(kinds, told.events, f"the events of {command_id}, and what its caller was told")


def _decided_again(found: Heard, history: Sequence[ev.AnyEvent], checks: Checks) -> ReleaseState | None:
    state: ReleaseState | None = None
    for command_id, group in groupby(history, key=lambda event: event.command_id):
        events = list(group)
        if state is None:
            if found.create is None or found.create.command_id != command_id:
                checks.that(False, "the first event is not of the creation that arrived")
                return None
            expected = _as_recorded(decide_create(found.create, events[0].at))
            checks.equal(events, expected, "the creation, and as the model decides it")
            state = begin(expected[0])  # type: ignore[arg-type]  # decide_create makes no other
            continue
        command = found.commands.get(command_id) or _own(state, events)
        if command is None:
            checks.that(False, f"nobody sent {command_id}, and the model does not find it due")
            return None
        try:
            expected = _as_recorded(decide(state, command, events[0].at))
        except SluiceError as error:
            checks.that(False, f"the model refuses {command_id} ({command.type}): {error.detail}")
            return None
        checks.equal(events, expected, f"{command_id} ({command.type}), and as the model decides it")
        for event in expected:
            state = evolve(state, event)
    return state


def _as_recorded(events: Sequence[ev.AnyEvent]) -> list[ev.AnyEvent]:
    """Events as they come back from the records, which keep whole seconds of a duration."""
    return [ev.EVENT.validate_json(ev.EVENT.dump_json(event)) for event in events]


def _own(state: ReleaseState, events: Sequence[ev.AnyEvent]) -> cmd.AnyCommand | None:
    """The release's own command behind events; None if the model knows of no reason for it at that moment."""
    first = events[0]
    for command in due(state, first.at):
        if command.command_id == first.command_id:
            return command
    head: dict[str, Any] = {"command_id": first.command_id, "actor": cmd.SERVICE}
    if state.entry is None:
        return None
    if isinstance(first, ev.EntryTakenBack):
        return cmd.TakeBackEntry(**head, step=first.step, reason=first.reason, failed=first.failed)
    if (
        isinstance(first, ev.StepEntered)
        and first.command_id == f"entered-{first.step}-{state.entry.attempt}"
    ):
        partners = [grant for grant in first.grants if grant.holder_kind == "partner"]
        pinned = {name for name, partner in state.plan.partners.items() if partner.recipient is not None}
        return cmd.CompleteEntry(
            **head,
            step=first.step,
            partners=[
                cmd.PartnerReady(
                    partner=grant.holder, recipient=None if grant.holder in pinned else grant.recipient
                )
                for grant in partners
            ],
            absent=list(first.waiting_partners),
            envelopes={grant.id: grant.envelopes for grant in first.grants if grant.envelopes},
            copies={grant.id: grant.copies for grant in first.grants if grant.copies},
        )
    return None
