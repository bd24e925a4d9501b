"""A release as its event log has it: judge a command, record the events, evolve by what the log then holds.

Everything else that drives a release stands on this; nothing here reaches outside but to the event log and to the history's end.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

from orchestrator.contracts import messages as msg
from orchestrator.contracts import names
from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.decide import decide, decide_create
from orchestrator.domain.errors import GateChanged, KeyReused, Reason, ReleaseEnded, SluiceError
from orchestrator.domain.evolve import begin, evolve
from orchestrator.domain.gate import verdict
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import digest
from workflows.effects import told

HANDLED_KEPT = 500
_ADOPTED = "adopted"  # stands for the digest of a command that is known by its events alone
#: How the failure of an activity arrives; a local one may come without the wrapping.
FAILED = (ActivityError, ApplicationError)
_ACCESS_EVENTS = (
    ev.StepEntered,
    ev.EntryTakenBack,
    ev.GrantMade,
    ev.GrantNotMade,
    ev.GrantEnded,
    ev.RolledBack,
    ev.Aborted,
    ev.PlanAmended,
    ev.ArtifactResealed,
    ev.EnvelopesRenewed,
)
#: Of what is read from or written to the records.
RECORD_RETRY = RetryPolicy(initial_interval=timedelta(milliseconds=50), maximum_interval=timedelta(seconds=5))


class RecordedRelease:
    """The state of one release, and the one way to change it."""

    def __init__(self, start: msg.ReleaseInput) -> None:
        self._start = start
        self._state: ReleaseState | None = start.state
        self._refused: SluiceError | None = None
        self._handled: OrderedDict[str, msg.Handled] = OrderedDict((h.command_id, h) for h in start.handled)
        self._lock = asyncio.Lock()
        self._stuck: str | None = None
        self._applied_seq = start.applied_seq
        self._access_seq = start.applied_seq if start.state is None else start.state.seq

    def _going(self) -> ReleaseState:
        if self._state is None:
            raise ReleaseEnded("the release was never created")
        return self._state

    def _judge(self, state: ReleaseState, message: msg.CommandMessage) -> list[ev.AnyEvent]:
        step = state.next_step
        if message.if_match is not None and step is not None:
            etag = verdict(state, step, workflow.now()).etag
            if etag != message.if_match:
                reason = Reason("if-match", f"the gate's ETag is now {etag}; read it again", "If-Match")
                raise GateChanged(f"the gate of `{step.name}` has changed since it was read", [reason])
        return decide(state, message.command, workflow.now())

    async def _carry_out(self, message: msg.CommandMessage) -> msg.Outcome:
        command = message.command
        command_digest = digest(command)
        async with self._lock:
            known = self._handled.get(command.command_id)
            if known is not None:
                if known.command_digest not in {command_digest, _ADOPTED}:
                    raise KeyReused(f"the command ID {command.command_id} was used for another command")
                return self._outcome(known, repeated=True)
            while True:
                events = self._judge(self._going(), message)
                adopted = (
                    await self._record(events, command, command_digest, message.request_id, message.address)
                    if events
                    else False
                )
                if not adopted:
                    break
                if command.command_id in self._handled:  # it was among what was adopted
                    return self._outcome(self._handled[command.command_id], repeated=True)
            handled = msg.Handled(
                command_id=command.command_id,
                command_digest=command_digest,
                seq=self._going().seq,
                events=[event.type for event in events],
            )
            self._remember(handled)
            return self._outcome(handled)

    def _remember(self, handled: msg.Handled) -> None:
        self._handled[handled.command_id] = handled
        while len(self._handled) > HANDLED_KEPT:
            self._handled.popitem(last=False)

    def _outcome(self, handled: msg.Handled, *, repeated: bool = False) -> msg.Outcome:
        release = self._start.create.release
        return msg.Outcome(release=release, seq=handled.seq, events=handled.events, repeated=repeated)

    async def _record(
        self,
        events: list[ev.AnyEvent],
        command: cmd.Command,
        command_digest: str,
        request_id: str | None,
        address: str | None,
    ) -> bool:
        """Write events, evolve by what the log then holds; True when those are somebody else's (decide anew)."""
        state = self._state
        recorded: msg.Recorded = await workflow.execute_local_activity(
            names.RECORD_EVENTS,
            msg.RecordRequest(
                release=self._start.create.release,
                first_seq=1 if state is None else state.seq + 1,
                events=events,
                command_id=command.command_id,
                command_type=events[0].type if state is None else getattr(command, "type", "command"),
                command_digest=command_digest,
                actor=command.actor.id,
                request_id=request_id,
                address=address,
            ),
            result_type=msg.Recorded,
            start_to_close_timeout=timedelta(seconds=20),
            retry_policy=RECORD_RETRY,
        )
        for event in recorded.events:
            if self._state is None and isinstance(event, ev.ReleaseCreated):
                self._state = begin(event)
                continue
            self._state = evolve(self._going(), event)
            if isinstance(event, _ACCESS_EVENTS):
                self._access_seq = self._state.seq
        if recorded.adopted:
            # a redelivery of these commands must be answered, not judged again
            for command_id in dict.fromkeys(event.command_id for event in recorded.events):
                kinds = [event.type for event in recorded.events if event.command_id == command_id]
                seq = self._going().seq
                self._remember(
                    msg.Handled(command_id=command_id, command_digest=_ADOPTED, seq=seq, events=kinds)
                )
        return recorded.adopted

    async def _create(self) -> None:
        create = self._start.create
        try:
            events = decide_create(create, workflow.now())
            await self._record(events, create, digest(create), self._start.request_id, self._start.address)
        except SluiceError as error:
            self._refused = error
        except FAILED as error:
            self._refused = told(error)

    async def _own(self, command: cmd.AnyCommand) -> msg.Outcome:
        """Carry out a command of the release's own."""
        return await self._carry_out(msg.CommandMessage(command=command))

    # --- the end of a history ----------------------------------------------------------------------------------------

    def _should_continue_as_new(self) -> bool:
        limit = self._start.history_limit
        info = workflow.info()
        if limit is not None and info.get_current_history_length() >= limit:
            return True
        return info.is_continue_as_new_suggested() or info.is_target_worker_deployment_version_changed()

    def _continue_as_new(self) -> None:
        workflow.continue_as_new(
            msg.ReleaseInput(
                create=msg.carried_over(self._start.create),
                state=self._going(),
                handled=list(self._handled.values()),
                applied_seq=self._applied_seq,
                history_limit=self._start.history_limit,
            ),
            # a pinned run would otherwise hand its build on for ever
            initial_versioning_behavior=workflow.ContinueAsNewVersioningBehavior.AUTO_UPGRADE,
        )
