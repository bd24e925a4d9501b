"""A new root for an old artifact, and the bounds of sealing: memory, threads, salts."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from artifacts.errors import ArtifactError, IntegrityError, ObjectExists, StoreUnavailable
from artifacts.manifest import file_object_key, open_inner
from artifacts.progress import Progress
from artifacts.resealing import reseal_artifact
from artifacts.sealing import _Run, seal_tree
from tests.artifacts.sealed_world import PART, World, tree


def reseal(world: World, sealed: Any, **changes: Any) -> Any:
    given = {"custody_recipient": world.custody.recipient, "signer": world.signer, "part_size": PART}
    payload = changes.pop("payload", None) or world.payload(sealed)
    return reseal_artifact(world.store, sealed.manifest, payload, world.store, **(given | changes))


def test_a_disclosed_key_opens_nothing_of_the_new_artifact(world: World, tmp_path: Path) -> None:
    old = world.seal()
    new = reseal(world, old)
    world.fetch(new, tmp_path / "copy")
    assert tree(tmp_path / "copy") == tree(world.source)
    assert [(f.path, f.component) for f in new.files] == [(f.path, f.component) for f in old.files]
    leaked = world.payload(new, keys=dict(world.payload(old).keys))
    with pytest.raises(IntegrityError, match="does not open"):
        world.fetch(new, tmp_path / "leak", payload=leaked)


def test_one_component_alone_is_sealed_again(world: World, tmp_path: Path) -> None:
    new = reseal(world, world.seal(), components=["tokenizer"])
    assert {f.path for f in new.files} == {"tokenizer/vocab.txt"}


def test_a_resealing_that_was_cut_goes_on(world: World, tmp_path: Path) -> None:
    old = world.seal()

    def cut(progress: Progress) -> None:
        if progress.bytes_done > 4 * PART:
            raise StoreUnavailable("gone for a moment")

    with pytest.raises(StoreUnavailable):
        reseal(world, old, state_dir=tmp_path / "state", progress=cut)
    new = reseal(world, old, state_dir=tmp_path / "state")
    assert new.bytes_reused > 0
    world.fetch(new, tmp_path / "copy")
    assert tree(tmp_path / "copy") == tree(world.source)


def test_a_changed_old_file_is_not_sealed_again(world: World) -> None:
    old = world.seal()
    target = world.folder / "store" / file_object_key(old.artifact_id, "many.bin")
    changed = bytearray(target.read_bytes())
    changed[-3] ^= 1
    target.write_bytes(changed)
    with pytest.raises(ArtifactError):
        reseal(world, old)
    assert len(list((world.folder / "store").rglob("manifest*"))) == 1


def test_a_retried_part_goes_out_under_a_fresh_salt(world: World) -> None:
    """Each put of the same part is cut; no two of them begin with the same salt."""
    salts: list[bytes] = []

    class Watching:
        def __getattr__(self, name: str) -> Any:
            return getattr(world.store, name)

        def put(self, key: str, data: bytes) -> Any:
            if key.endswith("/one.bin"):
                salts.append(bytes(data[:24]))
                raise StoreUnavailable("cut")
            return world.store.put(key, data)

    for _ in range(4):
        with pytest.raises(StoreUnavailable):
            world.seal(store=Watching())
    assert len(set(salts)) == len(salts) == 4


@pytest.mark.parametrize("gone", ["ticket", "source as it was"])
def test_parts_under_a_lost_root_are_never_gone_on_with(world: World, tmp_path: Path, gone: str) -> None:
    """The caller chose the id, so it is the same; the root of the first run is lost with its ticket."""
    world.source = world.source / "many.bin"

    def cut(progress: Progress) -> None:
        if progress.bytes_done > 3 * PART:
            raise StoreUnavailable("gone for a moment")

    given = {"components": {"w": "*"}, "artifact_id": "chosen-artifact"}
    with pytest.raises(StoreUnavailable):
        world.seal(progress=cut, **given)
    if gone == "ticket":
        shutil.rmtree(world.state)
    else:
        world.source.touch()
    sealed = world.seal(**given)
    assert sealed.bytes_reused == 0
    world.fetch(sealed, tmp_path / "copy")
    assert (tmp_path / "copy" / "many.bin").read_bytes() == world.source.read_bytes()


def test_a_finished_file_under_a_lost_root_is_left_alone_and_named(world: World) -> None:
    with pytest.raises(StoreUnavailable):
        world.seal(artifact_id="chosen-artifact", progress=_cut_after_the_first_file)
    shutil.rmtree(world.state)
    before = tree(world.folder / "store")
    with pytest.raises(ObjectExists, match="another artifact id"):
        world.seal(artifact_id="chosen-artifact")
    assert before.items() <= tree(world.folder / "store").items()


def _cut_after_the_first_file(progress: Progress) -> None:
    if progress.files_done >= 1:
        raise StoreUnavailable("gone for a moment")


def test_larger_parts_mean_fewer_threads() -> None:
    class File:
        def __init__(self, size: int) -> None:
            self.size = size

    run = object.__new__(_Run)
    run.part_size, run.workers = 64 * 2**20, 8
    for size, threads in [(1, 8), (10 * 2**20, 8), (2**30, 2), (700 * 10**9, 1), (9 * 10**12, 1)]:
        run.files = [File(size)]  # type: ignore[list-item]
        assert run._threads() == threads


def test_a_part_size_that_the_format_does_not_know_is_refused_at_once(world: World) -> None:
    for size in (0, 1, 16383, 16385):
        with pytest.raises(ArtifactError, match="multiple"):
            world.seal(part_size=size)
    assert not list((world.folder / "store").rglob("*.bin"))


_BIG = """
import contextlib, sys
from pathlib import Path
from artifacts.keys import custody_keygen
from artifacts.sealing import seal_tree
from artifacts.signing import SigningKey

