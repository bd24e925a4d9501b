"""The way of an artifact: sealed where the weights are, fetched and opened by a partner."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from artifacts import fetching
from artifacts.envelope import file_keys
from artifacts.errors import (
    DestinationError,
    EnvelopeError,
    ExpiredError,
    IntegrityError,
    ManifestError,
    NotSealedError,
    ObjectMissing,
    PathError,
    SourceChangedError,
    SourceError,
    StoreUnavailable,
)
from artifacts.manifest import file_object_key, manifest_key, open_inner
from artifacts.progress import Progress
from artifacts.verifying import verify_artifact
from tests.artifacts.sealed_world import COMPONENTS, NOW, PART, World, noise, tree


def test_a_partner_gets_every_file_bit_for_bit(world: World, tmp_path: Path) -> None:
    sealed = world.seal()
    told: list[Progress] = []
    report = world.fetch(sealed, tmp_path / "copy", progress=told.append)
    assert tree(tmp_path / "copy") == tree(world.source)
    assert told[-1].bytes_done == told[-1].bytes_total == report.bytes_total
    assert told[-1].files_done == len(sealed.files)
    assert [p.bytes_done for p in told] == sorted(p.bytes_done for p in told)
    assert all(f.sha256 for f in report.files)


def test_nothing_in_the_store_holds_plaintext(world: World) -> None:
    world.seal()
    stored = b"".join(tree(world.folder / "store").values()) + b"".join(tree(world.state).values())
    for content in tree(world.source).values():
        assert len(content) < 16 or content[:64] not in stored


def test_tokenizer_keys_open_the_tokenizer_and_not_the_weights(world: World, tmp_path: Path) -> None:
    sealed = world.seal()
    payload = world.payload(sealed, components=["tokenizer"])
    world.fetch(sealed, tmp_path / "copy", payload=payload)
    assert set(tree(tmp_path / "copy")) == {"tokenizer/vocab.txt"}
    with pytest.raises(EnvelopeError, match="does not disclose"):
        world.fetch(sealed, tmp_path / "copy2", payload=payload, components=["weights"])


def test_sealing_twice_is_recognised(world: World) -> None:
    first, second = world.seal(), world.seal()
    assert second.recognised
    assert (second.artifact_id, second.manifest) == (first.artifact_id, first.manifest)


def test_sealing_twice_under_a_chosen_id_is_recognised_without_the_ticket(world: World) -> None:
    first = world.seal(artifact_id="component-1234", state_dir=None)
    second = world.seal(artifact_id="component-1234", state_dir=None)
    assert second.recognised
    assert second.manifest == first.manifest
    assert second.wrapped_root == first.wrapped_root
    (world.source / "new.bin").write_bytes(b"x")
    with pytest.raises(ManifestError, match="other files"):
        world.seal(artifact_id="component-1234", state_dir=None)


def test_verify_needs_no_key_and_finds_everything_wrong_at_once(world: World) -> None:
    sealed = world.seal()
    report = verify_artifact(world.store, sealed.artifact_id, trusted=[world.signer.verify_key])
    assert report.ok
    assert report.files == len(sealed.files)
    files = world.folder / "store" / "artifacts" / sealed.artifact_id / "files"
    (files / "one.bin").unlink()
    (files / "chunk.bin").write_bytes(noise(16384))
    changed = bytearray((files / "many.bin").read_bytes())
    changed[-1] ^= 1
    (files / "many.bin").write_bytes(changed)
    (files / "added.bin").write_bytes(b"x")
    report = verify_artifact(world.store, sealed.artifact_id, expected_digest=sealed.manifest_digest)
    assert {(p.path, p.kind) for p in report.problems} == {
        ("one.bin", "missing"),
        ("chunk.bin", "in-clear"),
        ("many.bin", "differs"),
        ("added.bin", "extra"),
    }


# --- resume -----------------------------------------------------------------------------------------------------


_SLOW_SEAL = """
import sys, time
from pathlib import Path
from artifacts.sealing import seal_tree
from artifacts.signing import SigningKey
from artifacts.stores.directory import DirectoryStore
folder, custody, signer = Path(sys.argv[1]), sys.argv[2], SigningKey.parse(sys.stdin.read())
def tell(progress):
    print(progress.bytes_done, flush=True)
    time.sleep(0.05)
