"""Every run of a workflow has a module of its own, made of code that is read and compiled once."""

import gc
import importlib
import sys
from typing import ClassVar

import temporalio.converter
import temporalio.workflow
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner
from temporalio.worker.workflow_sandbox._runner import _Instance

import orchestrator.domain
import workflows
from infra.memory import spare_what_stands
from infra.temporal import sandbox_restrictions
from infra.workflow_code import keep_workflow_code
from workflows.release import ReleaseWorkflow


class _Kept(SandboxedWorkflowRunner):
    """A runner that shows the instances that it made."""

    made: ClassVar[list[_Instance]] = []

    def create_instance(self, det):
        instance = super().create_instance(det)
        self.made.append(instance)
        return instance


async def test_two_runs_have_modules_of_their_own_and_share_the_code():
    keep_workflow_code()
    runner = _Kept(restrictions=sandbox_restrictions())
    for _ in range(2):
        runner.prepare_workflow(temporalio.workflow._Definition.must_from_class(ReleaseWorkflow))
    first, second = (made.globals_and_locals["__temporal_workflow_class"] for made in runner.made[-2:])
    assert first is not second
    assert first.command is not second.command
    assert first.command.__code__ is second.command.__code__


def test_a_file_that_changes_under_a_running_process_is_not_what_its_next_run_begins_with(
    tmp_path, monkeypatch
):
    keep_workflow_code()
    keep_workflow_code()  # twice is once
    file = tmp_path / "workflows" / "changing.py"
    file.parent.mkdir()
    file.write_text("WHICH = 'first'\n")
    monkeypatch.setattr(sys.modules["workflows"], "__path__", [str(file.parent)])
    for _ in range(2):
        module = importlib.import_module("workflows.changing")
        assert module.WHICH == "first"
        del sys.modules["workflows.changing"]
        file.write_text("WHICH = 'second, and longer'\n")
        importlib.invalidate_caches()


def test_other_packages_are_left_to_others():
    keep_workflow_code()
    [finder] = [one for one in sys.meta_path if type(one).__module__ == "infra.workflow_code"]
    assert finder.find_spec("orchestrator.domain.stage", list(orchestrator.domain.__path__)) is None
    assert finder.find_spec("workflows.release", list(workflows.__path__)) is not None


def test_what_stands_is_not_walked_over_again():
    try:
        before = len(gc.get_objects())
        spare_what_stands()
        assert len(gc.get_objects()) < before / 10
        assert gc.get_freeze_count() > before / 2
        assert gc.get_threshold()[0] > 0
    finally:
        gc.unfreeze()
