"""`sluice leak` against the real API: blind sources, reports, a case that repeats, a draft that nobody sends."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from activities.beating import Beat
from activities.leaks.telling import Telling
from artifacts.leaks.sealed import open_signature
from orchestrator.contracts.messages import CommandMessage
from orchestrator.records import database, monitors, signatures
from tests.api.conftest import RELEASE
from tests.cli.test_service_commands import create
from tests.monitoring.bench import LeakBench
from tests.simulators import transformations as t
from tests.simulators.ranged_server import running


class ThroughGateway:
    """Commands of the service through the API's own gateway."""

    def __init__(self, gateway) -> None:
        self._gateway = gateway

    async def send(self, release, command):
        return await self._gateway.send(release, CommandMessage(command=command))


@pytest.fixture
def found(service, home: Path, tmp_path: Path):
    """A release whose weights were found in a cast copy on a server, as the leak worker finds them."""
    bench = LeakBench(service.api.engine, tmp_path)
    model = t.Leak(t.synthetic(np.random.default_rng(1)))
    ours = bench.seal(model)
    (copy,) = t.write(t.cast("F16")(model, np.random.default_rng(1)), tmp_path / "leak")
    create(service, home)
    service.ok("ci", "artifact", "add", RELEASE, ours.artifact_id)
    parts = bench.parts(None)
    parts.polling.prepare()
    with running() as server:
        server.files["copy.safetensors"] = copy.read_bytes()
        bench.report(server.url("ok/copy.safetensors"))
        parts.polling.poll("reports", "me", Beat())
        watched = {ours.artifact_id: datetime.now(UTC) - timedelta(days=1)}
        (key,) = parts.judging.sort(watched, 10, Beat()).scan
        assert parts.judging.scan(key, watched, Beat())[0] == {ours.artifact_id: "match"}
        telling = Telling(bench.engine, ThroughGateway(service.api.gateway), parts.telling.evidence)
        (told,) = asyncio.run(telling.sightings([ours.artifact_id])).incidents
        service.bench, service.copy, service.ours = bench, copy, ours
        yield told.partition("/")[2]


@pytest.fixture(autouse=True)
def _same_cipher(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest):
    """The API opens verdicts with the keys that the worker sealed them with."""
    if "service" not in request.fixturenames:
        return
    from tests.monitoring.bench import CIPHER

    service = request.getfixturevalue("service")
    object.__setattr__(service.api.deps, "verdicts", CIPHER)
    object.__setattr__(service.api.app.state.deps, "verdicts", CIPHER)


def unsealed(service, home: Path) -> Path:
    with database.reading(service.bench.engine) as session:
        (stored,) = signatures.of(session)
    (home / "sealed").write_bytes(stored.sealed)
    keys = service.bench.folder / "monitor" / "keys.json"
    out = home / "opened"
    done = service.ok("sam", "leak", "unseal", home / "sealed", "--monitor-keys", keys, "--to", out)
    assert done["artifact"] == service.ours.artifact_id
    assert open_signature(stored.sealed, service.bench.keys.identity)[1].digest() == done["digest"]
    return out


