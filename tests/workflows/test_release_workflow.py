from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import create_engine
from temporalio.client import Client, WithStartWorkflowOperation, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.copies.telling import TellingActivities
from artifacts.stores.base import Store
from orchestrator.contracts import messages as msg
from orchestrator.contracts import names
from orchestrator.domain import commands as cmd
from orchestrator.domain.events import EVENTS
from orchestrator.domain.evolve import fold
from orchestrator.domain.gate import verdict
from orchestrator.domain.plan_rules import MAX_PLAN_BYTES
from orchestrator.domain.values import canonical
from orchestrator.domain.waits import waits as pending_things
from tests.support.plans import MANAGER, PIPELINE, RATINGS, RECIPIENT, actor, five_stage_plan, five_stages
from tests.support.temporal import VirtualTime
from tests.support.world import World
from workflows.release import ReleaseWorkflow
from workflows.rotation import RotationWorkflow

pytestmark = pytest.mark.stack


def no_store(uri: str) -> Store:
    raise AssertionError(f"no test of workflows opens {uri}")


@asynccontextmanager
async def workers(
    client: Client, world: World, workflow: type = ReleaseWorkflow, **options: Any
) -> AsyncIterator[dict[str, str]]:
    """Workers on the product's queues; the queue names are the product's, so tests of one server run one at a time."""
    telling = TellingActivities(create_engine("sqlite://"), client, no_store, ())
    with ThreadPoolExecutor(8) as threads:
        async with (
            Worker(
                client,
                task_queue=names.QUEUE_RELEASES,
                workflows=[workflow, RotationWorkflow],
                activities=[world.record_events, world.observe_partners],
                activity_executor=threads,
                **options,
            ),
            Worker(
                client,
                task_queue=names.QUEUE_TRANSFER,
                activities=[
                    world.publish_step,
                    world.apply_access,
                    world.delete_sealed,
                    telling.tell_release,
                    *world.more,
                ],
                activity_executor=threads,
            ),
            Worker(
                client,
                task_queue=names.QUEUE_CUSTODY,
                activities=[world.make_envelopes, world.renew_envelopes],
                activity_executor=threads,
            ),
            Worker(
                client,
                task_queue=names.QUEUE_COPIES,
                activities=[world.make_copies, world.reseal_artifact],
                activity_executor=threads,
            ),
        ):
            yield {}


