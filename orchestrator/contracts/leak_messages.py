"""Messages of leak monitoring: the sweep of a release, and what the leak worker does for it. References travel, bytes do not."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchestrator.domain.incident import Trace
from orchestrator.domain.values import Digest, Frozen, Line, Name


class SweepInput(Frozen):
    """The argument of `LeakSweepWorkflow`: look once for everything that a release withholds.

    `most_scans` bounds one sweep, so that its history stays short; the next sweep goes on where it ended.
    """

    release: Name
    most_scans: int = Field(default=200, ge=1, le=1_000)
    at_once: int = Field(default=4, ge=1, le=64)


class SweepPlan(Frozen):
    """What a sweep of a release has to look at; no artifacts: nothing is withheld any more."""

    artifacts: list[Name]
    sources: list[Name]
    parents: list[Name] = Field(default_factory=list, description="public parents that are not signed yet")
    undigested: list[Name] = Field(
        default_factory=list, description="artifacts whose sealed files have not been digested yet"
    )


class PollRequest(Frozen):
    """The argument of `poll_leak_source`. `holder`: who polls; a retry of the same holder goes on with its lease."""

    source: Name
    holder: str


class PollResult(Frozen):
    """What a poll came to: `looked`, `resting` (polled just now, or by somebody else) or `blind`, with the reason."""

    source: Name
    state: Literal["looked", "resting", "blind"]
    new: int = 0
    more: bool = False
    why: str | None = None


class ReleaseRequest(Frozen):
    """The argument of what is done for one release."""

    release: Name


class SortRequest(Frozen):
    """The argument of `sort_suspects`: judge by listings alone what can be, and say what has to be scanned."""

    release: Name
    scans: int = Field(ge=1, le=1_000)


class Sorted(Frozen):
    """What sorting came to.

    Attributes:
        exact: suspects that are ours by a listed digest.
        ruled_out: suspects that cannot be ours.
        scan: keys of suspects that have to be looked into.
        left: there are more than these.
    """

    exact: int
    ruled_out: int
    scan: list[str]
    left: bool


class ScanRequest(Frozen):
    """The argument of `scan_suspect` and `give_up_suspect`."""

    release: Name
    suspect: str


class Scanned(Frozen):
    """Artifact → what the suspect was judged to be."""

    outcomes: dict[Name, str]
    bytes_read: int = 0


class TraceRequest(Frozen):
    """The argument of `LeakTraceWorkflow`: find out whose marked copy a suspect is that became an incident.

    Attributes:
        component: whose marks are looked for.
        suspect: its key.
        artifact: which of ours it was recognised as.
        verdict: digest of the signed verdict that recognised it.
        patience: seconds that custody may be away, or people may take to approve, before the incident says that nobody traced it.
        again: seconds after which custody is asked again while people have to approve.
    """

    release: Name
    incident: Name
    component: Name
    suspect: str
    artifact: Name
    verdict: Digest
    patience: float = Field(default=24 * 3600.0, gt=0)
    again: float = Field(default=60.0, gt=0)


class Told(Frozen):
    """Incidents that were opened or stood already, as `release/incident`; and those whose suspect is to be traced."""

    incidents: list[str]
    traces: list[TraceRequest] = Field(default_factory=list)


class SampleTaken(Frozen):
    """What could be read of a suspect for tracing it, sealed to custody; or why nothing could be.

    Attributes:
        statement: what the monitor signed about it (DSSE); empty when there is none.
        location, key: where it lies, sealed.
        not_traced: why there is none.
    """

    statement: str = ""
    location: Line | None = None
    key: str = ""
    not_traced: str | None = None


class TraceAsked(Frozen):
    """The argument of `trace_suspect`: trace a sealed sample, by what the monitor's statement says of it."""

    release: Name
    sample: SampleTaken


class TraceTold(Frozen):
    """The argument of `tell_trace`: what came of a trace, for the incident."""

    asked: TraceRequest
    trace: Trace


class PrepareRequest(Frozen):
    """The argument of `LeakPrepareWorkflow`, `sign_parent` and `digest_sealed`: a public parent, or an artifact, by name."""

    what: Literal["parent", "sealed"]
    name: Name


class WholeRequest(Frozen):
    """The argument of `compare_whole`: tier 3, a suspect's whole files against an artifact's plaintext, where both lie."""

    suspect: str
    artifact: Name


class WholeResult(Frozen):
    """What tier 3 came to."""

    outcome: str
    verdict: Digest


class SweepResult(Frozen):
    """What one sweep did."""

    looked: list[Name] = Field(default_factory=list)
    blind: list[Name] = Field(default_factory=list)
    new: int = 0
    exact: int = 0
    ruled_out: int = 0
    scanned: int = 0
    incidents: list[str] = Field(default_factory=list)
    left: bool = False
