"""Tier 0 (exact digests) and tier 1 (keyed sketch) of leak matching.

Tier 1 reads the same keyed windows of 16 to 32 of the suspect's matrices and compares each with every reference matrix of
its shape. Tensors are counted, never an aggregate z: an aggregate over best-of-candidates misleads. Distinct reference
matrices are counted, so that one of ours repeated many times counts once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from artifacts.leaks.errors import UnreadableError
from artifacts.leaks.references import ReferenceSet, ShapeIndex
from artifacts.leaks.sketch import F32, SAMPLES, WINDOW, normalise, passes
from artifacts.leaks.suspects.tensor import Matrix, read_pieces
from artifacts.leaks.verdict import ArtifactFinding, ExactEvidence, Outcome, TensorEvidence, judge

FIRST_ROUND = 16
SECOND_ROUND = 16
LINEAGE_Z = 4.0


@dataclass(frozen=True, slots=True)
class ListedFile:
    """What a place says about a file without handing it out.

    Attributes:
        location: where it is.
        size: bytes, if listed.
        sha256, xet_hash, btv2_root: hex, if listed.
        crc32: if listed (archives).
    """

    location: str
    size: int | None = None
    sha256: str | None = None
    xet_hash: str | None = None
    btv2_root: str | None = None
    crc32: int | None = None


def exact(files: Iterable[ListedFile], references: ReferenceSet) -> list[ArtifactFinding]:
    """Tier 0: one finding per artifact that a listed digest belongs to.

    Only distinctive files count (weights, not a licence that every model carries), and never one that a public parent has
    too. A CRC-32 with equal size is a hint that anybody can forge: it makes `partial`, not `match`.
    """
    public = {f.sha256 for owner, f in references.files() if owner.public_parent}
    found: dict[str, list[ExactEvidence]] = {}
    known = [
        (o, f)
        for o, f in references.files()
        if not o.public_parent and f.distinctive and f.sha256 not in public
    ]
    for listed in files:
        for owner, file in known:
            if listed.size is not None and listed.size != file.size:
                continue
            hit: tuple[str, str] | None = None
            if listed.sha256 and listed.sha256.lower() == file.sha256:
                hit = "sha256", file.sha256
            elif listed.xet_hash and listed.xet_hash.lower() == file.xet_hash:
                hit = "xet_hash", str(file.xet_hash)
            elif listed.btv2_root and listed.btv2_root.lower() == file.btv2_root:
                hit = "btv2_root", str(file.btv2_root)
            elif listed.crc32 is not None and listed.crc32 == file.crc32 and listed.size == file.size:
                hit = "size+crc32", f"{listed.size}+{file.crc32:08x}"
            if hit:
                found.setdefault(owner.artifact, []).append(
                    ExactEvidence(listed.location, hit[0], hit[1], file.path, file.copy)
                )
    out = []
    for artifact, evidence in found.items():
        proof = any(e.kind != "size+crc32" for e in evidence)
        reasons = () if proof else ("size and CRC-32 equal an issued file's; get the whole file to be sure",)
        outcome = Outcome.MATCH if proof else Outcome.PARTIAL
        out.append(ArtifactFinding(artifact, outcome, 0, exact=tuple(evidence), reasons=reasons))
    return out


@dataclass
class _Row:
    """One suspect matrix against one artifact."""

    evidence: TensorEvidence
    passed: bool
    difference: float = 0.0
    error: float = 0.0
    contested: bool = False


@dataclass
class SketchComparison:
    """Tier 1 over one suspect: feed samples, ask for findings."""

    references: ReferenceSet
    rows: dict[str, list[_Row]] = field(default_factory=dict)

    def add(self, matrix: Matrix, samples: F32) -> None:
        """Compare one suspect matrix, given its normalised samples (4096,)."""
        index = self.references.at(matrix.shape)
        if index is None or not samples.any():
            return
        r, z = index.compare(samples)
        parent = _best(index, r, z, None)
        for artifact in {c.owner.artifact for c in index.candidates if not c.owner.public_parent}:
            best = _best(index, r, z, artifact)
            assert best is not None
            row = _Row(
                TensorEvidence(
                    matrix.label,
                    index.candidates[best].label,
                    matrix.shape,
                    float(r[best]),
                    float(z[best]),
                    False,
                ),
                passes(float(r[best]), float(z[best])),
            )
            if parent is not None and passes(float(r[parent]), float(z[parent])):
                row.contested = True
                row.difference, row.error = _closer(index, best, parent, float(r[best]), float(r[parent]))
                owner = index.candidates[parent].owner.artifact
                row.evidence = _with(row.evidence, matched=False, parent=owner, parent_r=float(r[parent]))
            self.rows.setdefault(artifact, []).append(row)

    def finding(self, artifact: str) -> ArtifactFinding:
        """What tier 1 says about one artifact so far."""
        rows = self.rows.get(artifact, [])
        contested = [row for row in rows if row.contested]
        spread = math.sqrt(sum(row.error**2 for row in contested)) if contested else 0.0
        together = sum(row.difference for row in contested) / spread if spread else 0.0
        tensors: list[TensorEvidence] = []
        undecided = 0
        for row in rows:
            mine = row.passed
            if row.contested:
                alone = row.difference / row.error if row.error else 0.0
                # Each tensor for itself where it is clear (a graft); where it is not, what all of them say together.
                lean = alone if abs(alone) >= LINEAGE_Z else (together if row.error else 0.0)
                undecided += abs(lean) < LINEAGE_Z
                mine = row.passed and lean >= LINEAGE_Z
            tensors.append(_with(row.evidence, matched=mine, parent=None if mine else row.evidence.parent))
        explained = sum(t.parent is not None for t in tensors)
        compared = len(tensors) - explained
        matched = len({t.reference for t in tensors if t.matched})
        outcome = judge(compared, matched)
        reasons: list[str] = []
        if explained:
            parents = ", ".join(sorted({t.parent for t in tensors if t.parent}))
            reasons.append(
                f"{explained} tensors are explained by the public parent {parents} and were taken out"
            )
        if undecided >= 2 and outcome is Outcome.NO_MATCH and any(row.error for row in contested):
            outcome = Outcome.INCONCLUSIVE
            reasons.append(
                f"{undecided} tensors are as near to the public parent as to the artifact: whole file needed"
            )
        return ArtifactFinding(
            artifact, outcome, 1, compared, matched, explained, tensors=tuple(tensors), reasons=tuple(reasons)
        )

    def findings(self) -> list[ArtifactFinding]:
        """Findings of all artifacts that had anything to compare."""
        return [self.finding(artifact) for artifact in sorted(self.rows)]


def _with(
    evidence: TensorEvidence, *, matched: bool, parent: str | None, parent_r: float | None = None
) -> TensorEvidence:
    e = evidence
    kept = e.parent_r if parent_r is None else parent_r
    return TensorEvidence(e.suspect, e.reference, e.shape, e.r, e.z, matched, parent, kept)


def _best(index: ShapeIndex, r: np.ndarray, z: np.ndarray, artifact: str | None) -> int | None:
    """The candidate with the highest r, of one artifact or (None) of the public parents."""
    among = [
        i
        for i, c in enumerate(index.candidates)
        if (
            c.owner.public_parent
            if artifact is None
            else c.owner.artifact == artifact and not c.owner.public_parent
        )
    ]
    return max(among, key=lambda i: (float(r[i]), float(z[i])), default=None)


def _closer(index: ShapeIndex, mine: int, parent: int, r_mine: float, r_parent: float) -> tuple[float, float]:
    """How much nearer a suspect is to the artifact than to the parent: difference of r, and its standard error.

    The error is that of two correlated correlations, plus what the int8 rounding of both samples adds. 0, 0 when the
    artifact's samples are the parent's: then nothing can be told from this tensor.
    """
    a, b = index.samples[mine].astype(np.float64), index.samples[parent].astype(np.float64)
    apart = 1 - float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))
    if apart < 1e-9:
        return 0.0, 0.0
    mean = min(0.5 * (r_mine + r_parent), 1.0)
    rounding = 2 * min(apart, 1 / (12 * 12.0**2))
    return r_mine - r_parent, math.sqrt((2 * apart * (1 - mean**2) + rounding) / SAMPLES)


def choose(found: Sequence[Matrix], references: ReferenceSet) -> list[Matrix]:
    """The suspect's comparable matrices in keyed order: whoever built the suspect cannot know which are read."""
    comparable = [m for m in found if references.at(m.shape) is not None]
    seed = references.key.words("suspect order", (len(comparable),), len(comparable))
    names = [int.from_bytes(hashlib.sha256(m.label.encode()).digest()[:8], "little") for m in comparable]
    order = sorted(range(len(comparable)), key=lambda i: int(seed[i]) ^ names[i])
    return [comparable[i] for i in order]