class Release:
    """A release under test: sends commands as the API does."""

    def __init__(self, client: Client, world: World, name: str) -> None:
        self.client, self.world, self.name = client, world, name
        self.handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(names.release_workflow_id(name))

    @classmethod
    async def create(
        cls,
        client: Client,
        world: World,
        limit: int | None = None,
        task_timeout: timedelta | None = None,
        **plan: Any,
    ) -> Release:
        name = f"r-{uuid4().hex[:8]}"
        create = cmd.CreateRelease(
            command_id=f"create-{name}",
            actor=MANAGER,
            release=name,
            name="M",
            version="1",
            plan=five_stage_plan(**plan),
        )
        start = WithStartWorkflowOperation(
            names.RELEASE_WORKFLOW,
            msg.ReleaseInput(create=create, history_limit=limit),
            id=names.release_workflow_id(name),
            task_queue=names.QUEUE_RELEASES,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            task_timeout=task_timeout,
        )
        await client.execute_update_with_start_workflow(
            names.UPDATE_CREATED, start_workflow_operation=start, result_type=msg.Outcome
        )
        return cls(client, world, name)

    @property
    def state(self) -> Any:
        return self.world.state(self.name)

    async def send(self, command: cmd.AnyCommand, if_match: str | None = None) -> msg.Outcome:
        message = msg.CommandMessage(command=command, if_match=if_match)
        outcome: msg.Outcome = await self.handle.execute_update(
            names.UPDATE_COMMAND, message, id=command.command_id, result_type=msg.Outcome
        )
        return outcome

    async def until(self, step: str, seconds: float = 10) -> None:
        for _ in range(int(seconds / 0.02)):
            if self.state.current == step and self.state.entry is None:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"at {self.state.current}, not {step}: {self.state.entry_failed}")

    async def ready(self, step: str) -> None:
        """Everything that the gate asks of people but the sign-offs."""
        for kind in ("model_card", "risk_assessment"):
            ratings = RATINGS if kind == "risk_assessment" else None
            await self.send(
                cmd.SubmitEvidence(
                    command_id=f"{kind}-{step}",
                    actor=MANAGER,
                    kind=kind,
                    digest="sha256:" + "1" * 64,
                    title=kind,
                    step=step,
                    ratings=ratings,
                )
            )
        for control in self.state.plan.step(step).controls:
            await self.send(
                cmd.ReportControl(
                    command_id=f"{control.kind}-{step}", actor=actor("sam"), step=step, control=control.kind
                )
            )

    async def at_download(self, time: VirtualTime) -> None:
        """From `demo` to `download`."""
        for step, who, days in (
            ("query", [("sam", "safety"), ("lea", "legal")], 31),
            ("download", [("sam", "safety"), ("lea", "legal"), ("rex", "reviewer")], 98),
        ):
            await self.ready(step)
            for person, role in who:
                await self.sign(step, person, role)
            await time.fast_forward(self.handle, timedelta(days=days))
            await self.until(step)

    async def late(self, partner: str, tag: str = "") -> msg.Outcome:
        """Ask for a grant after the step was entered."""
        asked = cmd.MakeGrant(command_id=f"late-{partner}{tag}", actor=MANAGER, partner=partner)
        return await self.send(asked)

    async def until_not_asked(self, seconds: float = 20) -> None:
        """Until the grants that were asked for are made, or not."""
        for _ in range(int(seconds / 0.02)):
            if not self.state.grants_asked:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"still asked for: {list(self.state.grants_asked)}")

    async def register(self) -> None:
        await self.send(
            cmd.RegisterArtifact(
                command_id="artifact",
                actor=PIPELINE,
                artifact="a1",
                manifest_digest="sha256:" + "0" * 64,
                components=["weights", "tokenizer"],
                location="dir:somewhere",
            )
        )

    async def sign(self, step: str, person: str, role: str, tag: str = "") -> msg.Outcome:
        state = self.state
        subject = verdict(state, state.plan.step(step), state.updated_at).subject_digest
        return await self.send(
            cmd.SignOff(
                command_id=f"sign-{step}-{person}{tag}",
                actor=actor(person),
                step=step,
                role=role,
                decision="approve",
                subject=subject,
            )
        )


async def until(true: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.02)


def refused(failure: pytest.ExceptionInfo[WorkflowUpdateFailedError]) -> ApplicationError:
    cause = failure.value.cause
    assert isinstance(cause, ApplicationError)
    return cause


async def test_a_release_walks_all_five_stages_over_nine_months_of_virtual_time(
    virtual_time_env: VirtualTime,
):
    world = World()
    async with workers(virtual_time_env.client, world):
        release = await Release.create(virtual_time_env.client, world)
        await release.until("inside")
        await release.register()
        await release.ready("demo")
        await release.sign("demo", "sam", "safety")
        await release.until("demo")
        for step, who, days in (
            ("query", [("sam", "safety"), ("lea", "legal")], 31),
            ("download", [("sam", "safety"), ("lea", "legal"), ("rex", "reviewer")], 98),
            ("open", [("sue", "safety"), ("lea", "legal")], 68),
        ):
            await release.ready(step)
            for person, role in who:
                await release.sign(step, person, role)
            assert release.state.current != step, "the gate opened before its clocks were done"
            await virtual_time_env.fast_forward(release.handle, timedelta(days=days))
            await release.until(step)
        assert await release.handle.result() == "completed"
    state = release.state
    assert [line.step for line in state.history] == ["inside", "demo", "query", "download", "open"]
    assert [line.window_counted >= line.window_asked for line in state.history] == [True] * 5
    assert state.history[2].window_counted >= timedelta(days=30).total_seconds()
    assert world.calls[names.MAKE_ENVELOPES] == 4


