"""Traces: one span tree from the API call through workflow and activities to database, store and key service.

Off unless `SLUICE_OTLP_ENDPOINT` is set. Spans go out over OTLP/HTTP; what they say passes the net of `infra.logs` first, so that a
presigned address or a token in an error's text does not leave this way. SQL stands in spans with placeholders, never with values.
Workflow spans are made once, not again on replay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.botocore import BotocoreInstrumentor
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import set_tracer_provider
from opentelemetry.trace.status import Status
from temporalio.contrib.opentelemetry import (
    OpenTelemetryInterceptor,
    ReplaySafeTracerProvider,
    create_tracer_provider,
)

from infra.logs import redact
from infra.settings import Settings

_QUIET_PATHS = "healthz,readyz,metrics"


class RedactingExporter(SpanExporter):
    """Hands spans on with everything blanked that looks like a secret."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See base class."""
        return self._inner.export([_clean(span) for span in spans])

    def shutdown(self) -> None:
        """See base class."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """See base class."""
        return self._inner.force_flush(timeout_millis)


def _clean(span: ReadableSpan) -> ReadableSpan:
    status = span.status
    return ReadableSpan(
        name=redact(span.name),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=redact(dict(span.attributes or {})),
        events=[
            Event(redact(event.name), redact(dict(event.attributes or {})), event.timestamp)
            for event in span.events
        ],
        links=span.links,
        kind=span.kind,
        instrumentation_scope=span.instrumentation_scope,
        status=Status(status.status_code, redact(status.description) if status.description else None),
        start_time=span.start_time,
        end_time=span.end_time,
    )


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
        FastAPIInstrumentor.instrument_app(app, excluded_urls=_QUIET_PATHS, exclude_spans=["receive", "send"])


def temporal_interceptors(settings: Settings) -> list[Any]:
    """What carries a trace from client to workflow to activity; empty when nothing is traced."""
    return [] if settings.otlp_endpoint is None else [OpenTelemetryInterceptor(add_temporal_spans=True)]
