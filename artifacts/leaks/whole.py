"""Tier 3: the whole file against the whole reference, in the place that holds the reference.

Required before anyone is accused. Every weight is compared, also in layouts that ranges cannot follow: column-major storage,
transposed and fused matrices, padded vocabularies, compressed archives, and neurons that were permuted and sign-flipped.
A public parent's weights are projected out: what counts is what the suspect shares with the artifact *beside* the parent.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from artifacts.leaks import rows as kept
from artifacts.leaks.aligned import MIN_AGREEMENT, assign
from artifacts.leaks.dtypes import F32
from artifacts.leaks.errors import UnreadableError, shown
from artifacts.leaks.matching import ListedFile, exact
from artifacts.leaks.references import ReferenceSet
from artifacts.leaks.sketch import MATCH_R, passes
from artifacts.leaks.sources import Budget, ByteSource, Ledger, LocalSource
from artifacts.leaks.suspects.opening import Suspect, open_file
from artifacts.leaks.suspects.tensor import Matrix as Piece
from artifacts.leaks.suspects.tensor import SuspectTensor, matrix_layout, read_pieces
from artifacts.leaks.unpacking import unpacked
from artifacts.leaks.verdict import ArtifactFinding, ExactEvidence, Outcome, TensorEvidence, Verdict, judge

PROBES = 8192
MAX_MATRIX = 1 << 30
MAX_SECONDS = 24 * 3600.0
MAX_ASSIGNED = 20_000
CERTAIN_R = 0.5  # no second matrix comes near: the search for a better one ends
MIN_ROW_AGREEMENT = 4.5  # in standard errors of a chance correlation


@dataclass(frozen=True)
class WholeMatrix:
    """A matrix on disk that is read as a whole when it is needed.

    Attributes:
        name: of its tensor, printable.
        tensor: its tensor's own name.
        rows, cols: as it is stored.
        load: the values, (rows, cols).
        piece: where they lie.
    """

    name: str
    tensor: str
    rows: int
    cols: int
    load: Callable[[], F32]
    piece: Piece | None = None

    def first_rows(self, count: int) -> F32:
        """The values of its first rows, and nothing else read, (count, cols)."""
        if self.piece is None or self.piece.tensor.transposed:
            return self.load()[:count]
        (values,) = read_pieces([(self.piece, 0, count * self.cols)])
        return values.reshape(count, self.cols)


@dataclass(frozen=True)
class Pair:
    """A suspect matrix and the reference matrix that it was found to be, with the way to put it into its order."""

    suspect: WholeMatrix
    reference: WholeMatrix
    r: float
    z: float
    ordered: Callable[[], F32]


class Model:
    """All matrices of some files: of this machine, or read from wherever a `ByteSource` reads them."""

    def __init__(self, files: Sequence[Path | ByteSource], ledger: Ledger | None = None) -> None:
        self._budget = Budget(1 << 62, 1 << 62, MAX_SECONDS)
        self._sources: list[LocalSource] = []
        suspect = Suspect()
        try:
            for file in files:
                if isinstance(file, Path):
                    source = LocalSource(file, self._budget, ledger or Ledger())
                    self._sources.append(source)
                    open_file(source, suspect)
                else:
                    open_file(file, suspect)
        except UnreadableError:
            self.close()
            raise
        self.problems = [p.reason for p in suspect.problems if p.size]
        self.opaque = [t.name for t in suspect.tensors if t.codec is None and len(t.shape) > 1]
        self.matrices = [m for t in suspect.tensors if t.codec is not None for m in _matrices(t)]

    def close(self) -> None:
        """Close the files."""
        for source in self._sources:
            source.close()


def _matrices(tensor: SuspectTensor) -> Iterator[WholeMatrix]:
    for index, rows, cols, base in matrix_layout(tensor.shape):
        if rows * cols > MAX_MATRIX:
            continue
        piece = Piece(tensor, index, rows, cols, base)
        yield WholeMatrix(piece.label, tensor.name, rows, cols, _loader(piece), piece)


def _loader(piece: Piece) -> Callable[[], F32]:
    def load() -> F32:
        (values,) = read_pieces([(piece, 0, piece.rows * piece.cols)])
        if piece.tensor.transposed:
            return np.ascontiguousarray(values.reshape(piece.cols, piece.rows).T)
        return values.reshape(piece.rows, piece.cols)

    return load


def pearson(x: F32, y: F32) -> tuple[float, float]:
    """Pearson r and z (see `sketch`) of two arrays of one shape."""
    a = x.astype(np.float64).reshape(-1)
    b = y.astype(np.float64).reshape(-1)
    a -= a.mean()
    b -= b.mean()
    product = a * b
    # einsum, not BLAS: its threads cost milliseconds each time on a busy machine, for sums that take microseconds.
    total, squares = float(product.sum()), float(np.einsum("i,i->", product, product))
    norm = float(np.einsum("i,i->", a, a)) * float(np.einsum("i,i->", b, b))
    return (total / math.sqrt(norm) if norm > 0 else 0.0), (
        total / math.sqrt(squares) if squares > 0 else 0.0
    )


def less(x: F32, parent: F32) -> F32:
    """What is left of a matrix when its parent is projected out."""
    p = parent.astype(np.float64)
    share = float((x * p).sum()) / (float((p * p).sum()) or 1.0)
    return (x - share * p).astype(np.float32)


def _views(suspect: WholeMatrix, values: F32, rows: int, cols: int) -> Iterator[tuple[str, F32]]:
    """The ways in which a stored matrix may hold one of (rows, cols): as it is, transposed, fused with others, padded."""
    for how, array in (("", values), (" transposed", values.T)):
        if array.shape == (rows, cols):
            yield how, array
        elif array.shape[1] == cols and array.shape[0] % rows == 0 and array.shape[0] // rows <= 4:
            for part in range(array.shape[0] // rows):
                yield f"{how} part {part}", array[part * rows : (part + 1) * rows]
        elif array.shape[1] == cols and 0 < (array.shape[0] - rows) * 20 <= rows:
            yield f"{how} less padding", array[:rows]


class _Reference:
    """One model to compare with, and a probe of each of its matrices: the same few thousand weights of every shape."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._probes: dict[tuple[int, int], list[tuple[WholeMatrix, F32]]] = {}
        for matrix in model.matrices:
            picked = matrix.load().reshape(-1)[_places(matrix.rows, matrix.cols)]
            self._probes.setdefault((matrix.rows, matrix.cols), []).append((matrix, picked - picked.mean()))

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Every shape there is."""
        return list(self._probes)

    def named(self, name: str) -> WholeMatrix | None:
        """The matrix of a name."""
        return next((m for m in self.model.matrices if m.name == name), None)

    def nearest(self, values: F32) -> tuple[WholeMatrix, float]:
        """The matrix of the same shape whose probe correlates best."""
        picked = values.reshape(-1)[_places(*values.shape)]
        picked = picked - picked.mean()
        best, best_r = self._probes[values.shape][0][0], -2.0
        for matrix, probe in self._probes[values.shape]:
            r = pearson(picked, probe)[0]
            if r > best_r:
                best, best_r = matrix, r
        return best, best_r


def _places(rows: int, cols: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([rows, cols]).integers(0, rows * cols, PROBES)


def pairs(suspect: Model, reference: Model) -> list[Pair]:
    """Every suspect matrix that is one of the reference's, in whatever layout or order; best first for each reference."""
    held = _Reference(reference)
    out: list[Pair] = []
    rest: list[WholeMatrix] = []
    for matrix in suspect.matrices:
        found = list(_direct(matrix, held))
        out.extend(found)
        if not found:
            rest.append(matrix)
    axis = _hidden_axis(rest, held)
    if axis is not None:
        out.extend(p for m in rest for p in _reordered(m, held, axis))
    best: dict[str, Pair] = {}
    for pair in sorted(out, key=lambda p: -p.r):
        best.setdefault(pair.reference.name, pair)
    return list(best.values())


