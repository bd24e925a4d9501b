"""What of a release can leak, how bad that is, and which other releases share it. Pure.

Severity follows from who could lawfully have it so far:

    nobody outside         severe
    partners under a gate  moderate
    everybody              nothing: it is out already

What is no weights is one step milder. Confidence follows from the evidence: a match is `confirmed`, a part of it or a copy
that is still sealed is `suspected`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Literal

from orchestrator.domain.commands import SERVICE, ReportIncident, TriageIncident
from orchestrator.domain.component import Kind
from orchestrator.domain.deciding import short_id
from orchestrator.domain.errors import Conflict, NotFound, Reason
from orchestrator.domain.incident import Confidence, Incident, IncidentKind, Severity
from orchestrator.domain.stage import Stage
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import Digest, Frozen, Line, Name, Text

Evidence = Literal["exact", "sketch", "partial", "sealed", "token"]
_MILDER = {Severity.SEVERE: Severity.MODERATE, Severity.MODERATE: Severity.LOW, Severity.LOW: Severity.LOW}
#: Ids of incidents that the monitor opens begin so, and of those that follow another release's.
MONITOR_PREFIX, SHARED_PREFIX = "leak", "shared"


class Sighting(Frozen):
    """One suspect that is, or may be, one of our artifacts.

    Attributes:
        candidate: what the suspect is deduplicated by.
        artifact: which of ours it is; None for a honey token, which stands for no artifact.
        evidence: `exact` a listed digest, `sketch` recognised weights, `partial` some of them, `sealed` our ciphertext,
            `token` a honey token that was touched.
        place: where it was seen, printable.
        verdict: digest of the signed verdict.
        copies: partners whose own issued copy it is, bit for bit.
    """

    candidate: str
    artifact: Name | None
    evidence: Evidence
    place: Line
    verdict: Digest | None = None
    copies: tuple[str, ...] = ()

    @property
    def incident(self) -> str:
        """The id of the incident: one sighting, one incident, however often it is reported."""
        return short_id(MONITOR_PREFIX, self.candidate, self.artifact or "")


def public_components(state: ReleaseState) -> frozenset[str]:
    """Components that everybody can download: what a later step took back is out all the same."""
    found: set[str] = set()
    for entered in state.history:
        step = state.plan.step(entered.step)
        if step is not None and entered.stage >= Stage.DOWNLOADABLE and step.audience == "public":
            found |= set(step.component_names)
    return frozenset(found)


def watched_artifacts(state: ReleaseState) -> dict[str, list[str]]:
    """Artifact → its components with files that not everybody has; empty when nothing is withheld or the release ended."""
    if state.ended:
        return {}
    out = public_components(state)
    found: dict[str, list[str]] = {}
    for component, artifact in sorted(state.carried_by.items()):
        known = state.plan.components.get(component)
        if component not in out and known is not None and known.has_files:
            found.setdefault(artifact, []).append(component)
    return found


def monitored_sources(state: ReleaseState) -> dict[str, timedelta]:
    """Leak source that the plan's gates name → the shortest blindness that one of them allows."""
    found: dict[str, timedelta] = {}
    for step in state.plan.steps:
        for monitor in step.gate.monitors:
            found[monitor.source] = min(monitor.max_blind, found.get(monitor.source, monitor.max_blind))
    return found


def severity_of(state: ReleaseState, components: Collection[str]) -> Severity:
    """How bad it is that these components are where they should not be."""
    worst = Severity.LOW
    out = public_components(state)
    for name in components:
        known = state.plan.components.get(name)
        if known is None or name in out:
            continue
        reached = state.reached.get(name, Stage.CLOSED)
        here = Severity.MODERATE if reached >= Stage.DOWNLOADABLE else Severity.SEVERE
        if known.kind is not Kind.WEIGHTS:
            here = _MILDER[here]
        worst = max(worst, here, key=lambda severity: severity.rank)
    return worst


