"""`make bench-seal`: sealing, opening, verifying and reading one tensor, beside cp, openssl, age, pyrage, Tink and AWS.

One 4 GiB file and 2 000 small ones, on tmpfs and on the disk; put and get through two S3 servers. Peers run in the same
run, in turn with what they are compared with; medians. `--size-gib 1 --runs 1` for a quick look. `--places tmpfs --cases large`
runs one case alone (a few minutes): its rows replace that case's in the table, the others stay from their last run.

A virtual machine is given memory by its host when a page is first touched, which costs several times what writing it does;
so before each timed operation a short-lived child touches as much memory as the operation will need.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from infra.bench.report import FOLDER, Row, report
from infra.bench.seal_sides import processes, s3

GIB = 1024**3
TENSOR = "layer.7.weight"
PEERS_PYTHON = Path("build/bench-peers/bin/python")
COPY_AIM, AGE_AIM, FETCH_AIM, TENSOR_AIM = 0.8, 2.5, 1.01, 2.0
MEMORY_AIM_MIB = 512


PIECES = FOLDER / "seal"
_TOUCH = "import mmap, sys; n = int(sys.argv[1]); m = mmap.mmap(-1, n); [m.__setitem__(i, 1) for i in range(0, n, 4096)]"


class Bench:
    """One place (a folder) to measure in."""

    def __init__(self, place: str, folder: Path, size: int, files: int, runs: int) -> None:
        self.place, self.folder, self.size, self.files, self.runs = place, folder, size, files, runs
        self.rows: list[Row] = []
        self.big = folder / "model.safetensors"
        self.small = folder / "small"

    def make(self) -> None:
        """The inputs: a safetensors file of 64 MiB tensors, and a folder of small files."""
        tensor, count = 64 * 1024 * 1024, self.size // (64 * 1024 * 1024)
        entries = {
            f"layer.{i}.weight": {
                "dtype": "F32",
                "shape": [tensor // 4],
                "data_offsets": [i * tensor, (i + 1) * tensor],
            }
            for i in range(count)
        }
        header = json.dumps(entries).encode()
        block = os.urandom(tensor)
        with self.big.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for _ in range(count):
                file.write(block)
        for i in range(self.files):
            target = self.small / f"{i % 20:02d}" / f"{i:04d}.bin"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(block[i * 1000 : i * 1000 + 50_000])

    def op(self, name: str, **options: Any) -> dict[str, Any]:
        """One operation of `seal_ops` in a process of its own."""
        given = {"keys": str(self.folder / "keys.json"), "sealed": str(self.folder / "sealed.json")} | options
        given = {k: str(v) if isinstance(v, Path) else v for k, v in given.items()}
        done = subprocess.run(
            [sys.executable, "-m", "infra.bench.seal_ops", name, json.dumps(given)],
            check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def clean(self, *names: str) -> None:
        """Remove outputs, let the disk come to rest, and warm memory, so that no case pays for the one before."""
        for name in names:
            target = self.folder / name
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
        if self.place != "tmpfs":
            os.sync()
        subprocess.run([sys.executable, "-c", _TOUCH, str(self.size + 512 * 1024 * 1024)], check=True)

    def command(self, *command: str | Path) -> dict[str, Any]:
        """A peer that is a command: wall time, CPU time and peak memory of the child."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        subprocess.run(
            [str(part) for part in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if self.place != "tmpfs":
            # Sealing and opening sync what they write; so does the peer, or it would be timed into the cache alone.
            subprocess.run(["sync", "-f", str(self.folder)], check=True)
        seconds = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {
            "seconds": seconds,
            "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "peak_mib": 0.0,
        }

    def row(
        self, case: str, found: list[dict[str, Any]], amount: int, peer: str | None = None, peer_rate: float | None = None,
        aim: float | None = None, note: str = "",
    ) -> float:  # fmt: skip
        """Add a row of GB/s; gives the rate."""
        rate: float = amount / 1e9 / median(f["seconds"] for f in found)
        cpu = median(f["cpu"] for f in found)
        peak = max(f["peak_mib"] for f in found)
        told = [note] if note else []
        if cpu:
            told.append(f"{amount / 1e9 / cpu:.2f} GB per CPU s")
        if peak:
            told.append(f"peak {peak:.0f} MiB")
        ratio = None if peer_rate is None else rate / peer_rate
        met = None if aim is None or ratio is None else ratio >= aim
        self.rows.append(
            Row(
                f"{case}, {self.place}",
                rate,
                "GB/s",
                peer,
                peer_rate,
                ratio,
                aim,
                met,
                len(found),
                "; ".join(told),
            )
        )
        print(
            f"  {case}, {self.place}: {rate:.2f} GB/s" + (f" ({ratio:.2f} x {peer})" if ratio else ""),
            flush=True,
        )
        return rate

    def memory(self, case: str, found: list[dict[str, Any]]) -> None:
        """Add a row of peak memory, with its aim."""
        peak = max(f["peak_mib"] for f in found)
        self.rows.append(
            Row(
                f"{case}: peak memory, {self.place}",
                peak,
                "MiB",
                aim=MEMORY_AIM_MIB,
                met=peak < MEMORY_AIM_MIB,
                runs=len(found),
            )
        )

    def repeat(self, *cases: Callable[[], dict[str, Any]]) -> list[list[dict[str, Any]]]:
        """Run the cases in turn, `runs` times over, so that a busy moment of the machine hits all alike."""
        found: list[list[dict[str, Any]]] = [[] for _ in cases]
        for _ in range(self.runs):
            for results, case in zip(found, cases, strict=True):
                results.append(case())
        return found

    def sealing(self, what: str, source: Path, amount: int) -> tuple[float, float]:
        """Seal, open and verify `source`, beside `cp`. Gives the rates of sealing and opening."""
        store = f"dir:{self.folder / 'store'}"

        def copy() -> dict[str, Any]:
            self.clean("copy")
            return self.command("cp", "-r", source, self.folder / "copy")

        def seal(**options: Any) -> dict[str, Any]:
            self.clean("copy", "store", "opened")
            return self.op("seal", source=source, store=store, **options)

        def fetch() -> dict[str, Any]:
            self.clean("opened")
            return self.op("fetch", store=store, target=self.folder / "opened")

        light = lambda: seal(digests=["blake3"])  # noqa: E731
        one = lambda: seal(workers=1)  # noqa: E731
        verify = lambda: self.op("verify", store=store)  # noqa: E731
        copied, fast, single, sealed, opened, verified = self.repeat(copy, light, one, seal, fetch, verify)
        rate = self.row(f"cp, {what}", copied, amount)
        peer = ("cp", rate)
        sealing = self.row(f"seal, {what}", sealed, amount, *peer, COPY_AIM, "with the plaintext's SHA-256")
        self.row(
            f"seal, {what}, BLAKE3",
            fast,
            amount,
            *peer,
            COPY_AIM,
            "BLAKE3 of the plaintext in place of SHA-256",
        )
        self.row(f"seal, {what}, one thread", single, amount, *peer)
        opening = self.row(
            f"open, {what}",
            opened,
            amount,
            *peer,
            COPY_AIM,
            "every sealed part's SHA-256 and every tag verified",
        )
        self.row(f"verify, {what}", verified, amount, *peer, None, "no key")
        self.memory(f"seal, {what}", sealed + fast)
        self.memory(f"open, {what}", opened)
        return sealing, opening

    def peers(self) -> None:
        """Age in turn with sealing and opening, on the large file; then pyrage, Tink and AWS Encryption SDK."""
        store = f"dir:{self.folder / 'store'}"
        key, recipient = self.folder / "age.key", ""
        rates: dict[str, float] = {}
        if shutil.which("age"):
            key.unlink(missing_ok=True)
            made = subprocess.run(["age-keygen", "-o", str(key)], check=True, capture_output=True, text=True)
            recipient = re.findall(r"age1\w+", made.stderr + key.read_text())[0]

            def age_seal() -> dict[str, Any]:
                self.clean("peer", "store", "opened")
                return self.command("age", "-r", recipient, "-o", self.folder / "peer", self.big)

            def age_open() -> dict[str, Any]:
                self.clean("peer.out", "opened")
                return self.command(
                    "age", "-d", "-i", key, "-o", self.folder / "peer.out", self.folder / "peer"
                )

            version = subprocess.run(
                ["age", "--version"], check=True, capture_output=True, text=True
            ).stdout.strip()

            def seal() -> dict[str, Any]:
                self.clean("store", "opened", "peer.out")
                return self.op("seal", source=self.big, store=store)

            def fetch() -> dict[str, Any]:
                self.clean("opened", "peer", "peer.out")
                return self.op("fetch", store=store, target=self.folder / "opened")

            sealed, opened, ours_sealed, ours_opened = self.repeat(age_seal, age_open, seal, fetch)
            rates["seal"] = self.row("age, encrypt", sealed, self.size, note=f"age {version}")
            rates["open"] = self.row("age, decrypt", opened, self.size)
            self.clean("peer", "peer.out", "store", "opened")
            for name, found in (("seal", ours_sealed), ("open", ours_opened)):
                ours = self.size / 1e9 / median(f["seconds"] for f in found)
                ratio = ours / rates[name]
                self.rows.append(
                    Row(
                        f"{name} against age, {self.place}",
                        ours,
                        "GB/s",
                        "age",
                        rates[name],
                        ratio,
                        AGE_AIM,
                        ratio >= AGE_AIM,
                        self.runs,
                    )
                )
        for tool, python, part in (
            ("pyrage", PEERS_PYTHON, 1),
            ("tink", PEERS_PYTHON, 4),
            ("aws", PEERS_PYTHON, 8),
        ):
            self._python_peer(tool, python, part)

    def _python_peer(self, tool: str, python: Path, part: int) -> None:
        amount, source = self.size // part, self.big
        if part > 1:
            source = self.folder / "part"
            with self.big.open("rb") as whole, source.open("wb") as out:
                for _ in range(amount // (64 * 1024 * 1024)):
                    out.write(whole.read(64 * 1024 * 1024))
            amount = source.stat().st_size
        script, folder = Path(__file__).with_name("seal_peers.py"), self.folder

        def run(op: str, read: Path, write: Path) -> dict[str, Any]:
            return self.command(python, script, tool, op, read, write)

        sealed = [run("seal", source, folder / "peer")]
        opened = [run("open", folder / "peer", folder / "peer.out")]
        names = {"pyrage": "pyrage", "tink": "Tink", "aws": "AWS Encryption SDK"}
        note = "" if part == 1 else f"on {amount / GIB:.3g} GiB"
        self.row(f"{names[tool]}, encrypt", sealed, amount, note=note)
        self.row(f"{names[tool]}, decrypt", opened, amount, note=note)
        self.clean("peer", "peer.out", "part")

    def tensor(self) -> None:
        """One tensor of 64 MiB out of the large file."""
        found = self.op(
            "tensor", store=f"dir:{self.folder / 'store'}", source=self.big, tensor=TENSOR, runs=self.runs + 2
        )
        bytes_ratio, time_ratio = found["fetched"] / found["size"], found["seconds"] / found["plain"]
        runs = self.runs + 2
        self.rows.append(
            Row(f"one tensor: bytes fetched, {self.place}", found["fetched"], "bytes", "its size", found["size"], bytes_ratio,
                FETCH_AIM, bytes_ratio <= FETCH_AIM, runs)
        )  # fmt: skip
        self.rows.append(
            Row(f"one tensor: time, {self.place}", found["seconds"] * 1e3, "ms", "plain ranged read", found["plain"] * 1e3, time_ratio,
                TENSOR_AIM, time_ratio <= TENSOR_AIM, runs, "64 MiB of the large file, page cache warm")
        )  # fmt: skip

    def profile(self) -> None:
        """What each stage costs alone: why sealing is where it is."""
        self.clean("store")
        found = self.op("stages", source=self.big, target=self.folder / "stage")
        for name in ("read", "encrypt", "sha256", "blake3", "write"):
            self.rows.append(
                Row(
                    f"profile: {name}, {self.place}",
                    found[name],
                    "CPU s/GB",
                    note="one thread, alone; the least of three",
                )
            )
        whole = found["read"] + found["encrypt"] + found["sha256"] + found["write"]
        copied = found["read"] + found["write"]
        cores = os.cpu_count() or 1
        for what, sum_, made_of in (
            ("seal", whole + found["sha256"], "read, encrypt, SHA-256 of what is stored and of the plaintext, write"),
            ("seal, BLAKE3", whole + found["blake3"], "BLAKE3 of the plaintext in place of SHA-256"),
            ("seal, no digest of the plaintext", whole, "what no format with a SHA-256 for each part can fall below"),
            ("open", whole, "read, SHA-256, decrypt, write"),
        ):  # fmt: skip
            # A copy by one thread runs at 1 / (its CPU seconds per GB); all cores together at cores / (ours).
            self.rows.append(
                Row(f"bound: {what}, {self.place}", cores / sum_, "GB/s", "a copy's read and write", 1 / copied,
                    cores * copied / sum_, COPY_AIM, False if cores * copied / sum_ < COPY_AIM else None,
                    note=f"{sum_:.2f} CPU s/GB on {cores} cores that lose nothing: {made_of}")
            )  # fmt: skip


def openssl() -> Row:
    """The limit: AES-256-GCM in memory, one core."""
    done = subprocess.run(
        ["openssl", "speed", "-evp", "aes-256-gcm", "-bytes", "1048576", "-seconds", "2"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    rate = float(re.findall(r"([\d.]+)k\s*$", done.stdout, re.MULTILINE)[-1]) * 1000 / 1e9
    return Row(
        "openssl speed AES-256-GCM, 1 MiB, memory",
        rate,
        "GB per CPU s",
        note="one core; no file is read or written",
    )


def main() -> None:
    """Measure, print, and write `build/bench/seal.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-gib", type=float, default=4)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--s3-mib", type=int, default=512)
    parser.add_argument("--places", default="tmpfs,disk")
    parser.add_argument("--cases", default=",".join(CASES), help="some of: " + ", ".join(CASES))
    given = parser.parse_args()
    size = int(given.size_gib * GIB) // (64 * 1024 * 1024) * 64 * 1024 * 1024
    PIECES.mkdir(parents=True, exist_ok=True)
    _keep("all", "openssl", [openssl()])
    for place in given.places.split(","):
        for case in given.cases.split(","):
            if case == "s3" and place != "tmpfs":
                continue
            parent = Path("/dev/shm") if place == "tmpfs" else FOLDER.resolve()  # noqa: S108 - tmpfs is what is measured
            with tempfile.TemporaryDirectory(dir=parent, prefix="bench-seal-") as folder:
                bench = Bench(place, Path(folder), size, given.files, given.runs)
                CASES[case](bench, given.s3_mib * 1024 * 1024)
                _keep(place, case, bench.rows)
    rows = []
    for place, case in [("all", "openssl"), *((p, c) for p in ("tmpfs", "disk") for c in CASES)]:
        kept = PIECES / f"{place}-{case}.json"
        if kept.exists():
            rows += [Row(**row) for row in json.loads(kept.read_text())]
    report("seal", rows)


def _large(bench: Bench, _: int) -> None:
    bench.make()
    bench.sealing("one large file", bench.big, bench.size)


def _tensor(bench: Bench, _: int) -> None:
    bench.make()
    bench.clean()
    bench.op("seal", source=bench.big, store=f"dir:{bench.folder / 'store'}")
    bench.tensor()
    bench.profile()


def _processes(bench: Bench, _: int) -> None:
    bench.make()
    processes(bench)


def _peers(bench: Bench, _: int) -> None:
    bench.make()
    bench.peers()


def _small(bench: Bench, _: int) -> None:
    bench.size = 64 * 1024 * 1024
    bench.make()
    bench.sealing(f"{bench.files} small files", bench.small, bench.files * 50_000)


def _s3(bench: Bench, size: int) -> None:
    bench.size = size
    s3(bench, size)


CASES: dict[str, Callable[[Bench, int], None]] = {
    "large": _large, "tensor": _tensor, "processes": _processes, "peers": _peers, "small": _small, "s3": _s3,
}  # fmt: skip


def _keep(place: str, case: str, rows: list[Row]) -> None:
    (PIECES / f"{place}-{case}.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
