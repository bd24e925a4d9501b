"""One durable workflow per release: it decides by calling the domain, and drives what was decided.

    update `created`   answers once the release stands in the records, or why it cannot
    update `command`   decide -> record (local activity) -> evolve; a refusal reaches the caller at once
    main loop          what is due (a gate that holds, a grant that ran out) -> enter a step -> make the outside look
                       like the state -> sleep until something changes or the next clock

Invariants:
    - Events are recorded before they are believed: `self._state` never runs ahead of the event log. When the log is
      ahead (a worker was killed after writing), the log's events are adopted.
    - Commands are handled one at a time; a command ID that was handled is answered again, never carried out again.
    - No handler waits for a person. Only the main loop continues as new, when every handler has finished.
    - A run stays on the build that it began on; when another build has become the current one, the next turn of the main loop
      continues as new, there.
    - Entering a step is a saga: one event (`step_entered`) makes it true; until then everything is taken back by
      `apply_access`, which makes the outside look like the state.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from orchestrator.contracts import messages as msg
from orchestrator.contracts import names
from orchestrator.domain import commands as cmd
from orchestrator.domain.decide import due, reminding, wakes_at
from orchestrator.domain.errors import Conflict, SluiceError
from orchestrator.domain.reminders import next_reminder
from orchestrator.domain.state import ReleaseState, Rotation
from workflows.effects import HEARTBEAT, effect, told
from workflows.errors import refusal

with workflow.unsafe.sandbox_import_notification_policy(workflow.SandboxImportNotificationPolicy.SILENT):
    # the layers of this workflow are loaded anew for every run, as this module is: nothing of them passes the sandbox by
    from workflows.release_custody import GoOnAnew
    from workflows.release_entering import EntersSteps
    from workflows.release_granting import GrantsLate
    from workflows.release_recording import FAILED

_ZERO = timedelta(0)
_STUCK_FOR = timedelta(minutes=1)
_UNDO_RETRY = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=5))


@workflow.defn(name=names.RELEASE_WORKFLOW)
class ReleaseWorkflow(EntersSteps, GrantsLate):
    """A release on its way along the gradient."""

    @workflow.init
    def __init__(self, start: msg.ReleaseInput) -> None:
        super().__init__(start)
        self._rotating: set[str] = set()
        self._reminds = False
        self._reviews_last = False

    @workflow.run
    async def run(self, start: msg.ReleaseInput) -> str:
        """Drive the release to its end; the status that it ended in."""
        self._reminds = workflow.patched(
            "reminders"
        )  # releases from before get theirs when they continue as new
        self._reviews_last = workflow.patched("reviews-after-the-end")
        if self._state is None:
            await self._create()
        if self._refused is not None:
            await workflow.wait_condition(workflow.all_handlers_finished)
            raise refusal(self._refused)
        while True:
            try:
                await self._settle()
                self._stuck = None
            except GoOnAnew:
                await workflow.wait_condition(workflow.all_handlers_finished)
                self._continue_as_new()
            except FAILED as error:
                # a database older than the release, say: nothing is given up, commands go on, and it is said
                self._stuck = told(error).detail
                workflow.logger.error("the release cannot go on by itself", extra={"why": self._stuck})
                await self._wait_for_change(self._going().seq, _STUCK_FOR)
                continue
            state = self._going()
            if self._over(state) and workflow.all_handlers_finished():
                return state.status
            if self._should_continue_as_new():
                await workflow.wait_condition(workflow.all_handlers_finished)
                self._continue_as_new()
            await self._sleep(state)

    # --- updates and queries -----------------------------------------------------------------------------------------

    @workflow.update(name=names.UPDATE_CREATED)
    async def created(self) -> msg.Outcome:
        """Answer once the release stands in the records.

        Raises:
            ApplicationError: the creation was refused; `type` is the code of the domain's error.
        """
        await workflow.wait_condition(lambda: self._state is not None or self._refused is not None)
        if self._refused is not None:
            raise refusal(self._refused)
        return msg.Outcome(release=self._start.create.release, seq=1, events=["release_created"])

    @workflow.update(name=names.UPDATE_COMMAND)
    async def command(self, message: msg.CommandMessage) -> msg.Outcome:
        """Carry out one command, once."""
        await workflow.wait_condition(lambda: self._state is not None or self._refused is not None)
        if self._refused is not None:
            raise refusal(self._refused)
        try:
            return await self._carry_out(message)
        except SluiceError as error:
            raise refusal(error) from error
        except FAILED as error:
            raise refusal(told(error)) from error

    @command.validator
    def _check(self, message: msg.CommandMessage) -> None:
        """Refuse before anything is written to history."""
        if self._state is None or message.command.command_id in self._handled:
            return
        try:
            self._judge(self._state, message)
        except SluiceError as error:
            raise refusal(error) from error

    @workflow.query(name=names.QUERY_STATE)
    def state(self) -> dict[str, Any]:
        """The state as JSON, for operators; everybody else reads the records."""
        return {} if self._state is None else self._state.model_dump(mode="json")

    @workflow.query(name=names.QUERY_STUCK)
    def stuck(self) -> str | None:
        """Why the release cannot go on by itself, tried again every minute; None when it can."""
        return self._stuck

    @workflow.signal(name=names.SIGNAL_LOOK)
    def look(self) -> None:
        """Have the main loop look whether it is to move to another build; it does so whenever it wakes."""

    # --- the main loop -----------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """React until nothing is due."""
        while True:
            state = self._going()
            if state.entry is not None:
                await self._enter(state)
            elif self._access_seq > self._applied_seq:
                await self._apply_access(state)
            elif waiting := [r for r in state.pending_rotations if r.id not in self._rotating]:
                await self._start_rotation(state, waiting[0])
            elif late := self._late_now(state):
                await self._grant_late(state, late)
            elif commands := due(state, workflow.now()):
                for command in commands:
                    try:
                        await self._own(command)
                    except SluiceError as error:
                        workflow.logger.info(
                            "not due any more", extra={"command": command.type, "why": error.detail}
                        )
            elif state.awaiting_renewal():
                await self._renew(state)
            elif self._reminds and (remind := reminding(state, workflow.now())) is not None:
                await self._own(remind)
            else:
                return

    async def _sleep(self, state: ReleaseState) -> None:
        """Until an event, a clock, or the history is long enough."""
        now = workflow.now()
        times = [wakes_at(state, now)]
        times += [again.at for place, again in self._ask_again.items() if place in state.grants_asked]
        if self._reminds:
            times.append(next_reminder(state, now))
        wakes = min((time for time in times if time is not None), default=None)
        await self._wait_for_change(
            state.seq, None if wakes is None else max(wakes - now, _ZERO) + timedelta(milliseconds=1)
        )

    async def _wait_for_change(self, seq: int, at_most: timedelta | None) -> None:
        """Until there is another event, nothing is left to wait for, the history is long, or time is over."""

        def changed() -> bool:
            state = self._going()
            return state.seq != seq or (self._over(state) and workflow.all_handlers_finished())

        try:
            await workflow.wait_condition(
                lambda: changed() or self._should_continue_as_new(), timeout=at_most
            )
        except TimeoutError:
            return

    def _over(self, state: ReleaseState) -> bool:
        """Whether nothing can be asked any more: the release has ended, and no review of a broken glass is open."""
        return state.ended and not (self._reviews_last and state.reviews)

    # --- keys and access ---------------------------------------------------------------------------------------------

    async def _start_rotation(self, state: ReleaseState, rotation: Rotation) -> None:
        """Have custody seal anew what a rotation names, in a workflow beside this one; started once."""
        with suppress(WorkflowAlreadyStartedError):
            await workflow.start_child_workflow(
                names.ROTATION_WORKFLOW,
                msg.RotationInput(
                    release=state.release,
                    rotation=rotation.id,
                    artifacts=rotation.artifacts,
                    delete_old=rotation.delete_old,
                ),
                id=names.rotation_workflow_id(state.release, rotation.id),
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            )
        self._rotating.add(rotation.id)

    async def _renew(self, state: ReleaseState) -> None:
        """Give grants that still stand envelopes of what was sealed anew; who gets none, and why, is said."""
        waiting = {grant.id for grant in state.awaiting_renewal()}
        made = msg.EnvelopesRenewed(envelopes={})
        why = "custody made no envelope for it"
        try:
            request = msg.RenewRequest(release=state.release, seq=state.seq)
            made = await effect(names.RENEW_ENVELOPES, request, names.QUEUE_CUSTODY, msg.EnvelopesRenewed)
        except FAILED as error:
            refused = told(error)
            if not isinstance(refused, Conflict):
                raise  # a service that is away: said, and tried again
            why = refused.detail
        left = waiting - set(made.envelopes) - set(made.refused)
        await self._own(
            cmd.RenewEnvelopes(
                command_id=f"renewed-{state.seq}",
                actor=cmd.SERVICE,
                envelopes=made.envelopes,
                refused={**made.refused, **dict.fromkeys(sorted(left), why)},
            )
        )

    async def _apply_access(self, state: ReleaseState) -> None:
        """Make the outside look like the state. Retried until it does: a revocation is never given up."""
        await workflow.execute_activity(
            names.APPLY_ACCESS,
            msg.AccessRequest(release=state.release, seq=state.seq),
            task_queue=names.QUEUE_TRANSFER,
            result_type=msg.AccessApplied,
            start_to_close_timeout=timedelta(minutes=10),
            heartbeat_timeout=HEARTBEAT,
            retry_policy=_UNDO_RETRY,
        )
        self._applied_seq = state.seq
