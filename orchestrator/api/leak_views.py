"""Views of leak monitoring: sources and whether they see, suspects and what they were judged to be, public parents."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from orchestrator.api.views import Timed, View
from orchestrator.domain.values import Digest, Frozen, Instant, Line, Name
from orchestrator.records.monitors import SourceStanding


class SourceView(View):
    """A leak source as it stands.

    A source that could not look is blind since `last_success`: `error` says why, `retry_at` when it is asked again.
    """

    name: str = Field(examples=["hub"])
    kind: str = Field(examples=["hub"])
    configured: bool = Field(
        description="whether the leak worker has a setting for it; a plan may name one that it has not"
    )
    sees: bool = Field(description="it looked when it last tried")
    last_success: Instant | None
    last_attempt: Instant | None
    blind_seconds: float | None = Field(description="since it last saw; null: it never did")
    behind_seconds: float = Field(description="how far what it has looked at is behind the newest entry")
    failing_since: Instant | None
    trouble: str | None = Field(examples=["rate_limited"])
    error: str | None
    retry_at: Instant | None
    polls: int
    candidates: int
    limits: dict[str, Any] = Field(
        description="what the other side says about rates", examples=[{"limit": 500, "remaining": 12}]
    )
    notes: list[str]


class MonitorList(Timed):
    """Leak sources, and what cannot be recognised."""

    items: list[SourceView]
    unrecognisable: list[Name] = Field(
        description="artifacts that are withheld and have no weight signature: no copy of them is recognised"
    )
    judged: dict[str, int] = Field(
        description="outcome → judgements; `suspects` → suspects in all",
        examples=[{"suspects": 4211, "no_match": 4190}],
    )


def source_view(source: SourceStanding, now: datetime) -> SourceView:
    """The view of a source."""
    seen = source.last_success
    return SourceView(
        name=source.name,
        kind=source.kind,
        configured=source.configured,
        sees=source.configured and seen is not None and source.error is None,
        last_success=seen,
        last_attempt=source.last_attempt,
        blind_seconds=None if seen is None else max(0.0, (now - seen).total_seconds()),
        behind_seconds=source.behind_seconds,
        failing_since=source.failing_since,
        trouble=source.trouble,
        error=source.error,
        retry_at=source.retry_at,
        polls=source.polls,
        candidates=source.candidates,
        limits=source.limits,
        notes=source.notes,
    )


class JudgementView(View):
    """A suspect, and what it was judged to be when it was held against an artifact."""

    suspect: str = Field(description="what it is deduplicated by", examples=["hf:somebody/model@0123abc"])
    title: str
    source: str
    target: str
    size: int | None
    seen_at: Instant
    artifact: str
    outcome: str = Field(examples=["no_match"])
    tier: int = Field(description="that decided; -1: none did")
    reason: str
    verdict: Digest | None = Field(description="digest of the signed verdict")
    attempts: int
    next_at: Instant | None = Field(description="when it is tried again")
    at: Instant


class JudgementPage(Timed):
    """Judgements, newest first."""

    items: list[JudgementView]
    next_cursor: str | None


class VerdictView(Timed):
    """A signed verdict: `envelope` is the DSSE envelope around an in-toto statement. `log_index`: its entry in the audit log."""

    digest: Digest
    suspect: str
    artifact: str
    outcome: str
    tier: int
    log_index: int
    at: Instant
    verdict_key: str | None = Field(description="the monitor's key, as it stands now; pin it yourself")
    envelope: dict[str, Any]


class ParentBody(Frozen):
    """A public model that ours descend from: what a suspect shares with it is no leak."""

    name: Name = Field(examples=["base-model"])
    place: Line = Field(
        description="`hf:owner/name@revision`, `s3://bucket/prefix`, or a folder of the leak worker's",
        examples=["hf:owner/base"],
    )
    artifact: Name | None = Field(default=None, description="only for this artifact; left out: for all")


class ParentView(View):
    """A public parent. `signed`: artifacts whose verdicts it is taken out of; `errors`: artifact → why not yet."""

    name: str
    place: str
    artifact: str | None
    by: str
    at: Instant
    signed: list[str]
    errors: dict[str, str]


class ParentDetail(ParentView, Timed):
    """A public parent."""


class ParentList(Timed):
    """Public parents, by name."""

    items: list[ParentView]


class MonitorKeyView(Timed):
    """The leak monitor's public keys: who weight signatures are sealed to, and who signs verdicts."""

    recipient: str
    verdict_key: str


class WholeCheckBody(Frozen):
    """Compare the whole of a suspect with the whole of an artifact (tier 3), where the leak worker may read both."""

    suspect: str = Field(min_length=1, max_length=300)
    artifact: Name


class WholeCheckView(Timed):
    """A whole-file check that was asked for; its verdict comes with the suspect's judgement."""

    id: str
