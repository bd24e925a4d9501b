"""What the API shows of grants: who has access to what, and what its holder needs to find and check its files."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.api.views import ArtifactOfRelease, Timed, View, artifacts_of
from orchestrator.domain.events import Grant
from orchestrator.domain.stage import Stage
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import Digest, Instant, Line, Name


class GrantView(View):
    """One holder's access to one step's components.

    `disclosed_at` tells whether revoking is complete (null) or cuts the future alone.
    """

    id: Annotated[str, Field(examples=["download.4.uni"])]
    release: Name
    name: Line
    version: Line
    step: Name
    stage: Stage
    holder: Name
    holder_kind: Literal["partner", "deployment", "public", "internal"]
    kind: Literal["access", "key", "public"]
    components: list[Name]
    artifacts: list[ArtifactOfRelease]
    recipient: Digest | None
    envelopes: list[Name] = Field(description="artifacts that there is an envelope of")
    live: bool
    on_hold: bool = Field(description="no key is handed over while the release is on hold")
    made_at: Instant
    not_after: Instant | None
    disclosed_at: Instant | None
    ended_at: Instant | None
    end: str | None


class GrantPage(Timed):
    """Grants, newest first."""

    items: list[GrantView]
    next_cursor: str | None


class GrantDetail(GrantView, Timed):
    """A grant."""


def grant_view(state: ReleaseState, grant: Grant) -> GrantView:
    """A grant with what its holder needs to find and check its files."""
    step = state.plan.step(grant.step)
    return GrantView(
        id=grant.id,
        release=state.release,
        name=state.name,
        version=state.version,
        step=grant.step,
        stage=state.stage if step is None else step.stage,
        holder=grant.holder,
        holder_kind=grant.holder_kind,
        kind=grant.kind,
        components=grant.components,
        artifacts=artifacts_of(state, grant.components),
        recipient=grant.recipient,
        envelopes=sorted(grant.envelopes),
        live=grant.live,
        on_hold=bool(state.holds),
        made_at=grant.made_at,
        not_after=grant.not_after,
        disclosed_at=grant.disclosed_at,
        ended_at=grant.ended_at,
        end=grant.end,
    )
