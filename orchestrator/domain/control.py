"""Controls: guardrails that are in force at a step (paper §6)."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, model_validator

from orchestrator.domain.values import Digest, Duration, Frozen, Instant, Name, Text


class ControlKind(StrEnum):
    """The kinds of control, by the paper's families."""

    # documentation (§6.1)
    MODEL_CARD = "model_card"
    DATASHEET = "datasheet"
    DATA_STATEMENT = "data_statement"
    SYSTEM_CARD = "system_card"
    # technical (§6.2)
    RATE_LIMIT = "rate_limit"
    CONTENT_FILTER = "content_filter"
    DETECTION_MODEL = "detection_model"
    HARD_CODED_RESPONSES = "hard_coded_responses"
    OUTPUT_WATERMARK = "output_watermark"
    WEIGHT_ENCRYPTION = "weight_encryption"
    ADAPTED_MODEL = "adapted_model"
    # community and platform (§6.3)
    BOUNTY = "bounty"
    COMMUNITY_FLAGGING = "community_flagging"
    INPUT_MONITORING = "input_monitoring"
    # organisation and policy (§6.4)
    RISK_POLICY = "risk_policy"
    CODE_OF_CONDUCT = "code_of_conduct"
    USER_ACCOUNTS = "user_accounts"
    SHARING_POLICY = "sharing_policy"
    REGION_LIMITS = "region_limits"
    # legal (§6.5)
    LICENSE = "license"
    PARTNER_TERMS = "partner_terms"


class PlannedControl(Frozen):
    """A control as a step declares it, or waives it with a written reason.

    Attributes:
        parameters: what the kind needs, such as `capacity` (requests) and `refill_per_second` of a rate limit.
        check: `attested` by a named person with evidence, or `probed` by the service against the live endpoint.
        max_age: how old the last attestation or probe may be.
        waived: why this control is not in force at this step; then nothing else is asked of it.
    """

    kind: ControlKind
    parameters: dict[str, str | int | bool | list[str]] = Field(default_factory=dict)
    check: Literal["attested", "probed"] = "attested"
    max_age: Duration | None = None
    waived: Text | None = None

    @model_validator(mode="after")
    def _rate_limit_has_numbers(self) -> Self:
        if self.kind is ControlKind.RATE_LIMIT and self.waived is None:
            for need in ("capacity", "refill_per_second"):
                number = self.parameters.get(need)
                if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                    raise ValueError(
                        f"a rate limit is a token bucket: parameters.{need} must be a whole number above 0"
                    )
        if self.kind is ControlKind.LICENSE and self.waived is None and not self.parameters.get("name"):
            raise ValueError("a license control names the license: parameters.name, such as OpenRAIL-M")
        return self


class ControlReport(Frozen):
    """The last word on one control at one step: in force or not, who said so (a person, or `probe`), when."""

    in_force: bool
    by: Name
    at: Instant
    evidence: Digest | None = None
    note: Text | None = None
