"""Every saved history of every released version replays against the code as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory

from infra.temporal import replayer
from tests.support.temporal import TEST_CODEC_KEYS
from workflows.hub_sweep import HubSweepWorkflow
from workflows.ingest import IngestWorkflow
from workflows.leak_sweep import LeakSweepWorkflow
from workflows.leak_trace import LeakTraceWorkflow
from workflows.release import ReleaseWorkflow
from workflows.rotation import RotationWorkflow

WORKFLOWS = [
    ReleaseWorkflow,
    IngestWorkflow,
    RotationWorkflow,
    LeakSweepWorkflow,
    LeakTraceWorkflow,
    HubSweepWorkflow,
]
HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))


def saved(path: Path) -> WorkflowHistory:
    return WorkflowHistory.from_json("saved", json.loads(path.read_text()))


def test_there_are_histories_of_every_kind_of_run():
    kinds = {path.stem.split("-", 1)[1] for path in HISTORIES}
    assert {
        "to-open",
        "caution",
        "continued",
        "late-grants",
        "rotation",
        "reminders",
        "second-lock",
        "leak-sweep",
        "leak-trace",
        "hub-sweep",
        "ingest",
        "moved",
    } <= kinds


@pytest.mark.parametrize("path", HISTORIES, ids=lambda p: p.stem)
async def test_a_saved_history_replays(path: Path):
    history = saved(path)
    await replayer(TEST_CODEC_KEYS, WORKFLOWS).replay_workflow(history)


async def test_a_workflow_that_decides_otherwise_does_not_replay(monkeypatch: pytest.MonkeyPatch):
    """The replay can fail: the same history against a workflow that asks for another activity."""
    monkeypatch.setattr("orchestrator.contracts.names.APPLY_ACCESS", "another_activity")
    path = next(p for p in HISTORIES if p.stem.endswith("to-open"))
    history = saved(path)
    with pytest.raises(Exception, match=r"(?i)nondeterminis"):
        await replayer(TEST_CODEC_KEYS, [ReleaseWorkflow]).replay_workflow(history)
