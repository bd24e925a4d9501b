"""A folder that operators drop files in."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from artifacts.leaks.watching import Options, SourceError, Trouble, open_source


class Clock:
    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


def test_files_count_when_they_stand_still_and_once_by_their_content(tmp_path: Path) -> None:
    clock = Clock()
    source = open_source(
        {"kind": "folder", "name": "drop", "path": str(tmp_path), "settle_s": 60}, Options(now=clock)
    )
    (tmp_path / "a.bin").write_bytes(b"leak")
    polled = source.poll(None, 10)
    assert polled.candidates == ()
    assert "still being written" in polled.notes[0]
    clock.ahead = timedelta(seconds=61)
    polled = source.poll(polled.cursor, 10)
    (found,) = polled.candidates
    assert found.key == "sha256:" + hashlib.sha256(b"leak").hexdigest()
    assert found.target == str(tmp_path / "a.bin")
    assert source.poll(polled.cursor, 10).candidates == ()
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.bin").rename(tmp_path / "sub" / "renamed.safetensors")
    clock.ahead = timedelta(seconds=200)
    (again,) = source.poll(polled.cursor, 10).candidates
    assert again.key == found.key


def test_links_torrents_and_what_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "some.links").write_text(
        "# notes\nhttps://h.example/x\nhf:a/b\nnot a link\ns3://bucket/key\n"
    )
    (tmp_path / "bad.torrent").write_bytes(b"<html>")
    (tmp_path / "half.part").write_bytes(b"x")
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "old.bin").write_bytes(b"old")
    source = open_source({"kind": "folder", "name": "drop", "path": str(tmp_path), "settle_s": 0}, Options())
    polled = source.poll(None, 10)
    targets = {c.target for c in polled.candidates}
    assert targets == {"https://h.example/x", "hf:a/b", "s3://bucket/key", str(tmp_path / "bad.torrent")}
    said = " ".join(polled.notes)
    assert "not a link" in said
    assert "not a torrent" in said
    assert said.count("link or a device") == 2
    assert not polled.more


def test_small_steps_lose_none(tmp_path: Path) -> None:
    for i in range(25):
        (tmp_path / f"{i}.bin").write_bytes(b"%d" % i)
    source = open_source({"kind": "folder", "name": "drop", "path": str(tmp_path), "settle_s": 0}, Options())
    cursor, found = None, set()
    for _ in range(20):
        polled = source.poll(cursor, 4)
        found |= {c.key for c in polled.candidates}
        cursor = polled.cursor
        if not polled.more:
            break
    assert len(found) == 25


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    source = open_source({"kind": "folder", "name": "drop", "path": str(tmp_path / "no")}, Options())
    with pytest.raises(SourceError, match="make the folder") as caught:
        source.poll(None, 10)
    assert caught.value.trouble is Trouble.GONE


def test_a_decoy_is_a_sighting_wherever_it_turns_up(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"decoy")
    options = Options(decoys={hashlib.sha256(b"decoy").hexdigest(): "canary-1"})
    source = open_source({"kind": "folder", "name": "drop", "path": str(tmp_path), "settle_s": 0}, options)
    (found,) = source.poll(None, 10).candidates
    assert found.sighting
    assert "canary-1" in found.title


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"kind": "ftp", "name": "x"}, "kind|tag"),
        ({"kind": "hub", "name": "Not A Name"}, "name"),
        ({"kind": "hub", "name": "hub", "parameters": {"min": 9, "max": 3}}, "min is larger"),
        ({"kind": "urls", "name": "u", "urls": ["ftp://x/y"]}, "not of the form"),
        ({"kind": "urls", "name": "u", "urls": ["https://x/y", "https://x/y"]}, "named twice"),
        ({"kind": "repositories", "name": "r", "repositories": ["acme/model"]}, "hf:owner/name"),
        ({"kind": "buckets", "name": "b", "prefixes": ["s3://UPPER/"]}, "s3://bucket"),
        ({"kind": "hub", "name": "hub", "every": 5}, "every"),
    ],
)
def test_settings_that_cannot_work_say_which_field(spec: dict[str, object], words: str) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        open_source(spec)
    assert caught.value.trouble is Trouble.SETTING
