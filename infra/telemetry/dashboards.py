"""Writes the Grafana dashboards in `infra/dashboards/`: `python -m infra.telemetry.dashboards`.

A dashboard is rows of panels, a panel one or more queries. All release workers show the same numbers of the records, so those are
taken by `max`; what belongs to one process is summed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "dashboards"
_SOURCE = {"type": "prometheus", "uid": "${source}"}
_WIDTH = 24
_HEIGHT = 8


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture. `queries`: PromQL → legend; `kind`: `timeseries`, `stat` or `bargauge`; `unit`: Grafana's."""

    title: str
    queries: dict[str, str]
    kind: str = "timeseries"
    unit: str = "short"
    text: str = ""


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One page: rows of panels, each as wide as its row allows."""

    uid: str
    title: str
    rows: Sequence[Sequence[Panel]]

    def as_json(self) -> dict[str, Any]:
        """As Grafana imports it (schema version 39)."""
        panels: list[dict[str, Any]] = []
        for y, row in enumerate(self.rows):
            width = _WIDTH // len(row)
            for x, panel in enumerate(row):
                place = {"x": x * width, "y": y * _HEIGHT, "w": width, "h": _HEIGHT}
                panels.append(_panel(panel, len(panels) + 1, place))
        return {
            "uid": self.uid,
            "title": self.title,
            "tags": ["sluice"],
            "schemaVersion": 39,
            "version": 1,
            "editable": True,
            "refresh": "30s",
            "time": {"from": "now-24h", "to": "now"},
            "timezone": "utc",
            "templating": {
                "list": [
                    {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
                ]
            },
            "panels": panels,
        }


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "title": panel.title,
        "description": panel.text,
        "type": panel.kind,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + i), "expr": query, "legendFormat": legend, "datasource": _SOURCE}
            for i, (query, legend) in enumerate(panel.queries.items())
        ],
    }


def _rate(counter: str, labels: str, by: str) -> str:
    return f"sum by ({by}) (rate({counter}{{{labels}}}[5m]))"


RELEASES = Dashboard(
    "sluice-releases",
    "Sluice: releases and gates",
    [
        [
            Panel("Releases", {"sum(max by (status, stage) (sluice_releases))": "all"}, "stat"),
            Panel("On hold", {"max(sluice_releases_on_hold)": "on hold"}, "stat"),
            Panel(
                "Open incidents",
                {
                    "sum by (severity) (max by (kind, severity, confidence) (sluice_incidents_open))": "{{severity}}"
                },
                "stat",
            ),
            Panel("Waiting for people", {"max by (what) (sluice_pending)": "{{what}}"}, "bargauge"),
        ],
        [
            Panel(
                "Releases by stage",
                {"sum by (stage) (max by (status, stage) (sluice_releases))": "{{stage}}"},
            ),
            Panel(
                "Gates closed, by reason",
                {"max by (reason) (sluice_gates_closed)": "{{reason}}"},
                text="A gate that is closed for several reasons counts for each.",
            ),
        ],
        [
            Panel(
                "Longest-closed gate, by reason",
                {"max by (reason) (sluice_gate_oldest_seconds)": "{{reason}}"},
                unit="s",
            ),
            Panel(
                "Sign-off: longest wait",
                {'max(sluice_gate_oldest_seconds{reason="sign_off"})': "sign-off"},
                unit="s",
            ),
        ],
        [
            Panel(
                "Window clocks",
                {"max by (reason, state) (sluice_gate_clocks)": "{{reason}} {{state}}"},
                text="A standing clock counts no access: a hold, an outage, a severe incident, or nobody with access.",
            ),
            Panel(
                "Next clock to be met",
                {"min by (reason) (sluice_gate_clock_soonest_seconds)": "{{reason}}"},
                unit="s",
            ),
        ],
        [
            Panel(
                "What happens",
                {'max by (what) (rate(sluice_logged_total{kind="event"}[5m]))': "{{what}}"},
                unit="cps",
            ),
            Panel(
                "Live grants",
                {"max by (kind, disclosed) (sluice_grants_live)": "{{kind}} disclosed={{disclosed}}"},
            ),
        ],
        [
            Panel(
                "Leak sources: last saw everything",
                {"max by (source) (sluice_leak_source_lag_seconds)": "{{source}}"},
                unit="s",
                text="How long ago. A source that never did has no line: see whether it is blind.",
            ),
            Panel(
                "Leak sources that cannot look", {"max by (source) (sluice_leak_source_blind)": "{{source}}"}
            ),
        ],
    ],
)

CUSTODY = Dashboard(
    "sluice-custody",
    "Sluice: custody and the log",
    [
        [
            Panel("Custody trusts the log", {"min(sluice_custody_trusts_log)": "trusts"}, "stat"),
            Panel("Entries", {"max(sluice_log_entries)": "entries"}, "stat"),
            Panel("Not covered by a checkpoint", {"max(sluice_log_unsigned_entries)": "entries"}, "stat"),
            Panel("Checkpoints not in second places", {"max(sluice_custody_notes_waiting)": "notes"}, "stat"),
        ],
        [
            Panel(
                "Unwraps and refusals of custody",
                {'max by (what) (increase(sluice_logged_total{kind="custody"}[1h]))': "{{what}}"},
            ),
            Panel(
                "Commands refused, by code",
                {'max by (what) (increase(sluice_logged_total{kind="refusal"}[1h]))': "{{what}}"},
            ),
        ],
        [
            Panel(
                "Handed out and made visible",
                {'max by (what) (increase(sluice_logged_total{kind="access"}[1h]))': "{{what}}"},
            ),
            Panel(
                "Principals, partners, keys",
                {'max by (what) (increase(sluice_logged_total{kind="admin"}[1h]))': "{{what}}"},
            ),
        ],
        [
            Panel("Age of the last checkpoint", {"max(sluice_log_checkpoint_age_seconds)": "age"}, unit="s"),
            Panel("Log growth", {"max(deriv(sluice_log_entries[10m]))": "entries a second"}, unit="cps"),
        ],
    ],
)

SERVICE = Dashboard(
    "sluice-service",
    "Sluice: the service",
    [
        [
            Panel("Processes up", {'sum by (job) (up{job=~"sluice.*"})': "{{job}}"}, "stat"),
            Panel("Parts that answer", {"min by (job, check) (sluice_ready)": "{{job}} {{check}}"}, "stat"),
            Panel("Records answer", {"max(sluice_records_up)": "records"}, "stat"),
        ],
        [
            Panel(
                "Requests by status",
                {_rate("sluice_http_request_seconds_count", "", "status"): "{{status}}"},
                unit="reqps",
            ),
            Panel(
                "Request time",
                {
                    f"histogram_quantile({q}, sum by (le) (rate(sluice_http_request_seconds_bucket[5m])))": name
                    for q, name in ((0.5, "half"), (0.99, "99 of 100"))
                },
                unit="s",
            ),
        ],
        [
            Panel(
                "Request time by route, 99 of 100",
                {
                    "histogram_quantile(0.99, sum by (le, route) (rate(sluice_http_request_seconds_bucket[10m])))": "{{route}}"
                },
                unit="s",
            ),
            Panel(
                "Sealed",
                {"sum(rate(sluice_sealed_bytes_total[5m]))": "bytes a second"},
                unit="Bps",
                text="Plaintext bytes that transfer workers sealed and stored, from the Temporal SDK's port.",
            ),
        ],
        [
            Panel("Work that waits", {"max by (queue, kind) (sluice_queue_backlog)": "{{queue}} {{kind}}"}),
            Panel(
                "For how long it has waited",
                {"max by (queue, kind) (sluice_queue_oldest_seconds)": "{{queue}} {{kind}}"},
                unit="s",
            ),
            Panel("Workers", {"max by (queue, kind) (sluice_queue_pollers)": "{{queue}} {{kind}}"}),
        ],
        [
            Panel(
                "Webhooks and notices not delivered",
                {"max by (what, state) (sluice_deliveries)": "{{what}} {{state}}"},
            ),
            Panel(
                "Oldest that waits", {"max by (what) (sluice_delivery_oldest_seconds)": "{{what}}"}, unit="s"
            ),
            Panel(
                "What runs",
                {
                    "count by (process, version, build) (sluice_process_info)": "{{process}} {{version}} {{build}}"
                },
                text="Two builds of the release worker stand here while a new version is rolled out.",
            ),
        ],
        [
            Panel(
                "Temporal: workflow task time, 99 of 100",
                {
                    "histogram_quantile(0.99, sum by (le) (rate(temporal_workflow_task_execution_latency_seconds_bucket[5m])))": "task"
                },
                unit="s",
            ),
            Panel(
                "Temporal: requests that failed",
                {_rate("temporal_request_failure_total", "", "operation"): "{{operation}}"},
                unit="cps",
            ),
            Panel("Memory", {"process_resident_memory_bytes": "{{job}} {{instance}}"}, unit="bytes"),
            Panel("CPU", {"rate(process_cpu_seconds_total[5m])": "{{job}} {{instance}}"}, unit="percentunit"),
        ],
    ],
)

ALL = (RELEASES, CUSTODY, SERVICE)


def write(folder: Path = FOLDER) -> None:
    """Write every dashboard as a file named by its uid."""
    folder.mkdir(exist_ok=True)
    for dashboard in ALL:
        (folder / f"{dashboard.uid}.json").write_text(
            json.dumps(dashboard.as_json(), indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    write()
