"""The verdict of a scan: a document that somebody else can repeat.

It names what was compared (per tensor r and z), against which signatures (by digest), what was read from where with the
digest and time of every answer, and why nothing more can be said where that is so. Canonical JSON (RFC 8785), so that it
can be signed and put into the audit log by its digest.

A match means shared lineage, not theft. Public parents are taken out; nobody is accused before tier 3 looked at the whole
file in the place that holds the reference.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import rfc8785

from artifacts.leaks.sketch import MATCH_R, MATCH_Z
from artifacts.leaks.sources import Access

SCHEMA = "sluice/leak-verdict/v1"
MIN_MATCHED = 6
MIN_PARTIAL = 2


class Outcome(StrEnum):
    """What a scan says."""

    MATCH = "match"
    PARTIAL = "partial"
    NO_MATCH = "no_match"
    INCONCLUSIVE = "inconclusive"


_WEIGHT = {Outcome.NO_MATCH: 0, Outcome.INCONCLUSIVE: 1, Outcome.PARTIAL: 2, Outcome.MATCH: 3}


@dataclass(frozen=True, slots=True)
class TensorEvidence:
    """One compared suspect matrix and its best candidate.

    Attributes:
        suspect: its name in the suspect (a stranger's text, made printable).
        reference: the best candidate's name in the artifact.
        shape: rows, columns.
        r, z: see `sketch`.
        matched: r and z pass the thresholds and lineage is not explained by a public parent.
        parent: the public parent that explains it at least as well, if any.
        parent_r: r against that parent.
    """

    suspect: str
    reference: str
    shape: tuple[int, int]
    r: float
    z: float
    matched: bool
    parent: str | None = None
    parent_r: float | None = None


@dataclass(frozen=True, slots=True)
class ExactEvidence:
    """A digest that a place lists, or that was computed, equals one of an issued file.

    Attributes:
        suspect: where it was seen.
        kind: sha256, xet_hash, btv2_root, or size+crc32 (a hint only).
        digest: the value.
        path: the issued file.
        copy: the partner whose copy this is, None for the artifact itself.
    """

    suspect: str
    kind: str
    digest: str
    path: str
    copy: str | None


@dataclass(frozen=True)
class ArtifactFinding:
    """What a scan says about one artifact.

    Attributes:
        tier: that decided (0 exact, 1 sketch, 2 aligned, 3 whole file).
        compared: suspect matrices that have candidates here and are not explained by a public parent.
        matched: distinct reference matrices found.
        explained: matrices taken out because a public parent explains them.
    """

    artifact: str
    outcome: Outcome
    tier: int
    compared: int = 0
    matched: int = 0
    explained: int = 0
    exact: tuple[ExactEvidence, ...] = ()
    tensors: tuple[TensorEvidence, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def copies(self) -> tuple[str, ...]:
        """Partners whose issued copy this is, bit for bit."""
        return tuple(sorted({e.copy for e in self.exact if e.copy}))


@dataclass(frozen=True)
class Verdict:
    """The verdict on one suspect (see the module)."""

    target: str
    outcome: Outcome
    findings: tuple[ArtifactFinding, ...]
    reasons: tuple[str, ...]
    started: str
    seconds: float
    bytes_read: int
    requests: int
    key_id: str
    signatures: dict[str, str]
    accesses: tuple[Access, ...] = field(repr=False, default=())

    @property
    def artifact(self) -> str | None:
        """The artifact recognised most clearly, if any."""
        best = self.best
        return (
            best.artifact if best is not None and best.outcome in (Outcome.MATCH, Outcome.PARTIAL) else None
        )

    @property
    def best(self) -> ArtifactFinding | None:
        """The strongest finding."""
        if not self.findings:
            return None
        return max(self.findings, key=lambda f: (_WEIGHT[f.outcome], bool(f.exact), f.matched))

    def document(self) -> dict[str, Any]:
        """The verdict as JSON-ready data."""
        return {
            "schema": SCHEMA,
            "target": self.target,
            "outcome": self.outcome.value,
            "artifact": self.artifact,
            "findings": [_finding(f) for f in self.findings],
            "reasons": list(self.reasons),
            "started": self.started,
            "seconds": round(self.seconds, 3),
            "read": {
                "bytes": self.bytes_read,
                "requests": self.requests,
                "accesses": [asdict(a) for a in self.accesses],
            },
            "repeat": {
                "key_id": self.key_id,
                "signatures": self.signatures,
                "thresholds": {"r": MATCH_R, "z": MATCH_Z, "matched": MIN_MATCHED, "partial": MIN_PARTIAL},
            },
        }

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return rfc8785.dumps(self.document())

    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hex."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def strongest(outcomes: list[Outcome], default: Outcome) -> Outcome:
    """The most serious of several outcomes; `inconclusive` outweighs `no_match`."""
    return max(outcomes, key=_WEIGHT.__getitem__, default=default)


def judge(compared: int, matched: int) -> Outcome:
    """LEAKS.md's rule: match at half of the compared tensors and at least 6, partial at 2."""
    if matched >= MIN_MATCHED and 2 * matched >= compared:
        return Outcome.MATCH
    return Outcome.PARTIAL if matched >= MIN_PARTIAL else Outcome.NO_MATCH


def _finding(finding: ArtifactFinding) -> dict[str, Any]:
    out = asdict(finding)
    out["outcome"] = finding.outcome.value
    out["copies"] = list(finding.copies)
    out["tensors"] = [
        {
            **asdict(t),
            "shape": list(t.shape),
            "r": round(t.r, 6),
            "z": round(t.z, 3),
            "parent_r": None if t.parent_r is None else round(t.parent_r, 6),
        }
        for t in finding.tensors
    ]
    out["exact"] = [asdict(e) for e in finding.exact]
    out["reasons"] = list(finding.reasons)
    return out