async def test_a_lost_answer_of_the_records_doubles_nothing(temporal_client: Client):
    world = World()
    async with workers(temporal_client, world):
        release = await Release.create(temporal_client, world)
        await release.until("inside")
        world.lose[names.RECORD_EVENTS] = 2
        await release.register()
        kinds = [event.type for event in world.log[release.name]]
        assert kinds.count("artifact_registered") == 1
        await release.handle.terminate()


async def test_people_are_reminded_once_however_often_the_release_wakes_or_continues(
    virtual_time_env: VirtualTime,
):
    world = World()
    async with workers(virtual_time_env.client, world):
        release = await Release.create(virtual_time_env.client, world, limit=40)
        await release.until("inside")
        await release.register()
        await release.ready("demo")
        await release.sign("demo", "sam", "safety")
        await release.until("demo")
        await release.ready("query")
        for n in range(6):  # it continues as new in between
            for working in (False, True):
                report = cmd.ReportAccess(command_id=f"a{n}{working}", actor=MANAGER, working=working)
                await release.send(report)
            await virtual_time_env.fast_forward(release.handle, timedelta(days=4, hours=20))
        for _ in range(500):  # time has passed; what comes of it is written a moment later
            said = [event for event in world.log[release.name] if event.type == "reminded"]
            if "window_ends" in {event.kind for event in said}:
                break
            await asyncio.sleep(0.02)
        kinds = sorted(event.kind for event in said)
        assert kinds == ["sign_off_waits", "sign_off_waits", "window_ends"]
        (window,) = (event for event in said if event.kind == "window_ends")
        # not before; that time was skipped over while the release was busy makes it later here, never earlier
        assert timedelta(0) < window.due - window.at <= timedelta(days=3)
        assert len({event.reminder for event in said}) == len(said)
        await release.send(cmd.Abort(command_id="abort", actor=MANAGER, reason="enough"))
        await release.handle.result()


async def test_a_release_that_ended_waits_for_the_review_of_its_broken_glass(temporal_client: Client):
    world = World()
    async with workers(temporal_client, world):
        release = await Release.create(temporal_client, world)
        await release.until("inside")
        glass = {"step": "demo", "waives": ["research_window"], "reason": "urgent"}
        for who in ("sam", "lea"):
            await release.send(cmd.BreakGlass(command_id=f"glass-{who}", actor=actor(who), **glass))
        await release.send(cmd.Abort(command_id="abort", actor=MANAGER, reason="enough"))
        with pytest.raises(WorkflowUpdateFailedError) as failure:
            await release.send(cmd.Hold(command_id="late", actor=MANAGER, reason="x"))
        assert refused(failure).type == "release-ended"
        (review,) = release.state.reviews
        close = {"review": review, "outcome": "looked at"}
        await release.send(cmd.CloseReview(command_id="close", actor=actor("sue"), **close))
        assert await release.handle.result() == "aborted"


async def test_events_of_a_killed_writer_are_adopted_and_the_command_is_decided_anew(temporal_client: Client):
    world = World()
    async with workers(temporal_client, world):
        release = await Release.create(temporal_client, world)
        await release.until("inside")
        with world.lock:
            log = world.log[release.name]
            stranger = release_hold(world, release.name)
            log.append(stranger)
        outcome = await release.send(
            cmd.ReportAccess(command_id="outage", actor=MANAGER, working=False, reason="cable")
        )
        assert outcome.seq == len(world.log[release.name])
        assert [e.type for e in world.log[release.name]][-2:] == ["hold_placed", "access_reported"]
        live = await release.handle.query(names.QUERY_STATE)
        assert live == release.state.model_dump(mode="json")
        await release.handle.terminate()


