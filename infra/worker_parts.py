"""What each worker does: the workflows and activities of releases, transfer, custody and leaks, put together."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog
from sqlalchemy import Engine
from temporalio.client import Client

from infra.health import Check
from infra.settings import InvalidSettingError, Settings, read_secret
from infra.telemetry.metrics import Numbers
from infra.worker import WorkerParts
from orchestrator.contracts import names

log = structlog.get_logger("run")


async def releases_parts(settings: Settings, client: Client) -> WorkerParts:
    """The release worker: workflows, and the records that they write through local activities."""
    from activities.leaks.sending import ReleaseCommands
    from activities.leaks.spreading import Spreading
    from activities.records import RecordActivities
    from infra.parts import records_engine
    from infra.refreshing import Refreshing
    from infra.telemetry.queues import QueuesCollector
    from infra.telemetry.records import RecordsCollector
    from workflows.hub_sweep import HubSweepWorkflow
    from workflows.ingest import IngestWorkflow
    from workflows.leak_sweep import LeakCheckWorkflow, LeakPrepareWorkflow, LeakSweepWorkflow
    from workflows.leak_trace import LeakTraceWorkflow
    from workflows.release import ReleaseWorkflow
    from workflows.rotation import RotationWorkflow

    engine = records_engine(settings)
    refreshing = Refreshing(engine)
    refreshing.start()
    spreading = Spreading(engine, ReleaseCommands(client))
    spreading.start()

    async def close() -> None:
        await spreading.stop()
        await asyncio.to_thread(refreshing.stop)

    return WorkerParts(
        queue=names.QUEUE_RELEASES,
        activities=RecordActivities(engine).all,
        max_activities=settings.releases_activities,
        workflows=(
            ReleaseWorkflow,
            IngestWorkflow,
            HubSweepWorkflow,
            RotationWorkflow,
            LeakSweepWorkflow,
            LeakCheckWorkflow,
            LeakPrepareWorkflow,
            LeakTraceWorkflow,
        ),
        max_workflow_tasks=settings.releases_workflow_tasks,
        max_cached_workflows=settings.releases_cached_workflows,
        checks={"records": records_check(engine)},
        collectors=(
            RecordsCollector(engine),
            QueuesCollector(client, names.QUEUES, asyncio.get_running_loop()),
        ),
        close=close,
    )


async def transfer_parts(settings: Settings, client: Client) -> WorkerParts:
    """The transfer worker: seals, publishes, and tells releases of what was sealed. It holds no key of custody's."""
    from activities.binding import BindingActivities
    from activities.copies.telling import TellingActivities
    from activities.hub import HubPublishing
    from activities.hub_schedule import keep_schedule
    from activities.hub_sweep import HubSweeping
    from activities.leaks.sending import ReleaseCommands
    from activities.plaintext import PlaintextPublishing
    from activities.publishing import PublishingActivities
    from activities.sealing import SealingActivities, SealingParts
    from artifacts.signing import SigningKey
    from artifacts.stores.hub import HubStore
    from artifacts.stores.opening import elliptic_key_signer
    from infra.parts import StoreOpener, records_engine
    from infra.provision import read_custody_public

    engine, opener = records_engine(settings), StoreOpener(settings)
    store_uri = settings.effective_store_uri
    key_file = settings.effective_transfer_signing_key_file
    if key_file is None:
        raise InvalidSettingError("SLUICE_TRANSFER_SIGNING_KEY_FILE is not set")
    sealing = SealingActivities(
        SealingParts(
            engine=engine,
            open_store=opener,
            stores=(store_uri,),
            signer=SigningKey.parse(read_secret(key_file, "transfer_signing_key_file")),
            custody_recipient=lambda: read_custody_public(settings.effective_custody_public_file).recipient,
            state_dir=settings.data_dir / "sealing",
            ingest_root=settings.effective_ingest_dir,
            monitor=partial(_monitor_recipient, settings),
        )
    )
    model_key = settings.effective_model_signing_key_file
    plaintext = None
    if model_key is not None:
        plaintext = PlaintextPublishing(
            engine,
            opener,
            custody_keys=lambda: [read_custody_public(settings.effective_custody_public_file).verify_key],
            signer=elliptic_key_signer(model_key),
            scratch=settings.data_dir / "opening",
        )
    hub = calls = None
    if store_uri.startswith("hf:"):
        shown = opener(store_uri)
        assert isinstance(shown, HubStore)
        calls = shown.calls
        hub = HubPublishing(calls)
    await keep_schedule(client, None if calls is None else timedelta(seconds=settings.hub_sweep_seconds))
    sweeping = HubSweeping(engine, calls, ReleaseCommands(client))
    publishing = PublishingActivities(engine, lambda: opener(store_uri), hub=hub, plaintext=plaintext)
    return WorkerParts(
        queue=names.QUEUE_TRANSFER,
        activities=[
            *sealing.all,
            *publishing.all,
            *sweeping.all,
            *BindingActivities(engine, client).all,
            *TellingActivities(engine, client, opener, (store_uri,)).all,
        ],
        max_activities=settings.transfer_activities,
        checks={"records": records_check(engine)},
    )


