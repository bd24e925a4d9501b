"""Links over real S3 servers: what ends in the middle is renewed, and what is refused for good is an error that tells no link."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pytest

from artifacts.errors import AccessDenied, ObjectMissing
from artifacts.links import LinkedSource
from artifacts.manifest import file_object_key
from artifacts.sealing import SealedArtifact
from artifacts.stores import Store, open_store
from tests.artifacts.sealed_world import World, noise, tree
from tests.artifacts.stores.servers import S3Server

PART = 5 * 1024 * 1024  # what S3 takes as a part at least


class Linked:
    """An artifact in a bucket, and who hands out links to it."""

    def __init__(self, server: S3Server, folder: Path, bucket: str, seconds: int) -> None:
        control = getattr(server, "control", None)
        if control is not None:
            control.calm()  # the server is shared: faults that another test asked for and did not meet are over
        server.client().create_bucket(Bucket=bucket)
        folder.mkdir()
        self.world = World(folder)
        (self.world.source / "many.bin").write_bytes(noise(2 * PART + 77))
        (self.world.source / "config.json").write_bytes(b"{}")
        self.store: Store = open_store(f"s3://{bucket}/sealed", **server.options)
        self.sealed: SealedArtifact = self.world.seal(
            store=self.store, part_size=PART, components={"weights": "*.bin", "rest": "*"}
        )
        self.seconds, self.asked, self.links = seconds, list[list[str]](), list[str]()

    def ask(self, paths: Sequence[str]) -> tuple[Mapping[str, str], float]:
        self.asked.append(list(paths))
        made = {
            p: self.store.presign(file_object_key(self.sealed.artifact_id, p), self.seconds) or ""
            for p in paths
        }
        self.links += made.values()
        # told to be good for longer than they are: clocks differ, and the store has the last word
        return made, 3600.0

    def source(self) -> LinkedSource:
        return LinkedSource(self.ask, [file.path for file in self.sealed.files])

    def fetch(self, to: Path, **more: Any) -> Any:
        with self.source() as source:
            return self.world.fetch(self.sealed, to, source=source, workers=1, **more)


def test_a_link_that_ends_in_the_middle_is_renewed(juicefs: S3Server, tmp_path: Path) -> None:
    linked = Linked(juicefs, tmp_path / "w", "renewed", seconds=1)
    linked.fetch(tmp_path / "copy", progress=lambda _moved: time.sleep(1.3))
    assert tree(tmp_path / "copy") == tree(linked.world.source)
    assert len(linked.asked) >= 3  # once at first, and again after each end


def test_links_are_asked_for_together_and_once_while_they_are_good(strict: Any, tmp_path: Path) -> None:
    linked = Linked(strict, tmp_path / "w", "together", seconds=600)
    linked.fetch(tmp_path / "copy")
    assert linked.asked == [["config.json", "many.bin"]]


def test_a_store_that_refuses_every_link_is_an_error_and_no_link_is_told(strict: Any, tmp_path: Path) -> None:
    linked = Linked(strict, tmp_path / "w", "refused", seconds=600)
    strict.control.fail("403", method="GET", times=100)
    try:
        with pytest.raises(AccessDenied) as failed:
            linked.fetch(tmp_path / "copy", components=["rest"])
    finally:
        strict.control.calm()
    assert len(linked.asked) == 2  # one newer link was tried, not one after another for ever
    assert "http" not in str(failed.value)
    assert "Signature" not in str(failed.value)


@pytest.mark.parametrize("fault", ["cut", "short", "500"])
def test_connections_that_fail_are_gone_on_with_through_links(
    strict: Any, tmp_path: Path, fault: str
) -> None:
    linked = Linked(strict, tmp_path / "w", f"cut-{fault}", seconds=600)
    strict.control.fail(fault, method="GET", contains="many.bin", times=2)
    linked.fetch(tmp_path / "copy")
    assert tree(tmp_path / "copy") == tree(linked.world.source)


def test_a_grant_that_ends_in_the_middle_ends_the_download_and_a_later_one_goes_on(
    strict: Any, tmp_path: Path
) -> None:
    linked = Linked(strict, tmp_path / "w", "ended", seconds=600)
    ask = linked.ask

    class Ended(Exception):
        pass

    def refuse(paths: Sequence[str]) -> Any:
        raise Ended

    def stop_after_one_part(moved: Any) -> None:
        if moved.bytes_done >= PART:
            linked.ask = refuse  # type: ignore[method-assign]
            source._links.clear()

    with (
        pytest.raises(Ended),
        LinkedSource(lambda paths: linked.ask(paths), ["config.json", "many.bin"]) as source,
    ):
        linked.world.fetch(
            linked.sealed, tmp_path / "copy", source=source, workers=1, progress=stop_after_one_part
        )
    assert not (tmp_path / "copy" / "many.bin").exists()
    linked.ask = ask  # type: ignore[method-assign]
    report = linked.fetch(tmp_path / "copy")
    assert report.bytes_reused >= PART
    assert tree(tmp_path / "copy") == tree(linked.world.source)


def test_what_no_link_was_given_for_is_an_error() -> None:
    with LinkedSource(lambda _paths: ({}, 60.0), ["a"]) as source:
        with pytest.raises(ObjectMissing, match="no link was given"):
            source.blob("a").read(0, 1)
        with pytest.raises(ObjectMissing, match="not in the manifest"):
            source.blob("b")


@pytest.mark.parametrize("server", ["moto", "juicefs"])
def test_fsspec_reads_a_sealed_artifact_where_it_lies_on_s3(
    server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    linked = Linked(request.getfixturevalue(server), tmp_path / "w", f"fsspec-{server}", seconds=600)
    fs = fsspec.filesystem(
        "sealed",
        source=linked.store,
        manifest=linked.sealed.manifest,
        envelope=linked.world.payload(linked.sealed),
    )
    many = tree(linked.world.source)["many.bin"]
    assert set(fs.find("")) == {file.path for file in linked.sealed.files}
    with fs.open("sealed://many.bin") as file:
        file.seek(PART - 10)  # over the edge of two parts
        assert file.read(20) == many[PART - 10 : PART + 10]
    assert fs.cat_file("many.bin", -7) == many[-7:]
    fs.close()
