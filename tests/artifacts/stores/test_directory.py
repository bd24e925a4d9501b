"""A directory as a store: links, pipes, crashes, full disks, and file systems that cannot link."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from artifacts.errors import AccessDenied, ObjectExists, ObjectMissing, StoreError, StoreUnavailable
from artifacts.stores import Store, open_store
from artifacts.stores import tree as tree_module
from artifacts.stores.directory import DirectoryStore

PART = 64 * 1024


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> Iterator[Store]:
    with open_store(f"dir:{root}") as opened:
        yield opened


@pytest.mark.parametrize(
    "what", ["file-link", "folder-link", "dangling-link", "link-inside-the-store", "pipe"]
)
def test_nothing_but_files_is_read_listed_or_written_through(
    store: Store, root: Path, tmp_path: Path, what: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    store.put("real", b"real")
    key = "x/secret" if what == "folder-link" else "x"
    {
        "file-link": lambda: (root / "x").symlink_to(outside / "secret"),
        "folder-link": lambda: (root / "x").symlink_to(outside),
        "dangling-link": lambda: (root / "x").symlink_to(outside / "new"),
        "link-inside-the-store": lambda: (root / "x").symlink_to("real"),
        "pipe": lambda: os.mkfifo(root / "x"),
    }[what]()
    with pytest.raises(StoreError):
        store.get_range(key, 0, 1)
    with pytest.raises(StoreError):
        store.put(key, b"secret")
    with pytest.raises(StoreError, match="remove it"):
        list(store.list())
    assert sorted(p.name for p in outside.iterdir()) == ["secret"]
    assert (outside / "secret").read_text() == "secret"


def test_bookkeeping_that_was_replaced_by_a_link_is_not_followed(
    store: Store, root: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / ".sluice").symlink_to(outside)
    with pytest.raises(StoreError, match="not followed"):
        store.put("k", b"x")
    with pytest.raises(StoreError, match="not followed"):
        store.begin("k", 1, PART)
    assert list(outside.iterdir()) == []


def test_a_root_that_is_itself_a_link_is_fine_and_one_that_is_a_file_is_not(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with open_store(f"dir:{tmp_path}/link") as store:
        store.put("k", b"x")
    assert (tmp_path / "real" / "k").read_bytes() == b"x"
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        open_store(f"dir:{tmp_path}/file")


def test_a_key_below_an_object_is_refused(store: Store) -> None:
    store.put("a", b"x")
    with pytest.raises(StoreError):
        store.put("a/b", b"y")
    store.put("c/d", b"x")
    assert store.stat("c") is None


def test_parts_that_a_power_cut_tore_are_not_trusted(store: Store, root: Path) -> None:
    parts = [os.urandom(PART), os.urandom(PART), os.urandom(10)]
    upload = store.begin("w", 3, PART)
    for index, part in enumerate(parts):
        upload.put_part(index, part, sha(part))
    (body,) = (root / ".sluice/uploads").glob("*/body")
    with body.open("r+b") as file:  # the marker reached the disk, the bytes did not
        file.seek(PART + 100)
        file.write(bytes(4096))
    with open_store(store.uri) as later:
        again = later.begin("w", 3, PART)
        assert again.parts().keys() == {0, 2}
        with pytest.raises(StoreError, match="1 of 3 parts missing: 1"):
            again.complete()
        again.put_part(1, parts[1], sha(parts[1]))
        again.complete()
        assert later.get_range("w", 0, 2 * PART + 10) == b"".join(parts)


@pytest.mark.parametrize("shape", ["", "{", "[]", '{"key": 1}'])
def test_a_torn_note_of_the_shape_begins_the_upload_anew(store: Store, root: Path, shape: str) -> None:
    store.begin("w", 2, PART).put_part(0, bytes(PART), sha(bytes(PART)))
    (note,) = (root / ".sluice/uploads").glob("*/shape")
    note.write_text(shape)
    assert store.begin("w", 2, PART).parts() == {}


def test_kill_9_in_the_middle_loses_no_stored_part(root: Path) -> None:
    script = textwrap.dedent(
        f"""
        import hashlib, sys, time
        from artifacts.stores import open_store
        upload = open_store("dir:{root}").begin("w", 4, {PART})
        for index in range(3):
            data = bytes([index]) * {PART}
            upload.put_part(index, data, hashlib.sha256(data).hexdigest())
            print(index, flush=True)
        time.sleep(60)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline().strip() for _ in range(3)] == ["0", "1", "2"]
        process.send_signal(signal.SIGKILL)
    with open_store(f"dir:{root}") as store:
        upload = store.begin("w", 4, PART)
        assert upload.parts().keys() == {0, 1, 2}
        upload.put_part(3, b"end", sha(b"end"))
        assert upload.complete().size == 3 * PART + 3
        assert not list((root / ".sluice/uploads").iterdir())


