"""The Hub sweep over the simulated Hub: what somebody changed there by hand is seen, shown, and repaired or raised by plan."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from temporalio.testing import ActivityEnvironment

from activities.hub_sweep import HubSweeping
from artifacts.stores.hub_release import HubRelease
from orchestrator.contracts.messages import HubSwept, Outcome, SweepHub
from orchestrator.domain import commands as cmd
from orchestrator.domain.errors import Conflict, Unavailable
from orchestrator.domain.gate import verdict
from orchestrator.domain.permissions import Role
from orchestrator.records import audit, hub_findings
from orchestrator.records.database import reading
from tests.activities.conftest import Recorded
from tests.activities.test_hub import OnHub
from tests.domain.walker import Walker
from tests.simulators.hub import HubSimulator
from tests.support.plans import actor

pytestmark = pytest.mark.stack


class Swept(OnHub):
    """A release on the simulated Hub, a sweep of it, and whoever changes the repository by hand."""

    def __init__(self, engine: Engine, hub: HubSimulator, folder: Path) -> None:
        super().__init__(engine, hub, folder)
        self.engine, self.sent, self.down = engine, list[cmd.AnyCommand](), False
        self.hand = HubRelease(self.shown.calls)
        self.sweeping = HubSweeping(
            engine, self.shown.calls, self, confirm=0.0, clock=lambda: self.walker.now
        )

    async def send(self, release: str, command: cmd.AnyCommand) -> Outcome:
        """As the release's workflow would: decided by the domain, written to the records."""
        if self.down:
            raise Unavailable("the release service cannot be reached")
        self.sent.append(command)
        self.walker._take(command)
        self.recorded.write()
        return Outcome(release=release, seq=self.walker.state.seq, events=[])

    async def sweep(self) -> HubSwept:
        self.walker.now += timedelta(minutes=15)
        found: HubSwept = await ActivityEnvironment().run(self.sweeping.sweep_hub, SweepHub())
        return found

    def findings(self) -> list[hub_findings.HubFinding]:
        with reading(self.engine) as session:
            return hub_findings.findings(session, self.walker.state.release, limit=50)

    def look(self) -> hub_findings.HubLook:
        with reading(self.engine) as session:
            found = hub_findings.last_look(session, self.walker.state.release)
        assert found is not None
        return found

    def plan(self, on_drift: str) -> None:
        plan = self.walker.state.plan.model_copy(update={"hub_drift": on_drift})
        self.recorded = Recorded(self.engine, Walker(plan))
        self.walker = self.recorded.walker
        complete = self.walker.complete

        def completing(name: str) -> None:
            state = self.recorded.write().walker.state
            from orchestrator.contracts.messages import StepRequest

            self.activities.publish_step(
                StepRequest(release=state.release, step=name, attempt=state.attempt, seq=state.seq)
            )
            complete(name)

        self.walker.complete = completing  # type: ignore[method-assign]


@pytest.fixture
def on_hub(engine: Engine, tmp_path: Path) -> Iterator[Swept]:
    with HubSimulator() as hub:
        made = Swept(engine, hub, tmp_path)
        yield made
        made.shown.close()


async def test_a_repository_that_is_as_the_release_left_it_is_in_order(on_hub: Swept) -> None:
    on_hub.at("download")
    assert (await on_hub.sweep()).in_order == [on_hub.walker.state.release]
    assert on_hub.look().last_success == on_hub.walker.now
    assert on_hub.findings() == []


def let_in(on_hub: Swept) -> None:
    on_hub.hand.grant("eve")


def open_gating(on_hub: Swept) -> None:
    on_hub.shown.calls.api.update_repo_settings("acme/mini", gated=False)


def accept_anybody(on_hub: Swept) -> None:
    on_hub.shown.calls.api.update_repo_settings("acme/mini", gated="auto")


def make_public(on_hub: Swept) -> None:
    on_hub.shown.calls.api.update_repo_settings("acme/mini", private=False)


EXPOSING = [
    ("download", let_in, "grantee eve"),
    ("download", open_gating, "gating"),
    ("download", accept_anybody, "gating"),
    ("query", make_public, "visibility"),
]


@pytest.mark.parametrize(("step", "change", "what"), EXPOSING)
async def test_what_exposes_more_opens_one_incident_that_closes_the_gate(
    on_hub: Swept, step: str, change: Any, what: str
) -> None:
    on_hub.at(step)
    change(on_hub)
    before = on_hub.hand.observe()
    assert (await on_hub.sweep()).raised
    (finding,) = on_hub.findings()
    assert what in [d.what for d in finding.differences]
    assert (finding.outcome, finding.exposes, finding.incident) == ("open", True, finding.id)
    state = on_hub.walker.state
    assert [i.id for i in state.open_incidents] == [finding.id]
    assert state.incidents[finding.id].severity == "low"
    assert finding.id in str(verdict(state, state.plan.steps[state.index + 1], on_hub.walker.now).unmet)
    # again: the same finding, no second incident, and nothing is touched: the plan says raise
    assert (await on_hub.sweep()).raised
    assert [f.id for f in on_hub.findings()] == [finding.id]
    assert len(on_hub.sent) == 1
    assert on_hub.hand.observe() == before


