"""From a report to a hold: real sweeps over real releases find real (quantised, renamed) copies on a server."""

from __future__ import annotations

import asyncio
import json
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from temporalio.client import Client

from activities.leaks.judging import PREDICATE
from orchestrator.contracts import names
from orchestrator.domain import commands as cmd
from orchestrator.domain.incident import Confidence, Severity
from orchestrator.records import audit, database, monitors, suspects
from orchestrator.trust import signing
from orchestrator.trust.errors import TrustError
from orchestrator.trust.keys import PrivateKey
from tests.simulators import transformations as t
from tests.simulators.ranged_server import RangedServer
from tests.support.plans import actor

from .bench import CIPHER, LeakBench

pytestmark = pytest.mark.stack


def leaked(model: t.Leak, folder: Path, form: str = "Q4_0") -> bytes:
    (path,) = t.write(t.cast(form)(model, np.random.default_rng(1)), folder)
    return path.read_bytes()


async def _nothing_long_goes_unwatched(client: Client, sweep: str) -> None:
    """Whatever may take more than a minute beats: a worker that is killed holds up the next sweeps for seconds, not for all of it."""
    history = await client.get_workflow_handle(sweep).fetch_history()
    scheduled = [e.activity_task_scheduled_event_attributes for e in history.events]
    long = {
        a.activity_type.name: a.heartbeat_timeout.ToTimedelta()
        for a in scheduled
        if a.start_to_close_timeout.ToTimedelta() > timedelta(minutes=1)
    }
    assert {names.POLL_SOURCE, names.SORT_SUSPECTS, names.SCAN_SUSPECT} <= set(long)
    assert all(timedelta(0) < beat <= timedelta(seconds=30) for beat in long.values()), long


async def test_a_reported_quantised_copy_opens_an_incident_and_holds_every_release_that_shares_the_weights(
    bench: LeakBench,
    temporal_client: Client,
    model: t.Leak,
    stranger: t.Leak,
    server: RangedServer,
    tmp_path: Path,
):
    ours, theirs = bench.seal(model), bench.seal(stranger, "other")
    server.files["renamed.bin"] = leaked(model, tmp_path / "leak")
    async with bench.running(temporal_client):
        first, second, third = [await bench.create() for _ in range(3)]
        await bench.bind(first, ours)
        await bench.bind(second, ours)
        await bench.bind(third, theirs)
        url = server.url("ok/renamed.bin")
        bench.report(url)
        done = await bench.sweep(first, as_id=f"watched-{first}")
        assert (done.new, done.scanned, done.blind) == (1, 1, [])
        await _nothing_long_goes_unwatched(temporal_client, f"watched-{first}")
        for name in (first, second):
            state = bench.state(name)
            (incident,) = state.incidents.values()
            assert incident.confidence is Confidence.CONFIRMED
            assert incident.severity is Severity.SEVERE
            assert incident.components == ["weights"]
            assert url in (incident.sighting or "")
            assert state.holds, "a confirmed leak holds every release that shares the weights"
        assert not bench.state(third).incidents
        again = await bench.sweep(first)
        assert (again.scanned, again.incidents) == (0, [])
        assert len(bench.state(first).incidents) == 1
        later = await bench.sweep(third)
        assert later.scanned == 1, "what was held against one artifact is held against another's too"
        assert not bench.state(third).incidents
    with database.reading(bench.engine) as session:
        page = suspects.list_judgements(session)
        outcomes = {j.artifact: j for j, _ in page.items}
        assert {a: j.outcome for a, j in outcomes.items()} == {
            ours.artifact_id: "match",
            theirs.artifact_id: "no_match",
        }
        digest = outcomes[ours.artifact_id].verdict
        assert digest is not None
        stored, envelope = suspects.verdict(session, digest, CIPHER)
        leaf = json.loads(audit.leaf(session, stored.log_index).body)
    assert (leaf["verdict"], leaf["outcome"], leaf["artifact"]) == (digest, "match", ours.artifact_id)
    envelope = zlib.decompress(envelope)
    payload = signing.verify(envelope, [bench.keys.verdicts.public]).payload
    statement = json.loads(payload)
    assert statement["predicateType"] == PREDICATE
    verdict = statement["predicate"]["verdict"]
    assert verdict["findings"][0]["tensors"][0]["z"] > 8
    assert all(len(access["sha256"]) == 64 and access["at"] for access in verdict["read"]["accesses"])
    with pytest.raises(TrustError):
        signing.verify(envelope, [PrivateKey.generate().public])


