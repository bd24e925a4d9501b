"""What custody is asked, what it finds to be given, and what it holds and reads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Engine

from activities.custody.copies import CopyMemory
from activities.custody.keeping import Keeping
from activities.custody.keys import CustodyKeys
from activities.custody.memory import CustodyMemory
from activities.custody.second_lock import Purpose, SecondLock
from activities.custody.sharing import Released
from activities.custody.watch import LogWatch
from artifacts.custody.base import KeyProvider
from artifacts.manifest import Manifest
from orchestrator.domain import events as ev
from orchestrator.domain.state import ReleaseState


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for: one approach to one step, as entered at `at`; partners' registered keys by digest.

    `absent`: partners that get nothing now. `late`: the partner whose grant was asked for, at `at`, after the step was entered (activities/custody/late.py).
    """

    release: str
    step: str
    attempt: int
    at: datetime
    partners: Mapping[str, str | None]
    absent: frozenset[str] = frozenset()
    late: str | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """What custody found to be given: the release by the log, the grants that carry keys, the key shares that were released."""

    state: ReleaseState
    grants: list[ev.Grant]
    released: Mapping[str, Sequence[Released]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Issue:
    """What one grant gets of one artifact: the artifact itself, or the grant's own copy of it."""

    grant: ev.Grant
    manifest: Manifest
    components: list[str]


class CustodyBase:
    """What custody holds and reads. Arguments as `Custody`."""

    def __init__(
        self,
        engine: Engine,
        memory: CustodyMemory,
        provider: KeyProvider,
        keys: CustodyKeys,
        clock: Callable[[], datetime],
        tolerance: timedelta = timedelta(seconds=5),
        *,
        signed_only: bool = False,
    ) -> None:
        self._engine, self._memory, self._keys = engine, memory, keys
        self._clock, self._tolerance, self._signed_only = clock, tolerance, signed_only
        self.keeping = Keeping(memory, provider, keys)
        self._lock = threading.Lock()
        self._said: dict[tuple[str, str, int], str] = {}
        self.second_lock = SecondLock(memory, provider, keys)
        self.copies = CopyMemory(memory)
        self.watch = LogWatch(engine, memory, clock)


def purpose_of(asked: Asked, state: ReleaseState) -> Purpose:
    """What a judged request is for: the entry that is under way, or the grant that was asked for."""
    if asked.late is not None:
        at = asked.at.timestamp()
        return Purpose(asked.release, "late", asked.step, asked.attempt, asked.late, at)
    began = asked.at if state.entry is None else state.entry.at
    return Purpose(asked.release, "entry", asked.step, asked.attempt, at=began.timestamp())
