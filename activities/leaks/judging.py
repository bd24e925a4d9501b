"""Judging suspects: by what their listing says (nothing is read), else by a scan with a budget; every verdict signed and logged.

    sort    a listed digest is ours -> match · too small for a tenth of ours at one bit a weight -> ruled out · else: scan
    scan    tiers 0 to 2 over ranges, one verdict per artifact that the suspect was not held against before

A verdict is kept, sealed, under its digest; its leaf in the audit log names it. What looks like ours while a public parent is not
signed yet is only `partial`: it may be the parent.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import rfc8785
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from activities.beating import Beat
from activities.leaks.keys import MonitorKeys
from activities.leaks.references import Reference, References
from artifacts.leaks import (
    AddressPolicy,
    ArtifactFinding,
    HubOptions,
    ListedFile,
    ObjectProfiles,
    ObjectStoreOptions,
    Outcome,
    ScanLimits,
    Verdict,
    exact,
    scan_each,
)
from artifacts.leaks.errors import shown
from orchestrator.domain.values import digest_bytes
from orchestrator.records import audit, suspects
from orchestrator.records.database import reading, writing
from orchestrator.records.documents import Cipher
from orchestrator.records.suspects import Judgement, StoredVerdict, Suspect
from orchestrator.trust import signing

PREDICATE = "https://sluice.release/leak-verdict/v1"
_BATCH = 1_000
_TRIES = 4
_AGAIN = timedelta(minutes=15)
_REMOTE = ("https://", "http://", "hf:", "s3://")


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Decided:
    """What a batch came to: suspects by what became of them, and those that have to be scanned."""

    exact: int
    ruled_out: int
    scan: list[str]
    left: bool


@dataclass
class Judging:
    """Judges suspects.

    Attributes:
        engine: of the records.
        keys: the monitor's; verdicts are signed with them.
        references: what suspects are held against.
        cipher: seals verdicts in the records: they name our tensors.
        limits: of one scan.
        addresses: which addresses scans may ask.
        hub: where `hf:` leads.
        objects: credentials for `s3:` targets by bucket; one of no profile is asked as anybody could.
        local: sources whose targets may be paths of this machine (`folder`).
        clock: tells the time (aware).
    """

    engine: Engine
    keys: MonitorKeys
    references: References
    cipher: Cipher
    limits: ScanLimits = field(default_factory=ScanLimits)
    addresses: AddressPolicy = field(default_factory=AddressPolicy)
    hub: HubOptions = field(default_factory=HubOptions)
    objects: ObjectProfiles = field(default_factory=ObjectProfiles)
    local: frozenset[str] = frozenset()
    clock: Callable[[], datetime] = field(default=_now)

    def sort(self, artifacts: Mapping[str, datetime], scans: int, beat: Beat) -> Decided:
        """Judge by listings alone what can be; see the head of this module.

        Args:
            artifacts: artifact → the earliest sighting that counts for it.
            scans: at most so many are left to be scanned.
            beat: asked between two batches.
        """
        known = [r for r in self.references.of(artifacts) if r.looks_for_something]
        since = {r.artifact: artifacts[r.artifact] for r in known}
        by_name = {r.artifact: r for r in known}
        hits = ruled_out = 0
        wanted: list[str] = []
        if not known:
            return Decided(0, 0, [], left=False)
        with reading(self.engine) as session:
            waiting = suspects.pending(session, since, self.clock(), limit=_BATCH)
        for at in range(0, len(waiting), 100):
            beat.check()
            judged: list[tuple[Judgement, Verdict | None]] = []
            for suspect, names in waiting[at : at + 100]:
                found, rest = self._by_listing(suspect, [by_name[name] for name in names])
                judged += found
                outcomes = {judgement.outcome for judgement, _ in found}
                hits += "match" in outcomes
                ruled_out += bool(found) and not rest and "match" not in outcomes
                if rest:
                    wanted.append(suspect.key)
            self._keep(judged)
            if len(wanted) >= scans:
                return Decided(hits, ruled_out, wanted[:scans], left=True)
        return Decided(hits, ruled_out, wanted, left=len(waiting) >= _BATCH)

    def scan(self, key: str, artifacts: Mapping[str, datetime], beat: Beat) -> tuple[dict[str, str], int]:
        """Scan one suspect against every artifact that it was not held against; artifact → outcome, and bytes read."""
        known, suspect, earlier = self._unjudged(key, artifacts)
        if not known:
            return {}, 0
        beat.check()
        limits = replace(self.limits, max_bytes=self.limits.max_bytes * len(known))
        if self.readable(suspect):
            verdicts = scan_each(
                suspect.target,
                [r.known for r in known],
                limits=limits,
                addresses=self.addresses,
                hub=self.hub,
                objects=self.store_of(suspect),
                now=self.clock,
            )
        else:
            why = f"{shown(suspect.target, 120)}: nothing that is read for a suspect of {suspect.source}"
            verdicts = [self._unread(suspect, r, why) for r in known]
        beat.check()
        judged: list[tuple[Judgement, Verdict | None]] = []
        doubted = [_doubted(v, r) for v, r in zip(verdicts, known, strict=True)]
        for reference, verdict in zip(known, doubted, strict=True):
            judged.append((self._judgement(suspect, reference, verdict, earlier), verdict))
        self._keep(judged)
        return {j.artifact: j.outcome for j, _ in judged}, sum(v.bytes_read for v in verdicts)

    def give_up(self, key: str, artifacts: Mapping[str, datetime]) -> dict[str, str]:
        """Note that a suspect could not be scanned at all: inconclusive, for people to look at."""
        known, suspect, earlier = self._unjudged(key, artifacts)
        why = "every attempt to scan it ended the scan: look at it by hand, apart from everything else"
        judged: list[tuple[Judgement, Verdict | None]] = []
        for reference in known:
            verdict = self._unread(suspect, reference, why)
            judged.append(
                (replace(self._judgement(suspect, reference, verdict, earlier), next_at=None), verdict)
            )
        self._keep(judged)
        return {j.artifact: j.outcome for j, _ in judged}

    def keep_verdict(self, suspect: Suspect, artifact: str, verdict: Verdict) -> Judgement:
        """Keep the verdict of a look at the whole (tier 3) in the place of what was judged before."""
        judgement = Judgement(
            artifact=artifact,
            suspect=suspect.key,
            outcome=verdict.outcome.value,
            at=self.clock(),
            tier=3,
            reason="; ".join(verdict.reasons),
        )
        (kept,) = self._keep([(judgement, verdict)])
        return kept

    # --- by the listing

    def _by_listing(
        self, suspect: Suspect, references: Sequence[Reference]
    ) -> tuple[list[tuple[Judgement, Verdict | None]], list[Reference]]:
        listed = listed_files(suspect)
        done: list[tuple[Judgement, Verdict | None]] = []
        rest: list[Reference] = []
        for reference in references:
            findings = [f for f in exact(listed, reference.known) if f.outcome is Outcome.MATCH]
            if findings:
                verdict = self._listed_verdict(suspect, reference, findings)
                done.append((self._judgement(suspect, reference, verdict, {}), verdict))
                continue
            why = self._why_not(suspect, reference, listed)
            if why is None:
                rest.append(reference)
            else:
                done.append((self._ruled_out(suspect, reference, why), None))
        return done, rest

    def _why_not(self, suspect: Suspect, reference: Reference, listed: Sequence[ListedFile]) -> str | None:
        if not suspect.target:
            return "only digests are known, and they are of no file that we issued"
        if suspect.size is not None and suspect.size < reference.least_bytes:
            return f"{suspect.size} bytes cannot hold a tenth of the weights at one bit each"
        if not reference.signature.matrices and listed and all(f.sha256 for f in listed):
            return "every file is listed with its digest, and none is one that we issued"
        return None

    def _ruled_out(self, suspect: Suspect, reference: Reference, why: str) -> Judgement:
        return Judgement(
            artifact=reference.artifact,
            suspect=suspect.key,
            outcome="ruled_out",
            at=self.clock(),
            tier=0,
            reason=why,
        )

    def _listed_verdict(
        self, suspect: Suspect, reference: Reference, findings: list[ArtifactFinding]
    ) -> Verdict:
        told = f"digests as the source {suspect.source} listed them at {suspect.seen_at.isoformat()}; nothing was downloaded"
        return self._verdict(suspect, reference, Outcome.MATCH, (told,), tuple(findings))

    def _unread(self, suspect: Suspect, reference: Reference, why: str) -> Verdict:
        return self._verdict(suspect, reference, Outcome.INCONCLUSIVE, (why,), ())

    def _verdict(
        self,
        suspect: Suspect,
        reference: Reference,
        outcome: Outcome,
        reasons: tuple[str, ...],
        findings: tuple[ArtifactFinding, ...],
    ) -> Verdict:
        return Verdict(
            target=shown((suspect.target or suspect.title).split("?", 1)[0], 400),
            outcome=outcome,
            findings=findings,
            reasons=reasons,
            started=self.clock().isoformat(timespec="milliseconds"),
            seconds=0.0,
            bytes_read=0,
            requests=0,
            key_id=reference.known.key.key_id,
            signatures=reference.known.digests,
        )

    # --- what is kept

    def _unjudged(
        self, key: str, artifacts: Mapping[str, datetime]
    ) -> tuple[list[Reference], Suspect, dict[str, Judgement]]:
        now = self.clock()
        with reading(self.engine) as session:
            suspect = suspects.get(session, key)
            earlier = suspects.judgements_of(session, key)
        settled = {name for name, j in earlier.items() if j.next_at is None or j.next_at > now}
        open_ones = {name for name, since in artifacts.items() if suspect.seen_at >= since} - settled
        known = [r for r in self.references.of(open_ones) if r.looks_for_something]
        return known, suspect, earlier

    def readable(self, suspect: Suspect) -> bool:
        """Paths of this machine are read for sources of this machine alone, never because a stranger named one."""
        return suspect.target.startswith(_REMOTE) or (
            suspect.source in self.local and Path(suspect.target).is_absolute()
        )

    def store_of(self, suspect: Suspect) -> ObjectStoreOptions:
        """How an object is reached: by its bucket's profile, at the address that the source's operator gave."""
        told = suspect.body.get("detail", {})
        return self.objects.of_target(suspect.target, told.get("endpoint"), told.get("region"))

    def _judgement(
        self, suspect: Suspect, reference: Reference, verdict: Verdict, earlier: Mapping[str, Judgement]
    ) -> Judgement:
        now, before = self.clock(), earlier.get(reference.artifact)
        attempts = 1 if before is None else before.attempts + 1
        again = None
        if verdict.outcome is Outcome.INCONCLUSIVE and attempts < _TRIES and not verdict.bytes_read:
            again = now + _AGAIN * 4 ** (attempts - 1)  # nothing could be read: it may answer later
        best = verdict.best
        return Judgement(
            artifact=reference.artifact,
            suspect=suspect.key,
            outcome=verdict.outcome.value,
            at=now,
            tier=-1 if best is None else best.tier,
            reason="; ".join(verdict.reasons),
            attempts=attempts,
            next_at=again,
        )

    def _keep(self, judged: Iterable[tuple[Judgement, Verdict | None]]) -> list[Judgement]:
        """Judgements, and the signed verdicts of those that have one: one transaction, with their leaves in the log."""
        judged = list(judged)
        if not judged:
            return []
        with reading(self.engine) as session:
            known = {j.suspect: suspects.get(session, j.suspect) for j, v in judged if v is not None}
        signed = [
            (j, None if v is None else self.sign(known[j.suspect], j.artifact, v.document()))
            for j, v in judged
        ]
        kept: list[Judgement] = []
        with writing(self.engine) as session:
            for judgement, made in signed:
                digest = None if made is None else self._file(session, judgement, *made)
                kept.append(replace(judgement, verdict=digest))
            suspects.judge(session, kept)
        return kept

    def sign(self, suspect: Suspect, artifact: str, document: dict[str, Any]) -> tuple[str, bytes]:
        """The verdict as a signed in-toto statement about the suspect: its digest, and the DSSE envelope."""
        payload = rfc8785.dumps(
            {
                "_type": "https://in-toto.io/Statement/v1",
                "subject": [
                    {"name": suspect.key, "digest": {"sha256": digest_bytes(suspect.key.encode())[7:]}}
                ],
                "predicateType": PREDICATE,
                "predicate": {"artifact": artifact, "suspect": suspect.body, "verdict": document},
            }
        )
        return digest_bytes(payload), signing.sign(payload, self.keys.verdicts)

    def _file(self, session: Session, judgement: Judgement, digest: str, envelope: bytes) -> str:
        body = {
            "action": "leak_verdict",
            "artifact": judgement.artifact,
            "suspect": digest_bytes(judgement.suspect.encode()),
            "outcome": judgement.outcome,
            "tier": judgement.tier,
            "verdict": digest,
        }
        index = audit.append(session, "admin", body, at=judgement.at)
        stored = StoredVerdict(
            digest=digest,
            suspect=judgement.suspect,
            artifact=judgement.artifact,
            outcome=judgement.outcome,
            tier=judgement.tier,
            log_index=index,
            at=judgement.at,
        )
        suspects.put_verdict(session, stored, zlib.compress(envelope, 9), self.cipher)
        return digest


def listed_files(suspect: Suspect) -> list[ListedFile]:
    """What the source's listing said of each file."""
    return [
        ListedFile(
            location=shown(f"{suspect.target} {entry.get('path', '')}".strip(), 400),
            size=entry.get("size"),
            sha256=entry.get("sha256"),
            xet_hash=entry.get("xet_hash"),
            btv2_root=entry.get("btv2_root"),
        )
        for entry in suspect.body.get("digests", [])
    ]


def _doubted(verdict: Verdict, reference: Reference) -> Verdict:
    """A match while a public parent is not signed yet may be the parent's."""
    best = verdict.best
    if not reference.missing or verdict.outcome is not Outcome.MATCH or (best is not None and best.exact):
        return verdict
    told = f"the public parents {', '.join(reference.missing)} are not signed yet: what looks like ours may be theirs"
    return replace(verdict, outcome=Outcome.PARTIAL, reasons=(*verdict.reasons, told))
