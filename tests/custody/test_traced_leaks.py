"""A recognised leak is traced by the monitor and custody together: what of it passes between them, and what custody refuses.

Real records, seals, marks and scans; the steps are called in the order in which the workflow calls them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from activities.beating import Beat
from activities.copies.tracing import TracingCustody, read_report
from activities.custody.errors import CustodyRefused
from activities.leaks.activity import evidence_in
from activities.leaks.judging import Judging
from activities.leaks.keys import MonitorKeys, load_or_make
from activities.leaks.references import References
from activities.leaks.sampling import Sampling, trace_limits
from activities.leaks.telling import Telling
from artifacts.leaks import AddressPolicy, SignatureBuilder, SketchKey
from artifacts.leaks.sealed import seal_signature
from artifacts.stores.directory import DirectoryStore
from infra.codec import CodecKeys
from infra.documents import SealedDocuments
from orchestrator.contracts import leak_messages as lm
from orchestrator.domain import commands as cmd
from orchestrator.domain.incident import Confidence, Trace
from orchestrator.records import signatures, suspects
from orchestrator.records.database import connect, writing
from orchestrator.records.migrate import migrate
from orchestrator.trust import signing
from orchestrator.trust.keys import PrivateKey
from tests.custody.test_copies import PARTNERS, fetched, marked_plan
from tests.custody.test_tracing import quantised
from tests.custody.world import RELEASE, World
from tests.simulators import transformations as t
from tests.simulators.ranged_server import RangedServer, running

CIPHER = SealedDocuments(CodecKeys({"v1": bytes(range(32))}))


@dataclass
class Monitor:
    """A leak monitor beside a world's custody."""

    world: World
    folder: Path
    custody: TracingCustody
    server: RangedServer
    keys: MonitorKeys
    taken: set[str] = field(default_factory=set)
    judging: Judging = field(init=False)
    telling: Telling = field(init=False)

    def __post_init__(self) -> None:
        engine = self.world.engine
        self.judging = Judging(
            engine,
            self.keys,
            References(engine, self.keys),
            CIPHER,
            addresses=AddressPolicy(allow=("127.0.0.1",)),
            clock=self.world.clock,
        )
        self.telling = Telling(engine, self, evidence_in(engine, CIPHER), clock=self.world.clock)

    async def send(self, release: str, command: Any) -> Any:
        """As the release takes it: a command that it has taken is not taken again."""
        if command.command_id not in self.taken:
            self.taken.add(command.command_id)
            self.world.say(command, release=release)

    def sampling(self, most_bytes: int = 64 << 20) -> Sampling:
        return Sampling(
            self.judging,
            lambda uri: DirectoryStore(Path(uri.removeprefix("dir:"))),
            self.world.store.uri,
            lambda: self.world.keys.public.recipient,
            trace_limits(most_bytes, 60),
        )

    def sign(self, artifact: str, weights: Path) -> None:
        """The signature that sealing makes."""
        secret = bytes(range(32))
        builder = SignatureBuilder(artifact, SketchKey(secret))
        builder.feed(weights.name, 0, memoryview(weights.read_bytes()))
        builder.finish_file(weights.name)
        sealed = seal_signature(
            builder.finish(), secret, manifest="0" * 64, recipient=self.keys.public.recipient
        )
        with writing(self.world.engine) as session:
            signatures.put(
                session,
                artifact,
                sealed,
                key_id=SketchKey(secret).key_id,
                by="ci",
                at=self.world.clock(),
            )

    async def seen(self, data: bytes, name: str) -> list[lm.TraceRequest]:
        """A suspect on a server becomes an incident; what of it is to be traced."""
        self.server.files[name] = data
        now = self.world.clock()
        found = suspects.Suspect(
            f"report:{name}", "reports", self.server.url(f"ok/{name}"), "", None, False, {}, now
        )
        with writing(self.world.engine) as session:
            suspects.keep(session, [found], now)
        artifact = self.world.artifact.artifact_id
        outcomes, _ = self.judging.scan(found.key, {artifact: now - timedelta(days=1)}, Beat())
        assert outcomes == {artifact: "match"}
        told = await self.telling.sightings([artifact])
        assert [one.split("/")[0] for one in told.incidents] == [RELEASE]
        return told.traces

    async def traced(self, asked: lm.TraceRequest, sample: lm.SampleTaken) -> Trace:
        found = self.custody.trace_sample(lm.TraceAsked(release=RELEASE, sample=sample))
        await self.telling.trace(lm.TraceTold(asked=asked, trace=found))
        return found


