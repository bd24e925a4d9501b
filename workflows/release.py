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

import asyncio
from collections import OrderedDict
from contextlib import suppress
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ActivityError, ApplicationError, WorkflowAlreadyStartedError

from orchestrator.contracts import messages as msg
from orchestrator.contracts import names
from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.custody_wait import CustodyWait
from orchestrator.domain.decide import decide, decide_create, due, reminding, wakes_at
from orchestrator.domain.decide_late import asked_faults, asked_key, entered_attempt, late_id
from orchestrator.domain.errors import (
    Conflict,
    GateChanged,
    KeyReused,
    Reason,
    ReleaseEnded,
    SluiceError,
)
from orchestrator.domain.evolve import begin, evolve
from orchestrator.domain.gate import still_holds, verdict
from orchestrator.domain.plan import Step
from orchestrator.domain.reminders import next_reminder
from orchestrator.domain.state import AskedGrant, Entering, ReleaseState, Rotation
from orchestrator.domain.values import digest
from workflows.effects import HEARTBEAT, AskAgain, Result, effect, marked, reasons, told, waits_for
from workflows.errors import refusal

HANDLED_KEPT = 500
_ADOPTED = "adopted"  # stands for the digest of a command that is known by its events alone
_FAILED = (ActivityError, ApplicationError)  # of an activity; a local one may come without the wrapping
_ZERO = timedelta(0)
_STUCK_FOR = timedelta(minutes=1)
_COPYING = timedelta(days=4)  # every partner's marked copy of what may be terabytes
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
_RECORD_RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=50), maximum_interval=timedelta(seconds=5)
)
#: How often custody is asked again while it waits for people or a clock: sooner at first, seldom in the end.
_ASK_AGAIN = (timedelta(seconds=5), timedelta(minutes=5))
_LONG_WAITS = "waits-longer-than-a-history"
_UNDO_RETRY = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=5))


class _GoOnAnew(Exception):  # noqa: N818 - no fault: the entry waits longer than one history may hold
    """The history is long while custody waits: the release continues as new, and the entry goes on there."""


