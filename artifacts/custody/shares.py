"""A second secret that k of n people hold: without k of them the key does not come out, whoever has the KEK.

    root = HKDF-SHA-256(KEK secret | shared secret)

The *KEK secret* is what a `KeyProvider` unwraps, the *shared secret* is what k of the holders' shares make. Shares are
SLIP-0039 mnemonics (33 words), split and combined by the reference library `shamir-mnemonic`; nothing of Shamir's
scheme is home-made here. Around it stands what the scheme lacks:

- a **record** of the set, public, signed by the dealer (custody): who holds shares, how many are needed, what it is
  for, a commitment to each share and one to the secret;
- every share is checked against the record before it is used, so a tampered one is named by its holder;
- the combined secret is checked against its commitment, so what comes out is the right secret or an error, **never a
  wrong key**;
- a share travels back to custody under custody's public key, bound to the digest of the sign-off that releases it: it
  counts for no other sign-off.

The dealer knows the secret while it deals. Commitments of 256-bit random values tell nothing about them. The library's
arithmetic is not constant-time: deal and combine on machines where nobody else runs code.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import rfc8785
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from shamir_mnemonic import MnemonicError, combine_mnemonics, generate_mnemonics

from artifacts.custody.base import Context, context_bytes
from artifacts.custody.errors import (
    ShareForeign,
    SharesInvalid,
    ShareTampered,
    TooFewShares,
    WrappedKeyInvalid,
)
from artifacts.keys import HybridIdentity, custody_recipient

SECRET_BYTES = 32
MAX_HOLDERS = 16
"""SLIP-0039's limit."""

_FORMAT = "sluice-shares/v1"
_SHARE_FORMAT = "sluice-share/v1"
_SIGNED = b"sluice shares record v1\0"
_SECRET_LABEL = b"sluice shares secret commitment v1\0"
_SHARE_LABEL = b"sluice shares share commitment v1\0"
_ROOT_LABEL = b"sluice shares root v1\0"
_LOCK_LABEL = b"sluice shares lock v1\0"
_RELEASE_LABEL = b"sluice share release v1\0"
_HOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


@dataclass(frozen=True, slots=True)
class Share:
    """One holder's share. A secret of its holder.

    Attributes:
        set_id: the set that it belongs to, 32 hex digits.
        holder: whose it is.
        words: the SLIP-0039 mnemonic.
    """

    set_id: str
    holder: str
    words: str

    def __repr__(self) -> str:
        return f"Share(set_id={self.set_id!r}, holder={self.holder!r}, words=<redacted>)"

    def to_text(self) -> str:
        """The share as one line of JSON, for its holder to keep."""
        fields = {"format": _SHARE_FORMAT, "set": self.set_id, "holder": self.holder, "words": self.words}
        return rfc8785.dumps(fields).decode()

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """Read what `to_text` wrote.

        Raises:
            ShareTampered: not such a line.
        """
        raw = _json_object(text)
        fields = ("set", "holder", "words")
        if set(raw) != {"format", *fields} or raw["format"] != _SHARE_FORMAT:
            raise ShareTampered(
                "share: is not of the format sluice-share/v1; ask its holder for the whole line"
            )
        if not all(
            isinstance(raw[name], str) and len(raw[name]) < 1000 and raw[name].isascii() for name in fields
        ):
            raise ShareTampered("share: a field is not a short text")
        return cls(raw["set"], raw["holder"], raw["words"])

    def commitment(self) -> str:
        """64 hex digits that stand in the record."""
        body = rfc8785.dumps([self.set_id, self.holder, self.words])
        return hashlib.sha256(_SHARE_LABEL + body).hexdigest()


