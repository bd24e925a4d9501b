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
    renew: list[Name] = Field(
        description="artifacts that were sealed anew, and that it waits for an envelope of"
    )
    receipt_keys: list[str] = Field(description="keys that its holder's client may sign receipts with")
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


def artifacts_of_grant(state: ReleaseState, grant: Grant) -> list[ArtifactOfRelease]:
    """The artifacts that a grant's files lie in: its own copies, where it has any, in the place of what they were made from."""
    copied = {copy.of for copy in grant.copies}
    plain = [found for found in artifacts_of(state, grant.components) if found.id not in copied]
    own = [
        ArtifactOfRelease(
            id=copy.artifact,
            manifest_digest=copy.manifest_digest,
            components=copy.components,
            location=copy.location,
            size=copy.size,
            by="custody",
            at=grant.made_at,
        )
        for copy in grant.copies
    ]
    return sorted([*plain, *own], key=lambda found: found.id)


def _receipt_keys(state: ReleaseState, grant: Grant) -> list[str]:
    known = state.plan.partners.get(grant.holder) if grant.holder_kind == "partner" else None
    return [] if known is None else list(known.receipt_keys)


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
        artifacts=artifacts_of_grant(state, grant),
        recipient=grant.recipient,
        envelopes=sorted(grant.envelopes),
        renew=grant.renew,
        receipt_keys=_receipt_keys(state, grant),
        live=grant.live,
        on_hold=bool(state.holds),
        made_at=grant.made_at,
        not_after=grant.not_after,
        disclosed_at=grant.disclosed_at,
        ended_at=grant.ended_at,
        end=grant.end,
    )
