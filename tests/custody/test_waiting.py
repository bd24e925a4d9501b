"""What waits goes on by itself: a control group on a real OpenBao server, and custody's own clock."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from activities.custody.errors import CustodyWaits
from activities.errors import told
from artifacts.custody.errors import SecondLockPending
from artifacts.custody.openbao import OpenBaoTransit
from orchestrator.contracts import names
from orchestrator.domain import commands as cmd
from tests.custody.intruder import Intruder
from tests.custody.world import PLATFORM, World
from tests.support.openbao import Admin, openbao_server

GROUPED = """
path "transit/encrypt/kek" { capabilities = ["update"] }
path "transit/decrypt/kek" {
  capabilities = ["update"]
  control_group = {
    ttl = "600s"
    factor "approvers" {
      controlled_capabilities = ["update"]
      identity {
        group_names = ["approvers"]
        approvals = 2
      }
    }
  }
}
"""


@pytest.fixture
def bao() -> Iterator[Admin]:
    with openbao_server() as admin:
        yield admin


def at_demo(world: World) -> Any:
    world.to("inside")
    world.prepare("demo")
    world.approve("demo")
    return world.begin("demo")


def actions(world: World, action: str) -> list[dict[str, Any]]:
    return [leaf for leaf in world.custody_leaves() if leaf["action"] == action]


@pytest.mark.stack
def test_a_control_group_of_two_holds_the_entry_until_both_have_approved(
    engine: Engine, tmp_path: Path, bao: Admin
) -> None:
    bao.transit_key("kek")
    bao.policy("open", 'path "transit/*" { capabilities = ["update", "read"] }')
    bao.policy("grouped", GROUPED)
    bao.policy("approver", 'path "sys/control-group/*" { capabilities = ["update"] }')
    people = {name: bao.person(name, "approver") for name in ("alice", "bob")}
    _, custody_token = bao.person("custody", "grouped")
    bao.call("POST", "identity/group", name="approvers", member_entity_ids=[e for e, _ in people.values()])
    token = tmp_path / "token"
    token.write_text(bao.new_token("open"))
    provider = OpenBaoTransit(bao.address, "kek", token)
    world = World(
        engine, tmp_path, provider=provider
    )  # custody's own keys are opened before the group stands
    try:
        token.write_text(custody_token)
        asked = at_demo(world)
        accessors = set()
        for approving in (None, "alice", None):
            if approving is not None:
                answer = httpx.post(
                    f"{bao.address}/v1/sys/control-group/authorize",
                    headers={"X-Vault-Token": people[approving][1]},
                    json={"accessor": next(iter(accessors))},
                )
                assert answer.status_code == 200
            with pytest.raises(SecondLockPending) as pending:
                world.custody.make_envelopes(asked)
            accessors.add(pending.value.accessor)
        assert len(accessors) == 1, "asking again is the same request"
        assert world.envelopes_kept() == 0
        [waits] = actions(world, "second_lock_waits")
        assert accessors.pop() in waits["detail"], "the log says which request waits for approval, once"
        assert len(actions(world, "unwrap")) == 1, "one announcement, however often it was asked"
        failure = told(pending.value)
        assert (failure.type, failure.non_retryable) == (names.WAITS_FOR_LOCK, True), "no try is used up"
        httpx.post(
            f"{bao.address}/v1/sys/control-group/authorize",
            headers={"X-Vault-Token": people["bob"][1]},
            json={"accessor": pending.value.accessor},
        )
        made = world.custody.make_envelopes(asked)
        assert len(actions(world, "unwrap")) == 1
        reference = made["demo.2.platform"][world.artifact.artifact_id]
        assert world.opened(reference, PLATFORM).step == "demo", "its proof still holds"
        world.complete("demo", made)
    finally:
        world.close()
        provider.close()


def test_custody_that_was_away_waits_for_its_own_clock_and_says_how_long(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.to("query")
    world.wait("download")
    world.prepare("download")
    for role, person in (("safety", "sam"), ("legal", "lea"), ("reviewer", "rex")):
        world.sign(person, "download", role, watched=False)  # custody is down while people sign
    cooling = world.step("download").gate.cooling_off
    assert cooling is not None
    world.clock.now += cooling + timedelta(seconds=1)
    world.say(cmd.BeginEntry(**world.head(cmd.SERVICE), step="download"), watched=False)
    asked = world.asked("download")
    for _ in range(3):
        with pytest.raises(CustodyWaits) as waits:
            world.custody.make_envelopes(asked)
    assert [reason.code for reason in waits.value.reasons] == ["cooling_off"]
    assert len(actions(world, "refused")) == 1, "said once, not at every look"
    failure = told(waits.value)
    assert (failure.type, failure.non_retryable) == (names.WAITS_FOR_CLOCK, True)
    seconds = waits.value.seconds
    assert seconds is not None
    assert cooling.total_seconds() - 10 <= seconds <= cooling.total_seconds()
    assert failure.details[1] == seconds
    world.clock.now += timedelta(seconds=seconds - 5)
    Intruder(world, monkeypatch)
    with pytest.raises(CustodyWaits):
        world.custody.make_envelopes(asked)
    world.clock.now += timedelta(seconds=6)
    assert world.custody.make_envelopes(asked), "the same request, without anybody's retry"


def test_custody_whose_clock_was_set_back_goes_on_once_it_is_right(world: World) -> None:
    asked = at_demo(world)
    right = world.clock.now
    world.clock.now -= timedelta(days=1)
    with pytest.raises(CustodyWaits, match="custody's clock shows"):
        world.custody.make_envelopes(asked)
    world.clock.now = right
    assert world.custody.make_envelopes(asked)
