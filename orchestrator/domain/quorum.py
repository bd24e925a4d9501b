"""Could the named people ever fill these places, one person each? A bipartite matching over people and places."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def most_filled(places: Sequence[Collection[str]]) -> int:
    """How many places can be filled at once when nobody may fill two.

    Args:
        places: for each place the names of the people who could take it.

    Returns:
        The size of the largest matching (shortest augmenting paths), 0 to `len(places)`.
    """
    known: dict[int, tuple[str, ...]] = {}  # places of one requirement share their list: it is read once
    for place in places:
        if id(place) not in known:
            known[id(place)] = tuple(dict.fromkeys(place))
    candidates = [known[id(place)] for place in places]
    everybody = len({person for listed in known.values() for person in listed})
    holder: dict[str, int] = {}
    seated: dict[int, str] = {}
    # Whoever was reached in vain will never help again, so nobody is looked at for ever: a plan that asks for thousands
    # of people is answered as quickly as any other.
    stuck: set[str] = set()

    def seat(place: int) -> bool:
        reached: dict[str, int] = {}
        waiting = [place]
        for here in waiting:
            for person in candidates[here]:
                if person in reached or person in stuck:
                    continue
                reached[person] = here
                if person in holder:
                    waiting.append(holder[person])
                    continue
                _move_up(person, place, reached)
                return True
        stuck.update(reached)
        return False

    def _move_up(person: str, place: int, reached: dict[str, int]) -> None:
        """Everybody on the way from `place` to the free person takes the seat from which they were reached."""
        while True:
            here = reached[person]
            before = seated.get(here)
            holder[person], seated[here] = here, person
            if here == place or before is None:
                return
            person = before

    for number in range(len(candidates)):
        if len(holder) == everybody:
            break
        seat(number)
    return len(holder)
