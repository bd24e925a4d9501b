"""Incidents: a leak, misuse or harm that was seen; open until someone triages and closes it."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from orchestrator.domain.values import Digest, Frozen, Instant, Line, Name, Text


class IncidentKind(StrEnum):
    """What was seen."""

    LEAK = "leak"
    MISUSE = "misuse"
    HARM = "harm"


class Severity(StrEnum):
    """How bad it is. A `severe` one stops the research window and takes a quorum to close, as every leak does."""

    LOW = "low"
    MODERATE = "moderate"
    SEVERE = "severe"

    @property
    def rank(self) -> int:
        """0 (low) to 2 (severe)."""
        return list(Severity).index(self)


class Confidence(StrEnum):
    """Whether it is known to be true. A confirmed leak holds every release that shares the weights."""

    REPORTED = "reported"
    SUSPECTED = "suspected"
    CONFIRMED = "confirmed"
    FALSE_ALARM = "false_alarm"


class ResponseAction(StrEnum):
    """What the plan's response table can do about an incident."""

    NOTIFY = "notify"
    HOLD = "hold"
    REVOKE_GRANTS = "revoke_grants"
    ROLL_BACK = "roll_back"
    ROTATE_KEYS = "rotate_keys"


class TracedPartner(Frozen):
    """What a trace says of one partner.

    Attributes:
        partner: whose mark it is; `*` and a name: a copy that everybody may have.
        z: standard normal for an innocent one; None where nothing could be compared.
        suspicion: `accused` at z ≥ 8 or by a file of exactly its copy, `investigate` from 6, else `clear`.
    """

    partner: Line
    z: float | None = None
    suspicion: Literal["accused", "investigate", "clear", "not_compared"]


class Trace(Frozen):
    """Whose copy a suspect is, as custody found; or why nobody could be looked for.

    Attributes:
        component: whose marks were looked for.
        report: digest of the report that custody signed; None where there is none.
        partners: every partner with its z, largest first, at most 200; the report names all.
        not_traced: why nothing could be compared, which acquits nobody.
    """

    component: Name
    report: Digest | None = None
    partners: list[TracedPartner] = Field(default_factory=list, max_length=200)
    not_traced: Text | None = None
    at: Instant


class Incident(Frozen):
    """One incident as the release knows it.

    Attributes:
        components: what of ours is concerned; empty means all of it.
        partner: whose copy it seems to be, when that is known; of several, who was named last.
        partners: everybody who was named, in that order: several may be guilty.
        traces: what custody found when it looked for marks, and why it could not; the newest 20.
        sighting: a reference to what was seen and where.
        triaged_at: when somebody first looked and judged; None until then.
        closed_at: when it was closed with `outcome`; None while it is open.
        quorum: a leak: closing it takes the plan's quorum, however small it is.
    """

    id: Name
    kind: IncidentKind
    severity: Severity
    confidence: Confidence
    summary: Text
    components: list[Name]
    partner: Name | None = None
    partners: list[Name] = Field(default_factory=list, exclude_if=lambda value: not value)
    traces: list[Trace] = Field(default_factory=list, exclude_if=lambda value: not value)
    sighting: Text | None = None
    by: Name
    at: Instant
    triaged_by: Name | None = None
    triaged_at: Instant | None = None
    closed_at: Instant | None = None
    outcome: Text | None = None
    quorum: bool = Field(default=False, exclude_if=lambda value: not value)

    @property
    def closed_by_quorum(self) -> bool:
        """Whether one person cannot close it: a severe one, and a leak of any severity."""
        return self.quorum or self.severity is Severity.SEVERE

    @property
    def named(self) -> list[str]:
        """Everybody whose copy it seems to be."""
        own = self.partner is None or self.partner in self.partners
        return list(self.partners) if own else [*self.partners, str(self.partner)]

    @property
    def open(self) -> bool:
        """Whether it still closes gates."""
        return self.closed_at is None

    @property
    def severe(self) -> bool:
        """Whether it is open, severe and not judged a false alarm: it stops the research window."""
        return (
            self.open and self.severity is Severity.SEVERE and self.confidence is not Confidence.FALSE_ALARM
        )
