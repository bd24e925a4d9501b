"""`make bench-releases`: the embedded stack on this machine with thousands of open releases waiting at gates.

Measured from outside, over HTTP, as a user would feel it: releases created per second; the round trip of a sign-off with
1 000 and with 5 000 open releases; reads; from the last sign-off to the partner's key; all workers restarted; memory of
each process. Prints the table and writes `build/bench/releases.json`. `--releases N` makes a smaller run.

A whole run takes a quarter of an hour. `--keep FOLDER` keeps the stack's data, so that it can be done in pieces, one
`--case` at a time; each piece puts its rows in the place of its rows of before:

    python -m infra.bench.releases --keep /tmp/bench --case create --upto 1000 --seconds 200      (again, until it is there)
    python -m infra.bench.releases --keep /tmp/bench --case sign       … reads, key, restart
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
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
from infra.bench.report import FOLDER, Row, report
from infra.parts import StoreOpener
from infra.provision import read_custody_public
from infra.settings import Settings
from infra.stack import Stack, one_machine

JSON = dict[str, Any]
T = TypeVar("T")
LARGE = 5_000
CREATORS = 12
SIGNERS = 4
WORKERS = ("worker-releases", "worker-transfer", "worker-custody", "worker-leaks")


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
        self.opener = StoreOpener(stack.settings)
        self.http = httpx.AsyncClient(
            base_url=stack.urls["api"] + "/v1", timeout=60, limits=httpx.Limits(max_connections=64)
        )
        self.tokens: dict[str, str] = {}
        self.releases: list[str] = []
        self.recipient = ""
        self.created: dict[str, list[float]] = {}
        self.back = 0.0
        self._signed: set[str] = set()
        self._memory = folder / "bench.json"

    def recall(self) -> bool:
        """What an earlier piece left in the folder; whether there was one."""
        if not self._memory.exists():
            return False
        kept = json.loads(self._memory.read_text())
        self.tokens, self.recipient = kept["tokens"], kept["recipient"]
        self.releases, self.created, self._signed = kept["releases"], kept["created"], set(kept["signed"])
        return True

    def keep(self) -> None:
        """Leave what a later piece needs."""
        kept = {
            "tokens": self.tokens,
            "recipient": self.recipient,
            "releases": self.releases,
            "created": self.created,
            "signed": sorted(self._signed),
        }
        self._memory.write_text(json.dumps(kept))

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

    def plan(self, _number: int) -> JSON:
        """The plan of one release."""
        return plan(self.recipient)

    async def create(self, goal: int, seconds: float) -> None:
        """Create releases until there are so many, or time is over."""
        made: list[str] = []
        started = time.perf_counter()

        async def one(number: int) -> None:
            if time.perf_counter() - started > seconds:
                return
            name = f"bench-{number}-{uuid4().hex[:6]}"
            body = {"id": name, "name": name, "version": "1", "plan": self.plan(number)}
            await self.call("rosa", "POST", "/releases", json=body)
            made.append(name)

        try:
            await in_parallel(one, range(len(self.releases), goal), CREATORS)
        finally:
            count, spent = self.created.get(str(goal), [0.0, 0.0])
            self.created[str(goal)] = [count + len(made), spent + time.perf_counter() - started]
            self.releases += made

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

    async def sign_offs(self, count: int, at_once: int) -> list[float]:
        """Round trips of sign-offs on different releases, so many people at once, each after reading the gate."""
        times: list[float] = []

        async def one(release: str) -> None:
            times.append(await self.sign(release, "ada", "safety"))

        unsigned = [release for release in self.releases if release not in self._signed]
        chosen = unsigned[:: max(len(unsigned) // count, 1)][:count]
        await in_parallel(one, chosen, at_once)
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
        source.mkdir(exist_ok=True)
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
        with self.opener(self.stack.settings.effective_store_uri) as store:
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
        """Restart all workers; seconds from the order until the first, and until every one of a sample answers a command."""
        started = time.perf_counter()
        await asyncio.gather(*(self.stack.restart(name) for name in WORKERS))
        self.back = time.perf_counter() - started
        first: list[float] = []

        async def one(release: str) -> None:
            body = {"working": False, "reason": "is anybody there?"}
            while True:
                try:
                    await self.call("rosa", "POST", f"/releases/{release}/access", json=body)
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


async def run(asked: argparse.Namespace) -> list[Row]:
    """The cases that were asked for, against one stack."""
    kept: Path | None = asked.keep
    folder = kept or Path(tempfile.mkdtemp(prefix="sluice-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        settings = Settings(
            dev=True,
            data_dir=folder / "data",
            temporal_ui=False,
            api_port=asked.port,
            temporal_address=f"127.0.0.1:{asked.port + 1}",
        )
        async with one_machine(settings) as stack:
            bench = Bench(stack, folder)
            if not bench.recall():
                await bench.people()
            try:
                return [
                    row for rows in [await _case(bench, name, asked) for name in asked.cases] for row in rows
                ]
            finally:
                bench.keep()
                await bench.http.aclose()
    finally:
        if kept is None:
            shutil.rmtree(folder, ignore_errors=True)


async def _case(bench: Bench, name: str, asked: argparse.Namespace) -> list[Row]:
    """One case's rows."""
    verb, _, number = name.partition(":")
    if verb == "create":
        goal = int(number)
        await bench.create(goal, asked.seconds)
        if asked.unmeasured:
            del bench.created[str(goal)]
            return []
        count, seconds = bench.created[str(goal)]
        left = goal - len(bench.releases)
        note = f"{CREATORS} at once" + (f"; {left} are still to be made" if left > 0 else "")
        return [Row(f"create releases, up to {goal}", count / seconds, "per s", note=note)]
    many = len(bench.releases)
    if verb == "sign":
        aims = (60.0, 400.0) if many >= LARGE else None
        alone, together = await bench.sign_offs(200, 1), await bench.sign_offs(300, SIGNERS)
        return [
            *_latency(bench, "sign-off", alone, aims),
            *_latency(bench, f"sign-off, {SIGNERS} people at once", together, aims),
        ]
    if verb == "reads":
        lists, verdicts = await bench.reads(200)
        shown = [("release list", lists), ("gate verdict", verdicts)]
        return [row for label, times in shown for row in _latency(bench, label, times, (None, 50.0))]
    if verb == "key":
        keys = await bench.to_the_key(5)
        value = statistics.median(keys) * 1000
        note = f"its cooling-off of 1 s taken off; slowest {max(keys) * 1000:.0f} ms"
        label = f"last sign-off to the partner's key, {many} open"
        return [Row(label, value, "ms", aim=2000, met=value <= 2000, runs=len(keys), note=note)]
    before = bench.memory()
    first, every = await bench.restart(many)
    return [
        *(Row(f"memory of {process}, {many} open", mib, "MiB") for process, mib in before.items()),
        Row(f"all workers restarted: processes are up, {many} open", bench.back, "s"),
        Row(f"all workers restarted: first release answers, {many} open", first, "s"),
        Row(
            f"all workers restarted: all {many} have answered",
            every,
            "s",
            note=f"one command each, {CREATORS} at once",
        ),
        *(Row(f"memory of {process} after that", mib, "MiB") for process, mib in bench.memory().items()),
    ]


