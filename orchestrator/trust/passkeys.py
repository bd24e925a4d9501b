"""Passkeys: WebAuthn assertions over a statement, verified with the `webauthn` library.

The assertion's challenge is the SHA-256 of the statement's pre-authentication encoding, so a person approves exactly
the bytes that were shown. Checked: challenge, type, origin, relying party, user presence **and** verification,
signature (ES256 or EdDSA). The signature counter is not: a sign-off is verified again and again for months, by
processes that keep no state. A sign-off's nonce keeps it from counting twice.

`webauthn` comes with the service; it is imported only when a passkey is at hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from orchestrator.trust.encoding import b64url_decode, b64url_encode, canonical_json, parse_object
from orchestrator.trust.errors import KeyUnusable, Malformed, SignatureInvalid
from orchestrator.trust.keys import PublicKey

_PARTS = ("id", "authenticatorData", "clientDataJSON", "signature")
_MAX_PART = 16_384


def is_assertion(signature: bytes) -> bool:
    """Whether a `sig` is a passkey's: a JSON object instead of the 64 bytes of a plain signature."""
    return len(signature) != 64 and signature[:1] == b"{"


def pack_assertion(assertion: Mapping[str, Any]) -> bytes:
    """The `sig` bytes of `PublicKeyCredential.toJSON()`.

    Raises:
        Malformed: not an assertion.
    """
    response = assertion.get("response")
    if not isinstance(response, Mapping):
        raise Malformed("has no `response`", where="passkey assertion")
    parts = {"id": assertion.get("id"), **{name: response.get(name) for name in _PARTS[1:]}}
    for name, value in parts.items():
        b64url_decode(value, where=f"passkey assertion, {name}")
    return canonical_json(parts)


def public_key_from_cose(cose: bytes, relying_party: str, *, comment: str = "") -> PublicKey:
    """The public key of a credential as registration delivers it (COSE bytes).

    Raises:
        KeyUnusable: neither ES256 on P-256 nor EdDSA on Ed25519.
        Malformed: no COSE key.
    """
    from webauthn.helpers.exceptions import WebAuthnException
    from webauthn.helpers.parse_cbor import parse_cbor

    where = "passkey"
    try:
        fields = parse_cbor(cose)
    except (WebAuthnException, ValueError, TypeError, RecursionError, OverflowError, MemoryError):
        fields = None
    if not isinstance(fields, dict):
        raise Malformed("is not a COSE key", where=where, remedy="register the passkey again")
    kind, algorithm, curve, x, y = (fields.get(label) for label in (1, 3, -1, -2, -3))
    if (kind, algorithm, curve) == (2, -7, 1) and isinstance(x, bytes) and isinstance(y, bytes):
        return PublicKey("passkey-es256", b"\x04" + x + y, relying_party, comment)
    if (kind, algorithm, curve) == (1, -8, 6) and isinstance(x, bytes):
        return PublicKey("passkey-eddsa", x, relying_party, comment)
    raise KeyUnusable(
        "is neither ES256 on P-256 nor EdDSA on Ed25519",
        where=where,
        remedy="ask the browser for one of the two",
    )


def cose_from_public_key(key: PublicKey) -> bytes:
    """The COSE bytes of a passkey, as the `webauthn` library wants them."""
    from webauthn.helpers.encode_cbor import encode_cbor

    fields: dict[int, Any]
    if key.kind == "passkey-es256":
        fields = {1: 2, 3: -7, -1: 1, -2: key.material[1:33], -3: key.material[33:]}
    else:
        fields = {1: 1, 3: -8, -1: 6, -2: key.material}
    encoded: bytes = encode_cbor(fields)
    return encoded


def verify_assertion(key: PublicKey, signature: bytes, expected: bytes, origins: Sequence[str]) -> None:
    """Verify the `sig` bytes of a passkey.

    Args:
        key: the pinned passkey.
        signature: what `pack_assertion` made.
        expected: the challenge, 32 bytes.
        origins: allowed web origins; empty for the default of `signing.verify`.

    Raises:
        Malformed: not an assertion.
        SignatureInvalid: any check fails.
    """
    where = f"passkey {key.key_id}"
    parts = parse_object(signature, where=where, limit=4 * _MAX_PART)
    if set(parts) != set(_PARTS):
        raise Malformed(f"an assertion holds {', '.join(_PARTS)}, and nothing else", where=where)
    raw = {name: b64url_decode(parts[name], where=f"{where}, {name}") for name in _PARTS}
    client = parse_object(raw["clientDataJSON"], where=f"{where}, clientDataJSON", limit=_MAX_PART)
    origin = client.get("origin")
    if not all(isinstance(client.get(name), str) for name in ("type", "challenge", "origin")):
        raise Malformed("clientDataJSON lacks `type`, `challenge` or `origin`", where=where)
    if client.get("crossOrigin", False) is not False or "topOrigin" in client:
        raise SignatureInvalid("was signed inside a frame of another site", where=where)
    if not _origin_allowed(str(origin), key.relying_party, origins):
        raise SignatureInvalid(
            "was signed on a web site that is not ours",
            where=where,
            remedy=f"sign at {', '.join(origins) or 'https://' + key.relying_party}",
        )
    credential = {
        "id": parts["id"],
        "rawId": parts["id"],
        "type": "public-key",
        "response": {name: parts[name] for name in _PARTS[1:]},
    }
    try:
        from webauthn import verify_authentication_response
    except ImportError:
        raise KeyUnusable(
            "passkeys cannot be verified here: the package `webauthn` is not installed",
            where=where,
            remedy="install `sluice-release[service]`",
        ) from None

    try:
        verify_authentication_response(
            credential=credential,
            expected_challenge=expected,
            expected_rp_id=key.relying_party,
            expected_origin=str(origin),
            credential_public_key=cose_from_public_key(key),
            credential_current_sign_count=0,
            require_user_verification=True,
        )
    except Exception as error:  # noqa: BLE001 - the library's parsers raise whatever comes up on hostile bytes
        raise SignatureInvalid(
            f"the assertion does not hold ({str(error)[:160]})",
            where=where,
            remedy="sign again, with the passkey's PIN or biometric check on",
        ) from None


def relying_party_allows(origin: str, relying_party: str) -> bool:
    """The default rule for origins: `https://` and the relying party; for `localhost` also `http://`, any port."""
    if origin == f"https://{relying_party}":
        return True
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return False
    if relying_party != "localhost" or parts.hostname != "localhost" or parts.scheme not in {"http", "https"}:
        return False
    return origin == f"{parts.scheme}://localhost" + (f":{port}" if port is not None else "")


def _origin_allowed(origin: str, relying_party: str, origins: Sequence[str]) -> bool:
    return origin in origins if origins else relying_party_allows(origin, relying_party)


def challenge_text(challenge: bytes) -> str:
    """A challenge as the browser's options want it: base64url without padding."""
    return b64url_encode(challenge)
