"""What every part of the demo's story has: the release and its people, the API, and a stage that shows it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from artifacts.custody.shares import Dealing
from artifacts.keys import KeyPair
from artifacts.progress import ProgressCallback
from infra.demo_cast import Cast, Pace
from infra.settings import Settings
from orchestrator.cli.client import JSON


class StoryError(AssertionError):
    """Something that the demo claims did not happen."""


class Stage(Protocol):
    """Shows the story while it happens."""

    def chapter(self, words: str) -> None:
        """A new part begins."""
        ...

    def say(self, words: str) -> None:
        """One thing that happened."""
        ...

    def bar(self, words: str) -> AbstractContextManager[ProgressCallback | None]:
        """A bar for bytes that move."""
        ...


class Silent:
    """Shows nothing."""

    def chapter(self, words: str) -> None:
        """See `Stage`."""

    def say(self, words: str) -> None:
        """See `Stage`."""

    def bar(self, words: str) -> AbstractContextManager[ProgressCallback | None]:
        """See `Stage`."""
        return nullcontext()


@dataclass(frozen=True)
class Model:
    """The files of a model: one of weights, and small ones beside it. `small`: name → file, with their components."""

    weights: Path
    small: Mapping[str, Path]
    patterns: Mapping[str, list[str]]


@dataclass
class Telling:
    """One telling of the story: who and what takes part, and what the API shows of it.

    `moment(name)` is called at every turn, for tests that break something there.

    `shares`: so many of the holders' key shares are needed at every gate that hands out keys; None asks for none.
    """

    settings: Settings
    url: str
    folder: Path
    model: Model
    pace: Pace = field(default_factory=Pace)
    show: Stage = field(default_factory=Silent)
    moment: Callable[[str], None] = lambda _name: None
    release: str = "minilm-1.0"
    shares: int | None = None
    _recognised: JSON = field(init=False, default_factory=dict)
    cast: Cast = field(init=False)
    keys: dict[str, KeyPair] = field(init=False)
    _dealing: Dealing | None = field(init=False, default=None)

    def state(self) -> JSON:
        """The release as the API shows it."""
        return self.cast["rosa"].get("releases", self.release)

    def events(self) -> list[JSON]:
        """All its events."""
        found: list[JSON] = []
        while True:
            page = self.cast["rosa"].get(
                "releases", self.release, "events", after=found[-1]["seq"] if found else 0, limit=200
            )
            found += page["items"]
            if page["next_after"] is None:
                return found


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
