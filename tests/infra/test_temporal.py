import asyncio
import sys
import textwrap
import uuid
from datetime import timedelta

import pytest
import structlog
from temporalio import activity
from temporalio.client import WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.worker import Replayer, Worker, WorkerDeploymentConfig

from infra.codec import CodecKeys, write_new_keys
from infra.logs import bound
from infra.settings import Settings
from infra.temporal import (
    NamespaceMissingError,
    SluicePlugin,
    TemporalError,
    TemporalUnreachableError,
    connect,
    default_build_id,
    deployment_config,
    make_current,
)
from tests.infra.canary_workflow import CanaryWorkflow, Message, echo, fail_with
from tests.support.temporal import TEST_CODEC_KEYS, free_port

pytestmark = pytest.mark.stack

CANARY = "canary-4f1c9e7a"


def settings_for(tmp_path, **values):
    path = tmp_path / "secrets" / "codec.keys"
    if not path.exists():
        write_new_keys(path)
    return Settings(dev=True, data_dir=tmp_path, **values)


@pytest.fixture
def queue():
    return f"q-{uuid.uuid4()}"


def canary_worker(client, queue, **more):
    return Worker(client, task_queue=queue, workflows=[CanaryWorkflow], activities=[echo, fail_with], **more)


async def drive(client, queue):
    message = Message(text=CANARY)
    handle = await client.start_workflow(
        CanaryWorkflow.run, message, id=f"w-{uuid.uuid4()}", task_queue=queue, memo={"first": CANARY}
    )
    assert await handle.execute_update(CanaryWorkflow.accept, message) == message
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await handle.execute_update(CanaryWorkflow.refuse, message)
    assert CANARY in str(refused.value.cause), "the caller must still see what was said"
    assert await handle.query(CanaryWorkflow.seen) == message
    await handle.signal(CanaryWorkflow.finish, message)
    assert await handle.result() == message
    return handle


async def test_no_value_failure_or_memo_is_in_clear_in_a_real_history(temporal_client, queue):
    with bound(request=CANARY):
        async with canary_worker(temporal_client, queue):
            handle = await drive(temporal_client, queue)
    raw = await temporal_client.workflow_service.get_workflow_execution_history(_history_request(handle))
    described = await handle.describe()
    everything = raw.SerializeToString() + described.raw_description.SerializeToString()
    assert len(raw.history.events) > 15
    assert b"sluice-aes256gcm" in everything
    for shown in (CANARY.encode(), b"canary_workflow.py", b"refused", b"failed on"):
        assert shown not in everything


def _history_request(handle):
    from temporalio.api.common.v1 import WorkflowExecution
    from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryRequest

    return GetWorkflowExecutionHistoryRequest(
        namespace="sluice-test", execution=WorkflowExecution(workflow_id=handle.id), maximum_page_size=1000
    )


async def test_a_saved_history_replays_with_the_same_plugin_and_not_with_another_key(temporal_client, queue):
    async with canary_worker(temporal_client, queue):
        handle = await drive(temporal_client, queue)
    history = await handle.fetch_history()
    await Replayer(workflows=[CanaryWorkflow], plugins=[SluicePlugin(TEST_CODEC_KEYS)]).replay_workflow(
        history
    )
    foreign = SluicePlugin(CodecKeys({"test-1": bytes(32)}))
    with pytest.raises(Exception, match="TamperedError"):
        await Replayer(workflows=[CanaryWorkflow], plugins=[foreign]).replay_workflow(history)


async def test_a_worker_with_the_rotated_ring_goes_on_with_a_running_workflow(temporal_server, queue):
    before = await temporal_server.connect(CodecKeys({"a": bytes(32)}))
    after = await temporal_server.connect(CodecKeys({"b": bytes(range(32)), "a": bytes(32)}))
    message = Message(text=CANARY)
    async with canary_worker(before, queue, max_cached_workflows=0):
        handle = await before.start_workflow(
            CanaryWorkflow.run, message, id=f"w-{uuid.uuid4()}", task_queue=queue
        )
        await handle.execute_update(CanaryWorkflow.accept, message)
    async with canary_worker(after, queue):
        same = after.get_workflow_handle_for(CanaryWorkflow.run, handle.id)
        await same.signal(CanaryWorkflow.finish, message)
        assert await same.result() == message


