"""Rows for the aligned test (tier 2): which are kept, how they are scaled and projected.

The columns of the embedding table and of every matrix that reads the residual stream are the same hidden axis. A copy whose
neurons were permuted and sign-flipped has that axis shuffled; the embedding rows tell how, and the projected rows of other
matrices, whose own row order is unknown as well, are found by one half of a random projection and tested on the other half.
The halves look at disjoint columns, so that what found a row says nothing about what tests it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from artifacts.leaks.sketch import CLIP, F32, I8, SketchKey, to_int8

U8 = npt.NDArray[np.uint8]

T = TypeVar("T")

EMBEDDING_BLOCKS = 4
EMBEDDING_ROWS = 128
MIN_EMBEDDING_ROWS = 1024
PROJECTED_ROWS = 1024
FINDING = 24
TESTING = 96
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


def testing_dimensions(cols: int) -> int:
    """How many projections test a row: 96, fewer for narrow matrices, whose projections would repeat each other."""
    return max(8, min(TESTING, cols // 4) // 8 * 8)


def projector(key: SketchKey, cols: int) -> F32:
    """(cols, FINDING + testing_dimensions) of keyed ±1: finding looks at one random half of the columns, testing at the other."""
    order = key.order("projection halves", cols)
    count = FINDING + testing_dimensions(cols)
    words = key.words("projection signs", (cols,), 2 * cols)
    bits = np.unpackbits(words.view(np.uint8).reshape(cols, 16), axis=1)[:, :count]
    signs = 1.0 - 2.0 * bits.astype(np.float32)
    out = np.zeros((cols, count), np.float32)
    half = cols // 2
    out[order[:half], :FINDING] = signs[order[:half], :FINDING]
    out[order[half:], FINDING:] = signs[order[half:], FINDING:]
    return out / np.float32(np.sqrt(cols / 2))


def quantise_projections(projected: F32) -> tuple[I8, U8]:
    """Projections as stored: the finding half as int8, of the testing half only the signs, packed.

    One bit is nine times the evidence that int8 is, byte for byte: for equal rows z grows with the square root of the
    number of projections, and signs are the smallest of them.
    """
    centred = projected - projected.mean(axis=0, keepdims=True)
    return to_int8(centred[:, :FINDING], PROJECTION_STEPS), np.packbits(centred[:, FINDING:] > 0, axis=1)


def quantise_embedding(rows: npt.NDArray[np.floating]) -> I8:
    """Embedding rows as stored."""
    return to_int8(scale_rows(rows), EMBEDDING_STEPS)


def take_turns(queues: Mapping[tuple[int, int], Sequence[T]], count: int) -> list[T]:
    """Up to `count` matrices, shapes taking turns; shapes with very many rows come last.

    A row of a suspect is only of use if the signature has it too: the more rows a matrix has, the fewer of those that a
    scan can afford to read are among the kept ones.
    """
    out: list[T] = []
    for tall in (False, True):
        held = [
            list(items) for (rows, _), items in sorted(queues.items()) if (rows > 4 * PROJECTED_ROWS) is tall
        ]
        for turn in range(max(map(len, held), default=0)):
            out.extend(items[turn] for items in held if turn < len(items))
    return out[:count]


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
