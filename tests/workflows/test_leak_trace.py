"""Tracing beside the sweeps: whatever fails is written on the incident, people's approval is waited for, and what was read goes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from orchestrator.contracts import leak_messages as lm
from orchestrator.contracts import names
from orchestrator.domain.incident import Trace, TracedPartner
from workflows.leak_trace import LeakTraceWorkflow

pytestmark = pytest.mark.stack
NOW = datetime(2026, 1, 5, tzinfo=UTC)


@dataclass
class Outside:
    """The leak worker and custody, as one test wants them."""

    sample: lm.SampleTaken
    answers: list[Any] = field(default_factory=list)
    told: list[lm.TraceTold] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    @activity.defn(name=names.TAKE_SAMPLE)
    async def take(self, request: lm.TraceRequest) -> lm.SampleTaken:
        return self.sample

    @activity.defn(name=names.TRACE_SUSPECT)
    async def trace(self, asked: lm.TraceAsked) -> Trace:
        assert asked.sample == self.sample
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Trace.model_validate(answer)

    @activity.defn(name=names.TELL_TRACE)
    async def tell(self, told: lm.TraceTold) -> None:
        self.told.append(told)

    @activity.defn(name=names.DROP_SAMPLE)
    async def drop(self, sample: lm.SampleTaken) -> None:
        self.dropped.append(sample.key)


@asynccontextmanager
async def running(client: Client, outside: Outside, *, custody: bool = True) -> AsyncIterator[None]:
    own = [outside.take, outside.tell, outside.drop]
    async with (
        Worker(client, task_queue=names.QUEUE_RELEASES, workflows=[LeakTraceWorkflow]),
        Worker(client, task_queue=names.QUEUE_LEAKS, activities=own),
    ):
        if not custody:
            yield
            return
        async with Worker(client, task_queue=names.QUEUE_COPIES, activities=[outside.trace]):
            yield


async def traced(client: Client, patience: float = 60.0, as_id: str | None = None) -> Trace:
    asked = lm.TraceRequest(
        release="alpha",
        incident="leak-1",
        component="weights",
        suspect="report:1",
        artifact="art-1",
        verdict="sha256:" + "0" * 64,
        patience=patience,
        again=0.2,
    )
    told = await client.execute_workflow(
        names.LEAK_TRACE_WORKFLOW,
        asked,
        id=as_id or f"trace-{uuid4().hex}",
        task_queue=names.QUEUE_RELEASES,
        result_type=lm.TraceTold,
        execution_timeout=timedelta(seconds=60),
    )
    assert told.asked == asked
    return told.trace


FOUND = Trace(
    component="weights",
    report="sha256:" + "1" * 64,
    partners=[TracedPartner(partner="uni", z=40.0, suspicion="accused")],
    at=NOW,
)
TAKEN = lm.SampleTaken(statement="{}", location="dir:/store", key="traces/1.sealed")


async def test_what_custody_finds_is_told_once_people_have_approved_and_the_sample_goes(
    temporal_client: Client,
) -> None:
    waits = ApplicationError("two people have to approve", [], type=names.WAITS_FOR_LOCK, non_retryable=True)
    outside = Outside(TAKEN, [waits, waits, FOUND])
    async with running(temporal_client, outside):
        assert await traced(temporal_client) == FOUND
    assert [one.trace for one in outside.told] == [FOUND]
    assert outside.dropped == [TAKEN.key]


@pytest.mark.parametrize("why", ["unread", "refused", "away"])
async def test_whatever_fails_is_on_the_incident(temporal_client: Client, why: str) -> None:
    refusal = ApplicationError("the log was rewritten", [], type="unbacked", non_retryable=True)
    outside = Outside(
        lm.SampleTaken(not_traced="the suspect\x1b could not be read: 404") if why == "unread" else TAKEN,
        [refusal],
    )
    async with running(temporal_client, outside, custody=why != "away"):
        trace = await traced(temporal_client, 1.0)
    assert trace.partners == []
    told = {
        "unread": "the suspect  could not be read: 404",
        "refused": "custody: the log was rewritten",
        "away": "custody did not do it in time; trace it with `sluice trace`",
    }
    assert trace.not_traced == told[why]
    assert [one.trace for one in outside.told] == [trace]
    assert outside.dropped == ([] if why == "unread" else [TAKEN.key])
