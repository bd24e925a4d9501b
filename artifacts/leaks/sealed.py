"""A weight signature on its way to the leak monitor: sealed where the weights are sealed, opened by the monitor alone.

    root key of the artifact --HKDF--> sketch key, fresh per artifact: a pipeline needs no secret of the service
    signature and sketch key --HPKE--> the monitor's public key, bound to artifact and manifest digest

The sketch key follows from the root so that a sealing that was interrupted and taken up again samples the same weights.
Whoever holds the root (custody) could derive it; partners get file keys, never the root.

Format, version 1: one line of canonical JSON (RFC 8785) with `format`, `artifact`, `manifest`, `recipient`, `key_id`; then the
HPKE ciphertext (MLKEM768-X25519, HKDF-SHA256, AES-256-GCM; the line is bound as `info`) of the 32-byte sketch key and the
signature's bytes.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field

import rfc8785
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from artifacts.encoding import prefixed
from artifacts.errors import KeyProviderError
from artifacts.keys import (
    MONITOR_IDENTITY_HRP,
    MONITOR_RECIPIENT_HRP,
    HybridIdentity,
    HybridRecipient,
    KeyPair,
    RootKey,
)
from artifacts.leaks.errors import SignatureError
from artifacts.leaks.signature import WeightSignature
from artifacts.leaks.sketch import SketchKey

FORMAT = "sluice-leak-signature/v1"
MAX_SEALED = 16 << 20
_HEAD = 2_000
_SECRET = 32
_SKETCH_LABEL = b"sluice.release/leak-sketch-key/v1"
_SEAL_LABEL = b"sluice.release/leak-signature/v1"
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def monitor_keygen() -> KeyPair:
    """A key pair for the leak monitor: `sluicemonitor1...` to seal signatures to, `SLUICE-MONITOR-KEY-1...` to open them."""
    identity = HybridIdentity(os.urandom(_SECRET), MONITOR_IDENTITY_HRP)
    return KeyPair(str(identity.recipient), identity.secret_string())


def monitor_identity(text: str) -> HybridIdentity:
    """Read the monitor's secret string."""
    return HybridIdentity.parse(text, MONITOR_IDENTITY_HRP)


def monitor_recipient(text: str) -> HybridRecipient:
    """Read the monitor's public string."""
    return HybridRecipient.parse(text, MONITOR_RECIPIENT_HRP)


def sketch_secret(root: RootKey, artifact_id: str) -> bytes:
    """The 32 bytes of an artifact's own `SketchKey`."""
    kdf = HKDF(hashes.SHA512(), _SECRET, salt=artifact_id.encode(), info=prefixed(_SKETCH_LABEL))
    return kdf.derive(root.raw)


@dataclass(frozen=True, slots=True)
class SealedSignature:
    """A sealed signature as everybody may see it: what it is of and who can open it, not what is in it.

    Attributes:
        artifact: id of the artifact.
        manifest: hex SHA-256 of its manifest.
        recipient: fingerprint of the monitor's public key.
        key_id: public name of the sketch key.
        data: the whole file.
    """

    artifact: str
    manifest: str
    recipient: str
    key_id: str
    data: bytes = field(repr=False)

    @classmethod
    def parse(cls, data: bytes) -> SealedSignature:
        """Read the first line; nothing is opened.

        Raises:
            SignatureError: not a sealed signature of version 1.
        """
        line, newline, rest = data[:_HEAD].partition(b"\n")
        if len(data) > MAX_SEALED or not newline or not rest:
            raise SignatureError(
                "not a sealed weight signature: no first line, nothing behind it, or too large"
            )
        try:
            head = json.loads(line)
            form = rfc8785.dumps(head) == line and head.pop("format") == FORMAT
            parts = {name: head.pop(name) for name in ("artifact", "manifest", "recipient", "key_id")}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            form, head, parts = False, {}, {}
        if not form or head or not all(isinstance(value, str) for value in parts.values()):
            raise SignatureError("not a sealed weight signature of version 1")
        return cls(**parts, data=data)


def seal_signature(signature: WeightSignature, secret: bytes, *, manifest: str, recipient: str) -> bytes:
    """Seal a signature to the monitor.

    Args:
        signature: of the artifact that it names.
        secret: of the sketch key that it was made with.
        manifest: hex SHA-256 of the artifact's manifest.
        recipient: the monitor's public string.
    """
    to = monitor_recipient(recipient)
    if SketchKey(secret).key_id != signature.key_id:
        raise SignatureError("the signature was made with another sketch key")
    head = rfc8785.dumps(
        {
            "format": FORMAT,
            "artifact": signature.artifact,
            "manifest": manifest,
            "recipient": to.fingerprint,
            "key_id": signature.key_id,
        }
    )
    body = secret + signature.to_bytes()
    return head + b"\n" + _SUITE.encrypt(body, to.public_key(), info=prefixed(_SEAL_LABEL, head))


def open_signature(data: bytes, identity: HybridIdentity) -> tuple[SketchKey, WeightSignature]:
    """The sketch key and the signature. In the monitor only.

    Raises:
        SignatureError: sealed to another monitor, changed, or not what its first line says.
    """
    sealed = SealedSignature.parse(data)
    if sealed.recipient != identity.recipient.fingerprint:
        raise SignatureError(
            f"the signature of {sealed.artifact} is sealed to another monitor's key; seal the artifact again with this one"
        )
    head, _, body = data.partition(b"\n")
    try:
        plain = _SUITE.decrypt(body, identity.private_key, info=prefixed(_SEAL_LABEL, head))
    except (InvalidTag, ValueError, KeyProviderError):
        raise SignatureError(f"the sealed signature of {sealed.artifact} is damaged or was moved") from None
    key, signature = SketchKey(plain[:_SECRET]), WeightSignature.from_bytes(plain[_SECRET:])
    if (signature.artifact, signature.key_id, key.key_id) != (sealed.artifact, sealed.key_id, sealed.key_id):
        raise SignatureError(f"what is sealed as the signature of {sealed.artifact} is another one")
    return key, signature
