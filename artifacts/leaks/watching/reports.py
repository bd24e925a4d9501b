"""What people and outside monitors hand in, turned into candidates. The service keeps the queue; this reads it.

A place that was reported is looked at each time that somebody reports it: its key carries the report's id, since what is there may
have changed since the last one. Content (a digest, a torrent) has the key of the content.
"""

from __future__ import annotations

from pathlib import Path

from artifacts.leaks.errors import shown
from artifacts.leaks.watching.base import Candidate, Cursor, Polled, SourceError, Submission, Trouble
from artifacts.leaks.watching.options import Options
from artifacts.leaks.watching.settings import ReportsWatch
from artifacts.leaks.watching.submitted import LinkError, candidate_of_link, candidate_of_torrent
from artifacts.leaks.watching.torrents import MAX_TORRENT, TorrentError


class SubmissionSource:
    """Reports, monitors' findings, or torrents from a queue of the service."""

    def __init__(self, setting: ReportsWatch, options: Options) -> None:
        self.name: str = setting.name
        self.kind: str = setting.kind
        self._queue = options.submissions.get(setting.queue or setting.name)
        self._options = options

    def poll(self, cursor: Cursor | None, limit: int) -> Polled:
        """Candidates of the next submissions; one that cannot be understood becomes a note, never an error."""
        if self._queue is None:
            raise SourceError(f"{self.name}: the service gives it no queue to read", Trouble.SETTING)
        position = (cursor or {}).get("position", 0)
        if not isinstance(position, int):
            raise SourceError(f"{self.name}: the cursor is not one of this source", Trouble.SETTING)
        found = self._queue.after(position, limit)
        candidates: dict[str, Candidate] = {}
        notes: list[str] = []
        for item in found:
            position = max(position, item.position)
            try:
                made = self._candidate(item)
            except (LinkError, TorrentError, OSError) as error:
                said = error.strerror if isinstance(error, OSError) else error
                notes.append(f"submission {shown(item.id, 60)}: {said}")
                continue
            candidates.setdefault(made.key, made)
        return Polled(
            candidates=tuple(candidates.values()),
            cursor={"position": position},
            more=len(found) >= limit,
            notes=tuple(notes),
        )

    def _candidate(self, item: Submission) -> Candidate:
        detail = {"submission": item.id, "via": item.via, "note": shown(item.note, 1_000)}
        if item.what == "torrent":
            with Path(item.value).open("rb") as file:
                data = file.read(MAX_TORRENT + 1)
            return candidate_of_torrent(self.name, data, item.at, detail)
        if item.what == "file":
            path = Path(item.value)
            return Candidate(
                source=self.name,
                key=f"report:{item.id}",
                target=str(path),
                title=shown(f"file {path.name}", 300),
                size=path.stat().st_size,
                seen_at=item.at,
                detail=detail,
            )
        made = candidate_of_link(self.name, item.value, item.at, detail)
        return made.model_copy(update={"key": f"report:{item.id}"}) if made.target else made