async def test_put_right_by_hand_the_finding_closes_and_the_incident_waits_for_somebody(
    on_hub: Swept,
) -> None:
    on_hub.at("download")
    let_in(on_hub)
    await on_hub.sweep()
    on_hub.hand.reject("eve")
    assert (await on_hub.sweep()).in_order
    (finding,) = on_hub.findings()
    assert (finding.outcome, finding.closed_at) == ("gone", on_hub.walker.now)
    assert on_hub.walker.state.open_incidents
    let_in(on_hub)  # a second time is a second finding, and a second incident
    await on_hub.sweep()
    assert len(on_hub.findings()) == 2
    assert len(on_hub.walker.state.open_incidents) == 2


async def test_what_exposes_nothing_is_shown_and_opens_no_incident(on_hub: Swept) -> None:
    on_hub.at("download")
    on_hub.hand.reject("uni-account")
    assert (await on_hub.sweep()).raised
    (finding,) = on_hub.findings()
    assert [(d.what, d.exposes) for d in finding.differences] == [("grantee uni-account", False)]
    assert (finding.outcome, finding.incident) == ("open", None)
    assert on_hub.sent == []


@pytest.mark.parametrize(("step", "change", "what"), [EXPOSING[1], EXPOSING[3]])
async def test_a_plan_that_says_repair_has_it_brought_back_and_logged(
    on_hub: Swept, step: str, change: Any, what: str
) -> None:
    on_hub.plan("repair")
    wanted = on_hub.at(step)
    change(on_hub)
    assert (await on_hub.sweep()).repaired
    after = on_hub.hand.observe()
    assert (after.private, after.gating, after.grantees) == (wanted.private, wanted.gating, wanted.grantees)
    (finding,) = on_hub.findings()
    assert finding.outcome == "repaired"
    assert what in [d.what for d in finding.differences]
    assert on_hub.sent == []
    with reading(on_hub.engine) as session:
        logged = [
            one for leaf in audit.leaves(session, limit=500) if "hub_repair" in (one := leaf.body.decode())
        ]
    assert len(logged) == 1
    assert what in logged[0]
    assert (await on_hub.sweep()).in_order


async def test_a_hub_that_cannot_be_looked_at_does_not_look_quiet(on_hub: Swept) -> None:
    on_hub.at("download")
    let_in(on_hub)
    await on_hub.sweep()
    on_hub.hub.fail(403, times=1000)
    assert (await on_hub.sweep()).blind
    first = on_hub.look()
    assert first.error
    assert first.failing_since == on_hub.walker.now
    assert [f.outcome for f in on_hub.findings()] == ["open"]
    assert (await on_hub.sweep()).blind
    assert on_hub.look().failing_since == first.failing_since
    on_hub.hub.calm()
    assert (await on_hub.sweep()).raised
    assert on_hub.look().error is None


async def test_a_repository_that_is_gone_is_told(on_hub: Swept) -> None:
    on_hub.at("download")
    on_hub.hub.fail(404, times=1000)
    assert (await on_hub.sweep()).blind
    assert "hf:acme/mini" in (on_hub.look().error or "")


async def test_an_incident_that_could_not_be_reported_is_reported_with_the_next_sweep(on_hub: Swept) -> None:
    on_hub.at("download")
    let_in(on_hub)
    on_hub.down = True
    assert (await on_hub.sweep()).raised
    assert on_hub.findings()[0].incident is None
    on_hub.down = False
    await on_hub.sweep()
    (finding,) = on_hub.findings()
    assert finding.incident == finding.id
    assert len(on_hub.walker.state.open_incidents) == 1


async def test_a_sweep_that_died_after_reporting_reports_no_second_incident(
    on_hub: Swept, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_hub.at("download")
    let_in(on_hub)

    def dies(*_: object, **__: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as killed:
        killed.setattr(hub_findings, "raised", dies)
        with pytest.raises(RuntimeError, match="killed"):
            await on_hub.sweep()
    stands = len(on_hub.walker.state.open_incidents)

    async def stands_already(_release: str, command: cmd.AnyCommand) -> Outcome:
        on_hub.sent.append(command)
        raise Conflict("that incident stands")

    monkeypatch.setattr(on_hub, "send", stands_already)
    await on_hub.sweep()
    assert on_hub.sent[0] == on_hub.sent[1]  # the same command, to the letter: the release answers it once
    assert len(on_hub.walker.state.open_incidents) == stands == 1
    assert on_hub.findings()[0].incident


async def test_a_release_that_is_just_changing_is_left_for_the_next_sweep(
    on_hub: Swept, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_hub.at("download")
    on_hub.walker.do(cmd.Revoke, actor("mia", Role.RELEASE_MANAGER), partner="ngo", reason="terms")
    seen = on_hub.recorded.write().walker.state  # written; the Hub does not show it yet
    old = seen.model_copy(update={"seq": seen.seq - 1})
    monkeypatch.setattr(on_hub.sweeping, "_shown", lambda: [old])
    assert (await on_hub.sweep()).busy == [seen.release]
    assert on_hub.findings() == []


async def test_two_releases_on_one_repository_are_told_and_nothing_is_repaired(on_hub: Swept) -> None:
    on_hub.at("download")
    before = on_hub.hand.observe()
    state = on_hub.walker.state
    on_hub.sweeping._shown = lambda: [state, state]  # type: ignore[method-assign]
    assert (await on_hub.sweep()).blind
    assert "several releases share" in (on_hub.look().error or "")
    assert on_hub.hand.observe() == before


async def test_without_a_hub_there_is_nothing_to_sweep(engine: Engine) -> None:
    sweeping = HubSweeping(engine, None, None)  # type: ignore[arg-type]
    assert await ActivityEnvironment().run(sweeping.sweep_hub, SweepHub()) == HubSwept()
