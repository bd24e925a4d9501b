"""Sealing on a transfer worker: one artifact however often it is started, and no way out of the ingest folder."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.testing import ActivityEnvironment

import activities.beating
from activities.sealing import SealingActivities, SealingParts, artifact_id
from artifacts.errors import StoreUnavailable
from artifacts.stores.base import Store, open_store
from artifacts.stores.directory import DirectoryStore
from artifacts.verifying import verify_artifact
from orchestrator.contracts.messages import IngestInput, IngestResult
from orchestrator.records import artifacts, database
from tests.artifacts.sealed_world import CUSTODY, SIGNER, noise
from tests.simulators.hub import HubSimulator

PART = 65_536
COMPONENTS = {"weights": ["*.bin"], "tokenizer": ["tokenizer"]}


class Bench:
    """An ingest folder, a store, and the activity over them."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self.engine, self.root = engine, folder / "ingest"
        (self.root / "model" / "tokenizer").mkdir(parents=True)
        (self.root / "model" / "weights.bin").write_bytes(noise(5 * PART + 11))
        (self.root / "model" / "tokenizer" / "vocab.txt").write_bytes(b"hello")
        self.store = f"dir:{folder / 'store'}"
        self.parts = SealingParts(
            engine=engine,
            open_store=open_store,
            stores=(self.store,),
            signer=SIGNER,
            custody_recipient=lambda: CUSTODY.recipient,
            state_dir=folder / "state",
            ingest_root=self.root,
        )

    def seal(self, environment: ActivityEnvironment | None = None, **changes: Any) -> IngestResult:
        given: dict[str, Any] = {
            "ingest": "ingest-1",
            "source": "model",
            "store": "default",
            "components": COMPONENTS,
            "uploader": "pipeline",
            "options": {"part_size": PART},
        }
        done: IngestResult = (environment or ActivityEnvironment()).run(
            SealingActivities(self.parts).seal_tree, IngestInput.model_validate(given | changes)
        )
        return done

    def refused(self, **changes: Any) -> ApplicationError:
        with pytest.raises(ApplicationError) as refusal:
            self.seal(**changes)
        assert refusal.value.non_retryable
        return refusal.value


@pytest.fixture
def bench(tmp_path: Path, engine: Engine) -> Bench:
    return Bench(tmp_path, engine)


def test_a_folder_is_sealed_and_registered(bench: Bench) -> None:
    done = bench.seal()
    assert (done.files, done.size, done.reused) == (2, 5 * PART + 16, False)
    assert verify_artifact(open_store(bench.store), done.artifact, trusted=[SIGNER.verify_key]).ok
    with database.reading(bench.engine) as session:
        known = artifacts.get(session, done.artifact)
    assert (known.components, known.uploader, known.location) == (
        ["tokenizer", "weights"],
        "pipeline",
        bench.store,
    )
    assert known.wrapped_root is not None


def test_started_twice_it_is_one_artifact_with_one_result(bench: Bench) -> None:
    first, second = bench.seal(), bench.seal()
    assert second.reused
    assert second == first.model_copy(update={"reused": True})
    assert first.artifact == artifact_id("ingest-1")
    with database.reading(bench.engine) as session:
        assert len(artifacts.list_artifacts(session).items) == 1


def test_the_same_ingest_with_other_components_is_refused(bench: Bench) -> None:
    bench.seal()
    refusal = bench.refused(components={"everything": ["*"]})
    assert "other components" in refusal.message


def test_killed_after_sealing_and_before_registering_the_artifact_is_recognised(bench: Bench) -> None:
    first = bench.seal()
    with database.writing(bench.engine) as session:
        session.connection().exec_driver_sql("DELETE FROM artifact")
    second = bench.seal()
    assert second.reused
    assert second.manifest_digest == first.manifest_digest


class Counting(DirectoryStore):
    """Counts the parts that are put, and fails once after some."""

    puts = 0
    fail_after: int | None = None
    on_put: Callable[[], None] = staticmethod(lambda: None)

    def begin(self, key: str, part_count: int, part_size: int) -> Any:
        upload = super().begin(key, part_count, part_size)
        writing_part = upload.writing_part

        def counted(index: int) -> Any:
            if Counting.fail_after is not None and Counting.puts >= Counting.fail_after:
                Counting.fail_after = None
                raise StoreUnavailable("the disk is gone for a moment")
            Counting.puts += 1
            Counting.on_put()
            return writing_part(index)

        upload.writing_part = counted  # type: ignore[method-assign]
        return upload


@pytest.fixture
def counting(bench: Bench) -> Bench:
    Counting.puts, Counting.fail_after, Counting.on_put = 0, None, staticmethod(lambda: None)
    folder = bench.store.removeprefix("dir:")
    bench.parts = dataclasses.replace(bench.parts, open_store=lambda _uri: Counting(folder), workers=1)
    (bench.root / "model" / "weights.bin").write_bytes(noise(200 * PART + 11))
    return bench


