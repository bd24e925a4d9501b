"""Processes: how much each does at once, how it ends, what it says of itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field

from infra.settings_parts.place import Place


class ProcessSettings(Place):
    """Workers, health, traces, logs."""

    releases_workflow_tasks: int = Field(
        default=16,
        ge=2,
        le=2000,
        description="Workflow tasks that a release worker runs at once. They share one core, and the server gives each ten seconds: so many "
        "that a busy core cannot end them in time are begun again and again, and nothing gets done. What waits, waits better in the queue.",
    )
    releases_activities: int = Field(
        default=32,
        ge=1,
        le=1000,
        description="Activities that a release worker runs at once, each in a thread.",
    )
    releases_cached_workflows: int = Field(
        default=1000, ge=0, le=100_000, description="Open releases that a release worker keeps in memory."
    )
    transfer_activities: int = Field(
        default=4, ge=1, le=100, description="Files that a transfer worker seals or moves at once."
    )
    custody_activities: int = Field(
        default=8, ge=1, le=100, description="Requests that a custody worker answers at once."
    )
    leaks_activities: int = Field(
        default=8, ge=2, le=200, description="Polls and scans that a leak worker runs at once."
    )
    copies_activities: int = Field(
        default=2,
        ge=1,
        le=100,
        description="Copies that a custody worker makes at once: partners' marked copies, and what is sealed anew under fresh keys.",
    )
    shutdown_seconds: float = Field(
        default=10.0,
        ge=0,
        le=3600,
        description="Seconds that a process may finish its work in after SIGTERM.",
    )
    deployment: str = Field(
        default="sluice", min_length=1, description="Deployment name for Temporal's worker versioning."
    )
    build_id: str | None = Field(
        default=None,
        description="Build of the release worker: an open release stays on its build until it wakes while another build is the current "
        "one, so the old worker is kept until then. Unset: a digest over workflow, domain and contract code. The one-machine stack, which keeps no old worker, "
        "uses `one-machine` throughout.",
    )
    health_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port on which a process answers `/healthz`, `/readyz` and `/metrics`. Unset: it answers nowhere (the API has the "
        "first two on its own port as well).",
    )
    health_host: str = Field(
        default="127.0.0.1",
        description="Address on which a process answers its health requests and shows its metrics.",
    )
    temporal_metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Port on which a process shows the Temporal SDK's own metrics, beside its health answers. Unset: they are not made.",
    )
    otlp_endpoint: str | None = Field(
        default=None,
        description="Where traces go, OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`. Unset: nothing is traced.",
    )
    trace_share: float = Field(
        default=1.0, ge=0, le=1, description="Share of requests that are traced, from their first span on."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is logged."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto",
        description="`json`, `console`, or `auto`: console in dev mode on a terminal, else JSON lines.",
    )

    @property
    def shutdown_timeout(self) -> timedelta:
        """How long a process may finish its work after SIGTERM."""
        return timedelta(seconds=self.shutdown_seconds)