seal_tree(folder / "source", DirectoryStore(folder / "store"), custody_recipient=custody, signer=signer,
    components={"weights": ["*.bin", "*.safetensors"], "tokenizer": "tokenizer", "rest": "*"},
    part_size=65536, state_dir=folder / "state", progress=tell, workers=2)
"""


@pytest.mark.parametrize("after", [1, 5, 9])
def test_kill_9_loses_no_stored_part_and_leaves_no_root_key(world: World, tmp_path: Path, after: int) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _SLOW_SEAL, str(world.folder), world.custody.recipient],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert child.stdin
    assert child.stdout
    child.stdin.write(world.signer.secret_string())
    child.stdin.close()
    for _ in range(after):
        child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait(10)
    child.stdout.close()
    before = {p: p.stat().st_ino for p in (world.folder / "store").rglob("*") if p.is_file()}
    assert not any("manifest" in p.name for p in before)
    ticket = next(world.state.glob("*.ticket.json"))
    assert ticket.stat().st_mode & 0o077 == 0
    state = b"".join(p.read_bytes() for p in world.state.iterdir())
    sealed = world.seal()
    root = world.root(sealed).raw
    assert root not in state
    assert root.hex().encode() not in state
    assert sealed.bytes_reused > 0
    files = world.folder / "store" / "artifacts" / sealed.artifact_id / "files"
    for path, inode in before.items():
        if path.is_relative_to(files):
            assert path.stat().st_ino == inode, "a finished file was written again"
    world.fetch(sealed, tmp_path / "copy")
    assert tree(tmp_path / "copy") == tree(world.source)
    assert verify_artifact(world.store, sealed.artifact_id, expected_digest=sealed.manifest_digest).ok


class Failing:
    """A store that fails once at a given call, before or after doing it."""

    def __init__(self, store: object, method: str, at: int, *, after: bool) -> None:
        self._store, self._method, self._at, self._after = store, method, at, after

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def _call(self, name: str, *args: object) -> object:
        if name != self._method:
            return getattr(self._store, name)(*args)
        self._at -= 1
        if self._at == 0 and not self._after:
            raise StoreUnavailable("the connection was cut")
        answer = getattr(self._store, name)(*args)
        if self._at == 0:
            raise StoreUnavailable("the answer was lost")
        return answer

    def put(self, *args: object) -> object:
        return self._call("put", *args)

    def begin(self, *args: object) -> object:
        upload = self._call("begin", *args)
        if self._method in {"writing_part", "complete"}:
            wrapped = Failing(upload, self._method, self._at, after=self._after)
            wrapped._parent = self  # type: ignore[attr-defined]
            return wrapped
        return upload

    @contextlib.contextmanager
    def writing_part(self, index: int) -> Iterator[Any]:
        part = self._store.writing_part(index)  # type: ignore[attr-defined]
        if self._method != "writing_part":
            with part as writer:
                yield writer
            return
        self._at -= 1
        with part as writer:
            yield writer
            if self._at == 0 and not self._after:
                raise StoreUnavailable("the connection was cut")
        if self._at == 0:
            raise StoreUnavailable("the answer was lost")

    def complete(self) -> object:
        return self._call("complete")


@pytest.mark.parametrize("after", [False, True], ids=["cut before", "answer lost after"])
@pytest.mark.parametrize(
    ("method", "at"),
    [("put", 1), ("put", 3), ("put", 7), ("put", 8), ("begin", 1), ("writing_part", 3), ("complete", 1)],
)
def test_a_store_that_fails_once_is_gone_on_with(
    world: World, tmp_path: Path, method: str, at: int, after: bool
) -> None:
    with pytest.raises(StoreUnavailable):
        world.seal(store=Failing(world.store, method, at, after=after), workers=1)
    sealed = world.seal()
    world.fetch(sealed, tmp_path / "copy")
    assert tree(tmp_path / "copy") == tree(world.source)
    assert len({p.parent.parent.name for p in (world.folder / "store").rglob("files/one.bin")}) == 1


def test_a_ticket_does_not_open_without_the_plaintext(world: World) -> None:
    """Whoever copies the state folder, and knows every file's name and size, still does not get the root."""
    from artifacts.source import plaintext_secret, scan
    from artifacts.ticket import Ticket

    with pytest.raises(StoreUnavailable):
        world.seal(store=Failing(world.store, "put", 3, after=True))
    with Ticket.held(world.state, world.source, world.store.uri, None) as ticket:
        assert ticket.root(plaintext_secret(scan(world.source))) is not None
        (world.source / "one.bin").write_bytes(b"?")
        assert ticket.root(plaintext_secret(scan(world.source))) is None
        assert ticket.root(bytes(32)) is None


