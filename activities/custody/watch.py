"""Custody reads the log on from where it last was, and finds whatever was altered, dropped or rewritten.

The tree is computed anew from the leaves' bytes: no stored node and no stored hash is believed. Leaves that custody has
seen stay as they are: when a release is folded, each leaf's bytes are held to the hash that custody remembers.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Engine

from activities.custody.memory import CustodyMemory, SeenLeaf
from orchestrator.domain.events import EVENT, AnyEvent
from orchestrator.records import audit
from orchestrator.records.database import reading
from orchestrator.trust.errors import EntryInvalid, LogInvalid, LogRewritten
from orchestrator.trust.merkle import CompactTree, leaf_hash
from orchestrator.trust.statements import CLOCK_SKEW

_CHUNK = 5_000


class ClockSetBack(LogInvalid):
    """Custody's clock went back behind what it has seen. Nothing is wrong with the log; the clock has to be set right."""


class LogWatch:
    """Follows the audit log of the service's database.

    Args:
        engine: the service's database; only read.
        memory: custody's own.
        clock: custody's own clock (aware).
    """

    def __init__(self, engine: Engine, memory: CustodyMemory, clock: Callable[[], datetime]) -> None:
        self._engine, self._memory, self._clock = engine, memory, clock
        self._lock = threading.Lock()
        self._fresh: set[str] = set()

    def fresh(self) -> set[str]:
        """Releases whose artifacts or plan changed since this was last asked."""
        with self._lock:
            found, self._fresh = self._fresh, set()
        return found

    def catch_up(self) -> CompactTree:
        """Read and verify everything new; the tree over the whole log.

        Raises:
            LogRewritten: the log is not an extension of what custody saw.
        """
        with reading(self._engine) as session, self._memory.extending() as (tree, connection):
            head = audit.head(session)
            if head.size < tree.size:
                raise LogRewritten(
                    f"the log has {head.size} entries, custody has seen {tree.size}",
                    where="audit log",
                    remedy="an older database was restored or entries were deleted; see docs/trust-model.md",
                )
            found: list[SeenLeaf] = []
            fresh: set[str] = set()
            now = self._now()
            for leaf in audit.leaves(session, tree.size, limit=head.size - tree.size):
                if leaf.index != tree.size:
                    raise LogRewritten(f"entry {tree.size} is missing", where="audit log")
                tree.append(leaf.body)
                release, seq, kind = _event_place(leaf.body)
                if release is not None and kind in {"artifact_registered", "plan_amended"}:
                    fresh.add(release)
                found.append(SeenLeaf(leaf.index, leaf_hash(leaf.body), release, seq, now))
            if tree.size != head.size or tree.root() != head.root():
                raise LogRewritten(
                    f"the entries do not make the log's root over {head.size} entries",
                    where="audit log",
                    remedy="an entry was altered or dropped; `sluice audit verify` names it",
                )
            for start in range(0, len(found), _CHUNK):
                self._memory.remember(connection, tree, found[start : start + _CHUNK])
        with self._lock:
            self._fresh |= fresh
        return tree

    def history(self, release: str) -> list[tuple[AnyEvent, SeenLeaf]]:
        """The events of a release as custody saw them, each with its leaf.

        Raises:
            LogRewritten: an entry was altered or dropped since, or the release's events are not all there.
        """
        seen = self._memory.leaves_of(release)
        events = []
        with reading(self._engine) as session:
            bodies = {leaf.index: leaf.body for leaf in audit.leaves(session, release=release, kind="event")}
        for place, leaf in enumerate(seen, start=1):
            body = bodies.get(leaf.index)
            if body is None or leaf_hash(body) != leaf.hash:
                raise LogRewritten("was altered or dropped", where=f"audit log, entry {leaf.index}")
            if leaf.seq != place:
                raise LogRewritten(
                    f"is event {leaf.seq} of {release}, where event {place} was due",
                    where=f"audit log, entry {leaf.index}",
                )
            try:
                events.append((EVENT.validate_python(json.loads(body)["event"]), leaf))
            except ValueError:
                raise EntryInvalid(
                    "is no event of this version", index=leaf.index, where=f"audit log, entry {leaf.index}"
                ) from None
        return events

    def _now(self) -> datetime:
        """Custody's clock, which never goes back behind what it has seen.

        Raises:
            ClockSetBack: it did: somebody set the clock of this machine, and no window can be judged by it.
        """
        now, before = self._clock(), self._memory.last_seen()
        if before is not None and now < before - CLOCK_SKEW:
            raise ClockSetBack(
                f"custody's clock shows {now.isoformat()}, but it saw an entry at {before.isoformat()}",
                where="custody's clock",
                remedy="set the clock of custody's machine",
            )
        return now


def _event_place(body: bytes) -> tuple[str | None, int | None, str]:
    """Release, place and type of an event's leaf; nothing of another leaf, or of one that makes no sense."""
    try:
        entry: dict[str, Any] = json.loads(body)
        if entry["kind"] != "event":
            return None, None, ""
        return str(entry["release"]), int(entry["seq"]), str(entry["event"]["type"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, None, ""
