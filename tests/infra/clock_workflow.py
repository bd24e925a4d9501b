"""A workflow that counts the days."""

import asyncio
from datetime import timedelta

from temporalio import workflow


@workflow.defn
class ClockWorkflow:
    def __init__(self) -> None:
        self.counted = 0

    @workflow.run
    async def run(self) -> None:
        while True:
            await asyncio.sleep(timedelta(days=55).total_seconds())
            self.counted += 55

    @workflow.query
    def days(self) -> int:
        return self.counted
