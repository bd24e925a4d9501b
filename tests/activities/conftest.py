"""Records in a SQLite file, and releases written into them event by event, as the workflow would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from orchestrator.records import database, releases
from orchestrator.records.migrate import migrate
from tests.domain.walker import Walker
from tests.support.plans import five_stage_plan


class Recorded:
    """A release that walks, and whose events are written to the records."""

    def __init__(self, engine: Engine, walker: Walker) -> None:
        self.engine, self.walker, self._written = engine, walker, 0

    @property
    def release(self) -> str:
        return self.walker.state.release

    def write(self) -> Recorded:
        """Write what has happened since; one command an event."""
        while self._written < len(self.walker.events):
            event = self.walker.events[self._written]
            self._written += 1
            asked = releases.Append(
                release=self.release,
                first_seq=self._written,
                events=[event],
                command_id=f"write-{self._written}",
                command_type=event.type,
                command_digest="sha256:" + "0" * 64,
                actor=event.by,
            )
            with database.writing(self.engine) as session:
                releases.append(session, asked, self.walker.now)
        return self

    def walk(self, until: str | None = None) -> Recorded:
        self.walker.walk(until)
        return self.write()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path / 'records.db'}"
    migrate(url)
    made = database.connect(url)
    yield made
    made.dispose()


@pytest.fixture
def recorded(engine: Engine) -> Recorded:
    return Recorded(engine, Walker(five_stage_plan())).write()
