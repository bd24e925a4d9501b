"""Copies that were issued, and receipts of them: read from the audit log, where custody and partners' clients wrote them.

An exact digest of an issued copy is nobody else's: a file that has it is that partner's copy (tier 0 of `docs/leaks.md`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from orchestrator.domain.values import Digest, Frozen, Instant, Name
from orchestrator.records import audit


class IssuedFile(Frozen):
    """What identifies one file of an issued copy exactly. Digests in hex; None where one could not be computed."""

    path: str
    size: int
    sha256: str
    btv2_root: str | None = None
    xet_hash: str | None = None


class IssuedCopy(Frozen):
    """One marked copy: made from which artifact, for whom, with which digests. `entry`: its place in the log."""

    entry: int
    release: Name
    copy_id: Name
    of: Name
    step: Name
    grant: str
    holder: Name
    manifest_digest: Digest
    mark: Digest
    files: list[IssuedFile]
    at: Instant


class StoredReceipt(Frozen):
    """A receipt of a partner's client as it stands in the log."""

    entry: int
    release: Name
    grant: str
    partner: Name
    member: Name
    statement: Digest
    copy_digest: Digest
    manifests: dict[Name, Digest]
    envelope: str
    at: Instant


def copies(session: Session, release: str | None = None) -> Iterator[IssuedCopy]:
    """Issued copies, of a release or of all, in the order in which they were made."""
    for leaf in audit.leaves(session, release=release, kind="custody"):
        entry = json.loads(leaf.body)
        if entry.get("action") == "copy_made":
            yield IssuedCopy(
                entry=leaf.index,
                release=entry["release"],
                copy_id=entry["copy"],
                of=entry["of"],
                step=entry["step"],
                grant=entry["grant"],
                holder=entry["holder"],
                manifest_digest=entry["manifest"],
                mark=entry["mark"]["commitment"],
                files=[IssuedFile(**file) for file in entry.get("files", [])],
                at=leaf.at,
            )


def receipts(session: Session, release: str, grant: str | None = None) -> Iterator[StoredReceipt]:
    """Receipts of a release's grants, or of one of them, in the order in which they came."""
    for leaf in audit.leaves(session, release=release, kind="access"):
        entry = json.loads(leaf.body)
        if entry.get("action") == "receipt" and (grant is None or entry["reference"] == grant):
            yield StoredReceipt(
                entry=leaf.index,
                release=entry["release"],
                grant=entry["reference"],
                partner=entry["partner"],
                member=entry["actor"],
                statement=entry["statement"],
                copy_digest=entry["copy_digest"],
                manifests=entry["manifests"],
                envelope=entry["envelope"],
                at=leaf.at,
            )


def put_receipt(
    session: Session,
    *,
    at: datetime,
    actor: str,
    release: str,
    grant: str,
    partner: str,
    statement: str,
    copy_digest: str,
    manifests: dict[str, str],
    envelope: str,
    request_id: str | None = None,
    address: str | None = None,
) -> StoredReceipt:
    """Write a receipt that was verified into the log; the same statement again is the one that stands."""
    for known in receipts(session, release, grant):
        if known.statement == statement:
            return known
    body: dict[str, Any] = {
        "action": "receipt",
        "actor": actor,
        "reference": grant,
        "partner": partner,
        "statement": statement,
        "copy_digest": copy_digest,
        "manifests": manifests,
        "envelope": envelope,
        "request_id": request_id,
        "address": address,
    }
    entry = audit.append(session, "access", body, at=at, release=release)
    return StoredReceipt(
        entry=entry,
        release=release,
        grant=grant,
        partner=partner,
        member=actor,
        statement=statement,
        copy_digest=copy_digest,
        manifests=manifests,
        envelope=envelope,
        at=at,
    )
