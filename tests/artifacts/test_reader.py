"""The ranged reader, held byte for byte to the library that seals."""

from __future__ import annotations

import hashlib
import io
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.body import (
    BLOCK,
    CHUNK,
    HEADER,
    WIRE_CHUNK,
    Layout,
    PartOpener,
    PartSealer,
    open_bytes,
    part_context,
    seal_bytes,
    sealed_size,
)
from artifacts.errors import IntegrityError, NotSealedError, WrongKeyError
from artifacts.keys import FileKey
from artifacts.manifest import FileEntry, Part
from artifacts.reader import SealedFile, open_sealed
from artifacts.sources import BytesBlob
from artifacts.stores.s3_calls import body_of
from tests.artifacts.sealed_world import noise

ID, PATH, KEY = "artifact-1", "dir/weights.bin", FileKey(bytes(range(32)))
EDGES = [0, 1, 15, 16, 17, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 1, 2 * CHUNK, 2 * CHUNK + 1]


def sealed_by_the_library(plain: bytes, part_size: int, key: FileKey = KEY, path: str = PATH) -> bytes:
    layout = Layout(len(plain), part_size)
    return b"".join(
        seal_bytes(
            key,
            part_context(ID, path, i, layout),
            plain[layout.plain_start(i) : layout.plain_start(i) + layout.plain_length(i)],
        )
        for i in range(layout.part_count)
    )


def entry_for(size: int, part_size: int, sealed: bytes = b"", path: str = PATH) -> FileEntry:
    layout = Layout(size, part_size)
    parts = [Part(size=layout.sealed_length(i), sha256="0" * 64) for i in range(layout.part_count)]
    return FileEntry(
        path=path, component="weights", version=1, size=size, part_size=part_size,
        sealed_size=layout.sealed_size, parts=parts, inner="AAAA",
    )  # fmt: skip


def opened(plain: bytes, part_size: int) -> SealedFile:
    sealed = sealed_by_the_library(plain, part_size)
    return SealedFile(BytesBlob(sealed), ID, entry_for(len(plain), part_size), KEY)


class Counting(BytesBlob):
    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.requests: list[tuple[int, int]] = []

    def read(self, start: int, length: int) -> bytes:
        self.requests.append((start, length))
        return super().read(start, length)


@pytest.mark.parametrize("size", sorted({*EDGES, *(4 * CHUNK + e for e in (-1, 0, 1)), 9 * CHUNK + 5}))
@pytest.mark.parametrize("part_size", [CHUNK, 4 * CHUNK, 64 * CHUNK])
def test_every_size_around_chunk_and_part_edges_reads_back(size: int, part_size: int) -> None:
    plain = noise(size)
    file = opened(plain, part_size)
    assert file.read() == plain
    assert file.read_at(0, size) == plain
    for edge in (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, part_size - 1, part_size, part_size + 1, size - 1, size):
        if 0 <= edge <= size:
            assert file.read_at(edge, size - edge) == plain[edge:]
            assert file.read_at(0, edge) == plain[:edge]


PLAIN = noise(11 * CHUNK + 321)
FILES = {part: opened(PLAIN, part) for part in (CHUNK, 3 * CHUNK, 16 * CHUNK)}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.integers(0, len(PLAIN)), st.integers(0, len(PLAIN)))
def test_random_ranges_are_the_librarys_bytes(part: int, one: int, other: int) -> None:
    start, end = min(one, other), max(one, other)
    fresh = SealedFile(FILES[part]._blob, ID, FILES[part]._entry, KEY)
    assert fresh.read_at(start, end - start) == PLAIN[start:end]
    assert FILES[part].read_at(start, end - start) == PLAIN[start:end]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1, 2]), st.integers(-70000, 200000), st.integers(-1, 90000)),
        max_size=12,
    )
)
def test_it_behaves_like_a_file(steps: list[tuple[int, int, int]]) -> None:
    file, model = opened(PLAIN, 3 * CHUNK), io.BytesIO(PLAIN)
    for whence, offset, count in steps:
        where = {0: 0, 1: model.tell(), 2: len(PLAIN)}[whence] + offset
        if where < 0:
            with pytest.raises(ValueError):
                file.seek(offset, whence)
            continue
        assert file.seek(offset, whence) == model.seek(where)
        assert file.read(count) == model.read(count)
        assert file.tell() == model.tell()