def test_a_damaged_ticket_means_starting_anew(world: World) -> None:
    with pytest.raises(StoreUnavailable):
        world.seal(store=Failing(world.store, "put", 3, after=True))
    ticket = next(world.state.glob("*.ticket.json"))
    ticket.write_bytes(ticket.read_bytes()[:-10])
    assert not world.seal().recognised


def test_a_second_process_waits_its_turn(world: World) -> None:
    from artifacts.ticket import Ticket

    with (
        Ticket.held(world.state, world.source, world.store.uri, None),
        pytest.raises(SourceError, match="another process"),
    ):
        world.seal()


# --- sources that cannot be sealed ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["grows", "shrinks", "same size", "replaced", "touched"])
def test_a_file_that_changes_while_it_is_sealed_is_an_error(world: World, how: str) -> None:
    target = world.source / "many.bin"
    size = target.stat().st_size

    def change(progress: Progress) -> None:
        if progress.path != "many.bin":
            return
        if how == "grows":
            with target.open("ab") as file:
                file.write(b"x")
        elif how == "shrinks":
            os.truncate(target, size - PART)
        elif how == "same size":
            with target.open("r+b") as file:
                file.write(b"other")
        elif how == "replaced":
            (world.folder / "new").write_bytes(noise(size, 99))
            (world.folder / "new").replace(target)
        else:
            os.utime(target, ns=(time.time_ns(), time.time_ns()))

    with pytest.raises(SourceChangedError):
        world.seal(progress=change)
    assert not list((world.folder / "store").rglob("manifest*"))


def test_a_disk_that_cannot_be_read_is_the_sources_fault_and_nothing_is_published(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def preadv(fd: int, buffers: Any, offset: int) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "preadv", preadv)
        broken.setattr("artifacts.sealing_file.PUT_LIMIT", 0)
        with pytest.raises(SourceError, match=r": part \d: cannot be read \(Input/output error\)"):
            world.seal(state_dir=None, artifact_id="art-unreadable-01")
    assert world.store.stat(manifest_key("art-unreadable-01")) is None


def test_a_file_added_while_sealing_is_an_error(world: World) -> None:
    with pytest.raises(SourceChangedError, match="added"):
        world.seal(progress=lambda p: (world.source / "late.bin").write_bytes(b"x"))


def test_symbolic_links_are_refused(world: World) -> None:
    (world.source / "link.bin").symlink_to("/etc/passwd")
    with pytest.raises(SourceError, match="symbolic link"):
        world.seal()
    (world.source / "link.bin").unlink()
    (world.source / "folder").symlink_to("/etc")
    with pytest.raises(SourceError, match="symbolic link"):
        world.seal()


def test_devices_and_pipes_are_refused(world: World) -> None:
    os.mkfifo(world.source / "pipe.bin")
    with pytest.raises(SourceError, match="neither"):
        world.seal()


def test_a_folder_that_is_not_there_or_empty_is_refused(world: World, tmp_path: Path) -> None:
    world.source = tmp_path / "nowhere"
    with pytest.raises(SourceError, match="nowhere"):
        world.seal()
    world.source.mkdir()
    with pytest.raises(SourceError, match="holds no file"):
        world.seal()


@pytest.mark.parametrize(
    "name", ["a:b.bin", "CON.bin", "trailing.", "new\nline.bin", "back\\slash.bin", "ONE.bin"]
)
def test_names_that_not_every_disk_keeps_are_refused(world: World, name: str) -> None:
    (world.source / name).write_bytes(b"x")
    with pytest.raises(PathError):
        world.seal()