@dataclass(frozen=True, slots=True)
class ShareRecord:
    """The public record of a set of shares. Make it with `deal`, read it with `ShareRecord.verify`.

    Attributes:
        set_id: 32 hex digits.
        threshold: how many shares make the secret.
        commitments: holder → commitment to their share.
        secret_commitment: commitment to the shared secret, 64 hex digits.
        context: what it is for: release, artifact, plan digest.
        signature: the dealer's Ed25519 signature.
    """

    set_id: str
    threshold: int
    commitments: Mapping[str, str]
    secret_commitment: str
    context: Mapping[str, str]
    signature: bytes

    def signed_bytes(self) -> bytes:
        """What the dealer's signature is over."""
        return _SIGNED + rfc8785.dumps(self._fields())

    def _fields(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "set": self.set_id,
            "threshold": self.threshold,
            "holders": dict(self.commitments),
            "secret": self.secret_commitment,
            "context": dict(self.context),
        }

    def to_text(self) -> str:
        """The record as canonical JSON. Public."""
        return rfc8785.dumps(
            {**self._fields(), "signature": base64.b64encode(self.signature).decode()}
        ).decode()

    @classmethod
    def verify(cls, text: str | bytes, dealer: bytes, context: Context) -> Self:
        """Read a record and check that the dealer made it, for this context.

        Args:
            text: what `to_text` wrote.
            dealer: the dealer's Ed25519 public key, 32 bytes.
            context: release, artifact and plan digest that it must be for.

        Raises:
            ShareTampered: altered, or not signed by the dealer.
            ShareForeign: of another release, artifact or plan.
        """
        raw = _json_object(text)
        try:
            record = cls(
                set_id=raw["set"],
                threshold=raw["threshold"],
                commitments=dict(raw["holders"]),
                secret_commitment=raw["secret"],
                context=dict(raw["context"]),
                signature=base64.b64decode(raw["signature"], validate=True),
            )
            Ed25519PublicKey.from_public_bytes(dealer).verify(record.signature, record.signed_bytes())
            spelled = record.to_text().encode()
        except (
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            binascii.Error,
            RecursionError,
            InvalidSignature,
        ):
            spelled = b""
        if not spelled or spelled != (text.encode() if isinstance(text, str) else text):
            raise ShareTampered(
                "share record: was altered, or is not signed by custody; restore it from the log"
            )
        if context_bytes(record.context) != context_bytes(context):
            raise ShareForeign("share record: belongs to another release, artifact or plan")
        return record

    def check(self, share: Share) -> None:
        """Check one share against the record.

        Raises:
            ShareForeign: of another set, or its holder is not in this one.
            ShareTampered: altered.
        """
        if share.set_id != self.set_id:
            raise ShareForeign(
                f"share of {share.holder[:128]!r}: belongs to another set; ask for the one of {self.set_id}"
            )
        if share.holder not in self.commitments:
            raise ShareForeign(
                f"share of {share.holder[:128]!r}: nobody of that name holds a share of this set"
            )
        if not hmac.compare_digest(share.commitment(), self.commitments[share.holder]):
            raise ShareTampered(
                f"share of {share.holder!r}: was altered, or mistyped; ask {share.holder} for it again"
            )


@dataclass(frozen=True, slots=True)
class Dealt:
    """What `deal` gives: a public record, one share per holder, and the secret that they make.

    Attributes:
        record: to be stored and logged.
        shares: holder → share; each goes to its holder and nowhere else.
        secret: 32 bytes; use it for the root and forget it.
    """

    record: ShareRecord
    shares: Mapping[str, Share]
    secret: bytes

    def __repr__(self) -> str:
        return f"Dealt(set_id={self.record.set_id!r}, holders={sorted(self.shares)!r})"


def deal(holders: Sequence[str], threshold: int, context: Context, dealer: Ed25519PrivateKey) -> Dealt:
    """Draw a shared secret and split it.

    Args:
        holders: distinct names of the people, 2 to 16.
        threshold: how many of them are needed, 2 to all.
        context: release, artifact and plan digest that it is for.
        dealer: custody's signing key.

    Raises:
        SharesInvalid: holders or threshold cannot be.
    """
    names = list(holders)
    if len(set(names)) != len(names) or not all(_HOLDER.fullmatch(name) for name in names):
        raise SharesInvalid("shares: holders must be distinct names")
    if not 2 <= threshold <= len(names) <= MAX_HOLDERS:
        raise SharesInvalid(
            f"shares: {threshold} of {len(names)} cannot be; needed is 2 ≤ k ≤ n ≤ {MAX_HOLDERS} "
            "(one of n would be no second lock)"
        )
    secret, set_id = secrets.token_bytes(SECRET_BYTES), secrets.token_hex(16)
    # Iteration exponent 0: the passphrase of SLIP-0039 is not used, and its stretching would protect nothing.
    mnemonics = generate_mnemonics(1, [(threshold, len(names))], secret, iteration_exponent=0)[0]
    shares = {name: Share(set_id, name, words) for name, words in zip(names, mnemonics, strict=True)}
    unsigned = ShareRecord(
        set_id=set_id,
        threshold=threshold,
        commitments={name: share.commitment() for name, share in shares.items()},
        secret_commitment=_secret_commitment(secret, set_id),
        context=dict(json.loads(context_bytes(context))),
        signature=b"",
    )
    record = replace(unsigned, signature=dealer.sign(unsigned.signed_bytes()))
    return Dealt(record, shares, secret)


