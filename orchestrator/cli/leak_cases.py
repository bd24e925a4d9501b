"""Cases: what a verdict rests on, as a file that others can repeat; and drafts of takedown notices. Nothing is sent."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from orchestrator.cli.client import JSON
from orchestrator.cli.failures import LocalFailure

FORMAT = "sluice-leak-case/v1"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def read_verdict(envelope: Mapping[str, Any], digest: str, key: str | None) -> tuple[JSON, bool]:
    """The statement in a signed verdict, whose bytes are what the digest names; and whether its signature was verified.

    Raises:
        LocalFailure: other bytes, or not signed by the key.
    """
    from orchestrator.trust import signing
    from orchestrator.trust.errors import TrustError
    from orchestrator.trust.keys import PublicKey

    data = json.dumps(envelope).encode()
    try:
        payload = signing.signed_payload(data)
        if key is not None:
            signing.verify(data, [PublicKey.parse(key)])
    except TrustError as error:
        raise LocalFailure("The verdict cannot be trusted", str(error)) from None
    if "sha256:" + hashlib.sha256(payload).hexdigest() != digest:
        raise LocalFailure("The verdict cannot be trusted", "its bytes are not what its digest names")
    return json.loads(payload), key is not None


def verdict_of(incident: Mapping[str, Any]) -> str:
    """The digest of the verdict that an incident rests on.

    Raises:
        LocalFailure: it rests on none.
    """
    found = _DIGEST.search(incident.get("sighting") or "")
    if found is None:
        raise LocalFailure(
            "There is no verdict", f"the incident {incident['id']} was not opened by the leak monitor"
        )
    return found[0]


def case_of(release: str, incident: Mapping[str, Any], verdict: Mapping[str, Any], statement: JSON) -> JSON:
    """A case: the signed verdict, what was answered from where, which signatures it was held against, what people judged.

    `expected` is what a repetition should say: a false alarm must not be a match again.
    """
    document = statement["predicate"]["verdict"]
    false_alarm = incident["confidence"] == "false_alarm"
    return {
        "format": FORMAT,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "release": release,
        "incident": {
            name: incident.get(name)
            for name in (
                "id",
                "severity",
                "confidence",
                "summary",
                "components",
                "partner",
                "partners",
                "traces",
                "at",
                "closed_at",
                "outcome",
            )
        },
        "suspect": statement["predicate"]["suspect"],
        "artifact": statement["predicate"]["artifact"],
        "expected": "not_ours" if false_alarm else document["outcome"],
        "responses": [
            {
                name: access.get(name)
                for name in ("location", "offset", "length", "sha256", "at", "status")
                if name in access
            }
            for access in document["read"]["accesses"]
        ],
        "signatures": document["repeat"]["signatures"],
        "key_id": document["repeat"]["key_id"],
        "thresholds": document["repeat"]["thresholds"],
        "verdict": {
            "digest": verdict["digest"],
            "log_index": verdict["log_index"],
            "envelope": verdict["envelope"],
        },
    }


def read_case(text: str) -> JSON:
    """A case from its file.

    Raises:
        LocalFailure: not a case.
    """
    try:
        case = json.loads(text)
        if case["format"] == FORMAT and isinstance(case["verdict"]["envelope"], dict):
            return dict(case)
    except (ValueError, KeyError, TypeError):
        pass
    raise LocalFailure("That is no case", f"expected a file of the format {FORMAT}")


def compared(case: Mapping[str, Any], again: Mapping[str, Any]) -> JSON:
    """How a repetition relates to the case: outcome, tensors and answers.

    Args:
        case: as exported.
        again: the verdict document of the repetition.
    """
    statement = json.loads(base64.b64decode(case["verdict"]["envelope"]["payload"]))
    before = statement["predicate"]["verdict"]
    then, now = _tensors(before), _tensors(again)
    shared = sorted(set(then) & set(now))
    drift = max((abs(then[name] - now[name]) for name in shared), default=0.0)
    answers = {access["sha256"] for access in before["read"]["accesses"]}
    same = sum(access["sha256"] in answers for access in again["read"]["accesses"])
    expected = case["expected"]
    outcome = str(again["outcome"])
    as_expected = outcome == "no_match" if expected == "not_ours" else outcome == expected
    return {
        "as_expected": as_expected,
        "expected": expected,
        "outcome_then": before["outcome"],
        "outcome_now": outcome,
        "tensors_then": len(then),
        "tensors_now": len(now),
        "tensors_shared": len(shared),
        "largest_difference_of_r": drift,
        "answers_then": len(answers),
        "answers_now": len(again["read"]["accesses"]),
        "answers_identical": same,
    }


def _tensors(document: Mapping[str, Any]) -> dict[str, float]:
    return {t["suspect"]: t["r"] for f in document["findings"] for t in f["tensors"]}


# --- takedown notices ---------------------------------------------------------------------------------------------------


def without_our_names(document: Mapping[str, Any]) -> JSON:
    """A verdict for others' eyes: without the names and shapes of our tensors and the paths of our files."""
    out: JSON = json.loads(json.dumps(document))
    for number, finding in enumerate(out["findings"], 1):
        finding["artifact"] = f"artifact {number}"
        for place, tensor in enumerate(finding["tensors"], 1):
            tensor["reference"] = f"tensor {place}"
            tensor.pop("shape", None)
        for proof in finding.get("exact", []):
            proof["path"], proof["copy"] = "a file of ours", None
        finding["copies"] = []
    out["artifact"] = None if out.get("artifact") is None else "artifact 1"
    out["repeat"]["signatures"] = {
        f"artifact {n}": d for n, d in enumerate(out["repeat"]["signatures"].values(), 1)
    }
    return out


