"""Signatures over manifests and envelopes: a DSSE envelope with one Ed25519 and one ML-DSA-65 signature.

A signing identity is always the pair: a forger has to break both. The DSSE file has exactly one spelling (canonical
JSON, both signatures in that order), so a changed byte anywhere in it is an error. Signing and verifying are
`securesystemslib`'s; ML-DSA-65 signs as its scheme `ml-dsa-65/1` says. Bytes: docs/sealed-format.md section 5.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import Error as SecureSystemsError
from securesystemslib.signer import CryptoSigner, Signature, SSlibKey  # type: ignore[attr-defined]

from artifacts.encoding import b64, canonical_json, parse_canonical_json, unb64
from artifacts.errors import ArtifactError, KeyProviderError

ED25519 = "ed25519"
MLDSA65 = "ml-dsa-65/1"
_PUBLIC_PREFIX = "sluice-sig-v1."
_SECRET_PREFIX = "SLUICE-SIGNING-KEY-V1."  # noqa: S105 - a prefix, not a secret
_ED_BYTES, _ML_BYTES, _SEED = 32, 1952, 32


def _key_id(scheme: str, raw: bytes) -> str:
    return f"{scheme}:{hashlib.sha256(raw).hexdigest()}"


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """The public half of a signing identity: Ed25519 (32 bytes) and ML-DSA-65 (1952 bytes)."""

    ed25519: bytes
    mldsa65: bytes

    @classmethod
    def parse(cls, text: str) -> VerifyKey:
        """Read `sluice-sig-v1.<base64>`; `KeyProviderError` if it is none."""
        text = text.strip()
        if not text.startswith(_PUBLIC_PREFIX):
            raise KeyProviderError(f"verification key: expected a string that begins with {_PUBLIC_PREFIX!r}")
        raw = unb64(text.removeprefix(_PUBLIC_PREFIX), KeyProviderError, "verification key")
        if len(raw) != _ED_BYTES + _ML_BYTES:
            raise KeyProviderError(f"verification key: {len(raw)} bytes, expected {_ED_BYTES + _ML_BYTES}")
        key = cls(raw[:_ED_BYTES], raw[_ED_BYTES:])
        key.sslib_keys()
        return key

    def __str__(self) -> str:
        return _PUBLIC_PREFIX + b64(self.ed25519 + self.mldsa65)

    def __repr__(self) -> str:
        return f"VerifyKey({self.fingerprint[:16]})"

    @property
    def fingerprint(self) -> str:
        """SHA-256 over both public keys, hex: names the identity."""
        return hashlib.sha256(self.ed25519 + self.mldsa65).hexdigest()

    @property
    def key_ids(self) -> tuple[str, str]:
        """The DSSE key ids: `ed25519:<sha256>` and `ml-dsa-65/1:<sha256>` of the raw public keys."""
        return _key_id(ED25519, self.ed25519), _key_id(MLDSA65, self.mldsa65)

    def sslib_keys(self) -> tuple[SSlibKey, SSlibKey]:
        """The two keys as securesystemslib holds them."""
        try:
            ed = Ed25519PublicKey.from_public_bytes(self.ed25519)
            ml = MLDSA65PublicKey.from_public_bytes(self.mldsa65)
        except ValueError:
            raise KeyProviderError("verification key: not an Ed25519 and an ML-DSA-65 key") from None
        first, second = self.key_ids
        return SSlibKey.from_crypto(ed, first, ED25519), SSlibKey.from_crypto(ml, second, MLDSA65)


class SigningKey:
    """A signing identity: two seeds, Ed25519 and ML-DSA-65. Shows nothing of them in `repr`."""

    __slots__ = ("_seeds", "_signers", "verify_key")

    def __init__(self, ed25519_seed: bytes, mldsa65_seed: bytes) -> None:
        self._seeds = ed25519_seed + mldsa65_seed
        ed = Ed25519PrivateKey.from_private_bytes(ed25519_seed)
        ml = MLDSA65PrivateKey.from_seed_bytes(mldsa65_seed)
        self.verify_key = VerifyKey(
            ed.public_key().public_bytes_raw(),
            ml.public_key().public_bytes_raw(),
        )
        first, second = self.verify_key.sslib_keys()
        self._signers = (CryptoSigner(ed, first), CryptoSigner(ml, second))

    @classmethod
    def generate(cls) -> SigningKey:
        """A fresh identity."""
        return cls(os.urandom(_SEED), os.urandom(_SEED))

    @classmethod
    def parse(cls, text: str) -> SigningKey:
        """Read what `secret_string` gave."""
        text = text.strip()
        if not text.startswith(_SECRET_PREFIX):
            raise KeyProviderError(f"signing key: expected a string that begins with {_SECRET_PREFIX!r}")
        raw = unb64(text.removeprefix(_SECRET_PREFIX), KeyProviderError, "signing key")
        if len(raw) != 2 * _SEED:
            raise KeyProviderError(f"signing key: {len(raw)} bytes, expected {2 * _SEED}")
        return cls(raw[:_SEED], raw[_SEED:])

    def secret_string(self) -> str:
        """The identity as a string. A secret."""
        return _SECRET_PREFIX + b64(self._seeds)

    def __repr__(self) -> str:
        return f"SigningKey({self.verify_key.fingerprint[:16]}, <redacted>)"

    def sign(self, payload: bytes, payload_type: str) -> bytes:
        """The canonical DSSE file over `payload`."""
        envelope = Envelope(payload, payload_type, {})
        pae = envelope.pae()
        signatures = [
            {"keyid": key_id, "sig": b64(bytes.fromhex(signer.sign(pae).signature))}
            for key_id, signer in zip(self.verify_key.key_ids, self._signers, strict=True)
        ]
        return canonical_json(
            {"payload": b64(payload), "payloadType": payload_type, "signatures": signatures}
        )


def verify_dsse(
    data: bytes,
    payload_type: str,
    trusted: Sequence[VerifyKey],
    error: type[ArtifactError],
    what: str,
    max_bytes: int,
) -> tuple[bytes, VerifyKey]:
    """The payload of a DSSE file whose two signatures are those of one trusted identity, and that identity.

    Raises:
        ArtifactError: of class `error`, when the file is too large, malformed, of another payload type, signed by
            nobody in `trusted`, or wrongly signed.
    """
    payload, pairs = parse_dsse(data, payload_type, error, what, max_bytes)
    ids = tuple(key_id for key_id, _ in pairs)
    signer = next((key for key in trusted if key.key_ids == ids), None)
    if signer is None:
        raise error(f"{what}: signed by a key that is not trusted here ({', '.join(ids)[:180]})")
    pae = Envelope(payload, payload_type, {}).pae()
    for key, (key_id, signature) in zip(signer.sslib_keys(), pairs, strict=True):
        try:
            key.verify_signature(Signature(key_id, signature.hex()), pae)
        except (SecureSystemsError, ValueError):
            raise error(f"{what}: the signature by {key_id} is wrong; the file was changed") from None
    return payload, signer


def parse_dsse(
    data: bytes, payload_type: str, error: type[ArtifactError], what: str, max_bytes: int
) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Take a DSSE file apart without verifying it: payload, and (key id, signature) in order."""
    if len(data) > max_bytes:
        raise error(f"{what}: {len(data)} bytes, at most {max_bytes} are accepted")
    value = parse_canonical_json(data, error, what)
    try:
        if set(value) != {"payload", "payloadType", "signatures"} or len(value["signatures"]) != 2:
            raise error(f"{what}: not a DSSE file with two signatures")
        if value["payloadType"] != payload_type:
            raise error(f"{what}: payload type {str(value['payloadType'])[:80]!r}, expected {payload_type!r}")
        pairs = []
        for entry in value["signatures"]:
            if set(entry) != {"keyid", "sig"} or not isinstance(entry["keyid"], str):
                raise error(f"{what}: a signature has other members than keyid and sig")
            if not isinstance(entry["sig"], str):
                raise error(f"{what}: a signature is not a string")
            pairs.append((entry["keyid"], unb64(entry["sig"], error, f"{what}: signature")))
        if not isinstance(value["payload"], str):
            raise error(f"{what}: the payload is not a string")
        return unb64(value["payload"], error, f"{what}: payload"), pairs
    except (TypeError, KeyError, AttributeError):
        raise error(f"{what}: not a DSSE file") from None
