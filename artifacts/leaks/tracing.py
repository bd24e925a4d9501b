"""Tracing: which partners' marks a suspect carries.

Per tensor: fit row and column gains to the unmarked reference, take the residual, leave out what was pruned to zero, scale
by the rows' spread, clip at 5 MAD, and correlate with *every* partner's stream. The sum over tensors gives one z per
partner, standard normal for an innocent one. **Accuse at z >= 8** (a thousand partners: 1e-12 false), 6 to 8 says
'investigate'. Every partner's z is reported and several may be guilty; the largest alone means nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from artifacts.leaks.dtypes import F32
from artifacts.leaks.errors import MarkError, UnreadableError, shown
from artifacts.leaks.marks import MarkKey
from artifacts.leaks.sketch import passes
from artifacts.leaks.sources import ByteSource
from artifacts.leaks.whole import Model, pairs, pearson

ACCUSE_Z = 8.0
INVESTIGATE_Z = 6.0
CLIP_MAD = 5.0
CHUNK = 1 << 16  # a multiple of 8, so that no stream keeps a rest
BATCH = 64


class Suspicion(StrEnum):
    """What a partner's z says."""

    ACCUSED = "accused"
    INVESTIGATE = "investigate"
    CLEAR = "clear"


@dataclass(frozen=True, slots=True)
class PartnerTrace:
    """One partner's z over all compared tensors."""

    partner: str
    z: float

    @property
    def suspicion(self) -> Suspicion:
        """By the thresholds of the module."""
        if self.z >= ACCUSE_Z:
            return Suspicion.ACCUSED
        return Suspicion.INVESTIGATE if self.z >= INVESTIGATE_Z else Suspicion.CLEAR


@dataclass(frozen=True)
class TraceReport:
    """Every partner's z, in the order given.

    Attributes:
        artifact: id.
        mark_commitment: names the key; must equal the one in the audit log from before the delivery.
        tensors, weights: how much was compared.
        partners: one entry for each.
    """

    artifact: str
    mark_commitment: str
    tensors: int
    weights: int
    partners: tuple[PartnerTrace, ...]

    @property
    def accused(self) -> tuple[str, ...]:
        """Partners at z >= 8; may be none, may be several."""
        return tuple(p.partner for p in self.partners if p.suspicion is Suspicion.ACCUSED)

    @property
    def to_investigate(self) -> tuple[str, ...]:
        """Partners with z from 6 to 8."""
        return tuple(p.partner for p in self.partners if p.suspicion is Suspicion.INVESTIGATE)


