"""What a scan compares against: the signatures of artifacts and of their public parents, indexed for comparing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from artifacts.leaks.digests import FileDigests
from artifacts.leaks.errors import SignatureError
from artifacts.leaks.signature import MatrixSketch, WeightSignature
from artifacts.leaks.sketch import F32, SketchKey, compare, prepare


@dataclass(frozen=True)
class Candidate:
    """One reference matrix."""

    owner: WeightSignature
    sketch: MatrixSketch

    @property
    def label(self) -> str:
        """Name of the tensor, with its slice."""
        return self.sketch.name + (f"[{self.sketch.index}]" if self.sketch.index else "")


@dataclass
class ShapeIndex:
    """All reference matrices of one shape, ready to be compared at once."""

    candidates: list[Candidate]
    samples: F32 = field(repr=False)

    def compare(self, samples: F32) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Pearson r and z of one suspect matrix's samples against every candidate."""
        return compare(samples, self.samples)


class ReferenceSet:
    """Signatures made with one sketch key.

    Attributes:
        key: fixes the sampled positions.
        signatures: in the order given; public parents among them.
    """

    def __init__(self, key: SketchKey, signatures: Iterable[WeightSignature]) -> None:
        self.key = key
        self.signatures: tuple[WeightSignature, ...] = tuple(signatures)
        for signature in self.signatures:
            if signature.key_id != key.key_id:
                raise SignatureError(
                    f"the signature of {signature.artifact} was made with sketch key {signature.key_id}, "
                    f"not {key.key_id}; scan each key's signatures on their own"
                )
        grouped: dict[tuple[int, int], list[Candidate]] = {}
        for signature in self.signatures:
            for sketch in signature.matrices:
                grouped.setdefault((sketch.rows, sketch.cols), []).append(Candidate(signature, sketch))
        self._by_shape = {
            shape: ShapeIndex(found, prepare(np.stack([c.sketch.samples for c in found])))
            for shape, found in grouped.items()
        }

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each signature, by artifact."""
        return {s.artifact: s.digest() for s in self.signatures}

    @property
    def artifacts(self) -> Sequence[WeightSignature]:
        """The signatures that are looked for (public parents are not)."""
        return [s for s in self.signatures if not s.public_parent]

    @property
    def parents(self) -> Sequence[WeightSignature]:
        """The registered public parents."""
        return [s for s in self.signatures if s.public_parent]

    def at(self, shape: tuple[int, int]) -> ShapeIndex | None:
        """The reference matrices of a shape."""
        return self._by_shape.get(shape)

    def files(self) -> Iterable[tuple[WeightSignature, FileDigests]]:
        """Every issued file of every signature."""
        for signature in self.signatures:
            for file in signature.files:
                yield signature, file
