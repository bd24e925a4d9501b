"""`make faults`: release after release on fresh stacks, disturbed at moments from a seed, each checked afterwards.

    python -m infra.faults.campaign [SEED] [COUNT] [--on embedded|deployed|both]

Exit code 0 only if COUNT faults were done and every check held. The report goes to the terminal and `build/faults/SEED.json`;
the folder of a release in which something did not hold stays beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from infra.demo_cast import Pace
from infra.faults.scene import deployed, embedded
from infra.faults.telling import Making, Outcome, disturbed_release
from infra.logs import configure_logging

FOLDER = Path("build/faults")
COUNT = 200
SCENES: dict[str, Making] = {"deployed": deployed, "embedded": embedded}
#: Windows that are long enough for many faults a release: starting a stack takes longer than telling a story on it.
_PACE = Pace(api=40, downloadable=40, open=40, cooling_off=2)
#: Releases in a row without any fault after which a campaign gives up: it would never end.
_BARREN = 3


def report(seed: int, asked: int, outcomes: Sequence[tuple[str, Outcome]]) -> dict[str, Any]:
    """The campaign as one document."""
    faults, deliveries, again = Counter[str](), Counter[str](), Counter[str]()
    for _, outcome in outcomes:
        faults += outcome.faults
        deliveries += outcome.deliveries
        again += outcome.again
    return {
        "seed": seed,
        "faults_asked": asked,
        "faults": faults.total(),
        "faults_by_kind": dict(sorted(faults.items())),
        "deliveries": dict(sorted(deliveries.items())),
        "tried_again_by_people": dict(sorted(again.items())),
        "left_out": sorted({words for _, outcome in outcomes for words in outcome.left_out}),
        "releases": len(outcomes),
        "releases_by_scene": dict(Counter(name for name, _ in outcomes)),
        "completed": sum(outcome.summary is not None for _, outcome in outcomes),
        "events": sum(outcome.summary["events"] for _, outcome in outcomes if outcome.summary is not None),
        "checks": sum(outcome.checks.made for _, outcome in outcomes),
        "violations": sum(len(outcome.checks.violations) for _, outcome in outcomes),
        "seconds": round(sum(outcome.seconds for _, outcome in outcomes), 1),
        "each": [
            {
                "scene": name,
                "seed": outcome.seed,
                "seconds": round(outcome.seconds, 1),
                "ready_after": round(outcome.ready_after, 1),
                "faults": outcome.log,
                "events": None if outcome.summary is None else outcome.summary["events"],
                "checks": outcome.checks.made,
                "violations": outcome.checks.violations,
            }
            for name, outcome in outcomes
        ],
    }


def run(seed: int, count: int, folder: Path, console: Console, scenes: Sequence[str]) -> dict[str, Any]:
    """Releases on these scenes in turn until `count` faults were done; the report, which is also in `folder`."""
    outcomes: list[tuple[str, Outcome]] = []
    done = 0
    while done < count and not (
        len(outcomes) >= _BARREN and not any(outcome.faults for _, outcome in outcomes[-_BARREN:])
    ):
        name = scenes[len(outcomes) % len(scenes)]
        # below the folder for temporary files: PostgreSQL's own user has to reach it
        place = Path(tempfile.mkdtemp(prefix="sluice-faults-"))
        place.chmod(0o711)
        number = len(outcomes)
        outcome = asyncio.run(
            disturbed_release(SCENES[name], place, f"{seed}/{number}", count - done, pace=_PACE)
        )
        outcomes.append((name, outcome))
        done += outcome.faults.total()
        bad = outcome.checks.violations
        console.print(
            f"release {len(outcomes)} ({name}): {outcome.faults.total()} faults, {outcome.checks.made} checks, "
            f"{len(bad)} violations, {outcome.seconds:.0f} s; {done} of {count} faults"
        )
        for words in bad:
            console.print(f"  ✗ {words}", style="red", markup=False)
        if bad:
            kept = folder / f"{seed}-{len(outcomes)}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(
                place, kept, ignore_dangling_symlinks=True, ignore=shutil.ignore_patterns("other")
            )
            console.print(f"  what is left of it: {kept}")
        shutil.rmtree(place, ignore_errors=True)
        # after each release, so that a campaign that is ended early leaves what it saw
        found = report(seed, count, outcomes)
        (folder / f"{seed}.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return report(seed, count, outcomes)


def main() -> int:
    """Run a campaign; 0 if every check held and all faults were done."""
    parser = argparse.ArgumentParser(prog="make faults", description="Disturb releases, and check each.")
    parser.add_argument("seed", nargs="?", type=int, default=1)
    parser.add_argument("count", nargs="?", type=int, default=COUNT, help="faults, at least 1")
    parser.add_argument("--on", choices=(*SCENES, "both"), default="both", help="which stack; both: in turn")
    asked = parser.parse_args()
    if asked.count < 1:
        parser.error(f"COUNT is the number of faults, at least 1; {asked.count} is not")
    # ended from outside, it still ends what it started and unmounts what it mounted
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(highlight=False)
    FOLDER.mkdir(parents=True, exist_ok=True)
    scenes = tuple(SCENES) if asked.on == "both" else (asked.on,)
    with (FOLDER / f"{asked.seed}.log").open("w", encoding="utf-8") as stream:
        configure_logging(level="info", style="json", process="faults", stream=stream)
        found = run(asked.seed, asked.count, FOLDER, console, scenes)
    table = Table("what", "times", title=f"seed {asked.seed}")
    for part in ("faults_by_kind", "deliveries", "tried_again_by_people"):
        for name, value in found[part].items():
            table.add_row(name, str(value))
    for name in ("faults", "releases", "completed", "events", "checks", "violations", "seconds"):
        table.add_row(f"[bold]{name}[/bold]", str(found[name]))
    console.print(table)
    for words in found["left_out"]:
        console.print(f"left out: {words}")
    return 1 if found["violations"] or found["faults"] < asked.count else 0


if __name__ == "__main__":
    sys.exit(main())
