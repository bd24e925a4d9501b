"""Tier 2: copies whose neurons were permuted and sign-flipped.

The order and signs of the hidden axis come from rows of the embedding table (linear assignment over its columns). They
decide nothing by themselves: embeddings of independent models align well. What decides are *other* matrices, put into that
order: their rows are found by one half of a keyed projection and tested on the other half, at tier 1's thresholds.

Not covered: rotations of a whole axis (possible inside attention heads without rotary positions), matrices stored
input-first, and a large model that was permuted, shuffled and renamed at once. Those take the whole file.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from artifacts.leaks import rows as kept
from artifacts.leaks.errors import UnreadableError, UnsupportedError
from artifacts.leaks.references import ReferenceSet
from artifacts.leaks.signature import EmbeddingRows, ProjectedRows, WeightSignature
from artifacts.leaks.sketch import F32, SketchKey, compare, passes
from artifacts.leaks.suspects.tensor import Matrix, read_pieces
from artifacts.leaks.verdict import ArtifactFinding, TensorEvidence, judge

MAX_READ = 12
READ_BYTES = 6 << 20
BLOCKS = 2
MIN_AGREEMENT = 0.4  # median |r| of assigned embedding columns; independent models stay below 0.3 at 128 rows
SIMILARITIES = (0.9, 0.8, 0.7, 0.6)
MIN_PAIRS = 4
PARENT_MARGIN = 0.05
CERTAIN_R = 0.5  # tensors inside one model stay far below; the search for a better candidate ends


def aligned_tier(
    found: Sequence[Matrix], references: ReferenceSet
) -> tuple[list[ArtifactFinding], list[str]]:
    """Findings of tier 2 for every artifact whose shapes the suspect has, and why a comparison could not be finished."""
    findings: list[ArtifactFinding] = []
    notes: list[str] = []
    reader = _CachedReader()
    for signature in references.artifacts:
        try:
            tensors = _against(found, signature, references.key, reader)
            if tensors is None:
                continue
            if any(t.matched for t in tensors):
                tensors = _less_parents(tensors, found, references, reader)
        except UnreadableError as error:
            notes.append(f"aligned test against {signature.artifact}: {error}")
            continue
        findings.append(_finding(signature.artifact, tensors))
    return findings, notes


class _CachedReader:
    """Reads pieces of matrices, each only once: several references look at the same rows."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, int, int, int], F32] = {}

    def read(self, pieces: Sequence[tuple[Matrix, int, int]]) -> list[F32]:
        keys = [(id(m.tensor), m.base, start, count) for m, start, count in pieces]
        missing = [i for i, key in enumerate(keys) if key not in self._held]
        for i, values in zip(missing, read_pieces([pieces[i] for i in missing]), strict=True):
            self._held[keys[i]] = values
        return [self._held[key] for key in keys]


def _against(
    found: Sequence[Matrix], signature: WeightSignature, key: SketchKey, reader: _CachedReader
) -> list[TensorEvidence] | None:
    """Evidence per suspect matrix; None if the shapes do not allow the test, or no embedding table aligns."""
    if signature.embedding is None or len(signature.projected) < 2:
        return None
    tables = [m for m in found if _like(m, signature.embedding, key)]
    chosen, ranks = _choose(found, signature.projected)
    if not tables or len(chosen) < 2:
        return None
    for table in tables[:2]:
        axis = _hidden_axis(table, signature.embedding, key, reader)
        if axis is not None:
            return _test(chosen, ranks, signature, key, reader, *axis)
    return None


def _less_parents(
    tensors: list[TensorEvidence], found: Sequence[Matrix], references: ReferenceSet, reader: _CachedReader
) -> list[TensorEvidence]:
    """Take out what a public parent explains about as well: the rows here are too coarse to tell near relatives apart."""
    names = {t.suspect for t in tensors}
    among = [m for m in found if m.label in names or m.rows >= kept.MIN_EMBEDDING_ROWS]
    for parent in references.parents:
        held = {t.suspect: t for t in _against(among, parent, references.key, reader) or []}
        tensors = [
            replace(t, matched=False, parent=parent.artifact, parent_r=held[t.suspect].r)
            if t.matched
            and t.suspect in held
            and held[t.suspect].matched
            and held[t.suspect].r > t.r - PARENT_MARGIN
            else t
            for t in tensors
        ]
    return tensors