def _latency(
    bench: Bench, label: str, times: Sequence[float], aims: tuple[float | None, float | None] | None
) -> list[Row]:
    rows = []
    for part, aim in zip((0.5, 0.99), aims or (None, None), strict=True):
        value = quantile(times, part)
        case = f"{label} p{int(part * 100)}, {len(bench.releases)} open"
        met = None if aim is None else value <= aim
        rows.append(Row(case, value, "ms", aim=aim, met=met, runs=len(times)))
    return rows


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--releases", type=int, default=LARGE, help="how many in the whole run")
    parser.add_argument(
        "--case", choices=["create", "sign", "reads", "key", "restart"], help="one piece alone"
    )
    parser.add_argument(
        "--upto", type=int, default=LARGE, help="with `--case create`: how many there are to be"
    )
    parser.add_argument("--seconds", type=float, default=3_600.0, help="stop creating after so long")
    parser.add_argument("--unmeasured", action="store_true", help="with `--case create`: no row of it")
    parser.add_argument("--keep", type=Path, help="folder that keeps the stack's data from piece to piece")
    parser.add_argument(
        "--port", type=int, default=18_300, help="port of the API; the next one is Temporal's"
    )
    asked = parser.parse_args()
    if asked.case is None:
        some = asked.releases // 5
        asked.cases = [
            f"create:{some}",
            "sign",
            "reads",
            f"create:{asked.releases}",
            "sign",
            "reads",
            "key",
            "restart",
        ]
    else:
        asked.cases = [f"create:{asked.upto}" if asked.case == "create" else asked.case]
    rows = asyncio.run(run(asked))
    report("releases", merged(rows) if asked.case else rows)


def merged(rows: Sequence[Row]) -> list[Row]:
    """The rows of earlier pieces, with these in their places."""
    path = FOLDER / "releases.json"
    known = [Row(**row) for row in json.loads(path.read_text())] if path.exists() else []
    new = {row.case: row for row in rows}
    kept = [new.pop(row.case, row) for row in known]
    return [*kept, *new.values()]


if __name__ == "__main__":
    main()
