"""Keys of a sealed artifact: the root, the file keys below it, and the root's way to custody.

    root key, 32 random bytes           drawn where the files are sealed, wrapped to custody, forgotten
      HKDF-SHA-512("file" | path | version)
    file key, 32 bytes                  opens one file; what an envelope carries

`docs/sealed-format.md` sections 2 and 6 hold the exact bytes. Secrets here never show themselves in `repr`, cannot be
pickled by accident, and are compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass
from typing import NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from artifacts.encoding import b64, bech32, prefixed, u64, unb64, unbech32
from artifacts.errors import ArtifactError, KeyProviderError, WrongKeyError

KEY_BYTES = 32
CUSTODY_RECIPIENT_HRP = "sluicecustody"
CUSTODY_IDENTITY_HRP = "sluice-custody-key-"
PARTNER_RECIPIENT_HRP = "age1pq"
PARTNER_IDENTITY_HRP = "age-secret-key-pq-"
MONITOR_RECIPIENT_HRP = "sluicemonitor"
MONITOR_IDENTITY_HRP = "sluice-monitor-key-"
_RECIPIENT_OF = {
    CUSTODY_IDENTITY_HRP: CUSTODY_RECIPIENT_HRP,
    PARTNER_IDENTITY_HRP: PARTNER_RECIPIENT_HRP,
    MONITOR_IDENTITY_HRP: MONITOR_RECIPIENT_HRP,
}

_FILE_LABEL = b"sluice.release/file-key/v1"
_COMMITMENT_LABEL = b"sluice.release/root-commitment/v1"
_WRAP_LABEL = b"sluice.release/root-wrap/v1"
_WRAP_PREFIX = "sluice-root-v1"
_HALF_COMMITMENT_LABEL = b"sluice.release/custody-half-commitment/v1"
_HALF_WRAP_LABEL = b"sluice.release/half-wrap/v1"
_HALF_WRAP_PREFIX = "sluice-half-v1"
_ENC_BYTES = KEM.MLKEM768_X25519.enc_length()
_WRAP_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class SecretKey:
    """32 secret bytes that do not show themselves: `repr` is redacted, pickling and copying are refused."""

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES:
            raise KeyProviderError(f"{type(self).__name__}: needs {KEY_BYTES} bytes, got {len(raw)}")
        self._raw = bytes(raw)

    @property
    def raw(self) -> bytes:
        """The bytes themselves. Never log, print or store them in clear."""
        return self._raw

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<redacted>)"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and hmac.compare_digest(self._raw, other.raw)

    def __hash__(self) -> int:
        return hash((type(self).__name__, hashlib.sha256(self._raw).digest()))

    def __reduce__(self) -> NoReturn:
        raise KeyProviderError(f"{type(self).__name__}: a key must not be pickled; wrap it")


class FileKey(SecretKey):
    """Opens one file of one artifact and nothing else."""


class RootKey(SecretKey):
    """The key of one artifact. In clear only where the files are sealed and inside custody."""

    @classmethod
    def generate(cls) -> RootKey:
        """A fresh root from the operating system's generator."""
        return cls(os.urandom(KEY_BYTES))

    def file_key(self, artifact_id: str, path: str, version: int = 1) -> FileKey:
        """The key of the file at `path` in `version` (an integer from 1), see docs/sealed-format.md section 2."""
        info = prefixed(_FILE_LABEL, path.encode(), u64(version))
        return FileKey(_hkdf(self.raw, artifact_id.encode(), info))

    def commitment(self, artifact_id: str) -> str:
        """64 hex digits that stand in the manifest; a swapped root is noticed when custody takes it in."""
        return _hkdf(self.raw, artifact_id.encode(), prefixed(_COMMITMENT_LABEL)).hex()


class CustodyHalf(SecretKey):
    """What custody holds of an artifact whose root needs people's key shares too. It opens nothing by itself."""

    @classmethod
    def generate(cls) -> CustodyHalf:
        """A fresh one from the operating system's generator."""
        return cls(os.urandom(KEY_BYTES))

    def commitment(self, artifact_id: str, set_id: str) -> str:
        """64 hex digits that stand in the manifest; a swapped half is noticed when custody takes it in."""
        info = prefixed(_HALF_COMMITMENT_LABEL, bytes.fromhex(set_id))
        return _hkdf(self.raw, artifact_id.encode(), info).hex()


def _hkdf(ikm: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA512(), length=KEY_BYTES, salt=salt, info=info).derive(ikm)


