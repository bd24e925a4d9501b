"""`sluice leak`: our weights are found again, strangers' are not, and what cannot be judged is not called quiet."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file


def weights(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {f"layers.{i}.w": random.standard_normal((256, 192)).astype(np.float32) for i in range(8)}


@pytest.fixture
def ours(sluice, home):
    folder = home / "ours"
    folder.mkdir()
    save_file(weights(1), folder / "model.safetensors")
    assert sluice("leak", "keygen", home / "sketch.key").code == 0
    ran = sluice(
        "leak",
        "signature",
        folder,
        "--key",
        home / "sketch.key",
        "--to",
        home / "ours.sig",
        "-n",
        "ours",
        "--json",
    )
    assert ran.code == 0, ran.err
    assert ran.json["matrices"] == 8
    return home


def scan(sluice, home, target, *more):
    return sluice("leak", "scan", target, "--key", home / "sketch.key", "-s", home / "ours.sig", *more)


def test_our_weights_are_found_again_under_other_names_and_casts(sluice, ours):
    suspect = {f"other.{i}": w.astype(np.float16) for i, w in enumerate(weights(1).values())}
    save_file(suspect, ours / "suspect.safetensors")
    ran = scan(sluice, ours, ours / "suspect.safetensors", "--save", ours / "verdict.json", "--json")
    assert ran.code == 1
    assert (ran.json["outcome"], ran.json["artifact"]) == ("match", "ours")
    assert json.loads((ours / "verdict.json").read_text())["outcome"] == "match"
    assert "match" in scan(sluice, ours, ours / "suspect.safetensors").out


def test_a_strangers_weights_are_not_ours(sluice, ours):
    save_file(weights(2), ours / "stranger.safetensors")
    ran = scan(sluice, ours, ours / "stranger.safetensors", "--json")
    assert (ran.code, ran.json["outcome"]) == (0, "no_match")


@pytest.mark.parametrize("data", [b"\xff" * 64, b"\x80\x02}q\x00."])
def test_what_cannot_be_read_is_inconclusive_and_not_quiet(sluice, ours, data):
    (ours / "odd.safetensors").write_bytes(data)
    ran = scan(sluice, ours, ours / "odd.safetensors", "--json")
    assert (ran.code, ran.json["outcome"]) == (11, "inconclusive")
    assert ran.json["reasons"]


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:9/model.safetensors", "http://169.254.169.254/latest", "http://[::1]/x"]
)
def test_nothing_inside_is_asked(sluice, ours, target):
    ran = scan(sluice, ours, target, "--json")
    assert (ran.code, ran.json["outcome"]) == (11, "inconclusive")


def test_a_signature_made_with_another_key(sluice, ours):
    sluice("leak", "keygen", ours / "other.key")
    ran = sluice("leak", "scan", ours / "ours", "--key", ours / "other.key", "-s", ours / "ours.sig")
    assert ran.code == 1
    assert "sketch key" in ran.err


@pytest.mark.parametrize("text", ["8XiB", "", "-1", "1e9", "MiB"])
def test_a_budget_that_is_none(sluice, ours, text):
    assert scan(sluice, ours, ours / "ours", "--max-bytes", text).code == 8


def test_a_key_that_is_none(sluice, ours):
    (ours / "bad.key").write_text("zz")
    (ours / "bad.key").chmod(0o600)
    assert sluice("leak", "scan", ours / "ours", "--key", ours / "bad.key", "-s", ours / "ours.sig").code == 8