def release_hold(world: World, name: str) -> Any:
    from orchestrator.domain.decide import decide

    state = fold(world.log[name])
    command = cmd.Hold(command_id="from-a-killed-worker", actor=MANAGER, reason="seen something")
    return decide(state, command, state.updated_at)[0]


async def test_a_command_id_is_carried_out_once_even_through_continue_as_new(temporal_client: Client):
    world = World()
    async with workers(temporal_client, world):
        release = await Release.create(temporal_client, world, limit=40)
        await release.until("inside")
        hold = cmd.Hold(command_id="hold-once", actor=MANAGER, reason="wait")
        first = await release.send(hold)
        for n in range(12):
            await release.send(cmd.ReportAccess(command_id=f"a{n}", actor=MANAGER, working=bool(n % 2)))
        description = await release.handle.describe()
        assert description.run_id != release.handle.first_execution_run_id
        runs = description.raw_description.workflow_execution_info
        assert runs.execution.run_id != runs.first_run_id, "the workflow never continued as new"
        again = await release.send(hold)
        assert (again.repeated, again.seq) == (True, first.seq)
        with pytest.raises(WorkflowUpdateFailedError) as failure:
            await release.handle.execute_update(
                names.UPDATE_COMMAND,
                msg.CommandMessage(command=hold.model_copy(update={"reason": "another"})),
                id="another-update-id",
            )
        assert refused(failure).type == "idempotency-key-reused"
        assert [e.type for e in world.log[release.name]].count("hold_placed") == 1
        await release.handle.terminate()


