"""Evidence bound by digest, and the risk assessment that answers the six considerations (paper §4, §6.1)."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import model_validator

from orchestrator.domain.values import Digest, Frozen, Instant, Line, Name, Text


class EvidenceKind(StrEnum):
    """What a document is."""

    MODEL_CARD = "model_card"
    SYSTEM_CARD = "system_card"
    DATASHEET = "datasheet"
    DATA_STATEMENT = "data_statement"
    EVALUATION_RESULT = "evaluation_result"
    RISK_ASSESSMENT = "risk_assessment"


class Consideration(StrEnum):
    """The six considerations of a release (§4.1-4.6)."""

    CONCENTRATION_OF_POWER = "concentration_of_power"
    DISPARATE_PERFORMANCE = "disparate_performance"
    MISUSE = "misuse"
    AUDITABILITY = "auditability"
    ACCOUNTABILITY = "accountability"
    VALUE_JUDGMENTS = "value_judgments"


class Rating(StrEnum):
    """How bad a finding is. `unacceptable` closes the gate whoever signs."""

    LOW = "low"
    MODERATE = "moderate"
    HIGH = "high"
    UNACCEPTABLE = "unacceptable"


class Finding(Frozen):
    """One consideration's answer: what was found, how bad it is, what is done about it."""

    finding: Text
    rating: Rating
    mitigation: Text


class RiskAssessment(Frozen):
    """The document form of a risk assessment: all six considerations, for one step."""

    step: Name
    considerations: dict[Consideration, Finding]

    @model_validator(mode="after")
    def _all_six(self) -> Self:
        missing = [c.value for c in Consideration if c not in self.considerations]
        if missing:
            raise ValueError(
                "a risk assessment answers all six considerations; missing: " + ", ".join(missing)
            )
        return self

    @property
    def ratings(self) -> dict[Consideration, Rating]:
        """The ratings alone: what the gate looks at, and all of the text that leaves the document."""
        return {consideration: finding.rating for consideration, finding in self.considerations.items()}


class Evidence(Frozen):
    """A document as the release knows it: its digest and where it lies, never its text.

    Attributes:
        step: the step that it belongs to, or None when it holds for every step (never for a risk assessment).
        location: where people who sign can read it.
        ratings: of a risk assessment, the six ratings.
    """

    id: Name
    kind: EvidenceKind
    digest: Digest
    title: Line
    step: Name | None = None
    location: Line | None = None
    ratings: dict[Consideration, Rating] | None = None
    by: Name
    at: Instant

    @property
    def unacceptable(self) -> list[Consideration]:
        """Considerations rated `unacceptable`."""
        return [c for c, rating in (self.ratings or {}).items() if rating is Rating.UNACCEPTABLE]
