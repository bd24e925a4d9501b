"""Leak monitoring over real parts: Temporal, the records in a database, sealed artifacts with their signatures, a server of suspects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import Engine
from temporalio.client import Client, WithStartWorkflowOperation
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.worker import Worker

from activities.leaks.activity import LeakActivities, LeakParts, evidence_in
from activities.leaks.judging import Judging
from activities.leaks.keys import MonitorKeys, load_or_make
from activities.leaks.parents import Parents
from activities.leaks.polling import Polling, ReportQueue
from activities.leaks.references import References
from activities.leaks.sampling import Sampling, trace_limits
from activities.leaks.sealed_files import SealedFiles
from activities.leaks.sending import ReleaseCommands
from activities.leaks.spreading import Spreading
from activities.leaks.telling import Telling
from activities.records import RecordActivities
from artifacts.leaks import AddressPolicy
from artifacts.leaks.sealed import SealedSignature
from artifacts.leaks.watching import Options, Source, open_source
from artifacts.sealing import SealedArtifact, seal_tree
from artifacts.stores.base import open_store
from infra.codec import CodecKeys
from infra.documents import SealedDocuments
from orchestrator.contracts import leak_messages as lm
from orchestrator.contracts import messages as msg
from orchestrator.contracts import names
from orchestrator.domain import commands as cmd
from orchestrator.domain.state import ReleaseState
from orchestrator.records import artifacts, database, releases, reports, signatures
from orchestrator.records.reports import Report
from tests.artifacts.sealed_world import CUSTODY, SIGNER
from tests.simulators import transformations as t
from tests.support.plans import MANAGER, PIPELINE, five_stage_plan
from tests.support.world import World
from workflows.leak_sweep import LeakPrepareWorkflow, LeakSweepWorkflow
from workflows.release import ReleaseWorkflow

CIPHER = SealedDocuments(CodecKeys({"v1": bytes(range(32))}))


class RecordedWorld(World):
    """The outside of a release whose events are in real records."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine

    def state(self, release: str) -> ReleaseState:
        with database.reading(self.engine) as session:
            return releases.load(session, release)


