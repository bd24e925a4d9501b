"""The tables of `make bench-leaks` in `docs/leaks.md`, between its two markers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from infra.bench.report import FOLDER, Row

PAGE = Path("docs/leaks.md")
BEGIN, END = "<!-- bench-leaks:begin -->", "<!-- bench-leaks:end -->"


def write_page(rows: Sequence[Row], page: Path = PAGE) -> None:
    """Put the tables into the page."""
    text = page.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n{_tables(rows)}\n{END}{after}", encoding="utf-8")


def _tables(rows: Sequence[Row]) -> str:
    held = {row.case: row for row in rows}
    names = [c.removesuffix(": detected") for c in held if f"{c.removesuffix(': detected')}: read" in held]
    out = [
        "By `make bench-leaks`, from loopback over HTTP, on two cores that others use as well. Artifact: all-MiniLM-L6-v2. Unmet aims",
        "are marked **unmet**. Aims: everything detected, under 2 MiB (permuted: 8 MiB), under 2 s.",
        "",
        "| what was done to the weights | detected | read, MiB | seconds | tier, tensors, r and z |",
        "|---|--:|--:|--:|---|",
    ]
    for name in names:
        found, read, time = (held[f"{name}: {part}"] for part in ("detected", "read", "time"))
        out.append(
            f"| {name} | {_cell(found)} % of {found.runs} | {_cell(read)} | {_cell(time)} | {found.note} |"
        )
    marks = [r for r in rows if r.case.startswith("mark, ")]
    out += [
        "",
        "| marks: the copy, what happened to it | smallest z of a leaker | largest z of an innocent | |",
        "|---|--:|--:|---|",
    ]
    for row in marks:
        name = row.case.removeprefix("mark, ").partition(":")[0]
        if "innocent" in row.case:
            guilty = held.get(f"mark, {name}: smallest z of a leaker")
            z, note = (_cell(guilty), guilty.note.partition(";")[0]) if guilty else ("", "nobody to accuse")
            out.append(f"| {name} | {z} | {_cell(row)} of {row.runs} | {note} |")
    out += ["", "| everything else | value | aim | |", "|---|--:|--:|---|"]
    shown = {f"{n}: {p}" for n in names for p in ("detected", "read", "time")}
    for row in rows:
        if row.case not in shown and row not in marks:
            aim = "" if row.aim is None else f"{row.aim:g}"
            runs = f" ({row.runs:,})" if row.runs > 1 else ""
            out.append(
                f"| {row.case}{runs} | {_cell(row)} {row.unit} | {aim} | {row.note.replace('|', chr(92) + '|')} |"
            )
    return "\n".join(out)


def _cell(row: Row) -> str:
    value = (
        f"{row.value:,.0f}" if abs(row.value) >= 100 or row.value == int(row.value) else f"{row.value:.2g}"
    )
    if 10 <= abs(row.value) < 100 and row.value != int(row.value):
        value = f"{row.value:.1f}"
    return f"{value} **unmet**" if row.met is False else value


if __name__ == "__main__":
    write_page([Row(**row) for row in json.loads((FOLDER / "leaks.json").read_text())])
