"""What people and outside monitors hand in, turned into candidates. The service keeps the queue; this reads it."""

from __future__ import annotations

import re
from pathlib import Path

from artifacts.leaks.errors import shown
from artifacts.leaks.watching.base import Candidate, Cursor, Digests, Polled, SourceError, Submission, Trouble
from artifacts.leaks.watching.options import Options
from artifacts.leaks.watching.settings import ReportsWatch

_SHA256 = re.compile(r"^[0-9a-f]{64}$")


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
        candidates: list[Candidate] = []
        notes: list[str] = []
        for item in found:
            position = max(position, item.position)
            try:
                candidates.append(self._candidate(item))
            except ValueError as error:
                notes.append(f"submission {shown(item.id, 60)}: {error}")
        return Polled(
            candidates=tuple(candidates),
            cursor={"position": position},
            more=len(found) >= limit,
            notes=tuple(notes),
        )

    def _candidate(self, item: Submission) -> Candidate:
        value = item.value.strip()
        digests: tuple[Digests, ...] = ()
        key, target, size = f"report:{item.id}", value, None
        if item.what == "sha256":
            if not _SHA256.match(value.lower()):
                raise ValueError("not a SHA-256 in hex")
            key, target, digests = f"sha256:{value.lower()}", "", (Digests(path="", sha256=value.lower()),)
        elif item.what == "file":
            size = Path(value).stat().st_size if Path(value).is_file() else None
        return Candidate(
            source=self.name,
            key=key,
            target=target,
            title=shown(f"{item.what} {value}", 300),
            size=size,
            seen_at=item.at,
            digests=digests,
            detail={"submission": item.id, "via": item.via, "note": shown(item.note, 1_000)},
        )
