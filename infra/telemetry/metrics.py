"""The metrics of one process: Prometheus text on its health port.

Every name begins with `sluice_`; `docs/metrics.md` lists them all, and a test holds the page to what processes expose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    Histogram,
    Info,
    Metric,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
disable_created_metrics()  # type: ignore[no-untyped-call]  # twice the series, for times that nobody asks for
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Numbers(Collector):
    """Numbers of a part that are read whenever somebody looks: name → (what it is, how it is read)."""

    def __init__(self, numbers: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        self._numbers = numbers

    def collect(self) -> Iterable[Metric]:
        """See base class."""
        for name, (text, read) in self._numbers.items():
            yield GaugeMetricFamily(name, text, value=read())


class Metrics:
    """What one process counts.

    Args:
        process: its role, such as `api` or `worker-releases`.
        build: its build, when it has one.
    """

    def __init__(self, process: str, build: str | None = None) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        info = Info("sluice_process", "What this process is.", registry=self.registry)
        info.info({"process": process, "version": version("sluice-release"), "build": build or ""})
        self._ready = Gauge(
            "sluice_ready",
            "Whether a part that this process needs answers: 1 or 0.",
            ["check"],
            registry=self.registry,
        )
        self._requests = Histogram(
            "sluice_http_request_seconds",
            "Time to answer a request, by route template. Streams count until they end.",
            ["method", "route", "status"],
            buckets=_SECONDS,
            registry=self.registry,
        )

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request. `route` is a template, never a path."""
        known = method if method in {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"} else "other"
        self._requests.labels(known, route, str(status)).observe(seconds)

    def ready(self, check: str, *, answers: bool) -> None:
        """Note whether a part answers."""
        self._ready.labels(check).set(1 if answers else 0)

    def render(self) -> bytes:
        """Everything as Prometheus text. Collectors may ask the database: call it in a thread."""
        return generate_latest(self.registry)
