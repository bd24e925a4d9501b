"""A release on real records, with signed decisions, a sealed artifact, and a custody with a memory and a key of its own.

`World` is the honest service: it decides with the domain, writes through the records' one writer, and asks custody when a
step is entered. Tests then do with its database what somebody with write access could do.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from activities.binding import key_shares
from activities.copies.making import CopyingCustody
from activities.copies.sealing import CopyPlaces
from activities.custody.base import Asked
from activities.custody.keys import CustodyKeys, load_or_make
from activities.custody.memory import CustodyMemory
from artifacts.custody.base import KeyProvider
from artifacts.custody.local import Argon2Cost, LocalKeyring
from artifacts.custody.shares import Dealing
from artifacts.envelope import EnvelopePayload, open_envelope
from artifacts.keys import KeyPair, partner_keygen
from artifacts.sealing import SealedArtifact, seal_tree
from artifacts.signing import SigningKey
from artifacts.stores.directory import DirectoryStore
from orchestrator.domain import commands as cmd
from orchestrator.domain.decide import decide, decide_create
from orchestrator.domain.decide_access import planned_grants
from orchestrator.domain.decide_caution import signed_payload
from orchestrator.domain.events import AnyEvent
from orchestrator.domain.evolve import begin, evolve
from orchestrator.domain.permissions import Role
from orchestrator.domain.plan import Plan, Step, recipient_digest
from orchestrator.domain.state import GateSubject, ReleaseState, gate_subject
from orchestrator.domain.values import digest, statement_digest
from orchestrator.records import artifacts as artifact_records
from orchestrator.records import audit, envelopes, partners, releases
from orchestrator.records.database import reading, writing
from orchestrator.records.releases import Append
from orchestrator.trust.decisions import endorsement_statement, sign_off_statement
from orchestrator.trust.keys import PrivateKey
from orchestrator.trust.receipts import envelope_proof_verifier
from orchestrator.trust.signing import sign
from tests.support.plans import MANAGER, PIPELINE, RATINGS, T0, actor, five_stages

RELEASE = "alpha"
PEOPLE = ("mia", "sam", "sue", "lea", "dan", "rex")
KEYS = {name: PrivateKey.generate() for name in PEOPLE}
UNI, NGO, PLATFORM, MALLORY = (partner_keygen() for _ in range(4))
SEALER = SigningKey.generate()
CHEAP = Argon2Cost(iterations=1, lanes=1, memory_kib=64)
SIGNERS = {"safety": "sam", "legal": "lea", "reviewer": "rex"}
MOMENT = timedelta(seconds=1)


class Clock:
    """A clock that a test moves."""

    def __init__(self, now: datetime = T0) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def signed_plan(**changes: Any) -> Plan:
    """The five-stage plan with people's keys, and recipients as texts."""
    raw = five_stages(partner_keys="pinned")
    for name, person in raw["people"].items():
        person["keys"] = [KEYS[name].public.text()]
    raw["partners"]["uni"]["recipient"] = UNI.recipient
    raw["deployments"]["platform"]["recipient"] = PLATFORM.recipient
    return Plan.model_validate({**raw, **changes})


def sealed(
    folder: Path,
    custody: str,
    release: str | None = None,
    weights: bytes | None = None,
    shares: Dealing | None = None,
) -> tuple[SealedArtifact, DirectoryStore]:
    """A small artifact with weights (safetensors, when they are given) and a tokenizer."""
    source = folder / "model"
    source.mkdir(parents=True)
    name = "weights.bin" if weights is None else "model.safetensors"
    (source / name).write_bytes(weights or bytes(range(256)) * 300)
    (source / "tokenizer.json").write_text('{"words": ["a", "b"]}')
    store = DirectoryStore(folder / "store")
    artifact = seal_tree(
        source,
        store,
        custody_recipient=custody,
        signer=SEALER,
        components={"weights": name, "tokenizer": "tokenizer.json"},
        release=release,
        part_size=16384,
        shares=shares,
    )
    return artifact, store


