"""`make bench-load`: the topology of a deployment on this machine, thousands of open releases, and fifty people and pipelines at once.

PostgreSQL, OpenBao, an S3 server, Temporal and every process of ours, none of them in dev mode (`infra.topology`). First the
releases are made, then for ten minutes approvers look at what waits for them, read a gate and sign; managers list, read and
report; pipelines register checkpoints, start releases and hand in evidence; auditors follow the log. Each rests for a while
between two things (`--rest`, exponentially distributed), as people do; `--rest 0` asks what the machine can do at most.

Reported: round trips and answers by what was done, memory and CPU time of each process, growth of the tables. Prints the table,
writes `build/bench/load.json` and, with everything that was sampled, `build/bench/load-samples.json`. `--keep FOLDER` keeps the
releases for a second run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil  # type: ignore[import-untyped]
import psycopg

from artifacts.errors import ArtifactError
from artifacts.keys import partner_keygen
from infra.bench.releases import JSON, Bench, plan, quantile
from infra.bench.report import FOLDER, Row, report
from infra.preparing.postgres import RECORDS
from infra.stack import Stack
from infra.topology import topology

APPROVERS, MANAGERS, PIPELINES, AUDITORS = 25, 10, 10, 5
PROCESSES = (
    "api",
    "worker-releases",
    "worker-transfer",
    "worker-custody",
    "worker-leaks",
    "worker-notices",
    "temporal",
    "postgres",
    "openbao",
    "s3",
)
_EVERY_S = 15.0
_CONFLICTS = frozenset({409, 412})


@dataclass
class Seen:
    """What came of one kind of request: round trips in seconds, answers that say a gate had changed, and errors."""

    times: list[float] = field(default_factory=list)
    conflicts: int = 0
    errors: list[str] = field(default_factory=list)


class Load(Bench):
    """Fifty who work at once."""

    def __init__(self, stack: Stack, folder: Path, rest: float) -> None:
        super().__init__(stack, folder)
        self.rest = rest
        self.seen: dict[str, Seen] = defaultdict(Seen)
        self.samples: list[JSON] = []
        self.over = 0.0
        self.again = 0
        self._dice = random.Random(11)  # noqa: S311 - who does what, not a secret

    # --- what there is

    async def people(self) -> None:
        """Everybody with a token of their own."""
        token_file = self.stack.settings.effective_operator_token_file
        assert token_file is not None
        self.tokens["operator"] = token_file.read_text().strip()
        self.recipient = partner_keygen().recipient
        groups = (
            ("approver", APPROVERS),
            ("release_manager", MANAGERS),
            ("mlops", PIPELINES),
            ("auditor", AUDITORS),
        )
        for role, count in groups:
            for number in range(count):
                await self._principal(f"{role.replace('_', '-')}-{number}", role)
        for name, role in (("rosa", "release_manager"), ("ci", "mlops"), ("ada", "approver")):
            await self._principal(name, role)
        await self.call("rosa", "POST", "/partners", json={"id": "uni", "name": "Uni"})

    async def _principal(self, name: str, role: str) -> None:
        body = {"id": name, "name": name, "kind": "machine" if role == "mlops" else "person", "roles": [role]}
        await self.call("operator", "POST", "/principals", json=body)
        made = await self.call("operator", "POST", f"/principals/{name}/tokens", json={"label": "bench"})
        self.tokens[name] = made.json()["text"]

    def plan(self, number: int) -> JSON:
        """Two people for safety and two for legal, others in each release."""
        made = plan(self.recipient)
        half = APPROVERS // 2
        numbers = [2 * ((number * 5) % half), 2 * ((number * 5 + 3) % half)]
        chosen = [*numbers, *(number + 1 for number in numbers)]
        made["people"] = {_name(n): {"name": _name(n), "roles": [_role(n)]} for n in chosen}
        made["steps"][1]["gate"]["sign_offs"] = [
            {"role": "safety", "count": 2},
            {"role": "legal", "count": 2},
        ]
        return made

    async def call(self, who: str, method: str, path: str, **more: Any) -> httpx.Response:
        """As a client does: one that got no answer is sent again under the same key."""
        headers = {"Authorization": f"Bearer {self.tokens[who]}", **more.pop("headers", {})}
        if method == "POST":
            headers["Idempotency-Key"] = uuid4().hex
        while True:
            answer = await self.http.request(method, path, headers=headers, **more)
            if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
                self.again += 1
                await asyncio.sleep(0.5)
                continue
            if answer.is_error:
                raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
            return answer

    # --- who does what

    async def work(self, seconds: float) -> None:
        """Everybody at once, for so long."""
        self.over = time.monotonic() + seconds
        doing: list[tuple[str, int, Callable[[str], Awaitable[None]]]] = [
            ("approver", APPROVERS, self._approver),
            ("release-manager", MANAGERS, self._manager),
            ("mlops", PIPELINES, self._pipeline),
            ("auditor", AUDITORS, self._auditor),
        ]
        following = [asyncio.create_task(self._follow(f"auditor-{n}")) for n in range(2)]
        sampling = asyncio.create_task(self._sampling())
        await asyncio.gather(
            *(self._days_work(f"{kind}-{n}", job) for kind, count, job in doing for n in range(count))
        )
        for task in (*following, sampling):
            task.cancel()
        await asyncio.gather(*following, sampling, return_exceptions=True)
        self.sample()

    async def _days_work(self, who: str, job: Callable[[str], Awaitable[None]]) -> None:
        await self._pause()
        while time.monotonic() < self.over:
            await job(who)
            await self._pause()

    async def _pause(self) -> None:
        if self.rest:
            await asyncio.sleep(
                min(self._dice.expovariate(1 / self.rest), max(self.over - time.monotonic(), 0))
            )

    async def _ask(self, what: str, who: str, method: str, path: str, **more: Any) -> httpx.Response | None:
        """One request, noted under a name; None when it did not succeed."""
        headers = {"Authorization": f"Bearer {self.tokens[who]}", **more.pop("headers", {})}
        if method == "POST":
            headers["Idempotency-Key"] = uuid4().hex
        seen = self.seen[what]
        started = time.perf_counter()
        try:
            answer = await self.http.request(method, path, headers=headers, **more)
        except httpx.HTTPError as error:
            seen.errors.append(f"{type(error).__name__}: {error}")
            return None
        if answer.status_code in _CONFLICTS:
            seen.conflicts += 1
        elif answer.is_error:
            seen.errors.append(f"{answer.status_code} {answer.text[:300]}")
        else:
            seen.times.append(time.perf_counter() - started)
            return answer
        return None

    async def _approver(self, who: str) -> None:
        waiting = await self._ask("what waits for me", who, "GET", "/me/pending?limit=50")
        found = [] if waiting is None else [p for p in waiting.json()["items"] if p["what"] == "sign_off"]
        if not found:
            return
        one = self._dice.choice(found)
        place = f"/releases/{one['release']}/steps/download"
        gate = await self._ask("gate with its verdict", who, "GET", f"{place}/gate")
        await self._pause()
        if gate is None:
            return
        body = {
            "role": _role(int(who.rpartition("-")[2])),
            "decision": "approve",
            "subject": gate.json()["verdict"]["subject_digest"],
        }
        match = {"If-Match": gate.headers["ETag"]}
        await self._ask("sign-off", who, "POST", f"{place}/sign-offs", json=body, headers=match)

    async def _manager(self, who: str) -> None:
        release = self._dice.choice(self.releases)
        match self._dice.randrange(6):
            case 0 | 1:
                await self._ask("list of releases", who, "GET", "/releases?limit=50&order=updated")
            case 2:
                await self._ask("one release", who, "GET", f"/releases/{release}")
            case 3:
                await self._ask(
                    "gate with its verdict", who, "GET", f"/releases/{release}/steps/download/gate"
                )
            case 4:
                await self._ask("events of a release", who, "GET", f"/releases/{release}/events")
            case _:
                body = {"working": bool(self._dice.randrange(2)), "reason": "as it goes"}
                await self._ask("report on access", who, "POST", f"/releases/{release}/access", json=body)

    async def _pipeline(self, who: str) -> None:
        if self._dice.randrange(5):
            release = self._dice.choice(self.releases)
            card = {
                "kind": "model_card",
                "digest": f"sha256:{uuid4().hex}{uuid4().hex}",
                "title": "Card",
                "step": "download",
            }
            await self._ask("evidence", who, "POST", f"/releases/{release}/evidence", json=card)
            return
        name = f"load-{uuid4().hex[:10]}"
        source = self.folder / "weights"
        try:
            sealed = await asyncio.to_thread(self._seal, source, name)
        except ArtifactError as error:
            self.seen["seal a checkpoint"].errors.append(str(error))
            return
        made = await self._ask("register a checkpoint", who, "POST", "/artifacts", json=sealed)
        body = {"id": name, "name": name, "version": "1", "plan": self.plan(self._dice.randrange(1_000))}
        if made is not None and await self._ask("start a release", who, "POST", "/releases", json=body):
            bound = {"artifact": made.json()["id"]}
            await self._ask("bind a checkpoint", who, "POST", f"/releases/{name}/artifacts", json=bound)
            self.releases.append(name)

    async def _auditor(self, who: str) -> None:
        head = await self._ask("checkpoint of the log", who, "GET", "/audit/checkpoint")
        if head is None:
            return
        size = head.json()["size"]
        index = self._dice.randrange(max(size, 1))
        await self._ask("page of the log", who, "GET", f"/audit/entries?start={index}")
        await self._ask("inclusion proof", who, "GET", f"/audit/proofs/inclusion?index={index}&size={size}")

    async def _follow(self, who: str) -> None:
        """A stream of all events, counted."""
        headers = {"Authorization": f"Bearer {self.tokens[who]}"}
        seen = self.seen["events followed live"]
        began = time.perf_counter()
        try:
            async with self.http.stream("GET", "/events/stream", headers=headers) as stream:
                if stream.is_error:
                    seen.errors.append(str(stream.status_code))
                    return
                async for line in stream.aiter_lines():
                    if line.startswith("data:"):
                        seen.times.append(time.perf_counter() - began)
        except httpx.HTTPError as error:
            seen.errors.append(f"{type(error).__name__}: {error}")

    # --- what it costs

    async def _sampling(self) -> None:
        while True:
            self.sample()
            await asyncio.sleep(_EVERY_S)

    def sample(self) -> None:
        """Memory (proportional set, MiB) and CPU seconds of each process, with its children."""
        at: JSON = {"at": time.monotonic(), "memory": {}, "cpu": {}}
        for name in PROCESSES:
            pid = self.stack.pid(name)
            if pid is None:
                continue
            memory = spent = 0.0
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                for one in [process, *process.children(recursive=True)]:
                    with suppress(psutil.NoSuchProcess):
                        memory += one.memory_full_info().pss / 2**20
                        times = one.cpu_times()
                        spent += times.user + times.system
            at["memory"][name], at["cpu"][name] = memory, spent
        self.samples.append(at)

    def tables(self) -> dict[str, tuple[int, int]]:
        """Each table's rows and bytes, with its indexes; and the files of Temporal and of the store."""
        password = (self.folder / "topology" / "secrets" / "postgres-admin.password").read_text().strip()
        found: dict[str, tuple[int, int]] = {}
        with psycopg.connect(
            host="127.0.0.1",
            port=self.stack.site.ports["postgres"],
            user="postgres",
            password=password,
            dbname=RECORDS,
        ) as session:
            names = session.execute(
                "SELECT relname, pg_total_relation_size(relid) FROM pg_stat_user_tables"
            ).fetchall()
            for name, size in names:
                row = session.execute(f'SELECT count(*) FROM "{name}"').fetchone()  # noqa: S608 - a table's own name
                assert row is not None
                found[str(name)] = (int(row[0]), int(size))
        data = self.stack.settings.data_dir
        engine = sum(path.stat().st_size for path in data.glob("temporal.db*"))
        return found | {"(Temporal's SQLite file)": (0, engine)}


