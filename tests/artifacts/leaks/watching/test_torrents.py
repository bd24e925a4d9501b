"""Torrent files and magnet links: v1, v2, hybrid; roots as our own digests have them; hostile ones refused with words."""

from __future__ import annotations

import contextlib
import hashlib
import random
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bencode2 import bencode
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.leaks import (
    ListedFile,
    Outcome,
    ReferenceSet,
    SketchKey,
    WeightSignature,
    digest_stream,
    exact,
)
from artifacts.leaks.watching import Options, SourceError, Submission, Trouble, open_source
from artifacts.leaks.watching.torrents import MAX_FILES, MAX_TORRENT, TorrentError, read_magnet, read_torrent

WEIGHTS = random.Random(5).randbytes(100_000)
DIGESTS = digest_stream("model.safetensors", [WEIGHTS], frozenset({"btv2"}), distinctive=True)
ROOT = bytes.fromhex(str(DIGESTS.btv2_root))
AT = datetime(2026, 3, 1, tzinfo=UTC)


def _v2(**changes: Any) -> dict[bytes, Any]:
    leaf = {b"": {b"length": len(WEIGHTS), b"pieces root": ROOT}}
    tree = {b"README.md": {b"": {b"length": 0}}, b"weights": {b"model.safetensors": leaf}}
    info = {b"file tree": tree, b"meta version": 2, b"name": b"leak", b"piece length": 16384}
    return {
        k: v
        for k, v in (info | {k.encode().replace(b"_", b" "): v for k, v in changes.items()}).items()
        if v is not None
    }


def _v1() -> dict[bytes, Any]:
    files = [
        {b"length": 0, b"path": [b"README.md"]},
        {b"attr": b"p", b"length": 16384, b"path": [b".pad", b"16384"]},
        {b"length": len(WEIGHTS), b"path": [b"weights", b"model.safetensors"]},
    ]
    return {b"files": files, b"name": b"leak", b"piece length": 16384, b"pieces": b"h" * 20}


def _torrent(info: dict[bytes, Any]) -> bytes:
    return bencode({b"announce": b"http://10.0.0.1/", b"info": info})


def test_a_v2_torrent_is_recognised_by_its_root_alone() -> None:
    read = read_torrent(_torrent(_v2()))
    assert read.infohash_v2 == hashlib.sha256(bencode(_v2())).hexdigest()
    assert read.infohash_v1 is None
    assert [(f.path, f.size) for f in read.files] == [
        ("README.md", 0),
        ("weights/model.safetensors", len(WEIGHTS)),
    ]
    key = SketchKey(bytes(32))
    signature = WeightSignature("model", key.key_id, (), files=(DIGESTS,))
    listed = [ListedFile(f.path, f.size, btv2_root=f.pieces_root) for f in read.files]
    (finding,) = exact(listed, ReferenceSet(key, [signature]))
    assert finding.outcome is Outcome.MATCH
    other = replace(listed[1], btv2_root="0" * 64)
    assert exact([other], ReferenceSet(key, [signature])) == []


def test_v1_and_hybrid() -> None:
    v1 = read_torrent(_torrent(_v1()))
    assert v1.infohash_v1 == hashlib.sha1(bencode(_v1())).hexdigest()
    assert v1.key == f"btv1:{v1.infohash_v1}"
    assert [f.path for f in v1.files] == ["README.md", "weights/model.safetensors"]
    hybrid = read_torrent(_torrent(_v2() | _v1()))
    assert hybrid.infohash_v1
    assert hybrid.key == f"btv2:{hybrid.infohash_v2}"
    assert hybrid.files[1].pieces_root == ROOT.hex()
    single = read_torrent(
        _torrent({b"length": 7, b"name": b"m.bin", b"piece length": 16384, b"pieces": b"h" * 20})
    )
    assert [(f.path, f.size) for f in single.files] == [("m.bin", 7)]


def test_magnet_links() -> None:
    v1, v2 = "a" * 40, "b" * 64
    both = read_magnet(
        f"magnet:?xt=urn:btih:{v1}&xt=urn:btmh:1220{v2}&dn=my%20model&xl=123&tr=http%3A%2F%2F10.0.0.1"
    )
    assert (both.infohash_v1, both.infohash_v2, both.name, both.size) == (v1, v2, "my model", 123)
    assert read_magnet("magnet:?xt=urn:btih:" + "A" * 32).infohash_v1 == "00" * 20
    assert read_magnet(f"magnet:?xt.1=urn:btih:{v1.upper()}").key == f"btv1:{v1}"
    for bad in (
        "http://x",
        "magnet:?dn=x",
        "magnet:?xt=urn:btih:zz",
        "magnet:?" + "a=1&" * 300,
        "magnet:?" + "x" * 30_000,
    ):
        with pytest.raises(TorrentError):
            read_magnet(bad)