def test_every_file_belongs_to_a_component(world: World) -> None:
    with pytest.raises(SourceError, match="belongs to no component"):
        world.seal(components={"weights": "*.bin"})
    with pytest.raises(SourceError, match="no file fits"):
        world.seal(components={**COMPONENTS, "data": "*.parquet"})
    sealed = world.seal(components={"code": "tokenizer/", "weights": "*"})
    assert {f.path for f in sealed.files if f.component == "code"} == {"tokenizer/vocab.txt"}


def test_one_file_is_an_artifact_too(world: World, tmp_path: Path) -> None:
    world.source = world.source / "many.bin"
    sealed = world.seal(components={"weights": "*"})
    world.fetch(sealed, tmp_path / "copy")
    assert (tmp_path / "copy" / "many.bin").read_bytes() == world.source.read_bytes()


# --- what a partner's client refuses -----------------------------------------------------------------------------


def _object(world: World, artifact_id: str, path: str) -> Path:
    return world.folder / "store" / file_object_key(artifact_id, path)


def _reopened(world: World) -> World:
    """A partner's own view of the store: nothing remembered of earlier reads."""
    from artifacts.stores.directory import DirectoryStore

    world.store.close()
    world.store = DirectoryStore(world.folder / "store")
    return world


@pytest.mark.parametrize(
    ("attack", "error"),
    [
        ("plaintext in place of the sealed file", NotSealedError),
        ("sealed file of another path", IntegrityError),
        ("last part cut off", IntegrityError),
        ("parts swapped", IntegrityError),
        ("a part doubled", IntegrityError),
        ("a part dropped", IntegrityError),
        ("same path from another sealing", IntegrityError),
        ("one bit", IntegrityError),
        ("gone", ObjectMissing),
        ("an extra file", IntegrityError),
    ],
)
def test_fetch_refuses(world: World, tmp_path: Path, attack: str, error: type[Exception]) -> None:
    sealed, other = world.seal(), world.seal(state_dir=None)
    target = _object(world, sealed.artifact_id, "many.bin")
    data = target.read_bytes()
    part = len(_object(world, sealed.artifact_id, "part.bin").read_bytes())
    parts = [data[i : i + part] for i in range(0, len(data), part)]
    match attack:
        case "plaintext in place of the sealed file":
            bad = (world.source / "many.bin").read_bytes()
        case "sealed file of another path":
            bad = _object(world, sealed.artifact_id, "part_and_one.bin").read_bytes()
        case "last part cut off":
            bad = b"".join(parts[:-1])
        case "parts swapped":
            bad = b"".join([parts[1], parts[0], *parts[2:]])
        case "a part doubled":
            bad = b"".join([parts[0], parts[0], *parts[2:]])
        case "a part dropped":
            bad = b"".join(parts[1:])
        case "same path from another sealing":
            bad = _object(world, other.artifact_id, "many.bin").read_bytes()
        case "one bit":
            bad = data[:-1] + bytes([data[-1] ^ 1])
        case _:
            bad = data
    target.write_bytes(bad)
    if attack == "gone":
        target.unlink()
    if attack == "an extra file":
        target.with_name("extra.bin").write_bytes(b"x")
    copy = tmp_path / "copy"
    with pytest.raises(error):
        _reopened(world).fetch(sealed, copy)
    assert not (copy / "many.bin").exists()


def test_a_key_for_another_file_opens_nothing(world: World, tmp_path: Path) -> None:
    sealed = world.seal()
    keys = file_keys(world.root(sealed), world.manifest(sealed))
    payload = world.payload(sealed, keys={"many.bin": keys["part.bin"]})
    with pytest.raises(IntegrityError, match="does not open"):
        world.fetch(sealed, tmp_path / "copy", payload=payload)
    assert not (tmp_path / "copy" / "many.bin").exists()


def test_an_envelope_for_another_manifest_is_refused(world: World, tmp_path: Path) -> None:
    sealed, other = world.seal(), world.seal(state_dir=None)
    with pytest.raises(IntegrityError, match="not the one"):
        world.fetch(sealed, tmp_path / "copy", payload=world.payload(other))