@dataclass(frozen=True, slots=True)
class HybridRecipient:
    """An ML-KEM-768 + X25519 public key (X-Wing layout: 1184 + 32 bytes) and the kind of string it is written as."""

    raw: bytes
    hrp: str

    @classmethod
    def parse(cls, text: str, hrp: str) -> HybridRecipient:
        """Read a recipient string; `KeyProviderError` if it is not one of this kind."""
        raw = unbech32(text.strip(), hrp, KeyProviderError, "recipient")
        recipient = cls(raw, hrp)
        recipient.public_key()
        return recipient

    def __str__(self) -> str:
        return bech32(self.hrp, self.raw)

    def public_key(self) -> MLKEM768X25519PublicKey:
        """The key for HPKE."""
        if len(self.raw) != 1216:
            raise KeyProviderError(f"recipient: expected 1216 key bytes, found {len(self.raw)}")
        try:
            return MLKEM768X25519PublicKey(
                MLKEM768PublicKey.from_public_bytes(self.raw[:1184]),
                X25519PublicKey.from_public_bytes(self.raw[1184:]),
            )
        except ValueError:
            raise KeyProviderError("recipient: the bytes are not an ML-KEM-768 and X25519 key") from None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the public key bytes, lower-case hex: names a recipient in logs and envelopes."""
        return hashlib.sha256(self.raw).hexdigest()


class HybridIdentity(SecretKey):
    """The private half: a 32-byte seed, expanded with SHAKE-256 as X-Wing and HPKE's MLKEM768-X25519 say."""

    __slots__ = ("_key", "_recipient", "hrp")

    def __init__(self, seed: bytes, hrp: str) -> None:
        super().__init__(seed)
        self.hrp = hrp
        expanded = hashlib.shake_256(seed).digest(96)
        kem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        dh = X25519PrivateKey.from_private_bytes(expanded[64:])
        self._key = MLKEM768X25519PrivateKey(kem, dh)
        public = kem.public_key().public_bytes_raw() + dh.public_key().public_bytes_raw()
        self._recipient = HybridRecipient(public, _RECIPIENT_OF[hrp])

    @classmethod
    def parse(cls, text: str, hrp: str) -> HybridIdentity:
        """Read an identity string, or a key file of `age-keygen` (comment lines and one key)."""
        lines = [line.strip() for line in text.splitlines()]
        keys = [line for line in lines if line and not line.startswith("#")]
        if len(keys) != 1:
            raise KeyProviderError(f"identity: expected one key, found {len(keys)}")
        return cls(unbech32(keys[0], hrp, KeyProviderError, "identity"), hrp)

    def secret_string(self) -> str:
        """The identity as a string, upper case as age writes it. A secret."""
        return bech32(self.hrp, self.raw).upper()

    @property
    def recipient(self) -> HybridRecipient:
        """The public half."""
        return self._recipient

    @property
    def private_key(self) -> MLKEM768X25519PrivateKey:
        """The key for HPKE."""
        return self._key


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A fresh key pair as strings. `identity` is the secret half and is left out of `repr`."""

    recipient: str
    identity: str

    def __repr__(self) -> str:
        return f"KeyPair(recipient={self.recipient[:24]}..., identity=<redacted>)"


def _keygen(hrp: str) -> KeyPair:
    identity = HybridIdentity(os.urandom(KEY_BYTES), hrp)
    return KeyPair(str(identity.recipient), identity.secret_string())


def custody_keygen() -> KeyPair:
    """A key pair for custody: `sluicecustody1...` to seal to, `SLUICE-CUSTODY-KEY-1...` to unwrap with."""
    return _keygen(CUSTODY_IDENTITY_HRP)


def partner_keygen() -> KeyPair:
    """A partner's key pair, the same as `age-keygen -pq` makes: `age1pq1...` and `AGE-SECRET-KEY-PQ-1...`."""
    return _keygen(PARTNER_IDENTITY_HRP)


def custody_identity(text: str) -> HybridIdentity:
    """Read custody's secret string."""
    return HybridIdentity.parse(text, CUSTODY_IDENTITY_HRP)


def custody_recipient(text: str) -> HybridRecipient:
    """Read custody's public string."""
    return HybridRecipient.parse(text, CUSTODY_RECIPIENT_HRP)


def partner_identity(text: str) -> HybridIdentity:
    """Read a partner's secret string or the file that `age-keygen -pq` wrote."""
    return HybridIdentity.parse(text, PARTNER_IDENTITY_HRP)


def partner_recipient(text: str) -> HybridRecipient:
    """Read a partner's public string, `age1pq1...`."""
    return HybridRecipient.parse(text, PARTNER_RECIPIENT_HRP)


def check_digest(digest: str, error: type[ArtifactError] = KeyProviderError, what: str = "digest") -> str:
    """Give back `digest` if it is a SHA-256 in 64 lower-case hex digits, else raise `error`."""
    if len(digest) != 64 or any(c not in "0123456789abcdef" for c in digest):
        raise error(f"{what}: must be 64 lower-case hex digits")
    return digest


