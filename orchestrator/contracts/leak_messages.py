"""Messages of leak monitoring: the sweep of a release, and what the leak worker does for it. References travel, bytes do not."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchestrator.domain.values import Digest, Frozen, Name


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


class Told(Frozen):
    """Incidents that were opened or stood already, as `release/incident`."""

    incidents: list[str]


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
