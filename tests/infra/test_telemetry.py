"""A whole release, watched: what `/metrics` shows on the way, and one trace from the API call down to the database."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from safetensors.numpy import save_file

from infra.components import one_machine
from infra.demo_cast import Pace
from infra.demo_report import WATCHING
from infra.demo_story import Story
from infra.demo_telling import Model
from infra.settings import Settings
from infra.supervisor import Stack
from infra.temporal import connect
from tests.simulators.otlp import Collector, collecting
from tests.support.metrics import documented
from tests.support.temporal import free_port

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def traces() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
def model(tmp_path: Path) -> Model:
    folder = tmp_path / "model"
    folder.mkdir()
    generator = np.random.default_rng(11)
    tensors = {f"layer.{i}.weight": generator.normal(size=(256, 512)).astype(np.float32) for i in range(6)}
    save_file(tensors, folder / "model.safetensors")
    for name in ("tokenizer.json", "config.json", "README.md"):
        (folder / name).write_text(f"canary-plaintext-of-{name}", encoding="utf-8")
    small = {name: folder / name for name in ("tokenizer.json", "config.json", "README.md")}
    patterns = {"tokenizer": ["tokenizer.json"], "config": ["config.json"], "model-card": ["README.md"]}
    return Model(folder / "model.safetensors", small, patterns)


class Watcher:
    """Scrapes the stack at turns of the story, from the story's own thread."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.seen: dict[str, Samples] = {}
        self.text = ""

    def __call__(self, moment: str) -> None:
        if moment == "held":
            self.seen[moment] = self.scrape()

    def scrape(self) -> Samples:
        found: Samples = {}
        for name, port in self.stack.site.ports.items():
            if name.endswith("-health"):
                answer = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=20, trust_env=False)
                assert answer.status_code == 200
                self.text += answer.text
                for family in text_string_to_metric_families(answer.text):
                    for sample in family.samples:
                        found[sample.name, frozenset(sample.labels.items())] = sample.value
        return found


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


async def test_a_release_is_seen_from_the_api_call_to_the_database(
    tmp_path: Path, model: Model, traces: Collector
) -> None:
    settings = Settings(
        dev=True,
        data_dir=tmp_path / "data",
        api_port=0,
        temporal_address="127.0.0.1:0",
        temporal_ui=False,
        otlp_endpoint=traces.url,
        **WATCHING,
    )
    pace = Pace(api=1, downloadable=1, open=1, cooling_off=1)
    async with one_machine(settings) as stack:
        watcher = Watcher(stack)
        story = Story(stack.settings, stack.urls["api"], tmp_path, model, pace=pace, moment=watcher)
        await asyncio.to_thread(story.tell)
        await asyncio.sleep(6)  # the records are looked at every five seconds
        after = await asyncio.to_thread(watcher.scrape)
        settings = stack.settings
        await _the_sdk_shows_its_own_metrics_on_their_port(settings)

    held = watcher.seen["held"]
    assert value(held, "sluice_releases_on_hold") == 1
    assert value(held, "sluice_gates_closed", reason="hold") == 1
    assert value(held, "sluice_gate_oldest_seconds", reason="hold") >= 0
    assert sum(v for (name, _), v in held.items() if name == "sluice_incidents_open") == 1

    assert value(after, "sluice_records_up") == 1
    assert value(after, "sluice_releases", status="completed", stage="open") == 1
    assert value(after, "sluice_releases_on_hold") == 0
    assert value(after, "sluice_logged_total", kind="custody", what="unwrap") >= 4
    assert value(after, "sluice_logged_total", kind="event", what="step_entered") >= 4
    assert value(after, "sluice_custody_trusts_log") == 1
    assert value(after, "sluice_log_unsigned_entries") == 0
    for check in ("temporal", "records", "key-provider", "worker"):
        assert value(after, "sluice_ready", check=check) == 1
    for queue in ("releases", "transfer", "custody"):
        assert value(after, "sluice_queue_pollers", queue=queue, kind="activity") >= 1
        assert value(after, "sluice_queue_backlog", queue=queue, kind="activity") == 0
    created = {"method": "POST", "route": "/v1/releases", "status": "201"}
    assert value(after, "sluice_http_request_seconds_count", **created) == 1

    _one_trace_reaches_from_the_call_to_the_database(traces)
    _log_lines_name_their_trace(settings, traces)
    shown = {
        name.removesuffix("_total")
        for name in re.findall(r"^# HELP (sluice_\w+)", watcher.text, re.MULTILINE)
    }
    assert {name.removesuffix("_total") for name in documented()} - {"sluice_sealed_bytes"} == shown
    _no_secret_left(traces, watcher.text, settings)


def _one_trace_reaches_from_the_call_to_the_database(traces: Collector) -> None:
    [call] = [span for span in traces.spans if span.name == "POST /v1/releases"]
    assert call.service == "sluice-api"
    same = [span for span in traces.spans if span.trace == call.trace]
    assert {"sluice-api", "sluice-worker-releases"} <= {span.service for span in same}
    names = {span.name for span in same}
    assert "HandleUpdate:created" in names
    assert "RunActivity:record_events" in names
    assert any(span.attributes.get("db.system") == "sqlite" for span in same)
    by_id = {span.id: span for span in same}
    for span in same:  # an unbroken tree: nothing hangs in the air
        assert span is call or span.parent in by_id, f"{span.name} has no parent in its trace"
    entering = [span for span in traces.spans if span.name == "RunActivity:make_envelopes"]
    assert {span.service for span in entering} == {"sluice-worker-custody"}


def _log_lines_name_their_trace(settings: Settings, traces: Collector) -> None:
    lines = "".join(path.read_text(errors="replace") for path in (settings.data_dir / "logs").glob("*"))
    named = set(re.findall(r'"trace": ?"([0-9a-f]{32})"', lines))
    assert named & {span.trace for span in traces.spans if span.service == "sluice-api"}


def _no_secret_left(traces: Collector, metrics: str, settings: Settings) -> None:
    seen = b"".join(traces.raw) + metrics.encode()
    assert b"canary-plaintext" not in seen
    assert b"slt_" not in seen
    assert b"AGE-SECRET-KEY" not in seen
    for path in [*(settings.data_dir / "secrets").iterdir(), *(settings.data_dir / "custody").glob("key*")]:
        for line in path.read_bytes().splitlines():
            secret = line.strip().split(b":")[-1]
            assert len(secret) < 24 or secret not in seen, f"{path.name} was seen from outside"


async def _the_sdk_shows_its_own_metrics_on_their_port(settings: Settings) -> None:
    port = free_port()
    client = await connect(settings.model_copy(update={"temporal_metrics_port": port}))
    await client.count_workflows()
    async with httpx.AsyncClient(trust_env=False) as http:
        text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
    assert "temporal_request_total" in text
