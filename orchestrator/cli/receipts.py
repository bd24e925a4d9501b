"""A partner's client signs what it received: the receipt of one delivery, sent when the plan pins a key for it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from orchestrator.cli.client import JSON, Client
from orchestrator.cli.failures import Failure
from orchestrator.domain.values import digest_bytes

if TYPE_CHECKING:
    from artifacts.envelope import EnvelopePayload
    from artifacts.fetching import FetchReport
    from artifacts.keys import HybridIdentity
    from orchestrator.trust.keys import PrivateKey


def send_receipt(
    client: Client,
    holder: HybridIdentity,
    grant: JSON,
    envelope: bytes,
    payload: EnvelopePayload,
    report: FetchReport,
    key: PrivateKey | None = None,
) -> JSON:
    """Sign and send the receipt of one artifact's delivery; what became of it.

    Args:
        client: of the partner's account.
        holder: the key that opened the envelope; the receipt's key follows from it.
        grant: as the service shows it.
        envelope: the bytes that were opened.
        payload: what was in it.
        report: what was fetched.
        key: another key of the partner's to sign with.

    Returns:
        `{"sent": true, "statement": …}`, or `{"sent": false, "why": …}`: the copy is here and checked either way.
    """
    from orchestrator.trust.delivery import receipt_key, signed_receipt

    pinned = [" ".join(text.split(" ")[:2]) for text in grant.get("receipt_keys", [])]
    if not pinned:
        return {"sent": False, "why": "the plan pins no key that you sign receipts with"}
    signer = key or receipt_key(holder.raw)
    if signer.public.text() not in pinned:
        told = "the plan pins another key of yours; give it with --receipt-key, or have the plan amended"
        return {"sent": False, "why": told}
    files = {file.path: file.sha256 or file.digests[min(file.digests)] for file in report.files}
    try:
        signed = signed_receipt(
            signer,
            release=payload.release,
            step=payload.step,
            grant=payload.grant,
            partner=str(grant["holder"]),
            member=str(client.get("me")["id"]),
            manifests={payload.artifact_id: f"sha256:{payload.manifest_digest}"},
            envelope_digest=digest_bytes(envelope),
            files=files,
            at=datetime.now(UTC),
        )
        place = ("releases", payload.release, "grants", payload.grant, "receipts")
        kept = client.post(*place, body={"envelope": signed})
    except Failure as failure:
        return {"sent": False, "why": f"{failure.title}: {failure.detail}"}
    return {"sent": True, "statement": kept["statement"], "copy_digest": kept["copy_digest"]}