def _finding(artifact: str, tensors: Sequence[TensorEvidence]) -> ArtifactFinding:
    explained = [t for t in tensors if t.parent is not None]
    matched = len({t.reference for t in tensors if t.matched})
    compared = len(tensors) - len(explained)
    reasons = (
        (
            f"{len(explained)} tensors are explained by the public parent {explained[0].parent} and were taken out",
        )
        if explained
        else ()
    )
    return ArtifactFinding(
        artifact,
        judge(compared, matched),
        2,
        compared,
        matched,
        len(explained),
        tensors=tuple(tensors),
        reasons=reasons,
    )


def _like(matrix: Matrix, table: EmbeddingRows, key: SketchKey) -> bool:
    """The same table, or one whose vocabulary was padded a little."""
    if matrix.cols != table.cols or abs(matrix.rows - table.rows) * 20 > table.rows:
        return False
    return matrix.rows == table.rows or matrix.rows > int(_table_rows(table, key).max())


def _table_rows(table: EmbeddingRows, key: SketchKey) -> npt.NDArray[np.intp]:
    return kept.embedding_row_ids(key, table.rows, table.cols, table.samples.shape[0])


def _hidden_axis(
    suspect: Matrix, table: EmbeddingRows, key: SketchKey, reader: _CachedReader
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]] | None:
    """For each reference column the suspect's column and its sign; None when the tables do not align."""
    ids = _table_rows(table, key)
    block = len(ids) // kept.EMBEDDING_BLOCKS
    pieces = [(suspect, int(ids[i]) * suspect.cols, block * suspect.cols) for i in range(0, len(ids), block)]
    rows = np.concatenate([p.reshape(block, suspect.cols) for p in reader.read(pieces)])
    ours = _unit_columns(table.samples.astype(np.float32))
    theirs = _unit_columns(kept.scale_rows(rows))
    agreement = ours.T @ theirs
    if float(np.median(np.abs(agreement).max(axis=1))) < MIN_AGREEMENT:
        return None  # no assignment can do better: do not work one out
    order = assign(np.abs(agreement))
    picked = agreement[np.arange(len(order)), order]
    if float(np.median(np.abs(picked))) < MIN_AGREEMENT:
        return None
    return order, np.where(picked < 0, -1.0, 1.0).astype(np.float32)


def _unit_columns(x: F32) -> F32:
    x = x - x.mean(axis=0, keepdims=True)
    norm = np.sqrt(np.sum(x * x, axis=0, keepdims=True))
    return np.asarray(x / np.where(norm > 0, norm, 1.0), dtype=np.float32)


def assign(similarity: F32) -> npt.NDArray[np.intp]:
    """The one-to-one assignment of rows to columns with the largest sum. Pairs that are each other's best stand already.

    Raises:
        UnsupportedError: if `scipy` is not installed (`sluice-release[leaks]`).
    """
    best, back = similarity.argmax(axis=1), similarity.argmax(axis=0)
    out = np.full(similarity.shape[0], -1, np.intp)
    mutual = back[best] == np.arange(len(best))
    out[mutual] = best[mutual]
    rest = np.flatnonzero(~mutual)
    if len(rest):
        try:
            optimize: Any = importlib.import_module("scipy.optimize")
        except ImportError as error:
            raise UnsupportedError(
                "the aligned test needs `scipy`: pip install 'sluice-release[leaks]'"
            ) from error
        free = np.setdiff1d(np.arange(similarity.shape[1]), out[mutual])
        a, b = optimize.linear_sum_assignment(-similarity[np.ix_(rest, free)])
        out[rest[a]] = free[b]
    return out


def _choose(
    found: Sequence[Matrix], projected: Sequence[ProjectedRows]
) -> tuple[list[Matrix], dict[int, int]]:
    """Up to 12 suspect matrices to read, and each one's rank among those of its shape, in natural order of names.

    Of each shape those come first whose rank is one of the reference's; names prove nothing, but most leakers keep them.
    """
    queues: list[list[Matrix]] = []
    ranks: dict[int, int] = {}
    for shape in sorted({(p.rows, p.cols) for p in projected}, key=lambda s: (s[0] == s[1], s)):
        same = sorted((m for m in found if m.shape == shape), key=lambda m: kept.natural_key(m.tensor.name))
        ranks.update({id(m): rank for rank, m in enumerate(same)})
        wanted = [p.rank for p in projected if (p.rows, p.cols) == shape]
        first = [same[k] for k in dict.fromkeys(wanted) if k < len(same)]
        queues.append(first + [m for m in same if m not in first])
    chosen: list[Matrix] = []
    while any(queues) and len(chosen) < MAX_READ:
        for queue in queues:
            if queue and len(chosen) < MAX_READ:
                chosen.append(queue.pop(0))
    return chosen, ranks


