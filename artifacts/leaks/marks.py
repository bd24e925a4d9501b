"""Marks: whose copy a leaked file is. Off by default, per artifact, never for `open`.

A marked copy is w + strength * (spread of its row) * (+1 or -1), on every 2-D weight matrix in fp32, fp16 or bf16, with the
signs from a fresh keyed stream **per tensor per partner**. One stream rolled across tensors gave innocents z 11.6; no two
tensors and no two partners share a stream here. 16-bit formats are rounded without bias (dithered by the same key),
because a mark below half a rounding step would vanish otherwise.

Invariants: the marked file has the same header, size and layout; the same key, artifact, partner and bytes give the same
marked bytes; a mark is never written without its key being committed to (`MarkKey.commitment`, for the audit log), because
whoever holds the key could frame an innocent.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from artifacts.leaks.dtypes import F32, PLAIN
from artifacts.leaks.errors import MarkError, UnreadableError, shown
from artifacts.leaks.suspects import safetensors

DEFAULT_STRENGTH = 0.003
MAX_STRENGTH = 0.01
MARKED_DTYPES = ("F32", "F16", "BF16")
MAX_SIZE = 1 << 62
RECEIPT_TYPE = "application/vnd.sluice.delivery-receipt+json"


def markable(dtype: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor carries the mark: a 2-D weight matrix of a floating format."""
    return dtype in MARKED_DTYPES and len(shape) == 2 and min(shape) >= 8


