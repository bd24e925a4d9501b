"""The Temporal SDK's own metrics (polls, task latencies, cache, sealed bytes), in Prometheus form on a port of their own.

The SDK's core serves them itself; one runtime serves a whole process, so it is made once.
"""

from __future__ import annotations

from functools import lru_cache

from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig

from infra.settings import InvalidSettingError, Settings


def runtime_for(settings: Settings) -> Runtime | None:
    """The runtime with metrics on their port; None when no port is set (the SDK's default).

    Raises:
        InvalidSettingError: the port is taken.
    """
    if settings.temporal_metrics_port is None:
        return None
    return _runtime(f"{settings.health_host}:{settings.temporal_metrics_port}")


@lru_cache(maxsize=1)
def _runtime(address: str) -> Runtime:
    serving = PrometheusConfig(
        bind_address=address, counters_total_suffix=True, unit_suffix=True, durations_as_seconds=True
    )
    try:
        return Runtime(telemetry=TelemetryConfig(metrics=serving))
    except (RuntimeError, ValueError) as error:
        raise InvalidSettingError(
            f"SLUICE_TEMPORAL_METRICS_PORT: nothing can be served at {address}: {error}"
        ) from None