def _direct(matrix: WholeMatrix, held: _Reference) -> Iterator[Pair]:
    values = matrix.load()
    for rows, cols in held.shapes:
        for how, view in _views(matrix, values, rows, cols):
            reference, guess = held.nearest(np.ascontiguousarray(view))
            if guess < 0.05:
                continue
            r, z = pearson(np.ascontiguousarray(view), reference.load())
            if passes(r, z):
                named = replace(matrix, name=matrix.name + how)
                yield Pair(named, reference, r, z, _again(matrix, rows, cols, how))


def _again(matrix: WholeMatrix, rows: int, cols: int, how: str) -> Callable[[], F32]:
    def ordered() -> F32:
        return next(np.ascontiguousarray(v) for h, v in _views(matrix, matrix.load(), rows, cols) if h == how)

    return ordered


Axis = tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]


def _hidden_axis(matrices: Sequence[WholeMatrix], held: _Reference) -> Axis | None:
    """Order and signs of the hidden axis, from the largest embedding table that both have."""
    for matrix in sorted(matrices, key=lambda m: -m.rows):
        for rows, cols in held.shapes:
            if (
                matrix.cols != cols
                or rows < kept.MIN_EMBEDDING_ROWS
                or rows < 6 * cols
                or not 0 <= matrix.rows - rows <= rows // 20
            ):
                continue
            ours = next(m for m in held.model.matrices if (m.rows, m.cols) == (rows, cols)).load()
            picked = np.linspace(0, rows - 1, min(rows, 4096)).astype(np.intp)
            a, b = _unit(kept.scale_rows(ours[picked])), _unit(kept.scale_rows(matrix.load()[picked]))
            agreement = a.T @ b
            order = assign(np.abs(agreement))
            chosen = agreement[np.arange(cols), order]
            if float(np.median(np.abs(chosen))) >= MIN_AGREEMENT:
                return order, np.where(chosen < 0, -1.0, 1.0).astype(np.float32)
    return None


