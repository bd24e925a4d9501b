"""A software authenticator: what a security key and a browser do together, for real, with keys in memory.

It makes credentials and signs assertions as WebAuthn level 2 prescribes (client data, authenticator data, flags,
counter). What a test wants to go wrong is an argument: another origin, no user verification, another type, …
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import struct
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

USER_PRESENT, USER_VERIFIED, ATTESTED = 0x01, 0x04, 0x40


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class SoftwareAuthenticator:
    """One credential of one person on one relying party."""

    def __init__(self, relying_party: str, *, algorithm: str = "ES256", key: Any = None) -> None:
        self.relying_party = relying_party
        self.algorithm = algorithm
        self.credential_id = secrets.token_bytes(32)
        self.counter = 0
        if key is not None:
            self._key = key
        elif algorithm == "ES256":
            self._key = ec.generate_private_key(ec.SECP256R1())
        else:
            self._key = Ed25519PrivateKey.generate()

    def cose_key(self) -> bytes:
        """The public key as registration delivers it."""
        public = self._key.public_key()
        if self.algorithm == "ES256":
            numbers = public.public_numbers()
            x, y = numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")
            return cbor2.dumps({1: 2, 3: -7, -1: 1, -2: x, -3: y})
        return cbor2.dumps({1: 1, 3: -8, -1: 6, -2: public.public_bytes_raw()})

    def _client_data(self, kind: str, challenge: bytes, origin: str | None, extra: dict[str, Any]) -> bytes:
        fields = {
            "type": kind,
            "challenge": b64url(challenge),
            "origin": origin if origin is not None else f"https://{self.relying_party}",
            "crossOrigin": False,
            **extra,
        }
        return json.dumps(fields, separators=(",", ":")).encode()

    def _authenticator_data(self, flags: int, relying_party: str | None, attested: bytes = b"") -> bytes:
        self.counter += 1
        party = hashlib.sha256((relying_party or self.relying_party).encode()).digest()
        return party + struct.pack(">BI", flags, self.counter) + attested

    def register(self, challenge: bytes, *, origin: str | None = None) -> dict[str, Any]:
        """`navigator.credentials.create()` as JSON, with attestation `none`."""
        attested = bytes(16) + struct.pack(">H", 32) + self.credential_id + self.cose_key()
        data = self._authenticator_data(USER_PRESENT | USER_VERIFIED | ATTESTED, None, attested)
        statement = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        return {
            "id": b64url(self.credential_id),
            "rawId": b64url(self.credential_id),
            "type": "public-key",
            "response": {
                "clientDataJSON": b64url(self._client_data("webauthn.create", challenge, origin, {})),
                "attestationObject": b64url(statement),
            },
            "clientExtensionResults": {},
        }

    def get(
        self,
        challenge: bytes,
        *,
        origin: str | None = None,
        relying_party: str | None = None,
        user_present: bool = True,
        user_verified: bool = True,
        kind: str = "webauthn.get",
        **extra: Any,
    ) -> dict[str, Any]:
        """`navigator.credentials.get()` as JSON."""
        client = self._client_data(kind, challenge, origin, extra)
        data = self._authenticator_data(
            USER_PRESENT * user_present | USER_VERIFIED * user_verified, relying_party
        )
        message = data + hashlib.sha256(client).digest()
        signature = (
            self._key.sign(message, ec.ECDSA(SHA256()))
            if self.algorithm == "ES256"
            else self._key.sign(message)
        )
        return {
            "id": b64url(self.credential_id),
            "rawId": b64url(self.credential_id),
            "type": "public-key",
            "authenticatorAttachment": "platform",
            "response": {
                "clientDataJSON": b64url(client),
                "authenticatorData": b64url(data),
                "signature": b64url(signature),
                "userHandle": None,
            },
            "clientExtensionResults": {},
        }
