"""Effects outside a workflow: run with few tries, and what their failures mean: a refusal, a failure, or that custody waits."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

from orchestrator.contracts import names
from orchestrator.domain.custody_wait import CustodyWait
from orchestrator.domain.errors import Reason, SluiceError, error_by_code
from orchestrator.domain.plan import Step
from orchestrator.domain.state import ReleaseState

Result = TypeVar("Result")

#: How soon a worker that died is noticed; its work beats every two seconds.
HEARTBEAT = timedelta(seconds=15)
_EFFECT_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=20), maximum_attempts=6
)
#: What custody answers when it waits, as the workflow keeps it: what for, and when it is worth asking again (None: it does not say).
Waits = tuple[CustodyWait, timedelta | None]


async def effect(
    name: str, request: Any, queue: str, result: type[Result], *, at_most: timedelta = timedelta(minutes=20)
) -> Result:
    """Run one effect of an entry; give up after some tries, so that the entry is taken back and people are told."""
    done: Awaitable[Result] = workflow.execute_activity(
        name,
        request,
        task_queue=queue,
        result_type=result,
        schedule_to_close_timeout=at_most * 1.5,
        start_to_close_timeout=at_most,
        heartbeat_timeout=HEARTBEAT,
        retry_policy=_EFFECT_RETRY,
        cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    )
    return await done


@dataclass(frozen=True, slots=True)
class AskAgain:
    """When custody is asked again for a late grant; `asked_at` names the asking, `pause` the last wait."""

    asked_at: datetime
    at: datetime
    pause: timedelta


def marked(state: ReleaseState, step: Step) -> bool:
    """Whether partners of a step get marked copies."""
    return bool(state.plan.marks(step, "partner", state.plan.keyed_components(step, "audience")))


def waits_for(error: ActivityError | ApplicationError) -> Waits | None:
    """What custody waits for, and after how long to ask again if it knows; None when it refused or failed."""
    cause = error if isinstance(error, ApplicationError) else error.cause
    if not isinstance(cause, ApplicationError) or cause.type not in {
        names.WAITS_FOR_CLOCK,
        names.WAITS_FOR_LOCK,
    }:
        return None
    message = "; ".join(reasons(told(error)))[:4000]
    seconds = cause.details[1] if len(cause.details) > 1 else None
    after = timedelta(seconds=seconds + 1) if isinstance(seconds, int | float) else None
    if cause.type == names.WAITS_FOR_CLOCK:
        return CustodyWait(what="clock", message=message), after
    more = cause.details[2] if len(cause.details) > 2 else {}
    return CustodyWait(what="second_lock", message=message, **more), after


def reasons(error: SluiceError) -> list[str]:
    """What an error says, and its reasons."""
    return [error.detail, *(reason.message for reason in error.reasons if reason.message not in error.detail)]


def told(error: ActivityError | ApplicationError) -> SluiceError:
    """What an activity's failure means, as an error of the rules."""
    cause = error if isinstance(error, ApplicationError) else error.cause
    if isinstance(cause, ApplicationError):
        kind = error_by_code(cause.type or "")
        details = cause.details[0] if cause.details else []
        reasons = [Reason(**reason) for reason in details] if isinstance(details, list | tuple) else []
        return kind(cause.message, reasons)
    name = error.activity_type if isinstance(error, ActivityError) else "an activity"
    return SluiceError(f"{name} did not succeed: {type(cause).__name__ if cause else 'no answer'}")