def test_it_is_read_only_and_says_so() -> None:
    file = opened(b"x", CHUNK)
    assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)
    with pytest.raises(io.UnsupportedOperation):
        file.write(b"y")
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.read(1)
    with pytest.raises(ValueError, match="closed"):
        file.seek(0)


def test_a_range_fetches_only_its_chunks_and_the_parts_heads() -> None:
    plain, part = noise(64 * CHUNK), 16 * CHUNK
    blob = Counting(sealed_by_the_library(plain, part))
    file = SealedFile(blob, ID, entry_for(len(plain), part), KEY)
    start, length = 5 * CHUNK + 100, 2 * CHUNK
    assert file.read_at(start, length) == plain[start : start + length]
    assert [n for _, n in blob.requests] == [HEADER, 3 * WIRE_CHUNK]
    blob.requests.clear()
    assert file.read_at(start, length) == plain[start : start + length]
    assert [n for _, n in blob.requests] == [3 * WIRE_CHUNK]
    blob.requests.clear()
    across = SealedFile(blob, ID, entry_for(len(plain), part), KEY)
    across.read_at(part - 10, part + 20)
    assert len(blob.requests) == 2
    assert across.bytes_fetched <= part + 20 + 2 * WIRE_CHUNK * 2 + 3 * HEADER + 16 * 20


def test_no_byte_of_a_changed_chunk_is_handed_out() -> None:
    plain = noise(3 * CHUNK + 10)
    sealed = bytearray(sealed_by_the_library(plain, 64 * CHUNK))
    sealed[HEADER + WIRE_CHUNK + 5] ^= 1
    file = SealedFile(BytesBlob(bytes(sealed)), ID, entry_for(len(plain), 64 * CHUNK), KEY)
    buffer = bytearray(3 * CHUNK)
    with pytest.raises(IntegrityError, match="chunk 1"):
        file.readinto(buffer)
    assert buffer == bytes(3 * CHUNK)
    assert file.read_at(0, CHUNK) == plain[:CHUNK]
    assert file.read_at(2 * CHUNK, CHUNK) == plain[2 * CHUNK : 3 * CHUNK]


SMALL = noise(CHUNK + 40)  # two parts; the first ends in an empty chunk
SMALL_SEALED = sealed_by_the_library(SMALL, CHUNK)
SMALL_ENTRY = entry_for(len(SMALL), CHUNK)


def test_every_byte_flipped_in_turn_is_an_error() -> None:
    """Two parts, all their bytes: heads, chunks, tags. The 16 KiB chunk's middle is stepped through."""
    places = [
        *range(400),
        *range(400, len(SMALL_SEALED) - 400, 97),
        *range(len(SMALL_SEALED) - 400, len(SMALL_SEALED)),
    ]
    for place in places:
        bad = bytearray(SMALL_SEALED)
        bad[place] ^= 1 << place % 8
        with pytest.raises(IntegrityError):
            SealedFile(BytesBlob(bytes(bad)), ID, SMALL_ENTRY, KEY).readall()


def test_every_byte_of_a_tiny_file_flipped_in_every_bit_is_an_error() -> None:
    sealed = sealed_by_the_library(b"weights!", CHUNK)
    for place in range(len(sealed)):
        for bit in range(8):
            bad = bytearray(sealed)
            bad[place] ^= 1 << bit
            with pytest.raises(IntegrityError):
                SealedFile(BytesBlob(bytes(bad)), ID, entry_for(8, CHUNK), KEY).readall()


def test_truncation_at_every_offset_is_an_error() -> None:
    for cut in range(len(SMALL_SEALED)):
        with pytest.raises(IntegrityError):
            SealedFile(BytesBlob(SMALL_SEALED[:cut]), ID, SMALL_ENTRY, KEY).readall()


@pytest.mark.parametrize("size", [0, 8, CHUNK])
def test_the_way_of_a_fetch_refuses_every_flip_and_cut_by_the_tags_alone(size: int) -> None:
    """Without the digest of the manifest, and in pieces as they come off a line."""
    plain, layout = noise(size), Layout(size, 2 * CHUNK)
    context, opener = part_context(ID, PATH, 0, layout), PartOpener()
    sealed = sealed_by_the_library(plain, 2 * CHUNK)

    def opened(data: bytes) -> bytes:
        written = bytearray()
        opener.open([data[:70], data[70:9000], data[9000:]], size, KEY, context, PATH, written.extend)
        return bytes(written)

    assert opened(sealed) == plain
    for place in range(len(sealed)):
        bad = bytearray(sealed)
        bad[place] ^= 1 << place % 8
        for data in (bytes(bad), sealed[:place]):
            with pytest.raises(IntegrityError):
                opened(data)
    with pytest.raises(IntegrityError, match="cut off or extended"):
        opened(sealed + b"\0")