def largest_plan() -> dict[str, Any]:
    """A plan as large as one may be: very many partners."""
    plan = five_stages()
    some, left = plan["partners"], 0
    for count in (1_000, 1_100):
        plan["partners"] = some | {
            f"p-{number:04}": {"name": "A consortium " * 15, "recipient": f"sha256:{number:064x}"}
            for number in range(count)
        }
        size = len(canonical(five_stage_plan(**plan).model_dump(mode="json")))
        each, left = (left - MAX_PLAN_BYTES + size) // 100, MAX_PLAN_BYTES - size
    for number in range(1_100, 1_100 + left // each):
        plan["partners"][f"p-{number:04}"] = {
            "name": "A consortium " * 15,
            "recipient": f"sha256:{number:064x}",
        }
    return plan


async def test_the_largest_plan_and_two_proposed_in_its_place_continue_as_new(temporal_client: Client):
    """What a run hands to the next one is at most 2 MiB, or the workflow stands for good."""
    world, plan = World(), largest_plan()
    async with workers(temporal_client, world):
        release = await Release.create(temporal_client, world, limit=35, partners=plan["partners"])
        await release.until("inside")

        async def amend(person: str) -> None:
            amended = five_stage_plan(**plan | {"title": f"As {person} proposes"[:12]})
            command = cmd.AmendPlan(
                command_id=f"amend-{person}", actor=actor(person), plan=amended, reason="more"
            )
            await release.send(command)

        await amend("sam")
        await amend("lea")
        with pytest.raises(WorkflowUpdateFailedError) as failure:
            await amend("sue")
        assert refused(failure).type == "conflict"
        assert "leave no room" in refused(failure).message
        before = (await release.handle.describe()).run_id
        for number in range(6):
            await release.send(
                cmd.ReportAccess(command_id=f"access-{number}", actor=MANAGER, working=bool(number % 2))
            )
        assert (await release.handle.describe()).run_id != before, "it never continued as new"
        assert len(release.state.proposals) == 2
        await release.handle.terminate()


async def test_refusals_reach_the_caller_at_once_with_every_reason(temporal_client: Client):
    world = World()
    async with workers(temporal_client, world):
        release = await Release.create(temporal_client, world)
        await release.until("inside")
        with pytest.raises(WorkflowUpdateFailedError) as failure:
            await release.sign("demo", "mia", "safety")
        assert refused(failure).type == "not-permitted"
        with pytest.raises(WorkflowUpdateFailedError) as failure:
            await release.send(
                cmd.SignOff(
                    command_id="s",
                    actor=actor("sam"),
                    step="demo",
                    role="safety",
                    decision="approve",
                    subject="sha256:" + "9" * 64,
                )
            )
        assert refused(failure).type == "gate-changed"
        with pytest.raises(WorkflowUpdateFailedError) as failure:
            await release.send(cmd.Hold(command_id="h", actor=MANAGER, reason="x"), if_match="an-old-etag")
        assert refused(failure).type == "gate-changed"
        await release.handle.terminate()


async def test_a_hold_during_an_entry_takes_the_entry_back_and_the_gate_opens_again_after_resume(
    temporal_client: Client,
):
    world = World()
    async with workers(temporal_client, world):
        release = await Release.create(temporal_client, world)
        await release.until("inside")
        await release.register()
        await release.ready("demo")
        world.fail[names.PUBLISH_STEP] = 1  # the entry hangs in its first retry while the hold comes in
        await release.sign("demo", "sam", "safety")
        while world.calls[names.PUBLISH_STEP] == 0:
            await asyncio.sleep(0.01)
        await release.send(cmd.Hold(command_id="hold", actor=MANAGER, reason="stop"))
        for _ in range(500):
            if release.state.entry is None:
                break
            await asyncio.sleep(0.02)
        state = release.state
        assert (state.current, state.entry, state.entry_failed) == ("inside", None, None)
        for person in ("sam", "lea"):
            await release.send(cmd.Resume(command_id=f"resume-{person}", actor=actor(person)))
        await release.until("demo")
        assert [e.type for e in world.log[release.name]].count("step_entered") == 2
        await release.handle.terminate()


BOARD = {
    "approvers": "the board",
    "requests": [{"about": "a1", "accessor": "acc-1", "approved_by": ["alice"]}],
}


@pytest.mark.parametrize(
    "waits",
    [
        [names.WAITS_FOR_LOCK, [], None, BOARD],
        [names.WAITS_FOR_CLOCK, [{"code": "cooling_off", "message": "two hours are left"}], 2.0],
        [names.WAITS_FOR_CLOCK, [], None],
    ],
)
async def test_an_entry_waits_with_custody_says_so_and_goes_on_by_itself(
    temporal_client: Client, waits: list[object]
):
    world = World(waits={names.MAKE_ENVELOPES: waits})
    async with workers(temporal_client, world):
        release = await Release.create(temporal_client, world)
        await release.until("inside")
        await release.register()
        await release.ready("demo")
        await release.sign("demo", "sam", "safety")
        told = None
        for _ in range(500):
            told = await release.handle.query(names.QUERY_STUCK)
            if told is not None:
                break
            await asyncio.sleep(0.02)
        assert "not yet" in str(told)
        if waits[1]:
            assert "two hours are left" in str(told), "the reasons are said"
        assert world.calls[names.MAKE_ENVELOPES] <= 2, "a silent retry loop"
        await until(lambda: "demo" in release.state.custody_waits)
        state = release.state
        wait = state.custody_waits["demo"]
        assert (wait.since, wait.attempt) == (world.log[release.name][-1].at, state.entry.attempt)
        code = "second_lock" if waits[0] == names.WAITS_FOR_LOCK else "custody_clock"
        found = verdict(state, state.plan.step("demo"), state.updated_at)
        assert (found.waits, code in {c.code for c in found.unmet}) == (wait, True), "the verdict says it"
        if code == "second_lock":
            assert (wait.approvers, wait.requests[0].accessor) == ("the board", "acc-1")
            [pending] = [w for w in pending_things(state, state.updated_at) if w.what == "second_lock"]
            assert (pending.reference, pending.since) == ("acc-1", wait.since)
        assert release.state.status == "entering"
        assert release.state.entry_failed is None
        world.waits.clear()
        await release.until("demo")
        assert await release.handle.query(names.QUERY_STUCK) is None
        kinds = [e.type for e in world.log[release.name]]
        assert "entry_retried" not in kinds, "nobody had to do anything"
        assert (kinds.count("custody_waits"), release.state.custody_waits) == (1, {})
        await release.handle.terminate()


async def test_an_entry_that_waits_with_custody_longer_than_a_history_is_stopped_by_a_hold(
    temporal_client: Client, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "workflows.release_custody.ASK_AGAIN", (timedelta(seconds=0.2), timedelta(seconds=0.2))
    )
    world = World(waits={names.MAKE_ENVELOPES: [names.WAITS_FOR_LOCK, []]})
    async with workers(temporal_client, world, workflow_runner=UnsandboxedWorkflowRunner()):
        release = await Release.create(temporal_client, world, limit=60)
        await release.until("inside")
        await release.register()
        await release.ready("demo")
        await release.sign("demo", "sam", "safety")
        first = (await release.handle.describe()).run_id
        await until(lambda: "demo" in release.state.custody_waits)
        async with asyncio.timeout(20):
            while (await release.handle.describe()).run_id == first:
                await asyncio.sleep(0.05)
        assert release.state.entry is not None, "it goes on in the next history"
        await release.send(cmd.Hold(command_id="stop", actor=MANAGER, reason="wait"))
        for _ in range(500):
            if release.state.entry is None:
                break
            await asyncio.sleep(0.02)
        assert (release.state.status, release.state.custody_waits) == ("active", {})
        await release.handle.terminate()


async def test_an_entry_that_fails_is_taken_back_said_and_retried_by_a_person(temporal_client: Client):
    world = World(fatal={names.MAKE_ENVELOPES: "custody says no"})
    async with workers(temporal_client, world):
        release = await Release.create(temporal_client, world)
        await release.until("inside")
        await release.register()
        await release.ready("demo")
        await release.sign("demo", "sam", "safety")
        for _ in range(500):
            if release.state.entry_failed:
                break
            await asyncio.sleep(0.02)
        assert release.state.entry_failed == "custody says no"
        calls = world.calls[names.MAKE_ENVELOPES]
        await asyncio.sleep(0.3)
        assert world.calls[names.MAKE_ENVELOPES] == calls, "a silent retry loop"
        world.fatal.clear()
        await release.send(cmd.RetryEntry(command_id="retry", actor=MANAGER, step="demo"))
        await release.until("demo")
        await release.handle.terminate()


async def test_an_abort_during_an_entry_ends_the_release_with_nothing_published(temporal_client: Client):
    world = World()
    async with workers(temporal_client, world):
        release = await Release.create(temporal_client, world)
        await release.until("inside")
        await release.register()
        await release.ready("demo")
        world.fail[names.PUBLISH_STEP] = 1
        await release.sign("demo", "sam", "safety")
        while world.calls[names.PUBLISH_STEP] == 0:
            await asyncio.sleep(0.01)
        await release.send(cmd.Abort(command_id="abort", actor=MANAGER, reason="no more"))
        assert await release.handle.result() == "aborted"
        assert not {p for p in world.published if p.startswith(release.name)}
        assert release.state.live_grants() == []


async def test_the_saved_events_are_the_release(temporal_client: Client):
    world = World()
    async with workers(temporal_client, world):
        release = await Release.create(temporal_client, world)
        await release.until("inside")
        await release.register()
        live = await release.handle.query(names.QUERY_STATE)
        saved = EVENTS.validate_json(EVENTS.dump_json(world.log[release.name]))
        assert fold(saved).model_dump(mode="json") == live
        await release.handle.terminate()


async def test_records_that_refuse_to_be_written_are_said_and_end_no_release(temporal_client: Client):
    world = World()
    async with workers(temporal_client, world):
        release = await Release.create(temporal_client, world)
        await release.until("inside")
        await release.register()
        await release.ready("demo")
        world.fatal = {names.RECORD_EVENTS: "the database is older than the release"}
        with pytest.raises(WorkflowUpdateFailedError) as failure:
            await release.sign("demo", "sam", "safety")
        assert "older than the release" in refused(failure).message
        world.fatal = {}
        world.stop_after = "signed_off"  # the gate holds then; the main loop writes, and may not
        await release.sign("demo", "sam", "safety", tag="-again")
        for _ in range(300):
            if await release.handle.query(names.QUERY_STUCK):
                break
            await asyncio.sleep(0.02)
        assert "older" in str(await release.handle.query(names.QUERY_STUCK))
        world.fatal = {}
        await release.send(cmd.ReportAccess(command_id="go", actor=MANAGER, working=False))
        await release.until("demo")
        for _ in range(300):
            if await release.handle.query(names.QUERY_STUCK) is None:
                break
            await asyncio.sleep(0.02)
        assert await release.handle.query(names.QUERY_STUCK) is None
        await release.handle.terminate()


async def test_grants_of_partners_who_become_ready_late(virtual_time_env: VirtualTime):
    world = World()
    async with workers(virtual_time_env.client, world):
        release = await Release.create(virtual_time_env.client, world)
        await release.until("inside")
        await release.register()
        await release.ready("demo")
        await release.sign("demo", "sam", "safety")
        await release.until("demo")
        await release.at_download(virtual_time_env)
        # not ready: said, and nothing is made
        await release.late("ngo")
        await release.until_not_asked()
        last = world.log[release.name][-1]
        assert (last.type, "not ready" in last.reason) == ("grant_not_made", True)
        # ready by now; a worker that loses an answer doubles nothing
        world.partner_keys["ngo"] = RECIPIENT
        world.lose[names.RECORD_EVENTS] = 1
        await release.late("ngo", "-ready")
        await release.until_not_asked()
        made = release.state.grants["download.4.ngo"]
        assert (made.live, made.envelopes) == (True, {"a1": "envelope/download.4.ngo"})
        assert [e.type for e in world.log[release.name]].count("grant_made") == 1
        # renewed: the older one ends with it
        await release.late("ngo", "-renewed")
        await release.until_not_asked()
        assert release.state.grants["download.4.ngo"].end == "superseded"
        assert release.state.grants["download.4.ngo.2"].live
        # custody waits for its second lock: it is said, nothing else waits for it, and it goes on by itself
        world.waits[names.MAKE_ENVELOPES] = [names.WAITS_FOR_LOCK, [], None, BOARD]
        await release.late("ngo", "-locked")
        await until(lambda: "download/ngo" in release.state.custody_waits)
        assert release.state.custody_waits["download/ngo"].requests[0].accessor == "acc-1"
        working = cmd.ReportAccess(command_id="outage", actor=MANAGER, working=False, reason="down")
        await release.send(working)
        world.waits.clear()
        await virtual_time_env.fast_forward(release.handle, timedelta(seconds=10))
        await release.until_not_asked()
        assert (release.state.grants["download.4.ngo.3"].live, release.state.custody_waits) == (True, {})
        # custody is away: a revocation does not wait for it, and a hold ends the attempt
        world.fail[names.MAKE_ENVELOPES] = 1_000
        await release.late("ngo", "-away")
        before = world.calls[names.APPLY_ACCESS]
        revoke = cmd.Revoke(command_id="revoke-uni", actor=MANAGER, partner="uni", reason="broken terms")
        await release.send(revoke)
        async with asyncio.timeout(10):
            while world.calls[names.APPLY_ACCESS] == before:
                await asyncio.sleep(0.02)
        assert release.state.grants_asked, "the grant of another partner is still being made"
        await release.send(cmd.Hold(command_id="hold", actor=MANAGER, reason="wait"))
        await release.until_not_asked()
        last = world.log[release.name][-1]
        assert (last.type, "on hold" in last.reason) == ("grant_not_made", True)
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await release.late("uni", "-after")
        assert "was revoked" in str(refused.value.cause)
        await release.send(cmd.Abort(command_id="abort", actor=MANAGER, reason="enough"))
        await release.handle.result()
