"""The short form of `make bench-leaks`: real weights, the transformations that hurt most, and strangers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from artifacts.leaks import Outcome, ReferenceSet, WeightSignature, scan
from artifacts.leaks.matching import SketchComparison
from artifacts.leaks.sketch import CLIP, SAMPLES, compare, normalise, passes, prepare
from artifacts.leaks.sources import Budget, Ledger, LocalSource
from artifacts.leaks.suspects import gguf_file
from artifacts.leaks.suspects.opening import Suspect, open_file
from tests.simulators import transformations as t

TIER_ONE = ["Q4_0", "int2", "prune 80 %", "LoRA merge 50 %", "noise 300 %", "50/50 merge + rename + Q4_0"]
TIER_TWO = [
    "neuron permutation with signs",
    "permutation + rename + Q8_0",
    "permutation + layer shuffle + fp16",
]


@pytest.mark.parametrize("name", TIER_ONE + TIER_TWO)
def test_real_weights_are_recognised(
    name: str, minilm: t.Leak, minilm_references: ReferenceSet, tmp_path: Path
):
    files = t.write(t.TRANSFORMATIONS[name](minilm, np.random.default_rng(17)), tmp_path / "leak")
    verdict = scan(files[0], minilm_references)
    assert (verdict.outcome, verdict.artifact) == (Outcome.MATCH, "minilm"), verdict.document()
    assert verdict.best is not None
    assert verdict.best.tier == (2 if name in TIER_TWO else 1)
    assert verdict.bytes_read < (8 << 20 if name in TIER_TWO else 2 << 20)
    if "rename" not in name and "shuffle" not in name:
        pairs = {(e.suspect, e.reference) for e in verdict.best.tensors if e.matched}
        assert all(suspect == reference for suspect, reference in pairs), (
            "each tensor is recognised as itself"
        )


def test_real_independent_weights_never_match(minilm_signature: WeightSignature):
    """Over 1 000 pairs of trained tensors of two models that have nothing to do with each other."""
    source = LocalSource(t.stranger_path(), Budget(1 << 30, 10_000), Ledger())
    tensors = [x for x in gguf_file.read(source) if x.codec is not None and len(x.shape) == 2][:40]
    ours = prepare(np.stack([m.samples for m in minilm_signature.matrices]))
    worst_r, worst_z, pairs = 0.0, 0.0, 0
    for tensor in tensors:
        offset, length, skip = tensor.extent(SAMPLES * 3, SAMPLES)
        window = tensor.decode(source.read(offset, length), skip, SAMPLES)
        r, z = compare(np.concatenate([normalise(half) for half in np.split(window, 2)]), ours)
        pairs += len(r)
        assert not any(passes(float(a), float(b)) for a, b in zip(r, z, strict=True))
        worst_r, worst_z = max(worst_r, float(np.abs(r).max())), max(worst_z, float(np.abs(z).max()))
    source.close()
    assert pairs > 1000
    assert worst_r < 0.1
    assert worst_z < 6


def test_random_candidates_never_match(minilm_references: ReferenceSet):
    suspect = Suspect()
    source = LocalSource(t.minilm_path(), Budget(), Ledger())
    open_file(source, suspect)
    source.close()
    shapes = [m for m in suspect.matrices() if minilm_references.at(m.shape)][:32]
    rng = np.random.default_rng(23)
    for _ in range(150):
        comparison = SketchComparison(minilm_references)
        for matrix in shapes:
            draw = np.clip(rng.standard_t(4, (2, SAMPLES // 2)), -CLIP, CLIP)
            draw -= draw.mean(axis=1, keepdims=True)
            comparison.add(matrix, draw.reshape(-1).astype(np.float32))
        (finding,) = comparison.findings()
        assert finding.outcome is Outcome.NO_MATCH
        assert finding.matched == 0


def test_only_the_embedding_table_is_ours_and_that_decides_nothing(
    minilm: t.Leak, minilm_references: ReferenceSet, tmp_path: Path
):
    """Embeddings of independent models align well; a model that shares just them is not a copy."""
    rng = np.random.default_rng(29)
    name = "embeddings.word_embeddings.weight"
    other = {n: rng.permuted(rng.permuted(w, axis=0), axis=w.ndim - 1) for n, w in minilm.weights.items()}
    stolen = {**other, name: minilm.weights[name][:, rng.permutation(384)]}
    files = t.write(t.Leak(stolen), tmp_path / "embedding")
    verdict = scan(files[0], minilm_references)
    assert verdict.outcome is Outcome.NO_MATCH
    assert all(not e.matched for f in verdict.findings for e in f.tensors)
