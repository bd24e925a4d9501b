"""Whole scans of files and folders: what is recognised, what is not ours, what cannot be told."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rfc8785

from artifacts.leaks import Outcome, ReferenceSet, ScanLimits, Verdict, WeightSignature, scan
from tests.simulators import transformations as t

from .conftest import KEY, sign

PLAIN_FORMS = [
    n for n, f in t.TRANSFORMATIONS.items() if "Q" not in n and "permutation" not in n and n != "copy"
]


def without_files(references: ReferenceSet) -> ReferenceSet:
    """The same references without exact digests, so that the later tiers are looked at."""
    return ReferenceSet(references.key, [dataclasses.replace(s, files=()) for s in references.signatures])


def test_the_same_bytes_are_recognised_without_reading_a_weight(small_path: Path, references: ReferenceSet):
    verdict = scan(small_path, references)
    assert verdict.outcome is Outcome.MATCH
    assert verdict.best is not None
    assert verdict.best.tier == 0
    assert verdict.best.exact[0].kind == "sha256"
    assert verdict.bytes_read == 0


def test_a_partners_own_copy_names_the_partner(small_path: Path, small_signature: WeightSignature):
    base = dataclasses.replace(small_signature, files=())
    marked = base.with_copy(small_signature.files, "acme")
    verdict = scan(small_path, ReferenceSet(KEY, [marked]))
    assert verdict.best is not None
    assert verdict.best.copies == ("acme",)


@pytest.mark.parametrize("name", PLAIN_FORMS)
def test_every_plain_transformation_is_recognised(
    name: str, small: t.Leak, references: ReferenceSet, tmp_path: Path
):
    t.write(t.TRANSFORMATIONS[name](small, np.random.default_rng(8)), tmp_path / "leak")
    verdict = scan(tmp_path / "leak", references)
    assert (verdict.outcome, verdict.artifact) == (Outcome.MATCH, "small-model"), verdict.reasons
    assert verdict.bytes_read < 2 << 20


def test_an_independent_model_of_the_same_shapes_is_no_match(references: ReferenceSet, tmp_path: Path):
    for seed in range(5):
        other = t.Leak(t.synthetic(np.random.default_rng(100 + seed)))
        t.write(other, tmp_path / str(seed))
        verdict = scan(tmp_path / str(seed), references)
        assert verdict.outcome is Outcome.NO_MATCH, verdict.document()
        assert verdict.artifact is None
        assert all(abs(e.r) < 0.15 for f in verdict.findings for e in f.tensors)


def test_a_graft_of_a_few_layers_is_partial(small: t.Leak, references: ReferenceSet, tmp_path: Path):
    mixed = t.synthetic(np.random.default_rng(50))
    for name in list(mixed):
        if "layer.2." in name:
            mixed[name] = small.weights[name]
    t.write(t.Leak(mixed), tmp_path / "graft")
    verdict = scan(tmp_path / "graft", references)
    assert verdict.outcome is Outcome.PARTIAL
    assert verdict.best is not None
    assert {e.reference.split(".")[2] for e in verdict.best.tensors if e.matched} == {"2"}


def test_one_of_our_tensors_repeated_counts_once(small: t.Leak, references: ReferenceSet, tmp_path: Path):
    ours = small.weights["encoder.layer.0.intermediate.dense.weight"]
    t.write(t.Leak({f"t{i}": ours for i in range(12)}), tmp_path / "repeat")
    verdict = scan(tmp_path / "repeat", references)
    assert verdict.best is not None
    assert verdict.best.matched == 1
    assert verdict.outcome is not Outcome.MATCH


def test_a_descendant_of_the_same_public_parent_is_not_ours(small: t.Leak, tmp_path: Path):
    rng = np.random.default_rng(9)
    parent = t.synthetic(np.random.default_rng(77))
    ours = t.lora(0.3)(t.Leak(parent), rng)
    parent_sig = sign(t.write(t.Leak(parent), tmp_path / "parent"), "public-base").as_public_parent()
    our_sig = sign(t.write(ours, tmp_path / "ours"), "our-tune")
    references = without_files(ReferenceSet(KEY, [our_sig, parent_sig]))
    theirs = t.lora(0.3)(t.Leak(parent), np.random.default_rng(10))
    t.write(theirs, tmp_path / "theirs")
    for folder in ("theirs", "parent"):
        verdict = scan(tmp_path / folder, references)
        assert verdict.outcome is Outcome.NO_MATCH, verdict.findings
        assert verdict.findings[0].explained >= 16
        assert "public-base" in verdict.findings[0].reasons[0]
    t.write(t.cast("F16")(ours, rng), tmp_path / "leak")
    leak = scan(tmp_path / "leak", references)
    assert (leak.outcome, leak.artifact) == (Outcome.MATCH, "our-tune"), leak.findings


def test_only_the_layers_that_differ_from_the_public_parent_count(tmp_path: Path):
    parent = t.synthetic(np.random.default_rng(78), layers=8)
    tuned = t.lora(0.4)(t.Leak(parent), np.random.default_rng(1)).weights
    ours = {n: (tuned[n] if "attention" in n else w) for n, w in parent.items()}
    references = without_files(
        ReferenceSet(
            KEY,
            [
                sign(t.write(t.Leak(ours), tmp_path / "ours"), "our-tune"),
                sign(t.write(t.Leak(parent), tmp_path / "parent"), "public-base").as_public_parent(),
            ],
        )
    )
    t.write(t.Leak(ours, form="BF16"), tmp_path / "leak")
    verdict = scan(tmp_path / "leak", references)
    assert verdict.outcome is Outcome.MATCH
    assert verdict.best is not None
    assert all("attention" in e.suspect for e in verdict.best.tensors if e.matched)
    assert verdict.best.explained > 0


def test_a_copy_too_near_to_its_public_parent_is_left_to_the_whole_file(tmp_path: Path):
    parent = t.synthetic(np.random.default_rng(79))
    ours = t.noise(0.0005)(t.Leak(parent), np.random.default_rng(1))
    references = without_files(
        ReferenceSet(
            KEY,
            [
                sign(t.write(ours, tmp_path / "ours"), "our-tune"),
                sign(t.write(t.Leak(parent), tmp_path / "parent"), "public-base").as_public_parent(),
            ],
        )
    )
    t.write(t.cast("F8_E4M3")(ours, np.random.default_rng(1)), tmp_path / "leak")
    verdict = scan(tmp_path / "leak", references)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "whole file" in " ".join(verdict.best.reasons if verdict.best else ())


def test_packed_weights_of_unknown_layout_are_never_called_no(references: ReferenceSet, tmp_path: Path):
    rng = np.random.default_rng(4)
    t.write_safetensors(
        tmp_path / "gptq.safetensors",
        {f"l.{i}.qweight": ("I32", (12, 96), rng.bytes(12 * 96 * 4)) for i in range(20)},
    )
    verdict = scan(tmp_path / "gptq.safetensors", references)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "I32" in " ".join(verdict.reasons)


def test_fused_layers_of_the_same_size_are_never_called_no(
    small: t.Leak, references: ReferenceSet, tmp_path: Path
):
    fused = {}
    for i in range(4):
        parts = [
            small.weights[f"encoder.layer.{i}.attention.self.{p}.weight"] for p in ("query", "key", "value")
        ]
        fused[f"l{i}.qkv"] = np.concatenate(parts)
        for p in ("intermediate", "output"):
            fused[f"l{i}.{p}"] = np.ascontiguousarray(
                np.concatenate([small.weights[f"encoder.layer.{i}.{p}.dense.weight"]] * 2)
            )
    t.write(t.Leak(fused), tmp_path / "fused")
    verdict = scan(tmp_path / "fused", references)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "whole file" in " ".join(verdict.reasons)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"age-encryption.org/v1\n-> X25519 abc", "age-encrypted"),
        (b"\x80\x04\x95" + bytes(100), "pickle"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(100), "7z"),
        (b"\x28\xb5\x2f\xfd" + bytes(100), "zstd"),
        (b"", "empty"),
        (bytes(range(200)), "not a weights format"),
    ],
)
def test_what_cannot_be_read_is_inconclusive_with_the_reason(
    content: bytes, reason: str, references: ReferenceSet, tmp_path: Path
):
    (tmp_path / "odd.safetensors").write_bytes(content)
    verdict = scan(tmp_path / "odd.safetensors", references)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert reason in " ".join(verdict.reasons)


def test_names_and_suffixes_are_the_leakers_choice(
    small_path: Path, references: ReferenceSet, tmp_path: Path
):
    odd = tmp_path / "holiday.jpg"
    odd.write_bytes(small_path.read_bytes() + b"\0")
    verdict = scan(odd, without_files(references))
    assert verdict.outcome is Outcome.MATCH


@pytest.mark.parametrize(
    "target", ["nothing", "a" * 5000, "nul\0byte", "", "http://", "http://[::1", "https://exa mple/x"]
)
def test_a_target_that_is_not_there_is_inconclusive_not_silent(
    target: str, references: ReferenceSet, tmp_path: Path
):
    verdict = scan(target, references)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reasons


def test_one_unreadable_shard_makes_silence_inconclusive(references: ReferenceSet, tmp_path: Path):
    t.write(t.Leak(t.synthetic(np.random.default_rng(31)), shards=2), tmp_path / "m")
    (tmp_path / "m" / "model-00003-of-00003.safetensors").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(1 << 19))
    verdict = scan(tmp_path / "m", references)
    assert verdict.outcome is Outcome.INCONCLUSIVE


def test_the_byte_budget_is_kept_and_said(small_path: Path, references: ReferenceSet):
    verdict = scan(small_path, without_files(references), limits=ScanLimits(max_bytes=80_000))
    assert verdict.bytes_read <= 80_000
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "budget" in " ".join(verdict.reasons)


def test_a_verdict_can_be_repeated_from_its_document(small_path: Path, references: ReferenceSet):
    def at() -> datetime:
        return datetime(2026, 1, 2, tzinfo=UTC)

    verdict = scan(small_path, without_files(references), now=at)
    document = json.loads(verdict.to_bytes())
    assert rfc8785.dumps(document) == verdict.to_bytes()
    data = small_path.read_bytes()
    import hashlib

    for access in document["read"]["accesses"]:
        piece = data[access["offset"] : access["offset"] + access["length"]]
        assert hashlib.sha256(piece).hexdigest() == access["sha256"]
        assert access["at"].startswith("2026-01-02")
    assert document["read"]["requests"] == len(document["read"]["accesses"])
    assert document["repeat"]["key_id"] == KEY.key_id
    row = document["findings"][0]["tensors"][0]
    assert {"suspect", "reference", "r", "z", "shape", "matched"} <= set(row)
    again = scan(small_path, without_files(references), now=at)
    assert [f.tensors for f in again.findings] == [f.tensors for f in verdict.findings]


def test_no_verdict_holds_the_key_or_a_weight(small_path: Path, references: ReferenceSet):
    text = scan(small_path, without_files(references)).to_bytes().decode()
    assert bytes(range(32)).hex() not in text
    assert isinstance(scan(small_path, references), Verdict)


def test_control_characters_in_tensor_names_do_not_reach_the_document(
    small: t.Leak, references: ReferenceSet, tmp_path: Path
):
    evil = {f"\x1b[2J\n{n}": w for n, w in small.weights.items()}
    t.write(t.Leak(evil), tmp_path / "evil")
    verdict = scan(tmp_path / "evil", references)
    assert verdict.outcome is Outcome.MATCH
    assert all(e.suspect.isprintable() for f in verdict.findings for e in f.tensors)
