"""One look for everything that a release withholds; a schedule starts it again and again while anything is.

    plan -> poll each source (its own lease and cursor) -> tell the release which sources saw
         -> until nothing is left: sort by listings, scan what has to be scanned, report what was found,
            have traced whose marked copy it is (`leak_trace`)

Short: it ends after so many scans, and the next one goes on. It keeps nothing: candidates, cursors and judgements are in the
records, so that a sweep that dies loses nothing and one that is doubled does nothing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, WorkflowAlreadyStartedError

from orchestrator.contracts import leak_messages as msg
from orchestrator.contracts import names

Result = TypeVar("Result")

_HEARTBEAT = timedelta(seconds=20)
_SHORT = RetryPolicy(
    initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(seconds=10), maximum_attempts=8
)
#: A scan that takes its worker down thrice is a trap: the suspect is given up, and shown.
_SCAN = RetryPolicy(initial_interval=timedelta(seconds=2), maximum_attempts=3)


@workflow.defn(name=names.LEAK_SWEEP_WORKFLOW)
class LeakSweepWorkflow:
    """One sweep for one release."""

    @workflow.run
    async def run(self, start: msg.SweepInput) -> msg.SweepResult:
        """Look once; what was looked at and found."""
        plan = await _do(names.PLAN_SWEEP, msg.ReleaseRequest(release=start.release), msg.SweepPlan)
        if not plan.artifacts:
            return msg.SweepResult()
        for name in plan.parents:
            await _prepare(msg.PrepareRequest(what="parent", name=name))
        for name in plan.undigested:
            await _prepare(msg.PrepareRequest(what="sealed", name=name))
        polls = await asyncio.gather(*(self._poll(name) for name in plan.sources))
        await _do(names.TELL_MONITORS, msg.ReleaseRequest(release=start.release), msg.Told)
        result = msg.SweepResult(
            looked=[poll.source for poll in polls if poll.state == "looked"],
            blind=[poll.source for poll in polls if poll.state == "blind"],
            new=sum(poll.new for poll in polls),
        )
        return await self._judge(start, result)

    async def _judge(self, start: msg.SweepInput, result: msg.SweepResult) -> msg.SweepResult:
        exact = ruled_out = scanned = 0
        incidents: list[str] = []
        slots = asyncio.Semaphore(start.at_once)
        left = True
        while left and scanned < start.most_scans:
            room = start.most_scans - scanned
            found = await _do(
                names.SORT_SUSPECTS,
                msg.SortRequest(release=start.release, scans=min(room, 100)),
                msg.Sorted,
                seconds=300,
                beats=True,  # or a worker that dies here keeps every sweep of the release waiting for five minutes
            )
            await asyncio.gather(*(self._scan(start.release, key, slots) for key in found.scan))
            told = await _do(names.REPORT_SIGHTINGS, msg.ReleaseRequest(release=start.release), msg.Told)
            incidents += told.incidents
            for wanted in told.traces:
                await _trace(wanted)
            exact, ruled_out = exact + found.exact, ruled_out + found.ruled_out
            scanned, left = scanned + len(found.scan), found.left
        return result.model_copy(
            update={
                "exact": exact,
                "ruled_out": ruled_out,
                "scanned": scanned,
                "incidents": incidents[:100],
                "left": left,
            }
        )

    async def _poll(self, source: str) -> msg.PollResult:
        holder = workflow.info().run_id
        try:
            return await _do(
                names.POLL_SOURCE,
                msg.PollRequest(source=source, holder=holder),
                msg.PollResult,
                seconds=900,
                beats=True,
            )
        except ActivityError as error:
            # the source's standing in the records says how long it has been blind
            return msg.PollResult(source=source, state="blind", why=type(error.cause).__name__)

    async def _scan(self, release: str, suspect: str, slots: asyncio.Semaphore) -> None:
        request = msg.ScanRequest(release=release, suspect=suspect)
        async with slots:
            try:
                await _do(names.SCAN_SUSPECT, request, msg.Scanned, seconds=900, beats=True, retry=_SCAN)
            except ActivityError:
                await _do(names.GIVE_UP_SUSPECT, request, msg.Scanned)


@workflow.defn(name=names.LEAK_PREPARE_WORKFLOW)
class LeakPrepareWorkflow:
    """What may take hours and is done once, beside the sweeps, so that no source is blind meanwhile."""

    @workflow.run
    async def run(self, start: msg.PrepareRequest) -> msg.Told:
        """Sign a public parent for every artifact that lacks it, or digest the sealed files of an artifact."""
        activity = names.SIGN_PARENT if start.what == "parent" else names.DIGEST_SEALED
        return await _do(activity, start, msg.Told, seconds=24 * 3600, beats=True, retry=_SCAN)


@workflow.defn(name=names.LEAK_CHECK_WORKFLOW)
class LeakCheckWorkflow:
    """Tier 3 on request: the whole of a suspect against the whole of an artifact, where the reference lies."""

    @workflow.run
    async def run(self, start: msg.WholeRequest) -> msg.WholeResult:
        """Compare, and tell releases what came of it."""
        return await _do(
            names.COMPARE_WHOLE, start, msg.WholeResult, seconds=24 * 3600, beats=True, retry=_SCAN
        )


async def _prepare(request: msg.PrepareRequest) -> None:
    """Have a preparation running; one that runs already is left to itself."""
    try:
        await workflow.start_child_workflow(
            names.LEAK_PREPARE_WORKFLOW,
            request,
            id=names.leak_prepare_workflow_id(request.what, request.name),
            task_queue=names.QUEUE_RELEASES,
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
        )
    except WorkflowAlreadyStartedError:
        return


async def _trace(request: msg.TraceRequest) -> None:
    """Have a suspect traced, beside the sweeps; nothing waits for it, and one that is being traced is."""
    try:
        await workflow.start_child_workflow(
            names.LEAK_TRACE_WORKFLOW,
            request,
            id=names.leak_trace_workflow_id(request.release, request.incident, request.component),
            task_queue=names.QUEUE_RELEASES,
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
        )
    except WorkflowAlreadyStartedError:
        return


async def _do(
    name: str,
    request: Any,
    result: type[Result],
    *,
    seconds: float = 60,
    beats: bool = False,
    retry: RetryPolicy = _SHORT,
) -> Result:
    done: Awaitable[Result] = workflow.execute_activity(
        name,
        request,
        task_queue=names.QUEUE_LEAKS,
        result_type=result,
        start_to_close_timeout=timedelta(seconds=seconds),
        heartbeat_timeout=_HEARTBEAT if beats else None,
        retry_policy=retry,
    )
    return await done