async def test_a_made_up_payload_in_clear_never_reaches_a_workflow(temporal_server, queue):
    from temporalio.client import Client
    from temporalio.contrib.pydantic import pydantic_data_converter

    ours = await temporal_server.connect()
    attacker = await Client.connect(
        temporal_server.address, namespace=temporal_server.namespace, data_converter=pydantic_data_converter
    )
    async with canary_worker(ours, queue):
        handle = await ours.start_workflow(
            CanaryWorkflow.run, Message(text="x"), id=f"w-{uuid.uuid4()}", task_queue=queue
        )
        forged = attacker.get_workflow_handle_for(CanaryWorkflow.run, handle.id)
        with pytest.raises(WorkflowUpdateRPCTimeoutOrCancelledError):
            async with asyncio.timeout(1):
                await forged.execute_update(CanaryWorkflow.accept, Message(text="forged"))
        assert await _believed(ours, handle) is None
        await handle.terminate()


async def _believed(client, handle):
    """What the workflow took in: read with a worker that starts from its history."""
    history = (await handle.fetch_history()).events
    accepted = [e for e in history if e.HasField("workflow_execution_update_completed_event_attributes")]
    return accepted[0] if accepted else None


async def test_activities_log_release_step_and_request(temporal_client, queue):
    seen = {}

    @activity.defn(name="echo")
    def echo_in_a_thread(message: Message) -> Message:
        seen.update(structlog.contextvars.get_contextvars())
        return message

    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as threads:
        async with Worker(
            temporal_client,
            task_queue=queue,
            workflows=[CanaryWorkflow],
            activities=[echo_in_a_thread],
            activity_executor=threads,
        ):
            handle = await temporal_client.start_workflow(
                CanaryWorkflow.run, Message(text="x"), id=f"w-{uuid.uuid4()}", task_queue=queue
            )
            with bound(request="req-7"):
                await handle.execute_update(CanaryWorkflow.through_activity, Message(text="x"))
            await handle.terminate()
    assert (seen["release"], seen["step"], seen["request"], seen["activity"]) == (
        "rel-1",
        "hosted",
        "req-7",
        "echo",
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("import sqlalchemy", "sqlalchemy was not intentionally passed through"),
        ("import structlog", "structlog was not intentionally passed through"),
        ("import activities", "activities was not intentionally passed through"),
        ("import orchestrator.records", "Cannot access orchestrator.records"),
        ("import orchestrator.trust", "Cannot access orchestrator.trust"),
        ("from orchestrator import api", "Cannot access orchestrator.api"),
    ],
)
def test_workflow_code_cannot_import_the_outside_world(temporal_server, tmp_path, monkeypatch, line, reason):
    with pytest.raises(Exception) as caught:
        _load_workflow(temporal_server, tmp_path, monkeypatch, line)
    assert reason in "".join(_chain(caught.value))


def test_workflow_code_may_import_domain_contracts_and_pydantic(temporal_server, tmp_path, monkeypatch):
    _load_workflow(
        temporal_server,
        tmp_path,
        monkeypatch,
        "import json, pydantic, orchestrator.contracts\nfrom orchestrator.domain import stage",
    )


async def test_the_products_own_workflows_load_in_the_sandbox(temporal_client):
    from workflows.ingest import IngestWorkflow
    from workflows.release import ReleaseWorkflow

    Worker(temporal_client, task_queue="q", workflows=[ReleaseWorkflow, IngestWorkflow])