def test_a_store_that_fails_in_the_middle_is_retried_and_no_stored_part_is_sealed_again(
    counting: Bench,
) -> None:
    Counting.fail_after = 60
    with pytest.raises(ApplicationError) as failed:
        counting.seal()
    assert not failed.value.non_retryable
    done = counting.seal()
    assert Counting.puts == 201
    assert verify_artifact(open_store(counting.store), done.artifact, trusted=[SIGNER.verify_key]).ok


def test_a_cancelled_ingest_stops_between_parts_and_publishes_nothing(
    counting: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activities.beating, "EVERY_S", 0.001)
    environment = ActivityEnvironment()
    beats: list[object] = []
    environment.on_heartbeat = lambda *details: beats.append(details)

    def slow() -> None:
        if Counting.puts == 5:
            environment.cancel()
        if 5 <= Counting.puts <= 8:
            import time

            time.sleep(0.05)

    Counting.on_put = staticmethod(slow)
    with pytest.raises(CancelledError):
        counting.seal(environment)
    assert Counting.puts < 201
    assert beats
    assert not [info for info in open_store(counting.store).list() if info.key.endswith("manifest.dsse.json")]
    Counting.on_put = staticmethod(lambda: None)
    counting.seal()
    assert Counting.puts == 201, "what was stored before the cancellation is used"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("../secrets", "below the ingest folder"),
        ("model/../../secrets", "below the ingest folder"),
        ("/etc", "below the ingest folder"),
        (".", "below the ingest folder"),
        ("nowhere", "No such file"),
    ],
)
def test_a_path_that_leaves_its_folder_or_is_not_there_is_refused(
    bench: Bench, source: str, why: str
) -> None:
    (bench.root.parent / "secrets").mkdir()
    (bench.root.parent / "secrets" / "weights.bin").write_bytes(b"secret")
    assert why in bench.refused(source=source).message


def test_a_symbolic_link_on_the_way_is_refused(bench: Bench) -> None:
    (bench.root.parent / "secrets").mkdir()
    (bench.root.parent / "secrets" / "weights.bin").write_bytes(b"secret")
    (bench.root / "elsewhere").symlink_to(bench.root.parent / "secrets")
    assert "symbolic link" in bench.refused(source="elsewhere").message
    assert "symbolic link" in bench.refused(source="elsewhere/weights.bin").message


def test_a_symbolic_link_in_the_folder_is_refused(bench: Bench) -> None:
    (bench.root / "model" / "more.bin").symlink_to("/etc/passwd")
    refusal = bench.refused()
    assert "symbolic link" in refusal.message
    assert refusal.type == "source"


def test_a_file_that_changes_while_it_is_read_is_an_error_and_nothing_is_registered(counting: Bench) -> None:
    weights = counting.root / "model" / "weights.bin"

    def change() -> None:
        if Counting.puts == 20:
            with weights.open("r+b") as file:
                file.seek(150 * PART)
                file.write(b"changed")
            os.utime(weights, (1, 1))

    Counting.on_put = staticmethod(change)
    refusal = counting.refused()
    assert refusal.type == "source-changed"
    with database.reading(counting.engine) as session:
        assert not artifacts.list_artifacts(session).items


def test_another_store_than_the_configured_one_is_refused(bench: Bench, tmp_path: Path) -> None:
    refusal = bench.refused(store=f"dir:{tmp_path / 'mine'}")
    assert "does not seal into" in refusal.message


def test_an_unknown_option_is_refused(bench: Bench) -> None:
    assert "unknown options" in bench.refused(options={"custody": "me"}).message
    assert "multiple of 16 KiB" in bench.refused(options={"part_size": 1000}).message


def test_without_an_ingest_folder_no_path_is_read(bench: Bench) -> None:
    bench.parts = dataclasses.replace(bench.parts, ingest_root=None)
    assert "reads no paths" in bench.refused().message


@pytest.mark.stack
def test_plaintext_of_a_hub_repository_is_sealed_at_one_commit_and_never_lies_on_a_disk(
    bench: Bench, tmp_path: Path
) -> None:
    with HubSimulator() as hub:
        token = hub.add_user("lab", orgs=["acme"]).token
        hub.repo("acme/plain", private=True)
        weights = noise(3 * PART + 5, seed=9)
        hub.upload("acme/plain", {"weights.bin": weights, "tokenizer/vocab.txt": b"hello", "README.md": b"#"})

        def opener(uri: str) -> Store:
            if not uri.startswith("hf:"):
                return open_store(uri)
            return open_store(uri, endpoint=hub.endpoint, token=token, spool=tmp_path / "spool")

        bench.parts = dataclasses.replace(bench.parts, open_store=opener)
        done = bench.seal(source="hf:acme/plain", components={**COMPONENTS, "card": ["README.md"]})
    assert (done.files, done.size) == (3, len(weights) + 6)
    assert verify_artifact(open_store(bench.store), done.artifact, trusted=[SIGNER.verify_key]).ok
    sample = weights[70_000:70_064]
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and sample in p.read_bytes()]
