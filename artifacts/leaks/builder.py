"""`SignatureBuilder`: makes a weight signature while the plaintext passes by once, on its way into the seal.

Bytes of each file are fed in ranges. Ranges may arrive somewhat out of order (parts sealed in parallel); what is ahead is
held back up to `reorder_limit`, because digests are of the bytes in order. Of the weights only the sampled ones are kept.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from artifacts.leaks import rows as aligned
from artifacts.leaks.digests import ALL_DIGESTS, FileDigests, StreamDigests
from artifacts.leaks.dtypes import PLAIN
from artifacts.leaks.errors import HostileError, SignatureError, shown
from artifacts.leaks.signature import (
    SIZE_AIM,
    EmbeddingRows,
    MatrixSketch,
    ProjectedRows,
    WeightSignature,
    thinned,
)
from artifacts.leaks.sketch import (
    F32,
    SAMPLES,
    WINDOW,
    WINDOWS,
    SketchKey,
    normalise,
    quantise,
    structured,
)
from artifacts.leaks.suspects import safetensors
from artifacts.leaks.suspects.tensor import matrix_layout

MAX_CANDIDATES = 40  # per file; projecting rows costs time, and few matrices are kept in the end
ROW_BATCH = 64
MAX_SIZE = 1 << 62  # the size of a file being sealed is not known before its end


@dataclass(slots=True)
class _Capture:
    """Bytes to keep from a file, and what to do with them once they are all there."""

    offset: int
    length: int
    done: Callable[[bytes], None]
    buffer: bytearray | None = None
    filled: int = 0


@dataclass
class _File:
    """What is known of one file while it passes by."""

    digests: StreamDigests
    offset: int = 0
    pending: dict[int, bytes] = field(default_factory=dict)
    held: int = 0
    head: bytearray | None = field(default_factory=bytearray)
    captures: list[_Capture] = field(default_factory=list)
    next_capture: int = 0
    open: list[_Capture] = field(default_factory=list)
    data_end: int = 0
    is_weights: bool = False


@dataclass
class _Sampled:
    name: str
    index: int
    rows: int
    cols: int
    windows: list[F32 | None]

    def add(self, n: int, decode: Callable[[bytes], F32], data: bytes) -> None:
        """Take window `n`."""
        self.windows[n] = decode(data)


@dataclass
class _Rows:
    name: str
    rows: int
    cols: int
    decode: Callable[[bytes], F32]
    matrix: F32 | None
    held: list[F32 | None]
    waiting: list[tuple[int, bytes]] = field(default_factory=list)

    def add(self, n: int, data: bytes) -> None:
        """Take row `n`; rows are decoded and projected in batches, one by one costs ten times as much."""
        self.waiting.append((n, data))
        if len(self.waiting) >= ROW_BATCH:
            self.flush()

    def flush(self) -> None:
        """Work off what is waiting."""
        if not self.waiting:
            return
        values = self.decode(b"".join(data for _, data in self.waiting)).reshape(-1, self.cols)
        if self.matrix is not None:
            values = aligned.scale_rows(values) @ self.matrix
        for (n, _), row in zip(self.waiting, values, strict=True):
            self.held[n] = row
        self.waiting.clear()

    def stacked(self) -> F32:
        """All rows; every one was fed, `finish_file` checked."""
        self.flush()
        return np.stack([row for row in self.held if row is not None])


class SignatureBuilder:
    """Collects one artifact's signature. Thread-safe: ranges of different files may be fed from different threads."""

    def __init__(
        self,
        artifact: str,
        key: SketchKey,
        *,
        digests: frozenset[str] = ALL_DIGESTS,
        reorder_limit: int = 256 << 20,
        size_aim: int = SIZE_AIM,
    ) -> None:
        """Start a signature.

        Args:
            artifact: id of the artifact, as verdicts will name it.
            key: fixes the sampled positions.
            digests: which exact digests to compute beside SHA-256 (see `digests.StreamDigests`).
            reorder_limit: bytes of all files together that may wait for earlier ones.
            size_aim: the rows for tier 2 are thinned until the signature is smaller than this.
        """
        self._artifact = artifact
        self._key = key
        self._wanted = digests
        self._limit = reorder_limit
        self._aim = size_aim
        self._files: dict[str, _File] = {}
        self._finished: list[FileDigests] = []
        self._done: set[str] = set()
        self._sampled: list[_Sampled] = []
        self._embeddings: list[_Rows] = []
        self._projected: list[_Rows] = []
        self._projectors: dict[int, F32] = {}
        self._shapes: dict[tuple[int, int], list[str]] = {}
        self._weights = 0
        self._held = 0
        self._lock = threading.RLock()

    def feed(self, path: str, offset: int, data: bytes | memoryview) -> None:
        """Take the plaintext bytes of `path` at `offset`. Each byte exactly once.

        Raises:
            SignatureError: for bytes fed twice, after the file's end, or too far ahead of what is missing.
        """
        with self._lock:
            if path in self._done:
                raise SignatureError(f"{shown(path)}: fed after it was finished")
            file = self._files.get(path) or self._start(path)
            if offset != file.offset:
                self._hold(path, file, offset, data)
                return
            self._take(path, file, data)
            while file.offset in file.pending:
                ahead = file.pending.pop(file.offset)
                self._held -= len(ahead)
                self._take(path, file, ahead)
            if any(at < file.offset for at in file.pending):
                raise SignatureError(f"{shown(path)}: overlapping ranges were fed")

    def _start(self, path: str) -> _File:
        file = _File(StreamDigests(path, self._wanted))
        self._files[path] = file
        return file

    def _hold(self, path: str, file: _File, offset: int, data: bytes | memoryview) -> None:
        if offset < file.offset or offset in file.pending:
            raise SignatureError(f"{shown(path)}: bytes at {offset} were fed twice")
        if self._held + len(data) > self._limit:
            raise SignatureError(
                f"{shown(path)}: {self._held + len(data)} bytes are waiting for the ones at {file.offset}; "
                "feed nearer to the order of the file, or raise reorder_limit"
            )
        file.pending[offset] = bytes(data)
        self._held += len(data)

    def _take(self, path: str, file: _File, data: bytes | memoryview) -> None:
        file.digests.update(data)
        start = file.offset
        file.offset += len(data)
        if file.head is not None:
            file.head += data
            if not self._header(path, file):
                return
            start, data = 0, bytes(file.head)
            file.head = None
        self._capture(file, start, memoryview(data))

    def _header(self, path: str, file: _File) -> bool:
        """Try to read the header; True once the file's captures are planned (or it has none)."""
        head = file.head
        assert head is not None
        if len(head) < 9:
            return False
        try:
            if not safetensors.looks_like(bytes(head[:9]), MAX_SIZE):
                return True
            length = safetensors.header_length(bytes(head[:8]), MAX_SIZE)
            if len(head) < 8 + length:
                return False
            entries = safetensors.parse_header(bytes(head[8 : 8 + length]), MAX_SIZE)
        except HostileError as error:
            if path.endswith(".safetensors"):
                raise SignatureError(f"{shown(path)}: {error}") from error
            return True
        self._plan(file, entries)
        return True

    def _plan(self, file: _File, entries: list[safetensors.Entry]) -> None:
        for entry in entries:
            file.data_end = max(file.data_end, entry.offset + entry.nbytes)
            codec = PLAIN.get(entry.dtype)
            if codec is None:
                continue
            self._weights += entry.nbytes // codec.size
            for index, rows, cols, base in matrix_layout(entry.shape):
                file.is_weights = True
                self._shapes.setdefault((rows, cols), []).append(entry.name)
                sampled = _Sampled(entry.name, index, rows, cols, [None] * WINDOWS)
                self._sampled.append(sampled)
                for n, start in enumerate(self._key.starts(rows, cols)):
                    at = entry.offset + (base + start) * codec.size
                    file.captures.append(
                        _Capture(at, WINDOW * codec.size, partial(sampled.add, n, codec.decode))
                    )
        self._plan_rows(
            file, [e for e in entries if e.dtype in PLAIN and len(e.shape) == 2 and e.shape[1] >= 64]
        )
        file.captures.sort(key=lambda c: c.offset)

    def _plan_rows(self, file: _File, entries: list[safetensors.Entry]) -> None:
        """Plan the rows for tier 2: of embedding tables, and of a keyed choice of the matrices beside them."""
        tables = [e for e in entries if e.shape[0] >= max(aligned.MIN_EMBEDDING_ROWS, 6 * e.shape[1])]
        others = [e for e in entries if e not in tables and e.shape[0] >= 64]
        # Shapes that few matrices have are kept completely, so that shuffled layers are found among them whatever their order.
        group = Counter(e.shape for e in others)
        keyed = self._key.order("candidates", len(others), len(self._projected))
        order = sorted(
            keyed, key=lambda n: (others[n].shape[0] > 4 * aligned.PROJECTED_ROWS, group[others[n].shape])
        )
        for entry in tables[:4]:
            self._want_rows(file, entry, aligned.embedding_row_ids(self._key, *entry.shape), self._embeddings)
        for number in order[:MAX_CANDIDATES]:
            entry = others[int(number)]
            self._want_rows(file, entry, aligned.projected_row_ids(self._key, *entry.shape), self._projected)

    def _want_rows(
        self, file: _File, entry: safetensors.Entry, ids: npt.NDArray[np.intp], kind: list[_Rows]
    ) -> None:
        rows, cols = entry.shape
        codec = PLAIN[entry.dtype]
        matrix = None if kind is self._embeddings else self._projector(cols)
        held = _Rows(entry.name, rows, cols, codec.decode, matrix, [None] * len(ids))
        kind.append(held)
        for n, row in enumerate(ids):
            at = entry.offset + int(row) * cols * codec.size
            file.captures.append(_Capture(at, cols * codec.size, partial(held.add, n)))

    def _projector(self, cols: int) -> F32:
        if cols not in self._projectors:
            self._projectors[cols] = aligned.projector(self._key, cols)
        return self._projectors[cols]

    @staticmethod
    def _capture(file: _File, start: int, data: memoryview) -> None:
        end = start + len(data)
        stop = bisect_left(file.captures, end, lo=file.next_capture, key=lambda c: c.offset)
        file.open.extend(file.captures[file.next_capture : stop])
        file.next_capture = stop
        still: list[_Capture] = []
        for capture in file.open:
            a, b = max(start, capture.offset), min(end, capture.offset + capture.length)
            piece = data[a - start : b - start]
            if capture.buffer is None and len(piece) == capture.length:
                capture.done(bytes(piece))
                continue
            if capture.buffer is None:
                capture.buffer = bytearray(capture.length)
            capture.buffer[a - capture.offset : b - capture.offset] = piece
            capture.filled += len(piece)
            if capture.filled == capture.length:
                capture.done(bytes(capture.buffer))
                capture.buffer = None
            else:
                still.append(capture)
        file.open = still

    def finish_file(
        self,
        path: str,
        *,
        sha256: str | None = None,
        distinctive: bool | None = None,
        copy: str | None = None,
    ) -> FileDigests:
        """The file has ended; returns its digests.

        Args:
            path: the file.
            sha256: the digest when the caller has it already.
            distinctive: whether having this file means having what is withheld; default: it holds weight matrices.
            copy: the partner whose copy this is.

        Raises:
            SignatureError: if bytes are missing.
        """
        with self._lock:
            file = self._files.pop(path, None) or _File(StreamDigests(path, self._wanted))
            if file.pending:
                raise SignatureError(f"{shown(path)}: bytes from {file.offset} on were never fed")
            if file.is_weights and file.offset < file.data_end:
                raise SignatureError(
                    f"{shown(path)}: {file.data_end - file.offset} bytes of weights were never fed"
                )
            if file.head and path.endswith(".safetensors"):
                raise SignatureError(f"{shown(path)}: the file ends within its header")
            self._done.add(path)
            found = file.digests.finish(
                sha256=sha256, distinctive=file.is_weights if distinctive is None else distinctive, copy=copy
            )
            self._finished.append(found)
            return found

    def finish(self, *, partial: bool = False) -> WeightSignature:
        """The signature of everything that was fed.

        Args:
            partial: other files of the artifact follow: rows for tier 2 are kept although the embedding table is not here.

        Raises:
            SignatureError: if a file was not finished.
        """
        with self._lock:
            if self._files:
                raise SignatureError(f"{shown(min(self._files))}: not finished")
            sketches, left_out = self._sketches()
            kept = {(m.name, m.rows, m.cols) for m in sketches}
            embedding = self._embedding()
            signature = WeightSignature(
                artifact=self._artifact,
                key_id=self._key.key_id,
                matrices=tuple(sketches),
                embedding=embedding,
                projected=self._chosen_rows(
                    None if embedding is None else embedding.cols, kept, partial=partial
                ),
                files=tuple(self._finished),
                weights=self._weights,
                left_out=tuple(left_out),
            )
            return signature if partial else thinned(signature, self._aim)

    def abandon(self) -> None:
        """Free what unfinished files hold; the builder is of no use afterwards."""
        with self._lock:
            for file in self._files.values():
                file.digests.abandon()
            self._files.clear()

    def _sketches(self) -> tuple[list[MatrixSketch], list[str]]:
        sketches: list[MatrixSketch] = []
        left_out: list[str] = []
        seen: set[tuple[int, int, bytes]] = set()
        for item in self._sampled:
            windows = [w for w in item.windows if w is not None]
            assert len(windows) == WINDOWS, "finish_file checks that every byte was fed"
            label = item.name + (f"[{item.index}]" if item.index else "")
            if structured(np.stack([normalise(w) for w in windows]), item.cols):
                left_out.append(label)
                continue
            samples = np.stack([quantise(w) for w in windows]).reshape(SAMPLES)
            mark = (item.rows, item.cols, samples.tobytes())
            if mark in seen:
                left_out.append(label)
                continue
            seen.add(mark)
            sketches.append(MatrixSketch(item.name, item.index, item.rows, item.cols, samples))
        return sketches, left_out

    def _embedding(self) -> EmbeddingRows | None:
        for item in sorted(self._embeddings, key=lambda e: (-e.rows, aligned.natural_key(e.name))):
            return EmbeddingRows(item.name, item.rows, item.cols, aligned.quantise_embedding(item.stacked()))
        return None

    def _chosen_rows(
        self, cols: int | None, kept: set[tuple[str, int, int]], *, partial: bool
    ) -> tuple[ProjectedRows, ...]:
        """Up to 40 matrices on the hidden axis, of as many shapes as there are, spread over the depth of the model."""
        if cols is None and not partial:
            return ()
        by_shape: dict[tuple[int, int], list[_Rows]] = {}
        for item in self._projected:
            if item.cols == (cols or item.cols) and (item.name, item.rows, item.cols) in kept:
                by_shape.setdefault((item.rows, item.cols), []).append(item)
        queues: dict[tuple[int, int], list[_Rows]] = {}
        for shape, items in by_shape.items():
            items.sort(key=lambda i: aligned.natural_key(i.name))
            order = self._key.order("projected matrices", len(items), *shape)
            queues[shape] = [items[int(i)] for i in order]
        out = []
        for item in aligned.take_turns(queues, aligned.MAX_PROJECTED):
            names = sorted(self._shapes[(item.rows, item.cols)], key=aligned.natural_key)
            finding, testing = aligned.quantise_projections(item.stacked())
            out.append(
                ProjectedRows(item.name, item.rows, item.cols, names.index(item.name), finding, testing)
            )
        return tuple(out)