_LEAF = {b"": {b"length": 1, b"pieces root": b"r" * 32}}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a torrent"),
        (b"<html>", "not a torrent"),
        (b"l" * 5_000, "not a torrent"),
        (b"d4:infod6:lengthi" + b"9" * 5_000 + b"eee", "not a torrent"),
        (b"d99999999999:x", "not a torrent"),
        (b"le", "no `info`"),
        (_torrent(_v1()) + b"x", "not a torrent"),
        (_torrent(_v2(meta_version=3)), "version"),
        (_torrent(_v2(file_tree=None)), "file tree"),
        (_torrent(_v2(file_tree={b"a": {b"": {b"length": 5}}})), "pieces root"),
        (
            _torrent(_v2(file_tree={b"a": {b"": {b"length": -5, b"pieces root": b"r" * 32}}})),
            "impossible size",
        ),
        (
            _torrent(_v2(file_tree={b"a": {b"": {b"length": 1 << 61, b"pieces root": b"r" * 32}}})),
            "impossible size",
        ),
        (_torrent(_v2(file_tree={b"a": 5})), "malformed"),
        (_torrent(_v2(name=5)), "no text"),
        (_torrent(_v2(file_tree={b"x": _LEAF}) | _v1()), "differ"),
        (_torrent(_v1() | {b"files": [{b"length": 1}]}), "no path"),
        (_torrent(_v1() | {b"files": [{b"length": 1, b"path": [b"x"]}] * (MAX_FILES + 1)}), "longer than"),
        (b"d" * 10 + bytes(MAX_TORRENT), "more than"),
    ],
)
def test_hostile_torrents_are_refused_with_words(data: bytes, words: str) -> None:
    with pytest.raises(TorrentError, match=words):
        read_torrent(data)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 400))
def test_mutated_torrents_are_read_or_refused(noise: bytes, begin: int, end: int) -> None:
    good = _torrent(_v2() | _v1())
    for data in (noise, good[:begin] + noise + good[end:], good[: len(good) - begin] + noise):
        with contextlib.suppress(TorrentError):
            read_torrent(data)


class Queue:
    def __init__(self, *items: tuple[str, str]) -> None:
        self.items = [
            Submission(position=i + 1, id=f"r{i + 1}", at=AT, what=what, value=value)
            for i, (what, value) in enumerate(items)
        ]

    def after(self, position: int, limit: int) -> list[Submission]:
        return [s for s in self.items if s.position > position][:limit]


def test_what_is_handed_in_becomes_candidates_and_nonsense_a_note(tmp_path: Path) -> None:
    file = tmp_path / "x.torrent"
    file.write_bytes(_torrent(_v2()))
    queue = Queue(
        ("torrent", str(file)),
        ("magnet", "magnet:?xt=urn:btmh:1220" + read_torrent(file.read_bytes()).infohash_v2),  # type: ignore[operator]
        ("url", "https://h.example/m.bin?sig=secret"),
        ("sha256", "A" * 64),
        ("repository", "hf:a/b@refs/pr/1"),
        ("url", "javascript:alert(1)"),
        ("torrent", str(tmp_path / "missing")),
        ("url", "https://h.example/m.bin?sig=secret"),
    )
    source = open_source({"kind": "torrents", "name": "torrents"}, Options(submissions={"torrents": queue}))
    first = source.poll(None, 4)
    assert first.more
    rest = source.poll(first.cursor, 40)
    assert not rest.more
    assert [c.key.partition(":")[0] for c in (*first.candidates, *rest.candidates)] == [
        "btv2", "report", "sha256", "report", "report",
    ]  # fmt: skip
    assert first.candidates[0].digests[0].btv2_root == ROOT.hex()
    assert "secret" not in first.candidates[1].title
    assert len(rest.notes) == 2
    assert source.poll(rest.cursor, 10).candidates == ()
    with pytest.raises(SourceError) as caught:
        open_source({"kind": "reports", "name": "nobody"}, Options()).poll(None, 1)
    assert caught.value.trouble is Trouble.SETTING
