"""What was made of an immutable object once, kept for as long as that object lives.

Nothing is told apart by it but time: what is kept is what would be made again. An object is known by its identity, not by its value,
so that looking one up costs nothing; a copy is another object.
"""

from __future__ import annotations

import weakref
from typing import Generic, TypeVar

Of = TypeVar("Of")
Made = TypeVar("Made")


class Memo(Generic[Of, Made]):
    """One thing for each living object. Safe to share between threads: at worst something is made twice."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[weakref.ref[Of], Made]] = {}

    def __len__(self) -> int:
        """How many objects something is kept for."""
        return len(self._kept)

    def get(self, of: Of) -> Made | None:
        """What is kept for this very object, or None."""
        found = self._kept.get(id(of))
        return None if found is None or found[0]() is not of else found[1]

    def keep(self, of: Of, made: Made) -> Made:
        """Keep it in the place of what was kept before; returned as it is."""
        kept, key = self._kept, id(of)
        # called before the object's memory, and with it its id, can be anybody else's
        kept[key] = (weakref.ref(of, lambda _: kept.pop(key, None)), made)
        return made
