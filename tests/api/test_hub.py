"""What the API and the command line show of a repository on the Hub."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from orchestrator.records import hub_findings
from orchestrator.records.database import writing
from orchestrator.records.hub_findings import HubDifference
from tests.api.conftest import RELEASE, Api

GATING = HubDifference("gating", "manual", "off", exposes=True)


def shown(api: Api) -> Any:
    return api.ok(api.get("sam", api.path("/hub")))


def test_where_nobody_has_looked_nothing_is_said_to_be_in_order(api: Api) -> None:
    api.ok(api.create())
    found = shown(api)
    assert (found["in_order"], found["looked_at"], found["findings"]) == (None, None, [])
    assert found["on_drift"] == "raise"


def test_findings_and_blindness_are_shown(api: Api) -> None:
    api.ok(api.create())
    with writing(api.engine) as session:
        hub_findings.looked(session, RELEASE, "hf:acme/mini", at=api.clock.now)
    assert shown(api)["in_order"] is True
    with writing(api.engine) as session:
        one = hub_findings.found(session, RELEASE, [GATING], at=api.clock.now)
        hub_findings.raised(session, one.id, one.id)
    found = shown(api)
    assert found["in_order"] is False
    (finding,) = found["findings"]
    assert finding["differences"] == [
        {"what": "gating", "expected": "manual", "actual": "off", "exposes": True}
    ]
    assert (finding["outcome"], finding["incident"], finding["exposes"]) == ("open", one.id, True)
    with writing(api.engine) as session:
        later = api.clock.now + timedelta(hours=1)
        hub_findings.looked(session, RELEASE, "hf:acme/mini", at=later, error="the Hub answers 503")
    found = shown(api)
    assert (found["in_order"], found["error"]) == (None, "the Hub answers 503")
    assert found["failing_since"] is not None
    assert found["findings"][0]["outcome"] == "open"


def test_other_differences_are_another_finding(api: Api) -> None:
    api.ok(api.create())
    now = api.clock.now
    with writing(api.engine) as session:
        first = hub_findings.found(session, RELEASE, [GATING], at=now)
        again = hub_findings.found(session, RELEASE, [GATING], at=now + timedelta(minutes=1))
        other = HubDifference("visibility", "private", "public", exposes=True)
        second = hub_findings.found(session, RELEASE, [GATING, other], at=now + timedelta(minutes=2))
    assert (first.id, second.id == first.id) == (again.id, False)
    assert [f["outcome"] for f in shown(api)["findings"]] == ["open", "other"]
