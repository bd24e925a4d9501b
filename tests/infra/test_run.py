"""A process that cannot end by itself ends all the same, and says so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

PROGRAM = """
import asyncio, infra.run as run
from infra.settings import Role

async def never(settings, stop):
    print("up", flush=True)
    await asyncio.Event().wait()

run._LATE_S = 0.2
run.ROOTS[Role.RELEASES] = never
run.leave(run.main(["worker-releases", "--dev"]))
"""


def test_a_process_that_does_not_end_in_time_is_ended_and_says_so(tmp_path) -> None:
    environment = os.environ | {"SLUICE_SHUTDOWN_SECONDS": "1", "SLUICE_DATA_DIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout:
            if "up" in line:
                break
        process.send_signal(signal.SIGTERM)
        said = process.stdout.read()
        assert process.wait(20) == 4, said
        assert "did not end in time" in said


def test_a_migration_without_its_database_says_so_without_a_stack_trace(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli", "migrate"],
        env=os.environ | {"SLUICE_DATA_DIR": str(tmp_path / "not there")},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stderr + done.stdout
    assert done.returncode == 3, said
    assert "the database does not answer" in said
    assert "Traceback" not in said


WITHOUT_KEYS = """
import infra.run as run
from artifacts.errors import KeyProviderError
from infra.settings import Role

async def none(settings, stop):
    raise KeyProviderError("there is no keyring")

run.ROOTS[Role.CUSTODY] = none
run.leave(run.main(["worker-custody", "--dev"]))
"""


def test_custody_without_its_key_service_says_so_without_a_stack_trace(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_KEYS],
        env=os.environ | {"SLUICE_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "there is no keyring" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout
