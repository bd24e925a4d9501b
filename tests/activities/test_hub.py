"""What the Hub shows of a release, over the simulated Hub: private until a step lets people in, and private again after."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from activities.hub import HubPublishing, expectation
from activities.publishing import PublishingActivities
from artifacts.stores.base import open_store
from artifacts.stores.hub import HubStore
from artifacts.stores.hub_release import HubRelease, HubState
from orchestrator.contracts.messages import AccessRequest, StepRequest
from orchestrator.domain import commands as cmd
from orchestrator.domain.permissions import Role
from orchestrator.domain.plan import Partner
from tests.activities.conftest import Recorded
from tests.domain.walker import Walker
from tests.simulators.hub import HubSimulator
from tests.support.plans import RECIPIENT, actor, five_stage_plan

pytestmark = pytest.mark.stack

MANAGER = actor("mia", Role.RELEASE_MANAGER)


class OnHub:
    """A release that walks, published to a repository of the simulated Hub."""

    def __init__(self, engine: Engine, hub: HubSimulator, folder: Path) -> None:
        self.hub, self.folder = hub, folder
        self.token = hub.add_user("lab", orgs=["acme"]).token
        for name in ("uni-account", "ngo-account", "eve"):
            hub.add_user(name)
        plan = five_stage_plan()
        partners = {
            "uni": Partner(name="University", recipient=RECIPIENT, hub_account="uni-account"),
            "ngo": Partner(name="NGO", hub_account="ngo-account"),
        }
        self.recorded = Recorded(engine, Walker(plan.model_copy(update={"partners": partners})))
        self.shown = self.store()
        self.activities = PublishingActivities(engine, self.store, hub=HubPublishing(self.shown.calls))
        self.walker = self.recorded.walker
        complete = self.walker.complete

        def completing(name: str) -> None:
            state = self.recorded.write().walker.state
            self.activities.publish_step(
                StepRequest(release=state.release, step=name, attempt=state.attempt, seq=state.seq)
            )
            complete(name)

        self.walker.complete = completing  # type: ignore[method-assign]

    def store(self) -> HubStore:
        options = {"endpoint": self.hub.endpoint, "token": self.token, "spool": self.folder / "spool"}
        opened = open_store("hf:acme/mini", transfer="lfs", **options)
        assert isinstance(opened, HubStore)
        return opened

    def at(self, step: str) -> HubState:
        if self.walker.state.current != step:
            self.walker.walk(step)
        return self.applied()

    def applied(self) -> HubState:
        state = self.recorded.write().walker.state
        self.activities.apply_access(AccessRequest(release=state.release, seq=state.seq))
        return HubRelease(self.shown.calls).observe()


@pytest.fixture
def on_hub(engine: Engine, tmp_path: Path) -> Iterator[OnHub]:
    with HubSimulator() as hub:
        made = OnHub(engine, hub, tmp_path)
        yield made
        made.shown.close()


def test_the_repository_follows_the_release_from_private_to_gated_and_back(on_hub: OnHub) -> None:
    inside = on_hub.at("inside")
    assert (inside.private, inside.gating, inside.grantees) == (True, "manual", frozenset())
    assert on_hub.at("query").private

    download = on_hub.at("download")
    assert (download.private, download.gating) == (False, "manual")
    assert download.grantees == {"uni-account", "ngo-account"}
    assert "step/download.4" in download.tags

    on_hub.walker.do(cmd.Revoke, MANAGER, partner="ngo", reason="terms were broken")
    assert on_hub.applied().grantees == {"uni-account"}

    on_hub.walker.do(cmd.RollBack, MANAGER, to="query", reason="it leaks training data")
    back = on_hub.applied()
    assert (back.private, back.grantees) == (True, frozenset())
    assert on_hub.applied() == back


def test_somebody_let_in_by_hand_is_shown_out_with_the_next_change_of_access(on_hub: OnHub) -> None:
    on_hub.at("download")
    HubRelease(on_hub.shown.calls).grant("eve")
    assert on_hub.applied().grantees == {"uni-account", "ngo-account"}


def test_an_open_release_is_not_gated_and_an_aborted_one_is_private(on_hub: OnHub) -> None:
    walker = on_hub.walker.walk()
    opened = expectation(walker.state)
    assert (opened.private, opened.gating, opened.grantees) == (False, "off", None)
    aborted = walker.state.model_copy(update={"status": "aborted"})
    assert expectation(aborted).private
