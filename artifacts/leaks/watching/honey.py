"""Honey tokens: a decoy that turns up somewhere is a sighting, whichever source saw it."""

from __future__ import annotations

from collections.abc import Mapping

from artifacts.leaks.errors import shown
from artifacts.leaks.watching.base import Candidate, Cursor, Polled, Source


class HoneyedSource:
    """A source whose candidates are held against the decoys."""

    def __init__(self, inner: Source, decoys: Mapping[str, str]) -> None:
        self._inner = inner
        self._decoys = {mark.lower(): name for mark, name in decoys.items()}

    @property
    def name(self) -> str:
        """The inner source's."""
        return self._inner.name

    @property
    def kind(self) -> str:
        """The inner source's."""
        return self._inner.kind

    def poll(self, cursor: Cursor | None, limit: int) -> Polled:
        """What the inner source gives, decoys marked (see `base.Source`)."""
        polled = self._inner.poll(cursor, limit)
        return polled.model_copy(update={"candidates": tuple(self._held(c) for c in polled.candidates)})

    def _held(self, candidate: Candidate) -> Candidate:
        marks = [candidate.key, candidate.target]
        marks += [m for d in candidate.digests for m in (d.sha256, d.xet_hash, d.btv2_root, d.git_oid) if m]
        name = next((self._decoys[m.lower()] for m in marks if m.lower() in self._decoys), None)
        if name is None:
            return candidate
        title = shown(f"the decoy {name} was seen: {candidate.title}", 400)
        detail = {**candidate.detail, "decoy": name}
        return candidate.model_copy(update={"sighting": True, "title": title, "detail": detail})
