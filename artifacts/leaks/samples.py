"""Samples of suspects for tracing: some whole matrices, as plain numbers, sealed to custody.

    leak worker   reads the matrices that a verdict recognised, as many as a budget allows (`sampling`), and writes them down
    custody       holds the base and the mark keys; it asks no stranger, and reads no stranger's file

A sample is a safetensors file of 16-bit floats, each matrix in units of its root mean square: tracing fits gains anyway, and
16 bits are finer than any mark. It holds the first rows of matrices, by the names that they have in the artifact; of a suspect
whose neurons were permuted, whole matrices by number. Both are bounded, and so is the memory of who compares them. It holds weights of ours, so that it is nowhere in clear: HPKE (MLKEM768-X25519, HKDF-SHA256,
AES-256-GCM) to custody's public key.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from artifacts.encoding import prefixed
from artifacts.errors import KeyProviderError
from artifacts.keys import HybridIdentity, custody_recipient
from artifacts.leaks.dtypes import F32
from artifacts.leaks.errors import MarkError
from artifacts.leaks.sources import check_range

PREDICATE = "https://sluice.release/leak-sample/v1"
"""The in-toto predicate of what the leak monitor signs about a sample."""

MAX_WEIGHTS = 24 << 20
MAX_ROWS_WEIGHTS = 4 << 20
MAX_WHOLE_WEIGHTS = 8 << 20
MAX_SEALED = 2 * MAX_WEIGHTS + (1 << 20)
_LABEL = b"sluice.release/leak-sample/v1"
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_FLOAT16 = 65_504.0


def sample_file(values: Mapping[str, F32]) -> bytes:
    """Matrices by name as a sample's safetensors file."""
    header: dict[str, Any] = {}
    blobs: list[bytes] = []
    at = 0
    for name, matrix in values.items():
        scale = float(np.sqrt(np.mean(np.square(matrix, dtype=np.float64)))) or 1.0
        blob = np.clip(matrix / scale, -_FLOAT16, _FLOAT16).astype("<f2").tobytes()
        header[name] = {
            "dtype": "F16",
            "shape": list(matrix.shape),
            "data_offsets": [at, at + len(blob)],
        }
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *blobs])


def seal_sample(data: bytes, recipient: str) -> bytes:
    """Seal a sample to custody.

    Args:
        data: of the sample.
        recipient: custody's public string.
    """
    return _SUITE.encrypt(data, custody_recipient(recipient).public_key(), info=prefixed(_LABEL))


def open_sample(sealed: bytes, identity: HybridIdentity) -> HeldSource:
    """Open a sample. In custody only.

    Raises:
        MarkError: it is too large, damaged, or sealed to somebody else.
    """
    if len(sealed) > MAX_SEALED:
        raise MarkError(f"a sample of {len(sealed)} bytes; at most {MAX_SEALED} are opened")
    try:
        return HeldSource(_SUITE.decrypt(sealed, identity.private_key, info=prefixed(_LABEL)), "the sample")
    except (InvalidTag, ValueError, KeyProviderError):
        raise MarkError("the sample is damaged, or sealed to another custody's key") from None


class HeldSource:
    """Bytes in memory as a suspect's file (`sources.ByteSource`)."""

    def __init__(self, data: bytes, location: str) -> None:
        self.data, self.location = data, location

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.data)

    @property
    def bytes_left(self) -> int:
        """No budget: they are here."""
        return 1 << 62

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`."""
        check_range(self.location, self.size, offset, length)
        return self.data[offset : offset + length]

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several ranges."""
        return [self.read(offset, length) for offset, length in ranges]