def report_of(state: ReleaseState, sighting: Sighting) -> ReportIncident | None:
    """The command that opens the incident of a sighting; None when the release has nothing to fear from it.

    The id of incident and command derive from the sighting, so that reporting it again changes nothing.
    """
    if sighting.artifact is None:
        components = sorted({name for names in watched_artifacts(state).values() for name in names})
    else:
        components = watched_artifacts(state).get(sighting.artifact, [])
    if not components:
        return None
    weights = [name for name in components if state.plan.components[name].kind is Kind.WEIGHTS]
    if sighting.evidence in {"sketch", "partial"} and weights:
        components = weights
    severity = severity_of(state, components)
    sure = sighting.evidence in {"exact", "sketch"}
    if sighting.evidence in {"sealed", "token"}:
        severity = Severity.LOW if sighting.evidence == "sealed" else Severity.MODERATE
    elif not sure:
        severity = _MILDER[severity]
    ours = [name for name in sighting.copies if name in state.plan.partners]
    return ReportIncident(
        command_id=sighting.incident,
        actor=SERVICE,
        incident=sighting.incident,
        kind=IncidentKind.LEAK,
        severity=severity,
        confidence=Confidence.CONFIRMED if sure else Confidence.SUSPECTED,
        summary=_summary(sighting, components),
        components=components,
        partner=ours[0] if len(ours) == 1 else None,
        sighting=_reference(sighting),
    )


def _summary(sighting: Sighting, components: Collection[str]) -> Text:
    what = ", ".join(sorted(components))
    words = {
        "exact": f"A file that we issued ({what}) is at {sighting.place}",
        "sketch": f"Weights of ours ({what}) are recognised in {sighting.place}",
        "partial": f"Some tensors of ours ({what}) are recognised in {sighting.place}; look at the whole file",
        "sealed": f"Our sealed files of {what} are copied to {sighting.place}; without a key they open for nobody",
        "token": f"A honey token was touched: {sighting.place}",
    }[sighting.evidence]
    whose = f"; issued to: {', '.join(sighting.copies)}" if sighting.copies else ""
    return (words + whose)[:4_000]


def _reference(sighting: Sighting) -> str:
    return sighting.place if sighting.verdict is None else f"verdict {sighting.verdict}: {sighting.place}"


def surer(incident: Incident, report: ReportIncident) -> TriageIncident | None:
    """What a later look at the same suspect makes of its incident: confirmed, where it was only suspected; None: nothing.

    What people judged to be a false alarm, or closed, stays so.
    """
    doubted = incident.confidence in {Confidence.REPORTED, Confidence.SUSPECTED}
    if not (incident.open and doubted and report.confidence is Confidence.CONFIRMED):
        return None
    return TriageIncident(
        command_id=short_id("surer", incident.id, report.sighting or ""),
        actor=SERVICE,
        incident=incident.id,
        severity=max(incident.severity, report.severity, key=lambda severity: severity.rank),
        confidence=Confidence.CONFIRMED,
        partner=report.partner,
        note=f"looked at again: {report.sighting or report.summary}"[:4_000],
    )


def traceable(state: ReleaseState, components: Collection[str]) -> list[str]:
    """Those of these components of which marked copies were issued: whoever got them can be told apart."""
    issued = {
        component for grant in state.grants.values() for copy in grant.copies for component in copy.components
    }
    known = state.plan.components
    return [name for name in components if name in issued and name in known and known[name].mark is not None]


def whose_copies(state: ReleaseState, report: ReportIncident, sighting: Sighting) -> list[TriageIncident]:
    """Where the own copies of several partners were found: a judgement for each, whose grants the response table then revokes."""
    ours = [name for name in sighting.copies if name in state.plan.partners]
    if len(ours) < 2:
        return []
    return [
        TriageIncident(
            command_id=short_id("copy-of", report.incident, partner),
            actor=SERVICE,
            incident=report.incident,
            severity=report.severity,
            confidence=report.confidence,
            partner=partner,
            note=f"a file that was issued to {partner} and to nobody else",
        )
        for partner in ours
    ]


