"""Wall clocks of single processes, set forward or back while they run, by `libfaketime` in front of the C library.

Each process reads its own file for how far its clock is off. Monotonic clocks, files' times, and programs that ask the kernel
directly (Go: Temporal, OpenBao, the S3 gateway) are untouched: what is stepped is the clock that our own code reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

from infra.supervised import Component, Site


def library() -> Path | None:
    """The library of the package `libfaketime`, None where it is not installed or was not built for this machine."""
    package = find_spec("libfaketime")
    if package is None or not package.submodule_search_locations:
        return None
    found = Path(package.submodule_search_locations[0]) / "vendor/libfaketime/src/libfaketime.so.1"
    return found if found.exists() else None


_SHARED = Path("/dev/shm")  # noqa: S108 - where the library keeps what its processes share


def clear_shared() -> None:
    """Remove what the library leaves in shared memory for each process that was killed: two small files."""
    for left in _SHARED.glob("*faketime_s*_*"):
        process = left.name.rpartition("_")[2]
        if process.isdigit() and not Path("/proc", process).exists():
            left.unlink(missing_ok=True)


@dataclass
class Clocks:
    """The clocks of the processes that were `wound`.

    Attributes:
        folder: where the files lie.
        preload: the library.
        off: process → seconds that its clock is off now.
        furthest: the most seconds that any clock ever was off, either way.
    """

    folder: Path
    preload: Path
    off: dict[str, float] = field(default_factory=dict)
    furthest: float = 0.0

    def wind(self, component: Component) -> Component:
        """The component with a clock that can be set."""
        self.set(component.name, 0.0)

        def environment(site: Site) -> Mapping[str, str]:
            return {**component.environment(site), **self._environment(component.name)}

        return replace(component, environment=environment)

    def set(self, name: str, seconds: float) -> None:
        """Set a process's clock so many seconds off the machine's, negative: behind it. It shows within a second."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / name
        temporary = file.with_suffix(".new")
        temporary.write_text(f"{seconds:+.3f}s\n", encoding="ascii")
        temporary.replace(file)
        self.off[name] = seconds
        self.furthest = max(self.furthest, abs(seconds))

    def _environment(self, name: str) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(self.preload),
            "FAKETIME_TIMESTAMP_FILE": str(self.folder / name),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
            "NO_FAKE_STAT": "1",
        }
