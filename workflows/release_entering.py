"""The saga of entering a step: everything put in place, then the one event that makes it true; or all of it taken back."""

from __future__ import annotations

import asyncio

from temporalio import workflow

from orchestrator.contracts import messages as msg
from orchestrator.contracts import names
from orchestrator.domain import commands as cmd
from orchestrator.domain.errors import SluiceError
from orchestrator.domain.gate import still_holds
from orchestrator.domain.state import Entering, ReleaseState
from workflows.effects import effect, marked, told
from workflows.release_custody import COPYING, AsksCustody
from workflows.release_recording import FAILED


class EntersSteps(AsksCustody):
    """Enters the step whose gate has opened, and takes an entry back when its gate closes or something fails."""

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
        except (asyncio.CancelledError, *FAILED, SluiceError) as error:
            closed = stopped()
            why = told(error) if isinstance(error, FAILED) else error
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
            found = await self._observe(step_name, partners)
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
                names.MAKE_COPIES, asked, names.QUEUE_COPIES, msg.CopiesMade, at_most=COPYING
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
