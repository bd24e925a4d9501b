"""The leak worker's activities, as sweeps call them."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from temporalio import activity

from activities.beating import beating
from activities.errors import at_the_edge
from activities.leaks.judging import Judging
from activities.leaks.parents import Parents
from activities.leaks.polling import Polling
from activities.leaks.sampling import Sampling
from activities.leaks.sealed_files import PREFIX, SealedFiles
from activities.leaks.telling import Telling
from artifacts.leaks.whole import compare_whole
from orchestrator.contracts import leak_messages as msg
from orchestrator.contracts import names
from orchestrator.domain.errors import Malformed, NotFound, Reason
from orchestrator.domain.leaks import monitored_sources, watched_artifacts
from orchestrator.domain.state import ReleaseState
from orchestrator.records import releases, signatures, suspects
from orchestrator.records.database import reading
from orchestrator.records.documents import Cipher
from orchestrator.trust import signing

#: Sources that read what was handed in; they cost nothing, so every sweep looks at them.
HANDED_IN = ("reports", "outside-monitors", "torrents")


@dataclass
class LeakParts:
    """What the activities are made of.

    Attributes:
        polling: polls sources.
        judging: judges suspects.
        parents: signs public parents.
        sealed: digests sealed files.
        telling: tells releases.
        sampling: reads what is traced.
        lookback: how long before an artifact's registration a suspect may have been seen and still is judged.
        references: folder with artifacts' plaintext, one folder an artifact, for tier 3; None: tier 3 is done elsewhere.
    """

    polling: Polling
    judging: Judging
    parents: Parents
    sealed: SealedFiles
    telling: Telling
    sampling: Sampling
    lookback: timedelta
    references: Path | None = None


class LeakActivities:
    """Every activity of the queue `leaks`."""

    def __init__(self, parts: LeakParts) -> None:
        self._parts = parts
        self._engine = parts.judging.engine

    @property
    def all(self) -> list[Callable[..., Any]]:
        """Every activity, for a worker."""
        return [
            self.plan_sweep,
            self.poll_source,
            self.tell_monitors,
            self.sort_suspects,
            self.scan_suspect,
            self.give_up_suspect,
            self.report_sightings,
            self.take_sample,
            self.tell_trace,
            self.drop_sample,
            self.sign_parent,
            self.digest_sealed,
            self.compare_whole,
        ]

    @activity.defn(name=names.PLAN_SWEEP)
    def plan_sweep(self, request: msg.ReleaseRequest) -> msg.SweepPlan:
        """What a sweep has to look at: what is withheld, and the sources that the plan names, or all when it names none."""
        with at_the_edge():
            try:
                state = self._state(request.release)
            except NotFound:
                return msg.SweepPlan(artifacts=[], sources=[])
            watched = sorted(watched_artifacts(state))
            self._parts.judging.references.issued.follow()
            named = sorted(monitored_sources(state)) or sorted(self._parts.polling.sources)
            more = [name for name in HANDED_IN if name in self._parts.polling.sources and name not in named]
            parents = self._parts.parents.unsigned(watched) if watched else []
            undigested = self._parts.sealed.undigested(watched)
            return msg.SweepPlan(
                artifacts=watched, sources=[*named, *more], parents=parents, undigested=undigested
            )

    @activity.defn(name=names.POLL_SOURCE, no_thread_cancel_exception=True)
    def poll_source(self, request: msg.PollRequest) -> msg.PollResult:
        """Poll one source in its turn; a source that cannot look is an answer, not an error."""
        with at_the_edge(), beating() as beat:
            return self._parts.polling.poll(request.source, request.holder, beat)

    @activity.defn(name=names.TELL_MONITORS)
    async def tell_monitors(self, request: msg.ReleaseRequest) -> msg.Told:
        """Tell a release which sources saw, where its gates would notice."""
        with at_the_edge():
            return msg.Told(incidents=await self._parts.telling.monitors(request.release))

    @activity.defn(name=names.SORT_SUSPECTS, no_thread_cancel_exception=True)
    def sort_suspects(self, request: msg.SortRequest) -> msg.Sorted:
        """Judge by listings alone what can be, and say what has to be scanned."""
        with at_the_edge(), beating() as beat:
            done = self._parts.judging.sort(self._watched(request.release), request.scans, beat)
            return msg.Sorted(exact=done.exact, ruled_out=done.ruled_out, scan=done.scan, left=done.left)

    @activity.defn(name=names.SCAN_SUSPECT, no_thread_cancel_exception=True)
    def scan_suspect(self, request: msg.ScanRequest) -> msg.Scanned:
        """Scan one suspect with a budget."""
        with at_the_edge(), beating() as beat:
            outcomes, count = self._parts.judging.scan(request.suspect, self._watched(request.release), beat)
            return msg.Scanned(outcomes=outcomes, bytes_read=count)

    @activity.defn(name=names.GIVE_UP_SUSPECT)
    def give_up_suspect(self, request: msg.ScanRequest) -> msg.Scanned:
        """Note that a suspect could not be scanned: inconclusive, for people to look at."""
        with at_the_edge():
            return msg.Scanned(
                outcomes=self._parts.judging.give_up(request.suspect, self._watched(request.release))
            )

    @activity.defn(name=names.REPORT_SIGHTINGS)
    async def report_sightings(self, request: msg.ReleaseRequest) -> msg.Told:
        """Open the incidents of what was found, in every release that carries it."""
        with at_the_edge():
            watched = await asyncio.to_thread(self._watched, request.release)
            told = await self._parts.telling.sightings(sorted(watched))
            if not watched:
                return told
            tokens = await self._parts.telling.tokens(request.release, min(watched.values()))
            return told.model_copy(update={"incidents": [*told.incidents, *tokens]})

    @activity.defn(name=names.TAKE_SAMPLE, no_thread_cancel_exception=True)
    def take_sample(self, request: msg.TraceRequest) -> msg.SampleTaken:
        """Read what a budget allows of a recognised suspect, for tracing, and seal it to custody."""
        with at_the_edge(), beating():
            return self._parts.sampling.take(request)

    @activity.defn(name=names.TELL_TRACE)
    async def tell_trace(self, told: msg.TraceTold) -> None:
        """Write on an incident what tracing its suspect came to, or why it came to nothing."""
        with at_the_edge():
            await self._parts.telling.trace(told)

    @activity.defn(name=names.DROP_SAMPLE)
    def drop_sample(self, sample: msg.SampleTaken) -> None:
        """Delete a sample that was traced."""
        with at_the_edge():
            self._parts.sampling.drop(sample)

    @activity.defn(name=names.SIGN_PARENT, no_thread_cancel_exception=True)
    def sign_parent(self, request: msg.PrepareRequest) -> msg.Told:
        """Read a public parent once and sign it for every artifact that lacks it."""
        with at_the_edge(), beating() as beat:
            return msg.Told(incidents=self._parts.parents.sign(request.name, beat))

    @activity.defn(name=names.DIGEST_SEALED, no_thread_cancel_exception=True)
    def digest_sealed(self, request: msg.PrepareRequest) -> msg.Told:
        """Read an artifact's sealed files once, for their exact digests."""
        with at_the_edge(), beating() as beat:
            self._parts.sealed.digest(request.name, beat)
            return msg.Told(incidents=[])

    @activity.defn(name=names.COMPARE_WHOLE, no_thread_cancel_exception=True)
    def compare_whole(self, request: msg.WholeRequest) -> msg.WholeResult:
        """Tier 3: every weight of a suspect against every weight of an artifact, both lying where this worker can read them."""
        with at_the_edge(), beating():
            root = self._parts.references
            if root is None or not (root / request.artifact).is_dir():
                raise Malformed(
                    f"the plaintext of {request.artifact} is not where this worker may read it",
                    [
                        Reason(
                            "reference",
                            "put it below SLUICE_LEAK_REFERENCE_DIR, or use `sluice leak compare`",
                        )
                    ],
                )
            with reading(self._engine) as session:
                suspect = suspects.get(session, request.suspect)
            place = Path(suspect.target)
            if suspect.source not in self._parts.judging.local or not place.exists():
                raise Malformed(
                    f"{suspect.title} is not a file here",
                    [Reason("suspect", "drop the whole file where operators drop suspects, then ask again")],
                )
            known = self._parts.judging.references.of([request.artifact])
            verdict = compare_whole(
                _files(place),
                request.artifact,
                _files(root / request.artifact),
                references=known[0].known if known else None,
                now=self._parts.judging.clock,
            )
            kept = self._parts.judging.keep_verdict(suspect, request.artifact, verdict)
            return msg.WholeResult(outcome=kept.outcome, verdict=kept.verdict or "")

    def _state(self, release: str) -> ReleaseState:
        with reading(self._engine) as session:
            return releases.load(session, release)

    def _watched(self, release: str) -> dict[str, datetime]:
        """What is withheld and can be recognised, and from when on sightings count."""
        with reading(self._engine) as session:
            watched = watched_artifacts(releases.load(session, release))
            known = signatures.known(session, watched)
        return {artifact: since - self._parts.lookback for artifact, since in known.items()}


def _files(place: Path) -> list[Path]:
    return sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]


def evidence_in(engine: Any, cipher: Cipher) -> Callable[[str], tuple[tuple[str, ...], bool]]:
    """Tells whose issued copies a stored verdict found, bit for bit, and whether it found sealed files alone."""

    def evidence(digest: str) -> tuple[tuple[str, ...], bool]:
        with reading(engine) as session:
            _, envelope = suspects.verdict(session, digest, cipher)
        document = json.loads(signing.signed_payload(zlib.decompress(envelope)))["predicate"]["verdict"]
        proofs = [proof for finding in document["findings"] for proof in finding["exact"]]
        sealed = bool(proofs) and all(proof["path"].startswith(PREFIX) for proof in proofs)
        return tuple(sorted({proof["copy"] for proof in proofs if proof["copy"]})), sealed

    return evidence