def test_an_expired_envelope_is_refused_before_anything_is_fetched(world: World, tmp_path: Path) -> None:
    sealed = world.seal()
    with pytest.raises(ExpiredError, match="ask"):
        world.fetch(sealed, tmp_path / "copy", now=NOW + timedelta(days=7))
    assert not (tmp_path / "copy").exists()


def test_a_key_for_a_path_that_is_not_in_the_manifest_is_refused(world: World, tmp_path: Path) -> None:
    sealed = world.seal()
    keys = dict(world.payload(sealed).keys)
    payload = world.payload(sealed, keys={**keys, "other.bin": keys["one.bin"]})
    with pytest.raises(ManifestError, match=r"no file 'other\.bin'"):
        world.fetch(sealed, tmp_path / "copy", payload=payload)


# --- the destination ----------------------------------------------------------------------------------------------


def test_fetch_never_overwrites(world: World, tmp_path: Path) -> None:
    sealed, copy = world.seal(), tmp_path / "copy"
    copy.mkdir()
    (copy / "one.bin").write_bytes(b"mine")
    with pytest.raises(DestinationError, match="nothing was overwritten"):
        world.fetch(sealed, copy)
    assert (copy / "one.bin").read_bytes() == b"mine"


def test_fetching_again_recognises_what_is_there(world: World, tmp_path: Path) -> None:
    sealed, copy = world.seal(), tmp_path / "copy"
    world.fetch(sealed, copy)
    (copy / "many.bin").unlink()
    report = world.fetch(sealed, copy)
    assert {f.path for f in report.files if not f.was_there} == {"many.bin"}
    assert tree(copy) == tree(world.source)


@pytest.mark.parametrize("where", ["folder", "file", "work folder"])
def test_a_symbolic_link_in_the_destination_leads_nowhere(world: World, tmp_path: Path, where: str) -> None:
    sealed, copy, outside = world.seal(), tmp_path / "copy", tmp_path / "outside"
    copy.mkdir()
    outside.mkdir()
    (outside / "vocab.txt").write_bytes(b"theirs")
    if where == "folder":
        (copy / "tokenizer").symlink_to(outside)
    elif where == "file":
        (copy / "many.bin").symlink_to(outside / "made-by-fetch")
    else:
        (copy / ".sluice-fetch").symlink_to(outside)
    with pytest.raises(DestinationError):
        world.fetch(sealed, copy)
    assert tree(outside) == {"vocab.txt": b"theirs"}