def test_a_false_alarm_becomes_a_case_that_a_test_can_run(service, home: Path, found: str):
    listed = service.ok("sam", "leak", "suspects", "--outcome", "match")
    assert listed[0]["artifact"] == service.ours.artifact_id
    verdict = service.ok(
        "sam", "leak", "verdict", listed[0]["verdict"], "--key", service.bench.keys.public.verdict_key
    )
    assert verdict["verified"]
    case = home / "case.json"
    made = service.ok("sam", "leak", "export", RELEASE, found, "--to", case)
    assert made["expected"] == "match"
    assert made["responses"] > 3
    opened = unsealed(service, home)
    artifact = service.ours.artifact_id
    keys = ("--key", opened / f"{artifact}.key", "-s", opened / f"{artifact}.signature")
    again = service.ok("sam", "leak", "replay", case, *keys, "--allow", "127.0.0.1")
    assert again["as_expected"]
    assert again["answers_identical"] == again["answers_now"] > 0
    assert again["largest_difference_of_r"] == 0.0
    kept = service.ok("sam", "leak", "replay", case, *keys, "--target", service.copy)
    assert kept["as_expected"]
    service.ok(
        "sam", "incident", "triage", RELEASE, found, "--severity", "severe", "--confidence", "false_alarm"
    )
    alarm = home / "alarm.json"
    assert service.ok("sam", "leak", "export", RELEASE, found, "--to", alarm)["expected"] == "not_ours"
    still = service("sam", "leak", "replay", alarm, *keys, "--target", service.copy, "--json")
    assert (still.code, still.json["as_expected"]) == (1, False), "the recogniser still takes it for ours"
    assert service("sam", "leak", "export", RELEASE, found, "--to", case).code != 0, "nothing is overwritten"
    assert "opened by the leak monitor" in _other_incident(service, home)


def _other_incident(service, home: Path) -> str:
    service.ok(
        "sam",
        "incident",
        "report",
        RELEASE,
        "--kind",
        "harm",
        "--severity",
        "low",
        "-s",
        "x",
        "--id",
        "harm-1",
    )
    return service("sam", "leak", "export", RELEASE, "harm-1", "--to", home / "no.json").err


def test_a_takedown_notice_is_drafted_names_no_tensor_of_ours_and_is_not_sent(
    service, home: Path, found: str
):
    folder = home / "notice"
    done = service.ok("sam", "leak", "takedown", RELEASE, found, "--to", folder)
    assert not done["sent"]
    assert done["files"] == ["answers.csv", "evidence.json", "notice.txt"]
    text = (folder / "notice.txt").read_text()
    assert "DRAFT. Nothing has been sent." in text
    assert "compared weight matrices are ours" in text
    evidence = json.loads((folder / "evidence.json").read_text())
    assert evidence["verdict"]["findings"][0]["tensors"]
    everything = "".join(path.read_text() for path in folder.iterdir())
    assert service.ours.artifact_id not in everything
    for tensor in evidence["verdict"]["findings"][0]["tensors"]:
        assert "shape" not in tensor
        assert tensor["reference"].startswith("tensor ")
    assert len((folder / "answers.csv").read_text().splitlines()) > 3


def test_a_blind_source_shows_and_sets_the_exit_code(service, home: Path):
    with database.writing(service.api.engine) as session:
        monitors.configure(session, {"hub": "hub"})
    ran = service("sam", "leak", "sources")
    assert ran.code == 1
    assert "blind" in ran.out
    handed = service.ok("sam", "leak", "report", "https://files.example.com/x.gguf", "-n", "look")
    assert handed["id"].startswith("report-")
    assert service("sam", "leak", "report", "http://10.0.0.1/x").code != 0
    service.ok("sam", "leak", "parent", "add", "base", "hf:owner/base@1")
    assert service.ok("sam", "leak", "parent", "list")[0]["name"] == "base"
    service.ok("sam", "leak", "parent", "drop", "base")
    assert service.ok("sam", "leak", "parent", "list") == []


def test_every_weight_is_compared_where_the_reference_lies(sluice, home: Path):
    model = t.Leak(t.synthetic(np.random.default_rng(1)))
    t.write(model, home / "ours")
    t.write(t.cast("F16")(model, np.random.default_rng(1)), home / "theirs")
    t.write(t.Leak(t.synthetic(np.random.default_rng(9))), home / "strangers")
    ran = sluice("leak", "compare", home / "theirs", home / "ours", "-n", "ours", "--json")
    assert (ran.code, ran.json["outcome"], ran.json["findings"][0]["tier"]) == (1, "match", 3)
    other = sluice("leak", "compare", home / "strangers", home / "ours", "-n", "ours", "--json")
    assert (other.code, other.json["outcome"]) == (0, "no_match")