@workflow.defn(name=names.RELEASE_WORKFLOW)
class ReleaseWorkflow:
    """A release on its way along the gradient."""

    @workflow.init
    def __init__(self, start: msg.ReleaseInput) -> None:
        self._start = start
        self._state: ReleaseState | None = start.state
        self._refused: SluiceError | None = None
        self._handled: OrderedDict[str, msg.Handled] = OrderedDict((h.command_id, h) for h in start.handled)
        self._lock = asyncio.Lock()
        self._stuck: str | None = None
        self._applied_seq = start.applied_seq
        self._access_seq = start.applied_seq if start.state is None else start.state.seq
        self._rotating: set[str] = set()
        self._reminds = False
        self._reviews_last = False
        self._ask_again: dict[str, AskAgain] = {}

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
            except _GoOnAnew:
                await workflow.wait_condition(workflow.all_handlers_finished)
                self._continue_as_new()
            except _FAILED as error:
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
        except _FAILED as error:
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

    # --- deciding and recording --------------------------------------------------------------------------------------

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
            retry_policy=_RECORD_RETRY,
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

    def _going(self) -> ReleaseState:
        if self._state is None:
            raise ReleaseEnded("the release was never created")
        return self._state

    async def _create(self) -> None:
        create = self._start.create
        try:
            events = decide_create(create, workflow.now())
            await self._record(events, create, digest(create), self._start.request_id, self._start.address)
        except SluiceError as error:
            self._refused = error
        except _FAILED as error:
            self._refused = told(error)

    async def _own(self, command: cmd.AnyCommand) -> msg.Outcome:
        """Carry out a command of the release's own."""
        return await self._carry_out(msg.CommandMessage(command=command))

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

    def _should_continue_as_new(self) -> bool:
        limit = self._start.history_limit
        info = workflow.info()
        if limit is not None and info.get_current_history_length() >= limit:
            return True
        return info.is_continue_as_new_suggested() or info.is_target_worker_deployment_version_changed()

    def _continue_as_new(self) -> None:
        workflow.continue_as_new(
            msg.ReleaseInput(
                create=self._start.create,
                state=self._going(),
                handled=list(self._handled.values()),
                applied_seq=self._applied_seq,
                history_limit=self._start.history_limit,
            ),
            # a pinned run would otherwise hand its build on for ever
            initial_versioning_behavior=workflow.ContinueAsNewVersioningBehavior.AUTO_UPGRADE,
        )

    # --- the outside -------------------------------------------------------------------------------------------------

    async def _enter(self, state: ReleaseState) -> None:
        """The saga of one entry: everything in place, then one event; or taken back, and said."""
        entry = state.entry
        if entry is None:
            return
        work = asyncio.ensure_future(self._prepare(state, entry.step, entry.attempt))

        def stopped() -> bool:
            now_state = self._going()
            if now_state.entry != entry:
                return True
            step = now_state.plan.step(entry.step)
            return step is None or bool(still_holds(now_state, step, workflow.now()))

        await workflow.wait_condition(lambda: work.done() or stopped())
        if not work.done():
            work.cancel()
        try:
            complete = await work
            await self._own(complete)
        except (asyncio.CancelledError, *_FAILED, SluiceError) as error:
            closed = stopped()
            why = told(error) if isinstance(error, _FAILED) else error
            reason = why.detail if isinstance(why, SluiceError) else "stopped"
            if closed:
                reason = "the gate closed while the step was being entered"
            await self._take_back(entry, reason, failed=not closed)

    async def _prepare(self, state: ReleaseState, step_name: str, attempt: int) -> cmd.CompleteEntry:
        """Put everything in place that the step needs; nothing of it gives access before `step_entered`."""
        step = state.plan.step(step_name)
        partners = [] if step is None else state.plan.audience_partners(step)
        request = msg.StepRequest(release=state.release, step=step_name, attempt=attempt, seq=state.seq)
        found = msg.PartnersFound(ready=[])
        if partners:
            found = await workflow.execute_local_activity(
                names.OBSERVE_PARTNERS,
                msg.PartnersRequest(release=state.release, step=step_name, partners=partners),
                result_type=msg.PartnersFound,
                start_to_close_timeout=timedelta(seconds=20),
                retry_policy=_RECORD_RETRY,
            )
        envelopes: dict[str, dict[str, str]] = {}
        asked = msg.EnvelopeRequest(
            release=state.release,
            step=step_name,
            attempt=attempt,
            partners=found.ready,
            absent=found.absent,
            at=state.updated_at,
        )
        copies = {}
        if step is not None and marked(state, step):
            copied = await self._of_custody(
                names.MAKE_COPIES, asked, names.QUEUE_COPIES, msg.CopiesMade, at_most=_COPYING
            )
            copies = copied.copies
        if step is not None and any(
            state.plan.keyed_components(step, to) for to in ("audience", "deployments")
        ):
            made = await self._of_custody(names.MAKE_ENVELOPES, asked, names.QUEUE_CUSTODY, msg.EnvelopesMade)
            envelopes = made.envelopes
        await effect(names.PUBLISH_STEP, request, names.QUEUE_TRANSFER, msg.Published)
        return cmd.CompleteEntry(
            command_id=f"entered-{step_name}-{attempt}",
            actor=cmd.SERVICE,
            step=step_name,
            partners=found.ready,
            absent=found.absent,
            envelopes=envelopes,
            copies=copies,
        )

    async def _of_custody(
        self,
        name: str,
        asked: msg.EnvelopeRequest,
        queue: str,
        result: type[Result],
        *,
        at_most: timedelta = timedelta(minutes=20),
    ) -> Result:
        """What custody makes for an entry. While it waits for its second lock or its clock, so does the entry, and says so."""
        again = _ASK_AGAIN[0]
        while True:
            try:
                made = await effect(name, asked, queue, result, at_most=at_most)
            except _FAILED as error:
                found = waits_for(error)
                if found is None:
                    raise
                if workflow.info().is_continue_as_new_suggested() and not workflow.patched(_LONG_WAITS):
                    raise
                wait, after = found
                self._stuck = wait.message
                workflow.logger.warning("custody waits", extra={"why": self._stuck})
                await self._note_wait(asked, wait)
                await workflow.sleep(again if after is None else after)
                again = min(again * 1.5, _ASK_AGAIN[1])
                if self._should_continue_as_new():
                    raise _GoOnAnew from None
            else:
                self._stuck = None
                return made

    async def _note_wait(self, asked: msg.EnvelopeRequest, wait: CustodyWait) -> None:
        """Let the state say what custody waits for, once for each thing that it waits for."""
        state = self._going()
        place = asked.step if asked.late is None else asked_key(asked.step, asked.late)
        known = state.custody_waits.get(place)
        if (known is not None and known.wait == wait) or not workflow.patched("custody-waits-are-noted"):
            return
        command = cmd.NoteCustodyWait(
            command_id=f"custody-waits-{asked.step}-{asked.attempt}-{state.seq}",
            actor=cmd.SERVICE,
            step=asked.step,
            attempt=asked.attempt,
            partner=asked.late,
            wait=wait,
        )
        # shielded: a gate that closes now stops the entry, never half a record
        with suppress(SluiceError, *_FAILED):
            await asyncio.shield(asyncio.ensure_future(self._own(command)))

    def _late_now(self, state: ReleaseState) -> AskedGrant | None:
        """The next late grant to make: one that custody does not wait with, or that it is time to ask for again."""
        now = workflow.now()
        for place, asked in state.grants_asked.items():
            again = self._ask_again.get(place)
            # what has come in its way ends it at once
            if again is None or again.asked_at != asked.at or again.at <= now or asked_faults(state, asked):
                return asked
        return None

    async def _grant_late(self, state: ReleaseState, asked: AskedGrant) -> None:
        """Make a grant that was asked for after its step was entered; or say why not. A revocation never waits for it."""
        work = asyncio.ensure_future(self._prepare_grant(state, asked))

        def stopped() -> bool:
            now_state = self._going()
            gone = now_state.grants_asked.get(asked_key(asked.step, asked.partner)) != asked
            return gone or self._access_seq > self._applied_seq or bool(asked_faults(now_state, asked))

        await workflow.wait_condition(lambda: work.done() or stopped())
        interrupted = not work.done()
        if interrupted:
            work.cancel()
        try:
            await self._own(await work)
        except (asyncio.CancelledError, *_FAILED, SluiceError) as error:
            state = self._going()
            if state.grants_asked.get(asked_key(asked.step, asked.partner)) != asked:
                return
            faults = asked_faults(state, asked)
            if interrupted and not faults:
                return  # what was revoked comes first; then this one again
            if isinstance(error, _FAILED) and not interrupted and await self._late_waits(state, asked, error):
                return
            why = told(error) if isinstance(error, _FAILED) else error
            lines = [fault.message for fault in faults] or (
                reasons(why) if isinstance(why, SluiceError) else []
            )
            await self._own(
                cmd.DropGrant(
                    command_id=f"no-grant-{asked.step}-{asked.partner}-{state.seq}",
                    actor=cmd.SERVICE,
                    step=asked.step,
                    partner=asked.partner,
                    reason="; ".join(lines)[:4000] or "stopped",
                )
            )

    async def _late_waits(
        self, state: ReleaseState, asked: AskedGrant, error: ActivityError | ApplicationError
    ) -> bool:
        """Whether custody waits with a late grant: it is said and asked again later, and nothing else of the release waits for it."""
        found = waits_for(error)
        if found is None or not workflow.patched("late-grants-wait"):
            return False
        wait, after = found
        place = asked_key(asked.step, asked.partner)
        before = self._ask_again.get(place)
        pause = _ASK_AGAIN[0] if before is None else min(before.pause * 1.5, _ASK_AGAIN[1])
        self._ask_again = {
            name: again for name, again in self._ask_again.items() if name in state.grants_asked
        }
        self._ask_again[place] = AskAgain(asked.at, workflow.now() + (after or pause), pause)
        step = state.plan.step(asked.step)
        attempt = None if step is None else entered_attempt(state, step)
        request = msg.EnvelopeRequest(
            release=state.release,
            step=asked.step,
            attempt=attempt or 0,
            partners=[],
            at=asked.at,
            late=asked.partner,
        )
        await self._note_wait(request, wait)
        return True

    async def _prepare_grant(self, state: ReleaseState, asked: AskedGrant) -> cmd.CompleteGrant:
        """See whether the partner is ready, and have its envelopes made."""
        step = state.plan.step(asked.step)
        attempt = None if step is None else entered_attempt(state, step)
        if step is None or attempt is None:
            raise Conflict(f"`{asked.step}` does not stand any more")
        found = await workflow.execute_local_activity(
            names.OBSERVE_PARTNERS,
            msg.PartnersRequest(release=state.release, step=step.name, partners=[asked.partner]),
            result_type=msg.PartnersFound,
            start_to_close_timeout=timedelta(seconds=20),
            retry_policy=_RECORD_RETRY,
        )
        if not found.ready:
            raise Conflict(
                f"{asked.partner} is not ready: it is active, has accepted the terms of its groups, and has a key that the plan takes"
            )
        envelopes: dict[str, dict[str, str]] = {}
        copies: dict[str, list[cmd.GrantCopy]] = {}
        if state.plan.keyed_components(step, "audience"):
            wanted = msg.EnvelopeRequest(
                release=state.release,
                step=step.name,
                attempt=attempt,
                partners=found.ready,
                at=asked.at,
                late=asked.partner,
            )
            copies = await self._copies(state, step, wanted)
            made = await effect(names.MAKE_ENVELOPES, wanted, names.QUEUE_CUSTODY, msg.EnvelopesMade)
            envelopes = made.envelopes
        return cmd.CompleteGrant(
            command_id=f"granted-{late_id(state, step, asked.partner)}-{state.seq}",
            actor=cmd.SERVICE,
            step=step.name,
            partner=asked.partner,
            recipient=found.ready[0].recipient,
            envelopes=envelopes.get(late_id(state, step, asked.partner), {}),
            copies=copies.get(late_id(state, step, asked.partner), []),
        )

    async def _copies(
        self, state: ReleaseState, step: Step, asked: msg.EnvelopeRequest
    ) -> dict[str, list[cmd.GrantCopy]]:
        """The marked copies that a late grant gets, where the plan marks what the step hands out."""
        if not marked(state, step):
            return {}
        made = await effect(names.MAKE_COPIES, asked, names.QUEUE_COPIES, msg.CopiesMade, at_most=_COPYING)
        return made.copies

    async def _take_back(self, entry: Entering, reason: str, *, failed: bool) -> None:
        state = self._going()
        if state.entry != entry:
            return  # a rollback or the end of the release has taken it back already
        take_back = cmd.TakeBackEntry(
            command_id=f"take-back-{entry.step}-{state.seq}",
            actor=cmd.SERVICE,
            step=entry.step,
            reason=reason[:4000],
            failed=failed,
        )
        await self._own(take_back)

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
        except _FAILED as error:
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
