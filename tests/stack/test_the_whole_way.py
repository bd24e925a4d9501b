"""The whole stack on real servers: a release from closed to open, while every process is killed once with kill -9, links fail and clocks step.

The short form of `make faults` (docs/faults.md): the story itself counts events, compares every byte that is opened, and holds windows
and signatures to what was asked (`infra.demo_story`); deliveries come twice, late, or lose their answer; afterwards the pure domain
core, fed the same commands, says what records, audit log and store have to hold (`infra.faults.checks`, `infra.faults.model`).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.demo_cast import Pace
from infra.demo_story import STEPS
from infra.faults.scene import Wanted, embedded
from infra.faults.telling import disturbed_release

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

#: At which turn of the story which process is killed, and how many seconds into it.
KILLS = {
    "sealing": ("worker-transfer", 0.6),
    "evidence-hosted": ("api", 0.0),
    "signed-hosted": ("worker-custody", 0.05),
    "signed-api": ("worker-releases", 0.0),
    "reported": ("worker-leaks", 0.2),
    "held": ("temporal", 0.0),
}
#: Faults that cost no process its life, drawn from the seed.
CHEAP = frozenset({"pause", "cut", "refused", "slow", "half-open", "lost", "clock"})
FAULTS = 8


async def test_kill_9_of_every_process_on_the_way_from_closed_to_open_loses_and_doubles_nothing(
    tmp_path: Path,
) -> None:
    wanted = Wanted(disks=False, versions=False)
    outcome = await disturbed_release(
        lambda folder: embedded(folder, wanted),
        tmp_path,
        "short",
        FAULTS,
        pace=Pace(api=1, downloadable=2, open=2, cooling_off=1),
        longest=0.8,
        only=CHEAP,
        kills=KILLS,
    )
    assert outcome.checks.violations == []
    summary = outcome.summary
    assert summary is not None
    assert [step["step"] for step in summary["steps"]] == list(STEPS)
    assert summary["partner"]["sha256_opened"] == summary["public"]["sha256_opened"]
    killed = {kind.removeprefix("kill ") for kind in outcome.faults if kind.startswith("kill ")}
    assert killed == {name for name, _ in KILLS.values()}
    assert outcome.faults.total() >= FAULTS
    assert outcome.deliveries["twice"] > 40
    assert outcome.checks.made > 250
