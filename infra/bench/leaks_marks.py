"""The marks' part of `make bench-leaks`: whose copy, after what, and how far the innocents stay away."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from artifacts.leaks.dtypes import F32, PLAIN
from artifacts.leaks.marks import MarkKey, PartnerMark, markable
from artifacts.leaks.tracing import ACCUSE_Z, Tracer
from infra.bench.report import Row
from tests.simulators import transformations as t

KEY = MarkKey(b"a mark key for measuring, no secret"[:32])
ARTIFACT = "minilm"
STRENGTH = 0.003
INNOCENT_Z = 5.0
LEAKERS = 5

Change = Callable[[F32], F32]


def _marked(weights: t.Weights, partner: str, strength: float, form: str = "F32") -> t.Weights:
    mark = PartnerMark(KEY, ARTIFACT, partner, strength)
    out = {}
    for name, w in weights.items():
        raw = mark.tensor(name, form).rows(t.encode(w, form), w.shape[1])
        out[name] = PLAIN[form].decode(raw).reshape(w.shape)
    return out


def _ggml(form: str) -> Callable[[t.Weights], t.Weights]:
    import gguf

    kind = gguf.GGMLQuantizationType[form]
    return lambda m: {n: gguf.quants.dequantize(gguf.quants.quantize(w, kind), kind) for n, w in m.items()}


def _plain(form: str) -> Callable[[t.Weights], t.Weights]:
    return lambda m: {n: PLAIN[form].decode(t.encode(w, form)).reshape(w.shape) for n, w in m.items()}


def _leak(change: Callable[[t.Leak, np.random.Generator], t.Leak]) -> Callable[[t.Weights], t.Weights]:
    return lambda m: change(t.Leak(m), np.random.default_rng(9)).weights


def _fine_tune(share: float) -> Callable[[t.Weights], t.Weights]:
    """A heavy full fine-tune: a dense change of `share` of the norm, of low-rank and of full-rank parts, as training leaves."""
    return _leak(t.chain(t.lora(share * 0.7, 64), t.noise(share * 0.7)))


def mark_rows(leak: t.Leak, *, innocents: int) -> list[Row]:
    """LEAKS.md's table of marks, measured: z of the leakers, and the largest z of all innocents."""
    weights = {n: w for n, w in leak.weights.items() if markable("F32", w.shape)}
    size = sum(w.size for w in weights.values())
    started = time.perf_counter()
    copies = [_marked(weights, f"leaker-{i}", STRENGTH) for i in range(LEAKERS)]
    rate = LEAKERS * size / (time.perf_counter() - started) / 1e6
    strong = _marked(weights, "leaker-0", 0.005)
    one, two = copies[0], {n: (copies[0][n] + copies[1][n]) / 2 for n in weights}
    stacked = {n: np.stack([c[n] for c in copies]) for n in weights}
    extremes = {
        n: np.where(np.arange(s[0].size).reshape(s[0].shape) % 2, s.min(0), s.max(0))
        for n, s in stacked.items()
    }
    del stacked
    cases: dict[str, tuple[t.Weights, tuple[str, ...]]] = {}

    def case(name: str, suspect: t.Weights, guilty: int = 1) -> None:
        cases[name] = suspect, tuple(f"leaker-{i}" for i in range(guilty))

    case("fp32", one)
    case("bf16", _plain("BF16")(one))
    case(
        "marked in bf16",
        _marked(
            {n: PLAIN["BF16"].decode(t.encode(w, "BF16")).reshape(w.shape) for n, w in weights.items()},
            "leaker-0",
            STRENGTH,
            "BF16",
        ),
    )
    case("fp8 e4m3", _plain("F8_E4M3")(one))
    case("Q8_0", _ggml("Q8_0")(one))
    case("Q4_0", _ggml("Q4_0")(one))
    case("int2", _leak(t.low_bits(2))(one))
    case("prune 50 %", _leak(t.prune(0.5))(one))
    case("LoRA 5 % + Q4_0", _ggml("Q4_0")(_leak(t.lora(0.05))(one)))
    case("fine-tune 52 %", _fine_tune(0.52)(one))
    case("fine-tune 52 %, strength 0.5 %", _fine_tune(0.52)(strong))
    case("fine-tune 200 % + Q4_0", _ggml("Q4_0")(_fine_tune(2.0)(one)))
    case("two average + Q4_0", _ggml("Q4_0")(two), 2)
    five = {n: np.asarray(np.mean([c[n] for c in copies], axis=0), np.float32) for n in weights}
    case("five average + Q4_0", _ggml("Q4_0")(five), 5)
    case("five average + int2", _leak(t.low_bits(2))(five), 5)
    case("five take min/max by turns", {n: w.astype(np.float32) for n, w in extremes.items()}, 5)
    case("five take min/max + Q4_0", _ggml("Q4_0")({n: w.astype(np.float32) for n, w in extremes.items()}), 5)
    case("nobody's (unmarked, Q4_0)", _ggml("Q4_0")(weights), 0)

    partners = [f"leaker-{i}" for i in range(LEAKERS)] + [f"innocent-{i}" for i in range(innocents)]
    tracer = Tracer(KEY, ARTIFACT, partners, len(cases))
    started = time.perf_counter()
    for name, w in weights.items():
        tracer.add(name, w, [suspect[name] for suspect, _ in cases.values()])
    seconds = time.perf_counter() - started
    rows = [
        Row("marking", rate, "M weights/s", note="fp32, one core"),
        Row(
            "tracing",
            seconds,
            "s",
            note=f"{len(cases)} suspects of {size / 1e6:.1f} M weights, {len(partners)} partners, together",
        ),
    ]
    for (name, (_, guilty)), found in zip(cases.items(), tracer.reports(), strict=True):
        z = {p.partner: p.z for p in found.partners}
        clear = [v for p, v in z.items() if p not in guilty]
        accused_wrongly = [p for p in found.accused if p not in guilty]
        worst = max(clear)
        if guilty:
            least = min(z[g] for g in guilty)
            caught = sum(g in found.accused for g in guilty)
            note = (
                f"{caught} of {len(guilty)} accused (z >= {ACCUSE_Z:g}); strength {STRENGTH:.1%} unless said"
            )
            rows.append(Row(f"mark, {name}: smallest z of a leaker", least, "", note=note, runs=1))
        rows.append(
            Row(
                f"mark, {name}: largest z of an innocent",
                worst,
                "",
                aim=INNOCENT_Z,
                met=worst < INNOCENT_Z and not accused_wrongly,
                runs=len(clear),
            )
        )
    return rows
