"""The distribution of r and z as a picture: plain SVG, written by hand, so that no plotting library is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from artifacts.leaks.sketch import MATCH_R, MATCH_Z

WIDTH, HEIGHT, LEFT, TOP, PANEL = 860, 620, 70, 54, 220
COLOURS = {"copies": "#1b7f5c", "aligned": "#2f6fb5", "independent": "#b5472f", "random": "#8a8a8a"}
LABELS = {
    "copies": "leaked copies, tier 1",
    "aligned": "permuted copies, tier 2",
    "independent": "independent trained weights",
    "random": "random candidates, best of all",
}


class Cloud:
    """Many r and z, kept as histograms."""

    R_EDGES = np.linspace(-0.2, 1.0, 121)
    Z_EDGES = np.linspace(-10, 60, 141)

    def __init__(self) -> None:
        self.r = np.zeros(len(self.R_EDGES) - 1)
        self.z = np.zeros(len(self.Z_EDGES) - 1)

    def add(self, r: Sequence[float], z: Sequence[float]) -> None:
        """Count them; what lies outside is counted in the outermost bins."""
        for values, edges, counts in ((r, self.R_EDGES, self.r), (z, self.Z_EDGES, self.z)):
            inside = np.clip(values, edges[0] + 1e-9, edges[-1] - 1e-9)
            np.add(counts, np.histogram(inside, edges)[0], out=counts)


def write_plot(path: Path, clouds: dict[str, Cloud]) -> None:
    """Two panels (r above, z below), counts on a logarithmic axis, thresholds as dashed lines."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="22" font-size="16">Correlation of suspects\' tensors with the best candidate of the artifact</text>',
    ]
    x = LEFT
    for name in clouds:
        parts.append(
            f'<rect x="{x}" y="32" width="12" height="12" fill="{COLOURS[name]}" fill-opacity="0.6"/>'
        )
        parts.append(f'<text x="{x + 17}" y="43">{escape(LABELS[name])}</text>')
        x += 196
    _panel(parts, TOP, "r", Cloud.R_EDGES, {n: c.r for n, c in clouds.items()}, MATCH_R, 0.1)
    _panel(parts, TOP + PANEL + 66, "z", Cloud.Z_EDGES, {n: c.z for n, c in clouds.items()}, MATCH_Z, 10)
    parts.append("</svg>")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts) + "\n", encoding="utf-8")


def _panel(
    parts: list[str],
    top: int,
    name: str,
    edges: np.ndarray,
    counts: dict[str, np.ndarray],
    threshold: float,
    tick: float,
) -> None:
    wide, low, high = WIDTH - LEFT - 30, float(edges[0]), float(edges[-1])
    peak = max(float(c.max()) for c in counts.values()) or 1.0
    decades = math.ceil(math.log10(peak + 1)) or 1

    def across(value: float) -> float:
        return LEFT + wide * (value - low) / (high - low)

    def up(count: float) -> float:
        return top + PANEL - PANEL * (math.log10(count) + 0.15 if count else 0) / (decades + 0.15)

    for decade in range(decades + 1):
        y = up(10.0**decade)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{LEFT + wide}" y2="{y:.1f}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10**decade:,}</text>')
    for series, values in counts.items():
        points = [f"{across(low):.1f},{top + PANEL}"]
        for i, count in enumerate(values):
            points.append(f"{across(float(edges[i])):.1f},{up(float(count)):.1f}")
            points.append(f"{across(float(edges[i + 1])):.1f},{up(float(count)):.1f}")
        points.append(f"{across(high):.1f},{top + PANEL}")
        colour = COLOURS[series]
        parts.append(
            f'<polygon points="{" ".join(points)}" fill="{colour}" fill-opacity="0.45" stroke="{colour}"/>'
        )
    x = across(threshold)
    parts.append(
        f'<line x1="{x:.1f}" y1="{top - 4}" x2="{x:.1f}" y2="{top + PANEL}" stroke="#000" stroke-dasharray="5 4"/>'
    )
    parts.append(f'<text x="{x + 5:.1f}" y="{top + 10}">matched from {name} = {threshold:g}</text>')
    value = math.ceil(low / tick) * tick
    while value <= high + 1e-9:
        parts.append(
            f'<text x="{across(value):.1f}" y="{top + PANEL + 17}" text-anchor="middle">{round(value, 2):g}</text>'
        )
        value += tick
    parts.append(
        f'<text x="{LEFT + wide / 2}" y="{top + PANEL + 34}" text-anchor="middle">{name} (tensors, logarithmic)</text>'
    )