@dataclass
class LeakBench:
    """One monitor over one database."""

    engine: Engine
    folder: Path
    sources: dict[str, Source] = field(default_factory=dict)
    every: timedelta = timedelta(0)
    allow: tuple[str, ...] = ("127.0.0.1",)
    keys: MonitorKeys = field(init=False)
    world: RecordedWorld = field(init=False)
    client: Client | None = None

    def __post_init__(self) -> None:
        self.keys = load_or_make(self.folder / "monitor" / "keys.json")
        self.world = RecordedWorld(self.engine)
        self.sources.setdefault("reports", self.queue("reports", "reports"))

    def queue(self, name: str, kind: str) -> Source:
        options = Options(submissions={name: ReportQueue(self.engine, name)})
        return open_source({"kind": kind, "name": name}, options)

    # --- ours

    def seal(self, model: t.Leak, name: str = "model") -> SealedArtifact:
        """Seal a model as a pipeline does, and register it with its signature."""
        plain = self.folder / name / "plain"
        t.write(model, plain)
        store = open_store(f"dir:{self.folder / 'store'}")
        sealed = seal_tree(
            plain,
            store,
            custody_recipient=CUSTODY.recipient,
            signer=SIGNER,
            components={"weights": "*"},
            monitor=self.keys.public.recipient,
        )
        assert sealed.signature is not None
        digest = f"sha256:{sealed.manifest_digest}"
        with database.writing(self.engine) as session:
            artifacts.register(
                session,
                artifacts.Artifact(
                    id=sealed.artifact_id,
                    manifest_digest=digest,
                    wrapped_root=sealed.wrapped_root,
                    location=sealed.store_uri,
                    components=["weights"],
                    size=1,
                    uploader="ci",
                    created_at=datetime.now(UTC),
                ),
                sealed.manifest,
            )
            key_id = SealedSignature.parse(sealed.signature).key_id
            signatures.put(
                session, sealed.artifact_id, sealed.signature, key_id=key_id, by="ci", at=datetime.now(UTC)
            )
        return sealed

    def report(self, value: str, what: str = "url") -> Report:
        made = Report(f"r-{uuid4().hex[:12]}", "reports", what, value, "", "", "public", datetime.now(UTC))
        with database.writing(self.engine) as session:
            return reports.hand_in(session, made)

    # --- workers

    def parts(self, commands: Any) -> LeakParts:
        references = References(self.engine, self.keys)
        judging = Judging(
            self.engine,
            self.keys,
            references,
            CIPHER,
            addresses=AddressPolicy(allow=self.allow),
            local=frozenset(n for n, s in self.sources.items() if s.kind == "folder"),
        )
        return LeakParts(
            polling=Polling(self.engine, self.sources, every=self.every),
            judging=judging,
            parents=Parents(self.engine, self.keys, open_store),
            sealed=SealedFiles(self.engine, self.keys, open_store),
            telling=Telling(self.engine, commands, evidence_in(self.engine, CIPHER)),
            sampling=Sampling(
                judging,
                open_store,
                f"dir:{self.folder / 'store'}",
                lambda: CUSTODY.recipient,
                trace_limits(64 << 20, 60),
            ),
            lookback=timedelta(days=7),
            references=self.folder / "references",
        )

    @asynccontextmanager
    async def running(self, client: Client) -> AsyncIterator[LeakBench]:
        """Workers of releases, of the outside, and of leaks."""
        self.client = client
        parts = self.parts(ReleaseCommands(client))
        parts.polling.prepare()
        with ThreadPoolExecutor(24) as threads:
            async with (
                Worker(
                    client,
                    task_queue=names.QUEUE_RELEASES,
                    workflows=[ReleaseWorkflow, LeakSweepWorkflow, LeakPrepareWorkflow],
                    activities=RecordActivities(self.engine).all,
                    activity_executor=threads,
                ),
                Worker(
                    client,
                    task_queue=names.QUEUE_TRANSFER,
                    activities=[self.world.publish_step, self.world.apply_access],
                    activity_executor=threads,
                ),
                Worker(
                    client,
                    task_queue=names.QUEUE_LEAKS,
                    activities=LeakActivities(parts).all,
                    activity_executor=threads,
                    max_concurrent_activities=8,
                ),
            ):
                yield self

    @property
    def temporal(self) -> Client:
        assert self.client is not None
        return self.client

    async def create(self, **plan: Any) -> str:
        """A release of `five_stage_plan`."""
        name = f"r-{uuid4().hex[:8]}"
        create = cmd.CreateRelease(
            command_id=f"create-{name}",
            actor=MANAGER,
            release=name,
            name=name,
            version="1",
            plan=five_stage_plan(**plan),
        )
        start = WithStartWorkflowOperation(
            names.RELEASE_WORKFLOW,
            msg.ReleaseInput(create=create),
            id=names.release_workflow_id(name),
            task_queue=names.QUEUE_RELEASES,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
        )
        await self.temporal.execute_update_with_start_workflow(
            names.UPDATE_CREATED, start_workflow_operation=start, result_type=msg.Outcome
        )
        await until(lambda: self.state(name).current == "inside" and self.state(name).entry is None)
        return name

    async def bind(self, release: str, sealed: SealedArtifact) -> None:
        await self.send(
            release,
            cmd.RegisterArtifact(
                command_id=f"bind-{sealed.artifact_id}",
                actor=PIPELINE,
                artifact=sealed.artifact_id,
                manifest_digest=f"sha256:{sealed.manifest_digest}",
                components=["weights"],
                location=sealed.store_uri,
            ),
        )

    async def send(self, release: str, command: cmd.AnyCommand) -> msg.Outcome:
        return await ReleaseCommands(self.temporal).send(release, command)

    def state(self, release: str) -> ReleaseState:
        return self.world.state(release)

    async def sweep(self, release: str, as_id: str | None = None, **more: Any) -> lm.SweepResult:
        done: lm.SweepResult = await self.temporal.execute_workflow(
            names.LEAK_SWEEP_WORKFLOW,
            lm.SweepInput(release=release, **more),
            id=as_id or f"sweep-{uuid4().hex}",
            task_queue=names.QUEUE_RELEASES,
            result_type=lm.SweepResult,
            execution_timeout=timedelta(seconds=120),
        )
        return done

    def spreading(self) -> Spreading:
        return Spreading(self.engine, ReleaseCommands(self.temporal))


async def until(condition: Any, seconds: float = 20.0) -> Any:
    for _ in range(int(seconds / 0.05)):
        found = condition()
        if found:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError("it did not happen in time")
