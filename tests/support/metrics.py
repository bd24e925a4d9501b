"""The page of metrics, as tests read it."""

from __future__ import annotations

import re
from pathlib import Path

_PAGE = Path(__file__).resolve().parents[2] / "docs/metrics.md"


def documented() -> set[str]:
    """Names in the page's table."""
    return {
        found.group(1)
        for found in re.finditer(r"^\| `(sluice_[a-z_]+)` ", _PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    }