def test_truncation_hidden_by_a_changed_manifest_is_an_error() -> None:
    """Whoever shortens both the file and the (unsigned, here) entry still meets the size in the context."""
    for size in (0, 1, 100, CHUNK - 1, CHUNK, CHUNK + 39):
        entry = entry_for(size, CHUNK)
        with pytest.raises(IntegrityError):
            SealedFile(
                BytesBlob(SMALL_SEALED[: entry.sealed_size].ljust(entry.sealed_size, b"\0")), ID, entry, KEY
            ).read_at(0, size)


def test_a_plaintext_object_in_place_of_a_sealed_one_is_refused() -> None:
    with pytest.raises(NotSealedError, match="not sealed"):
        SealedFile(BytesBlob(SMALL), ID, SMALL_ENTRY, KEY)


@pytest.mark.parametrize(
    ("attack", "change"),
    [
        ("key of another file", {"key": FileKey(bytes(32))}),
        ("file of another artifact", {"artifact": "artifact-2"}),
        ("file under another path", {"path": "dir/other.bin"}),
        ("parts of another size", {"part": 2 * CHUNK}),
    ],
)
def test_bytes_from_elsewhere_do_not_open(attack: str, change: dict[str, Any]) -> None:
    plain = noise(4 * CHUNK)
    entry = entry_for(len(plain), change.get("part", CHUNK), path=change.get("path", PATH))
    sealed = sealed_by_the_library(plain, CHUNK)[: entry.sealed_size].ljust(entry.sealed_size, b"\0")
    file = SealedFile(BytesBlob(sealed), change.get("artifact", ID), entry, change.get("key", KEY))
    with pytest.raises(WrongKeyError):
        file.read()


@pytest.mark.parametrize("order", [[1, 0, 2], [0, 0, 2], [0, 2, 2], [2, 1, 0]])
def test_parts_swapped_or_doubled_do_not_open(order: list[int]) -> None:
    plain = noise(3 * CHUNK)
    sealed, size = sealed_by_the_library(plain, CHUNK), sealed_size(CHUNK)
    parts = [sealed[i * size : (i + 1) * size] for i in range(3)]
    file = SealedFile(BytesBlob(b"".join(parts[i] for i in order)), ID, entry_for(len(plain), CHUNK), KEY)
    with pytest.raises(WrongKeyError):
        file.readall()


@pytest.mark.parametrize("length", [0, 1, CHUNK - 1, CHUNK, BLOCK + 1, 2 * BLOCK])
def test_a_part_is_sealed_in_place_and_a_whole_one_is_sent_without_a_copy(length: int, tmp_path: Any) -> None:
    plain, layout = noise(length), Layout(length, 2 * BLOCK)
    (tmp_path / "plain").write_bytes(plain)
    sealer, context = PartSealer(2 * BLOCK), part_context(ID, PATH, 0, layout)
    with (tmp_path / "plain").open("rb") as file:
        for _ in range(2):  # into the same buffers
            part = sealer.seal(file.fileno(), 0, length, KEY, context, PATH)
            assert open_bytes(KEY, context, part.sealed, PATH) == bytes(part.plain) == plain
            assert hashlib.sha256(part.sealed).hexdigest() == part.sha256
    assert (body_of(part.sealed) is part.sealed.obj) == (length == 2 * BLOCK)


def test_sealing_a_part_again_draws_a_fresh_salt() -> None:
    heads = {sealed_by_the_library(b"same", CHUNK)[:24] for _ in range(50)}
    assert len(heads) == 50


def test_a_local_file_opens_by_its_path(tmp_path: Any) -> None:
    place = tmp_path / "sealed"
    place.write_bytes(SMALL_SEALED)
    with open_sealed(place, ID, SMALL_ENTRY, KEY) as file, io.BufferedReader(file) as buffered:
        assert buffered.read(10) == SMALL[:10]
        buffered.seek(-5, os.SEEK_END)
        assert buffered.read() == SMALL[-5:]


def test_a_sealed_file_never_shows_its_key() -> None:
    file = opened(b"abc", CHUNK)
    assert KEY.raw.hex() not in repr(file) + repr(KEY) + repr(vars(file))
