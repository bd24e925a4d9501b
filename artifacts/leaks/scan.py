"""`scan`: one suspect against the signatures, from nothing downloaded to a few megabytes. `scan_each`: against several keys'.

Tier 0 asks the place's own listing. Tier 1 reads headers and a few hundred kilobytes of windows. Tier 2 follows when the
shapes agree and tier 1 is silent. Whatever cannot be read makes the verdict `inconclusive`, with the reason; only a suspect
whose weights could be looked at and are not ours is `no_match`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from artifacts.leaks.aligned import aligned_tier
from artifacts.leaks.errors import UnreadableError, shown
from artifacts.leaks.matching import exact, sketch_tier
from artifacts.leaks.ranged import AddressPolicy
from artifacts.leaks.references import ReferenceSet
from artifacts.leaks.sources import Access, Budget, Ledger
from artifacts.leaks.suspects.opening import Problem, Suspect, open_file
from artifacts.leaks.targets import HubOptions, ObjectStoreOptions, Target, open_target
from artifacts.leaks.verdict import ArtifactFinding, Outcome, Verdict, strongest

OPAQUE_LIMIT = 0.25
MAX_HEADERS = 16
NOTABLE_SHARE = 0.05


@dataclass(frozen=True)
class ScanLimits:
    """What one scan may cost.

    Attributes:
        max_bytes: received, headers included (issue default: 8 MiB).
        max_requests: range requests and listings.
        max_seconds: on the clock, slow answers included.
        max_wait: seconds of silence after which a host has failed.
        max_files: entries of a repository's or folder's listing that are looked at.
    """

    max_bytes: int = 8 << 20
    max_requests: int = 400
    max_seconds: float = 60.0
    max_wait: float = 10.0
    max_files: int = 20_000


@dataclass
class _Scan:
    references: ReferenceSet
    opened: _Opened
    reasons: list[str] = field(default_factory=list)
    findings: list[ArtifactFinding] = field(default_factory=list)


@dataclass
class _Opened:
    """A target, and what its headers say once somebody had to ask: read once, however many keys' signatures follow."""

    target: Target
    suspect: Suspect | None = None
    unread: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    read: int = 0

    def headers(self, references: ReferenceSet) -> Suspect:
        """Read the headers of the target's weight files."""
        if self.suspect is None:
            self.suspect = Suspect()
            self.unread = _open_headers(self, references)
            self.read = len(self.ledger.accesses)
        return self.suspect


