"""Grants that were asked for after their step was entered, each made by itself. A revocation waits for none of them."""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from orchestrator.contracts import messages as msg
from orchestrator.contracts import names
from orchestrator.domain import commands as cmd
from orchestrator.domain.decide_late import asked_faults, asked_key, entered_attempt, late_id
from orchestrator.domain.errors import Conflict, SluiceError
from orchestrator.domain.plan import Step
from orchestrator.domain.state import AskedGrant, ReleaseState
from workflows.effects import AskAgain, effect, marked, reasons, told, waits_for
from workflows.release_custody import ASK_AGAIN, COPYING, AsksCustody
from workflows.release_recording import FAILED


class GrantsLate(AsksCustody):
    """Makes late grants one after the other, and asks again for those that custody waits with."""

    def __init__(self, start: msg.ReleaseInput) -> None:
        super().__init__(start)
        self._ask_again: dict[str, AskAgain] = {}

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
        except (asyncio.CancelledError, *FAILED, SluiceError) as error:
            state = self._going()
            if state.grants_asked.get(asked_key(asked.step, asked.partner)) != asked:
                return
            faults = asked_faults(state, asked)
            if interrupted and not faults:
                return  # what was revoked comes first; then this one again
            if isinstance(error, FAILED) and not interrupted and await self._late_waits(state, asked, error):
                return
            why = told(error) if isinstance(error, FAILED) else error
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
        pause = ASK_AGAIN[0] if before is None else min(before.pause * 1.5, ASK_AGAIN[1])
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
        found = await self._observe(step.name, [asked.partner])
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
        made = await effect(names.MAKE_COPIES, asked, names.QUEUE_COPIES, msg.CopiesMade, at_most=COPYING)
        return made.copies
