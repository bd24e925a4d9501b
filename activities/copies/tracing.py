"""Whose copy a suspect is: every issued copy's exact digests, then every partner's mark, in the place that holds the base.

The report names *every* partner with its z. It accuses at z ≥ 8 alone, says `investigate` from 6 to 8, and never picks the
largest; an exact digest is one copy's and nobody else's. The report is signed by custody and stands in the log, whatever
it says: who looks, and finds nothing, has looked.

An operator traces files on custody's machine (`trace`). The leak monitor asks for what it recognised by itself
(`trace_sample`): custody then asks no stranger and reads no stranger's file, but a sample of numbers that the monitor sealed
to it and signed for. Each answer is a chance to try how well a mark was washed out, so that custody answers for an open
leak of the release alone, that names the signed verdict, and so many a day.

The unmarked base is opened as it is read; nothing of it is written anywhere.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from activities.copies.making import CopyingCustody
from activities.copies.sealing import issued_files
from activities.custody.copies import MadeCopy, lineage
from activities.custody.errors import CustodyRefused
from activities.custody.second_lock import Purpose
from artifacts.leaks.errors import MarkError, UnreadableError
from artifacts.leaks.marking import SealedSource
from artifacts.leaks.samples import MAX_SEALED, PREDICATE, HeldSource, open_sample
from artifacts.leaks.sources import ByteSource
from artifacts.leaks.tracing import ACCUSE_Z, INVESTIGATE_Z, TraceReport, trace_files, trace_rows
from artifacts.manifest import open_inner
from artifacts.opened import OpenedArtifact
from artifacts.signing import VerifyKey, verify_dsse
from orchestrator.contracts.leak_messages import TraceAsked
from orchestrator.domain.errors import Malformed, NotFound, Reason
from orchestrator.domain.incident import IncidentKind, Trace, TracedPartner
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import canonical, digest_bytes
from orchestrator.records import audit
from orchestrator.records.database import writing
from orchestrator.trust import signing
from orchestrator.trust.encoding import parse_object
from orchestrator.trust.keys import PublicKey

FORMAT = "sluice.trace/v1"
PAYLOAD_TYPE = "application/vnd.sluice.trace+json"
MAX_REPORT = 32 << 20
_STEP = 4 << 20
_LEAF = 700_000


@dataclass(frozen=True, slots=True)
class Traced:
    """A trace.

    Attributes:
        report: the document, as it was signed.
        signed: the DSSE file with custody's signature.
        entry: its place in the audit log.
    """

    report: dict[str, Any]
    signed: bytes
    entry: int


@dataclass(frozen=True, slots=True)
class Marked:
    """What of a release can be traced.

    Attributes:
        base: the unmarked artifact that carries the component now; `origin`: the one whose copies were marked.
        issued: every marked copy that was made of it.
    """

    state: ReleaseState
    component: str
    base: str
    origin: str
    issued: list[MadeCopy]

    @property
    def names(self) -> list[str]:
        """Whose marks are looked for."""
        return sorted({str(copy.holder) for copy in self.issued})


class TracingCustody(CopyingCustody):
    """Custody that also traces: on its operator's call, and what the leak monitor recognised.

    Args:
        monitor_key: tells the public key that the monitor's statements are verified with; None: there is no monitor.
        traces_a_day: how many samples of a release are traced a day; 0: none, operators trace.
    """

    def __init__(
        self,
        *arguments: Any,
        monitor_key: Callable[[], str | None] = lambda: None,
        traces_a_day: int = 50,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._monitor_key, self._traces_a_day = monitor_key, traces_a_day
        self._traced: dict[str, deque[datetime]] = {}
        self._counting = threading.Lock()

    def trace_sample(self, asked: TraceAsked) -> Trace:
        """Trace what the monitor read of a suspect that it recognised.

        Raises:
            CustodyRefused: the statement is not the monitor's, or of no open leak; the log, a key or a manifest does not hold.
            KeyProviderError, StoreError: a service does not answer; ask again.
        """
        release = asked.release
        with self._refusing(release, "trace", 0):
            told, digest = self._statement(asked)
            marked = self._marked_of(self._current(release), str(told["component"]))
            self._asked_for(marked, told)
            with self._store(asked.sample.location or "") as store:
                info = store.stat(asked.sample.key)
                if info is None or info.size > MAX_SEALED:
                    raise CustodyRefused("the sample is not in the store, or too large")
                sealed = store.get_range(asked.sample.key, 0, info.size)
            if hashlib.sha256(sealed).hexdigest() != digest:
                raise CustodyRefused("the sample is not the one that the monitor signed for")
            held = open_sample(sealed, self._keys.identity)
            self._count(release)
            seen = {
                "name": str(told["place"])[:200],
                "size": held.size,
                "sha256": hashlib.sha256(held.data).hexdigest(),
                "part_of": {name: told[name] for name in ("incident", "verdict", "sample")},
            }
            purpose = Purpose(release, "trace", marked.component, given=digest)
            only = [str(name) for name in told["only"]] if told["aligned"] else []
            with self._waiting_for(purpose):
                report = self._report(marked, [held], [seen], {}, "monitor", purpose, only)
            self.second_lock.done(purpose)
            signed = self._keys.envelopes.sign(canonical(report), PAYLOAD_TYPE)
            self._logged(release, marked.component, report, signed)
            return as_trace(report, signed)

    def _statement(self, asked: TraceAsked) -> tuple[dict[str, Any], str]:
        """What the monitor says of a sample, and the digest of the sample; its signature verified."""
        key = self._monitor_key()
        if key is None or not self._traces_a_day:
            why = "there is no monitor's key" if key is None else "SLUICE_CUSTODY_TRACES_A_DAY is 0"
            raise CustodyRefused(f"custody traces nothing for a monitor: {why}")
        payload = signing.verify(asked.sample.statement.encode(), [PublicKey.parse(key)]).payload
        statement = parse_object(payload, where="the monitor's statement")
        told = statement["predicate"]
        if statement["predicateType"] != PREDICATE or told["release"] != asked.release:
            raise CustodyRefused("the monitor's statement is about something else")
        return told, str(statement["subject"][0]["digest"]["sha256"])

    def _asked_for(self, marked: Marked, told: dict[str, Any]) -> None:
        """Whether an open leak of the release, by the log, is about what the monitor recognised."""
        incident = marked.state.incidents.get(str(told["incident"]))
        if incident is None or not incident.open or incident.kind is not IncidentKind.LEAK:
            raise CustodyRefused(f"by the log, {told['incident']} is no open leak")
        if not (incident.sighting or "").startswith(f"verdict {told['verdict']}: "):
            raise CustodyRefused(f"by the log, {incident.id} is about another verdict")
        if incident.components and marked.component not in incident.components:
            raise CustodyRefused(f"by the log, {incident.id} is not about {marked.component}")
        made = self.copies.of_release(marked.state.release)
        if lineage(made, str(told["artifact"])) != marked.origin:
            raise CustodyRefused(
                f"{told['artifact']} is not what the copies of {marked.component} were made of"
            )

    def _count(self, release: str) -> None:
        now = self._clock()
        with self._counting:
            done = self._traced.setdefault(release, deque())
            while done and done[0] <= now - timedelta(days=1):
                done.popleft()
            if len(done) >= self._traces_a_day:
                raise CustodyRefused(
                    f"{self._traces_a_day} suspects of {release} were traced within a day; trace this one with `sluice trace`"
                )
            done.append(now)

    def _marked_of(self, state: ReleaseState, component: str) -> Marked:
        base = state.carried_by.get(component)
        if base is None:
            raise NotFound(f"{state.release} carries no {component}")
        made = self.copies.of_release(state.release)
        origin = lineage(made, base)
        issued = [c for c in made.values() if c.purpose == "mark" and c.marked_as == origin]
        known = state.plan.components.get(component)
        if not issued or known is None or known.mark is None:
            raise NotFound(
                f"no marked copy of {component} was issued",
                [Reason("mark", f"the plan marks it with `components.{component}.mark`")],
            )
        return Marked(state, component, base, origin, issued)

    def trace(self, release: str, suspect: Sequence[Path], component: str, by: str) -> Traced:
        """Trace a suspect's files against every marked copy of a component that was issued.

        Args:
            release: whose copies.
            suspect: files on this machine.
            component: the marked component, such as `weights`.
            by: who asked.

        Raises:
            CustodyRefused: the log, a key or a manifest does not hold.
            NotFound: no copy was issued, or the release has no such component.
            Malformed: the suspect cannot be read.
        """
        with self._refusing(release, "trace", 0):
            marked = self._marked_of(self._current(release), component)
            files = [_file(path) for path in suspect]
            purpose = Purpose(release, "trace", component)
            with self._waiting_for(purpose):
                exact = self._exact(marked, files, purpose)
                report = self._report(marked, suspect, files, exact, by, purpose)
            self.second_lock.done(purpose)
            signed = self._keys.envelopes.sign(canonical(report), PAYLOAD_TYPE)
            return Traced(report, signed, self._logged(release, component, report, signed))

    def _report(
        self,
        marked: Marked,
        suspect: Sequence[Path | ByteSource],
        files: list[dict[str, Any]],
        exact: dict[str, list[str]],
        by: str,
        purpose: Purpose,
        only: Collection[str] | None = None,
    ) -> dict[str, Any]:
        names = marked.names
        found, why_not = self._by_marks(marked, suspect, purpose, only)
        z = {} if found is None else {trace.partner: trace for trace in found.partners}
        partners = [
            {
                "partner": name,
                "exact": exact.get(name, []),
                "z": round(z[name].z, 3) if name in z else None,
                "suspicion": "accused"
                if exact.get(name)
                else (z[name].suspicion.value if name in z else "not_compared"),
            }
            for name in names
        ]
        return {
            "format": FORMAT,
            "release": marked.state.release,
            "component": marked.component,
            "artifact": marked.base,
            "marked_as": marked.origin,
            "mark_commitment": None if found is None else f"sha256:{found.mark_commitment}",
            "suspect": files,
            "compared": {
                "tensors": 0 if found is None else found.tensors,
                "weights": 0 if found is None else found.weights,
            },
            "not_compared": why_not,
            "thresholds": {"accuse": ACCUSE_Z, "investigate": INVESTIGATE_Z},
            "partners": partners,
            "accused": [p["partner"] for p in partners if p["suspicion"] == "accused"],
            "investigate": [p["partner"] for p in partners if p["suspicion"] == "investigate"],
            "by": by,
            "at": self._clock().isoformat(),
        }

    def _by_marks(
        self,
        marked: Marked,
        suspect: Sequence[Path | ByteSource],
        purpose: Purpose,
        only: Collection[str] | None,
    ) -> tuple[TraceReport | None, str | None]:
        """Every partner's z; or why the suspect cannot be compared, which is no acquittal.

        `only`: the suspect is a sample, of these matrices, in an order that is not known; empty: the first rows of matrices.
        """
        state, base = marked.state, marked.base
        manifest = self._manifest(state, base)
        store = self._store(state.artifacts[base].location)
        payload = self._opening(state, manifest, [marked.component], purpose)
        with store, OpenedArtifact(store, manifest, payload) as opened, ExitStack() as stack:
            sources = []
            for path in opened.paths():
                if path.endswith(".safetensors"):
                    file = stack.enter_context(opened.open(path))
                    sources.append(SealedSource(file, path))
            try:
                key = self._mark_key(state, marked.origin, purpose)
                known = (key, marked.origin, marked.names)
                if only is not None and not only:
                    (sample,) = suspect
                    assert isinstance(sample, HeldSource)
                    return trace_rows(sample, sources, *known), None
                return trace_files(suspect, sources, *known, only), None
            except (MarkError, UnreadableError) as error:
                return None, str(error)

    def _exact(self, marked: Marked, files: list[dict[str, Any]], purpose: Purpose) -> dict[str, list[str]]:
        """Tier 0: who was issued a file of exactly these bytes; by the digests in the copies' own sealed manifests.

        A file that several copies share, or that the base has as well (it carries no mark), says nothing about whose it was.
        """
        state, component = marked.state, marked.component
        manifest = self._manifest(state, marked.base)
        root = self._root(state, manifest, purpose)
        plain = set()
        for entry in manifest.of_components([component]):
            key = root.file_key(manifest.artifact_id, entry.path, entry.version)
            plain.add(open_inner(manifest.artifact_id, entry, key).digests.get("sha256"))
        suspects = {file["sha256"]: file["name"] for file in files if file["sha256"] not in plain}
        owners: dict[str, dict[str, str]] = {}
        for copy in marked.issued:
            own = self._manifest(state, copy.artifact, copy.manifest_digest)
            paths = {entry.path for entry in own.of_components([component])}
            for file in issued_files(own, self._root(state, own, purpose)):
                if file["sha256"] in suspects and file["path"] in paths:
                    owners.setdefault(file["sha256"], {})[str(copy.holder)] = str(file["path"])
        found: dict[str, list[str]] = {}
        for sha256, holders in owners.items():
            if len(holders) == 1:
                [(holder, path)] = holders.items()
                found.setdefault(holder, []).append(f"{suspects[sha256]} is {path}")
        return found

    def _logged(self, release: str, component: str, report: dict[str, Any], signed: bytes) -> int:
        body: dict[str, Any] = {
            "action": "traced",
            "component": component,
            "document": digest_bytes(signed),
            "accused": report["accused"],
            "investigate": report["investigate"],
            "suspect": [file["sha256"] for file in report["suspect"]],
            "by": report["by"],
        }
        if len(signed) <= _LEAF:
            body["signed"] = signed.decode()
        with writing(self._engine) as session:
            entry = audit.append(session, "custody", body, at=self._clock(), release=release)
        self.sign_checkpoint()
        return entry


def as_trace(report: dict[str, Any], signed: bytes) -> Trace:
    """A report as the incident shows it: every partner, the largest z first; at most 200, the report names all."""
    partners = sorted(report["partners"], key=lambda p: -(p["z"] if p["z"] is not None else -1e9))
    return Trace(
        component=report["component"],
        report=digest_bytes(signed),
        partners=[
            TracedPartner(partner=p["partner"], z=p["z"], suspicion=p["suspicion"]) for p in partners[:200]
        ],
        not_traced=None if report["not_compared"] is None else str(report["not_compared"])[:1_000],
        at=datetime.fromisoformat(report["at"]),
    )


def read_report(signed: bytes, keys: Sequence[VerifyKey]) -> bytes:
    """The bytes of a report that one of custody's keys signed.

    Raises:
        MarkError: it is not one.
    """
    payload, _ = verify_dsse(signed, PAYLOAD_TYPE, keys, MarkError, "trace", MAX_REPORT)
    return payload


def _file(path: Path) -> dict[str, Any]:
    sha, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while data := file.read(_STEP):
                sha.update(data)
                size += len(data)
    except OSError as error:
        raise Malformed(
            f"the suspect cannot be read: {path.name}: {error.strerror}", [Reason("suspect", str(path))]
        ) from None
    return {"name": path.name, "size": size, "sha256": sha.hexdigest()}
