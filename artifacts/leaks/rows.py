"""Rows for the aligned test (tier 2): which are kept, how they are scaled and projected.

The columns of the embedding table and of every matrix that reads the residual stream are the same hidden axis. A copy whose
neurons were permuted and sign-flipped has that axis shuffled; the embedding rows tell how, and the projected rows of other
matrices, whose own row order is unknown as well, are found by one half of a random projection and tested on the other half.
The halves look at disjoint columns, so that what found a row says nothing about what tests it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from artifacts.leaks.sketch import CLIP, F32, I8, SketchKey, to_int8

EMBEDDING_BLOCKS = 4
EMBEDDING_ROWS = 128
MIN_EMBEDDING_ROWS = 1024
PROJECTED_ROWS = 1024
FINDING = 24
TESTING = 24
DIMENSIONS = FINDING + TESTING
MAX_PROJECTED = 40
MIN_PROJECTED = 12
EMBEDDING_STEPS = 1.5
PROJECTION_STEPS = 3.0


def embedding_row_ids(
    key: SketchKey, rows: int, cols: int, count: int = EMBEDDING_ROWS
) -> npt.NDArray[np.intp]:
    """The sampled rows of an embedding table: a few keyed blocks of neighbours, cheap to read by ranges."""
    block = count // EMBEDDING_BLOCKS
    stripe = rows // EMBEDDING_BLOCKS
    words = key.words("embedding rows", (rows, cols), EMBEDDING_BLOCKS)
    starts = [i * stripe + int(word % np.uint64(stripe - block + 1)) for i, word in enumerate(words)]
    return np.concatenate([np.arange(start, start + block) for start in starts])


def projected_row_ids(
    key: SketchKey, rows: int, cols: int, count: int = PROJECTED_ROWS
) -> npt.NDArray[np.intp]:
    """The rows of a matrix that the signature keeps projections of; shorter lists are prefixes of longer ones."""
    return key.order("projected rows", rows, cols)[: min(rows, count)]


def scale_rows(rows: npt.NDArray[np.floating]) -> F32:
    """Each row divided by the mean magnitude of what is not zero in it, and clipped. Not centred: a sign flip of columns must change nothing."""
    x = np.asarray(rows, dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        held = np.maximum(np.count_nonzero(x, axis=1, keepdims=True), 1)
        scale = 1.2533 * np.abs(x).sum(axis=1, keepdims=True, dtype=np.float64) / held
        return np.asarray(np.clip(np.nan_to_num(x / scale), -CLIP, CLIP), dtype=np.float32)


def projector(key: SketchKey, cols: int) -> F32:
    """(cols, DIMENSIONS) of keyed ±1: the first `FINDING` look at one random half of the columns, the rest at the other."""
    order = key.order("projection halves", cols)
    words = key.words("projection signs", (cols,), cols)
    bits = np.unpackbits(words.view(np.uint8).reshape(cols, 8), axis=1)[:, :DIMENSIONS]
    signs = 1.0 - 2.0 * bits.astype(np.float32)
    out = np.zeros((cols, DIMENSIONS), np.float32)
    half = cols // 2
    out[order[:half], :FINDING] = signs[order[:half], :FINDING]
    out[order[half:], FINDING:] = signs[order[half:], FINDING:]
    return out / np.float32(np.sqrt(cols / 2))


def quantise_embedding(rows: npt.NDArray[np.floating]) -> I8:
    """Embedding rows as stored."""
    return to_int8(scale_rows(rows), EMBEDDING_STEPS)


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key in which `layer.2` comes before `layer.10`."""
    out: list[tuple[int, int | str]] = []
    word = ""
    for char in name:
        if char.isascii() and char.isdigit():
            if word and not word[-1].isdigit():
                out.append((1, word))
                word = ""
        elif word and word[-1].isdigit():
            out.append((0, int(word[:18])))
            word = ""
        word += char
    if word:
        out.append((0, int(word[:18])) if word[-1].isascii() and word[-1].isdigit() else (1, word))
    return tuple(out)