def _unit(x: F32) -> F32:
    x = x - x.mean(axis=0, keepdims=True)
    norm = np.sqrt(np.sum(x * x, axis=0, keepdims=True))
    return np.asarray(x / np.where(norm > 0, norm, 1.0), np.float32)


def _reordered(matrix: WholeMatrix, held: _Reference, axis: Axis) -> Iterator[Pair]:
    """Matrices on the permuted hidden axis; the other axis is found on half of the weights and tested on the other half."""
    best: Pair | None = None
    for flip in (False, True):
        if (matrix.rows if flip else matrix.cols) != len(axis[0]):
            continue
        theirs = _hidden_last(matrix, axis, flip=flip)
        for reference in held.model.matrices:
            if (reference.rows, reference.cols) != (matrix.rows, matrix.cols):
                continue
            found = _order_of_rows(theirs, _maybe_t(reference.load(), flip))
            if found is None:
                continue
            r, z, rows = found
            if passes(r, z) and (best is None or r > best.r):
                named = replace(matrix, name=f"{matrix.name} reordered")
                best = Pair(named, reference, r, z, _put_back(matrix, axis, rows, flip=flip))
                if r >= CERTAIN_R:
                    yield best
                    return
    if best is not None:
        yield best


def _maybe_t(values: F32, flip: bool) -> F32:
    return np.ascontiguousarray(values.T) if flip else values


def _hidden_last(matrix: WholeMatrix, axis: Axis, *, flip: bool) -> F32:
    return np.ascontiguousarray(_maybe_t(matrix.load(), flip)[:, axis[0]] * axis[1])


def _order_of_rows(theirs: F32, ours: F32) -> tuple[float, float, Axis] | None:
    """Order and signs of rows from the even columns, r and z from the odd ones."""
    if len(ours) > MAX_ASSIGNED:  # a vocabulary: its order is the tokenizer's
        r, z = pearson(theirs, ours)
        return r, z, (np.arange(len(ours)), np.ones(len(ours), np.float32))
    finding = _unit(kept.scale_rows(ours)[:, ::2].T).T @ _unit(kept.scale_rows(theirs)[:, ::2].T)
    # Rows of unrelated matrices agree by chance only: do not work out an assignment of noise.
    if float(np.median(np.abs(finding).max(axis=1))) * math.sqrt(ours.shape[1] / 2) < MIN_ROW_AGREEMENT:
        return None
    order = assign(np.abs(finding))
    signs = np.where(finding[np.arange(len(order)), order] < 0, -1.0, 1.0).astype(np.float32)
    r, z = pearson(theirs[order][:, 1::2] * signs[:, None], ours[:, 1::2])
    return r, z, (order, signs)


