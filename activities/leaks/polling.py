"""Polling a source: candidates are kept first, the cursor after them, in one transaction.

A poll goes page by page until there is nothing more, its time is over, or it is told to stop; each page is kept before the next
is asked for. A source that could not look is blind from its last success on, and its row says why.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Engine

from activities.beating import Beat
from artifacts.errors import ArtifactError
from artifacts.leaks.watching import Candidate, Polled, Source, SourceError, Submission
from orchestrator.contracts.leak_messages import PollResult
from orchestrator.domain.errors import NotFound
from orchestrator.records import monitors, reports, suspects
from orchestrator.records.database import reading, writing
from orchestrator.records.suspects import Suspect

_log = structlog.get_logger("leaks")
PAGE = 200
_LEASE = timedelta(minutes=10)
_PATIENCE = timedelta(minutes=3)
#: A source that goes nowhere with the same page is left alone after so many.
_SAME_PAGES = 2


def _now() -> datetime:
    return datetime.now(UTC)


class ReportQueue:
    """A queue of what was handed in, as sources read it (`artifacts.leaks.watching.SubmissionQueue`)."""

    def __init__(self, engine: Engine, name: str, folder: Path | None = None) -> None:
        """Read a queue.

        Args:
            engine: of the records.
            name: of the queue.
            folder: where torrent files that were handed in are laid for whoever reads them.
        """
        self._engine, self._name, self._folder = engine, name, folder

    def after(self, position: int, limit: int) -> list[Submission]:
        """See `SubmissionQueue`."""
        with reading(self._engine) as session:
            found = reports.behind(session, self._name, position, limit)
        return [
            Submission(
                position=report.position,
                id=report.id,
                at=report.at,
                what=report.what,
                value=self._value(report),
                note=report.note,
                via=report.via,
            )
            for report in found
        ]

    def _value(self, report: reports.Report) -> str:
        if report.what != "torrent" or self._folder is None:
            return report.value
        path = self._folder / f"{report.id}.torrent"
        if not path.exists():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = path.with_suffix(".tmp")
            temporary.write_bytes(base64.b64decode(report.value))
            temporary.replace(path)
        return str(path)


@dataclass
class Polling:
    """Polls the sources of this worker.

    Attributes:
        engine: of the records.
        sources: by name.
        every: least time between the begins of two polls of one source.
        clock: tells the time (aware).
    """

    engine: Engine
    sources: Mapping[str, Source]
    every: timedelta = timedelta(minutes=1)
    clock: Callable[[], datetime] = field(default=_now)

    def prepare(self) -> None:
        """Have a row for every source of this worker."""
        with writing(self.engine) as session:
            monitors.configure(session, {name: source.kind for name, source in self.sources.items()})

    def poll(self, name: str, holder: str, beat: Beat) -> PollResult:
        """Poll one source until it has nothing more, in its turn."""
        source = self.sources.get(name)
        if source is None:
            told = f"the plan names the leak source {name}, which this service does not have: add it to SLUICE_LEAK_SOURCES_FILE"
            with writing(self.engine) as session:
                monitors.named(session, name, self.clock(), told)
            return PollResult(source=name, state="blind", why=told)
        with writing(self.engine) as session:
            lease = monitors.lease(session, name, holder, self.clock(), at_most=_LEASE, every=self.every)
        if lease is None:
            return PollResult(source=name, state="resting")
        try:
            return self._pages(source, lease, beat)
        except NotFound:  # the lease ran out in our hands; whoever has it goes on from what was kept
            return PollResult(source=name, state="resting")

    def _pages(self, source: Source, lease: monitors.Lease, beat: Beat) -> PollResult:
        begun, new, same = self.clock(), 0, 0
        while True:
            beat.check()
            try:
                page = source.poll(lease.cursor, PAGE)
            except SourceError as error:
                return self._blind(source, lease, error, new)
            except (ArtifactError, OSError, ValueError) as error:
                # a source's own mistake must not end the sweep, nor look like quiet
                why = f"{type(error).__name__}: {error}"
                _log.exception("a leak source failed", source=source.name)
                return self._blind(source, lease, SourceError(why), new)
            same = same + 1 if page.more and page.cursor == lease.cursor else 0
            stuck = same >= _SAME_PAGES
            over = self.clock() - begun > _PATIENCE
            done = not page.more or stuck or over
            moved, fresh = self._keep(lease, page, done=done and not page.failed, stuck=stuck)
            if moved is None:
                return PollResult(source=source.name, state="resting", new=new)
            new += fresh
            lease = moved
            beat.details = [source.name, new]
            if page.failed:  # what it saw is kept; what it could not see makes it blind all the same
                partly = SourceError(page.failed, retry_after_s=page.limits.retry_after_s, limits=page.limits)
                return self._blind(source, lease, partly, new)
            if done:
                return PollResult(source=source.name, state="looked", new=new, more=page.more and not stuck)

    def _keep(
        self, lease: monitors.Lease, page: Polled, *, done: bool, stuck: bool
    ) -> tuple[monitors.Lease | None, int]:
        """One transaction: the candidates, and the cursor behind them."""
        notes = [*page.notes, *(["it gives the same page again and again"] if stuck else [])]
        with writing(self.engine) as session:
            now = self.clock()
            # Moving takes the source's row first, so that two who keep the same page cannot pass each other.
            moved = monitors.moved(
                session,
                lease,
                now,
                cursor=page.cursor,
                behind_seconds=page.behind_s,
                limits=page.limits.model_dump(exclude_none=True),
                notes=notes,
                done=done,
                saw=not page.failed,
            )
            if moved is None:
                return None, 0
            fresh = suspects.keep(session, [_suspect(c) for c in page.candidates], now)
            monitors.counted(session, lease.source, fresh)
        return moved, fresh

    def _blind(self, source: Source, lease: monitors.Lease, error: SourceError, new: int) -> PollResult:
        now = self.clock()
        with writing(self.engine) as session:
            monitors.failed(
                session,
                source.name,
                lease.holder,
                now,
                trouble=error.trouble.value,
                error=error.message,
                retry_at=None if error.retry_after_s is None else now + _wait(error.retry_after_s),
                limits=error.limits.model_dump(exclude_none=True),
            )
        _log.warning(
            "a leak source is blind", source=source.name, trouble=error.trouble.value, why=error.message
        )
        return PollResult(source=source.name, state="blind", new=new, why=error.message[:1_000])


def _wait(seconds: float) -> timedelta:
    """A little longer than was asked for, never longer than a day."""
    return timedelta(seconds=min(max(seconds, 0.0), 86_400.0) * random.uniform(1.0, 1.1))  # noqa: S311 - not a secret


def _suspect(candidate: Candidate) -> Suspect:
    body: dict[str, Any] = candidate.model_dump(mode="json", exclude_none=True)
    return Suspect(
        key=candidate.key,
        source=candidate.source,
        target=candidate.target,
        title=candidate.title,
        size=candidate.size,
        sighting=candidate.sighting,
        body=body,
        seen_at=candidate.seen_at,
    )
