"""What a release asks of partners' records and of custody while it makes grants; and that it waits when custody does."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

from temporalio import workflow

from orchestrator.contracts import messages as msg
from orchestrator.contracts import names
from orchestrator.domain import commands as cmd
from orchestrator.domain.custody_wait import CustodyWait
from orchestrator.domain.decide_late import asked_key
from orchestrator.domain.errors import SluiceError
from workflows.effects import Result, effect, waits_for
from workflows.release_recording import FAILED, RECORD_RETRY, RecordedRelease

#: How often custody is asked again while it waits for people or a clock: sooner at first, seldom in the end.
ASK_AGAIN = (timedelta(seconds=5), timedelta(minutes=5))
#: Every partner's marked copy of what may be terabytes.
COPYING = timedelta(days=4)
_LONG_WAITS = "waits-longer-than-a-history"


class GoOnAnew(Exception):  # noqa: N818 - no fault: the entry waits longer than one history may hold
    """The history is long while custody waits: the release continues as new, and the entry goes on there."""


class AsksCustody(RecordedRelease):
    """What entering a step and making a late grant have in common."""

    async def _observe(self, step: str, partners: list[str]) -> msg.PartnersFound:
        """Who of these partners is ready for a step: active, bound by its terms, with a key that the plan takes."""
        found: msg.PartnersFound = await workflow.execute_local_activity(
            names.OBSERVE_PARTNERS,
            msg.PartnersRequest(release=self._start.create.release, step=step, partners=partners),
            result_type=msg.PartnersFound,
            start_to_close_timeout=timedelta(seconds=20),
            retry_policy=RECORD_RETRY,
        )
        return found

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
        again = ASK_AGAIN[0]
        while True:
            try:
                made = await effect(name, asked, queue, result, at_most=at_most)
            except FAILED as error:
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
                again = min(again * 1.5, ASK_AGAIN[1])
                if self._should_continue_as_new():
                    raise GoOnAnew from None
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
        with suppress(SluiceError, *FAILED):
            await asyncio.shield(asyncio.ensure_future(self._own(command)))
