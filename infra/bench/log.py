"""`make bench-log`: does appending slow down as the audit log grows, and how fast is an export verified?

Pure library work on one core, without a database: what the Merkle tree, the proofs and the offline verifier cost.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from statistics import median

from infra.bench.report import Row, report
from orchestrator.trust.audit import export_lines, leaf_bytes, verify_export
from orchestrator.trust.checkpoints import Checkpoint, NoteSigner, sign_checkpoint
from orchestrator.trust.keys import PrivateKey
from orchestrator.trust.merkle import (
    CompactTree,
    Node,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_at,
    verify_consistency,
    verify_inclusion,
)

SIZES = (1_000, 10_000, 100_000, 1_000_000)
WINDOW = 100
"""Appends timed around each size."""
WINDOWS = 9
PROOFS = 200
EXPORTED = 100_000
VERIFICATIONS_A_SECOND = 50_000
KEEPS_SPEED = 0.8
"""At a million entries an append may take at most 1 / 0.8 of the time it takes at a thousand."""


class Nodes:
    """The stored nodes, packed: 32 bytes each, one array per level."""

    def __init__(self) -> None:
        self._levels: list[bytearray] = []

    def store(self, completed: list[Node]) -> None:
        """Keep what an append has completed."""
        for level, _, hashed in completed:
            if level == len(self._levels):
                self._levels.append(bytearray())
            self._levels[level] += hashed

    def read(self, level: int, index: int) -> bytes:
        """A `NodeReader`."""
        return bytes(self._levels[level][32 * index : 32 * index + 32])


def entry(index: int) -> bytes:
    """A leaf like those that a command makes, some 330 bytes."""
    return leaf_bytes(
        {
            "index": index,
            "command": "sign_off",
            "release": "gpt-2-2019",
            "actor": "alice",
            "at": "2026-11-23T09:00:00Z",
            "accepted": True,
            "change": {"digest": "sha256:" + "0" * 64, "step": "large-downloadable", "comment": "x" * 100},
        }
    )


def _grow(leaf: bytes) -> list[Row]:
    tree, nodes = CompactTree(), Nodes()
    rows: list[Row] = []
    rates: dict[int, float] = {}
    for size in SIZES:
        while tree.size < size - WINDOW * WINDOWS // 2:
            nodes.store(tree.append(leaf))
        timed: list[float] = []
        while len(timed) < WINDOWS:
            started = time.perf_counter()
            for _ in range(WINDOW):
                nodes.store(tree.append(leaf))
            timed.append(WINDOW / (time.perf_counter() - started))
        rates[size] = median(timed)
        note = f"state kept between appends: {len(tree.to_bytes())} bytes"
        rows.append(Row(f"append at {size:,} entries", rates[size], "entries/s", runs=WINDOWS, note=note))
        rows += _proofs(size, tree, nodes, leaf)
    slowest, first = rates[SIZES[-1]], rates[SIZES[0]]
    rows.append(
        Row(
            f"append speed kept from {SIZES[0]:,} to {SIZES[-1]:,} entries",
            slowest / first,
            "ratio",
            aim=KEEPS_SPEED,
            met=slowest / first >= KEEPS_SPEED,
            runs=WINDOWS,
        )
    )
    return rows


def _proofs(size: int, tree: CompactTree, nodes: Nodes, leaf: bytes) -> list[Row]:
    chosen = random.Random(size).sample(range(tree.size), min(PROOFS, tree.size))  # noqa: S311 - which entries to time
    root, hashed = tree.root(), leaf_hash(leaf)
    old = tree.size // 3
    old_root = root_at(old, nodes.read)

    def include(index: int) -> None:
        verify_inclusion(hashed, index, tree.size, inclusion_proof(index, tree.size, nodes.read), root)

    def extend(_index: int) -> None:
        path = consistency_proof(old, tree.size, nodes.read)
        verify_consistency(old, tree.size, path, old_root, root)

    return [
        Row(
            f"{name} proof made and verified at {size:,}",
            median(_microseconds(run, chosen)),
            "µs",
            runs=len(chosen),
        )
        for name, run in (("inclusion", include), ("consistency", extend))
    ]


def _microseconds(run: Callable[[int], None], arguments: list[int]) -> list[float]:
    timed = []
    for argument in arguments:
        started = time.perf_counter()
        run(argument)
        timed.append((time.perf_counter() - started) * 1e6)
    return timed


def _verify() -> list[Row]:
    signer = NoteSigner("sluice.example/log", PrivateKey.generate())
    leaves = [entry(index) for index in range(EXPORTED)]
    tree, notes = CompactTree(), []
    for leaf in leaves:
        tree.append(leaf)
        if tree.size % 1_000 == 0:
            notes.append(sign_checkpoint(Checkpoint(signer.name, tree.size, tree.root()), signer))
    lines = list(export_lines(signer.name, leaves, notes))
    rates = []
    for _ in range(3):
        started = time.process_time()
        verified = verify_export(lines, signer.verifier)
        rates.append(EXPORTED / (time.process_time() - started))
        assert verified.root == tree.root()
    rate = median(rates)
    megabytes = sum(map(len, lines)) / 1e6
    return [
        Row(
            f"verify an export of {EXPORTED:,} entries",
            rate,
            "entries/s",
            aim=VERIFICATIONS_A_SECOND,
            met=rate >= VERIFICATIONS_A_SECOND,
            runs=len(rates),
            note=f"CPU time of one core; {megabytes:.0f} MB, {verified.checkpoints} signed checkpoints",
        )
    ]


def main() -> None:
    """Run, print and write the table."""
    report("log", [*_grow(entry(0)), *_verify()])


if __name__ == "__main__":
    main()
