"""The one-machine stack itself: real Temporal, our own processes, `up` and `down` as a person uses them."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta

import httpx
import pytest
from temporalio.api.workflowservice.v1 import DescribeWorkerDeploymentRequest

from infra.components import ONE_MACHINE_BUILD, one_machine, prepare
from infra.settings import InsecureSettingError, Role, Settings
from infra.stack import AlreadyRunningError, PortTakenError, StartError, down, status, up
from infra.temporal import connect

pytestmark = pytest.mark.stack


@pytest.fixture
def settings(tmp_path):
    return Settings(
        dev=True, data_dir=tmp_path / "data", api_port=0, temporal_address="127.0.0.1:0", temporal_ui_port=0
    )


async def test_the_stack_comes_up_survives_kills_and_keeps_its_data(settings):
    async with one_machine(settings, patience=240) as stack:
        client = await connect(stack.settings)
        await client.start_workflow("Later", id="kept", task_queue="nobody")
        for name in ("temporal", "worker-releases"):
            await stack.kill(name)
        await stack.wait_ready()
        described = await (await connect(stack.settings)).get_workflow_handle("kept").describe()
        assert described.id == "kept"
        current = await _current_version(stack.settings)
        assert (current.deployment_name, current.build_id) == ("sluice", ONE_MACHINE_BUILD)
        for name in (name for name in stack.site.ports if name.endswith("-health")):
            async with httpx.AsyncClient(trust_env=False) as http:
                answer = await http.get(f"http://127.0.0.1:{stack.site.ports[name]}/readyz")
                assert (answer.status_code, answer.text) == (200, "ready")
    async with one_machine(settings, patience=240) as stack:
        described = await (await connect(stack.settings)).get_workflow_handle("kept").describe()
        assert described.id == "kept"


async def _current_version(settings):
    client = await connect(settings)
    answer = await client.workflow_service.describe_worker_deployment(
        DescribeWorkerDeploymentRequest(namespace=client.namespace, deployment_name="sluice"),
        timeout=timedelta(seconds=5),
    )
    return answer.worker_deployment_info.routing_config.current_deployment_version


def test_up_leaves_a_stack_behind_and_down_leaves_nothing(settings):
    state = up(settings)
    try:
        assert state.ready
        assert {process.name for process in state.processes} >= {"temporal", "worker-releases"}
        with pytest.raises(AlreadyRunningError, match=str(state.supervisor.pid)):
            up(settings)
        assert status(settings.data_dir).ready, "the refused one did no harm"
        os.kill(state.processes[0].process.pid, signal.SIGKILL)
        _until(
            lambda: status(settings.data_dir).processes[0].restarts == 1 and status(settings.data_dir).ready
        )
    finally:
        os.kill(state.supervisor.pid, signal.SIGKILL)
        _until(lambda: not state.supervisor.alive)
        again = up(settings)
        ended = down(settings.data_dir)
    assert "supervisor" in ended
    assert again.phase == "ready", "what a killed supervisor left is no obstacle"
    assert status(settings.data_dir) is None
    assert not any(process.alive for process in [*state.processes, *again.processes])
    assert down(settings.data_dir) == []


def _until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_a_taken_port_is_told_by_the_command(settings, tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        wished = settings.model_copy(update={"temporal_address": f"127.0.0.1:{port}"})
        with pytest.raises((PortTakenError, StartError), match=f"port {port}, wished for temporal"):
            up(wished)
    assert status(settings.data_dir) is None or not status(settings.data_dir).running


def test_the_commands_speak_json_and_exit_codes(tmp_path):
    folder = tmp_path / "d"

    def command(*words):
        return subprocess.run(
            [sys.executable, "-m", "infra.cli", *words, "--data-dir", str(folder)],
            capture_output=True,
            text=True,
            timeout=60,
        )

    answer = command("status", "--json")
    assert (answer.returncode, json.loads(answer.stdout)) == (1, None)
    answer = command("down")
    assert answer.returncode == 0
    assert "nothing runs" in answer.stdout
    answer = command("up")
    assert answer.returncode == 1
    assert "SLUICE_CODEC_KEYS_FILE is not set" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_outside_dev_mode_the_stack_makes_no_keys_for_itself(tmp_path):
    settings = Settings(data_dir=tmp_path / "data")
    with pytest.raises(
        InsecureSettingError, match=r"SLUICE_CODEC_KEYS_FILE(.|\n)*local keyring is unprotected"
    ):
        prepare(settings)
    assert not (tmp_path / "data").exists()


def test_a_process_that_may_not_start_says_why_and_exits_with_2(tmp_path):
    answer = subprocess.run(
        [sys.executable, "-m", "infra.run", Role.RELEASES.value],
        env={"PATH": os.environ["PATH"], "SLUICE_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert answer.returncode == 2
    assert "SLUICE_CODEC_KEYS_FILE is not set" in answer.stderr
