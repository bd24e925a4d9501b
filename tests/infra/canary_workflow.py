"""A workflow that carries a canary through every way a value can take into a history."""

from datetime import timedelta

from pydantic import BaseModel
from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError


class Message(BaseModel):
    release: str = "rel-1"
    step: str = "hosted"
    text: str


@activity.defn
async def echo(message: Message) -> Message:
    return message


@activity.defn
async def fail_with(message: Message) -> None:
    raise ApplicationError(f"failed on {message.text}", message, type="Canary", non_retryable=True)


@workflow.defn
class CanaryWorkflow:
    def __init__(self) -> None:
        self.done = False
        self.last: Message | None = None

    @workflow.run
    async def run(self, message: Message) -> Message:
        await workflow.wait_condition(lambda: self.done)
        answer = await self._call(echo, message)
        try:
            await self._call(fail_with, message)
        except Exception as error:  # noqa: BLE001
            workflow.upsert_memo({"note": f"{message.text} {error.__cause__}"})
        return answer

    async def _call(self, name, message: Message) -> Message:
        return await workflow.execute_activity(
            name,
            message,
            start_to_close_timeout=timedelta(seconds=10),
            retry_policy=RetryPolicy(maximum_attempts=1),
        )

    @workflow.update
    async def accept(self, message: Message) -> Message:
        self.last = message
        return message

    @workflow.update
    async def refuse(self, message: Message) -> None:
        raise ApplicationError(f"refused {message.text}", message)

    @workflow.update
    async def through_activity(self, message: Message) -> Message:
        return await self._call(echo, message)

    @workflow.signal
    async def finish(self, message: Message) -> None:
        self.done = True

    @workflow.query
    def seen(self) -> Message | None:
        return self.last
