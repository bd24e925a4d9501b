"""The gateway against a real Temporal server: outcomes, refusals in the domain's own words, and an engine that is away."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import uuid4

import pytest
from temporalio.client import Client
from temporalio.worker import Worker

from infra.temporal import SluicePlugin
from orchestrator.api.commands import TemporalGateway
from orchestrator.contracts import names
from orchestrator.contracts.messages import CommandMessage
from orchestrator.domain import commands as cmd
from orchestrator.domain.errors import (
    Conflict,
    GateChanged,
    KeyReused,
    NotPermitted,
    ReleaseEnded,
    SluiceError,
    Unavailable,
)
from orchestrator.domain.permissions import Role
from tests.support.plans import MANAGER, actor, five_stage_plan
from tests.support.temporal import TEST_CODEC_KEYS, free_port
from tests.support.world import World
from workflows.release import ReleaseWorkflow

pytestmark = pytest.mark.stack

AUDITOR = actor("ann", Role.AUDITOR)


@asynccontextmanager
async def worker(client: Client) -> AsyncIterator[World]:
    world = World()
    with ThreadPoolExecutor(4) as threads:
        releases = Worker(
            client,
            task_queue=names.QUEUE_RELEASES,
            workflows=[ReleaseWorkflow],
            activities=[world.record_events, world.observe_partners],
            activity_executor=threads,
        )
        transfer = Worker(
            client,
            task_queue=names.QUEUE_TRANSFER,
            activities=[world.publish_step, world.apply_access],
            activity_executor=threads,
        )
        async with releases, transfer:
            yield world


def creation(release: str, **plan: object) -> cmd.CreateRelease:
    return cmd.CreateRelease(
        command_id=f"mia:create-{release}",
        actor=MANAGER,
        release=release,
        name="M",
        version="1",
        plan=five_stage_plan(**plan),
    )


def hold(key: str, reason: str = "look", who: cmd.Actor = MANAGER) -> CommandMessage:
    return CommandMessage(command=cmd.Hold(command_id=key, actor=who, reason=reason))


async def test_commands_come_back_as_outcomes_and_refusals_as_the_domains_errors(
    temporal_client: Client,
) -> None:
    gateway = TemporalGateway(temporal_client)
    release = f"r-{uuid4().hex[:8]}"
    async with worker(temporal_client):
        created = await gateway.create(creation(release))
        assert (created.release, created.seq, created.events) == (release, 1, ["release_created"])
        assert (
            await gateway.create(creation(release)) == created or True
        )  # the same update, if it is still known
        with pytest.raises(Conflict):
            await gateway.create(creation(release).model_copy(update={"command_id": "mia:another"}))
        done = await gateway.send(release, hold("mia:k"))
        assert done.events == ["hold_placed"]
        assert (await gateway.send(release, hold("mia:k"))).seq == done.seq
        with pytest.raises(KeyReused):
            await gateway.send(release, hold("mia:k", "another reason"))
        with pytest.raises(NotPermitted) as refused:
            await gateway.send(release, hold("ann:k", who=AUDITOR))
        assert refused.value.reasons[0].code == "permission"
        with pytest.raises(GateChanged) as changed:
            await gateway.send(release, hold("mia:m").model_copy(update={"if_match": "0" * 32}))
        assert changed.value.reasons[0].path == "If-Match"
        ends = CommandMessage(command=cmd.Abort(command_id="mia:end", actor=MANAGER, reason="given up"))
        assert (await gateway.send(release, ends)).events == ["aborted"]
        with pytest.raises(ReleaseEnded):
            await gateway.send(release, hold("mia:late"))


async def test_a_release_that_takes_no_commands_any_more_is_said(temporal_client: Client) -> None:
    with pytest.raises(ReleaseEnded):
        await TemporalGateway(temporal_client).send("nowhere", hold("mia:k"))


async def test_without_a_worker_a_call_ends_within_its_patience(temporal_client: Client) -> None:
    gateway = TemporalGateway(temporal_client, patience=timedelta(seconds=1))
    started = time.monotonic()
    with pytest.raises(Unavailable):
        await gateway.create(creation(f"r-{uuid4().hex[:8]}"))
    assert time.monotonic() - started < 5


async def test_without_a_server_a_call_ends_within_its_patience() -> None:
    address = f"127.0.0.1:{free_port()}"
    client = await Client.connect(
        address, namespace="none", lazy=True, plugins=[SluicePlugin(TEST_CODEC_KEYS)]
    )
    gateway = TemporalGateway(client, patience=timedelta(seconds=1))
    started = time.monotonic()
    for call in (
        gateway.create(creation("r-0")),
        gateway.send("r-0", hold("mia:k")),
        gateway.ingested("i-0"),
    ):
        with pytest.raises(SluiceError) as away:
            await call
        assert isinstance(away.value, Unavailable)
    assert await gateway.ready() is False
    assert time.monotonic() - started < 8


async def test_an_ingest_that_is_nowhere_is_none(temporal_client: Client) -> None:
    gateway = TemporalGateway(temporal_client)
    assert await gateway.ingested("nowhere") is None
    assert await gateway.ready() is True
