"""The table of a benchmark: printed for people, written as rows for `docs/benchmarks.md`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

FOLDER = Path("build") / "bench"


@dataclass(frozen=True, slots=True)
class Row:
    """One line.

    Attributes:
        case: what was done.
        value: what came out, a median of `runs`.
        unit: its unit.
        peer: what it is compared with, or None.
        peer_value: what the peer came to, in the same unit.
        ratio: value / peer_value.
        aim: the value asked for, or None.
        met: whether the aim is met, or None where there is none.
        runs: how many runs the median is of.
        note: anything that a reader must know.
    """

    case: str
    value: float
    unit: str
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    aim: float | None = None
    met: bool | None = None
    runs: int = 1
    note: str = ""


def report(name: str, rows: Sequence[Row]) -> Path:
    """Print the rows and write them to `build/bench/NAME.json`; returns the path."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    table = Table(title=f"bench-{name}")
    for heading in ("case", "value", "unit", "peer", "ratio", "aim", "met", "note"):
        table.add_column(heading, justify="right" if heading in {"value", "ratio", "aim"} else "left")
    for row in rows:
        peer = "" if row.peer is None else f"{row.peer} {_number(row.peer_value)}".strip()
        met = "" if row.met is None else ("yes" if row.met else "NO")
        table.add_row(
            row.case, _number(row.value), row.unit, peer, _number(row.ratio), _number(row.aim), met, row.note
        )
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)
    return path


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
