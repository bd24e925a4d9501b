"""The outside follows the state: what a step publishes, what goes away with a rollback, a revocation, an abort."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from temporalio.exceptions import ApplicationError

from activities.plaintext import PlaintextPublishing
from activities.publishing import PublishingActivities, publication_key, read_publication
from artifacts.envelope import EnvelopePayload, file_keys, make_public_record
from artifacts.errors import StoreUnavailable
from artifacts.stores.directory import DirectoryStore
from artifacts.stores.opening import elliptic_key_signer, verify_plaintext
from infra.provision import new_pem
from orchestrator.contracts.messages import AccessRequest, StepRequest
from orchestrator.domain import commands as cmd
from orchestrator.domain.decide import apply
from orchestrator.domain.events import EntryBegan, GrantEnded
from orchestrator.domain.permissions import Role
from orchestrator.domain.state import gate_subject
from orchestrator.records import artifacts, audit, database, envelopes
from orchestrator.records.artifacts import Artifact
from tests.activities.conftest import Recorded
from tests.artifacts.sealed_world import NOW, SIGNER, World, tree, write_tree
from tests.domain.walker import Walker
from tests.support.plans import actor, five_stage_plan

MANAGER = actor("mia", Role.RELEASE_MANAGER)


class Outside:
    """A store, and the activities over it and the records."""

    def __init__(self, folder: Path, engine: Engine, recorded: Recorded) -> None:
        self.engine, self.recorded = engine, recorded
        self.folder = folder / "outside"
        self.activities = PublishingActivities(engine, lambda: DirectoryStore(self.folder))

    @property
    def keys(self) -> list[str]:
        return [info.key for info in DirectoryStore(self.folder).list()]

    def read(self, key: str) -> bytes:
        store = DirectoryStore(self.folder)
        info = store.stat(key)
        assert info is not None
        return store.get_range(key, 0, info.size)

    def apply(self) -> list[str]:
        state = self.recorded.write().walker.state
        return self.activities.apply_access(AccessRequest(release=state.release, seq=state.seq)).changes

    def publish(self, step: str) -> list[str]:
        state = self.recorded.walker.state
        request = StepRequest(release=state.release, step=step, attempt=state.attempt, seq=state.seq)
        return self.activities.publish_step(request).references

    def begin(self, step: str) -> None:
        """Begin to enter a step, whatever its gate says."""
        walker = self.recorded.walker
        found = walker.plan.step(step)
        assert found is not None
        event = EntryBegan(
            at=walker.now,
            by="sluice",
            command_id=f"begin-{step}-{walker.state.seq}",
            step=step,
            attempt=walker.state.attempt,
            subject=gate_subject(walker.state, found).digest,
        )
        walker.events.append(event)
        walker.state = apply(walker.state, [event])
        self.recorded.write()

    def seal(self, reference: str, grant: str, holder: str, data: bytes = b"an envelope") -> None:
        with database.writing(self.engine) as session:
            envelopes.put(
                session, reference, data, release=self.recorded.release, grant=grant, holder=holder, at=NOW
            )

    def kept(self) -> set[str]:
        with database.reading(self.engine) as session:
            found = envelopes.of_release(session, self.recorded.release)
        return {envelope.reference for envelope in found if envelope.dropped_at is None}

    def logged(self) -> list[str]:
        with database.reading(self.engine) as session:
            return [json.loads(leaf.body)["action"] for leaf in audit.leaves(session, kind="access")]


@pytest.fixture
def outside(tmp_path: Path, engine: Engine, recorded: Recorded) -> Outside:
    return Outside(tmp_path, engine, recorded)


def walked(outside: Outside, until: str) -> Walker:
    """Walk there, publishing every step on the way, as the workflow does."""
    walker = outside.recorded.walker
    if not walker.state.artifacts:
        walker.register_everything()
    complete = Walker.complete

    def publishing(name: str) -> None:
        outside.recorded.write()
        outside.publish(name)
        complete(walker, name)

    walker.complete = publishing  # type: ignore[method-assign]
    walker.walk(until)
    outside.recorded.write()
    return walker


def test_a_publication_says_what_is_released_to_whom_under_which_controls(outside: Outside) -> None:
    walker = walked(outside, "demo")
    key = publication_key(walker.state.release, "demo", 2)
    found = read_publication(outside.read(key))
    assert (found["step"], found["stage"], found["audience"]) == ("demo", "hosted", "partners: research")
    assert found["plan"] == walker.state.plan_digest
    assert {a["id"]: a["manifest"] for a in found["artifacts"]} == {
        name: artifact.manifest_digest for name, artifact in walker.state.artifacts.items()
    }
    assert [control["kind"] for control in found["controls"]] == [
        "rate_limit",
        "user_accounts",
        "input_monitoring",
    ]
    assert outside.read(key) == json.dumps(found, separators=(",", ":"), sort_keys=True).encode()


def test_publishing_twice_is_publishing_once(outside: Outside) -> None:
    walked(outside, "demo")
    outside.begin("query")
    assert outside.publish("query") == outside.publish("query")
    assert len(outside.keys) == 3


def test_a_step_that_is_not_being_entered_is_not_published(outside: Outside) -> None:
    walked(outside, "demo")
    with pytest.raises(ApplicationError) as refused:
        outside.publish("query")
    assert (refused.value.type, refused.value.non_retryable) == ("conflict", True)


def test_a_store_that_is_away_is_tried_again(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    walked(outside, "demo")

    def away(self: DirectoryStore, prefix: str = "") -> Any:
        raise StoreUnavailable("the store does not answer")

    monkeypatch.setattr(DirectoryStore, "list", away)
    with pytest.raises(ApplicationError) as failed:
        outside.apply()
    assert not failed.value.non_retryable


def test_what_nobody_changed_is_left_alone(outside: Outside) -> None:
    walked(outside, "query")
    before = outside.keys
    assert outside.apply() == []
    assert outside.keys == before
    assert outside.logged() == []


def test_a_rollback_takes_later_publications_and_keys_back_and_leaves_a_trace(outside: Outside) -> None:
    walker = walked(outside, "query")
    for grant in walker.state.grants.values():
        if grant.kind == "key":
            outside.seal(f"env-{grant.id}", grant.id, grant.holder)
    assert outside.apply() == []
    walker.do(cmd.RollBack, MANAGER, to="demo", reason="it leaks training data")
    changes = outside.apply()
    assert [key.split("/")[-1] for key in outside.keys] == ["demo.2.json", "inside.1.json"]
    live = {f"env-{grant.id}" for grant in walker.state.grants.values() if grant.live and grant.kind == "key"}
    assert outside.kept() == live
    assert live
    assert len(changes) == len(outside.logged())
    assert set(outside.logged()) == {"remove_publication", "drop_envelope"}
    assert outside.apply() == []


def test_an_entry_that_was_taken_back_leaves_nothing_of_itself(outside: Outside) -> None:
    walker = walked(outside, "demo")
    outside.begin("query")
    outside.publish("query")
    grant = f"query.{walker.state.attempt}.platform"
    outside.seal("env-entering", grant, "platform")
    assert outside.apply() == [], "an entry in progress keeps what it has made"
    walker.do(cmd.TakeBackEntry, cmd.SERVICE, step="query", reason="custody gave no key")
    assert len(outside.apply()) == 2
    assert outside.kept() == set()
    assert not [key for key in outside.keys if "query" in key]
    outside.begin("query")
    outside.publish("query")


def test_a_revoked_grant_loses_its_envelope_and_the_other_partner_keeps_its_own(outside: Outside) -> None:
    walker = walked(outside, "download")
    for holder in ("uni", "ngo"):
        outside.seal(f"env-{holder}", f"download.4.{holder}", holder)
    walker.do(cmd.Revoke, MANAGER, partner="ngo", reason="terms were broken")
    assert isinstance(walker.events[-1], GrantEnded)
    outside.apply()
    assert outside.kept() == {"env-uni"}


def test_an_abort_takes_back_everything_that_can_be(outside: Outside) -> None:
    walker = walked(outside, "query")
    grant = next(grant.id for grant in walker.state.grants.values() if grant.kind == "key" and grant.live)
    outside.seal("env", grant, "platform")
    walker.do(cmd.Abort, MANAGER, reason="the lab closes")
    outside.apply()
    assert outside.keys == []
    assert outside.kept() == set()


# --- open --------------------------------------------------------------------------------------------------------


class Opened(Outside):
    """A release at `open`, with one really sealed artifact and the public record that custody made for it."""

    def __init__(self, folder: Path, engine: Engine, plaintext: bool) -> None:
        plan = five_stage_plan()
        steps = [
            step.model_copy(update={"publish_plaintext": plaintext}) if step.name == "open" else step
            for step in plan.steps
        ]
        walker = Walker(plan.model_copy(update={"steps": steps}))
        super().__init__(folder, engine, Recorded(engine, walker).write())
        self.world = World(folder)
        write_tree(self.world.source)
        self.sealed = self.world.seal(components={"weights": "*.bin", "tokenizer": "*"})
        known = Artifact(
            id=self.sealed.artifact_id,
            manifest_digest=f"sha256:{self.sealed.manifest_digest}",
            wrapped_root=self.sealed.wrapped_root,
            location=self.world.store.uri,
            components=["weights", "tokenizer"],
            size=1,
            uploader="pipeline",
            created_at=NOW,
        )
        with database.writing(engine) as session:
            artifacts.register(session, known, self.sealed.manifest)
        key = folder / "model.pem"
        if plaintext:
            key.write_bytes(new_pem())
            self.activities = PublishingActivities(
                engine,
                lambda: DirectoryStore(self.folder),
                plaintext=PlaintextPublishing(
                    engine,
                    lambda uri: DirectoryStore(uri.removeprefix("dir:")),
                    custody_keys=lambda: [SIGNER.verify_key],
                    signer=elliptic_key_signer(key),
                    scratch=folder / "scratch",
                ),
            )
        self.key = key
        walker.register_everything()
        complete = walker.complete

        def completing(name: str) -> None:
            if name != "open":
                return complete(name)
            grant = f"open.{walker.state.attempt}.public"
            self.recorded.write()
            self.seal("env-public", grant, "public", self.record(grant))
            walker.do(
                cmd.CompleteEntry,
                cmd.SERVICE,
                step=name,
                envelopes={grant: {self.sealed.artifact_id: "env-public"}},
            )
            return None

        walker.complete = completing  # type: ignore[method-assign]
        walker.walk()

    def record(self, grant: str) -> bytes:
        payload = EnvelopePayload(
            artifact_id=self.sealed.artifact_id,
            manifest_digest=self.sealed.manifest_digest,
            release=self.recorded.release,
            step="open",
            grant=grant,
            keys=file_keys(self.world.root(self.sealed), self.world.manifest(self.sealed), None),
            issued_at=NOW,
            not_after=None,
        )
        return make_public_record(payload, SIGNER)


def test_at_open_the_public_record_lies_beside_the_sealed_files_as_custody_made_it(
    tmp_path: Path, engine: Engine
) -> None:
    outside = Opened(tmp_path, engine, plaintext=False)
    changes = outside.apply()
    key = f"public/walk-1/open.5/{outside.sealed.artifact_id}.json"
    with database.reading(engine) as session:
        assert outside.read(key) == envelopes.data(session, "env-public")
    assert changes == [f"published the keys in {key}"]
    assert outside.logged() == ["publish_keys"]
    assert outside.apply() == []


def test_where_the_plan_says_so_the_plaintext_is_published_with_a_signature_the_public_can_check(
    tmp_path: Path, engine: Engine
) -> None:
    outside = Opened(tmp_path, engine, plaintext=True)
    outside.apply()
    prefix = "public/walk-1/files/"
    files = {key.removeprefix(prefix): outside.read(key) for key in outside.keys if key.startswith(prefix)}
    signature = files.pop("model.sig")
    assert files == tree(outside.world.source)
    downloaded = tmp_path / "downloaded"
    for name, data in (files | {"model.sig": signature}).items():
        (downloaded / name).parent.mkdir(parents=True, exist_ok=True)
        (downloaded / name).write_bytes(data)
    public = tmp_path / "model.pub"
    public.write_bytes(_public_pem(outside.key.read_bytes()))
    verify_plaintext(downloaded, public)
    assert outside.apply() == []
    assert not list((tmp_path / "scratch").iterdir())


def test_a_step_that_publishes_plaintext_is_not_entered_without_a_key_to_sign_it(
    tmp_path: Path, engine: Engine
) -> None:
    outside = Opened(tmp_path, engine, plaintext=True)
    bare = PublishingActivities(engine, lambda: DirectoryStore(outside.folder))
    with pytest.raises(ApplicationError, match="no key to sign"):
        _enter_open(bare, engine, outside.recorded.walker.plan)


def _enter_open(bare: PublishingActivities, engine: Engine, plan: Any) -> None:
    """The activity for a release that is about to enter `open`."""
    renamed = plan.model_copy(update={"title": "Another one"})
    walker = Walker(renamed, release="walk-2")
    complete = walker.complete

    def stop(name: str) -> None:
        if name == "open":
            Recorded(engine, walker).write()
            state = walker.state
            bare.publish_step(
                StepRequest(release="walk-2", step="open", attempt=state.attempt, seq=state.seq)
            )
        complete(name)

    walker.complete = stop  # type: ignore[method-assign]
    walker.walk()


def _public_pem(private: bytes) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    key = load_pem_private_key(private, None)
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_the_clock_of_the_walk_is_never_used_outside(outside: Outside) -> None:
    """Leaves carry the activity's own time, which a test can give."""
    moment = NOW + timedelta(days=1)
    outside.activities = PublishingActivities(
        outside.engine, lambda: DirectoryStore(outside.folder), clock=lambda: moment
    )
    walker = walked(outside, "query")
    walker.do(cmd.RollBack, MANAGER, to="demo", reason="back")
    outside.apply()
    with database.reading(outside.engine) as session:
        assert {leaf.at for leaf in audit.leaves(session, kind="access")} == {moment}
