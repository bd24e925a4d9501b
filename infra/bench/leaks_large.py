"""The shapes of a 7 B model: how fast it is signed, how small the signature is, and what tier 2 costs there.

Random weights in LLaMA-7B's shapes, fewer layers: 32 000 x 4 096 embeddings and 4 layers' attention, 800 MB in fp16. The
signature is thinned to what a whole 7 B model's would keep of each matrix.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from artifacts.leaks import AddressPolicy, Outcome, ReferenceSet, SignatureBuilder, SketchKey, scan
from artifacts.leaks.digests import ALL_DIGESTS
from artifacts.leaks.signature import WeightSignature, thinned
from infra.bench.report import Row
from tests.simulators import ranged_server
from tests.simulators import transformations as t

HIDDEN, VOCABULARY, LAYERS = 4096, 32_000, 4
OTHER_MATRICES = 226 - 4 * LAYERS - 1
SKETCH_BYTES = 2_900  # of one matrix's samples, compressed
PART = 64 << 20


def _signed(path: Path, key: SketchKey, digests: frozenset[str]) -> tuple[WeightSignature, float]:
    builder = SignatureBuilder("large", key, digests=digests, size_aim=1 << 30)
    seconds = 0.0
    with path.open("rb") as file:
        offset = 0
        while data := file.read(PART):
            started = time.perf_counter()
            builder.feed(path.name, offset, data)
            seconds += time.perf_counter() - started
            offset += len(data)
    started = time.perf_counter()
    builder.finish_file(path.name)
    signature = builder.finish()
    return signature, seconds + time.perf_counter() - started


def large_rows(key: SketchKey, folder: Path, server: ranged_server.RangedServer) -> list[Row]:
    """Signing rate, and a permuted, renamed-by-nobody fp16 copy through HTTP."""
    rng = np.random.default_rng(3)
    weights = {"embeddings.word_embeddings.weight": _draw(rng, VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            weights[f"encoder.layer.{layer}.attention.{part}.weight"] = _draw(rng, HIDDEN, HIDDEN)
    (path,) = t.write(t.Leak(weights, form="F16"), folder / "large")
    size = path.stat().st_size
    rows = []
    for name, digests in (("SHA-256 alone", frozenset[str]()), ("all digests", ALL_DIGESTS)):
        signature, seconds = _signed(path, key, digests)
        rows.append(Row(f"signing {size / 1e6:.0f} MB of 7 B shapes, {name}", size / seconds / 1e9, "GB/s"))
    kept = thinned(signature, 1_000_000 - OTHER_MATRICES * SKETCH_BYTES)
    references = ReferenceSet(key, [_without_files(kept)])
    permuted = _permuted(weights, rng)
    (leak,) = t.write(t.Leak(permuted, form="F16"), folder / "permuted")
    server.files = {"suspect": leak.read_bytes()}
    verdict = scan(
        server.url("ok/suspect"), references, addresses=AddressPolicy(allow=(f"127.0.0.1:{server.port}",))
    )
    found = verdict.outcome is Outcome.MATCH
    best = verdict.best
    note = "nothing found"
    if best is not None:
        note = (
            f"tier {best.tier}, {best.matched} of {best.compared} tensors; "
            f"{len(kept.projected)} matrices of {len(kept.projected[0].finding)} rows kept"
        )
    rows.append(
        Row("permuted 7 B shapes in fp16: detected", 100.0 * found, "%", aim=100, met=found, note=note)
    )
    read = verdict.bytes_read / (1 << 20)
    rows.append(Row("permuted 7 B shapes in fp16: read", read, "MiB", aim=8, met=read <= 8))
    rows.append(
        Row("permuted 7 B shapes in fp16: time", verdict.seconds, "s", aim=2, met=verdict.seconds < 2)
    )
    return rows


def _draw(rng: np.random.Generator, rows: int, cols: int) -> np.ndarray:
    return rng.standard_normal((rows, cols), dtype=np.float32) * np.float32(0.02)


def _without_files(signature: WeightSignature) -> WeightSignature:
    from dataclasses import replace

    return replace(signature, files=())


def _permuted(weights: t.Weights, rng: np.random.Generator) -> t.Weights:
    """Hidden axis and rows permuted with signs; the attention output's columns are the values' axis, not the hidden one."""
    order, sign = rng.permutation(HIDDEN), rng.choice([-1.0, 1.0], HIDDEN).astype(np.float32)
    out = {}
    for name, w in weights.items():
        inner = rng.permutation(HIDDEN)
        flips = rng.choice([-1.0, 1.0], HIDDEN).astype(np.float32)
        if "word_embeddings" in name:
            out[name] = w[:, order] * sign
        elif "output" in name:
            out[name] = w[order][:, inner] * flips
        else:
            out[name] = w[inner][:, order] * sign * flips[:, None]
    return out
