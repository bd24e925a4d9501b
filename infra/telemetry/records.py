"""What the records say in numbers, for Prometheus. Every release worker shows the same: dashboards take the maximum.

One look asks the database at most every few seconds, however often it is scraped. A database that does not answer is shown as
`sluice_records_up 0`, and nothing else is shown then: numbers of before would look like numbers of now.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Engine

from orchestrator.domain.errors import SluiceError
from orchestrator.records import gauges
from orchestrator.records.database import reading


class RecordsCollector(Collector):
    """Reads gauges from the records and counts what is new in the audit log.

    Args:
        engine: of the records.
        fresh_for: seconds that one look serves for.
        clock: the time (aware).
    """

    def __init__(
        self,
        engine: Engine,
        *,
        fresh_for: float = 5.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._engine, self._fresh_for, self._clock = engine, fresh_for, clock
        self._lock = threading.Lock()
        self._counts: gauges.LogCounts | None = None
        self._last: list[Metric] = []
        self._looked = float("-inf")
        with suppress(SluiceError):  # a database that does not answer yet: counting begins when it does
            self._begin()

    def _begin(self) -> None:
        with reading(self._engine) as session:
            self._counts = gauges.log_end(session)

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked of the database when it is registered."""
        return []

    def collect(self) -> Iterable[Metric]:
        """See base class."""
        with self._lock:
            if time.monotonic() - self._looked >= self._fresh_for:
                self._last = self._look()
                self._looked = time.monotonic()
            return self._last

    def _look(self) -> list[Metric]:
        up = GaugeMetricFamily("sluice_records_up", "Whether the records answer: 1 or 0.")
        try:
            with reading(self._engine) as session:
                counts = self._counts or gauges.log_end(session)
                gauges.log_since(session, counts)
                self._counts = counts
                found = gauges.gauges(session)
        except SluiceError:
            up.add_metric([], 0)
            return [up]
        up.add_metric([], 1)
        return [up, *_families(found, counts, self._clock())]


def _families(found: gauges.Gauges, counts: gauges.LogCounts, now: datetime) -> Iterator[Metric]:
    releases = GaugeMetricFamily(
        "sluice_releases", "Releases by status and stage.", labels=["status", "stage"]
    )
    for (status, stage), number in found.releases.items():
        releases.add_metric([status, stage], number)
    yield releases
    yield GaugeMetricFamily("sluice_releases_on_hold", "Releases on hold.", value=found.on_hold)
    yield from _gates(found, now)
    waits = GaugeMetricFamily("sluice_pending", "Things that wait for a person, by kind.", labels=["what"])
    for what, number in found.waits.items():
        waits.add_metric([what], number)
    yield waits
    incidents = GaugeMetricFamily(
        "sluice_incidents_open", "Open incidents.", labels=["kind", "severity", "confidence"]
    )
    for labels, number in found.incidents.items():
        incidents.add_metric(list(labels), number)
    yield incidents
    grants = GaugeMetricFamily(
        "sluice_grants_live",
        "Live grants, and whether their key was handed over.",
        labels=["kind", "disclosed"],
    )
    for (kind, disclosed), number in found.grants.items():
        grants.add_metric([kind, str(disclosed).lower()], number)
    yield grants
    yield GaugeMetricFamily("sluice_log_entries", "Entries in the audit log.", value=found.log_size)
    yield GaugeMetricFamily(
        "sluice_log_unsigned_entries",
        "Entries behind the last signed checkpoint.",
        value=max(0, found.log_size - found.checkpoint_size),
    )
    if found.checkpoint_at is not None:
        age = (now - found.checkpoint_at).total_seconds()
        yield GaugeMetricFamily(
            "sluice_log_checkpoint_age_seconds", "Age of the last signed checkpoint.", value=age
        )
    logged = CounterMetricFamily(
        "sluice_logged",
        "Entries that came to the audit log since this process began: events by type, refusals by code, what custody did.",
        labels=["kind", "what"],
    )
    for (kind, what), number in sorted(counts.entries.items()):
        logged.add_metric([kind, what], number)
    yield logged
    yield from _sources(found, now)
    yield from _deliveries(found, now)


def _sources(found: gauges.Gauges, now: datetime) -> Iterator[Metric]:
    lag = GaugeMetricFamily(
        "sluice_leak_source_lag_seconds",
        "How long ago a leak source last saw everything; none for one that never did.",
        labels=["source"],
    )
    blind = GaugeMetricFamily(
        "sluice_leak_source_blind", "Whether a leak source cannot look: 1 or 0.", labels=["source"]
    )
    for name, (seen, is_blind) in found.sources.items():
        if seen is not None:
            lag.add_metric([name], max(0.0, (now - seen).total_seconds()))
        blind.add_metric([name], float(is_blind))
    yield from (lag, blind)


def _deliveries(found: gauges.Gauges, now: datetime) -> Iterator[Metric]:
    number = GaugeMetricFamily(
        "sluice_deliveries",
        "Deliveries to webhooks and notices to people that wait (pending) or were given up (dead).",
        labels=["what", "state"],
    )
    oldest = GaugeMetricFamily(
        "sluice_delivery_oldest_seconds", "Age of the oldest that waits.", labels=["what"]
    )
    for (what, state), (count, since) in found.deliveries.items():
        number.add_metric([what, state], count)
        if state == "pending" and since is not None:
            oldest.add_metric([what], max(0.0, (now - since).total_seconds()))
    yield from (number, oldest)


def _gates(found: gauges.Gauges, now: datetime) -> Iterator[Metric]:
    closed = GaugeMetricFamily(
        "sluice_gates_closed", "Releases whose next gate is closed, by reason.", labels=["reason"]
    )
    oldest = GaugeMetricFamily(
        "sluice_gate_oldest_seconds",
        "For how long the longest-closed gate has been closed, by reason.",
        labels=["reason"],
    )
    clocks = GaugeMetricFamily(
        "sluice_gate_clocks",
        "Clocks that gates wait for (research window, cooling-off, not-before, opening hours): running, or standing.",
        labels=["reason", "state"],
    )
    soonest = GaugeMetricFamily(
        "sluice_gate_clock_soonest_seconds",
        "Until the first of these clocks is met.",
        labels=["reason"],
    )
    for code, reason in found.reasons.items():
        closed.add_metric([code], reason.count)
        oldest.add_metric([code], max(0.0, (now - reason.oldest).total_seconds()))
        if code in CLOCKS:
            clocks.add_metric([code, "running"], reason.running)
            clocks.add_metric([code, "standing"], reason.count - reason.running)
        if reason.soonest is not None:
            soonest.add_metric([code], (reason.soonest - now).total_seconds())
    yield from (closed, oldest, clocks, soonest)


#: Conditions of a gate that time alone meets.
CLOCKS = frozenset({"research_window", "cooling_off", "not_before", "opening_hours"})