def traced_incident(state: ReleaseState, component: str, named: str | None = None) -> Incident:
    """The open leak that a trace of a component belongs to: the named one, or the only one.

    Raises:
        NotFound: there is none.
        Conflict: there are several, or the named one is closed or no leak.
    """
    if named is not None:
        incident = state.incidents.get(named)
        if incident is None:
            raise NotFound(f"there is no incident {named}")
        if not incident.open or incident.kind is not IncidentKind.LEAK:
            raise Conflict(f"{named} is {'no leak' if incident.open else 'closed'}")
        return incident
    found = [
        incident
        for incident in state.open_incidents
        if incident.kind is IncidentKind.LEAK
        and (not incident.components or component in incident.components)
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotFound(
            f"no open leak is about {component}",
            [Reason("incident", "report one, then name it with --incident", "incident")],
        )
    raise Conflict(
        f"several open leaks are about {component}",
        [Reason("incident", f"name one with --incident: {', '.join(i.id for i in found)}", "incident")],
    )


def traced(
    state: ReleaseState, incident: Incident, accused: Sequence[str], document: Digest
) -> list[TriageIncident]:
    """What a trace makes of an incident: a confirmed one of each accused partner, whose grants the response table then revokes.

    Args:
        state: the release.
        incident: an open leak of it.
        accused: holders of the copies that were found, exactly or by their mark at z ≥ 8. Only partners of the plan count:
            a copy that everybody may have is nobody's.
        document: digest of the signed report. The same report changes nothing a second time.
    """
    return [
        TriageIncident(
            command_id=short_id("traced", incident.id, document, partner),
            actor=SERVICE,
            incident=incident.id,
            severity=incident.severity,
            confidence=Confidence.CONFIRMED,
            partner=partner,
            note=f"traced to the copy of {partner}: report {document}",
        )
        for partner in sorted(set(accused))
        if partner in state.plan.partners
    ]


def confirmed_weights(state: ReleaseState, incident: Incident) -> list[str]:
    """The weights that a confirmed leak is about; empty when it is none, or is judged a false alarm."""
    if incident.kind is not IncidentKind.LEAK or incident.confidence is not Confidence.CONFIRMED:
        return []
    named = incident.components or sorted(state.carried_by)
    return [
        name
        for name in named
        if name in state.plan.components and state.plan.components[name].kind is Kind.WEIGHTS
    ]


def sharing(
    state: ReleaseState, components: Collection[str], other: ReleaseState, alike: Mapping[str, str]
) -> list[str]:
    """Components of `other` that carry the same weights as these components of `state`.

    Args:
        state: the release whose weights leaked.
        components: which.
        other: another release.
        alike: artifact → a name that artifacts with the same weights share, where the monitor knows it.
    """
    leaked = {state.carried_by[name] for name in components if name in state.carried_by}
    manifests = {state.artifacts[name].manifest_digest for name in leaked if name in state.artifacts}
    same = {alike[name] for name in leaked if name in alike}
    found = []
    for name, artifact in sorted(other.carried_by.items()):
        known = other.plan.components.get(name)
        registered = other.artifacts.get(artifact)
        if known is None or known.kind is not Kind.WEIGHTS or registered is None:
            continue
        if artifact in leaked or registered.manifest_digest in manifests or alike.get(artifact) in same:
            found.append(name)
    return found


def shared_incident(release: str, incident: Incident) -> str | None:
    """The id that a confirmed leak of one release has in the others; None where it came from another one itself."""
    if incident.by == SERVICE.id and incident.id.startswith(f"{SHARED_PREFIX}-"):
        return None
    if incident.by == SERVICE.id and incident.id.startswith(f"{MONITOR_PREFIX}-"):
        return incident.id
    return short_id(SHARED_PREFIX, release, incident.id)


def shared_report(release: str, incident: Incident, components: list[str], *, as_id: str) -> ReportIncident:
    """The command that opens a confirmed leak of `release` in another release that shares the weights."""
    told = (
        f"Confirmed leak of weights shared with {release} (incident {incident.id} there): {incident.summary}"
    )
    return ReportIncident(
        command_id=f"shared:{release}:{incident.id}"[:128],
        actor=SERVICE,
        incident=as_id,
        kind=IncidentKind.LEAK,
        severity=incident.severity,
        confidence=Confidence.CONFIRMED,
        summary=told[:4_000],
        components=components,
        sighting=incident.sighting,
    )
