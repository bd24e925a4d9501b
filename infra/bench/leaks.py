"""`make bench-leaks`: what is recognised, at what cost, and what is never mistaken for ours.

Real weights of MiniLM as the artifact, SmolLM2 as the stranger, synthetic matrices for the rest. Suspects are read over HTTP
ranges from loopback. Writes the tables into `docs/leaks.md` and the distribution of r and z to
`docs/leaks-distribution.svg`.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from artifacts.leaks import (
    AddressPolicy,
    HubOptions,
    Outcome,
    ReferenceSet,
    SignatureBuilder,
    SketchKey,
    Verdict,
    WeightSignature,
    compare_whole,
    scan,
)
from artifacts.leaks.aligned import aligned_tier
from artifacts.leaks.dtypes import F32
from artifacts.leaks.matching import SketchComparison
from artifacts.leaks.sketch import CLIP, MATCH_R, MATCH_Z, SAMPLES, passes
from artifacts.leaks.sources import Budget, Ledger, LocalSource
from artifacts.leaks.suspects.opening import Suspect, open_file
from artifacts.leaks.suspects.tensor import Matrix, SuspectTensor
from infra.bench.leaks_large import large_rows
from infra.bench.leaks_marks import mark_rows
from infra.bench.leaks_page import write_page
from infra.bench.leaks_plot import Cloud, write_plot
from infra.bench.report import Row, report
from tests.simulators import ranged_server
from tests.simulators import transformations as t

KEY = SketchKey(b"a key for measuring, not a secret"[:32])
MIB = 1 << 20
PLOT = Path("docs/leaks-distribution.svg")


def signed(path: Path, artifact: str) -> tuple[WeightSignature, float]:
    """A file's signature and the seconds it took, in parts of 64 MiB as the sealing pipeline feeds them."""
    builder = SignatureBuilder(artifact, KEY)
    started = time.perf_counter()
    with path.open("rb") as file:
        offset = 0
        while data := file.read(64 * MIB):
            builder.feed(path.name, offset, data)
            offset += len(data)
    builder.finish_file(path.name)
    return builder.finish(), time.perf_counter() - started