def notice(
    organisation: str, incident: Mapping[str, Any], statement: JSON, attachments: Sequence[str]
) -> str:
    """A draft of a takedown notice, for a person to complete, sign and send."""
    document = statement["predicate"]["verdict"]
    suspect = statement["predicate"]["suspect"]
    finding = max(document["findings"], key=lambda f: (bool(f["exact"]), f["matched"]), default=None)
    proofs = [] if finding is None else finding["exact"]
    lines = [
        f"Subject: Unauthorised copy of unreleased model weights: {suspect['title']}",
        "",
        "DRAFT. Nothing has been sent. Complete what stands in [brackets], have it read by counsel, and send it yourself.",
        "",
        "To: [abuse or legal contact of the host]",
        f"From: [name, office], {organisation}",
        "",
        f"We ask you to remove, or to disable access to: {suspect['target'] or suspect['title']}",
        "",
        "Why we believe that it is ours",
        "",
    ]
    if proofs:
        lines += [
            f"- A file listed there has the {p['kind']} {p['digest']}, that of a file which we issued."
            for p in proofs
        ]
    elif finding is not None:
        strongest = max((t["z"] for t in finding["tensors"] if t["matched"]), default=0.0)
        lines.append(
            f"- {finding['matched']} of {finding['compared']} compared weight matrices are ours; the clearest with z = {strongest:.0f} "
            "(matrices of independent models stay below z = 8)."
        )
    read = document["read"]
    lines += [
        f"- Looked at {document['started']} in {read['requests']} requests ({read['bytes']} bytes).",
        "  The digest and time of every answer stand in the attached record, made from one that our leak monitor signed.",
        "",
        "A match shows shared origin. [Say here why this copy is not lawful: not released, or released under terms that forbid it.]",
        "",
        "Rights that we rely on: [copyright, trade secret, contract; name the law that applies where the host is]",
        "Our statement of good faith, and that what stands here is accurate: [as the law requires]",
        "Signature: [name, date]",
        "",
        "Attached: " + ", ".join(attachments),
        f"Our reference: incident {incident['id']}, verdict {verdict_of(incident)}",
        "",
    ]
    return "\n".join(lines)
