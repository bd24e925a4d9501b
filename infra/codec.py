"""Everything that Temporal stores is encrypted before it leaves the process: AES-256-GCM over each whole payload.

An encrypted payload carries its encoding and the id of its key, and nothing else; both are bound to the ciphertext as associated
data. Invariants:

- The first key of the ring encrypts, every key decrypts: to rotate, put the new key first and keep the old one for as long as
  Temporal keeps histories.
- **A payload in clear is refused**, not passed through: whoever can write to Temporal's database can't hand a worker a made-up one.
  Two constants are let through, word for word: what the server itself says about an activity that was cancelled while it waited
  for its next try. Refusing them would leave the workflow that cancelled it unable to go on.
- Nonces are random, so one key is good for 2³² payloads (NIST SP 800-38D, 8.3); at a million payloads a day that is eleven years.

Not a goal: hiding sizes, or which payloads belong together. Someone who can write to Temporal's database can still move an encrypted
payload to another place; custody therefore believes no workflow argument.

Errors:

    CodecError
    ├── CodecKeysError      the file of keys is missing or malformed
    ├── UnknownKeyError     a payload was encrypted with a key that is not in the ring
    ├── TamperedError       ciphertext, nonce or key id were changed
    └── PlaintextError      a payload that is not encrypted at all
"""

from __future__ import annotations

import base64
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import DecodeError
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

ENCODING = b"binary/sluice-aes256gcm-v1"
_KEY_ID = "sluice-key-id"
_CLEAR = {"encoding": b"json/plain"}
_WORDS_OF_THE_SERVER = frozenset({b'"ACTIVITY_ID_NOT_STARTED"', b'"ACTIVITY_ID_UNKNOWN"'})
_NONCE_BYTES = 12
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class CodecError(Exception):
    """A payload can't be encrypted or decrypted."""


class CodecKeysError(CodecError):
    """The file of keys is missing or malformed."""


class UnknownKeyError(CodecError):
    """A payload was encrypted with a key that is not in the ring."""


class TamperedError(CodecError):
    """Ciphertext, nonce or key id were changed since the payload was encrypted."""


class PlaintextError(CodecError):
    """A payload that is not encrypted, where all are."""


class CodecKeys:
    """The ring of payload keys: 32 bytes each, by id. The first one encrypts."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys:
            raise CodecKeysError("no payload key; there must be at least one")
        for name, key in keys.items():
            if not _NAME.fullmatch(name):
                raise CodecKeysError(f"payload key id {name!r}: use 1 to 64 of A-Z a-z 0-9 . _ -")
            if len(key) != 32:
                raise CodecKeysError(f"payload key {name}: 32 bytes are needed, not {len(key)}")
        self.current = next(iter(keys))
        self._ciphers = {name: AESGCM(key) for name, key in keys.items()}

    def __repr__(self) -> str:
        """The ids alone."""
        return f"CodecKeys({', '.join(self._ciphers)})"

    def cipher(self, key_id: str) -> AESGCM:
        """The cipher of that key.

        Raises:
            UnknownKeyError: the ring doesn't have it.
        """
        try:
            return self._ciphers[key_id]
        except KeyError:
            raise UnknownKeyError(
                f"a payload needs key {key_id!r}, which is not in the ring ({', '.join(self._ciphers)}): was it rotated out too early?"
            ) from None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file of `id:base64` lines; blank lines and lines that start with # don't count.

        Raises:
            CodecKeysError: with file and line, never with what the line holds.
        """
        try:
            lines = path.read_text(encoding="ascii").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "is not ASCII text"
            raise CodecKeysError(
                f"payload keys {path}: {reason}; make one with `python -m infra.codec {path}`"
            ) from None
        keys: dict[str, bytes] = {}
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.startswith("#"):
                continue
            name, separator, encoded = line.strip().partition(":")
            try:
                key = base64.b64decode(encoded, validate=True)
            except ValueError:
                raise CodecKeysError(f"payload keys {path}, line {number}: the key is not base64") from None
            if not separator or name in keys:
                reason = "this id was there before" if separator else "is not id:base64"
                raise CodecKeysError(f"payload keys {path}, line {number}: {reason}")
            keys[name] = key
        try:
            return cls(keys)
        except CodecKeysError as error:
            raise CodecKeysError(f"payload keys {path}: {error}") from None


def new_key_line() -> str:
    """A fresh random key as a line of the file."""
    return f"k{secrets.token_hex(4)}:{base64.b64encode(secrets.token_bytes(32)).decode()}\n"


def write_new_keys(path: Path) -> None:
    """Make a file with one fresh key, readable by its owner alone; an existing file is an error and is left as it is."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(new_key_line())
        file.flush()
        os.fsync(file.fileno())


class EncryptingCodec(PayloadCodec):
    """AES-256-GCM over whole payloads, metadata included."""

    def __init__(self, keys: CodecKeys) -> None:
        self._keys = keys

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encrypt each payload under the current key."""
        return [self._encrypt(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Decrypt each payload.

        Raises:
            UnknownKeyError: none of the ring's keys made it.
            TamperedError: it was changed.
            PlaintextError: it was never encrypted.
        """
        return [self._decrypt(payload) for payload in payloads]

    def _encrypt(self, payload: Payload) -> Payload:
        key_id = self._keys.current
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._keys.cipher(key_id).encrypt(nonce, payload.SerializeToString(), _bound(key_id))
        return Payload(metadata={"encoding": ENCODING, _KEY_ID: key_id.encode()}, data=nonce + sealed)

    def _decrypt(self, payload: Payload) -> Payload:
        if dict(payload.metadata) == _CLEAR and payload.data in _WORDS_OF_THE_SERVER:
            return payload
        if payload.metadata.get("encoding") != ENCODING:
            raise PlaintextError(
                "a payload from Temporal is not encrypted: it was not written by this service, or by one without a codec"
            )
        key_id = payload.metadata.get(_KEY_ID, b"").decode("utf-8", "replace")
        cipher = self._keys.cipher(key_id)
        try:
            return Payload.FromString(
                cipher.decrypt(payload.data[:_NONCE_BYTES], payload.data[_NONCE_BYTES:], _bound(key_id))
            )
        except (InvalidTag, ValueError, DecodeError):
            raise TamperedError(
                f"a payload from Temporal was changed after key {key_id!r} encrypted it"
            ) from None


def _bound(key_id: str) -> bytes:
    return ENCODING + b"\x00" + key_id.encode()


if __name__ == "__main__":
    import sys

    write_new_keys(Path(sys.argv[1]))
