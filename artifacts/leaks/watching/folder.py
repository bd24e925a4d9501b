"""A folder in which operators drop suspects: files, whole folders, .torrent files, and text files of links (`*.links`).

Nothing in the folder is changed. A file counts once its size and time stood still for a while; its key is the SHA-256 of its content, so
a file that is dropped twice, or renamed, is one candidate, and what was looked at may be moved away or left there.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from artifacts.leaks.errors import shown
from artifacts.leaks.watching.base import Candidate, Cursor, Digests, Polled, SourceError, Trouble
from artifacts.leaks.watching.options import Options
from artifacts.leaks.watching.polling import short
from artifacts.leaks.watching.settings import FolderWatch
from artifacts.leaks.watching.submitted import MAX_LINKS, LinkError, candidate_of_link, candidate_of_torrent
from artifacts.leaks.watching.torrents import MAX_TORRENT, TorrentError

_SEEN = 5_000
_DONE = "done"  # where operators may move what was dealt with; not looked into


@dataclass(frozen=True)
class _Dropped:
    path: Path
    size: int
    touched: float
    identity: str  # inode, size and time in short: what is remembered


class FolderSource:
    """Files that operators drop (see the module)."""

    kind = "folder"

    def __init__(self, setting: FolderWatch, options: Options) -> None:
        self.name = setting.name
        self._root = Path(setting.path)
        self._settle_s = setting.settle_s
        self._options = options

    def poll(self, cursor: Cursor | None, limit: int) -> Polled:
        """Files that were not there before, each hashed once (see `base.Source`)."""
        seen = (cursor or {}).get("seen", [])
        if not isinstance(seen, list):
            raise SourceError(
                f"{self.name}: the cursor is not one of this source; start it without one", Trouble.SETTING
            )
        notes: list[str] = []
        known, there = set(seen), []
        fresh: list[_Dropped] = []
        waiting, now = 0, self._options.now().timestamp()
        for file in self._files(notes):
            if file.identity in known:
                there.append(file.identity)
            elif 0 <= now - file.touched < self._settle_s:
                waiting += 1
            else:
                fresh.append(file)
        fresh.sort(key=lambda f: f.touched)
        found: dict[str, Candidate] = {}
        taken = []
        failed: list[str] = []
        for file in fresh:
            if len(found) >= limit:
                break
            try:
                made = self._candidates(file, notes)
            except OSError as error:
                failed.append(f"{self.name}: {shown(file.path, 200)}: cannot be read: {error.strerror}")
                continue
            if made is None:
                waiting += 1  # it changed while it was read: the next poll sees it whole
                continue
            taken.append(file.identity)
            for candidate in made:
                found.setdefault(candidate.key, candidate)
        if waiting:
            notes.append(f"{waiting} files are still being written")
        return Polled(
            candidates=tuple(found.values()),
            cursor={"seen": [*there, *taken][-_SEEN:]},
            more=len(taken) + len(failed) < len(fresh) and len(found) >= limit,
            notes=tuple(notes),
            failed="; ".join(failed[:3]),
        )

    def _files(self, notes: list[str]) -> Iterator[_Dropped]:
        """Regular files below the folder; links, devices and pipes are left alone."""
        try:
            if not stat.S_ISDIR(self._root.stat().st_mode):
                raise SourceError(f"{self.name}: {self._root}: is not a folder", Trouble.SETTING)
        except OSError as error:
            raise SourceError(
                f"{self.name}: {self._root}: {error.strerror}: make the folder, or correct the setting",
                Trouble.GONE,
            ) from error
        count = 0
        for folder, folders, names in os.walk(self._root, followlinks=False):
            folders[:] = sorted(f for f in folders if f != _DONE and not f.startswith("."))
            for name in sorted(names):
                path = Path(folder, name)
                if name.startswith(".") or name.endswith((".part", ".tmp", ".crdownload")):
                    continue
                try:
                    status = path.lstat()
                except OSError:
                    continue  # it was moved away meanwhile
                if not stat.S_ISREG(status.st_mode):
                    notes.append(f"{shown(path, 200)}: is a link or a device and was left alone")
                    continue
                count += 1
                if count > self._options.limits.max_entries:
                    notes.append(f"only the first {count - 1} files of the folder are looked at")
                    return
                identity = short(f"{path} {status.st_ino} {status.st_size} {status.st_mtime_ns}")
                touched = max(status.st_mtime, status.st_ctime)
                yield _Dropped(path, status.st_size, touched, identity)

    def _candidates(self, file: _Dropped, notes: list[str]) -> list[Candidate] | None:
        """The candidates of a file; None if it changed while it was read."""
        suffix = file.path.suffix.lower()
        now = self._options.now()
        if suffix == ".torrent" and file.size <= MAX_TORRENT:
            try:
                return [
                    candidate_of_torrent(self.name, file.path.read_bytes(), now, {"file": file.path.name})
                ]
            except TorrentError as error:
                notes.append(f"{shown(file.path.name)}: {error}")
        if suffix == ".links" and file.size <= MAX_LINKS:
            return self._links(file, notes)
        with file.path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
            status = os.fstat(opened.fileno())
        if status.st_size != file.size:
            return None
        return [
            Candidate(
                source=self.name,
                key=f"sha256:{digest}",
                target=str(file.path),
                title=shown(file.path.relative_to(self._root), 300),
                size=file.size,
                seen_at=now,
                digests=(Digests(path=shown(file.path.name, 200), size=file.size, sha256=digest),),
            )
        ]

    def _links(self, file: _Dropped, notes: list[str]) -> list[Candidate]:
        out = []
        for line in file.path.read_text("utf-8", "replace").splitlines():
            link = line.strip()
            if not link or link.startswith("#"):
                continue
            try:
                out.append(candidate_of_link(self.name, link, self._options.now(), {"file": file.path.name}))
            except (LinkError, TorrentError) as error:
                notes.append(f"{shown(file.path.name)}: {error}")
        return out