class KeyStream:
    """Keyed bytes and signs (AES-256-CTR), in order.

    Args:
        key: 32 bytes.
        at: the byte to begin with; the stream is the same wherever it is entered.
    """

    def __init__(self, key: bytes, at: int = 0) -> None:
        block, rest = divmod(at, 16)
        self._cipher = Cipher(algorithms.AES256(key), modes.CTR(block.to_bytes(16, "big"))).encryptor()
        self._cipher.update(bytes(rest))
        self._bits = np.zeros(0, np.uint8)

    def octets(self, count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The next bytes."""
        return np.frombuffer(self._cipher.update(bytes(count)), np.uint8)

    def bits(self, count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The next bits, 0 or 1 each; 1 stands for the sign -1."""
        missing = count - len(self._bits)
        if missing > 0:
            fresh = np.unpackbits(self.octets(-(-missing // 8)))
            self._bits = np.concatenate([self._bits, fresh]) if len(self._bits) else fresh
        out, self._bits = self._bits[:count], self._bits[count:]
        return out


class MarkKey:
    """The 32-byte secret of an artifact's marks. Whoever has it can mark a copy as anybody's: commit to it first."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 32:
            raise MarkError(f"a mark key has 32 bytes, this one has {len(secret)}")
        self._secret = secret

    def __repr__(self) -> str:
        return "MarkKey(...)"

    def commitment(self, artifact: str) -> str:
        """H(key, artifact), hex: goes into the audit log before the first marked copy is delivered."""
        text = artifact.encode()
        return hashlib.sha256(
            b"sluice mark commitment v1\0" + len(text).to_bytes(8, "big") + text + self._secret
        ).hexdigest()

    def stream(
        self, artifact: str, partner: str, tensor: str, use: str = "signs", *, at: int = 0
    ) -> KeyStream:
        """The stream of one tensor of one partner's copy, from byte `at` on; every other argument makes another stream."""
        parts = [use, artifact, partner, tensor]
        info = b"".join(len(p.encode()).to_bytes(8, "big") + p.encode() for p in parts)
        key = hmac.new(self._secret, b"sluice mark stream v1\0" + info, hashlib.sha256).digest()
        return KeyStream(key, at)


@dataclass(frozen=True)
class PartnerMark:
    """One partner's mark on one artifact.

    Attributes:
        key: secret of the artifact's marks.
        artifact: id.
        partner: id.
        strength: in standard deviations of each row; 0.003 to 0.005 is sensible.
    """

    key: MarkKey
    artifact: str
    partner: str
    strength: float = DEFAULT_STRENGTH

    def __post_init__(self) -> None:
        if not 0 < self.strength <= MAX_STRENGTH:
            raise MarkError(f"a mark's strength lies in (0, {MAX_STRENGTH}], this one is {self.strength}")

    def stream(self, path: str) -> MarkingStream:
        """Marks one file of the artifact while it passes by.

        Args:
            path: of the file, for messages. The streams hang on tensor names, not on files.
        """
        return MarkingStream(self, path)

    def tensor(self, name: str, dtype: str, *, first: int = 0) -> TensorMarker:
        """Marks one tensor, row block by row block, beginning with the weight `first` (of the tensor, row by row)."""
        return TensorMarker(self, name, dtype, first)


class TensorMarker:
    """The mark of one tensor; rows are fed in order, from the one that begins with the weight `first`."""

    def __init__(self, mark: PartnerMark, name: str, dtype: str, first: int = 0) -> None:
        self._mark = mark
        self._dtype = dtype
        self._signs = mark.key.stream(mark.artifact, mark.partner, name, at=first // 8)
        self._signs.bits(first % 8)
        self._dither = mark.key.stream(mark.artifact, mark.partner, name, "dither", at=first)

    def rows(self, data: bytes, cols: int) -> bytes:
        """Mark whole rows, given and returned as raw bytes of the tensor's format."""
        values = np.asarray(PLAIN[self._dtype].raw(data), dtype=np.float32).reshape(-1, cols)
        signs = 1.0 - 2.0 * self._signs.bits(values.size).astype(np.float32)
        with np.errstate(all="ignore"):
            spread = values.std(axis=1, dtype=np.float64, keepdims=True)
            spread = np.where(np.isfinite(spread), spread, 0.0)
            marked = values + (self._mark.strength * spread).astype(np.float32) * signs.reshape(values.shape)
            # Zeros stay zeros: a sparse model stays sparse. What is not a number stays as it is.
            marked = np.where((values == 0) | ~np.isfinite(values), values, marked)
            return self._encode(np.asarray(marked, np.float32))

    def _encode(self, values: F32) -> bytes:
        if self._dtype == "F32":
            return values.astype("<f4").tobytes()
        dither = self._dither.octets(values.size).reshape(values.shape)
        if self._dtype == "BF16":
            bits = np.ascontiguousarray(values).view(np.uint32)
            up = bits + ((dither.astype(np.uint32) << 8) | 0x80)
            finite = np.isfinite(values)
            return (np.where(finite, up, bits) >> 16).astype("<u2").tobytes()
        near = values.astype(np.float16)
        other = np.nextafter(near, np.where(values > near, np.inf, -np.inf).astype(np.float16))
        step = np.abs(other.astype(np.float32) - near.astype(np.float32))
        share = np.abs(values - near.astype(np.float32)) / np.where(step > 0, step, 1)
        take = np.isfinite(other) & ((dither.astype(np.float32) + 0.5) / 256 < share)
        return np.where(take, other, near).astype("<f2").tobytes()


class MarkingStream:
    """Rewrites one safetensors file as it passes by: same header, same length, marked weights.

    Bytes are fed in order and come out in order; held back are the header and at most one row of one tensor.
    """

    def __init__(self, mark: PartnerMark, path: str) -> None:
        self._mark = mark
        self._path = path
        self._head = bytearray()
        self._entries: list[safetensors.Entry] | None = None
        self._offset = 0
        self._rest = bytearray()
        self._marker: TensorMarker | None = None
        self.marked_tensors = 0

    def feed(self, data: bytes | memoryview) -> bytes:
        """Take the next bytes; returns those that are ready.

        Raises:
            MarkError: if the file is not safetensors.
        """
        if self._entries is not None:
            return self._run(bytes(data))
        self._head += data
        try:
            if len(self._head) < 9:
                return b""
            if not safetensors.looks_like(bytes(self._head[:9]), MAX_SIZE):
                raise MarkError(f"{shown(self._path)}: only safetensors files can be marked")
            length = safetensors.header_length(bytes(self._head[:8]), MAX_SIZE)
            if len(self._head) < 8 + length:
                return b""
            found = safetensors.parse_header(bytes(self._head[8 : 8 + length]), MAX_SIZE)
        except UnreadableError as error:
            raise MarkError(f"{shown(self._path)}: {error}") from error
        self._entries = [e for e in found if markable(e.dtype, e.shape)]
        self.marked_tensors = len(self._entries)
        held, self._head = bytes(self._head), bytearray()
        return self._run(held)

    def finish(self) -> bytes:
        """End the file; returns nothing more.

        Raises:
            MarkError: if the file ended within its header or a tensor.
        """
        if self._head or self._rest or self._entries:
            raise MarkError(f"{shown(self._path)}: the file ends too early")
        return b""

    def _run(self, data: bytes) -> bytes:
        assert self._entries is not None
        out = bytearray()
        at = 0
        while at < len(data):
            entry = self._entries[0] if self._entries else None
            here = self._offset + len(self._rest)
            if entry is None or here < entry.offset:
                take = len(data) - at if entry is None else min(len(data) - at, entry.offset - here)
                out += data[at : at + take]
                self._offset += take
                at += take
                continue
            take = min(len(data) - at, entry.offset + entry.nbytes - here)
            self._rest += data[at : at + take]
            at += take
            out += self._rows(entry)
        return bytes(out)

    def _rows(self, entry: safetensors.Entry) -> bytes:
        """Mark the whole rows that are there."""
        assert self._entries is not None
        if self._marker is None:
            self._marker = self._mark.tensor(entry.name, entry.dtype)
        cols = entry.shape[1]
        row = cols * PLAIN[entry.dtype].size
        whole = len(self._rest) // row * row
        done = self._marker.rows(bytes(self._rest[:whole]), cols) if whole else b""
        del self._rest[:whole]
        self._offset += whole
        if self._offset == entry.offset + entry.nbytes:
            self._entries.pop(0)
            self._marker = None
        return done


@dataclass(frozen=True)
class DeliveryReceipt:
    """What a partner confirms to have received: signed by the partner's client, kept with the audit log.

    Attributes:
        artifact, partner: ids.
        mark_commitment: `MarkKey.commitment` of the mark in this copy.
        files: path to SHA-256 of the delivered plaintext.
        at: when, with time zone.
    """

    artifact: str
    partner: str
    mark_commitment: str
    files: dict[str, str]
    at: datetime

    def to_bytes(self) -> bytes:
        """Canonical JSON (RFC 8785)."""
        return rfc8785.dumps(
            {
                "schema": "sluice/delivery-receipt/v1",
                "artifact": self.artifact,
                "partner": self.partner,
                "mark_commitment": self.mark_commitment,
                "files": dict(self.files),
                "at": self.at.isoformat(),
            }
        )

    def sign(self, key: Ed25519PrivateKey) -> bytes:
        """The partner's Ed25519 signature over the DSSE pre-authentication encoding of the receipt."""
        return key.sign(_pae(self.to_bytes()))

    def verify(self, signature: bytes, key: Ed25519PublicKey) -> None:
        """Check a partner's signature.

        Raises:
            MarkError: if it is not theirs or not over this receipt.
        """
        try:
            key.verify(signature, _pae(self.to_bytes()))
        except InvalidSignature as error:
            raise MarkError(
                f"the receipt of {shown(self.partner)} for {shown(self.artifact)} is not signed by that key"
            ) from error


def _pae(payload: bytes) -> bytes:
    kind = RECEIPT_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
