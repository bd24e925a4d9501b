"""Could the named people ever fill these places, one person each? A bipartite matching over people and places."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def most_filled(places: Sequence[Iterable[str]]) -> int:
    """How many places can be filled at once when nobody may fill two.

    Args:
        places: for each place the names of the people who could take it.

    Returns:
        The size of the largest matching (augmenting paths), 0 to `len(places)`.
    """
    candidates = [tuple(dict.fromkeys(place)) for place in places]
    holder: dict[str, int] = {}

    def seat(place: int, tried: set[str]) -> bool:
        for person in candidates[place]:
            if person in tried:
                continue
            tried.add(person)
            if person not in holder or seat(holder[person], tried):
                holder[person] = place
                return True
        return False

    return sum(seat(place, set()) for place in range(len(candidates)))
