"""Writes the last table of a benchmark into `docs/benchmarks.md`: `python -m infra.bench.page NAME [NOTE FILE]`.

A benchmark owns the section between `<!-- NAME -->` and `<!-- /NAME -->`; the rest of the page is left alone. Text between
the heading and the table (what was measured, on what, why an aim is unmet) is the section's own and is kept.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from infra.bench.report import FOLDER

PAGE = Path("docs") / "benchmarks.md"
HEAD = "# Benchmarks\n\nThe last table of each benchmark, with the command that makes it. Unmet aims stay in it.\n"


def number(value: float | None) -> str:
    """Three digits, or all of them for large numbers."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| case | value | unit | peer | ratio | aim | met | runs | note |",
        "|---|--:|---|---|--:|--:|---|--:|---|",
    ]
    for row in rows:
        peer = f"{row['peer']} {number(row['peer_value'])}".strip() if row["peer"] else ""
        met = "" if row["met"] is None else ("yes" if row["met"] else "**no**")
        cells = [row["case"], number(row["value"]), row["unit"], peer, number(row["ratio"]), number(row["aim"]), met,
                 str(row["runs"]), row["note"]]  # fmt: skip
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Replace one section's table."""
    name = sys.argv[1]
    rows = json.loads((FOLDER / f"{name}.json").read_text())
    page = PAGE.read_text() if PAGE.exists() else HEAD
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if start not in page:
        page = f"{page.rstrip()}\n\n{start}\n## `make bench-{name}`\n{end}\n"
    section = page[page.index(start) + len(start) : page.index(end)]
    text = re.sub(r"^\|.*\n?", "", section, flags=re.MULTILINE).strip()
    page = page.replace(start + section + end, f"{start}\n{text}\n\n{table(rows)}\n{end}")
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