@pytest.fixture(scope="module")
def monitor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitor]:
    folder = tmp_path_factory.mktemp("traced")
    migrate(f"sqlite:///{folder}/records.db")
    engine = connect(f"sqlite:///{folder}/records.db")
    made = t.synthetic(np.random.default_rng(5), hidden=160, vocabulary=2048)
    weights = t.write(t.Leak(made), folder / "plain")[0]
    world = World(
        engine,
        folder,
        plan=marked_plan(responses={"moderate": ["notify", "hold", "revoke_grants"]}),
        weights=weights.read_bytes(),
    )
    world.to("download")
    for name in PARTNERS:
        fetched(world, f"download.4.{name}", folder / name)
    keys = load_or_make(folder / "monitor.json")
    old = world.new_custody()
    custody = TracingCustody(
        engine,
        world.memories[-1],
        world.provider,
        world.keys,
        world.clock,
        places=old._places,
        monitor_key=lambda: keys.public.verdict_key,
        traces_a_day=5,
    )
    with running() as server:
        held = Monitor(world, folder, custody, server, keys)
        held.sign(world.artifact.artifact_id, weights)
        yield held
    world.close()
    engine.dispose()


async def test_a_recognised_copy_is_traced_and_the_partner_loses_its_grants(
    monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = monitor.world
    leak = quantised(monitor.folder / "uni" / "model.safetensors", monitor.folder / "leak.gguf")
    (asked,) = await monitor.seen(leak.read_bytes(), "leak.bin")
    incident = world.state.incidents[asked.incident]
    assert (incident.partner, incident.traces) == (None, []), "the incident stands before anybody is traced"
    assert {g.holder for g in world.state.live_grants()} >= {"uni", "ngo"}

    # what lies in the store meanwhile is for custody alone
    sample = monitor.sampling().take(asked)
    assert sample.not_traced is None
    assert (
        await refused(monitor, with_other_sample(monitor, asked, sample))
        == "is not the one that the monitor signed for"
    )
    unsigned = signing.sign(signing.signed_payload(sample.statement.encode()), PrivateKey.generate())
    forged = sample.model_copy(update={"statement": unsigned.decode()})
    assert "none of the keys" in await refused(monitor, forged)
    other = await refused(monitor, resigned(monitor, sample, verdict="sha256:" + "0" * 64))
    assert "about another verdict" in other
    assert "no open leak" in await refused(monitor, resigned(monitor, sample, incident="leak-none"))
    assert "not what the copies" in await refused(monitor, resigned(monitor, sample, artifact="art-other"))

    found = await monitor.traced(asked, sample)
    z = {partner.partner: partner.z or 0.0 for partner in found.partners}
    assert set(z) == set(PARTNERS), "every partner's z"
    assert z["uni"] >= 8
    assert abs(z["ngo"]) < 5
    incident = world.state.incidents[asked.incident]
    assert (incident.partner, incident.named, incident.confidence) == ("uni", ["uni"], Confidence.CONFIRMED)
    assert incident.traces == [found]
    holders = {g.holder for g in world.state.live_grants()}
    assert "uni" not in holders
    assert "ngo" in holders or world.state.current != "download"
    leaf = next(entry for entry in reversed(world.custody_leaves()) if entry["action"] == "traced")
    assert (leaf["accused"], leaf["by"], leaf["document"]) == (["uni"], "monitor", found.report)
    # told again after a crash, nothing changes; and what was read of the suspect goes
    await monitor.telling.trace(lm.TraceTold(asked=asked, trace=found))
    assert world.state.incidents[asked.incident].traces == [found]
    assert world.state.incidents[asked.incident].named == ["uni"]
    monitor.sampling().drop(sample)
    assert world.store.stat(sample.key) is None
    # of large matrices the first rows suffice, and what custody holds in memory at a time is bounded
    monkeypatch.setattr("artifacts.leaks.sampling.MAX_ROWS_WEIGHTS", 20_000)
    part = monitor.sampling().take(asked)
    z = {
        p.partner: p.z or 0.0
        for p in monitor.custody.trace_sample(lm.TraceAsked(release=RELEASE, sample=part)).partners
    }
    assert z["uni"] >= 8
    assert abs(z["ngo"]) < 5
    whole, rows = [
        json.loads(read_report(entry["signed"].encode(), [world.keys.public.verify_key]))["compared"]
        for entry in world.custody_leaves()
        if entry["action"] == "traced"
    ]
    assert rows["tensors"] == whole["tensors"]
    assert rows["weights"] < whole["weights"] / 2
    monitor.sampling().drop(part)
    # custody's own check of the log goes through all of it
    assert monitor.custody._current(RELEASE).incidents[asked.incident].named == ["uni"]


async def test_two_copies_averaged_name_both_and_what_cannot_be_read_is_said(monitor: Monitor) -> None:
    world = monitor.world
    both = [t.read_safetensors(monitor.folder / name / "model.safetensors") for name in PARTNERS]
    mixed = {name: (both[0][name] + both[1][name]) / 2 for name in both[0]}
    permuted = t.permute_neurons(t.Leak(mixed), np.random.default_rng(3), 4)
    (file,) = t.write(t.Leak(permuted.weights, form="F16"), monitor.folder / "mixed")
    (asked,) = await monitor.seen(file.read_bytes(), "mixed.bin")
    sample = monitor.sampling().take(asked)
    found = await monitor.traced(asked, sample)
    assert {p.partner for p in found.partners if p.suspicion == "accused"} == set(PARTNERS), found
    incident = world.state.incidents[asked.incident]
    assert sorted(incident.named) == sorted(PARTNERS), "all who are accused, not the last one"
    assert not {"uni", "ngo"} & {g.holder for g in world.state.live_grants()}
    monitor.sampling().drop(sample)

    # too small a budget, and a suspect that has gone: said on the incident, which stands as it was
    del monitor.server.files["mixed.bin"]
    gone = monitor.sampling().take(asked)
    assert "could not be read" in (gone.not_traced or "")
    why = Trace(component="weights", not_traced=gone.not_traced, at=world.clock())
    await monitor.telling.trace(lm.TraceTold(asked=asked, trace=why))
    incident = world.state.incidents[asked.incident]
    assert [trace.not_traced is None for trace in incident.traces] == [True, False]
    assert incident.open

    # a monitor that asks without end learns no more: so many a day
    monitor.server.files["mixed.bin"] = file.read_bytes()
    sample = monitor.sampling().take(asked)
    again = lm.TraceAsked(release=RELEASE, sample=sample)
    for _ in range(2):
        monitor.custody.trace_sample(again)
    assert "within a day" in await refused(monitor, sample)
    world.clock.now += timedelta(days=1, seconds=1)
    monitor.custody.trace_sample(again)

    # a closed incident is traced no more
    world.dear(cmd.CloseIncident, ("sam", "sue"), incident=asked.incident, outcome="taken down")
    assert "no open leak" in await refused(monitor, sample)
    monitor.sampling().drop(sample)


async def refused(monitor: Monitor, sample: lm.SampleTaken) -> str:
    with pytest.raises(CustodyRefused) as caught:
        monitor.custody.trace_sample(lm.TraceAsked(release=RELEASE, sample=sample))
    return caught.value.detail.removeprefix("the sample ")


def resigned(monitor: Monitor, sample: lm.SampleTaken, **changes: str) -> lm.SampleTaken:
    """As a monitor that says something else of it would sign."""
    statement = json.loads(signing.signed_payload(sample.statement.encode()))
    statement["predicate"] |= changes
    signed = signing.sign(json.dumps(statement).encode(), monitor.keys.verdicts)
    return sample.model_copy(update={"statement": signed.decode()})


def with_other_sample(monitor: Monitor, asked: lm.TraceRequest, sample: lm.SampleTaken) -> lm.SampleTaken:
    """Another sealed sample under the same statement."""
    other = monitor.sampling().take(asked)
    assert other.key != sample.key, "sealed anew each time"
    return sample.model_copy(update={"key": other.key})
