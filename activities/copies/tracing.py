"""Whose copy a suspect is: every issued copy's exact digests, then every partner's mark, in the place that holds the base.

The report names *every* partner with its z. It accuses at z ≥ 8 alone, says `investigate` from 6 to 8, and never picks the
largest; an exact digest is one copy's and nobody else's. The report is signed by custody and stands in the log, whatever
it says: who looks, and finds nothing, has looked.

The unmarked base is opened as it is read; nothing of it is written anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activities.copies.making import CopyingCustody
from activities.copies.sealing import issued_files
from activities.custody.copies import MadeCopy, lineage
from activities.custody.second_lock import Purpose
from artifacts.leaks.errors import MarkError, UnreadableError
from artifacts.leaks.marking import SealedSource
from artifacts.leaks.tracing import ACCUSE_Z, INVESTIGATE_Z, TraceReport, trace_files
from artifacts.manifest import open_inner
from artifacts.opened import OpenedArtifact
from artifacts.signing import VerifyKey, verify_dsse
from orchestrator.domain.errors import Malformed, NotFound, Reason
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import canonical, digest_bytes
from orchestrator.records import audit
from orchestrator.records.database import writing

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


class TracingCustody(CopyingCustody):
    """Custody that also traces. On the operator's call alone: no queue asks for it."""

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
            state = self._current(release)
            base = state.carried_by.get(component)
            if base is None:
                raise NotFound(f"{release} carries no {component}")
            made = self.copies.of_release(release)
            origin = lineage(made, base)
            issued = [c for c in made.values() if c.purpose == "mark" and c.marked_as == origin]
            known = state.plan.components.get(component)
            if not issued or known is None or known.mark is None:
                raise NotFound(
                    f"no marked copy of {component} was issued",
                    [Reason("mark", f"the plan marks it with `components.{component}.mark`")],
                )
            files = [_file(path) for path in suspect]
            purpose = Purpose(release, "trace", component)
            with self._waiting_for(purpose):
                exact = self._exact(state, base, component, issued, files, purpose)
                report = self._report(
                    state, base, origin, component, issued, suspect, files, exact, by, purpose
                )
            self.second_lock.done(purpose)
            signed = self._keys.envelopes.sign(canonical(report), PAYLOAD_TYPE)
            return Traced(report, signed, self._logged(release, component, report, signed))

    def _report(
        self,
        state: ReleaseState,
        base: str,
        origin: str,
        component: str,
        issued: list[MadeCopy],
        suspect: Sequence[Path],
        files: list[dict[str, Any]],
        exact: dict[str, list[str]],
        by: str,
        purpose: Purpose,
    ) -> dict[str, Any]:
        names = sorted({str(copy.holder) for copy in issued})
        found, why_not = self._by_marks(state, base, origin, component, suspect, names, purpose)
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
            "release": state.release,
            "component": component,
            "artifact": base,
            "marked_as": origin,
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
        state: ReleaseState,
        base: str,
        origin: str,
        component: str,
        suspect: Sequence[Path],
        names: list[str],
        purpose: Purpose,
    ) -> tuple[TraceReport | None, str | None]:
        """Every partner's z; or why the suspect cannot be compared, which is no acquittal."""
        manifest = self._manifest(state, base)
        store = self._store(state.artifacts[base].location)
        payload = self._opening(state, manifest, [component], purpose)
        with store, OpenedArtifact(store, manifest, payload) as opened, ExitStack() as stack:
            sources = []
            for path in opened.paths():
                if path.endswith(".safetensors"):
                    file = stack.enter_context(opened.open(path))
                    sources.append(SealedSource(file, path))
            try:
                key = self._mark_key(state, origin, purpose)
                return trace_files(suspect, sources, key, origin, names), None
            except (MarkError, UnreadableError) as error:
                return None, str(error)

    def _exact(
        self,
        state: ReleaseState,
        base: str,
        component: str,
        issued: list[MadeCopy],
        files: list[dict[str, Any]],
        purpose: Purpose,
    ) -> dict[str, list[str]]:
        """Tier 0: who was issued a file of exactly these bytes; by the digests in the copies' own sealed manifests.

        A file that several copies share, or that the base has as well (it carries no mark), says nothing about whose it was.
        """
        manifest = self._manifest(state, base)
        root = self._root(state, manifest, purpose)
        plain = set()
        for entry in manifest.of_components([component]):
            key = root.file_key(manifest.artifact_id, entry.path, entry.version)
            plain.add(open_inner(manifest.artifact_id, entry, key).digests.get("sha256"))
        suspects = {file["sha256"]: file["name"] for file in files if file["sha256"] not in plain}
        owners: dict[str, dict[str, str]] = {}
        for copy in issued:
            own = self._manifest(state, copy.artifact, copy.manifest_digest)
            marked = {entry.path for entry in own.of_components([component])}
            for file in issued_files(own, self._root(state, own, purpose)):
                if file["sha256"] in suspects and file["path"] in marked:
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
