"""A control group on a real OpenBao server as the second lock: asked once, for one thing, and gone when that is over."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from temporalio.client import Client, WithStartWorkflowOperation
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.worker import Worker

from activities.custody.activity import CustodyActivities
from activities.custody.base import Asked
from activities.custody.keys import load_or_make
from activities.custody.opening import Custody
from activities.custody.second_lock import PendingStore
from activities.errors import told
from activities.publishing import PublishingActivities
from activities.records import RecordActivities
from artifacts.custody.errors import SecondLockPending
from artifacts.custody.openbao import OpenBaoTransit
from artifacts.custody.second_lock import PendingUnwrap
from artifacts.sealing import SealedArtifact, seal_tree
from artifacts.stores.directory import DirectoryStore
from infra.provision import keys_when_approved
from infra.settings import Settings
from orchestrator.api.views import gate_view, step_view
from orchestrator.contracts import messages as msg
from orchestrator.contracts import names
from orchestrator.domain import commands as cmd
from orchestrator.domain.decide_late import entered_attempt
from orchestrator.domain.permissions import Role
from orchestrator.domain.state import gate_subject
from orchestrator.records import releases
from orchestrator.records.database import reading
from tests.custody.world import NGO, PLATFORM, SEALER, Clock, World, recipient_digest, signed_plan
from tests.support.openbao import Admin, ControlGroup, openbao_server
from tests.support.plans import MANAGER as WORLD_MANAGER
from tests.support.plans import actor
from tests.workflows.test_release_workflow import Release, until
from workflows.release import ReleaseWorkflow

pytestmark = pytest.mark.stack

MANAGER = actor("mia", Role.RELEASE_MANAGER)
KEYS = (f"lock-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def bao() -> Iterator[Admin]:
    with openbao_server() as admin:
        yield admin


class Locked:
    """A world whose key-encryption key a control group guards, once custody has started."""

    def __init__(
        self, engine: Engine, folder: Path, bao: Admin, plan: Any = None, approvals: int = 1
    ) -> None:
        self.group = ControlGroup(bao, next(KEYS), "alice", "bob", approvals=approvals)
        self.token = folder / "token"
        self.token.write_text(self.group.open)
        self.provider = OpenBaoTransit(bao.address, self.group.key, self.token, approvers="two of the board")
        more = {} if plan is None else {"plan": plan}
        self.world = World(engine, folder, provider=self.provider, **more)
        self.token.write_text(self.group.grouped)
        self.providers = [self.provider]

    def another_worker(self) -> Custody:
        """Custody as a second process has it: its own connections, the same memory and keys."""
        provider = OpenBaoTransit(
            self.group.bao.address, self.group.key, self.token, approvers="two of the board"
        )
        self.providers.append(provider)
        return self.world.new_custody(provider)

    def refused(self, asked: Asked, custody: Custody | None = None) -> SecondLockPending:
        with pytest.raises(SecondLockPending) as pending:
            (custody or self.world.custody).make_envelopes(asked)
        assert self.world.envelopes_kept() == 0 or asked.late is not None
        return pending.value

    def waits(self, table: str = "custody_waiting") -> int:
        engine = create_engine(self.world.memory_url)
        try:
            with engine.connect() as connection:
                return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())
        finally:
            engine.dispose()

    def actions(self, action: str) -> list[dict[str, Any]]:
        return [leaf for leaf in self.world.custody_leaves() if leaf["action"] == action]

    def close(self) -> None:
        self.world.close()
        for provider in self.providers:
            provider.close()


Make = Callable[..., Locked]


@pytest.fixture
def lock(engine: Engine, tmp_path: Path, bao: Admin) -> Iterator[Make]:
    made = []

    def make(**options: Any) -> Locked:
        made.append(Locked(engine, tmp_path, bao, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def at_demo(world: World) -> Asked:
    world.to("inside")
    world.prepare("demo")
    world.approve("demo")
    return world.begin("demo")


def part(world: World, component: str, name: str) -> SealedArtifact:
    """One component sealed as an artifact of its own, so that a step needs several roots."""
    source = world.folder / component
    source.mkdir()
    (source / name).write_bytes(component.encode() * 100)
    return seal_tree(
        source,
        world.store,
        custody_recipient=world.keys.public.recipient,
        signer=SEALER,
        components={component: name},
        part_size=16384,
    )


def test_an_entry_waits_until_everybody_has_approved_and_the_log_says_for_whom(lock: Make) -> None:
    locked = lock(approvals=2)
    world, group = locked.world, locked.group
    asked = at_demo(world)
    first = locked.refused(asked)
    assert group.approve("alice", first.accessor) == 200
    second = locked.refused(asked)
    assert second.accessor == first.accessor, "asking again is the same request"
    assert second.requests[0].approved_by == ("userpass-alice",)
    [waits] = locked.actions("second_lock_waits")
    assert waits["requests"] == {first.accessor: world.artifact.artifact_id}, "named once"
    assert "two of the board must approve" in waits["detail"]
    failure = told(second)
    assert (failure.type, failure.non_retryable) == (names.WAITS_FOR_LOCK, True), "no try is used up"
    assert failure.details[2]["requests"][0]["accessor"] == first.accessor
    assert group.approve("bob", first.accessor) == 200
    made = world.custody.make_envelopes(asked)
    assert len(locked.actions("unwrap")) == 1, "one announcement, however often it was asked"
    reference = made["demo.2.platform"][world.artifact.artifact_id]
    assert world.opened(reference, PLATFORM).step == "demo", "its proof still holds"
    world.complete("demo", made)
    assert (locked.waits(), locked.waits("custody_pending")) == (0, 0)


def test_no_root_is_fetched_before_all_of_an_entry_are_approved(
    lock: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = lock()
    world, group = locked.world, locked.group
    world.create()
    world.register(artifact=part(world, "weights", "weights.bin"), components=["weights"])
    world.register(artifact=part(world, "tokenizer", "tokenizer.json"), components=["tokenizer"])
    asked = at_demo(world)
    fetched: list[bytes] = []
    honest = locked.provider.unwrap
    monkeypatch.setattr(
        locked.provider, "unwrap", lambda *given: fetched.append(honest(*given)) or fetched[-1]
    )
    pending = locked.refused(asked)
    assert len(pending.requests) == 2, "people are asked for both at once"
    one, other = pending.requests
    assert group.approve("alice", one.accessor) == 200
    still = locked.refused(asked)
    assert [request.accessor for request in still.requests] == [other.accessor]
    assert fetched == [], "the approved root stays at the key service"
    assert group.approve("alice", other.accessor) == 200
    made = world.custody.make_envelopes(asked)
    assert len(fetched) == 2
    assert len(made["demo.2.platform"]) == 2


def test_a_second_worker_goes_on_with_the_same_request(lock: Make) -> None:
    locked = lock()
    world, group = locked.world, locked.group
    asked = at_demo(world)
    other = locked.another_worker()
    first = locked.refused(asked)
    assert locked.refused(asked, other).accessor == first.accessor, "people are asked once"
    assert len(locked.actions("second_lock_waits")) == 1
    assert group.approve("alice", first.accessor) == 200
    [token] = [waiting.token for waiting in world.custody.second_lock.pending.values()]
    memory = b"".join(path.read_bytes() for path in world.folder.glob("memory.db*"))
    assert token.encode() not in memory, "what redeems the approval lies sealed"
    made = other.make_envelopes(asked)
    assert len(locked.actions("unwrap")) == 1, "one announcement of two workers"
    world.opened(made["demo.2.platform"][world.artifact.artifact_id], PLATFORM)
    with pytest.raises(SecondLockPending) as again:
        world.custody.make_envelopes(asked)
    assert again.value.accessor != first.accessor, (
        "an approval counts for one request, and is revoked after it"
    )


def test_what_somebody_puts_into_the_memory_of_requests_is_not_used(lock: Make) -> None:
    locked = lock()
    first = locked.refused(at_demo(locked.world))
    store = locked.world.custody.second_lock.pending
    [ticket] = list(store)
    mine = PendingUnwrap("s.mine", "mine", first.expires_at, "x", "y")
    forged = PendingStore(locked.world.memory, replace(locked.world.keys, identity=_stranger()))
    forged[ticket] = mine
    assert store.get(ticket) is None, "sealed by somebody else"
    store["0" * 64] = mine
    with locked.world.memory.engine.begin() as connection:
        connection.execute(
            text("UPDATE custody_pending SET ticket = :to WHERE ticket = :of"),
            {"to": "1" * 64, "of": "0" * 64},
        )
    assert store.get("1" * 64) is None, "moved to another request"


def _stranger() -> Any:
    from artifacts.keys import custody_identity, custody_keygen

    return custody_identity(custody_keygen().identity)


def test_an_entry_that_is_taken_back_takes_its_request_with_it(lock: Make) -> None:
    locked = lock()
    world, group = locked.world, locked.group
    first = locked.refused(at_demo(world))
    assert group.approve("alice", first.accessor) == 200
    world.custody.forget()
    assert locked.waits() == 1, "while the entry stands, so does the request"
    world.say(cmd.TakeBackEntry(**world.head(cmd.SERVICE), step="demo", reason="doubt", failed=False))
    world.custody.forget()
    assert (locked.waits(), locked.waits("custody_pending")) == (0, 0)
    assert group.approve("bob", first.accessor) == 400, "the key service knows nothing of it any more"
    second = locked.refused(world.begin("demo"))
    assert second.accessor != first.accessor


def test_an_approval_for_one_entry_opens_no_other(lock: Make) -> None:
    locked = lock()
    world, group = locked.world, locked.group
    first = locked.refused(at_demo(world))
    assert group.approve("alice", first.accessor) == 200
    world.say(cmd.TakeBackEntry(**world.head(cmd.SERVICE), step="demo", reason="doubt", failed=False))
    second = locked.refused(world.begin("demo"))  # nobody has cleared up in between
    assert second.accessor != first.accessor
    assert len(locked.actions("second_lock_waits")) == 2


def test_a_request_that_lapses_is_forgotten(lock: Make) -> None:
    locked = lock()
    world = locked.world
    first = locked.refused(at_demo(world))
    lapses = datetime.fromtimestamp(first.expires_at, UTC)
    world.custody.second_lock.end_late(lapses - timedelta(seconds=1))
    assert locked.waits("custody_pending") == 1
    world.custody.second_lock.end_late(lapses + timedelta(seconds=1))
    assert (locked.waits(), locked.waits("custody_pending")) == (0, 0)
    assert locked.group.approve("alice", first.accessor) == 400


def test_a_late_grant_passes_the_second_lock_too(lock: Make) -> None:
    locked = lock(plan=signed_plan(partner_keys="registered"))
    world, group = locked.world, locked.group
    locked.token.write_text(group.open)
    world.to("download")
    locked.token.write_text(group.grouped)
    world.add_partner_key("ngo", NGO.recipient)
    world.say(cmd.MakeGrant(**world.head(MANAGER), partner="ngo"))
    attempt = entered_attempt(world.state, world.step("download")) or 0
    key = {"ngo": recipient_digest(NGO.recipient)}
    asked = Asked("alpha", "download", attempt, world.state.updated_at, key, late="ngo")
    pending = locked.refused(asked)
    [waits] = locked.actions("second_lock_waits")
    assert (waits["for"], waits["partner"]) == ("late", "ngo")
    world.custody.forget()
    assert locked.refused(asked).accessor == pending.accessor
    assert group.approve("alice", pending.accessor) == 200
    ((_, envelopes),) = world.custody.make_envelopes(asked).items()
    world.opened(envelopes[world.artifact.artifact_id], NGO)


def test_an_amended_plan_asks_for_its_wrapping_anew_and_then_for_the_key(lock: Make) -> None:
    locked = lock()
    world, group = locked.world, locked.group
    locked.token.write_text(group.open)
    world.to("inside")
    world.custody.take_in("alpha")
    locked.token.write_text(group.grouped)
    raw = {**world.state.plan.model_dump(mode="json"), "title": "Another title"}
    world.dear(cmd.AmendPlan, ["sam", "lea"], plan=type(world.plan).model_validate(raw), reason="a title")
    world.prepare("demo")
    world.approve("demo")
    asked = world.begin("demo")
    wrapping = locked.refused(asked)
    assert group.approve("alice", wrapping.accessor) == 200
    opening = locked.refused(asked)
    assert opening.accessor != wrapping.accessor
    assert group.approve("bob", opening.accessor) == 200
    assert world.custody.make_envelopes(asked)
    assert (locked.waits(), locked.waits("custody_pending")) == (0, 0)


def test_custody_starts_once_its_own_keys_are_approved(bao: Admin, tmp_path: Path) -> None:
    group = ControlGroup(bao, next(KEYS), "alice")
    token = tmp_path / "token"
    token.write_text(group.open)
    provider = OpenBaoTransit(bao.address, group.key, token)
    settings = Settings(data_dir=tmp_path, deployment="test")
    made = load_or_make(settings.effective_custody_keys_file, provider, settings.custody_log_name)
    token.write_text(group.grouped)
    said = []

    def tell(*, why: str) -> None:
        said.append(why)
        for accessor in [
            word.partition("accessor=")[2].strip("`") for word in why.split() if "accessor=" in word
        ]:
            assert group.approve("alice", accessor) == 200

    again = asyncio.run(keys_when_approved(settings, provider, tell, seconds=0.05))
    assert again.public == made.public
    assert len(said) == 1, "all three at once, said once"
    assert "custody's identity" in said[0]
    provider.close()


# --- all of it together ----------------------------------------------------------------------------------------------


class Now(Clock):
    """The real time."""

    def __call__(self) -> datetime:
        return datetime.now(UTC)


class Records:
    """What the helper of workflow tests asks of a world, from the real records."""

    def __init__(self, world: World) -> None:
        self.world = world

    def state(self, release: str) -> Any:
        with reading(self.world.engine) as session:
            return releases.load(session, release)


async def test_a_release_stands_at_its_gate_until_the_group_has_approved_and_goes_on_with_either_worker(
    lock: Make, temporal_client: Client, tmp_path: Path
) -> None:
    """Real server, real workflow, real records, two custody workers: nobody stands in for anybody."""
    locked = lock()
    world, group = locked.world, locked.group
    world.clock = Now()
    workers = [world.new_custody(), locked.another_worker()]
    release = Release(temporal_client, Records(world), "alpha")  # type: ignore[arg-type]
    create = cmd.CreateRelease(
        command_id="create", actor=WORLD_MANAGER, release="alpha", name="M", version="1", plan=world.plan
    )
    publishing = PublishingActivities(world.engine, lambda: DirectoryStore(tmp_path / "published"))
    config = temporal_client.service_client.config
    another = await Client.connect(  # a process of its own has a connection of its own
        config.target_host, namespace=temporal_client.namespace, data_converter=temporal_client.data_converter
    )
    with ThreadPoolExecutor(8) as threads:
        serving = [
            Worker(
                temporal_client,
                task_queue=names.QUEUE_RELEASES,
                workflows=[ReleaseWorkflow],
                activities=RecordActivities(world.engine).all,
                activity_executor=threads,
            ),
            Worker(
                temporal_client,
                task_queue=names.QUEUE_TRANSFER,
                activities=publishing.all,
                activity_executor=threads,
            ),
            *(
                Worker(
                    client,
                    task_queue=names.QUEUE_CUSTODY,
                    activities=CustodyActivities(custody).all,
                    activity_executor=threads,
                )
                for client, custody in zip((temporal_client, another), workers, strict=True)
            ),
        ]
        async with AsyncExitStack() as stack:
            for worker in serving:
                await stack.enter_async_context(worker)
            start = WithStartWorkflowOperation(
                names.RELEASE_WORKFLOW,
                msg.ReleaseInput(create=create),
                id=names.release_workflow_id("alpha"),
                task_queue=names.QUEUE_RELEASES,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            )
            await temporal_client.execute_update_with_start_workflow(
                names.UPDATE_CREATED, start_workflow_operation=start, result_type=msg.Outcome
            )
            await release.until("inside", seconds=30)
            await release.send(world.registration())
            await release.ready("demo")
            for custody in workers:
                custody.watch.catch_up()
            state = release.state
            envelope = world.statement("sam", gate_subject(state, state.plan.step("demo")), "safety")
            sign = cmd.SignOff(
                command_id="sign",
                actor=actor("sam", Role.APPROVER),
                step="demo",
                role="safety",
                decision="approve",
                subject=gate_subject(state, state.plan.step("demo")).digest,
                envelope=envelope,
            )
            await release.send(sign)
            await until(lambda: "demo" in release.state.custody_waits, seconds=30)
            state = release.state
            view = gate_view(state, state.plan.step("demo"), datetime.now(UTC))
            assert view.verdict.waits is not None
            [request] = view.verdict.waits.requests
            assert (request.about, request.approved_by) == (world.artifact.artifact_id, [])
            assert view.verdict.waits.approvers == "two of the board"
            assert "second_lock" in {condition.code for condition in view.verdict.unmet}
            assert step_view(state, state.plan.step("demo"), datetime.now(UTC)).waits is not None
            assert world.envelopes_kept() == 0
            assert group.approve("alice", request.accessor) == 200
            await release.until("demo", seconds=60)
            await release.handle.terminate()
    state = release.state
    assert (state.entry, state.custody_waits) == (None, {})
    reference = state.grants["demo.2.platform"].envelopes[world.artifact.artifact_id]
    assert world.opened(reference, PLATFORM).step == "demo"
    assert [leaf["action"] for leaf in world.custody_leaves()] == ["unwrap", "second_lock_waits"], (
        "asked once"
    )
    assert (locked.waits(), locked.waits("custody_pending")) == (0, 0)
