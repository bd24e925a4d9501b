"""Reading what is traced: matrices of a suspect that a verdict recognised, within a budget. For the leak worker."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from artifacts.leaks.dtypes import F32
from artifacts.leaks.errors import BudgetError, UnreadableError
from artifacts.leaks.ranged import AddressPolicy
from artifacts.leaks.references import ReferenceSet
from artifacts.leaks.samples import MAX_ROWS_WEIGHTS, MAX_WEIGHTS, MAX_WHOLE_WEIGHTS, sample_file
from artifacts.leaks.scan import ScanLimits, headers_of
from artifacts.leaks.sources import Access, Budget, Ledger
from artifacts.leaks.suspects.tensor import Matrix, read_pieces
from artifacts.leaks.targets import HubOptions, ObjectStoreOptions, open_target

MAX_MATRICES = 64
MAX_TRACE_REQUESTS = 2_000


@dataclass(frozen=True)
class Sample:
    """What could be read of a suspect.

    Attributes:
        data: the safetensors file.
        matrices, weights: how much is in it.
        accesses: every answer that it rests on.
        notes: why there is not more.
    """

    data: bytes = field(repr=False)
    matrices: int
    weights: int
    accesses: tuple[Access, ...] = field(repr=False, default=())
    notes: tuple[str, ...] = ()

    @property
    def bytes_read(self) -> int:
        """Bytes that were received for it."""
        return sum(access.length for access in self.accesses)


def take_sample(
    target: str,
    references: ReferenceSet,
    recognised: Mapping[str, str],
    *,
    limits: ScanLimits,
    aligned: bool = False,
    tables: Collection[tuple[int, int]] = (),
    addresses: AddressPolicy | None = None,
    hub: HubOptions | None = None,
    objects: ObjectStoreOptions | None = None,
) -> Sample:
    """Read the first rows of a suspect's matrices, or matrices whole, the largest first, as many as the budget allows.

    Args:
        target: as `scan`.
        references: that it was recognised by: the same files of many are looked into.
        recognised: names of the suspect's matrices in the verdict → what they are in the artifact.
        aligned: they may be in another order than the artifact's: they are read whole, and named by number.
        limits: what it may cost.
        tables: shapes of embedding tables to read as well, before all others: they tell the order of permuted neurons.
        addresses: as `scan`.
        hub: as `scan`.
        objects: as `scan`.

    Raises:
        UnreadableError: not one matrix could be read.
    """
    budget = Budget(
        limits.max_bytes,
        max(limits.max_requests, MAX_TRACE_REQUESTS),
        limits.max_seconds,
        limits.max_wait,
    )
    ledger = Ledger()
    opened = open_target(
        target,
        budget,
        ledger,
        addresses or AddressPolicy(),
        hub or HubOptions(),
        limits.max_files,
        objects,
    )
    try:
        suspect = headers_of(opened, references)
        first, rest = _chosen(suspect.matrices(), recognised, tables)
        values, notes = _read([*first, *rest], budget, None if aligned else recognised)
    finally:
        opened.close()
    if not values:
        why = notes or ["none of the recognised matrices is there any more"]
        raise UnreadableError("; ".join(why))
    data = sample_file(values)
    weights = sum(v.size for v in values.values())
    return Sample(data, len(values), weights, tuple(ledger.accesses), tuple(notes))


def _chosen(
    found: Sequence[Matrix], recognised: Collection[str], tables: Collection[tuple[int, int]]
) -> tuple[list[Matrix], list[Matrix]]:
    """Embedding tables, and what was recognised, each once and largest first. What a whole file's verdict adds to a name is cut."""
    plain = tuple(recognised)

    def is_one(label: str) -> bool:
        return any(name == label or name.startswith(f"{label} ") for name in plain)

    first = [
        m for m in found if any(m.cols == cols and 0 <= m.rows - rows <= rows // 20 for rows, cols in tables)
    ][:2]
    held = {id(m) for m in first}
    rest = [m for m in found if id(m) not in held and is_one(m.label)]
    return first, sorted(rest, key=lambda m: -m.rows * m.cols)


def _read(
    wanted: Sequence[Matrix], budget: Budget, names: Mapping[str, str] | None
) -> tuple[dict[str, F32], list[str]]:
    """Values by name; the first rows of each by its name in the artifact, or (without names) whole ones by number."""
    values: dict[str, F32] = {}
    notes: list[str] = []
    weights = left_out = 0
    for matrix in wanted[: 4 * MAX_MATRICES]:
        rows = matrix.rows if names is None else min(matrix.rows, MAX_ROWS_WEIGHTS // matrix.cols)
        count = rows * matrix.cols
        name = f"{len(values):04}" if names is None else names.get(matrix.label)
        _, length, _ = matrix.tensor.extent(matrix.base, count)
        fits = weights + count <= MAX_WEIGHTS and length <= budget.bytes_left and count <= MAX_WHOLE_WEIGHTS
        if name is None or name in values or len(values) >= MAX_MATRICES or not rows or not fits:
            left_out += 1
            continue
        try:
            (piece,) = read_pieces([(matrix, 0, count)])
        except BudgetError as error:
            notes.append(str(error))
            break
        except UnreadableError as error:
            notes.append(f"{matrix.label}: {error}")
            break  # the host has failed, or lies: what was read before it did is good
        values[name] = piece.reshape(rows, matrix.cols)
        weights += count
    if left_out:
        notes.append(
            f"{left_out} recognised matrices were left out: over the budget of {budget.max_bytes} bytes, or too large"
        )
    return values, notes