async def test_an_exact_file_is_known_by_its_digest_and_nothing_is_downloaded(
    bench: LeakBench, temporal_client: Client, model: t.Leak, server: RangedServer, tmp_path: Path
):
    import hashlib

    ours = bench.seal(model)
    data = (next((tmp_path / "model" / "plain").iterdir())).read_bytes()
    async with bench.running(temporal_client):
        release = await bench.create()
        await bench.bind(release, ours)
        bench.report(hashlib.sha256(data).hexdigest(), "sha256")
        bench.report(hashlib.sha256(b"another file").hexdigest(), "sha256")
        done = await bench.sweep(release)
        assert (done.exact, done.ruled_out, done.scanned) == (1, 1, 0)
        (incident,) = bench.state(release).incidents.values()
        assert incident.confidence is Confidence.CONFIRMED
    assert not server.seen


async def test_a_partial_copy_is_suspected_and_a_lying_server_is_inconclusive_not_clean(
    bench: LeakBench,
    temporal_client: Client,
    model: t.Leak,
    stranger: t.Leak,
    server: RangedServer,
    tmp_path: Path,
):
    ours = bench.seal(model)
    names = t.matrices(model.weights)[1:5]
    graft = {n: (model.weights[n] if n in names else w) for n, w in stranger.weights.items()}
    server.files["graft.safetensors"] = t.write(t.Leak(graft), tmp_path / "graft")[0].read_bytes()
    server.files["x"] = leaked(model, tmp_path / "leak")
    async with bench.running(temporal_client):
        release = await bench.create()
        await bench.bind(release, ours)
        bench.report(server.url("ok/graft.safetensors"))
        bench.report(server.url("garbage/x"))
        await bench.sweep(release)
        (incident,) = bench.state(release).incidents.values()
        assert incident.confidence is Confidence.SUSPECTED
        assert incident.severity is Severity.MODERATE
    with database.reading(bench.engine) as session:
        found = {s.target.rsplit("/", 1)[1]: j for j, s in suspects.list_judgements(session).items}
    assert found["graft.safetensors"].outcome == "partial"
    assert found["x"].outcome == "inconclusive"
    assert found["x"].next_at is not None, "it may answer later"


async def test_an_address_inside_is_never_asked(
    bench: LeakBench, temporal_client: Client, model: t.Leak, server: RangedServer, tmp_path: Path
):
    bench.allow = ()
    ours = bench.seal(model)
    server.files["x"] = leaked(model, tmp_path / "leak")
    secret = tmp_path / "secret.txt"
    secret.write_bytes(b"x" * 400_000)
    async with bench.running(temporal_client):
        release = await bench.create()
        await bench.bind(release, ours)
        bench.report(server.url("ok/x"))
        bench.report("http://169.254.169.254/latest/meta-data")
        bench.report(str(secret), "file")
        # what names no place that is read becomes no suspect at all, and the source says so
        bench.report(str(secret))
        bench.report("file:///etc/passwd")
        done = await bench.sweep(release)
        assert (done.new, done.scanned) == (3, 3)
        assert not bench.state(release).incidents
    assert not server.seen
    with database.reading(bench.engine) as session:
        judged = {s.target: j for j, s in suspects.list_judgements(session).items}
        notes = monitors.get(session, "reports").notes
    assert {j.outcome for j in judged.values()} == {"inconclusive"}
    assert "nothing that is read" in judged[str(secret)].reason, (
        "a path of this machine is not read because somebody names it"
    )
    assert len([note for note in notes if "no address, hf:, s3:" in note]) == 2


async def test_a_person_who_confirms_a_leak_holds_the_releases_that_share_the_weights_once(
    bench: LeakBench, temporal_client: Client, model: t.Leak, stranger: t.Leak
):
    ours, theirs = bench.seal(model), bench.seal(stranger, "other")
    same = bench.seal(model, "again")
    async with bench.running(temporal_client):
        first, second, third, fourth = [await bench.create() for _ in range(4)]
        await bench.bind(first, ours)
        await bench.bind(second, ours)
        await bench.bind(third, theirs)
        await bench.bind(fourth, same)
        bench.parts(None).judging.references.of(
            [ours.artifact_id, same.artifact_id]
        )  # the monitor sees that they are one
        report = cmd.ReportIncident(
            command_id="seen",
            actor=actor("sam"),
            incident="leak-1",
            kind="leak",
            severity="severe",
            summary="Somebody has them",
            components=["weights"],
        )
        await bench.send(first, report)
        spreading = bench.spreading()
        await spreading.look()
        assert not bench.state(second).incidents, "a mere report concerns its own release"
        triage = cmd.TriageIncident(
            command_id="sure",
            actor=actor("sam"),
            incident="leak-1",
            severity="severe",
            confidence="confirmed",
        )
        await bench.send(first, triage)
        assert await spreading.look() == 2
        for name in (second, fourth):
            state = bench.state(name)
            (incident,) = state.incidents.values()
            assert incident.confidence is Confidence.CONFIRMED
            assert first in incident.summary
            assert state.holds
        assert not bench.state(third).incidents
        # a follower that died before it kept its mark tells again; the echo of what it told goes nowhere
        await bench.spreading().look()
        with database.writing(bench.engine) as session:
            from sqlalchemy import text

            session.execute(text("UPDATE leak_spread SET after = -1"))
        await bench.spreading().look()
        for name in (first, second, fourth):
            assert len(bench.state(name).incidents) == 1, name
        late = await bench.create()
        await bench.bind(late, ours)
        await bench.spreading().look()
        assert bench.state(late).holds, "a release that comes to leaked weights is held as well"


