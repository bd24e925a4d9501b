"""A sealed artifact as a source of marked plaintext: what `seal_tree` reads when a partner's copy is made.

Reads may come in any order and from several threads, as sealing by parts and resuming need it: the mark of a row hangs on
the row alone. The plaintext passes through memory a window at a time, and is nowhere written. Every 2-D weight matrix of
the marked files is marked; other files of the copy stay as they are.

A marked component holds safetensors: weights in another format beside it would be an unmarked copy, and are refused.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from artifacts.body import Plaintext
from artifacts.leaks.digests import ALL_DIGESTS, FileDigests, StreamDigests
from artifacts.leaks.dtypes import PLAIN
from artifacts.leaks.errors import MarkError, UnreadableError, shown
from artifacts.leaks.marks import PartnerMark, markable
from artifacts.leaks.sources import check_range
from artifacts.leaks.suspects import safetensors
from artifacts.manifest import FileEntry
from artifacts.opened import OpenedArtifact
from artifacts.reader import SealedFile
from artifacts.source import PlainFile

WINDOW = 4 * 1024 * 1024
"""Marked plaintext bytes made at a time, per thread."""

WEIGHT_SUFFIXES = (
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".gguf",
    ".ggml",
    ".npz",
    ".npy",
    ".h5",
    ".onnx",
    ".msgpack",
)


@dataclass(frozen=True, slots=True)
class _CopiedFile:
    """One sealed file as plaintext, marked or as it is."""

    artifact: OpenedArtifact = field(repr=False)
    entry: FileEntry = field(repr=False)
    mark: PartnerMark | None = None

    @property
    def path(self) -> str:
        return self.entry.path

    @property
    def size(self) -> int:
        return self.entry.size

    @property
    def identity(self) -> tuple[int | str, ...]:
        own = (self.artifact.manifest.digest, self.entry.parts_digest())
        if self.mark is None:
            return own
        commitment = self.mark.key.commitment(self.mark.artifact)
        return (*own, commitment, self.mark.artifact, self.mark.partner, repr(self.mark.strength))

    def open(self) -> Plaintext:
        sealed = self.artifact.open(self.path)
        return MarkedWindows(sealed, self.mark, self.path)

    def check(self, opened: Plaintext) -> None:
        """Nothing to look at: a changed chunk does not open."""


class MarkedWindows:
    """Positioned reads of one file with its mark, through one window per thread.

    Args:
        file: the sealed file, open.
        mark: whose copy it becomes; None reads it as it is.
        path: for messages.

    Raises:
        MarkError: the file is not safetensors.
    """

    def __init__(self, file: SealedFile, mark: PartnerMark | None, path: str) -> None:
        self._file, self._mark = file, mark
        self._mine = threading.local()
        self._entries = [] if mark is None else _entries(file, path)
        self._starts = [entry.offset for entry in self._entries]

    @property
    def marked_tensors(self) -> int:
        """How many matrices carry the mark."""
        return len(self._entries)

    def read_at(self, into: memoryview, offset: int) -> int:
        """See `artifacts.body.ReadsAt`."""
        count = min(len(into), self._file.size - offset)
        if count <= 0:
            return 0
        start, window = getattr(self._mine, "at", (0, b""))
        if not start <= offset < start + len(window):
            start = offset
            window = self._window(start, min(WINDOW, self._file.size - start))
            self._mine.at = (start, window)
        piece = window[offset - start : offset - start + count]
        into[: len(piece)] = piece
        return len(piece)

    def _window(self, start: int, length: int) -> bytes:
        """`length` bytes from `start` on, marked. Rows that lie across the window's ends are read whole."""
        end = start + length
        first = max(bisect.bisect_right(self._starts, start) - 1, 0)
        touched = [e for e in self._entries[first:] if e.offset < end and e.offset + e.nbytes > start]
        if not touched or self._mark is None:
            return self._file.read_at(start, length)
        low, high = _whole_rows(touched[0], start, down=True), _whole_rows(touched[-1], end, down=False)
        low, high = min(low, start), max(high, end)
        data = bytearray(self._file.read_at(low, high - low))
        for entry in touched:
            row = entry.shape[1] * PLAIN[entry.dtype].size
            begin = max(entry.offset, entry.offset + (max(low - entry.offset, 0) // row) * row)
            stop = min(entry.offset + entry.nbytes, entry.offset + (high - entry.offset) // row * row)
            marker = self._mark.tensor(
                entry.name, entry.dtype, first=(begin - entry.offset) // PLAIN[entry.dtype].size
            )
            data[begin - low : stop - low] = marker.rows(
                bytes(data[begin - low : stop - low]), entry.shape[1]
            )
        return bytes(data[start - low : end - low])

    def close(self) -> None:
        """Forget the windows."""
        self._mine = threading.local()
        self._file.close()


def _whole_rows(entry: safetensors.Entry, at: int, *, down: bool) -> int:
    """The nearest row boundary of a tensor at or before (or at or behind) a place in the file."""
    inside = min(max(at - entry.offset, 0), entry.nbytes)
    row = entry.shape[1] * PLAIN[entry.dtype].size
    return entry.offset + (inside // row if down else -(-inside // row)) * row


def _entries(file: SealedFile, path: str) -> list[safetensors.Entry]:
    try:
        if not safetensors.looks_like(file.read_at(0, min(9, file.size)), file.size):
            raise MarkError(f"{shown(path)}: only safetensors files can be marked")
        length = safetensors.header_length(file.read_at(0, 8), file.size)
        found = safetensors.parse_header(file.read_at(8, length), file.size)
    except UnreadableError as error:
        raise MarkError(f"{shown(path)}: {error}") from error
    return [entry for entry in found if markable(entry.dtype, entry.shape)]


class MarkedTree:
    """The disclosed files of an opened artifact as one partner's copy, for `seal_tree`.

    Args:
        artifact: opened with the keys of what the copy holds.
        marks: component → its mark; other components are copied as they are.

    Raises:
        MarkError: a marked component holds weights in a format that cannot be marked, or none at all.
    """

    def __init__(self, artifact: OpenedArtifact, marks: dict[str, PartnerMark]) -> None:
        self._artifact, self._marks = artifact, marks
        for component in sorted(marks):
            self._check(component)

    def _check(self, component: str) -> None:
        there = [e.path for e in self._artifact.manifest.of_components([component])]
        foreign = [path for path in there if path.lower().endswith(WEIGHT_SUFFIXES)]
        if foreign:
            raise MarkError(
                f"{shown(foreign[0])}: only safetensors files can be marked, and beside them it would be an unmarked copy; "
                f"seal `{component}` without it"
            )
        marked = 0
        for path in there:
            if path.endswith(".safetensors"):
                with self._artifact.open(path) as file:
                    marked += len(_entries(file, path))
        if not marked:
            raise MarkError(
                f"`{component}` holds no matrix of fp32, fp16 or bf16 weights that could be marked"
            )

    @property
    def label(self) -> str:
        """Names the old artifact in tickets and errors."""
        return f"artifact {self._artifact.manifest.artifact_id}"

    def scan(self) -> list[PlainFile]:
        """See `artifacts.source.PlainTree`."""
        files: list[PlainFile] = []
        for path in self._artifact.paths():
            entry = self._artifact.manifest.file(path)
            mark = self._marks.get(entry.component) if path.endswith(".safetensors") else None
            files.append(_CopiedFile(self._artifact, entry, mark))
        return files


class SealedSource:
    """A sealed file as tier 3 reads it (`sources.ByteSource`): opened as it is read, nothing on disk."""

    def __init__(self, file: SealedFile, path: str) -> None:
        self._file, self._path = file, path

    @property
    def location(self) -> str:
        """Its path in the artifact."""
        return shown(self._path)

    @property
    def size(self) -> int:
        """Of the plaintext."""
        return self._file.size

    @property
    def bytes_left(self) -> int:
        """No budget: it is our own."""
        return 1 << 62

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`."""
        check_range(self.location, self.size, offset, length)
        return self._file.read_at(offset, length)

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several ranges, one after the other."""
        return [self.read(offset, length) for offset, length in ranges]


class IssuedDigests:
    """Takes the exact digests of a copy while it is sealed (a `SealingObserver`); they stay sealed in the manifest.

    Args:
        copy: whose copy it is.
        wanted: which digests beside SHA-256.
    """

    name = "issued"

    def __init__(self, copy: str, wanted: frozenset[str] = ALL_DIGESTS - {"crc32"}) -> None:
        self._copy, self._wanted = copy, wanted

    def begin(self, path: str, component: str, size: int) -> _DigestObserver:
        """An observer for one file."""
        return _DigestObserver(path, self._wanted, self._copy)


class _DigestObserver:
    def __init__(self, path: str, wanted: frozenset[str], copy: str) -> None:
        self._stream, self._copy = StreamDigests(path, wanted), copy

    def update(self, offset: int, data: memoryview) -> None:
        """The next bytes."""
        self._stream.update(data)

    def finish(self) -> dict[str, Any]:
        """The digests as JSON."""
        return issued_to_json(self._stream.finish(copy=self._copy))


def issued_to_json(found: FileDigests) -> dict[str, Any]:
    """An issued file's digests as they stand in manifests and in the log."""
    return {
        "path": found.path,
        "size": found.size,
        "sha256": found.sha256,
        "btv2_root": found.btv2_root,
        "xet_hash": found.xet_hash,
    }


def issued_from_json(value: dict[str, Any], copy: str, distinctive: Collection[str] = ()) -> FileDigests:
    """What `issued_to_json` gave, as tier 0 compares it.

    Args:
        value: of one file.
        copy: whose copy it is.
        distinctive: paths whose having means having what is withheld; safetensors files always are.
    """
    path = str(value["path"])
    return FileDigests(
        path=path,
        size=int(value["size"]),
        sha256=str(value["sha256"]),
        btv2_root=value.get("btv2_root"),
        xet_hash=value.get("xet_hash"),
        distinctive=path in distinctive or path.endswith(".safetensors"),
        copy=copy,
    )