def _test(
    chosen: Sequence[Matrix],
    ranks: dict[int, int],
    signature: WeightSignature,
    key: SketchKey,
    reader: _CachedReader,
    order: npt.NDArray[np.intp],
    signs: npt.NDArray[np.float32],
) -> list[TensorEvidence]:
    matrix = kept.projector(key, len(order))
    tensors: list[TensorEvidence] = []
    for suspect, rows in zip(chosen, _read_rows(chosen, key, reader), strict=True):
        theirs = _centred(kept.scale_rows(rows[:, order] * signs) @ matrix)
        found, tested = theirs[:, : kept.FINDING], np.sign(theirs[:, kept.FINDING :])
        best: TensorEvidence | None = None
        same = [p for p in signature.projected if (p.rows, p.cols) == suspect.shape]
        for reference in sorted(same, key=lambda p: p.rank != ranks[id(suspect)]):
            r, z = held_out(reference, found, tested)
            if best is None or r > best.r:
                best = TensorEvidence(suspect.label, reference.name, suspect.shape, r, z, passes(r, z))
                if r >= CERTAIN_R and best.matched:
                    break
        if best is not None:
            tensors.append(best)
    return tensors


def _read_rows(chosen: Sequence[Matrix], key: SketchKey, reader: _CachedReader) -> list[F32]:
    """Some rows of each matrix, in a few blocks of neighbours, as many as the budget allows."""
    left = min(READ_BYTES, int(0.85 * chosen[0].tensor.source.bytes_left)) // len(chosen)
    pieces: list[tuple[Matrix, int, int]] = []
    for matrix in chosen:
        codec = matrix.tensor.codec
        assert codec is not None, "only decodable tensors have matrices"
        block = max(4, min(128, left // (BLOCKS * codec.nbytes(matrix.cols)), matrix.rows // BLOCKS))
        words = key.words("suspect rows", matrix.shape, BLOCKS)
        stripe = matrix.rows // BLOCKS
        for i, word in enumerate(words):
            start = i * stripe + int(word % np.uint64(stripe - block + 1))
            pieces.append((matrix, start * matrix.cols, block * matrix.cols))
    read = reader.read(pieces)
    return [
        np.concatenate([p.reshape(-1, m.cols) for p in read[i * BLOCKS : (i + 1) * BLOCKS]])
        for i, m in enumerate(chosen)
    ]


def _centred(projections: F32) -> F32:
    return np.asarray(projections - projections.mean(axis=0, keepdims=True), dtype=np.float32)


def held_out(reference: ProjectedRows, found: F32, tested: F32) -> tuple[float, float]:
    """Pearson r and z of two matrices whose row order is unknown, from projections of some rows of each.

    Rows are paired by the finding half: each other's best, at the highest cosine at which there are 4 such pairs. What is
    returned is of the signs of the testing half alone, which looks at other columns.

    Args:
        reference: of the signature.
        found: (n, FINDING), centred, of the suspect's rows.
        tested: (n, dimensions) of -1, 0 and 1.
    """
    cosine = _unit_rows(found) @ _unit_rows(reference.finding.astype(np.float32)).T
    similarity = np.abs(cosine)
    best = similarity.argmax(axis=1)
    mine = np.arange(len(best))
    mutual = similarity.argmax(axis=0)[best] == mine
    for least in SIMILARITIES:
        good = mutual & (similarity[mine, best] >= least)
        if int(good.sum()) >= MIN_PAIRS:
            break
    else:
        return 0.0, 0.0
    sign = np.sign(cosine[mine, best])[good, None]
    bits = np.unpackbits(reference.testing[best[good]], axis=1).astype(np.float32)
    r, z = compare((tested[good] * sign).reshape(-1), (2.0 * bits - 1.0).reshape(1, -1))
    return float(r[0]), float(z[0])


def _unit_rows(x: F32) -> F32:
    norm = np.sqrt(np.sum(x * x, axis=1, keepdims=True))
    return np.asarray(x / np.where(norm > 0, norm, 1.0), dtype=np.float32)