def residual(suspect: F32, reference: F32) -> F32:
    """What a suspect matrix has beside the reference, flat, in units of the rows' spread, clipped, 0 where pruned.

    Args:
        suspect: (rows, cols), in the reference's order.
        reference: (rows, cols), unmarked.
    """
    if suspect.shape != reference.shape or reference.ndim != 2:
        raise MarkError(f"a {suspect.shape} tensor cannot be traced against one of {reference.shape}")
    held = ~((suspect == 0) & (reference != 0))
    w = np.where(held, reference, 0.0).astype(np.float32)
    s = np.where(held, suspect, 0.0).astype(np.float32)
    rows, cols = np.ones((len(w), 1), np.float32), np.ones((1, w.shape[1]), np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        for _ in range(2):
            fit = w * cols
            rows = _gain((s * fit).sum(1, keepdims=True), (fit * fit).sum(1, keepdims=True))
            fit = w * rows
            cols = _gain((s * fit).sum(0, keepdims=True), (fit * fit).sum(0, keepdims=True))
        scale = rows * reference.std(axis=1, keepdims=True)
        out = (s - w * rows * cols) / scale
    out = np.where(held & np.isfinite(out), out, 0.0)
    kept = np.abs(out[held])
    spread = 1.4826 * float(np.median(kept)) if kept.size else 0.0
    if spread == 0.0 and kept.size:
        spread = float(np.sqrt(np.mean(np.square(kept, dtype=np.float64))))
    if spread == 0.0:
        return np.zeros(out.size, np.float32)
    return np.asarray(np.clip(out / spread, -CLIP_MAD, CLIP_MAD), np.float32).reshape(-1)


def _gain(numerator: F32, denominator: F32) -> F32:
    return np.where(denominator > 0, numerator / denominator, 1.0).astype(np.float32)


def trace_files(
    suspect: Sequence[Path | ByteSource],
    reference: Sequence[Path | ByteSource],
    key: MarkKey,
    artifact: str,
    partners: Sequence[str],
    only: Collection[str] | None = None,
) -> TraceReport:
    """Trace a suspect's files against the unmarked reference, in the place that holds it.

    Matrices are found and put into order as in tier 3 (`whole.pairs`); those that carry no mark are left out.

    Args:
        suspect: the suspect's files.
        reference: the artifact's files, unmarked: in clear, or a source that opens them as they are read (`SealedSource`).
        key: of the artifact's marks.
        artifact: id under which the copies were marked.
        partners: everyone who was given a marked copy.
        only: names of the artifact's matrices among which the suspect's are, where that is known: the others are not read.

    Raises:
        UnreadableError: if a file cannot be read.
        MarkError: if no matrix of the suspect is one of the reference's: then there is nothing to trace.
    """
    theirs, ours = Model(suspect), Model(reference)
    try:
        if only is not None:
            ours.matrices = [m for m in ours.matrices if m.name in only]
        tracer = Tracer(key, artifact, partners)
        found = [p for p in pairs(theirs, ours) if p.reference.name == shown(p.reference.tensor)]
        if not found:
            raise MarkError(f"no matrix of the suspect is one of {shown(artifact)}'s; nothing can be traced")
        for pair in found:
            tracer.add(pair.reference.tensor, pair.reference.load(), [pair.ordered()])
        return tracer.reports()[0]
    finally:
        theirs.close()
        ours.close()


def trace_rows(
    sample: ByteSource,
    reference: Sequence[Path | ByteSource],
    key: MarkKey,
    artifact: str,
    partners: Sequence[str],
) -> TraceReport:
    """Trace the first rows of some matrices against the same rows of the reference: a few million weights in memory at a time.

    Args:
        sample: matrices by the names that they have in the artifact; a name that is wrong is noticed, and left out.
        reference: as `trace_files`.
        key: of the artifact's marks.
        artifact: id under which the copies were marked.
        partners: everyone who was given a marked copy.

    Raises:
        UnreadableError: if the sample cannot be read.
        MarkError: if none of it is the reference's.
    """
    theirs, ours = Model([sample]), Model(reference)
    try:
        if theirs.problems:
            raise UnreadableError("; ".join(theirs.problems))
        tracer = Tracer(key, artifact, partners)
        held = {m.name: m for m in ours.matrices if m.name == shown(m.tensor)}
        compared = 0
        for matrix in theirs.matrices:
            known = held.get(matrix.name)
            if known is None or known.cols != matrix.cols or known.rows < matrix.rows:
                continue
            base, values = known.first_rows(matrix.rows), matrix.load()
            if passes(*pearson(values, base)):
                tracer.add(known.tensor, base, [values])
                compared += 1
        if not compared:
            raise MarkError(f"no matrix of the sample is one of {shown(artifact)}'s; nothing can be traced")
        return tracer.reports()[0]
    finally:
        theirs.close()
        ours.close()


class Tracer:
    """Correlates residuals with every partner's stream; several suspects at once cost little more than one."""

    def __init__(self, key: MarkKey, artifact: str, partners: Sequence[str], suspects: int = 1) -> None:
        """Start a trace.

        Args:
            key: of the artifact's marks.
            artifact: id under which the copies were marked.
            partners: everyone who was given a marked copy.
            suspects: number of suspects traced together.
        """
        self._key = key
        self._artifact = artifact
        self._partners = tuple(partners)
        self._sums: npt.NDArray[np.float64] = np.zeros((suspects, len(partners)))
        self._squares: npt.NDArray[np.float64] = np.zeros(suspects)
        self._tensors = 0
        self._weights = 0

    def add(self, tensor: str, reference: F32, suspects: Sequence[F32 | None]) -> None:
        """Add one tensor.

        Args:
            tensor: its name in the artifact (the stream hangs on it).
            reference: unmarked, (rows, cols).
            suspects: the same tensor of each suspect, in the reference's order; None where it has none.
        """
        empty = np.zeros(reference.size, np.float32)
        parts = np.stack([empty if s is None else residual(s, reference) for s in suspects])
        self._squares += np.einsum("kn,kn->k", parts, parts, dtype=np.float64)
        totals = parts.sum(axis=1, dtype=np.float64)
        for first in range(0, len(self._partners), BATCH):
            batch = self._partners[first : first + BATCH]
            streams = [self._key.stream(self._artifact, partner, tensor) for partner in batch]
            for at in range(0, parts.shape[1], CHUNK):
                piece = parts[:, at : at + CHUNK]
                bits = np.stack([s.bits(piece.shape[1]) for s in streams]).astype(np.float32)
                self._sums[:, first : first + len(batch)] -= 2.0 * (piece @ bits.T)  # sign = 1 - 2 bit
        self._sums += totals[:, None]
        self._tensors += 1
        self._weights += reference.size

    def reports(self) -> list[TraceReport]:
        """One report per suspect."""
        out = []
        for sums, squares in zip(self._sums, self._squares, strict=True):
            root = math.sqrt(float(squares)) or 1.0
            traced = tuple(
                PartnerTrace(p, float(s) / root) for p, s in zip(self._partners, sums, strict=True)
            )
            out.append(
                TraceReport(
                    self._artifact, self._key.commitment(self._artifact), self._tensors, self._weights, traced
                )
            )
        return out
