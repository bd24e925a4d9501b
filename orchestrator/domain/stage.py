"""The gradient of access (paper §5) and the second axis, the audience (§5.3)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from orchestrator.domain.values import Frozen, Name


class Stage(StrEnum):
    """A level of access. Ordered: `Stage.CLOSED < Stage.HOSTED < … < Stage.OPEN`."""

    CLOSED = "closed"
    HOSTED = "hosted"
    API = "api"
    DOWNLOADABLE = "downloadable"
    OPEN = "open"

    @property
    def rank(self) -> int:
        """Its place on the gradient, 0 (closed) to 4 (open)."""
        return _ORDER.index(self)

    @property
    def reversible(self) -> bool:
        """Whether access can be taken back: a downloaded copy cannot be recalled (§5.2)."""
        return self.rank < Stage.DOWNLOADABLE.rank

    @property
    def serves(self) -> bool:
        """Whether the model is served by deployments of our own while its weights stay (`hosted`, `api`)."""
        return self in {Stage.HOSTED, Stage.API}

    def __lt__(self, other: object) -> bool:
        """Whether this stage gives less access than `other`."""
        return self.rank < other.rank if isinstance(other, Stage) else NotImplemented

    def __le__(self, other: object) -> bool:
        """Whether this stage gives at most the access of `other`."""
        return self.rank <= other.rank if isinstance(other, Stage) else NotImplemented

    def __gt__(self, other: object) -> bool:
        """Whether this stage gives more access than `other`."""
        return self.rank > other.rank if isinstance(other, Stage) else NotImplemented

    def __ge__(self, other: object) -> bool:
        """Whether this stage gives at least the access of `other`."""
        return self.rank >= other.rank if isinstance(other, Stage) else NotImplemented


_ORDER = (Stage.CLOSED, Stage.HOSTED, Stage.API, Stage.DOWNLOADABLE, Stage.OPEN)


class PartnerAudience(Frozen):
    """A gated audience: the partners of the named groups (§5.3)."""

    partners: Annotated[list[Name], Field(min_length=1, description="names of partner groups of the plan")]


def _audience(value: Any) -> Any:
    if isinstance(value, str) and value not in {"internal", "public"}:
        raise ValueError("an audience is `internal`, `public`, or `partners:` with a list of partner groups")
    return value


Audience = Annotated[Literal["internal", "public"] | PartnerAudience, BeforeValidator(_audience)]


def audience_words(audience: Literal["internal", "public"] | PartnerAudience) -> str:
    """The audience in one phrase, as people read it and as a sign-off names it."""
    if isinstance(audience, PartnerAudience):
        return "partners: " + ", ".join(sorted(audience.partners))
    return audience
