"""`make bench-releases`: the embedded stack on this machine with thousands of open releases waiting at gates.

Measured from outside, over HTTP, as a user would feel it: releases created per second; the round trip of a sign-off with
1 000 and with 5 000 open releases; reads; from the last sign-off to the partner's key; all workers restarted; memory of
each process. Prints the table and writes `build/bench/releases.json`. `--releases N` makes a smaller run.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import shutil
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import httpx
import psutil  # type: ignore[import-untyped]

from artifacts.keys import partner_keygen
from artifacts.sealing import seal_tree
from artifacts.signing import SigningKey
from artifacts.stores.base import open_store
from infra.bench.report import Row, report
from infra.provision import read_custody_public
from infra.settings import Settings
from infra.stack import Stack, one_machine

JSON = dict[str, Any]
T = TypeVar("T")
CREATORS = 12
SIGNERS = 4
WORKERS = ("worker-releases", "worker-transfer", "worker-custody")


def plan(recipient: str) -> JSON:
    """A gate that waits for two people in front of a gated download."""
    gate = {
        "sign_offs": [{"role": "safety"}, {"role": "legal"}],
        "evidence": [{"kind": "model_card"}, {"kind": "risk_assessment"}],
        "cooling_off": "1s",
        "waive_external_sign_off": "a benchmark",
    }
    return {
        "format": "sluice.plan/v1",
        "title": "Bench",
        "organisation": "Bench Lab",
        "components": {"weights": {"category": "model", "kind": "weights"}},
        "people": {
            "ada": {"name": "Ada", "roles": ["safety"]},
            "chloe": {"name": "Chloe", "roles": ["legal"]},
        },
        "partners": {"uni": {"name": "Uni", "recipient": recipient}},
        "partner_groups": {"research": {"partners": ["uni"]}},
        "steps": [
            {"name": "inside", "stage": "closed", "components": ["weights"], "audience": "internal"},
            {
                "name": "download",
                "stage": "downloadable",
                "components": ["weights"],
                "audience": {"partners": ["research"]},
                "controls": [{"kind": "license", "parameters": {"name": "RAIL"}}],
                "gate": gate,
            },
        ],
    }


class Bench:
    """One run against one stack."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack, self.folder = stack, folder
        self.http = httpx.AsyncClient(
            base_url=stack.urls["api"] + "/v1", timeout=60, limits=httpx.Limits(max_connections=64)
        )
        self.tokens: dict[str, str] = {}
        self.releases: list[str] = []
        self._signed: set[str] = set()

    async def call(self, who: str, method: str, path: str, **more: Any) -> httpx.Response:
        """One request; an error status is an error of the benchmark."""
        headers = {"Authorization": f"Bearer {self.tokens[who]}", **more.pop("headers", {})}
        if method == "POST":
            headers["Idempotency-Key"] = uuid4().hex
        answer = await self.http.request(method, path, headers=headers, **more)
        if answer.is_error:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer

    async def people(self) -> None:
        """Principals, the partner and its key."""
        token_file = self.stack.settings.effective_operator_token_file
        assert token_file is not None
        self.tokens["operator"] = token_file.read_text().strip()
        self.recipient = partner_keygen().recipient
        for name, role in (
            ("rosa", "release_manager"),
            ("ci", "mlops"),
            ("ada", "approver"),
            ("chloe", "approver"),
        ):
            kind = "machine" if name == "ci" else "person"
            body = {"id": name, "name": name, "kind": kind, "roles": [role]}
            await self.call("operator", "POST", "/principals", json=body)
            made = await self.call("operator", "POST", f"/principals/{name}/tokens", json={"label": "bench"})
            self.tokens[name] = made.json()["text"]
        await self.call("rosa", "POST", "/partners", json={"id": "uni", "name": "Uni"})

    async def create(self, count: int) -> float:
        """Create releases; how many a second."""

        async def one(number: int) -> None:
            name = f"bench-{len(self.releases) + number}-{uuid4().hex[:6]}"
            body = {"id": name, "name": name, "version": "1", "plan": plan(self.recipient)}
            await self.call("rosa", "POST", "/releases", json=body)
            made.append(name)

        made: list[str] = []
        started = time.perf_counter()
        await in_parallel(one, range(count), CREATORS)
        seconds = time.perf_counter() - started
        self.releases += made
        return count / seconds

    async def sign(self, release: str, who: str, role: str) -> float:
        """Read the gate, then the round trip of the sign-off alone, in seconds."""
        gate = await self.call("rosa", "GET", f"/releases/{release}/steps/download/gate")
        body = {"role": role, "decision": "approve", "subject": gate.json()["verdict"]["subject_digest"]}
        started = time.perf_counter()
        await self.call(
            who,
            "POST",
            f"/releases/{release}/steps/download/sign-offs",
            json=body,
            headers={"If-Match": gate.headers["ETag"]},
        )
        return time.perf_counter() - started

    async def sign_offs(self, count: int) -> list[float]:
        """Round trips of sign-offs on different releases, `SIGNERS` people at once."""
        times: list[float] = []

        async def one(release: str) -> None:
            times.append(await self.sign(release, "ada", "safety"))

        chosen = self.releases[:: max(len(self.releases) // count, 1)][:count]
        signed = {r for r in chosen if r in self._signed}
        await in_parallel(one, [release for release in chosen if release not in signed], SIGNERS)
        self._signed.update(chosen)
        return times

    async def reads(self, count: int) -> tuple[list[float], list[float]]:
        """Round trips of the release list and of a gate's verdict."""
        lists, verdicts = [], []
        for number in range(count):
            started = time.perf_counter()
            await self.call("rosa", "GET", "/releases?limit=50")
            lists.append(time.perf_counter() - started)
            release = self.releases[(number * 37) % len(self.releases)]
            started = time.perf_counter()
            await self.call("rosa", "GET", f"/releases/{release}/steps/download/gate")
            verdicts.append(time.perf_counter() - started)
        return lists, verdicts

    async def to_the_key(self, count: int) -> list[float]:
        """From the last sign-off (less its cooling-off of 1 s) to the partner's envelope being there."""
        source = self.folder / "weights"
        source.mkdir()
        (source / "model.safetensors").write_bytes(bytes(1 << 20))
        times = []
        for number in range(count):
            release = f"key-{number}-{uuid4().hex[:6]}"
            body = {"id": release, "name": release, "version": "1", "plan": plan(self.recipient)}
            await self.call("rosa", "POST", "/releases", json=body)
            await self._ready(release, await asyncio.to_thread(self._seal, source, release))
            await self.sign(release, "ada", "safety")
            await self.sign(release, "chloe", "legal")
            started = time.perf_counter()
            while True:
                found = (await self.call("rosa", "GET", f"/releases/{release}/grants")).json()["items"]
                if any(grant["holder"] == "uni" and grant["envelopes"] for grant in found):
                    break
                await asyncio.sleep(0.02)
            times.append(time.perf_counter() - started - 1.0)
        return times

    def _seal(self, source: Path, release: str) -> JSON:
        custody = read_custody_public(self.stack.settings.effective_custody_public_file)
        with open_store(self.stack.settings.effective_store_uri) as store:
            sealed = seal_tree(
                source,
                store,
                custody_recipient=custody.recipient,
                signer=SigningKey.generate(),
                components={"weights": "*"},
                release=release,
            )
        return {
            "manifest": base64.b64encode(sealed.manifest).decode(),
            "digest": f"sha256:{sealed.manifest_digest}",
            "location": sealed.store_uri,
            "wrapped_root": sealed.wrapped_root,
        }

    async def _ready(self, release: str, artifact: JSON) -> None:
        registered = (await self.call("ci", "POST", "/artifacts", json=artifact)).json()["id"]
        await self.call("ci", "POST", f"/releases/{release}/artifacts", json={"artifact": registered})
        card = {"kind": "model_card", "digest": "sha256:" + "1" * 64, "title": "Card", "step": "download"}
        await self.call("ci", "POST", f"/releases/{release}/evidence", json=card)
        finding = {"finding": "none", "rating": "low", "mitigation": "none"}
        considerations = (
            "concentration_of_power",
            "disparate_performance",
            "misuse",
            "auditability",
            "accountability",
            "value_judgments",
        )
        assessed = {
            "step": "download",
            "title": "Risks",
            "considerations": dict.fromkeys(considerations, finding),
        }
        await self.call("ada", "POST", f"/releases/{release}/evidence/assessments", json=assessed)
        await self.call(
            "ada", "PUT", f"/releases/{release}/steps/download/controls/license", json={"in_force": True}
        )

    async def restart(self, sample: int) -> tuple[float, float]:
        """Restart all workers; seconds until the first and until every one of a sample of releases answers a command."""
        for name in WORKERS:
            await self.stack.restart(name)
        started = time.perf_counter()
        first: list[float] = []

        async def one(release: str) -> None:
            body = {"reason": "is anybody there?"}
            while True:
                try:
                    await self.call("rosa", "POST", f"/releases/{release}/hold", json=body)
                    break
                except RuntimeError as error:
                    if " 503 " not in str(error):
                        raise
                    await asyncio.sleep(0.05)
            if not first:
                first.append(time.perf_counter() - started)

        chosen = (
            self.releases if sample >= len(self.releases) else self.releases[:: len(self.releases) // sample]
        )
        await in_parallel(one, chosen, CREATORS)
        return first[0], time.perf_counter() - started

    def memory(self) -> dict[str, float]:
        """Resident memory of each process, MiB."""
        return {
            name: psutil.Process(self.stack.pid(name)).memory_info().rss / 2**20
            for name in ("temporal", "api", *WORKERS)
        }


async def in_parallel(job: Callable[[T], Awaitable[None]], over: Iterable[T], width: int) -> None:
    """Run a job over many, at most `width` at once."""
    pending = iter(over)

    async def lane() -> None:
        for one in pending:
            await job(one)

    await asyncio.gather(*(lane() for _ in range(width)))


def quantile(times: Sequence[float], part: float) -> float:
    """Milliseconds at a quantile."""
    ordered = sorted(times)
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] * 1000


async def run(total: int) -> list[Row]:
    """The whole benchmark."""
    folder = Path(tempfile.mkdtemp(prefix="sluice-bench-"))
    rows: list[Row] = []
    try:
        settings = Settings(dev=True, data_dir=folder / "data", temporal_ui=False)
        async with one_machine(settings) as stack:
            bench = Bench(stack, folder)
            await bench.people()
            for goal in (total // 5, total):
                rate = await bench.create(goal - len(bench.releases))
                rows.append(Row(f"create releases, up to {goal}", rate, "per s", note=f"{CREATORS} at once"))
                for name, times, p50, p99 in await _latencies(bench):
                    aims = (60.0, 400.0) if name == "sign-off" and goal == total else (p50, p99)
                    for part, aim in ((0.5, aims[0]), (0.99, aims[1])):
                        value = quantile(times, part)
                        label = f"{name} p{int(part * 100)}, {goal} open"
                        rows.append(
                            Row(
                                label,
                                value,
                                "ms",
                                aim=aim,
                                met=None if aim is None else value <= aim,
                                runs=len(times),
                            )
                        )
            keys = await bench.to_the_key(5)
            value = statistics.median(keys) * 1000
            rows.append(
                Row(
                    "last sign-off to the partner's key",
                    value,
                    "ms",
                    aim=2000,
                    met=value <= 2000,
                    runs=len(keys),
                    note="its cooling-off of 1 s taken off",
                )
            )
            for name, mib in bench.memory().items():
                rows.append(Row(f"memory of {name}, {total} open", mib, "MiB"))
            first, every = await bench.restart(total)
            rows.append(Row(f"all workers restarted: first release answers, {total} open", first, "s"))
            rows.append(
                Row(f"all workers restarted: all {total} have answered", every, "s", note="one hold each")
            )
            for name, mib in bench.memory().items():
                rows.append(Row(f"memory of {name} after the restart", mib, "MiB"))
            await bench.http.aclose()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return rows


async def _latencies(bench: Bench) -> list[tuple[str, list[float], float | None, float | None]]:
    signed = await bench.sign_offs(300)
    lists, verdicts = await bench.reads(200)
    return [
        ("sign-off", signed, None, None),
        ("release list", lists, None, 50.0),
        ("gate verdict", verdicts, None, 50.0),
    ]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--releases", type=int, default=5_000)
    asked = parser.parse_args()
    report("releases", asyncio.run(run(asked.releases)))


if __name__ == "__main__":
    main()
