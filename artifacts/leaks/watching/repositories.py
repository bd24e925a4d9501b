"""Named repositories of the Hub: every commit that a branch, tag or pull request points at, and those behind it.

The refs of a repository come in one answer, so a poll costs one call per repository, and more only for what is new. What makes it
lose nothing: the cursor holds where each ref pointed, and a ref moves in it only when everything it brought was given.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from artifacts.leaks.asking import hub_requests
from artifacts.leaks.errors import shown
from artifacts.leaks.hub import tree_row
from artifacts.leaks.watching.base import (
    MAX_DIGESTS,
    Candidate,
    Cursor,
    Digests,
    Polled,
    SourceError,
    Trouble,
)
from artifacts.leaks.watching.hub import ref_candidate
from artifacts.leaks.watching.options import Options
from artifacts.leaks.watching.polling import Poll, polling, short, translate
from artifacts.leaks.watching.settings import RepositoriesWatch

MAX_REFS = 2_000
MERGED = 100
_KINDS = ("models", "datasets", "spaces")


class RepositoriesSource:
    """Commits of named repositories (see the module)."""

    kind = "repositories"

    def __init__(self, setting: RepositoriesWatch, options: Options) -> None:
        self.name = setting.name
        self._setting = setting
        self._options = options

    def poll(self, cursor: Cursor | None, limit: int) -> Polled:
        """New commits, repository after repository (see `base.Source`)."""
        cursor = cursor or {}
        names = self._setting.repositories
        with polling(self.name, self._options) as poll:
            turn, held = cursor.get("turn", 0), cursor.get("refs", {})
            if not isinstance(turn, int) or not isinstance(held, dict):
                raise poll.error(
                    "the cursor is not one of this source; start it without one", Trouble.SETTING
                )
            run = _Run(self.name, self._options, poll, limit, history=self._setting.history)
            refs = {name: dict(held.get(name, {})) for name in names if name in held}
            first: SourceError | None = None
            done, looked, unfinished = 0, 0, False
            for name in (names[(turn + i) % len(names)] for i in range(len(names))):
                if len(run.found) >= limit or not poll.can_ask(2):
                    unfinished = True
                    break
                done += 1
                try:
                    refs[name], complete = run.repository(name, refs.get(name, {}))
                    looked += 1
                    unfinished = unfinished or not complete
                except Exception as error:
                    known = translate(poll, error)
                    if known is None:
                        raise
                    run.failed.append(known.message)
                    first = first or known
                    if known.trouble not in {Trouble.GONE, Trouble.DENIED, Trouble.MISBEHAVING}:
                        break
            if first is not None and not looked:
                raise first
            return Polled(
                candidates=tuple(run.found.values()),
                cursor={"turn": (turn + done) % len(names), "refs": refs},
                more=unfinished and not run.failed and not poll.rested,
                limits=poll.limits(first.retry_after_s if first is not None else None),
                notes=tuple(run.notes),
                failed="; ".join(run.failed[:3]),
            )


class _Run:
    """One poll."""

    def __init__(self, source: str, options: Options, poll: Poll, limit: int, *, history: bool) -> None:
        from huggingface_hub import HfApi

        self.source, self.poll, self.limit, self.history = source, poll, limit, history
        self.api = HfApi(endpoint=options.hub.endpoint, token=options.hub.token or False)
        self.max_entries = options.limits.max_entries
        self.now: datetime = options.now()
        self.found: dict[str, Candidate] = {}
        self.notes: list[str] = []
        self.failed: list[str] = []

    def repository(self, name: str, known: dict[str, str]) -> tuple[dict[str, str], bool]:
        """Give what is new of a repository; returns where its refs are now in the cursor, and whether all was given."""
        kind, identity = _parts(name)
        with hub_requests(self.poll.asker):
            found = self.api.list_repo_refs(
                identity, repo_type=kind.removesuffix("s"), include_pull_requests=True
            )
        refs = [*found.branches, *found.tags, *(found.pull_requests or []), *found.converts]
        if len(refs) > MAX_REFS:
            self.failed.append(f"{self.source}: {name}: only {MAX_REFS} of {len(refs)} refs are looked at")
            refs = refs[-MAX_REFS:]
        # A ref's name may be long and there may be many: the cursor holds both in short.
        heads = {short(str(ref.ref)): str(ref.target_commit) for ref in refs}
        given = set(known.values())
        after = {ref: commit for ref, commit in known.items() if ref in heads}
        for ref in refs:
            place, commit = short(str(ref.ref)), str(ref.target_commit)
            if after.get(place) == commit[:12]:
                continue
            if len(self.found) >= self.limit or not self.poll.can_ask(3):
                return after, False
            if commit[:12] not in given:
                self._give(self._head(kind, identity, str(ref.ref), commit))
            behind = []
            if self.history:
                behind = self._behind(kind, identity, str(ref.ref), commit, after.get(place))
            for old, title in behind:
                if old[:12] not in given:
                    earlier, said = f"{ref.ref}, earlier", {"commit": shown(title, 200)}
                    self._give(
                        ref_candidate(self.source, kind, identity, earlier, old, self.now, detail=said)
                    )
            after[place] = commit[:12]
            given |= {commit[:12], *(old[:12] for old, _ in behind)}
        return after, True

    def _give(self, candidate: Candidate) -> None:
        held = self.found.get(candidate.key)
        if held is None or len(held.digests) < len(candidate.digests):
            self.found[candidate.key] = candidate

    def _behind(
        self, kind: str, identity: str, ref: str, commit: str, known: str | None
    ) -> list[tuple[str, str]]:
        """The commits behind a ref's head, down to the one that is known: id and title."""
        with hub_requests(self.poll.asker):
            commits = self.api.list_repo_commits(identity, repo_type=kind.removesuffix("s"), revision=commit)
        ids = [str(item.commit_id) for item in commits[: self.max_entries]]
        # Commits come by date: what a merge brought may stand behind the one that is known.
        place = next((i for i, oid in enumerate(ids) if known is not None and oid.startswith(known)), None)
        end = len(ids) if place is None else min(len(ids), place + 1 + MERGED)
        out = [(ids[i], str(commits[i].title)) for i in range(1, end) if i != place]
        if len(commits) > self.max_entries:
            self.failed.append(f"{self.source}: {identity}: {ref}: more than {self.max_entries} commits")
        return out

    def _head(self, kind: str, identity: str, ref: str, commit: str) -> Candidate:
        """The candidate of a ref's head, with the digests that the tree's listing gives."""
        rows: list[dict[str, Any]] = []
        more = False
        with hub_requests(self.poll.asker):
            tree = self.api.list_repo_tree(
                identity, recursive=True, revision=commit, repo_type=kind.removesuffix("s")
            )
            for entry in tree:
                row = tree_row(entry)
                if row is not None:
                    rows.append(row)
                if len(rows) >= self.max_entries or not self.poll.can_ask():
                    more = True
                    break
        if more:
            self.notes.append(
                f"{identity}@{commit[:12]}: the first {len(rows)} files of its listing were looked at"
            )
        rows.sort(key=lambda row: -row["size"])
        digests = tuple(
            Digests(
                path=shown(row["path"], 200),
                size=row["size"],
                sha256=row["sha256"],
                xet_hash=row["xet_hash"],
                git_oid=row["git_oid"],
            )
            for row in rows[:MAX_DIGESTS]
        )
        size = sum(row["size"] for row in rows)
        return ref_candidate(self.source, kind, identity, ref, commit, self.now, digests=digests, size=size,
                             detail={"files": len(rows), "files_complete": not more})  # fmt: skip


def _parts(name: str) -> tuple[str, str]:
    """`hf:[datasets/|spaces/]owner/name` as listing and `owner/name`."""
    pieces = name.removeprefix("hf:").split("/")
    if len(pieces) == 3 and pieces[0] in _KINDS:
        return pieces[0], "/".join(pieces[1:])
    return "models", "/".join(pieces)