class Bench:
    """One artifact, its references, and everything measured against it."""

    def __init__(self, repeats: int) -> None:
        self.repeats = repeats
        self.rows: list[Row] = []
        self.clouds: dict[str, Cloud] = {}
        self.leak = t.Leak(t.read_safetensors(t.minilm_path()))
        signature, seconds = signed(t.minilm_path(), "minilm")
        size = t.minilm_path().stat().st_size
        self.references = ReferenceSet(KEY, [dataclasses.replace(signature, files=())])
        self.exact = ReferenceSet(KEY, [signature])
        packed = len(signature.to_bytes())
        self.rows.append(Row("signature of MiniLM (90.9 MB)", packed / 1e6, "MB", aim=1.0, met=packed < 1e6))
        self.rows.append(Row("signing with all digests, one pass", size / seconds / 1e9, "GB/s"))

    # --- what is recognised ---------------------------------------------------------------------------------------------

    def transformations(self, server: ranged_server.RangedServer, folder: Path) -> None:
        """Every transformation of LEAKS.md, several times, through HTTP."""
        for name, change in t.TRANSFORMATIONS.items():
            verdicts = []
            for seed in range(self.repeats):
                place = folder / "leak"
                shutil.rmtree(place, ignore_errors=True)
                files = t.write(change(self.leak, np.random.default_rng(seed)), place)
                verdicts.append(self._over_http(server, files))
            self._transformation_rows(name, verdicts)

    def _over_http(self, server: ranged_server.RangedServer, files: Sequence[Path]) -> Verdict:
        """One file by its address, several as a repository of the Hub."""
        allowed = AddressPolicy(allow=(f"127.0.0.1:{server.port}", f"[::1]:{server.port}"))
        if len(files) == 1:
            server.files = {"suspect": files[0].read_bytes()}
            return scan(server.url("ok/suspect"), self.references, addresses=allowed)
        ranged_server.add_hub(server, "someone/upload", {f.name: f.read_bytes() for f in files})
        hub = HubOptions(endpoint=f"http://127.0.0.1:{server.port}")
        return scan("hf:someone/upload", self.references, addresses=allowed, hub=hub)

    def _transformation_rows(self, name: str, verdicts: Sequence[Verdict]) -> None:
        found = sum(v.outcome is Outcome.MATCH for v in verdicts)
        tiers = sorted({v.best.tier for v in verdicts if v.best})
        tensors = [e for v in verdicts if v.best for e in v.best.tensors]
        cloud = self.clouds.setdefault("aligned" if 2 in tiers else "copies", Cloud())
        cloud.add([e.r for e in tensors], [e.z for e in tensors])
        limit = 8.0 if 2 in tiers else 2.0
        note = (
            f"tier {'/'.join(map(str, tiers))}, matched {sum(e.matched for e in tensors)} of {len(tensors)} tensors, "
            f"r median {median(e.r for e in tensors):.4f}, z median {median(e.z for e in tensors):.1f}, "
            f"{round(median(v.requests for v in verdicts))} requests"
        )
        runs = len(verdicts)
        self.rows.append(
            Row(
                f"{name}: detected", 100 * found / runs, "%", aim=100, met=found == runs, runs=runs, note=note
            )
        )
        read = max(v.bytes_read for v in verdicts) / MIB
        self.rows.append(
            Row(f"{name}: read", read, "MiB", aim=limit, met=read < limit, runs=runs, note="the largest")
        )
        seconds = [v.seconds for v in verdicts]
        self.rows.append(
            Row(
                f"{name}: time",
                median(seconds),
                "s",
                aim=2,
                met=median(seconds) < 2,
                runs=runs,
                note="median",
            )
        )

    def exact_copies(self) -> None:
        """The same bytes, here and deflated in an archive; the archive by tier 3 too."""
        verdict = scan(t.minilm_path(), self.exact)
        self.rows.append(
            Row(
                "the same file: bytes read",
                float(verdict.bytes_read),
                "B",
                aim=0,
                met=verdict.bytes_read == 0,
                note="tier 0",
            )
        )
        zipped = scan(t.zipped_copy_path(), self.exact)
        hint = zipped.outcome is Outcome.PARTIAL
        self.rows.append(
            Row(
                "the real zipped copy: hinted",
                float(hint),
                "",
                aim=1,
                met=hint,
                note="size and CRC-32 in the listing",
            )
        )
        whole = compare_whole([t.zipped_copy_path()], "minilm", [t.minilm_path()], references=self.exact)
        proven = whole.outcome is Outcome.MATCH and bool(whole.findings[0].exact)
        self.rows.append(
            Row(
                "the real zipped copy: proven",
                float(proven),
                "",
                aim=1,
                met=proven,
                note=f"tier 3, {whole.seconds:.1f} s",
            )
        )

    # --- what is not ours -----------------------------------------------------------------------------------------------

    def stranger(self) -> None:
        """SmolLM2 as it is: other shapes. And its weights cut into our shapes: real, trained, independent weights."""
        verdict = scan(t.stranger_path(), self.references)
        clear = verdict.outcome is Outcome.NO_MATCH
        self.rows.append(
            Row(
                "SmolLM2 as it is: no match",
                float(clear),
                "",
                aim=1,
                met=clear,
                note=f"{verdict.bytes_read / MIB:.2f} MiB read",
            )
        )
        values = real_values()
        cloud = self.clouds.setdefault("independent", Cloud())
        windows = values[: len(values) // SAMPLES * SAMPLES].reshape(-1, SAMPLES)
        self._null("SmolLM2's weights against MiniLM's", windows, cloud)

    def _null(self, name: str, windows: F32, cloud: Cloud) -> None:
        """Each window against every reference matrix, whatever its shape: pairs of independent models' tensors."""
        from artifacts.leaks.sketch import compare, normalise, prepare

        ours = prepare(np.stack([m.samples for m in self.references.artifacts[0].matrices]))
        worst_r, worst_z, false = 0.0, 0.0, 0
        pairs = 0
        for window in windows:
            x = np.concatenate([normalise(half) for half in np.split(window, 2)])
            r, z = compare(x, ours)
            pairs += len(r)
            false += sum(passes(float(a), float(b)) for a, b in zip(r, z, strict=True))
            worst_r, worst_z = max(worst_r, float(np.abs(r).max())), max(worst_z, float(np.abs(z).max()))
            cloud.add(r.tolist(), z.tolist())
        self.rows.append(
            Row(
                f"{name}: tensors falsely matched",
                float(false),
                "",
                aim=0,
                met=false == 0,
                runs=pairs,
                note=f"{pairs} pairs, max |r| {worst_r:.3f}, max |z| {worst_z:.2f} (match: r {MATCH_R}, z {MATCH_Z})",
            )
        )

    def random_candidates(self, count: int) -> None:
        """Whole candidates of our shapes with random weights, judged as a scan judges them, without files in between."""
        matrices = self._matrices()[:32]
        partial = matched = single = 0
        worst_r = worst_z = 0.0
        cloud = self.clouds.setdefault("random", Cloud())
        rng = np.random.default_rng(1)
        started = time.perf_counter()
        for number in range(count):
            comparison = SketchComparison(self.references)
            draws = (
                rng.standard_t(4, (len(matrices), SAMPLES))
                if number % 2
                else rng.standard_normal((len(matrices), SAMPLES))
            )
            draws = np.clip(draws, -CLIP, CLIP).reshape(len(matrices), 2, -1)
            draws -= draws.mean(axis=2, keepdims=True)
            for matrix, x in zip(matrices, draws.reshape(len(matrices), -1).astype(np.float32), strict=True):
                comparison.add(matrix, x)
            (finding,) = comparison.findings()
            matched += finding.outcome is Outcome.MATCH
            partial += finding.outcome is Outcome.PARTIAL
            single += any(e.matched for e in finding.tensors)
            worst_r = max(worst_r, *(e.r for e in finding.tensors))
            worst_z = max(worst_z, *(e.z for e in finding.tensors))
            cloud.add([e.r for e in finding.tensors], [e.z for e in finding.tensors])
        rate = count / (time.perf_counter() - started)
        note = f"32 tensors each, best of candidates: max r {worst_r:.3f}, max z {worst_z:.2f}; {rate:.0f} candidates a second"
        for name, value in (("matched", matched), ("partial", partial), ("with any matched tensor", single)):
            self.rows.append(
                Row(
                    f"random candidates falsely {name}",
                    float(value),
                    "",
                    aim=0,
                    met=value == 0,
                    runs=count,
                    note=note,
                )
            )

    def _matrices(self) -> list[Matrix]:
        suspect = Suspect()
        source = LocalSource(t.minilm_path(), Budget(), Ledger())
        open_file(source, suspect)
        source.close()
        return [m for m in suspect.matrices() if self.references.at(m.shape)]

    def independent_models(self, count: int, folder: Path) -> None:
        """Independent models of exactly our shapes, whole scans with tier 1 and tier 2: weights shuffled beyond recognition.

        The nearest thing to a second training run that this machine can make: every tensor keeps MiniLM's own distribution,
        heavy tails and row scales, but neither its values' order nor its directions.
        """
        false = 0
        worst_r = worst_z = 0.0
        cloud = self.clouds.setdefault("independent", Cloud())
        tier_two = []
        for seed in range(count):
            rng = np.random.default_rng(1000 + seed)
            weights = {
                n: rng.permuted(rng.permuted(w, axis=0), axis=w.ndim - 1)
                for n, w in self.leak.weights.items()
            }
            place = folder / "independent"
            shutil.rmtree(place, ignore_errors=True)
            verdict = scan(t.write(t.Leak(weights), place)[0], self.references)
            false += verdict.outcome is not Outcome.NO_MATCH
            for finding in verdict.findings:
                worst_r = max(worst_r, *(abs(e.r) for e in finding.tensors))
                worst_z = max(worst_z, *(abs(e.z) for e in finding.tensors))
                cloud.add([e.r for e in finding.tensors], [e.z for e in finding.tensors])
            tier_two.append(self._forced_tier_two(weights))
        self.rows.append(
            Row(
                "independent models of our shapes: not 'no match'",
                float(false),
                "",
                aim=0,
                met=false == 0,
                runs=count,
                note=f"whole scans, tiers 1 and 2: max |r| {worst_r:.3f}, max |z| {worst_z:.2f}",
            )
        )
        r, z = max(x[0] for x in tier_two), max(x[1] for x in tier_two)
        hits = sum(x[2] for x in tier_two)
        self.rows.append(
            Row(
                "the same with the embedding's alignment forced: tensors falsely matched",
                float(hits),
                "",
                aim=0,
                met=hits == 0,
                runs=sum(x[3] for x in tier_two),
                note=f"tier 2 alone, max r {r:.3f}, max z {z:.2f}",
            )
        )

    def _forced_tier_two(self, weights: t.Weights) -> tuple[float, float, int, int]:
        """Tier 2 on a model that stole only our embedding table: the hidden axis aligns perfectly, nothing else is ours."""
        name = "embeddings.word_embeddings.weight"
        with tempfile.TemporaryDirectory() as folder:
            path = t.write(t.Leak({**weights, name: self.leak.weights[name]}), Path(folder))[0]
            suspect = Suspect()
            source = LocalSource(path, Budget(), Ledger())
            open_file(source, suspect)
            findings, _ = aligned_tier(suspect.matrices(), self.references)
            source.close()
        tensors = [e for f in findings for e in f.tensors]
        return (
            max((e.r for e in tensors), default=0.0),
            max((e.z for e in tensors), default=0.0),
            sum(e.matched for e in tensors),
            len(tensors),
        )


def real_values() -> F32:
    """The stranger's weights, dequantised, in the order of its file."""
    suspect = Suspect()
    source = LocalSource(t.stranger_path(), Budget(1 << 40, 1 << 40, 600), Ledger())
    open_file(source, suspect)
    out = [_all(x) for x in suspect.tensors if x.codec is not None and len(x.shape) == 2][:60]
    source.close()
    return np.concatenate(out)


def _all(tensor: SuspectTensor) -> F32:
    offset, length, skip = tensor.extent(0, min(tensor.count, 1 << 20))
    return tensor.decode(tensor.source.read(offset, length), skip, min(tensor.count, 1 << 20))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all of it; `--quick` for one run each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one run of each, 500 candidates, 100 innocents")
    quick = parser.parse_args(arguments).quick
    bench = Bench(1 if quick else 3)
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as name, ranged_server.running() as server:
        folder = Path(name)
        steps: list[Callable[[], None]] = [
            bench.exact_copies,
            lambda: bench.transformations(server, folder),
            bench.stranger,
            lambda: bench.independent_models(3 if quick else 30, folder),
            lambda: bench.random_candidates(500 if quick else 10_000),
        ]
        for step in steps:
            step()
        if not quick:
            bench.rows.extend(large_rows(KEY, folder, server))
    if not quick:
        write_plot(PLOT, bench.clouds)
    bench.rows.extend(mark_rows(bench.leak, innocents=100 if quick else 1_000))
    report("leaks", bench.rows)
    if not quick:
        write_page(bench.rows)


if __name__ == "__main__":
    main()