def _name(number: int) -> str:
    return f"approver-{number}"


def _role(number: int) -> str:
    """An approver has one role in all releases."""
    return "legal" if number % 2 else "safety"


async def run(asked: argparse.Namespace) -> list[Row]:
    """Make the releases, let everybody work, and say what was seen."""
    folder: Path = asked.folder
    os.environ["AWS_SHARED_CREDENTIALS_FILE"] = str(folder / "topology/secrets/s3.credentials")
    os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
    try:
        async with topology(folder / "topology") as stack:
            load = Load(stack, folder, asked.rest)
            if not load.recall():
                await load.people()
            try:
                await load.create(asked.releases, asked.creating)
                if asked.seconds == 0:
                    return []
                before, began = load.tables(), time.monotonic()
                await load.work(asked.seconds)
                return rows_of(load, before, load.tables(), time.monotonic() - began)
            finally:
                load.keep()
                await load.http.aclose()
    finally:
        os.environ.pop("AWS_SHARED_CREDENTIALS_FILE")


def rows_of(
    load: Load, before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]], seconds: float
) -> list[Row]:
    """The table."""
    rows = []
    asked = sum(len(seen.times) for seen in load.seen.values())
    errors = [error for seen in load.seen.values() for error in seen.errors]
    note = f"{len(load.releases)} open releases, rest {load.rest} s, {seconds:.0f} s"
    rows.append(Row("requests answered", asked / seconds, "per s", runs=asked, note=note))
    rows.append(
        Row(
            "errors", len(errors), "", aim=0, met=not errors, note=" ".join((errors or [""])[0].split())[:200]
        )
    )
    conflicts = sum(seen.conflicts for seen in load.seen.values())
    rows.append(Row("gates that had changed meanwhile (409, 412)", conflicts, ""))
    for what, seen in sorted(load.seen.items()):
        if what == "events followed live":
            rows.append(Row(what, len(seen.times) / seconds, "per s", runs=len(seen.times), note="2 streams"))
        elif seen.times:
            for part in (0.5, 0.95, 0.99):
                told = f"{what} p{part * 100:.0f}"
                rows += [Row(told, quantile(seen.times, part), "ms", runs=len(seen.times))]
    first, last = load.samples[0], load.samples[-1]
    middle = load.samples[len(load.samples) // 2]
    for name, mib in last["memory"].items():
        grown = mib - first["memory"][name]
        told = f"at the beginning {first['memory'][name]:.0f}, in the middle {middle['memory'][name]:.0f}"
        rows.append(Row(f"memory of {name}", mib, "MiB", note=f"{told}; {grown:+.0f}"))
    for name, spent in last["cpu"].items():
        share = (spent - first["cpu"][name]) / (last["at"] - first["at"])
        rows.append(Row(f"CPU of {name}", share * 100, "% of a core"))
    for name, (count, size) in sorted(after.items(), key=lambda item: -item[1][1]):
        old = before.get(name, (0, 0))
        if size - old[1] >= 1 << 14:
            each = f"{size / count:.0f} bytes a row with indexes, " if count else ""
            told = f"{each}+{count - old[0]} rows, +{(size - old[1]) / 2**20:.1f} MiB"
            rows.append(Row(f"table {name}", size / 2**20, "MiB", runs=max(count, 1), note=told))
    FOLDER.mkdir(parents=True, exist_ok=True)
    raw = {
        "samples": load.samples,
        "errors": errors[:1_000],
        "tables": {name: [*before.get(name, (0, 0)), *after[name]] for name in after},
    }
    (FOLDER / "load-samples.json").write_text(json.dumps(raw, indent=1) + "\n")
    return rows


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--releases", type=int, default=5_000, help="how many are open")
    parser.add_argument(
        "--seconds", type=float, default=600.0, help="how long everybody works; 0: only make releases"
    )
    parser.add_argument("--creating", type=float, default=3_600.0, help="stop making releases after so long")
    parser.add_argument(
        "--rest", type=float, default=2.0, help="mean seconds between two things that one does"
    )
    parser.add_argument("--keep", type=Path, help="folder that keeps everything for another run")
    asked = parser.parse_args()
    asked.folder = asked.keep or Path(tempfile.mkdtemp(prefix="sluice-load-"))
    weights = asked.folder / "weights"
    weights.mkdir(parents=True, exist_ok=True)
    asked.folder.chmod(0o711)  # PostgreSQL runs as a user of its own
    (weights / "model.safetensors").write_bytes(bytes(1 << 20))
    try:
        rows = asyncio.run(run(asked))
    finally:
        if asked.keep is None:
            shutil.rmtree(asked.folder, ignore_errors=True)
    if rows:
        report("load", rows)


if __name__ == "__main__":
    main()