def combine(record: ShareRecord, shares: Iterable[Share]) -> bytes:
    """Make the shared secret from the shares of at least k distinct holders.

    Args:
        record: the verified record (`ShareRecord.verify`).
        shares: shares, in any order; one holder's share counts once.

    Returns:
        The 32 bytes that were dealt.

    Raises:
        ShareForeign: a share of another set or person.
        ShareTampered: an altered share or record; names the holder.
        TooFewShares: fewer distinct holders than the threshold.
    """
    good: dict[str, Share] = {}
    for share in shares:
        record.check(share)
        good[share.holder] = share
    if len(good) < record.threshold:
        raise TooFewShares(
            f"shares: {len(good)} of the {record.threshold} that are needed are here; still to ask: "
            + ", ".join(sorted(set(record.commitments) - set(good)))
        )
    chosen = [good[holder].words for holder in sorted(good)[: record.threshold]]
    try:
        secret: bytes = combine_mnemonics(chosen)
    except (MnemonicError, ValueError, IndexError, KeyError):
        raise ShareTampered(
            "shares: they fit the record, but do not combine; the record is not of this set"
        ) from None
    if not hmac.compare_digest(_secret_commitment(secret, record.set_id), record.secret_commitment):
        raise ShareTampered("shares: what they make is not the secret that was dealt; nothing was given out")
    return secret


def derive_root(kek_secret: bytes, shared_secret: bytes, context: Context) -> bytes:
    """The root key that both locks make: HKDF-SHA-256 over KEK secret and shared secret, bound to the context.

    Args:
        kek_secret: 32 bytes, what the key provider unwraps.
        shared_secret: 32 bytes, what `combine` gives.
        context: release, artifact and plan digest.

    Raises:
        SharesInvalid: a secret of another length.
    """
    if len(kek_secret) != SECRET_BYTES or len(shared_secret) != SECRET_BYTES:
        raise SharesInvalid(f"shares: both secrets must have {SECRET_BYTES} bytes")
    info = _ROOT_LABEL + context_bytes(context)
    return HKDF(SHA256(), length=32, salt=None, info=info).derive(kek_secret + shared_secret)


def lock_root(root: bytes, derived: bytes) -> bytes:
    """Put a root that exists already under the derived one (a sealed artifact brings its own root to custody).

    Args:
        root: the artifact's root key.
        derived: what `derive_root` gives.
    """
    nonce = secrets.token_bytes(12)
    return nonce + AESGCM(derived).encrypt(nonce, root, _LOCK_LABEL)


def open_root(locked: bytes, derived: bytes) -> bytes:
    """The inverse of `lock_root`.

    Raises:
        WrappedKeyInvalid: altered, or the derived key is another one.
    """
    try:
        return AESGCM(derived).decrypt(locked[:12], locked[12:], _LOCK_LABEL)
    except (InvalidTag, ValueError):
        raise WrappedKeyInvalid(
            "locked root: was altered, or the KEK secret or the shares are others"
        ) from None


def release_share(share: Share, custody: str, sign_off: str) -> bytes:
    """Seal a share to custody, bound to the sign-off that releases it. Runs at the approver's.

    Args:
        share: the approver's share.
        custody: custody's public string, `sluicecustody1…`.
        sign_off: digest of the sign-off's statement, `sha256:…`.

    Raises:
        SharesInvalid: not such a digest.
        KeyProviderError: not custody's public string.
    """
    sealed = _SUITE.encrypt(
        share.to_text().encode(), custody_recipient(custody).public_key(), info=_release_info(sign_off)
    )
    return bytes(sealed)


def receive_share(released: bytes, identity: HybridIdentity, sign_off: str, record: ShareRecord) -> Share:
    """Open a released share. Inside custody only.

    Args:
        released: what `release_share` made.
        identity: custody's secret key.
        sign_off: digest of the sign-off that came with it; custody verifies that sign-off by itself.
        record: the verified record; the share must fit it.

    Raises:
        ShareTampered: altered, for another custody, or released for another sign-off.
        ShareForeign: of another set or person.
    """
    try:
        text = _SUITE.decrypt(released, identity.private_key, info=_release_info(sign_off))
    except (InvalidTag, ValueError):
        raise ShareTampered(
            "released share: was altered, or is for another custody key or another sign-off; sign off again"
        ) from None
    share = Share.parse(bytes(text))
    record.check(share)
    return share


def _release_info(sign_off: str) -> bytes:
    if not _DIGEST.fullmatch(sign_off):
        raise SharesInvalid(
            "released share: the sign-off is named by its digest, `sha256:` and 64 hex digits"
        )
    return _RELEASE_LABEL + sign_off.encode()


def _secret_commitment(secret: bytes, set_id: str) -> str:
    return hashlib.sha256(_SECRET_LABEL + set_id.encode() + b"\0" + secret).hexdigest()


def _json_object(text: str | bytes) -> dict[str, Any]:
    try:
        raw = json.loads(text) if len(text) <= 65_536 else None
    except (ValueError, RecursionError):
        raw = None
    return raw if isinstance(raw, dict) else {}