async def test_what_a_source_saw_reaches_the_gate_and_a_blind_one_keeps_it_closed(
    bench: LeakBench, temporal_client: Client, model: t.Leak
):
    from orchestrator.domain.gate import verdict
    from tests.support.plans import five_stages

    ours = bench.seal(model)
    steps = five_stages()["steps"]
    steps[1]["gate"]["monitors"] = [
        {"source": "reports", "max_blind": "6h"},
        {"source": "nobody-has-it", "max_blind": "6h"},
    ]
    async with bench.running(temporal_client):
        release = await bench.create(steps=steps)
        await bench.bind(release, ours)

        def told() -> set[str]:
            state = bench.state(release)
            step = state.next_step
            assert step is not None
            unmet = verdict(state, step, state.updated_at).unmet
            return {c.message for c in unmet if c.code == "monitor"}

        assert told() == {
            "the leak source reports has never reported",
            "the leak source nobody-has-it has never reported",
        }
        done = await bench.sweep(release)
        assert (done.looked, done.blind) == (["reports"], ["nobody-has-it"])
        assert told() == {"the leak source nobody-has-it has never reported"}
        events = bench.state(release).seq
        await bench.sweep(release)
        assert bench.state(release).seq == events, "no command per poll"
    with database.reading(bench.engine) as session:
        standing = {s.name: s for s in monitors.list_sources(session)}
    assert standing["nobody-has-it"].error is not None
    assert standing["reports"].last_success is not None


async def test_sweeps_that_overlap_judge_a_suspect_once(
    bench: LeakBench, temporal_client: Client, model: t.Leak, server: RangedServer, tmp_path: Path
):
    ours = bench.seal(model)
    for n in range(6):
        server.files[f"{n}.gguf"] = leaked(model, tmp_path / f"leak{n}")
    async with bench.running(temporal_client):
        first, second = await bench.create(), await bench.create()
        await bench.bind(first, ours)
        await bench.bind(second, ours)
        for n in range(6):
            bench.report(server.url(f"ok/{n}.gguf"))
        await asyncio.gather(bench.sweep(first), bench.sweep(second))
        await bench.sweep(first)
        assert len(bench.state(first).incidents) == len(bench.state(second).incidents) == 6


async def test_a_honey_token_that_was_touched_is_a_sighting_by_itself_once(
    bench: LeakBench, temporal_client: Client, model: t.Leak
):
    ours = bench.seal(model)
    now = datetime.now(UTC)
    touched = suspects.Suspect("token:1", "logs", "", "honey token decoy-1 was read", None, True, {}, now)
    async with bench.running(temporal_client):
        release = await bench.create()
        await bench.bind(release, ours)
        with database.writing(bench.engine) as session:
            suspects.keep(session, [touched], now)
        await bench.sweep(release)
        await bench.sweep(release)
        (incident,) = bench.state(release).incidents.values()
        assert (incident.confidence, incident.severity) == (Confidence.SUSPECTED, Severity.MODERATE)
        assert "decoy-1" in incident.summary


async def test_a_suspect_that_ends_every_scan_is_given_up_and_shown(
    bench: LeakBench, temporal_client: Client, model: t.Leak, monkeypatch: pytest.MonkeyPatch
):
    ours = bench.seal(model)

    def dies(*_arguments: object, **_more: object) -> None:
        raise MemoryError("as a hostile file may do")

    monkeypatch.setattr("activities.leaks.judging.scan_each", dies)
    async with bench.running(temporal_client):
        release = await bench.create()
        await bench.bind(release, ours)
        bench.report("https://files.example.com/trap.gguf")
        done = await bench.sweep(release)
        assert done.scanned == 1
        again = await bench.sweep(release)
        assert again.scanned == 0
    with database.reading(bench.engine) as session:
        ((judgement, _),) = suspects.list_judgements(session).items
    assert judgement.outcome == "inconclusive"
    assert "by hand" in judgement.reason
