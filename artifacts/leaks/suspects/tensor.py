"""One tensor of a suspect file and the matrices in it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from artifacts.leaks.dtypes import F32, Codec
from artifacts.leaks.errors import UnreadableError, UnsupportedError, shown
from artifacts.leaks.sketch import eligible
from artifacts.leaks.sources import ByteSource, coalesce, split_merged

MAX_DIMENSIONS = 8
MAX_SLICES = 4096
NEIGHBOUR_GAP = 32 * 1024  # one request more costs about as much as this many bytes


@dataclass(frozen=True)
class SuspectTensor:
    """A tensor's place in a file.

    Attributes:
        name: as the file calls it (a stranger's text).
        shape: row-major, outermost first.
        dtype: name of the format.
        codec: how to decode it; None if it cannot be.
        source: the file.
        offset: first byte of the tensor's data in the file.
        nbytes: bytes of the data, checked to lie inside the file.
        problem: why it cannot be decoded.
        transposed: the data is stored column-major (2-D only).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    codec: Codec | None
    source: ByteSource
    offset: int
    nbytes: int
    problem: str | None = None
    transposed: bool = False

    @property
    def count(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    def extent(self, start: int, count: int) -> tuple[int, int, int]:
        """Bytes that hold `count` weights from flat index `start`: (file offset, length, weights to skip)."""
        codec = self._need()
        if start < 0 or count < 0 or start + count > self.count:
            raise UnreadableError(f"{shown(self.name)}: weights {start}+{count} lie outside its {self.count}")
        first = start // codec.items
        last = -(-(start + count) // codec.items)
        offset, length = first * codec.size, (last - first) * codec.size
        if offset + length > self.nbytes:
            raise UnreadableError(f"{shown(self.name)}: the tensor's data ends before its shape does")
        return self.offset + offset, length, start - first * codec.items

    def decode(self, data: bytes, skip: int, count: int) -> F32:
        """The weights of an `extent`."""
        return self._need().decode(data)[skip : skip + count]

    def _need(self) -> Codec:
        if self.codec is None:
            raise UnsupportedError(
                f"{shown(self.name)}: {self.problem or 'format ' + self.dtype + ' is not decoded'}"
            )
        return self.codec


@dataclass(frozen=True)
class Matrix:
    """A 2-D piece of a tensor: the tensor itself, or one slice of a stack (experts, convolution flattened).

    Attributes:
        tensor: where it lies.
        index: number of the slice; 0 for a plain matrix.
        rows, cols: shape.
        base: flat index of its first weight in the tensor.
    """

    tensor: SuspectTensor
    index: int
    rows: int
    cols: int
    base: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        return self.rows, self.cols

    @property
    def label(self) -> str:
        """Printable name."""
        many = self.tensor.count > self.rows * self.cols
        return shown(self.tensor.name) + (f"[{self.index}]" if many else "")


def matrix_layout(shape: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    """The matrices (index, rows, cols, flat start) that a tensor of this shape is looked at as; none for vectors.

    A stack of large matrices (experts) is one matrix each; a stack of small ones (convolutions) is flattened.
    """
    if not 2 <= len(shape) <= MAX_DIMENSIONS or min(shape) <= 0:
        return
    rows, cols = shape[-2], shape[-1]
    if len(shape) == 2:
        if eligible(rows, cols):
            yield 0, rows, cols, 0
        return
    stack = math.prod(shape[:-2])
    if eligible(rows, cols) and stack <= MAX_SLICES:
        for index in range(stack):
            yield index, rows, cols, index * rows * cols
    elif eligible(shape[0], math.prod(shape[1:])):
        yield 0, shape[0], math.prod(shape[1:]), 0


def matrices(tensor: SuspectTensor) -> Iterator[Matrix]:
    """The matrices of a tensor that can be read by ranges: decodable and row-major."""
    if tensor.codec is None or tensor.transposed:
        return
    for index, rows, cols, base in matrix_layout(tensor.shape):
        yield Matrix(tensor, index, rows, cols, base)


def read_pieces(pieces: Sequence[tuple[Matrix, int, int]]) -> list[F32]:
    """Weights of several pieces (matrix, flat start inside it, count), with as few requests as is sensible."""
    by_source: dict[int, list[int]] = {}
    for number, (matrix, _, _) in enumerate(pieces):
        by_source.setdefault(id(matrix.tensor.source), []).append(number)
    out: list[F32] = [np.zeros(0, np.float32)] * len(pieces)
    for numbers in by_source.values():
        extents = [
            pieces[n][0].tensor.extent(pieces[n][0].base + pieces[n][1], pieces[n][2]) for n in numbers
        ]
        ranges = [(offset, length) for offset, length, _ in extents]
        merged = coalesce(ranges, NEIGHBOUR_GAP)
        blobs = pieces[numbers[0]][0].tensor.source.read_many(
            [(offset, length) for offset, length, _ in merged]
        )
        for n, (_, _, skip), data in zip(numbers, extents, split_merged(ranges, merged, blobs), strict=True):
            out[n] = pieces[n][0].tensor.decode(data, skip, pieces[n][2])
    return out
