"""DSSE envelopes: signing, and the one function that verifies, for key files and passkeys alike.

An envelope is the JSON of DSSE v1 (https://github.com/secure-systems-lab/dsse) around an in-toto statement. What is
signed is the pre-authentication encoding of exactly the payload's bytes. A passkey signs the SHA-256 of the same
bytes as its WebAuthn challenge; its `sig` is a small JSON object with the parts of the assertion.

Invariants
- Keys come from the caller (a plan pins them); a key inside an envelope is never trusted. `keyid` only finds the
  pinned key: it is the fingerprint of the key material, so a renamed key is an unknown key.
- A signature that names a pinned key and does not fit refuses the whole envelope, whatever else is in it.
- No network, no clock: expiry is a matter of `statements`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from securesystemslib.dsse import Envelope
from securesystemslib.signer._signature import Signature

from orchestrator.trust.encoding import b64decode, canonical_json, parse_object
from orchestrator.trust.errors import Malformed, SignatureInvalid, UnknownKey
from orchestrator.trust.keys import PrivateKey, PublicKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_SIGNATURES = 16
_KEY_ID = re.compile(r"[\x21-\x7e]{1,256}")


@dataclass(frozen=True, slots=True)
class Verified:
    """What an envelope says, once verified.

    Attributes:
        payload: the signed bytes.
        keys: the pinned keys that signed, each once, in the order of the signatures.
    """

    payload: bytes
    keys: tuple[PublicKey, ...]

    @property
    def key(self) -> PublicKey:
        """The first key that signed: the only one, when `verify_single` made this."""
        return self.keys[0]


def pae(payload: bytes) -> bytes:
    """The bytes that are signed for this payload (DSSE pre-authentication encoding)."""
    encoded: bytes = Envelope(payload, PAYLOAD_TYPE, {}).pae()
    return encoded


def challenge(payload: bytes) -> bytes:
    """The WebAuthn challenge for this payload: SHA-256 over its pre-authentication encoding, 32 bytes."""
    return hashlib.sha256(pae(payload)).digest()


def sign(payload: bytes, *signers: PrivateKey) -> bytes:
    """Sign a payload with each of the keys; returns the envelope as canonical JSON."""
    message = pae(payload)
    return _envelope(payload, {signer.public.key_id: signer.sign_raw(message) for signer in signers})


def sign_with_passkey(payload: bytes, key: PublicKey, assertion: Mapping[str, Any]) -> bytes:
    """Put a passkey's assertion around a payload.

    Args:
        payload: the statement whose `challenge` the authenticator answered.
        key: the passkey's public key.
        assertion: `PublicKeyCredential.toJSON()` of the browser.

    Raises:
        Malformed: not an assertion. That it verifies is for `verify` to say.
    """
    from orchestrator.trust.passkeys import pack_assertion

    return _envelope(payload, {key.key_id: pack_assertion(assertion)})


def signed_payload(envelope: bytes) -> bytes:
    """The payload of an envelope, **unverified**: to show, and to find out which keys to ask for.

    Raises:
        Malformed: not an envelope.
    """
    payload: bytes = _parse(envelope).payload
    return payload


def key_ids(envelope: bytes) -> tuple[str, ...]:
    """The key ids that an envelope claims, **unverified**.

    Raises:
        Malformed: not an envelope.
    """
    return tuple(_parse(envelope).signatures)


def verify(envelope: bytes, keys: Iterable[PublicKey], *, origins: Sequence[str] = ()) -> Verified:
    """Verify an envelope against pinned keys.

    Args:
        envelope: the envelope's JSON bytes.
        keys: the pinned public keys; signatures by other keys do not count and do no harm.
        origins: web origins where passkeys may have signed. Empty: `https://` and the passkey's relying party
            (for `localhost` also `http://` with any port).

    Returns:
        The payload and those of the pinned keys that signed it; at least one.

    Raises:
        Malformed: not an envelope with an in-toto payload.
        SignatureInvalid: a pinned key's signature does not fit.
        UnknownKey: none of the pinned keys signed.
    """
    parsed = _parse(envelope)
    message = pae(parsed.payload)
    pinned: dict[str, list[PublicKey]] = {}
    for key in keys:
        pinned.setdefault(key.key_id, []).append(key)
    found = [
        _verify_one(pinned[key_id], bytes.fromhex(signature.signature), message, origins)
        for key_id, signature in parsed.signatures.items()
        if key_id in pinned
    ]
    if not found:
        raise UnknownKey(
            "is signed by none of the keys that are pinned for this",
            where="envelope",
            remedy=f"keys that it names: {', '.join(list(parsed.signatures)[:3])}",
        )
    return Verified(parsed.payload, tuple(found))


def verify_single(envelope: bytes, keys: Iterable[PublicKey], *, origins: Sequence[str] = ()) -> Verified:
    """`verify`, for what one person says: exactly one signature, and that by a pinned key.

    Raises:
        Malformed: not an envelope, or more signatures than one.
        SignatureInvalid: the signature does not fit.
        UnknownKey: the key is not pinned.
    """
    if len(key_ids(envelope)) != 1:
        raise Malformed("carries more than one signature; one person signs once", where="envelope")
    return verify(envelope, keys, origins=origins)


def _verify_one(keys: list[PublicKey], signature: bytes, message: bytes, origins: Sequence[str]) -> PublicKey:
    """The key, of those with one and the same material, whose signature this is."""
    from orchestrator.trust.passkeys import is_assertion, verify_assertion

    assertion = is_assertion(signature)
    candidates = [key for key in keys if key.passkey == assertion]
    if not candidates:
        kind = "a passkey's assertion" if assertion else "a plain signature"
        raise SignatureInvalid(
            f"holds {kind}, but the pinned key is of the other kind", where=f"key {keys[0].key_id}"
        )
    refusal: SignatureInvalid | None = None
    for key in candidates:
        try:
            if assertion:
                verify_assertion(key, signature, hashlib.sha256(message).digest(), origins)
            else:
                key.verify_raw(signature, message)
        except SignatureInvalid as error:
            refusal = error
        else:
            return key
    assert refusal is not None
    raise refusal


def _envelope(payload: bytes, signatures: Mapping[str, bytes]) -> bytes:
    if not 1 <= len(signatures) <= MAX_SIGNATURES:
        raise Malformed(f"an envelope carries 1 to {MAX_SIGNATURES} signatures", where="envelope")
    by_id = {key_id: Signature(key_id, signature.hex()) for key_id, signature in signatures.items()}
    return canonical_json(Envelope(payload, PAYLOAD_TYPE, by_id).to_dict())


def _parse(envelope: bytes) -> Envelope:
    """Check the form strictly before the library reads it: it raises whatever comes up."""
    where = "envelope"
    raw = parse_object(envelope, where=where)
    if set(raw) != {"payload", "payloadType", "signatures"}:
        raise Malformed("must hold `payload`, `payloadType` and `signatures`, and nothing else", where=where)
    if raw["payloadType"] != PAYLOAD_TYPE:
        raise Malformed(f"the payload is not of the type {PAYLOAD_TYPE}", where=where)
    b64decode(raw["payload"], where=f"{where} payload")
    signatures = raw["signatures"]
    if not isinstance(signatures, list) or not 1 <= len(signatures) <= MAX_SIGNATURES:
        raise Malformed(f"must carry 1 to {MAX_SIGNATURES} signatures", where=where)
    seen: set[str] = set()
    for entry in signatures:
        if (
            not isinstance(entry, dict)
            or set(entry) != {"keyid", "sig"}
            or not isinstance(entry["keyid"], str)
        ):
            raise Malformed("a signature must hold `keyid` and `sig`, and nothing else", where=where)
        if not _KEY_ID.fullmatch(entry["keyid"]):
            raise Malformed("a key id is 1 to 256 printable ASCII letters", where=where)
        if entry["keyid"] in seen:
            raise Malformed("one key signs twice", where=where)
        seen.add(entry["keyid"])
        b64decode(entry["sig"], where=f"{where} signature")
    return Envelope.from_dict(raw)