def test_a_fetch_that_was_cut_goes_on_at_the_missing_parts(world: World, tmp_path: Path) -> None:
    sealed, copy = world.seal(), tmp_path / "copy"

    class Cut(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.path == "many.bin" and progress.bytes_done > 3 * PART:
            raise Cut

    with pytest.raises(Cut):
        world.fetch(sealed, copy, progress=stop, workers=1)
    assert not (copy / "many.bin").exists()
    assert all(p.stat().st_mode & 0o077 == 0 for p in (copy / ".sluice-fetch").rglob("*"))
    report = world.fetch(sealed, copy)
    assert report.bytes_reused > 0
    assert tree(copy) == tree(world.source)


def test_a_tampered_unfinished_file_is_noticed(world: World, tmp_path: Path) -> None:
    sealed, copy = world.seal(), tmp_path / "copy"

    def stop(progress: Progress) -> None:
        if progress.path == "many.bin" and progress.bytes_done > 3 * PART:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.fetch(sealed, copy, progress=stop, workers=1)
    partial = max((copy / ".sluice-fetch").iterdir(), key=lambda p: p.stat().st_size)
    data = bytearray(partial.read_bytes())
    data[10] ^= 1
    partial.write_bytes(data)
    with pytest.raises(IntegrityError, match="not the one that was sealed"):
        world.fetch(sealed, copy)
    world.fetch(sealed, copy)
    assert tree(copy) == tree(world.source)


@pytest.mark.parametrize("recheck", [False, True])
def test_rechecking_reads_the_finished_file_and_holds_it_against_the_manifest(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recheck: bool
) -> None:
    """A disk that gives back other bytes than it was given is seen by reading them, and only then."""
    sealed = world.seal()
    write = fetching._Written.write

    def bad_disk(self: Any, data: memoryview) -> None:
        write(self, memoryview(bytes([data[0] ^ 1]) + bytes(data[1:])) if data else data)

    monkeypatch.setattr(fetching._Written, "write", bad_disk)
    if not recheck:
        world.fetch(sealed, tmp_path / "copy", components=["weights"])
        return
    with pytest.raises(IntegrityError, match="not the one that was sealed"):
        world.fetch(sealed, tmp_path / "copy", components=["weights"], recheck=True)
    assert not (tmp_path / "copy" / "one.bin").exists()


@pytest.mark.parametrize("path", ["part.bin", "many.bin"])
def test_an_unfinished_file_of_another_artifact_leaves_no_trace(
    world: World, tmp_path: Path, path: str
) -> None:
    from artifacts.destination import LOG, Destination

    sealed, copy = world.seal(), tmp_path / "copy"
    place = Destination(copy)
    for name in ("", LOG):
        os.close(place.open_partial(path, name))
    for left in (copy / ".sluice-fetch").iterdir():
        left.write_bytes(b"other-artifact 0\n0\n1\n" + noise(9 * PART))
    place.close()
    world.fetch(sealed, copy)
    assert tree(copy) == tree(world.source)


def test_a_disk_that_fills_up_says_so_and_goes_on_later(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed, copy, real = world.seal(), tmp_path / "copy", os.pwrite
    left = [4 * PART]

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        if left[0] <= 0:
            raise OSError(28, "No space left on device")
        count = real(fd, bytes(data)[: left[0]], offset)
        left[0] -= count
        return count

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(DestinationError, match="disk is full"):
        world.fetch(sealed, copy)
    left[0] = 1 << 40
    world.fetch(sealed, copy)
    assert tree(copy) == tree(world.source)


def test_a_disk_that_is_too_small_is_noticed_before_fetching(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from artifacts.destination import Destination

    monkeypatch.setattr(Destination, "free_bytes", lambda self: 1000)
    with pytest.raises(DestinationError, match="are needed"):
        world.fetch(world.seal(), tmp_path / "copy")


# --- manifests on the way ------------------------------------------------------------------------------------------


def test_inner_parts_hold_digests_and_open_with_the_files_own_key_only(world: World) -> None:
    sealed = world.seal()
    manifest, root = world.manifest(sealed), world.root(sealed)
    entry = manifest.file("one.bin")
    inner = open_inner(sealed.artifact_id, entry, root.file_key(sealed.artifact_id, "one.bin"))
    assert len(inner.digests["sha256"]) == 64
    assert inner.digests["sha256"].encode() not in sealed.manifest
    with pytest.raises(IntegrityError):
        open_inner(sealed.artifact_id, entry, root.file_key(sealed.artifact_id, "chunk.bin"))


def test_a_manifest_of_100_mb_is_refused_unread(world: World) -> None:
    sealed = world.seal()
    target = world.folder / "store" / manifest_key(sealed.artifact_id)
    with target.open("r+b") as file:
        file.truncate(100 * 1024 * 1024)
    with pytest.raises(ManifestError, match="at most"):
        verify_artifact(_reopened(world).store, sealed.artifact_id, expected_digest=sealed.manifest_digest)


def test_observers_see_the_plaintext_once_in_order(world: World) -> None:
    class Watch:
        def __init__(self) -> None:
            self.data = b""

        def update(self, offset: int, data: memoryview) -> None:
            assert offset == len(self.data)
            self.data += bytes(data)

        def finish(self) -> dict[str, int]:
            return {"bytes": len(self.data)}

    class Signatures:
        name = "leaks"

        def __init__(self) -> None:
            self.files: dict[str, Watch] = {}

        def begin(self, path: str, component: str, size: int) -> Watch | None:
            return self.files.setdefault(path, Watch()) if component == "weights" else None

    observer = Signatures()
    sealed = world.seal(observers=[observer])
    assert {p: w.data for p, w in observer.files.items()} == {
        p: d for p, d in tree(world.source).items() if p.endswith(".bin")
    }
    entry = world.manifest(sealed).file("many.bin")
    inner = open_inner(sealed.artifact_id, entry, world.payload(sealed).key("many.bin"))
    assert inner.signatures == {"leaks": {"bytes": entry.size}}
