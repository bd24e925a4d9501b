r"""`WeightSignature`: what is kept of an artifact in order to know it again, and its bytes.

A signature is secret like the weights (its samples are weights) and is stored sealed. It holds, per matrix, 2 windows of
2048 weights as int8 at keyed positions (tier 1), rows for the aligned test (tier 2), and the exact digests of every issued
file (tier 0). Under 1 MB for the shapes of a 7 B model.

Format, version 1: 8 bytes magic `SLWSIG1\n`, then one zlib stream of: u32 length of the head, the head (canonical JSON,
RFC 8785), then the int8 arrays in the order in which the head lists them.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import rfc8785

from artifacts.leaks.digests import FileDigests
from artifacts.leaks.errors import SignatureError
from artifacts.leaks.rows import FINDING, MIN_PROJECTED, U8
from artifacts.leaks.sketch import I8, SAMPLES

MAGIC = b"SLWSIG1\n"
MAX_UNPACKED = 256 << 20
SIZE_AIM = 1_000_000


@dataclass(frozen=True)
class MatrixSketch:
    """Samples of one matrix (or one slice of a stack).

    Attributes:
        name: of the tensor.
        index: of the slice; 0 for a plain matrix.
        rows, cols: shape; the sampled positions follow from it and the key.
        samples: int8, (4096,).
    """

    name: str
    index: int
    rows: int
    cols: int
    samples: I8 = field(repr=False, compare=False)


@dataclass(frozen=True)
class EmbeddingRows:
    """Rows of the embedding table, whose columns are the model's hidden axis: the key to its permutation.

    Attributes:
        rows, cols: shape of the table; the sampled rows follow from it and the key.
        samples: int8, (n, cols), each row scaled by its median magnitude.
    """

    name: str
    rows: int
    cols: int
    samples: I8 = field(repr=False, compare=False)


@dataclass(frozen=True)
class ProjectedRows:
    """Keyed random projections of rows of a matrix whose columns are the hidden axis.

    Attributes:
        rank: its place among the artifact's matrices of that shape, in natural order of names.
        finding: int8, (n, 24): projections by which a row is found.
        testing: uint8, (n, dimensions / 8): signs of projections of the other columns, by which it is tested.
    """

    name: str
    rows: int
    cols: int
    rank: int
    finding: I8 = field(repr=False, compare=False)
    testing: U8 = field(repr=False, compare=False)


@dataclass(frozen=True)
class WeightSignature:
    """Everything needed to recognise one artifact (see the module).

    Attributes:
        artifact: id of the artifact, or name of a public parent.
        key_id: of the `SketchKey` it was made with.
        matrices: tier 1.
        embedding, projected: tier 2; None and empty where the artifact has no embedding table.
        files: tier 0, one entry per issued file and copy.
        weights: weights in all tensors that were looked at, sampled or not.
        left_out: names of matrices not sampled because they are constants or repeat another one.
        public_parent: True for a public model that the artifact descends from: its matches are taken out of the verdict.
    """

    artifact: str
    key_id: str
    matrices: tuple[MatrixSketch, ...]
    embedding: EmbeddingRows | None = None
    projected: tuple[ProjectedRows, ...] = ()
    files: tuple[FileDigests, ...] = ()
    weights: int = 0
    left_out: tuple[str, ...] = ()
    public_parent: bool = False

    def with_copy(self, files: tuple[FileDigests, ...], copy: str) -> WeightSignature:
        """The same signature, also knowing the exact digests of a partner's own copy."""
        return replace(self, files=self.files + tuple(replace(f, copy=copy) for f in files))

    def as_public_parent(self) -> WeightSignature:
        """The same signature, registered as a public parent."""
        return replace(self, public_parent=True)

    def digest(self) -> str:
        """SHA-256 of the serialised signature, hex: names it in a verdict without giving it away."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """Compact, deterministic bytes."""
        arrays: list[I8] = [m.samples for m in self.matrices]
        head: dict[str, Any] = {
            "artifact": self.artifact,
            "key_id": self.key_id,
            "weights": self.weights,
            "left_out": list(self.left_out),
            "public_parent": self.public_parent,
            "matrices": [[m.name, m.index, m.rows, m.cols] for m in self.matrices],
            "files": [asdict(f) for f in self.files],
            "embedding": None,
            "projected": [
                [p.name, p.rows, p.cols, p.rank, len(p.finding), p.testing.shape[1]] for p in self.projected
            ],
        }
        if self.embedding is not None:
            e = self.embedding
            head["embedding"] = [e.name, e.rows, e.cols, e.samples.shape[0]]
            arrays.append(e.samples)
        arrays.extend(p.finding for p in self.projected)
        arrays.extend(p.testing.view(np.int8) for p in self.projected)
        text = rfc8785.dumps(head)
        packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_HUFFMAN_ONLY)
        out = [MAGIC, packer.compress(struct.pack("<I", len(text)) + text)]
        out.extend(packer.compress(np.ascontiguousarray(a, np.int8).tobytes()) for a in arrays)
        out.append(packer.flush())
        return b"".join(out)

    @classmethod
    def from_bytes(cls, data: bytes) -> WeightSignature:
        """Read what `to_bytes` wrote.

        Raises:
            SignatureError: if the bytes are anything else.
        """
        if data[: len(MAGIC)] != MAGIC:
            raise SignatureError("not a weight signature of version 1")
        unpacker = zlib.decompressobj()
        try:
            plain = unpacker.decompress(data[len(MAGIC) :], MAX_UNPACKED)
        except zlib.error as error:
            raise SignatureError("the weight signature is damaged") from error
        if not unpacker.eof or unpacker.unused_data or len(plain) < 4:
            raise SignatureError("the weight signature is cut off, too large or has bytes after its end")
        (length,) = struct.unpack("<I", plain[:4])
        try:
            return _assemble(json.loads(plain[4 : 4 + length]), plain[4 + length :])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise SignatureError("the weight signature's head does not fit its samples") from error


def thinned(signature: WeightSignature, aim: int) -> WeightSignature:
    """The signature with fewer rows for tier 2, until its bytes are at most `aim` (or no such rows are left).

    First matrices go, down to 12; then rows, down to 384 each; then matrices again.
    """
    while len(signature.to_bytes()) > aim and signature.projected:
        longest = max(len(p.finding) for p in signature.projected)
        kept = signature.projected[:-1]
        if len(signature.projected) <= MIN_PROJECTED and longest > 384:
            cut = max(longest * 3 // 4, 384)
            kept = tuple(
                replace(p, finding=p.finding[:cut], testing=p.testing[:cut]) for p in signature.projected
            )
        signature = replace(signature, projected=kept)
    return signature


def _assemble(head: dict[str, Any], body: bytes) -> WeightSignature:
    at = 0

    def take(*shape: int) -> I8:
        nonlocal at
        if any(not isinstance(n, int) or n < 0 for n in shape):
            raise ValueError("negative shape")
        size = int(np.prod(shape, dtype=object))
        if at + size > len(body):
            raise ValueError("samples are missing")
        array = np.frombuffer(body, np.int8, size, at).reshape(shape)
        at += size
        return array

    matrices = tuple(
        MatrixSketch(str(n), int(i), int(r), int(c), take(SAMPLES)) for n, i, r, c in head["matrices"]
    )
    embedding = None
    if head["embedding"] is not None:
        name, rows, cols, count = head["embedding"]
        embedding = EmbeddingRows(str(name), int(rows), int(cols), take(count, cols))
    rows = head["projected"]
    finding = [take(n, FINDING) for *_, n, _ in rows]
    testing = [np.ascontiguousarray(take(n, width)).view(np.uint8) for *_, n, width in rows]
    projected = tuple(
        ProjectedRows(str(name), int(r), int(c), int(rank), f, t)
        for (name, r, c, rank, _, _), f, t in zip(rows, finding, testing, strict=True)
    )
    if at != len(body):
        raise ValueError("bytes after the samples")
    return WeightSignature(
        artifact=str(head["artifact"]),
        key_id=str(head["key_id"]),
        matrices=matrices,
        embedding=embedding,
        projected=projected,
        files=tuple(FileDigests(**f) for f in head["files"]),
        weights=int(head["weights"]),
        left_out=tuple(str(n) for n in head["left_out"]),
        public_parent=bool(head["public_parent"]),
    )