def test_a_crash_between_link_and_clean_up_is_a_finished_object(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = store.begin("w", 1, PART)
    upload.put_part(0, b"abc", sha(b"abc"))
    monkeypatch.setattr(type(upload), "drop", lambda self: None)
    upload.complete()
    monkeypatch.undo()
    with open_store(store.uri) as later:
        assert later.stat("w").size == 3  # type: ignore[union-attr]
        with pytest.raises(ObjectExists):
            later.begin("w", 1, PART)


@pytest.mark.parametrize(
    ("code", "error", "says"),
    [
        (errno.ENOSPC, StoreError, "free some space"),
        (errno.EDQUOT, StoreError, "free some space"),
        (errno.EROFS, AccessDenied, "owner and mode"),
        (errno.EIO, StoreUnavailable, "Input/output error"),
    ],
)
def test_a_disk_that_fails_is_explained_and_leaves_nothing_half(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[Exception], says: str
) -> None:
    upload = store.begin("w", 2, PART)
    upload.put_part(1, b"end", sha(b"end"))

    def full(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(tree_module.os, "pwrite", full)
    with pytest.raises(error, match=says):
        upload.put_part(0, bytes(PART), sha(bytes(PART)))
    with pytest.raises(error, match=says):
        store.put("k", b"x")
    monkeypatch.undo()
    assert [o.key for o in store.list()] == []
    assert not list((root / ".sluice/staging").iterdir())
    assert upload.parts().keys() == {1}
    upload.put_part(0, bytes(PART), sha(bytes(PART)))
    assert upload.complete().size == PART + 3


def test_a_really_full_disk(tmp_path: Path) -> None:
    limit = textwrap.dedent(
        f"""
        import hashlib, resource, signal
        from artifacts.errors import StoreError
        from artifacts.stores import open_store
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({PART} + 5, {PART} + 5))
        store = open_store("dir:{tmp_path}/s")
        upload = store.begin("w", 2, {PART})
        data = bytes({PART})
        upload.put_part(0, data, hashlib.sha256(data).hexdigest())
        try:
            upload.put_part(1, data, hashlib.sha256(data).hexdigest())
        except StoreError as error:
            print(sorted(upload.parts()), "free some space" in str(error))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", limit], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[0] True"


def test_without_hard_links_the_race_is_said_and_nothing_seen_is_overwritten(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    with open_store(f"dir:{root}") as store:
        assert not store.features().conditional_create
        assert "could still replace" in store.features().lacking["conditional_create"]
        store.put("k", b"one")
        store.put("k", b"one")
        with pytest.raises(ObjectExists):
            store.put("k", b"two")
        upload = store.begin("w", 1, PART)
        upload.put_part(0, b"abc", sha(b"abc"))
        assert upload.complete().size == 3
        assert store.get_range("k", 0, 3) == b"one"


def test_many_writers_of_one_part_leave_one_of_them_whole(store: Store) -> None:
    upload = store.begin("w", 1, PART)
    datas = [bytes([n]) * PART for n in range(8)]
    threads = [threading.Thread(target=upload.put_part, args=(0, d, sha(d))) for d in datas]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (part,) = upload.parts().values()
    upload.complete()
    assert sha(store.get_range("w", 0, PART)) == part.sha256


def test_an_upload_aborted_elsewhere_says_so(store: Store) -> None:
    upload = store.begin("w", 2, PART)
    store.begin("w", 2, PART).abort()
    with pytest.raises(ObjectMissing, match="aborted or completed elsewhere"):
        upload.put_part(0, bytes(PART), sha(bytes(PART)))
    with pytest.raises(ObjectMissing, match="aborted or completed elsewhere"):
        upload.complete()


def write_part(upload: Any, index: int, *pieces: bytes, sha256: str = "") -> None:
    """Write a part piece by piece; without a digest whoever wrote it did not get to the end."""
    with upload.writing_part(index) as part:
        for piece in pieces:
            part.write(memoryview(piece))
        part.sha256 = sha256


def test_a_part_written_piece_by_piece_counts_only_when_it_is_whole(tmp_path: Path) -> None:
    one, two = b"a" * 1000, b"b" * 10
    with DirectoryStore(tmp_path) as store:
        upload = store.begin("big", 2, 1000)
        with pytest.raises(StoreError, match="at most 1000 bytes"):
            write_part(upload, 0, one, b"into the next part")
        with pytest.raises(StoreError, match="SHA-256"):
            write_part(upload, 0, one)
        with pytest.raises(StoreError, match="expected 1000"):
            write_part(upload, 0, one[:-1], sha256=hashlib.sha256(one[:-1]).hexdigest())
        with pytest.raises(StoreError, match="does not exist"):
            write_part(upload, 2)
        assert upload.parts() == {}
        for index, data in ((1, two), (0, one)):
            write_part(upload, index, data[:4], data[4:], sha256=hashlib.sha256(data).hexdigest())
        upload.complete()
        assert store.get_range("big", 0, 1010) == one + two


def test_a_part_written_again_does_not_count_until_it_is_whole_again(tmp_path: Path) -> None:
    data = b"a" * 1000
    with DirectoryStore(tmp_path) as store:
        upload = store.begin("big", 1, 1000)
        upload.put_part(0, data, hashlib.sha256(data).hexdigest())
        with pytest.raises(StoreError, match="SHA-256"):
            write_part(upload, 0, b"other")
        with DirectoryStore(tmp_path) as later:
            assert later.begin("big", 1, 1000).parts() == {}
