"""What waits for custody's own clock goes on by itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from activities.custody.errors import CustodyWaits
from activities.errors import told
from orchestrator.contracts import names
from orchestrator.domain import commands as cmd
from tests.custody.intruder import Intruder
from tests.custody.world import World


def at_demo(world: World) -> Any:
    world.to("inside")
    world.prepare("demo")
    world.approve("demo")
    return world.begin("demo")


def actions(world: World, action: str) -> list[dict[str, Any]]:
    return [leaf for leaf in world.custody_leaves() if leaf["action"] == action]


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