def _wrap(key: SecretKey, recipient: str, manifest_digest: str, prefix: str, label: bytes) -> str:
    to = custody_recipient(recipient)
    sealed = _WRAP_SUITE.encrypt(key.raw, to.public_key(), info=_wrap_info(manifest_digest, label))
    return f"{prefix}.{to.fingerprint[:16]}.{b64(sealed)}"


def _unwrap(
    wrapped: str, identity: HybridIdentity, manifest_digest: str, expected: str, label: bytes
) -> bytes:
    prefix, _, rest = wrapped.partition(".")
    fingerprint, _, body = rest.partition(".")
    if prefix != expected:
        raise KeyProviderError(f"wrapped root: expected a string that begins with {expected!r}")
    if fingerprint != identity.recipient.fingerprint[:16]:
        raise KeyProviderError("wrapped root: made for another custody key; seal again or use that key")
    sealed = unb64(body, KeyProviderError, "wrapped root")
    if len(sealed) != _ENC_BYTES + KEY_BYTES + 16:
        raise KeyProviderError(f"wrapped root: {len(sealed)} bytes, expected {_ENC_BYTES + KEY_BYTES + 16}")
    try:
        return bytes(
            _WRAP_SUITE.decrypt(sealed, identity.private_key, info=_wrap_info(manifest_digest, label))
        )
    except (InvalidTag, ValueError):
        raise WrongKeyError(
            "wrapped root: does not open for this manifest; it was changed or moved"
        ) from None


def _wrap_info(manifest_digest: str, label: bytes) -> bytes:
    return prefixed(label, bytes.fromhex(check_digest(manifest_digest, what="manifest digest")))


def wrap_root(root: RootKey, recipient: str, manifest_digest: str) -> str:
    """Wrap `root` to custody, bound to the manifest: only custody can unwrap it, and only for that manifest.

    Args:
        root: the artifact's root key.
        recipient: custody's public string, `sluicecustody1...`.
        manifest_digest: hex SHA-256 of the manifest's statement (docs/sealed-format.md section 4).

    Returns:
        `sluice-root-v1.<recipient fingerprint, 16 hex>.<base64>`; no secret to whoever is not custody.
    """
    return _wrap(root, recipient, manifest_digest, _WRAP_PREFIX, _WRAP_LABEL)


def unwrap_root(
    wrapped: str,
    identity: HybridIdentity,
    manifest_digest: str,
    *,
    artifact_id: str = "",
    commitment: str = "",
) -> RootKey:
    """Unwrap what `wrap_root` made. Inside custody only.

    Args:
        wrapped: the string that `wrap_root` gave.
        identity: custody's key.
        manifest_digest: the manifest that this root belongs to.
        artifact_id: with `commitment`, the manifest's values; a root that does not fit them is refused.
        commitment: `root_commitment` of the manifest.

    Raises:
        KeyProviderError: not such a string, or wrapped to another custody key.
        WrongKeyError: bound to another manifest, changed, or not the root that the manifest commits to.
    """
    root = RootKey(_unwrap(wrapped, identity, manifest_digest, _WRAP_PREFIX, _WRAP_LABEL))
    if commitment and not hmac.compare_digest(root.commitment(artifact_id), commitment):
        raise WrongKeyError(
            f"artifact {artifact_id}: the wrapped root is not the one its manifest commits to"
        )
    return root


def wrap_half(half: CustodyHalf, recipient: str, manifest_digest: str) -> str:
    """Wrap custody's half of an artifact with key shares, as `wrap_root` wraps a root: `sluice-half-v1.…`."""
    return _wrap(half, recipient, manifest_digest, _HALF_WRAP_PREFIX, _HALF_WRAP_LABEL)


def unwrap_half(
    wrapped: str,
    identity: HybridIdentity,
    manifest_digest: str,
    *,
    artifact_id: str,
    set_id: str,
    commitment: str,
) -> CustodyHalf:
    """Unwrap what `wrap_half` made. Inside custody only.

    Args:
        wrapped: the string that `wrap_half` gave.
        identity: custody's key.
        manifest_digest: the manifest that it belongs to.
        artifact_id: the manifest's artifact.
        set_id: its set of shares.
        commitment: `shares.half` of the manifest.

    Raises:
        KeyProviderError: not such a string, or wrapped to another custody key.
        WrongKeyError: bound to another manifest, changed, or not the half that the manifest commits to.
    """
    half = CustodyHalf(_unwrap(wrapped, identity, manifest_digest, _HALF_WRAP_PREFIX, _HALF_WRAP_LABEL))
    if not hmac.compare_digest(half.commitment(artifact_id, set_id), commitment):
        raise WrongKeyError(
            f"artifact {artifact_id}: the wrapped half is not the one its manifest commits to"
        )
    return half
