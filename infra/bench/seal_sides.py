"""Cases of `make bench-seal` that put two ways of doing the same side by side: threads and processes, S3 sealed and plain."""

from __future__ import annotations

import importlib
import logging
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infra.bench.seal import Bench

S3_AIM = 0.9
_MIB = 1024 * 1024


def processes(bench: Bench) -> None:
    """Two threads of one process against two processes: of two files, and of one, whose plaintext has one digest."""
    pair = bench.folder / "pair"
    pair.mkdir()
    files = [pair / "a.bin", pair / "b.bin"]
    for file in files:
        with bench.big.open("rb") as whole, file.open("wb") as out:
            for _ in range(bench.size // 4 // (64 * 1024 * 1024)):
                out.write(whole.read(64 * 1024 * 1024))
    one, outputs = files[0].stat().st_size, ("store", "store-0", "store-1", "start", "body")

    def threads(source: Path) -> dict[str, Any]:
        bench.clean(*outputs)
        return bench.op("seal", source=source, store=f"dir:{bench.folder / 'store'}")

    def side_by_side(*ops: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        bench.clean(*outputs)
        (bench.folder / "start").mkdir()
        with ThreadPoolExecutor(2) as pool:
            done = [future.result() for future in [pool.submit(op) for op in ops]]
        return {
            "seconds": max(f["ended"] for f in done) - min(f["began"] for f in done),
            "cpu": sum(f["cpu"] for f in done),
            "peak_mib": sum(f["peak_mib"] for f in done),
        }

    def seal_alone(index: int) -> dict[str, Any]:
        return bench.op(
            "seal", source=files[index], store=f"dir:{bench.folder / f'store-{index}'}", workers=1, together=2,
            sealed=bench.folder / f"sealed-{index}.json",
        )  # fmt: skip

    def half(name: str) -> dict[str, Any]:
        return bench.op(name, source=files[0], target=bench.folder / "body", together=2)

    for what, amount, by_threads, by_processes, note in (
        ("two files", 2 * one, lambda: threads(pair), lambda: side_by_side(lambda: seal_alone(0), lambda: seal_alone(1)), "a file each"),
        ("one file", one, lambda: threads(files[0]), lambda: side_by_side(lambda: half("body"), lambda: half("plain_digest")),
         "one seals, one reads the file again for its SHA-256, which cannot be handed from process to process"),
    ):  # fmt: skip
        first, second = bench.repeat(by_threads, by_processes)
        rate = bench.row(f"seal {what}, two threads", first, amount)
        bench.row(f"seal {what}, two processes", second, amount, "two threads", rate, note=note)
    bench.clean(*outputs, "pair")


def s3(bench: Bench, size: int) -> None:
    """Put and get through two S3 servers on loopback, sealed beside plain boto3 of the same bytes."""
    servers = importlib.import_module("tests.artifacts.stores.servers")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    source = bench.folder / "object.bin"
    with source.open("wb") as file:
        for _ in range(size // (64 * 1024 * 1024)):
            file.write(os.urandom(64 * 1024 * 1024))
    for name in ("moto", "juicefs"):
        place = bench.folder / name
        place.mkdir()
        with ExitStack() as stack:
            server = stack.enter_context(
                servers.moto_server() if name == "moto" else servers.juicefs_server(place)
            )
            server.client().create_bucket(Bucket="bench")
            given: dict[str, Any] = {"store_options": dict(server.options)}
            counter = iter(range(100))

            def put(given: dict[str, Any] = given, counter: Any = counter) -> dict[str, Any]:
                return bench.op(
                    "plain_put", source=source, bucket="bench", key=f"plain/{next(counter)}", **given
                )

            def seal(given: dict[str, Any] = given) -> dict[str, Any]:
                return bench.op("seal", source=source, store="s3://bench/sealed", **given)

            def get(given: dict[str, Any] = given) -> dict[str, Any]:
                bench.clean("got")
                return bench.op(
                    "plain_get", bucket="bench", key="plain/0", target=bench.folder / "got", **given
                )

            def fetch(given: dict[str, Any] = given) -> dict[str, Any]:
                bench.clean("opened")
                return bench.op("fetch", store="s3://bench/sealed", target=bench.folder / "opened", **given)

            plain, sealed, got, fetched = bench.repeat(put, seal, get, fetch)
            note = f"{size / (1024 * _MIB):.3g} GiB"
            rate = bench.row(f"S3 put, plain boto3, {name}", plain, size, note=note)
            bench.row(f"S3 put, sealed, {name}", sealed, size, "boto3", rate, S3_AIM)
            rate = bench.row(f"S3 get, plain boto3, {name}", got, size, note=note)
            bench.row(f"S3 get, opened, {name}", fetched, size, "boto3", rate)
        shutil.rmtree(place)
        bench.clean("got", "opened")
