"""Components of a system in the paper's three categories, and why one may be withheld (§3)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from orchestrator.domain.values import Frozen, Line, Name, Text


class Category(StrEnum):
    """What a component is for (§3.1-3.3)."""

    MODEL = "model"
    RISK_ANALYSIS = "risk_analysis"
    REPLICATION = "replication"


class Kind(StrEnum):
    """What a component is."""

    WEIGHTS = "weights"
    TOKENIZER = "tokenizer"
    MODEL_CONFIG = "model_config"
    INFERENCE_CODE = "inference_code"
    QUERY_ACCESS = "query_access"
    TRAINING_DATA = "training_data"
    FINE_TUNING_DATA = "fine_tuning_data"
    DATA_COLLECTION_PROCESS = "data_collection_process"
    CROWDWORKER_INFORMATION = "crowdworker_information"
    EVALUATION_RESULTS = "evaluation_results"
    MODEL_CARD = "model_card"
    SYSTEM_CARD = "system_card"
    DATASHEET = "datasheet"
    DATA_STATEMENT = "data_statement"
    TECHNICAL_PAPER = "technical_paper"
    TRAINING_CODE = "training_code"
    TRAINING_CONFIGURATION = "training_configuration"
    TRAINING_TELEMETRY = "training_telemetry"


CATEGORY_OF_KIND: dict[Kind, Category] = {
    kind: category
    for category, kinds in {
        Category.MODEL: (
            Kind.WEIGHTS,
            Kind.TOKENIZER,
            Kind.MODEL_CONFIG,
            Kind.INFERENCE_CODE,
            Kind.QUERY_ACCESS,
        ),
        Category.RISK_ANALYSIS: (
            Kind.TRAINING_DATA,
            Kind.FINE_TUNING_DATA,
            Kind.DATA_COLLECTION_PROCESS,
            Kind.CROWDWORKER_INFORMATION,
            Kind.EVALUATION_RESULTS,
            Kind.MODEL_CARD,
            Kind.SYSTEM_CARD,
            Kind.DATASHEET,
            Kind.DATA_STATEMENT,
        ),
        Category.REPLICATION: (
            Kind.TECHNICAL_PAPER,
            Kind.TRAINING_CODE,
            Kind.TRAINING_CONFIGURATION,
            Kind.TRAINING_TELEMETRY,
        ),
    }.items()
    for kind in kinds
}


class WithholdingReason(StrEnum):
    """Why a component is withheld (§3.2, §3.3)."""

    INTELLECTUAL_PROPERTY = "intellectual_property"
    CONSENT = "consent"
    PRIVACY = "privacy"
    COMPETITION = "competition"
    MISUSE = "misuse"


class Withheld(Frozen):
    """A component that is not released, and why. It keeps the release below `open`."""

    reason: WithholdingReason
    note: Text | None = None


class Mark(Frozen):
    """Every partner's copy of these weights is marked, so that a leaked one tells whose it was (docs/leaks.md).

    Attributes:
        strength: of the mark, in standard deviations of each row of weights.
    """

    strength: Annotated[
        float, Field(gt=0, le=0.01, description="of the mark, in standard deviations of each row of weights")
    ] = 0.003


class Component(Frozen):
    """A named part of the system.

    Attributes:
        category: one of the paper's three; must be the one that `kind` belongs to.
        kind: what it is.
        variant: which of several sizes or versions (GPT-2 came in four, §5.2), or None.
        documentation: where its basic documentation is; needed for `open` (§5).
        withheld: why it is never released by this plan, or None.
        mark: whether partners' copies of these weights are marked; None (as by default) leaves them as they are.
    """

    category: Category
    kind: Kind
    variant: Name | None = None
    description: Text | None = None
    documentation: Line | None = None
    withheld: Withheld | None = None
    mark: Mark | None = Field(default=None, exclude_if=lambda value: value is None)

    @model_validator(mode="after")
    def _kind_in_category(self) -> Self:
        right = CATEGORY_OF_KIND[self.kind]
        if right is not self.category:
            raise ValueError(f"`{self.kind}` belongs to the category `{right}`, not `{self.category}`")
        return self

    @property
    def has_files(self) -> bool:
        """Whether it consists of files that are sealed; query access is a way in, not a file."""
        return self.kind is not Kind.QUERY_ACCESS
