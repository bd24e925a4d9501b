"""The honest service of `make bench-custody`, without servers: it decides and writes, and time is a number."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from activities.custody.base import Asked
from activities.custody.keys import CustodyKeys, load_or_make
from activities.custody.memory import CustodyMemory
from activities.custody.opening import Custody
from artifacts.custody.base import KeyProvider
from artifacts.keys import partner_keygen
from artifacts.sealing import SealedArtifact, seal_tree
from artifacts.signing import SigningKey
from artifacts.stores.directory import DirectoryStore
from orchestrator.domain import commands as cmd
from orchestrator.domain.decide import decide, decide_create
from orchestrator.domain.evidence import Consideration, Rating
from orchestrator.domain.evolve import begin, evolve
from orchestrator.domain.permissions import Role, permissions_of
from orchestrator.domain.plan import Plan
from orchestrator.domain.state import ReleaseState, gate_subject
from orchestrator.domain.values import digest
from orchestrator.records import artifacts as artifact_records
from orchestrator.records.database import connect, writing
from orchestrator.records.migrate import migrate
from orchestrator.records.releases import Append, append
from orchestrator.trust.decisions import sign_off_statement
from orchestrator.trust.keys import PrivateKey
from orchestrator.trust.signing import sign

ORIGIN = "bench.example/log"
MOST_PARTNERS = 100
_START = datetime(2026, 1, 5, 9, tzinfo=UTC)
_PIPELINE = cmd.Actor(id="ci", kind="machine", permissions=permissions_of([Role.MLOPS]))
_MANAGER = cmd.Actor(id="mia", permissions=permissions_of([Role.RELEASE_MANAGER, Role.APPROVER]))
_KEYS = {"sam": PrivateKey.generate(), "lea": PrivateKey.generate()}


@cache
def _recipients() -> list[str]:
    return [partner_keygen().recipient for _ in range(MOST_PARTNERS)]


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


class Service:
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

    def complete(self, release: str, partners: int) -> ReleaseState:
        """A release up to the moment that its quorum is complete: the last sign-off is written, its root taken in before."""
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
        self.custody.take_in(release)
        for person, role in (("sam", "safety"), ("lea", "legal")):
            state = self._sign(state, person, role)
        self.custody.watch.catch_up()  # it looks every few seconds; the cooling-off counts from what it saw
        self.now += timedelta(seconds=5)  # the cooling-off, by a clock that is a number here
        return state

    def enter(self, state: ReleaseState) -> Asked:
        """The gate is judged and its entry begun; what custody is then asked."""
        state = self._say(state, cmd.BeginEntry(**self._head(cmd.SERVICE), step="download"))
        return Asked(state.release, "download", state.attempt, state.updated_at, {})

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
