"""Incidents: a leak, misuse or harm that was seen; open until someone triages and closes it."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from orchestrator.domain.values import Frozen, Instant, Name, Text


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


class Incident(Frozen):
    """One incident as the release knows it.

    Attributes:
        components: what of ours is concerned; empty means all of it.
        partner: whose copy it seems to be, when that is known.
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
    def open(self) -> bool:
        """Whether it still closes gates."""
        return self.closed_at is None

    @property
    def severe(self) -> bool:
        """Whether it is open, severe and not judged a false alarm: it stops the research window."""
        return (
            self.open and self.severity is Severity.SEVERE and self.confidence is not Confidence.FALSE_ALARM
        )
