"""Alert rules and dashboards: valid, tried against series, and about metrics that processes really show."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from infra.telemetry import dashboards
from tests.support.metrics import documented

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "infra/alerts/sluice.rules.yml"
METRIC = re.compile(r"\bsluice_[a-z_]+\b")
SUFFIX = re.compile(r"_(bucket|count|sum)$")


@pytest.fixture(scope="module")
def promtool() -> str:
    """Debian's promtool, unpacked below `build/` when it is not installed."""
    found = shutil.which("promtool")
    if found is None:
        subprocess.run(["make", "-s", "build/tools/usr/bin/promtool"], cwd=ROOT, check=True)
        found = str(ROOT / "build/tools/usr/bin/promtool")
    return found


def test_the_rules_are_valid_and_fire_when_they_should(promtool):
    for arguments in (["check", "rules", "sluice.rules.yml"], ["test", "rules", "sluice.tests.yml"]):
        done = subprocess.run(
            [promtool, *arguments], cwd=RULES.parent, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_query_of_the_dashboards_is_valid(promtool, tmp_path):
    rules = [
        {"record": f"q:{number}", "expr": query}
        for number, query in enumerate(sorted(queries_of_dashboards()))
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
    done = subprocess.run(
        [promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def queries_of_dashboards() -> set[str]:
    return {
        target["expr"]
        for path in dashboards.FOLDER.glob("*.json")
        for panel in json.loads(path.read_text())["panels"]
        for target in panel["targets"]
    }


def test_the_dashboards_are_those_that_the_code_makes(tmp_path):
    dashboards.write(tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert {path.name: path.read_text() for path in dashboards.FOLDER.iterdir()} == made
    for dashboard in dashboards.ALL:
        panels = dashboard.as_json()["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


def test_alerts_and_dashboards_ask_for_every_documented_metric_and_no_other():
    rules = [rule["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    asked = {
        SUFFIX.sub("", name) for query in [*rules, *queries_of_dashboards()] for name in METRIC.findall(query)
    }
    assert asked == documented(), "a metric that nothing shows, or a query of one that nobody makes"


def test_each_alert_says_what_to_do():
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in {"page", "ticket"}
            assert set(rule["annotations"]) == {"summary", "action"}


def test_the_runbook_names_each_alert_with_its_severity():
    page = (ROOT / "docs/operate.md").read_text()
    told = dict(re.findall(r"^\| (Sluice\w+) \| (page|ticket) \| \S", page, re.MULTILINE))
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert told == {rule["alert"]: rule["labels"]["severity"] for rule in rules}
