"""Tier 3: every weight against the reference, in layouts that ranges cannot follow."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from artifacts.leaks import Outcome, ReferenceSet
from artifacts.leaks.unpacking import unpacked
from artifacts.leaks.whole import Model, compare_whole, pairs
from tests.simulators import checkpoints
from tests.simulators import transformations as t


def judged(files: list[Path], small_path: Path, **parents: list[Path]):
    return compare_whole(files, "small-model", [small_path], parents=parents)


@pytest.mark.parametrize(
    "name",
    ["copy", "Q4_0", "prune 80 %", "LoRA merge 50 %", "rename + layer shuffle + Q4_0", "int2", "noise 300 %"],
)
def test_transformed_copies_match_in_every_matrix(name: str, small: t.Leak, small_path: Path, tmp_path: Path):
    leak = t.TRANSFORMATIONS[name](small, np.random.default_rng(3))
    verdict = judged(t.write(leak, tmp_path / "leak"), small_path)
    assert verdict.outcome is Outcome.MATCH
    (finding,) = verdict.findings
    assert (finding.tier, finding.matched, finding.compared) == (3, 25, 25)


@pytest.mark.parametrize("name", ["neuron permutation with signs", "permutation + re-shard + Q4_0"])
def test_permuted_neurons_are_put_back(name: str, small: t.Leak, small_path: Path, tmp_path: Path):
    leak = t.TRANSFORMATIONS[name](small, np.random.default_rng(3))
    files = t.write(leak, tmp_path / "leak")
    verdict = judged(files, small_path)
    assert verdict.outcome is Outcome.MATCH
    assert verdict.findings[0].matched >= 17, "all but those with both axes inside the heads"
    theirs, ours = Model(files), Model([small_path])
    for pair in pairs(theirs, ours)[:6]:
        assert np.corrcoef(pair.ordered().reshape(-1), pair.reference.load().reshape(-1))[0, 1] > 0.95
    theirs.close()
    ours.close()


def test_column_major_transposed_and_fused_layouts(small: t.Leak, small_path: Path, tmp_path: Path):
    column_major = checkpoints.write_checkpoint(tmp_path / "m.pt", small.weights, transposed=True)
    assert judged([column_major], small_path).outcome is Outcome.MATCH
    turned = {n: np.ascontiguousarray(w.T) for n, w in small.weights.items()}
    assert judged(t.write(t.Leak(turned), tmp_path / "turned"), small_path).outcome is Outcome.MATCH
    fused = {}
    for i in range(4):
        layer = f"encoder.layer.{i}"
        parts = [small.weights[f"{layer}.attention.self.{p}.weight"] for p in ("query", "key", "value")]
        fused[f"{i}.qkv"] = np.concatenate(parts)
    verdict = judged(t.write(t.Leak(fused), tmp_path / "fused"), small_path)
    assert verdict.outcome is Outcome.MATCH
    assert verdict.findings[0].matched == 12


def test_a_padded_vocabulary(small: t.Leak, small_path: Path, tmp_path: Path):
    name = "embeddings.word_embeddings.weight"
    padded = {**small.weights, name: np.pad(small.weights[name], ((0, 40), (0, 0)))}
    verdict = judged(t.write(t.Leak(padded), tmp_path / "padded"), small_path)
    assert any("less padding" in e.suspect for e in verdict.findings[0].tensors)


def test_independent_models_share_nothing(small_path: Path, tmp_path: Path):
    for seed in (60, 61):
        other = t.Leak(t.synthetic(np.random.default_rng(seed)))
        verdict = judged(t.write(other, tmp_path / str(seed)), small_path)
        assert verdict.outcome is Outcome.NO_MATCH
        assert verdict.findings[0].matched == 0


def test_what_is_shared_beside_the_public_parent_counts(tmp_path: Path):
    parent = t.synthetic(np.random.default_rng(70))
    ours = t.lora(0.02)(t.Leak(parent), np.random.default_rng(1))
    theirs = t.lora(0.02)(t.Leak(parent), np.random.default_rng(2))
    paths = {
        n: t.write(leak, tmp_path / n)
        for n, leak in (("parent", t.Leak(parent)), ("ours", ours), ("theirs", theirs))
    }
    leak = t.write(t.cast("BF16")(ours, np.random.default_rng(1)), tmp_path / "leak")
    parents = {"public-base": paths["parent"]}
    mine = compare_whole(leak, "our-tune", paths["ours"], parents=parents)
    assert mine.outcome is Outcome.MATCH, "a tune of 2 % is told apart on the whole file, in bf16"
    other = compare_whole(paths["theirs"], "our-tune", paths["ours"], parents=parents)
    assert other.outcome is Outcome.NO_MATCH
    assert other.findings[0].explained == 25
    base = compare_whole(paths["parent"], "our-tune", paths["ours"], parents=parents)
    assert base.outcome is Outcome.NO_MATCH


def test_the_real_zipped_copy_is_confirmed(minilm_references: ReferenceSet):
    verdict = compare_whole([t.zipped_copy_path()], "minilm", [t.minilm_path()], references=minilm_references)
    assert verdict.outcome is Outcome.MATCH
    assert verdict.findings[0].exact[0].kind == "sha256"
    assert verdict.findings[0].matched >= 36


def test_a_zip_bomb_ends_at_the_limit(small_path: Path, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m.safetensors", bytes(80 << 20))
    with pytest.raises(Exception, match="over the limit"), unpacked([tmp_path / "bomb.zip"], 1 << 20):
        pass


def test_unreadable_files_are_inconclusive(small_path: Path, tmp_path: Path):
    (tmp_path / "x").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(100))
    assert judged([tmp_path / "x"], small_path).outcome is Outcome.INCONCLUSIVE
    assert judged([tmp_path / "missing"], small_path).outcome is Outcome.INCONCLUSIVE