def _monitor_recipient(settings: Settings) -> str | None:
    """Who weight signatures are sealed to; None while there is no leak monitor."""
    from infra.provision import read_monitor_public

    known = read_monitor_public(settings.effective_monitor_public_file)
    return None if known is None else known.recipient


def _monitor_verdict_key(settings: Settings) -> str | None:
    """What the leak monitor's statements are verified with; None while there is no leak monitor."""
    from infra.provision import read_monitor_public

    known = read_monitor_public(settings.effective_monitor_public_file)
    return None if known is None else known.verdict_key


async def custody_parts(settings: Settings, client: Client) -> WorkerParts:
    """The custody worker: the only process that the key-encryption key opens anything for.

    It serves two queues: `custody`, where requests for keys are answered at once, and `copies`, where files are sealed anew.
    """
    from activities.copies.activity import CopyActivities
    from activities.copies.sealing import CopyPlaces
    from activities.copies.tracing import TracingCustody
    from activities.custody.activity import CustodyActivities, Watching
    from activities.custody.second_place import open_place
    from infra.parts import StoreOpener, records_engine
    from infra.provision import custody_memory, key_provider, keys_when_approved

    engine = records_engine(settings)
    provider = key_provider(settings, make=settings.dev)
    keys = await keys_when_approved(settings, provider, partial(log.warning, "custody cannot start yet"))
    memory = custody_memory(settings)
    now = partial(datetime.now, UTC)
    places_of_copies = CopyPlaces(
        open_store=StoreOpener(settings),
        stores=(settings.effective_store_uri,),
        state_dir=settings.effective_copies_state_dir,
        monitor=partial(_monitor_recipient, settings),
    )
    custody = TracingCustody(
        engine,
        memory,
        provider,
        keys,
        now,
        signed_only=settings.custody_signed_only,
        places=places_of_copies,
        monitor_key=partial(_monitor_verdict_key, settings),
        traces_a_day=settings.custody_traces_a_day,
    )
    copying = CopyActivities(custody)
    places = [open_place(text, now) for text in settings.custody_checkpoint_places]
    watching = Watching(custody, settings.custody_watch_seconds, places)
    watching.start()

    async def keys_answer() -> None:
        health = await asyncio.to_thread(provider.health)
        if not health.ok:
            raise RuntimeError("the key service does not answer")

    async def close() -> None:
        await asyncio.to_thread(watching.stop)
        memory.close()

    return WorkerParts(
        queue=names.QUEUE_CUSTODY,
        activities=[*CustodyActivities(custody).all, *copying.short],
        max_activities=settings.custody_activities,
        beside=WorkerParts(
            queue=names.QUEUE_COPIES,
            activities=copying.long,
            max_activities=settings.copies_activities,
        ),
        checks={"records": records_check(engine), "key-provider": keys_answer},
        collectors=(
            Numbers(
                {
                    "sluice_custody_trusts_log": (
                        "Whether custody trusted the audit log at its last look: 1 or 0.",
                        lambda: float(watching.trusts),
                    ),
                    "sluice_custody_notes_waiting": (
                        "Checkpoints that a second place has not taken yet.",
                        lambda: float(watching.waiting_notes),
                    ),
                }
            ),
        ),
        close=close,
    )


async def leaks_parts(settings: Settings, client: Client) -> WorkerParts:
    """The leak worker: polls sources and judges suspects. Its key opens weight signatures and nothing else."""
    from infra.leaks import leak_worker

    made = leak_worker(settings, client)
    await asyncio.to_thread(made.polling.prepare)
    made.schedules.start()

    return WorkerParts(
        queue=names.QUEUE_LEAKS,
        activities=made.activities,
        max_activities=settings.leaks_activities,
        checks={"records": records_check(made.engine)},
        close=made.schedules.stop,
    )


def records_check(engine: Engine) -> Check:
    """Whether the records answer and hold our tables."""
    from orchestrator.records import database

    async def check() -> None:
        await asyncio.to_thread(database.ping, engine)

    return check