@dataclass
class World:
    """An honest service beside a custody."""

    engine: Engine
    folder: Path
    memory_url: str = ""
    provider: KeyProvider | None = None
    plan: Plan = field(default_factory=signed_plan)
    clock: Clock = field(default_factory=Clock)
    custody_clock: Clock | None = None
    release_in_manifest: str | None = None
    weights: bytes | None = None
    dealing: Dealing | None = None
    said: int = 0
    memories: list[CustodyMemory] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.memory_url = self.memory_url or f"sqlite:///{self.folder}/memory.db"
        self.provider = self.provider or LocalKeyring.create(
            self.folder / "keyring", b"a passphrase", cost=CHEAP
        )
        self.keys: CustodyKeys = load_or_make(self.folder / "keys.json", self.provider, "sluice.example/log")
        self.memory = CustodyMemory(self.memory_url)
        self.custody = self.new_custody()
        self.artifact, self.store = sealed(
            self.folder, self.keys.public.recipient, self.release_in_manifest, self.weights, self.dealing
        )
        self.states: dict[str, ReleaseState] = {}

    def new_custody(self, provider: KeyProvider | None = None, **options: Any) -> CopyingCustody:
        provider = provider or self.provider
        assert provider is not None
        memory = CustodyMemory(self.memory_url)
        self.memories.append(memory)
        places = CopyPlaces(
            open_store=lambda uri: DirectoryStore(Path(uri.removeprefix("dir:"))),
            stores=(f"dir:{self.folder / 'store'}",),
            state_dir=self.folder / "copies",
            part_size=16384,
        )
        return CopyingCustody(
            self.engine,
            memory,
            provider,
            self.keys,
            self.custody_clock or self.clock,
            **{"places": places, **options},
        )

    def goes_on_as(self, walked: World) -> None:
        """Take the place of another world, which is at rest: its databases (SQLite) copied, its keys and its sealed artifact shared."""
        self.close()
        self.engine.dispose()
        for name in ("records.db", "memory.db"):
            for suffix in ("-wal", "-shm"):
                (self.folder / (name + suffix)).unlink(missing_ok=True)
            shutil.copyfile(walked.folder / name, self.folder / name)
        self.provider, self.keys, self.plan = walked.provider, walked.keys, walked.plan
        self.artifact, self.store = walked.artifact, walked.store
        self.states, self.said, self.clock.now = dict(walked.states), walked.said, walked.clock.now
        self.memory = CustodyMemory(self.memory_url)
        self.custody = self.new_custody()

    def close(self) -> None:
        for memory in (self.memory, *self.memories):
            memory.close()

    @property
    def state(self) -> ReleaseState:
        return self.states[RELEASE]

    # --- the honest service ------------------------------------------------------------------------------------------

    def create(self, release: str = RELEASE, plan: Plan | None = None, who: cmd.Actor = MANAGER) -> None:
        command = cmd.CreateRelease(
            command_id=f"create-{release}",
            actor=who,
            release=release,
            name=f"Model {release}",
            version="1",
            plan=plan or self.plan,
        )
        events = decide_create(command, self.clock())
        self.append(release, 1, events, command)
        first = events[0]
        assert first.type == "release_created"
        self.states[release] = begin(first)

    def register(
        self,
        release: str = RELEASE,
        artifact: SealedArtifact | None = None,
        components: Sequence[str] = ("weights", "tokenizer"),
    ) -> None:
        self.say(self.registration(artifact, components), release=release)

    def registration(
        self, artifact: SealedArtifact | None = None, components: Sequence[str] = ("weights", "tokenizer")
    ) -> cmd.RegisterArtifact:
        """The command that binds an artifact, whose manifest is in the records after this."""
        given = artifact or self.artifact
        with writing(self.engine) as session:
            artifact_records.register(
                session,
                artifact_records.Artifact(
                    id=given.artifact_id,
                    manifest_digest="sha256:" + given.manifest_digest,
                    location=self.store.uri,
                    components=sorted(components),
                    size=1,
                    wrapped_root=given.wrapped_root,
                    uploader="ci",
                    created_at=self.clock(),
                ),
                given.manifest,
            )
        return cmd.RegisterArtifact(
            **self.head(PIPELINE),
            artifact=given.artifact_id,
            manifest_digest="sha256:" + given.manifest_digest,
            components=list(components),
            location=self.store.uri,
            root=given.wrapped_root,
            shares=key_shares(given.manifest, given.manifest_digest),
        )

    def head(self, who: cmd.Actor) -> dict[str, Any]:
        self.said += 1
        return {"command_id": f"c-{self.said}", "actor": who}

    def append(self, release: str, first_seq: int, events: Sequence[AnyEvent], command: cmd.Command) -> None:
        asked = Append(
            release=release,
            first_seq=first_seq,
            events=events,
            command_id=command.command_id,
            command_type=command.type,  # type: ignore[attr-defined]
            command_digest=digest(command),
            actor=command.actor.id,
        )
        with writing(self.engine) as session:
            assert not releases.append(session, asked, self.clock()).adopted

    def say(
        self, command: Any, after: timedelta = MOMENT, *, release: str = RELEASE, watched: bool = True
    ) -> list[AnyEvent]:
        """Decide, write, evolve; custody sees it at once."""
        self.clock.now += after
        state = self.states[release]
        events = decide(state, command, self.clock())
        if events:
            self.write(events, command, release=release)
        if watched:
            self.custody.watch.catch_up()
        return events

    def write(self, events: Sequence[AnyEvent], command: Any, *, release: str = RELEASE) -> None:
        state = self.states[release]
        self.append(release, state.seq + 1, events, command)
        for event in events:
            state = evolve(state, event)
        self.states[release] = state

    def step(self, name: str, release: str = RELEASE) -> Step:
        step = self.states[release].plan.step(name)
        assert step is not None
        return step

    def subject(self, name: str, release: str = RELEASE) -> GateSubject:
        return gate_subject(self.states[release], self.step(name, release))

    def statement(
        self, person: str, subject: GateSubject, role: str, decision: Any = "approve", **more: Any
    ) -> str:
        statement = sign_off_statement(
            subject,
            person=person,
            role=role,
            decision=decision,
            issued_at=self.clock(),
            validity=timedelta(days=90),
            **more,
        )
        return sign(statement.to_bytes(), KEYS[person]).decode()

    def sign(
        self,
        person: str,
        step: str,
        role: str,
        decision: Any = "approve",
        *,
        release: str = RELEASE,
        envelope: str | None = None,
        watched: bool = True,
        shares: dict[str, str] | None = None,
    ) -> list[AnyEvent]:
        subject = self.subject(step, release)
        command = cmd.SignOff(
            **self.head(actor(person, Role.APPROVER, Role.RELEASE_MANAGER)),
            step=step,
            role=role,
            decision=decision,
            subject=subject.digest,
            expires_at=self.clock() + timedelta(days=89),
            envelope=envelope or self.statement(person, subject, role, decision),
            shares=shares or {},
        )
        return self.say(command, release=release, watched=watched)

    def withdraw(self, person: str, step: str) -> list[AnyEvent]:
        standing = self.state.sign_offs[person]
        envelope = self.statement(
            person, self.subject(step), standing.role, "withdraw", withdraws=standing.statement
        )
        return self.say(cmd.WithdrawSignOff(**self.head(actor(person)), step=step, envelope=envelope))

    def dear(self, kind: type, people: Sequence[str], **fields: Any) -> list[AnyEvent]:
        """A decision that a quorum carries, signed by each."""
        made: list[AnyEvent] = []
        for person in people:
            command = kind(**self.head(actor(person, Role.APPROVER, Role.RELEASE_MANAGER)), **fields)
            action, payload = signed_payload(self.state, command)
            statement = endorsement_statement(
                release=RELEASE,
                action=action,
                payload_digest=digest(payload),
                plan_digest=self.state.plan_digest,
                person=person,
                role=self.state.plan.people[person].roles[0],
                issued_at=self.clock(),
            )
            envelope = sign(statement.to_bytes(), KEYS[person]).decode()
            made = self.say(command.model_copy(update={"envelope": envelope}))
        return made

    def prepare(self, name: str, release: str = RELEASE) -> None:
        """Evidence and controls of a step."""
        step = self.step(name, release)
        manager = actor("mia", Role.RELEASE_MANAGER, Role.APPROVER)
        for need in step.gate.evidence:
            rated = {"ratings": RATINGS} if need.kind == "risk_assessment" else {}
            document = {
                "kind": need.kind,
                "digest": digest([name, need.kind]),
                "title": "a document",
                "step": name,
                **rated,
            }
            self.say(cmd.SubmitEvidence.model_validate({**self.head(PIPELINE), **document}), release=release)
        for control in step.controls:
            self.say(
                cmd.ReportControl(**self.head(manager), step=name, control=control.kind), release=release
            )

    def wait(self, name: str, release: str = RELEASE) -> None:
        """Let the research window before a step pass."""
        self.clock.now += self.states[release].window_asked(self.step(name, release)) + MOMENT

    def approve(self, name: str, release: str = RELEASE) -> None:
        """Everybody whom the gate asks for signs, and the cooling-off passes."""
        for need in self.step(name, release).gate.sign_offs:
            for _ in range(need.count):
                self.sign(SIGNERS[need.role], name, need.role, release=release)
        self.clock.now += (self.step(name, release).gate.cooling_off or timedelta(0)) + MOMENT

    def begin(self, name: str, release: str = RELEASE) -> Asked:
        """The entry begins; what custody is then asked."""
        self.say(cmd.BeginEntry(**self.head(cmd.SERVICE), step=name), release=release)
        return self.asked(name, release)

    def asked(self, name: str, release: str = RELEASE, **partners_ready: str) -> Asked:
        state = self.states[release]
        return Asked(release, name, state.attempt, state.updated_at, dict(partners_ready))

    def complete(
        self, name: str, made: dict[str, dict[str, str]], release: str = RELEASE, **more: Any
    ) -> None:
        complete = cmd.CompleteEntry(**self.head(cmd.SERVICE), step=name, envelopes=made, **more)
        self.say(complete, release=release)

    def enter(self, name: str, release: str = RELEASE) -> dict[str, dict[str, str]]:
        """Everything honest, up to the entered step; the envelopes that custody made."""
        self.wait(name, release)
        self.prepare(name, release)
        self.approve(name, release)
        asked = self.begin(name, release)
        state = self.states[release]
        keyed = [
            g for g in planned_grants(state, self.step(name, release), {}, self.clock()) if g.kind != "access"
        ]
        copies = self.custody.make_copies(asked) if keyed else {}
        made = self.custody.make_envelopes(asked) if keyed else {}
        self.complete(name, made, release, copies=copies)
        return made

    def to(self, last: str, release: str = RELEASE) -> None:
        """Create, register, and enter every step up to and with `last`."""
        if release not in self.states:
            self.create(release)
            self.register(release)
        for step in self.states[release].plan.steps:
            if self.states[release].plan.index(step.name) > self.states[release].index:
                self.enter(step.name, release)
            if step.name == last:
                return

    def at_gate(self, name: str) -> None:
        """Everything but people's decisions: evidence, controls and the window before `name`."""
        place = self.plan.index(name)
        self.to(self.plan.steps[place - 1].name)
        self.wait(name)
        self.prepare(name)

    # --- the other side ----------------------------------------------------------------------------------------------

    def envelope(self, reference: str) -> bytes:
        with reading(self.engine) as session:
            return envelopes.data(session, reference)

    def opened(self, reference: str, holder: KeyPair) -> EnvelopePayload:
        """As the holder's own client opens it: with custody's pinned keys and the log proof."""
        return open_envelope(
            self.envelope(reference),
            holder.identity,
            now=self.clock(),
            verify_keys=[self.keys.public.verify_key],
            proof_verifier=envelope_proof_verifier(self.keys.public.log_verifier, recipient=holder.recipient),
        )

    def envelopes_kept(self) -> int:
        with self.engine.connect() as connection:
            return int(connection.execute(text("SELECT count(*) FROM envelope")).scalar_one())

    def custody_leaves(self) -> list[dict[str, Any]]:
        with reading(self.engine) as session:
            return [json.loads(leaf.body) for leaf in audit.leaves(session, kind="custody")]

    def add_partner_key(self, partner: str, recipient: str) -> None:
        with writing(self.engine) as session:
            partners.create(session, partner, partner, at=self.clock(), by="mia")
            partners.add_key(session, partner, recipient, at=self.clock(), by="mia")


__all__ = [
    "KEYS",
    "MALLORY",
    "NGO",
    "PLATFORM",
    "RELEASE",
    "UNI",
    "Clock",
    "World",
    "recipient_digest",
    "sealed",
    "signed_plan",
    "statement_digest",
]
