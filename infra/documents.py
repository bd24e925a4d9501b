"""Evidence texts at rest: AES-256-GCM with the keys of `SLUICE_DOCUMENT_KEYS_FILE`, bound to their place in the records.

    sealed = 0x01 · length of key id · key id · nonce (12 bytes) · ciphertext and tag;   associated data: the first part and the context

The file has the same form as the payload keys and is another file: whoever holds Temporal's keys reads no evidence. The first key
seals, every key opens.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag

from infra.codec import CodecKeys, UnknownKeyError

_VERSION = b"\x01"
_NONCE_BYTES = 12


class SealedDocuments:
    """Seals and opens texts; satisfies `orchestrator.records.documents.Cipher`."""

    def __init__(self, keys: CodecKeys) -> None:
        self._keys = keys

    def seal(self, data: bytes, context: bytes) -> bytes:
        """The text sealed under the current key; `context` says where it stands, and must be the same to open it."""
        key_id = self._keys.current.encode()
        head = _VERSION + bytes([len(key_id)]) + key_id
        nonce = os.urandom(_NONCE_BYTES)
        return head + nonce + self._keys.cipher(self._keys.current).encrypt(nonce, data, head + context)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """The text.

        Raises:
            ValueError: it was altered, cut, or stands in another place than it was sealed for, or its key is not in the ring.
        """
        if len(sealed) < 2 or sealed[:1] != _VERSION:
            raise ValueError("this is not a sealed document")
        end = 2 + sealed[1]
        head, nonce, body = sealed[:end], sealed[end : end + _NONCE_BYTES], sealed[end + _NONCE_BYTES :]
        try:
            cipher = self._keys.cipher(head[2:].decode("ascii", "replace"))
            return cipher.decrypt(nonce, body, head + context)
        except UnknownKeyError as error:
            raise ValueError(str(error)) from None
        except (InvalidTag, ValueError):
            raise ValueError("a sealed document was altered, or belongs to another place") from None
