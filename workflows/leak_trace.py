"""Whose copy a recognised suspect is: started by the sweep that reported it, beside everything else.

    sample   the leak worker reads what a budget allows of the suspect, and seals it to custody
    trace    custody, which alone holds the mark keys, compares it with every partner's mark
    tell     the incident gets every partner's z, or why nothing could be compared; the response table acts on who is accused

The incident stands before this begins and waits for none of it. Whatever fails here is written on the incident.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.exceptions import TimeoutError as TemporalTimeoutError

from orchestrator.contracts import leak_messages as msg
from orchestrator.contracts import names
from orchestrator.domain.incident import Trace

_HEARTBEAT = timedelta(seconds=20)
_SAMPLE = RetryPolicy(initial_interval=timedelta(seconds=2), maximum_attempts=3)
#: A store or key service may be away for hours; what fails so often will not mend itself.
_TRACE = RetryPolicy(
    initial_interval=timedelta(seconds=2), maximum_interval=timedelta(minutes=10), maximum_attempts=40
)
_TELL = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=5))


@workflow.defn(name=names.LEAK_TRACE_WORKFLOW)
class LeakTraceWorkflow:
    """The trace of one incident's suspect."""

    @workflow.run
    async def run(self, start: msg.TraceRequest) -> msg.TraceTold:
        """Sample, trace, tell; what the incident was told."""
        sample = msg.SampleTaken()
        try:
            sample = await workflow.execute_activity(
                names.TAKE_SAMPLE,
                start,
                task_queue=names.QUEUE_LEAKS,
                result_type=msg.SampleTaken,
                start_to_close_timeout=timedelta(hours=1),
                heartbeat_timeout=_HEARTBEAT,
                retry_policy=_SAMPLE,
            )
            if sample.not_traced is None:
                trace = await self._traced(start, sample)
            else:
                trace = _not(start, sample.not_traced)
        except ActivityError as error:
            trace = _not(start, _why(error))
        told = msg.TraceTold(asked=start, trace=trace)
        await workflow.execute_activity(
            names.TELL_TRACE,
            told,
            task_queue=names.QUEUE_LEAKS,
            start_to_close_timeout=timedelta(minutes=1),
            retry_policy=_TELL,
        )
        if sample.key:
            try:
                await workflow.execute_activity(
                    names.DROP_SAMPLE,
                    sample,
                    task_queue=names.QUEUE_LEAKS,
                    start_to_close_timeout=timedelta(minutes=5),
                    schedule_to_close_timeout=timedelta(hours=1),
                    retry_policy=_TELL,
                )
            except ActivityError:
                workflow.logger.warning("a leak sample stays in the store", extra={"key": sample.key})
        return told

    async def _traced(self, start: msg.TraceRequest, sample: msg.SampleTaken) -> Trace:
        """Ask custody; where people have to approve its keys, ask again until they have."""
        again = timedelta(seconds=start.again)
        until = workflow.now() + timedelta(seconds=start.patience)
        while True:
            try:
                trace: Trace = await workflow.execute_activity(
                    names.TRACE_SUSPECT,
                    msg.TraceAsked(release=start.release, sample=sample),
                    task_queue=names.QUEUE_COPIES,
                    result_type=Trace,
                    schedule_to_close_timeout=max(until - workflow.now(), again),
                    heartbeat_timeout=_HEARTBEAT,
                    retry_policy=_TRACE,
                )
                return trace
            except ActivityError as error:
                cause = error.cause
                waits = isinstance(cause, ApplicationError) and cause.type in {
                    names.WAITS_FOR_LOCK,
                    names.WAITS_FOR_CLOCK,
                }
                if not waits or workflow.now() + again >= until:
                    raise
                await workflow.sleep(again)


def _not(start: msg.TraceRequest, why: str) -> Trace:
    # what strangers' hosts say may be in it: no letter of it may end the workflow
    printable = "".join(c if c.isprintable() else " " for c in why)[:1_000]
    return Trace(component=start.component, not_traced=printable or "unknown", at=workflow.now())


def _why(error: ActivityError) -> str:
    cause = error.cause
    if isinstance(cause, TemporalTimeoutError):
        return f"{_WHO[error.activity_type]} did not do it in time; trace it with `sluice trace`"
    what = cause.message if isinstance(cause, ApplicationError) else type(cause).__name__
    return f"{_WHO[error.activity_type]}: {what}"


_WHO = {names.TAKE_SAMPLE: "the leak worker", names.TRACE_SUSPECT: "custody"}
