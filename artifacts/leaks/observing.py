"""Signatures as a by-product of sealing: `SignatureObserver` is handed to `artifacts.sealing.seal_tree`.

Each file leaves its own part of the signature in the manifest's sealed entry, so that a sealing that was interrupted and
taken up again loses nothing; `signature_of` puts the parts together. A partner who may open a file may open its entry, and
samples beside weights would show which weights are sampled: therefore each part is sealed once more, under the sketch key
(AES-256-GCM, the key derived by HKDF), which partners never have.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from artifacts.leaks import rows as aligned
from artifacts.leaks.builder import SignatureBuilder
from artifacts.leaks.digests import ALL_DIGESTS, FileDigests
from artifacts.leaks.errors import SignatureError
from artifacts.leaks.signature import SIZE_AIM, MatrixSketch, ProjectedRows, WeightSignature, thinned
from artifacts.leaks.sketch import SketchKey

NAME = "leaks"
MIN_FILE = 64 * 1024  # smaller files hold no matrix that is sampled
LARGE_FILE = 2 << 30
SMALL_ALLOWANCE, LARGE_ALLOWANCE = 400_000, 150_000  # bytes of rows for tier 2 in one file's part
_NONCE = 12


class FileObserver:
    """Sees one file's plaintext in order."""

    def __init__(self, key: SketchKey, path: str, size: int, digests: frozenset[str]) -> None:
        self._key, self._path = key, path
        self._allowance = LARGE_ALLOWANCE if size > LARGE_FILE else SMALL_ALLOWANCE
        self._builder = SignatureBuilder("", key, digests=digests)

    def update(self, offset: int, data: memoryview) -> None:
        """The bytes at `offset`."""
        self._builder.feed(self._path, offset, data)

    def finish(self) -> dict[str, Any]:
        """The file's part of the signature, sealed, as JSON.

        Raises:
            SignatureError: if bytes are missing.
        """
        self._builder.finish_file(self._path)
        part = self._builder.finish(partial=True)
        bare = len(replace(part, projected=()).to_bytes())
        return seal(thinned(part, bare + self._allowance), self._key)


class SignatureObserver:
    """Makes a leak signature of everything that is sealed (a `SealingObserver`)."""

    name = NAME

    def __init__(self, key: SketchKey, digests: frozenset[str] = ALL_DIGESTS) -> None:
        """Observe with this key.

        Args:
            key: fixes the sampled positions, and seals what is kept.
            digests: which exact digests to take beside SHA-256 (`digests.StreamDigests`).
        """
        self._key = key
        self._digests = digests

    def begin(self, path: str, component: str, size: int) -> FileObserver | None:
        """An observer for one file; none for small files."""
        return FileObserver(self._key, path, size, self._digests) if size >= MIN_FILE else None


def seal(signature: WeightSignature, key: SketchKey) -> dict[str, Any]:
    """A signature as JSON that only a holder of the sketch key can read."""
    nonce = os.urandom(_NONCE)
    sealed = nonce + AESGCM(key.sealing_key()).encrypt(nonce, signature.to_bytes(), NAME.encode())
    return {"v": 1, "key_id": key.key_id, "sealed": base64.b64encode(sealed).decode()}


def unseal(value: Any, key: SketchKey) -> WeightSignature:
    """What `seal` made.

    Raises:
        SignatureError: another key's, damaged, or not of this form.
    """
    if not isinstance(value, dict) or value.get("v") != 1 or not isinstance(value.get("sealed"), str):
        raise SignatureError("not a sealed weight signature of version 1")
    if value.get("key_id") != key.key_id:
        raise SignatureError(f"the weight signature is sealed under another sketch key than {key.key_id}")
    try:
        data = base64.b64decode(value["sealed"], validate=True)
        return WeightSignature.from_bytes(
            AESGCM(key.sealing_key()).decrypt(data[:_NONCE], data[_NONCE:], NAME.encode())
        )
    except (binascii.Error, InvalidTag, ValueError) as error:
        raise SignatureError("the sealed weight signature is damaged") from error


def signature_of(
    artifact: str, values: Iterable[Any], key: SketchKey, size_aim: int = SIZE_AIM
) -> WeightSignature:
    """The signature of an artifact from its files' parts.

    Args:
        artifact: id, as verdicts will name it.
        values: what the observer left for each file (`Inner.signatures["leaks"]`), in any order.
        key: the sketch key.
        size_aim: rows for tier 2 are thinned until the signature is smaller than this.

    Raises:
        SignatureError: if a part is another key's or damaged.
    """
    parts = sorted((unseal(v, key) for v in values), key=lambda p: [f.path for f in p.files])
    matrices: list[MatrixSketch] = []
    left_out = [name for p in parts for name in p.left_out]
    seen: set[tuple[int, int, bytes]] = set()
    for sketch in (m for p in parts for m in p.matrices):
        mark = (sketch.rows, sketch.cols, sketch.samples.tobytes())
        if mark in seen:
            left_out.append(sketch.name)
        else:
            seen.add(mark)
            matrices.append(sketch)
    tables = [p.embedding for p in parts if p.embedding is not None]
    table = min(tables, key=lambda e: (-e.rows, aligned.natural_key(e.name)), default=None)
    files: list[FileDigests] = [f for p in parts for f in p.files]
    whole = WeightSignature(
        artifact,
        key.key_id,
        tuple(matrices),
        table,
        _ranked([r for p in parts for r in p.projected if table and r.cols == table.cols], matrices, key),
        tuple(files),
        sum(p.weights for p in parts),
        tuple(left_out),
    )
    return thinned(whole, size_aim)


def _ranked(
    projected: list[ProjectedRows], matrices: list[MatrixSketch], key: SketchKey
) -> tuple[ProjectedRows, ...]:
    """Projected rows with their rank among all files' matrices, in keyed order, shapes taking turns."""
    names: dict[tuple[int, int], list[str]] = {}
    for m in matrices:
        names.setdefault((m.rows, m.cols), []).append(m.name)
    for held in names.values():
        held.sort(key=aligned.natural_key)
    queues: dict[tuple[int, int], list[ProjectedRows]] = {}
    for p in projected:
        shape = (p.rows, p.cols)
        if p.name in names.get(shape, ()):
            queues.setdefault(shape, []).append(replace(p, rank=names[shape].index(p.name)))
    for shape, items in queues.items():
        items.sort(key=lambda i: i.rank)
        queues[shape] = [items[int(i)] for i in key.order("projected matrices", len(items), *shape)]
    return tuple(aligned.take_turns(queues, aligned.MAX_PROJECTED))
