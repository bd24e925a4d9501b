"""People's keys: Ed25519 keys (an existing `ssh-ed25519` key file will do) and passkeys.

A public key is written as OpenSSH writes it, so that people can compare it with `ssh-keygen -l`:

    ssh-ed25519 AAAA...                               an Ed25519 key
    sk-ssh-ed25519@openssh.com AAAA...                a passkey (EdDSA); the blob names its relying party
    sk-ecdsa-sha2-nistp256@openssh.com AAAA...        a passkey (ES256); the blob names its relying party
    ed25519:BASE64                                    the 32 raw bytes of an Ed25519 key

Invariants: `key_id` is the fingerprint of the key *material* alone (comment, spelling and relying party aside), so
one key under two names, or as a file key and as a passkey, is recognised as one. A point of small order, which
would verify anything, and a second spelling of the same point are refused.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from dataclasses import dataclass, field
from typing import Literal, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from orchestrator.trust.encoding import b64decode, b64encode
from orchestrator.trust.errors import KeyUnusable, Malformed, SignatureInvalid

Kind = Literal["ed25519", "passkey-eddsa", "passkey-es256"]

_SSH = "ssh-ed25519"
_SK_EDDSA = "sk-ssh-ed25519@openssh.com"
_SK_ES256 = "sk-ecdsa-sha2-nistp256@openssh.com"
_FIELD = 2**255 - 19
_RELYING_PARTY = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)

# The y coordinates of the eight points whose order divides 8 (tested by solving for them).
_SMALL_ORDER_Y = frozenset(
    {
        0,
        1,
        _FIELD - 1,
        2707385501144840649318225287225658788936804267575313519463743609750303402022,
        55188659117513257062467267217118295137698188065244968500265048394206261417927,
    }
)


def _pack(*fields: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(part)) + part for part in fields)


def _unpack(blob: bytes, count: int, where: str) -> list[bytes]:
    fields: list[bytes] = []
    at = 0
    while at < len(blob) and len(fields) < count:
        if at + 4 > len(blob):
            raise Malformed("is cut off", where=where)
        (size,) = struct.unpack_from(">I", blob, at)
        at += 4
        if size > len(blob) - at:
            raise Malformed("is cut off", where=where)
        fields.append(blob[at : at + size])
        at += size
    if at != len(blob) or len(fields) != count:
        raise Malformed(f"does not hold exactly {count} fields", where=where)
    return fields


def _check_ed25519(material: bytes, where: str) -> None:
    if len(material) != 32:
        raise Malformed(f"an Ed25519 key has 32 bytes, this one {len(material)}", where=where)
    y = int.from_bytes(material, "little") & ((1 << 255) - 1)
    if y >= _FIELD:
        raise KeyUnusable("is a second spelling of another key", where=where, remedy="make a new key")
    if y in _SMALL_ORDER_Y:
        raise KeyUnusable(
            "is a point of small order, which verifies anything", where=where, remedy="make a new key"
        )


def _check_es256(material: bytes, where: str) -> None:
    if len(material) != 65 or material[0] != 4:
        raise Malformed("a P-256 key is an uncompressed point of 65 bytes", where=where)
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), material)
    except ValueError:
        raise KeyUnusable(
            "is not a point on P-256", where=where, remedy="register the passkey again"
        ) from None


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key as a plan pins it.

    Attributes:
        kind: how its signatures look.
        material: 32 raw bytes (Ed25519) or the uncompressed point of 65 bytes (ES256).
        relying_party: the passkey's relying party id (a host name); empty for file keys.
        comment: what stood behind the key; it takes no part in equality.
    """

    kind: Kind
    material: bytes
    relying_party: str = ""
    comment: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        where = "public key"
        if self.kind == "passkey-es256":
            _check_es256(self.material, where)
        else:
            _check_ed25519(self.material, where)
        if (self.kind == "ed25519") != (self.relying_party == ""):
            raise Malformed("a passkey, and only a passkey, names its relying party", where=where)
        if self.relying_party and not _RELYING_PARTY.fullmatch(self.relying_party):
            raise Malformed(
                "the relying party is not a host name",
                where=where,
                remedy="a security key made by ssh-keygen signs for SSH alone; register a passkey in the console",
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a key from one line of text (the forms at the head of this module).

        Raises:
            Malformed: not of those forms.
            KeyUnusable: of a form, but not a key to trust anything to.
        """
        where = "public key"
        if not isinstance(text, str) or len(text) > 2048:
            raise Malformed("is not a line of text of at most 2048 letters", where=where)
        line = text.strip()
        if line.startswith("ed25519:"):
            return cls("ed25519", b64decode(line.removeprefix("ed25519:"), where=where, length=32))
        name, _, rest = line.partition(" ")
        encoded, _, comment = rest.strip().partition(" ")
        if name not in {_SSH, _SK_EDDSA, _SK_ES256} or not comment.isprintable():
            raise Malformed(
                "is of a kind that is not known here",
                where=where,
                remedy="give an `ssh-ed25519 AAAA…` line, `ed25519:BASE64`, or register a passkey in the console",
            )
        blob = b64decode(encoded, where=where)
        fields = _unpack(blob, {_SSH: 2, _SK_EDDSA: 3, _SK_ES256: 4}[name], where)
        if fields[0] != name.encode():
            raise Malformed("names one kind outside and another inside", where=where)
        if name == _SSH:
            return cls("ed25519", fields[1], comment=comment)
        if name == _SK_ES256 and fields.pop(1) != b"nistp256":
            raise Malformed("is not on P-256", where=where)
        try:
            relying_party = fields[2].decode("ascii")
        except UnicodeDecodeError:
            raise Malformed("the relying party is not a host name", where=where) from None
        return cls(
            "passkey-eddsa" if name == _SK_EDDSA else "passkey-es256", fields[1], relying_party, comment
        )

    @property
    def key_id(self) -> str:
        """`SHA256:` and the fingerprint of the key material, as `ssh-keygen -l` prints it for the plain key."""
        if self.kind == "passkey-es256":
            blob = _pack(b"ecdsa-sha2-nistp256", b"nistp256", self.material)
        else:
            blob = _pack(b"ssh-ed25519", self.material)
        return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).rstrip(b"=").decode("ascii")

    @property
    def passkey(self) -> bool:
        """Whether signatures are WebAuthn assertions."""
        return self.kind != "ed25519"

    def text(self) -> str:
        """The key in its OpenSSH form without the comment: the form that a plan holds."""
        party = self.relying_party.encode()
        if self.kind == "ed25519":
            name, blob = _SSH, _pack(_SSH.encode(), self.material)
        elif self.kind == "passkey-eddsa":
            name, blob = _SK_EDDSA, _pack(_SK_EDDSA.encode(), self.material, party)
        else:
            name, blob = _SK_ES256, _pack(_SK_ES256.encode(), b"nistp256", self.material, party)
        return f"{name} {b64encode(blob)}"

    def verify_raw(self, signature: bytes, message: bytes) -> None:
        """Verify a plain Ed25519 signature of 64 bytes; passkeys are verified in `signing`.

        Raises:
            SignatureInvalid: it does not fit.
        """
        if self.passkey:
            raise SignatureInvalid("a passkey makes no plain signatures", where=f"key {self.key_id}")
        try:
            Ed25519PublicKey.from_public_bytes(self.material).verify(signature, message)
        except (InvalidSignature, ValueError):
            raise SignatureInvalid(
                "the signature does not fit the bytes",
                where=f"key {self.key_id}",
                remedy="the document was changed, or signed with another key; ask the signer to sign again",
            ) from None


class PrivateKey:
    """An Ed25519 private key, in memory on the machine of the person it belongs to. Never printed."""

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey("ed25519", key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"PrivateKey({self.public.key_id})"

    @classmethod
    def generate(cls) -> Self:
        """A new random key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """The key of 32 raw bytes (RFC 8032).

        Raises:
            KeyUnusable: not 32 bytes.
        """
        if len(seed) != 32:
            raise KeyUnusable(f"an Ed25519 seed has 32 bytes, this one {len(seed)}", where="private key")
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def load(cls, data: bytes, passphrase: bytes | None = None) -> Self:
        """Read an OpenSSH private key file, or a PKCS#8 PEM one.

        Args:
            data: the file's bytes.
            passphrase: for a protected file, else None.

        Raises:
            KeyUnusable: a protected file without the right passphrase, another kind of key, or no key file.
        """
        where = "private key file"
        load = load_ssh_private_key if b"OPENSSH PRIVATE KEY" in data[:200] else load_pem_private_key
        try:
            key = load(data, passphrase)
        except TypeError:
            told = (
                "is not protected, but a passphrase was given"
                if passphrase
                else "is protected by a passphrase"
            )
            remedy = "leave the passphrase out" if passphrase else "give the passphrase"
            raise KeyUnusable(told, where=where, remedy=remedy) from None
        except (ValueError, UnsupportedAlgorithm, OverflowError, MemoryError):
            raise KeyUnusable(
                "cannot be read: the passphrase is wrong or it is no private key",
                where=where,
                remedy="check the passphrase, or make a key with `ssh-keygen -t ed25519`",
            ) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyUnusable(
                "is not an Ed25519 key", where=where, remedy="make one with `ssh-keygen -t ed25519`"
            )
        return cls(key)

    def to_openssh(self, passphrase: bytes | None = None) -> bytes:
        """The key as an OpenSSH private key file, protected when a passphrase is given."""
        protection = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, protection)

    def seed(self) -> bytes:
        """The 32 secret bytes, for callers that keep the key in a store of their own."""
        return self._key.private_bytes_raw()

    def sign_raw(self, message: bytes) -> bytes:
        """A plain Ed25519 signature, 64 bytes."""
        return self._key.sign(message)
