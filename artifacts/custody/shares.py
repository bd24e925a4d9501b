"""A second secret that k of n people hold: without k of them an artifact's root does not come out, whoever has the KEK.

    root, under AES-256-GCM with key = HKDF-SHA-256(custody's half | shared secret)

Both are drawn by **whoever seals**, who has the plaintext anyway: custody sees neither the root nor the shared secret before
k people have signed off. *Custody's half* goes to custody as roots do (`artifacts.keys.wrap_half`) and lies under the KEK;
the *shared secret* is split, and each share goes to its holder in an age file. Shares are SLIP-0039 mnemonics (33 words),
split and combined by the reference library `shamir-mnemonic`; nothing of Shamir's scheme is home-made here. Around it
stands what the scheme lacks:

- the set is described in the artifact's signed **manifest** (`artifacts.dealt`): who holds shares, how many are needed, a
  commitment to each share, to the secret and to custody's half;
- every share is checked against it before it is used, so a tampered one is named by its holder;
- the combined secret is checked against its commitment, and the root against the manifest's, so what comes out is the
  right root or an error, **never a wrong key**;
- a share travels to custody under custody's public key, bound to the digest of the sign-off that releases it: it counts
  for no other sign-off and for no other artifact.

Commitments of 256-bit random values tell nothing about them. The library's arithmetic is not constant-time: deal and
combine on machines where nobody else runs code.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from shamir_mnemonic import MnemonicError, combine_mnemonics, generate_mnemonics

from artifacts import age
from artifacts.custody.errors import (
    ShareForeign,
    SharesInvalid,
    ShareTampered,
    TooFewShares,
    WrappedKeyInvalid,
)
from artifacts.dealt import HOLDER, MAX_HOLDERS, DealtShares, ShareHolder
from artifacts.encoding import b64, canonical_json, prefixed
from artifacts.errors import EnvelopeError
from artifacts.keys import CustodyHalf, HybridIdentity, RootKey, custody_recipient, partner_recipient

SECRET_BYTES = 32

_SHARE_FORMAT = "sluice.release/share/v1"
_SECRET_LABEL = b"sluice.release/shared-secret-commitment/v1"
_SHARE_LABEL = b"sluice.release/share-commitment/v1"
_LOCK_LABEL = b"sluice.release/share-lock/v1"
_RELEASE_LABEL = b"sluice.release/share-release/v1"
_FIELDS = ("artifact", "set", "threshold", "custody", "holder", "words")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


@dataclass(frozen=True, slots=True)
class Dealing:
    """Who is to hold shares of an artifact that is being sealed.

    Attributes:
        threshold: how many of them are needed, 2 to all.
        holders: name in plans → their public string `age1pq1…`; 2 to 16.
    """

    threshold: int
    holders: Mapping[str, str]

    def check(self) -> None:
        """Refuse what cannot be dealt, before anything is sealed.

        Raises:
            SharesInvalid: names, keys or the threshold cannot be.
            KeyProviderError: a holder's key is no `age1pq1…` string.
        """
        wrong = [name for name in self.holders if not HOLDER.fullmatch(name)]
        if wrong:
            raise SharesInvalid(f"shares: {wrong[0][:80]!r} is no name of a holder")
        if not 2 <= self.threshold <= len(self.holders) <= MAX_HOLDERS:
            raise SharesInvalid(
                f"shares: {self.threshold} of {len(self.holders)} cannot be; needed is 2 ≤ k ≤ n ≤ {MAX_HOLDERS} "
                "(one of n would be no second lock)"
            )
        keys: dict[str, str] = {}
        for name, key in self.fingerprints().items():
            if key in keys:
                raise SharesInvalid(
                    f"shares: {keys[key]} and {name} have one key; a share belongs to one person"
                )
            keys[key] = name

    def fingerprints(self) -> dict[str, str]:
        """Holder → hex SHA-256 of their public key."""
        return {name: partner_recipient(key).fingerprint for name, key in sorted(self.holders.items())}


@dataclass(frozen=True, slots=True)
class Share:
    """One holder's share. A secret of its holder.

    Attributes:
        artifact: which artifact it is a share of.
        set_id: the dealing that it belongs to, 32 hex digits.
        threshold: how many are needed.
        custody: fingerprint of the one custody key that it is ever released to, 64 hex digits.
        holder: whose it is.
        words: the SLIP-0039 mnemonic.
    """

    artifact: str
    set_id: str
    threshold: int
    custody: str
    holder: str
    words: str = field(repr=False)

    def to_bytes(self) -> bytes:
        """The share as one line of canonical JSON: what the holder's age file holds."""
        values = (self.artifact, self.set_id, self.threshold, self.custody, self.holder, self.words)
        return canonical_json({"format": _SHARE_FORMAT, **dict(zip(_FIELDS, values, strict=True))})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote.

        Raises:
            ShareTampered: not such a line.
        """
        raw = _json_object(data)
        texts = [raw.get(name) for name in _FIELDS if name != "threshold"]
        if set(raw) != {"format", *_FIELDS} or raw["format"] != _SHARE_FORMAT:
            raise ShareTampered(
                f"share: is not of the format {_SHARE_FORMAT}; ask its holder for the whole line"
            )
        whole = isinstance(raw["threshold"], int) and not isinstance(raw["threshold"], bool)
        if not whole or not all(isinstance(t, str) and len(t) < 1000 and t.isascii() for t in texts):
            raise ShareTampered("share: a field is not a short text")
        return cls(*(raw[name] for name in _FIELDS))

    def commitment(self) -> str:
        """64 hex digits that stand in the manifest."""
        return hashlib.sha256(prefixed(_SHARE_LABEL, self.to_bytes())).hexdigest()


@dataclass(frozen=True, slots=True)
class Dealt:
    """What `deal` gives.

    Attributes:
        record: for the manifest; no secret.
        half: custody's half; wrap it to custody and forget it.
    """

    record: DealtShares
    half: CustodyHalf


def deal(root: RootKey, artifact: str, dealing: Dealing, custody: str) -> Dealt:
    """Lock a root under two secrets: one for custody, one split among people. Runs where the files are sealed.

    Args:
        root: the artifact's root key.
        artifact: its id.
        dealing: who holds shares, and how many are needed.
        custody: custody's public string, `sluicecustody1…`.

    Raises:
        SharesInvalid, KeyProviderError: see `Dealing.check`.
    """
    dealing.check()
    to = custody_recipient(custody)
    half, secret, set_id = CustodyHalf.generate(), secrets.token_bytes(SECRET_BYTES), secrets.token_hex(16)
    names = sorted(dealing.holders)
    # Iteration exponent 0: the passphrase of SLIP-0039 is not used, and its stretching would protect nothing.
    mnemonics = generate_mnemonics(1, [(dealing.threshold, len(names))], secret, iteration_exponent=0)[0]
    holders = []
    for name, words in zip(names, mnemonics, strict=True):
        share = Share(artifact, set_id, dealing.threshold, to.fingerprint, name, words)
        recipient = partner_recipient(dealing.holders[name])
        holders.append(
            ShareHolder(
                holder=name,
                recipient=recipient.fingerprint,
                commitment=share.commitment(),
                envelope=b64(age.encrypt(share.to_bytes(), [recipient])),
            )
        )
    record = DealtShares.model_validate(
        {
            "set": set_id,
            "threshold": dealing.threshold,
            "secret": _secret_commitment(secret, artifact, set_id),
            "half": half.commitment(artifact, set_id),
            "custody": str(to),
            "root": b64(_lock(root, _lock_key(half, secret, artifact, set_id))),
            "holders": holders,
        }
    )
    return Dealt(record, half)


def open_share(record: DealtShares, artifact: str, holder: str, identity: HybridIdentity) -> Share:
    """A holder's own share, out of the manifest. Runs at the holder's.

    Args:
        record: of the manifest, which was checked against its digest.
        artifact: the manifest's artifact.
        holder: the caller's name.
        identity: their `AGE-SECRET-KEY-PQ-1…`.

    Raises:
        ShareForeign: nobody of that name holds a share, or it was sealed to another key.
        ShareTampered: the envelope holds something else than was committed to.
    """
    known = record.of(holder)
    if known is None:
        raise ShareForeign(
            f"share of {artifact}: {holder[:128]!r} holds none; holders are {', '.join(record.names)}"
        )
    if known.recipient != identity.recipient.fingerprint:
        raise ShareForeign(
            f"share of {artifact}: was sealed to another key of {holder} (fingerprint {known.recipient[:16]}); "
            f"this one is {identity.recipient.fingerprint[:16]}"
        )
    try:
        share = Share.parse(age.decrypt(known.sealed, identity))
    except EnvelopeError as error:
        raise ShareTampered(f"share of {artifact}: does not open: {error}") from None
    check_share(record, artifact, share)
    return share


def check_share(record: DealtShares, artifact: str, share: Share) -> None:
    """Hold one share to the manifest.

    Raises:
        ShareForeign: of another set or artifact, or its holder is not in this one.
        ShareTampered: altered.
    """
    whose = f"share of {share.holder[:128]!r}"
    if (share.artifact, share.set_id) != (artifact, record.set_id):
        raise ShareForeign(
            f"{whose}: belongs to the set {share.set_id[:32]} of {share.artifact[:80]}; "
            f"asked for is that of the set {record.set_id} of {artifact}"
        )
    known = record.of(share.holder)
    if known is None:
        raise ShareForeign(f"{whose}: nobody of that name holds a share of this set")
    if not hmac.compare_digest(share.commitment(), known.commitment):
        raise ShareTampered(f"{whose}: was altered, or mistyped; ask {share.holder} for it again")


def combine(record: DealtShares, artifact: str, shares: Iterable[Share]) -> bytes:
    """Make the shared secret from the shares of at least k distinct holders.

    Args:
        record: of the manifest, which was checked against its digest.
        artifact: the manifest's artifact.
        shares: shares, in any order; one holder's share counts once.

    Returns:
        The 32 bytes that were dealt; use them with custody's half and forget them.

    Raises:
        ShareForeign: a share of another set or person.
        ShareTampered: an altered share or record; names the holder.
        TooFewShares: fewer distinct holders than the threshold.
    """
    good: dict[str, Share] = {}
    for share in shares:
        check_share(record, artifact, share)
        good[share.holder] = share
    if len(good) < record.threshold:
        raise TooFewShares(
            f"shares: {len(good)} of the {record.threshold} that are needed are here; still to ask: "
            + ", ".join(sorted(set(record.names) - set(good)))
        )
    chosen = [good[holder].words for holder in sorted(good)[: record.threshold]]
    try:
        secret: bytes = combine_mnemonics(chosen)
    except (MnemonicError, ValueError, IndexError, KeyError):
        raise ShareTampered(
            "shares: they fit the manifest, but do not combine; whoever sealed dealt something else"
        ) from None
    if not hmac.compare_digest(_secret_commitment(secret, artifact, record.set_id), record.secret):
        raise ShareTampered("shares: what they make is not the secret that was dealt; nothing was given out")
    return secret


def unlock(record: DealtShares, artifact: str, half: CustodyHalf, secret: bytes) -> RootKey:
    """The artifact's root, from custody's half and the combined secret. Inside custody only.

    Raises:
        WrappedKeyInvalid: the locked root was altered, or a secret is another.
    """
    locked, key = record.locked_root, _lock_key(half, secret, artifact, record.set_id)
    try:
        return RootKey(AESGCM(key).decrypt(locked[:12], locked[12:], None))
    except (InvalidTag, ValueError):
        raise WrappedKeyInvalid(
            f"locked root of {artifact}: was altered, or custody's half or the shares are others"
        ) from None


def release_share(share: Share, custody: str, sign_off: str) -> str:
    """Seal a share to custody, bound to the sign-off that releases it. Runs at the holder's.

    Args:
        share: the holder's own, checked against the manifest (`open_share`).
        custody: custody's public string, `sluicecustody1…`.
        sign_off: digest of the sign-off's statement, `sha256:…`, which names release, step, attempt, manifest and person.

    Returns:
        base64, about 2 kB.

    Raises:
        ShareForeign: another custody than the one that it was dealt for.
        SharesInvalid: not such a digest.
        KeyProviderError: not custody's public string.
    """
    info, to = _release_info(sign_off, share.artifact, share.holder), custody_recipient(custody)
    if to.fingerprint != share.custody:
        raise ShareForeign(
            f"share of {share.artifact}: is for the custody key {share.custody[:16]}, not {to.fingerprint[:16]}; "
            "it is released to nobody else"
        )
    return b64(bytes(_SUITE.encrypt(share.to_bytes(), to.public_key(), info=info)))


def receive_share(
    released: bytes, identity: HybridIdentity, sign_off: str, record: DealtShares, artifact: str, holder: str
) -> Share:
    """Open a released share. Inside custody only.

    Args:
        released: the bytes behind what `release_share` made.
        identity: custody's secret key.
        sign_off: digest of the sign-off that came with it; custody verifies that sign-off by itself.
        record: of the manifest.
        artifact: the manifest's artifact.
        holder: who signed off; it must be their own share.

    Raises:
        ShareTampered: altered, for another custody, or released for another sign-off.
        ShareForeign: of another set, artifact or person.
    """
    try:
        text = _SUITE.decrypt(released, identity.private_key, info=_release_info(sign_off, artifact, holder))
    except (InvalidTag, ValueError):
        raise ShareTampered(
            f"released share of {holder!r}: was altered, or is for another custody key, artifact or sign-off; "
            f"{holder} signs off again"
        ) from None
    share = Share.parse(bytes(text))
    if share.holder != holder:
        raise ShareForeign(
            f"released share of {holder!r}: is that of {share.holder[:128]!r}; one releases one's own"
        )
    check_share(record, artifact, share)
    return share


def _lock_key(half: CustodyHalf, secret: bytes, artifact: str, set_id: str) -> bytes:
    if len(secret) != SECRET_BYTES:
        raise SharesInvalid(f"shares: the shared secret must have {SECRET_BYTES} bytes")
    info = prefixed(_LOCK_LABEL, artifact.encode(), bytes.fromhex(set_id))
    return HKDF(SHA256(), length=32, salt=None, info=info).derive(half.raw + secret)


def _lock(root: RootKey, key: bytes) -> bytes:
    nonce = secrets.token_bytes(12)
    return nonce + AESGCM(key).encrypt(nonce, root.raw, None)


def _release_info(sign_off: str, artifact: str, holder: str) -> bytes:
    if not _DIGEST.fullmatch(sign_off):
        raise SharesInvalid(
            "released share: the sign-off is named by its digest, `sha256:` and 64 hex digits"
        )
    return prefixed(_RELEASE_LABEL, sign_off.encode(), artifact.encode(), holder.encode())


def _secret_commitment(secret: bytes, artifact: str, set_id: str) -> str:
    fields = prefixed(_SECRET_LABEL, artifact.encode(), bytes.fromhex(set_id), secret)
    return hashlib.sha256(fields).hexdigest()


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        raw = json.loads(data) if len(data) <= 65_536 else None
    except (ValueError, RecursionError):
        raw = None
    return raw if isinstance(raw, dict) else {}