def _load_workflow(server, tmp_path, monkeypatch, line):
    name = f"sluice_sandboxed_{uuid.uuid4().hex}"
    (tmp_path / f"{name}.py").write_text(
        textwrap.dedent("""
        from temporalio import workflow
        {line}

        @workflow.defn
        class W:
            @workflow.run
            async def run(self) -> None: ...
        """).replace("{line}", line)
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    module = __import__(name)
    try:

        async def start():
            client = await server.connect()
            Worker(client, task_queue="q", workflows=[module.W])

        asyncio.run(start())
    finally:
        del sys.modules[name]


def _chain(error):
    while error is not None:
        yield str(error)
        error = error.__cause__ or error.__context__


async def test_a_server_that_is_not_there_is_an_error_that_says_what_to_do(tmp_path):
    settings = settings_for(tmp_path, temporal_address=f"127.0.0.1:{free_port()}")
    with pytest.raises(TemporalUnreachableError, match="sluice up"):
        await connect(settings, patience=timedelta(seconds=0.3))


async def test_a_missing_namespace_is_an_error_of_its_own(tmp_path, temporal_server):
    settings = settings_for(
        tmp_path, temporal_address=temporal_server.address, temporal_namespace="elsewhere"
    )
    with pytest.raises(NamespaceMissingError, match="elsewhere"):
        await connect(settings, patience=timedelta(seconds=0.3))


async def test_connecting_with_settings_speaks_the_plugins_language(tmp_path, temporal_server, queue):
    settings = settings_for(
        tmp_path, temporal_address=temporal_server.address, temporal_namespace=temporal_server.namespace
    )
    client = await connect(settings)
    async with canary_worker(client, queue):
        await drive(client, queue)


async def test_the_namespace_keeps_histories_for_the_time_asked(temporal_client):
    from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest

    answer = await temporal_client.workflow_service.describe_namespace(
        DescribeNamespaceRequest(namespace=temporal_client.namespace)
    )
    assert answer.config.workflow_execution_retention_ttl.ToTimedelta() == timedelta(days=30)


async def test_a_versioned_worker_runs_once_its_version_is_current(temporal_client, queue):
    version = WorkerDeploymentVersion(f"d-{uuid.uuid4().hex}", "build-1")
    config = WorkerDeploymentConfig(
        version=version, use_worker_versioning=True, default_versioning_behavior=VersioningBehavior.PINNED
    )
    async with canary_worker(temporal_client, queue, deployment_config=config):
        await make_current(temporal_client, version)
        await make_current(temporal_client, version)
        await drive(temporal_client, queue)


async def test_a_version_that_no_worker_has_cannot_become_current(temporal_client):
    with pytest.raises(TemporalError, match=r"nobody.*current version"):
        await make_current(
            temporal_client, WorkerDeploymentVersion("nobody", "b"), patience=timedelta(seconds=0.2)
        )


def test_the_build_is_the_same_for_the_same_code_and_follows_the_settings(tmp_path):
    assert default_build_id() == default_build_id()
    assert default_build_id(("workflows",)) != default_build_id(("orchestrator.domain",))
    config = deployment_config(settings_for(tmp_path, build_id="b7"))
    assert config.version == WorkerDeploymentVersion("sluice", "b7")
    assert config.default_versioning_behavior is VersioningBehavior.PINNED


async def test_the_virtual_clock_stands_still_until_it_is_moved(virtual_time_env, queue):
    from tests.infra.clock_workflow import ClockWorkflow

    async with Worker(virtual_time_env.client, task_queue=queue, workflows=[ClockWorkflow]):
        handle = await virtual_time_env.client.start_workflow(
            ClockWorkflow.run, id=f"w-{uuid.uuid4()}", task_queue=queue
        )
        started = await virtual_time_env.now(handle)
        await asyncio.sleep(0.2)
        assert await handle.query(ClockWorkflow.days) == 0
        # five times 55 and some days: the end of a move lies well between two timers
        assert await virtual_time_env.fast_forward(handle, timedelta(days=280))
        assert await handle.query(ClockWorkflow.days) == 275
        assert await virtual_time_env.now(handle) - started < timedelta(days=280, seconds=30)
        await handle.terminate()
