"""Receipts of delivery: a partner's client says, signed, which copy it received, checked and opened.

The key is the partner's own: any Ed25519 key that the plan pins for it (`partners.NAME.receipt_keys`), by default the one that
follows from the key its envelopes are made for, so that a partner keeps one secret alone. A receipt shows that this partner
held this copy; with exact digests per copy in the log, nobody else can be framed with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from orchestrator.domain.plan import Plan
from orchestrator.domain.values import digest
from orchestrator.trust.errors import UnknownKey
from orchestrator.trust.keys import PrivateKey, PublicKey
from orchestrator.trust.signing import sign, verify_single
from orchestrator.trust.statements import Receipt, Statement, Subject, parse

VALIDITY = timedelta(days=3650)
_LABEL = b"sluice.release/receipt-key/v1"


def receipt_key(identity: bytes) -> PrivateKey:
    """The signing key that follows from a partner's own 32-byte secret (the seed of its age identity)."""
    seed = HKDF(algorithm=hashes.SHA512(), length=32, salt=None, info=_LABEL).derive(identity)
    return PrivateKey.from_seed(seed)


def copy_digest(files: Mapping[str, str]) -> str:
    """What names an opened copy: `sha256:…` over path → hex SHA-256 of each file's plaintext."""
    return digest(dict(files))


def signed_receipt(
    key: PrivateKey,
    *,
    release: str,
    step: str,
    grant: str,
    partner: str,
    member: str,
    manifests: Mapping[str, str],
    envelope_digest: str,
    files: Mapping[str, str],
    at: datetime,
) -> str:
    """The envelope of a receipt.

    Args:
        key: the partner's.
        release: what gave the access.
        step: the step that was entered.
        grant: the grant.
        partner: whom the grant names.
        member: who opened it.
        manifests: artifact → `sha256:…` of the manifest that the files were checked against.
        envelope_digest: of the key envelope that was opened.
        files: path → hex SHA-256 of what was opened.
        at: by the client's clock (aware).
    """
    predicate = Receipt(
        release=release,
        step=step,
        grant=grant,
        partner=partner,
        member=member,
        envelope_digest=envelope_digest,
        copy_digest=copy_digest(files),
        issued_at=at.replace(microsecond=0),
        expires_at=at.replace(microsecond=0) + VALIDITY,
    )
    subjects = tuple(Subject.of(name, found) for name, found in sorted(manifests.items()))
    statement = Statement[Receipt](subjects=subjects, predicate=predicate)
    return sign(statement.to_bytes(), key).decode()


def check_receipt(
    envelope: str,
    plan: Plan,
    *,
    release: str,
    step: str,
    grant: str,
    partner: str,
    member: str,
    manifests: Mapping[str, str],
    now: datetime,
) -> Statement[Receipt]:
    """Verify that a partner signed exactly this delivery, with a key that the plan pins for it.

    Raises:
        TrustError: the signature, the key, the time or a field does not fit; it says which.
    """
    known = plan.partners.get(partner)
    keys = [PublicKey.parse(text) for text in ([] if known is None else known.receipt_keys)]
    if not keys:
        raise UnknownKey(
            "the plan pins no key that this partner signs receipts with",
            where=f"partners.{partner}.receipt_keys",
        )
    statement = parse(verify_single(envelope.encode(), keys).payload, Receipt)
    statement.check_time(now)
    statement.require(
        subjects=[Subject.of(name, found) for name, found in sorted(manifests.items())],
        release=release,
        step=step,
        grant=grant,
        partner=partner,
        member=member,
    )
    return statement
