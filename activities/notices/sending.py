"""What one try to send a message came to, and how long until the next."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

#: Pauses between tries: ten tries over about 28 hours, then the dead-letter list.
PAUSES: tuple[timedelta, ...] = tuple(
    timedelta(seconds=seconds)
    for seconds in (5, 60, 300, 1_800, 7_200, 3 * 3_600, 5 * 3_600, 8 * 3_600, 9 * 3_600)
)


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of one try. `error`: None when it was taken; `for_good`: another try would come to the same."""

    error: str | None = None
    for_good: bool = False


def next_try(name: str, attempts: int, pauses: Sequence[timedelta], now: datetime) -> datetime | None:
    """When a message is tried again after `attempts` earlier tries and one more; None: never.

    Spread by up to a tenth, always the same for one try, so that what failed together does not come back together.
    """
    if attempts >= len(pauses):
        return None
    spread = hashlib.sha256(f"{name}/{attempts}".encode()).digest()[0] / 2560
    return now + pauses[attempts] * (1 + spread)