def sample(found: Sequence[Matrix], references: ReferenceSet) -> list[F32]:
    """Normalised samples (4096,) of each matrix, read by ranges."""
    pieces = [(m, start, WINDOW) for m in found for start in references.key.starts(*m.shape)]
    windows = [normalise(w) for w in read_pieces(pieces)]
    per = SAMPLES // WINDOW
    return [np.concatenate(windows[i : i + per]) for i in range(0, len(windows), per)]


def sketch_tier(found: Sequence[Matrix], references: ReferenceSet) -> tuple[SketchComparison, list[str]]:
    """Tier 1: read and compare 16 matrices, and 16 more unless the first ones are clear. Returns reasons for stopping early."""
    comparison = SketchComparison(references)
    chosen = choose(found, references)
    for batch in (chosen[:FIRST_ROUND], chosen[FIRST_ROUND : FIRST_ROUND + SECOND_ROUND]):
        if not batch:
            break
        try:
            samples = sample(batch, references)
        except UnreadableError as error:
            return comparison, [str(error)]
        for matrix, values in zip(batch, samples, strict=True):
            comparison.add(matrix, values)
        if any(f.outcome is Outcome.MATCH and 4 * f.matched >= 3 * f.compared for f in comparison.findings()):
            break
    return comparison, []