class Nowhere:
    uri = "mem:"
    def stat(self, key): return None
    def put(self, key, data): return None
    def begin(self, key, part_count, part_size): return self
    def parts(self): return {}
    def put_part(self, index, data, sha256): return None
    def complete(self): return None
    def batch(self): return contextlib.nullcontext()

source = Path(sys.argv[1])
with source.open("wb") as file:
    file.truncate(12 * 64 * 2**20)
seal_tree(source, Nowhere(), custody_recipient=custody_keygen().recipient, signer=SigningKey.generate(), components={"w": "*"})
print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024)
"""


def test_memory_stays_below_512_mib_for_a_file_of_twelve_parts(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _BIG, str(tmp_path / "big.bin")],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert int(done.stdout) < 512


class OnePartHangs:
    """A store over a network on which the first part takes until two later ones are there."""

    uri = "mem:"

    def __init__(self) -> None:
        self.put_parts: list[int] = []
        self.overtaken = threading.Event()

    def stat(self, key: str) -> None:
        return None

    def put(self, key: str, data: bytes) -> None:
        return None

    def begin(self, key: str, part_count: int, part_size: int) -> OnePartHangs:
        return self

    def parts(self) -> dict[int, Any]:
        return {}

    def put_part(self, index: int, data: Any, sha256: str) -> None:
        if index == 0:
            self.overtaken.wait(10)
        self.put_parts.append(index)
        if len(self.put_parts) == 2:
            self.overtaken.set()

    def complete(self) -> None:
        return None

    def batch(self) -> Any:
        return contextlib.nullcontext()


def test_a_part_that_is_slow_on_its_way_keeps_no_other_thread_waiting(world: World, monkeypatch: Any) -> None:
    monkeypatch.setattr("artifacts.sealing_file.PUT_LIMIT", 0)
    store: Any = OnePartHangs()
    many = world.source / "many.bin"
    sealed = seal_tree(
        many, store, custody_recipient=world.custody.recipient, signer=world.signer, components={"w": "*"}, part_size=PART
    )  # fmt: skip
    assert store.put_parts.index(0) >= 2
    assert len(sealed.files[0].parts) == len(store.put_parts) == 6
    inner = open_inner(
        sealed.artifact_id, sealed.files[0], world.root(sealed).file_key(sealed.artifact_id, "many.bin")
    )
    assert inner.digests["sha256"] == hashlib.sha256(many.read_bytes()).hexdigest()
