"""age v1 files with `mlkem768x25519` recipients, as C2SP's age specification says; small payloads, in memory.

Only what envelopes need: the hybrid post-quantum recipient, which is never mixed with a classical one; no passphrases,
no armor. Everything cryptographic is `cryptography`'s. Stock age (1.3 or newer) reads what this writes and the other
way round; tests hold it to the specification's own key and to an independent implementation.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from artifacts.encoding import b64, unb64
from artifacts.errors import EnvelopeError
from artifacts.keys import HybridIdentity, HybridRecipient

MAX_HEADER = 2 * 1024 * 1024
"""More recipients than fit here (about 1200) belong in several envelopes."""

_VERSION = b"age-encryption.org/v1\n"
_STANZA = "mlkem768x25519"
_INFO = b"age-encryption.org/mlkem768x25519"
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
_ENC = KEM.MLKEM768_X25519.enc_length()
_FILE_KEY, _BODY, _NONCE, _CHUNK, _TAG = 16, 32, 16, 64 * 1024, 16


def _hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=info).derive(key)


def _mac(file_key: bytes, header: bytes) -> bytes:
    return hmac.digest(_hkdf(file_key, b"", b"header"), header, hashlib.sha256)


def encrypt(plaintext: bytes, recipients: Sequence[HybridRecipient]) -> bytes:
    """An age file that each of `recipients` can open, one stanza each, in the order given."""
    if not recipients:
        raise EnvelopeError("envelope: no recipient given")
    file_key = os.urandom(_FILE_KEY)
    header = bytearray(_VERSION)
    for recipient in recipients:
        sealed = _SUITE.encrypt(file_key, recipient.public_key(), info=_INFO)
        header += f"-> {_STANZA} {b64(sealed[:_ENC], padded=False)}\n".encode()
        header += f"{b64(sealed[_ENC:], padded=False)}\n".encode()
    header += b"---"
    if len(header) > MAX_HEADER:
        raise EnvelopeError(f"envelope: {len(recipients)} recipients are too many for one; make several")
    head = bytes(header) + b" " + b64(_mac(file_key, bytes(header)), padded=False).encode() + b"\n"
    nonce = os.urandom(_NONCE)
    return head + nonce + _stream_seal(_hkdf(file_key, nonce, b"payload"), plaintext)


def decrypt(data: bytes, identity: HybridIdentity) -> bytes:
    """The payload of an age file made for `identity`.

    Raises:
        EnvelopeError: malformed, changed, cut off, or for somebody else.
    """
    stanzas, header, mac, payload = _parse_header(data)
    file_key = _unwrap(stanzas, identity)
    if not hmac.compare_digest(_mac(file_key, header), mac):
        raise EnvelopeError("envelope: the header was changed; ask for a new one")
    if len(payload) < _NONCE + _TAG:
        raise EnvelopeError("envelope: cut off; fetch it again")
    return _stream_open(_hkdf(file_key, payload[:_NONCE], b"payload"), payload[_NONCE:])


def _parse_header(data: bytes) -> tuple[list[tuple[list[str], bytes]], bytes, bytes, bytes]:
    if not data.startswith(_VERSION):
        raise EnvelopeError("envelope: not an age v1 file (armored files: remove the armor with `age` first)")
    position = len(_VERSION)
    stanzas: list[tuple[list[str], bytes]] = []
    while True:
        line, position = _line(data, position)
        if line.startswith("--- "):
            mac = unb64(line[4:], EnvelopeError, "envelope: header MAC", padded=False)
            header_end = position - len(line) - 1 + 3
            if not stanzas or len(mac) != 32:
                raise EnvelopeError("envelope: the header has no recipient or no MAC")
            return stanzas, data[:header_end], mac, data[position:]
        arguments = line.split(" ")
        if arguments[0] != "->" or len(arguments) < 2 or not all(_visible(a) for a in arguments[1:]):
            raise EnvelopeError("envelope: a line of the header is not age's")
        body = ""
        while True:
            line, position = _line(data, position)
            if len(line) > 64:
                raise EnvelopeError("envelope: a line of the header is too long")
            body += line
            if len(line) < 64:
                break
        stanzas.append((arguments[1:], unb64(body, EnvelopeError, "envelope: recipient", padded=False)))


def _visible(argument: str) -> bool:
    return bool(argument) and all("!" <= c <= "~" for c in argument)


def _line(data: bytes, start: int) -> tuple[str, int]:
    end = data.find(b"\n", start, min(len(data), MAX_HEADER))
    if end < 0:
        raise EnvelopeError("envelope: the header is cut off or too long")
    try:
        return data[start:end].decode("ascii"), end + 1
    except UnicodeDecodeError:
        raise EnvelopeError("envelope: the header is not ASCII") from None


def _unwrap(stanzas: list[tuple[list[str], bytes]], identity: HybridIdentity) -> bytes:
    found: bytes | None = None
    for arguments, body in stanzas:
        if arguments[0] != _STANZA:
            raise EnvelopeError(
                f"envelope: has a {arguments[0][:20]!r} recipient beside the post-quantum ones; refused, ask for a new one"
            )
        if len(arguments) != 2 or len(body) != _BODY:
            raise EnvelopeError("envelope: a recipient is malformed")
        enc = unb64(arguments[1], EnvelopeError, "envelope: recipient", padded=False)
        if len(enc) != _ENC:
            raise EnvelopeError("envelope: a recipient is malformed")
        if found is None:
            try:
                found = _SUITE.decrypt(enc + body, identity.private_key, info=_INFO)
            except (InvalidTag, ValueError):
                continue
    if found is None or len(found) != _FILE_KEY:
        raise EnvelopeError(
            f"envelope: not made for this key ({str(identity.recipient)[:20]}...); "
            "use the identity whose recipient you registered"
        )
    return found


def _chunk_nonce(counter: int, *, last: bool) -> bytes:
    return counter.to_bytes(11, "big") + (b"\1" if last else b"\0")


def _stream_seal(key: bytes, plaintext: bytes) -> bytes:
    cipher = ChaCha20Poly1305(key)
    count = max(1, -(-len(plaintext) // _CHUNK))
    return b"".join(
        cipher.encrypt(_chunk_nonce(i, last=i == count - 1), plaintext[i * _CHUNK : (i + 1) * _CHUNK], None)
        for i in range(count)
    )


def _stream_open(key: bytes, sealed: bytes) -> bytes:
    cipher = ChaCha20Poly1305(key)
    wire = _CHUNK + _TAG
    count = max(1, -(-len(sealed) // wire))
    if count > 1 and len(sealed) - (count - 1) * wire <= _TAG:
        raise EnvelopeError("envelope: the payload is cut off")
    try:
        return b"".join(
            cipher.decrypt(_chunk_nonce(i, last=i == count - 1), sealed[i * wire : (i + 1) * wire], None)
            for i in range(count)
        )
    except InvalidTag:
        raise EnvelopeError("envelope: the payload was changed or cut off; fetch it again") from None
