"""A process's clock that steps while it runs, and a disk that is full for a while."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.faults.clocks import Clocks, clear_shared, library
from infra.faults.disk import Disk, can_mount
from infra.faults.scene import other_version
from infra.settings import Settings
from infra.supervised import Component, Site

CLOCK = """
import sys, time
for line in sys.stdin:
    print(time.time(), time.monotonic(), flush=True)
"""


def test_a_clock_steps_while_its_process_runs_and_its_monotonic_clock_does_not(tmp_path: Path) -> None:
    preload = library()
    assert preload is not None, "the package libfaketime is among the development dependencies"
    clocks = Clocks(tmp_path / "clocks", preload)
    component = clocks.wind(Component("one", lambda _site: [], lambda _site: dict(os.environ)))
    environment = dict(component.environment(Site(Settings(dev=True, data_dir=tmp_path), {})))
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-u", "-c", CLOCK],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def read() -> tuple[float, float]:
            """The wall clock's distance from the machine's, and the monotonic one's."""
            process.stdin.write("\n")
            process.stdin.flush()
            wall, monotonic = map(float, process.stdout.readline().split())
            return wall - os.times().elapsed, monotonic - os.times().elapsed

        try:
            wall, monotonic = read()
            for step in (-3600.0, 10.0, 0.0):
                clocks.set("one", step)
                deadline = os.times().elapsed + 10
                while abs(read()[0] - wall - step) > 1:
                    assert os.times().elapsed < deadline, f"the clock did not step by {step}"
                assert abs(read()[1] - monotonic) < 1
        finally:
            process.kill()
    assert clocks.furthest == 3600.0
    left = [Path(f"/dev/shm/{kind}_{process.pid}") for kind in ("faketime_shm", "sem.faketime_sem")]
    assert all(file.exists() for file in left), "whoever is killed tidies nothing up"
    clear_shared()
    assert not any(file.exists() for file in left)


def test_a_full_disk_takes_nothing_new_until_it_is_over(tmp_path: Path) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    if not can_mount():
        with pytest.raises(OSError, match="could be mounted"), Disk(place):
            pass
        return
    with Disk(place, size_mb=8) as disk:
        (place / "before").write_bytes(b"1" * 10_000)
        with disk.full():
            with pytest.raises(OSError, match="No space") as refused:
                (place / "new").write_bytes(b"2" * 10_000)
            assert refused.value.errno == errno.ENOSPC
            assert (place / "before").read_bytes() == b"1" * 10_000
        (place / "after").write_bytes(b"3" * 10_000)
    assert not (place / "before").exists()


def test_the_worker_of_another_version_has_another_workflow(tmp_path: Path) -> None:
    source = Path(__file__).resolve().parents[3]
    changed = other_version(source, tmp_path)
    own = source / changed.relative_to(tmp_path)
    assert changed.read_text() != own.read_text()
    assert len(changed.read_text().splitlines()) == len(own.read_text().splitlines())
    assert not (tmp_path / "workflows/__pycache__").exists()