def scan(
    target: str | Path,
    references: ReferenceSet,
    *,
    limits: ScanLimits | None = None,
    addresses: AddressPolicy | None = None,
    hub: HubOptions | None = None,
    objects: ObjectStoreOptions | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Verdict:
    """Judge one suspect.

    Args:
        target: a path (file or folder), `http(s)://…`, `hf:[datasets/|spaces/]owner/name[@revision]`, `s3://bucket/key`, or
            `s3://bucket/prefix/`.
        references: what to look for.
        limits: what it may cost.
        addresses: which addresses may be asked; default: public ones only.
        hub: endpoint and token for `hf:` targets.
        objects: endpoint and credentials for `s3:` targets.
        now: the clock that goes into the document.

    Returns:
        The verdict. Bad suspects and failing hosts do not raise: they are `inconclusive` with the reason.
    """
    (verdict,) = scan_each(
        target, [references], limits=limits, addresses=addresses, hub=hub, objects=objects, now=now
    )
    return verdict


def scan_each(
    target: str | Path,
    references: Sequence[ReferenceSet],
    *,
    limits: ScanLimits | None = None,
    addresses: AddressPolicy | None = None,
    hub: HubOptions | None = None,
    objects: ObjectStoreOptions | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> list[Verdict]:
    """Judge one suspect against signatures of several sketch keys: one verdict a key; listing and headers are read once.

    The limits are of all of it together. Each verdict holds the accesses that it rests on: those of listing and headers,
    and its own. Arguments as `scan`.
    """
    limits = limits or ScanLimits()
    budget = Budget(limits.max_bytes, limits.max_requests, limits.max_seconds, limits.max_wait)
    ledger = Ledger(now=now)
    opened: Target | None = None
    failure: str | None = None
    shared: list[Access] = []
    out: list[Verdict] = []
    begun = now(), time.monotonic()
    try:
        try:
            opened = open_target(
                target,
                budget,
                ledger,
                addresses or AddressPolicy(),
                hub or HubOptions(),
                limits.max_files,
                objects,
            )
        except UnreadableError as error:
            failure = str(error)
        held = None if opened is None else _Opened(opened, ledger=ledger)
        for known in references:
            before, fresh = len(ledger.accesses), held is None or held.suspect is None
            reasons, findings = [] if failure is None else [failure], list[ArtifactFinding]()
            if held is not None:
                run = _Scan(known, held)
                try:
                    _judge(held.target, run)
                except UnreadableError as error:
                    run.reasons.append(str(error))
                reasons, findings = run.reasons, run.findings
            # Until the headers are read everything read so far was for all of them (the listing).
            accesses = [*(ledger.accesses[:before] if fresh else shared), *ledger.accesses[before:]]
            if fresh and held is not None and held.suspect is not None:
                shared = ledger.accesses[: held.read]
            default = Outcome.INCONCLUSIVE if reasons and not findings else Outcome.NO_MATCH
            out.append(
                Verdict(
                    target=opened.label if opened else shown(_public_name(target), 400),
                    outcome=strongest([f.outcome for f in findings], default),
                    findings=tuple(findings),
                    reasons=tuple(dict.fromkeys(reasons)),
                    started=begun[0].isoformat(timespec="milliseconds"),
                    seconds=time.monotonic() - begun[1],
                    bytes_read=sum(a.length for a in accesses),
                    requests=len(accesses),
                    key_id=known.key.key_id,
                    signatures=known.digests,
                    accesses=tuple(accesses),
                )
            )
            begun = now(), time.monotonic()
    finally:
        if opened is not None:
            opened.close()
    return out


def headers_of(target: Target, references: ReferenceSet) -> Suspect:
    """What the headers of a target's weight files say: those files that a scan looks into.

    Raises:
        UnreadableError: there is nothing that looks like weights, or nothing of it can be read.
    """
    held = _Opened(target)
    suspect = held.headers(references)
    if not suspect.tensors and held.unread:
        raise UnreadableError("; ".join(held.unread))
    return suspect


def _public_name(target: str | Path) -> str:
    return str(target).split("?", 1)[0].split("#", 1)[0]


def _judge(target: Target, run: _Scan) -> None:
    run.reasons.extend(target.notes)
    run.findings = exact(target.listed(run.references), run.references)
    if any(f.outcome is Outcome.MATCH for f in run.findings):
        return
    suspect = run.opened.headers(run.references)
    unread = run.opened.unread
    run.reasons.extend(run.opened.notes)
    hints = exact(suspect.listed, run.references)
    comparison, stopped = sketch_tier(suspect.matrices(), run.references)
    found = comparison.findings()
    if not stopped and all(_silent(f) for f in found):
        second, notes = aligned_tier(suspect.matrices(), run.references)
        run.reasons.extend(notes)
        found = _merge(found, second)
    incomplete = [*unread, *stopped]
    if suspect.opaque_share > OPAQUE_LIMIT:
        incomplete.extend(suspect.opaque_reasons())
    if not incomplete and not suspect.weights:
        incomplete.append("there is no tensor with weights in it")
    if not incomplete:
        incomplete.extend(_same_size_other_shapes(suspect, found, run.references))
    run.reasons.extend(incomplete)
    if incomplete:
        # What was looked at may be clean while the rest is not: silence is not a 'no'.
        found = [
            replace(f, outcome=Outcome.INCONCLUSIVE) if f.outcome is Outcome.NO_MATCH else f for f in found
        ]
    run.findings = _merge(_merge(run.findings, hints), found)
    if not run.findings and not incomplete:
        run.reasons.append("no matrix of the suspect has a shape of any artifact")
        run.findings = [ArtifactFinding(s.artifact, Outcome.NO_MATCH, 1) for s in run.references.artifacts]


def _silent(finding: ArtifactFinding) -> bool:
    """Whether tier 1 recognised nothing: neither the artifact, nor a public parent in most of the tensors."""
    return (
        finding.outcome is Outcome.NO_MATCH and 2 * finding.explained < finding.compared + finding.explained
    )


def _open_headers(opened: _Opened, references: ReferenceSet) -> list[str]:
    """Read the headers of the target's weight files; returns why some could not be."""
    suspect = opened.suspect
    assert suspect is not None
    files = opened.target.weight_files()
    if not files:
        return ["nothing in it looks like weights"]
    chosen = files
    if len(files) > MAX_HEADERS:
        order = references.key.order("shards", len(files))[:MAX_HEADERS]
        chosen = [files[int(i)] for i in sorted(order)]
        opened.notes.append(f"{len(chosen)} of {len(files)} files were looked into")
    read = 0
    for file in chosen:
        try:
            source = file.open()
        except UnreadableError as error:
            suspect.problems.append(Problem(file.listed.size or 0, f"{file.location}: {error}"))
            continue
        if open_file(source, suspect):
            read += source.size
    # A tokenizer that is no known format says nothing against the weights beside it; a large file does.
    notable = NOTABLE_SHARE * read
    return [p.reason for p in suspect.problems if p.size > notable or not read]


def _merge(first: Sequence[ArtifactFinding], second: Sequence[ArtifactFinding]) -> list[ArtifactFinding]:
    """Per artifact the more serious of two findings."""
    out = {f.artifact: f for f in first}
    for finding in second:
        held = out.get(finding.artifact)
        if held is None or strongest([held.outcome, finding.outcome], held.outcome) is not held.outcome:
            out[finding.artifact] = finding
    return list(out.values())


def _same_size_other_shapes(
    suspect: Suspect, found: Sequence[ArtifactFinding], references: ReferenceSet
) -> list[str]:
    """A model of the same size in which next to nothing could be compared may be ours, fused or transposed."""
    compared = {f.artifact: f.compared + f.explained for f in found}
    out = []
    for signature in references.artifacts:
        few = compared.get(signature.artifact, 0) < 6 <= len(signature.matrices)
        if few and 0.5 * signature.weights <= suspect.weights <= 2 * signature.weights:
            out.append(
                f"about as many weights as {signature.artifact} but other shapes (fused or transposed layers?): "
                "only the whole file can tell"
            )
    return out