def _put_back(matrix: WholeMatrix, axis: Axis, rows: Axis, *, flip: bool) -> Callable[[], F32]:
    def ordered() -> F32:
        values = _hidden_last(matrix, axis, flip=flip)[rows[0]] * rows[1][:, None]
        return _maybe_t(values, flip)

    return ordered


def compare_whole(
    suspect: Sequence[Path],
    artifact: str,
    reference: Sequence[Path],
    *,
    parents: Mapping[str, Sequence[Path]] | None = None,
    references: ReferenceSet | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Verdict:
    """Tier 3 on files of this machine.

    Args:
        suspect: the suspect's files.
        artifact: id of the reference.
        reference: the reference's files, in clear.
        parents: public parents' names and files; what the suspect shares with them is projected out.
        references: where given, names key and signatures in the document.
        now: the clock that goes into the document.

    Returns:
        A verdict of tier 3 with r and z over every weight.
    """
    started, clock = now(), time.monotonic()
    ledger = Ledger(now=now)
    reasons: list[str] = []
    evidence: list[TensorEvidence] = []
    proof: tuple[ExactEvidence, ...] = ()
    compared = 0
    try:
        limit = 4 * sum(p.stat().st_size for p in reference) + (1 << 30)
        with unpacked(suspect, limit) as files, contextlib.ExitStack() as stack:
            if references is not None:
                listed = [ListedFile(shown(p), p.stat().st_size, sha256=_sha256(p)) for p in files]
                proof = tuple(e for f in exact(listed, references) if f.artifact == artifact for e in f.exact)
            theirs, ours = Model(files, ledger), Model(reference)
            stack.callback(theirs.close)
            stack.callback(ours.close)
            public = {n: Model(paths) for n, paths in (parents or {}).items()}
            for model in public.values():
                stack.callback(model.close)
            reasons.extend(theirs.problems)
            if theirs.opaque:
                reasons.append(f"{len(theirs.opaque)} matrices are in formats that cannot be decoded")
            for pair in pairs(theirs, ours):
                held = TensorEvidence(
                    pair.suspect.name, pair.reference.name, _shape(pair), pair.r, pair.z, True
                )
                for name, model in public.items():
                    held = _beside(held, pair, name, model)
                evidence.append(held)
            compared = len(theirs.matrices)
    except UnreadableError as error:
        reasons.append(str(error))
    except OSError as error:
        reasons.append(f"a file cannot be read: {error.strerror}")
    explained = sum(e.parent is not None for e in evidence)
    matched = sum(e.matched for e in evidence)
    outcome = Outcome.MATCH if proof else judge(max(compared - explained, matched), matched)
    if outcome is Outcome.NO_MATCH and reasons:
        outcome = Outcome.INCONCLUSIVE
    finding = ArtifactFinding(
        artifact, outcome, 3, compared - explained, matched, explained, exact=proof, tensors=tuple(evidence)
    )
    return Verdict(
        target=", ".join(shown(p, 200) for p in suspect),
        outcome=outcome,
        findings=(finding,),
        reasons=tuple(reasons),
        started=started.isoformat(timespec="milliseconds"),
        seconds=time.monotonic() - clock,
        bytes_read=sum(a.length for a in ledger.accesses),
        requests=len(ledger.accesses),
        key_id=references.key.key_id if references else "",
        signatures=references.digests if references else {},
        accesses=tuple(ledger.accesses),
    )


def _shape(pair: Pair) -> tuple[int, int]:
    return pair.reference.rows, pair.reference.cols


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _beside(evidence: TensorEvidence, pair: Pair, name: str, parent: Model) -> TensorEvidence:
    """The evidence with a public parent projected out of both sides."""
    same = [m for m in parent.matrices if (m.rows, m.cols) == _shape(pair)]
    ours, theirs = pair.reference.load(), pair.ordered()
    near = max(((pearson(ours, m.load())[0], m) for m in same), key=lambda f: f[0], default=None)
    if near is None or near[0] < MATCH_R:
        return evidence
    public = near[1].load()
    r, z = pearson(less(theirs, public), less(ours, public))
    held = evidence.matched and passes(r, z)
    shared = pearson(theirs, public)[0]
    return replace(evidence, r=r, z=z, matched=held, parent=None if held else name, parent_r=shared)
