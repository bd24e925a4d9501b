"""Traces: one span tree from the API call through workflow and activities to database, store and key service.

Off unless `SLUICE_OTLP_ENDPOINT` is set. Spans go out over OTLP/HTTP; what they say passes the net of `infra.logs` first, so that a
presigned address or a token in an error's text does not leave this way. SQL stands in spans with placeholders, never with values.
Workflow spans are made once, not again on replay.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from infra.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI
    from opentelemetry.sdk.trace.export import SpanExporter
    from temporalio.contrib.opentelemetry import ReplaySafeTracerProvider

# What is heavy is imported where it is used: a process that traces nothing starts a second earlier.

_QUIET_PATHS = "healthz,readyz,metrics"


@dataclass(frozen=True, slots=True)
class Tracing:
    """Tracing of one process."""

    provider: ReplaySafeTracerProvider

    def close(self) -> None:
        """Send what is left, and end."""
        self.provider.force_flush(5_000)
        self.provider.shutdown()


def start_tracing(
    settings: Settings, process: str, *, exporter: SpanExporter | None = None
) -> Tracing | None:
    """Begin to trace this process; None when no endpoint is set. Once a process, before engines and clients are made.

    Args:
        settings: endpoint and share of traces.
        process: its role.
        exporter: where spans go instead of the endpoint (tests).
    """
    if settings.otlp_endpoint is None and exporter is None:
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.botocore import BotocoreInstrumentor
    from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
    from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    from opentelemetry.trace import set_tracer_provider
    from temporalio.contrib.opentelemetry import create_tracer_provider

    from infra.telemetry.spans import RedactingExporter

    resource = Resource.create(
        {
            "service.name": f"sluice-{process}",
            "service.namespace": settings.deployment,
            "service.version": version("sluice-release"),
        }
    )
    provider = create_tracer_provider(
        sampler=ParentBased(TraceIdRatioBased(settings.trace_share)),
        resource=resource,
        shutdown_on_exit=False,
    )
    sending = exporter or OTLPSpanExporter(endpoint=settings.otlp_endpoint, timeout=5)
    provider.add_span_processor(BatchSpanProcessor(RedactingExporter(sending), schedule_delay_millis=1_000))
    set_tracer_provider(provider)
    for instrumentor in (BotocoreInstrumentor, HTTPXClientInstrumentor):
        instrumentor().instrument(tracer_provider=provider)
    # it declares SQLAlchemy below 2.1; the events that it listens to are the same there, which a test holds
    SQLAlchemyInstrumentor().instrument(tracer_provider=provider, skip_dep_check=True)
    return Tracing(provider)


def trace_application(settings: Settings, app: FastAPI) -> None:
    """Make a span of each request, named by its route, when this process is traced."""
    if settings.otlp_endpoint is not None:
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

        FastAPIInstrumentor.instrument_app(app, excluded_urls=_QUIET_PATHS, exclude_spans=["receive", "send"])


def temporal_interceptors(settings: Settings) -> list[Any]:
    """What carries a trace from client to workflow to activity; empty when nothing is traced."""
    if settings.otlp_endpoint is None:
        return []
    from temporalio.contrib.opentelemetry import OpenTelemetryInterceptor

    return [OpenTelemetryInterceptor(add_temporal_spans=True)]
