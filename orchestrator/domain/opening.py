"""Recurring opening hours of a gate: an RFC 5545 recurrence rule in a time zone."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dateutil.rrule import rrule, rruleset, rrulestr
from pydantic import Field, model_validator

from orchestrator.domain.values import Duration, Frozen, Line

_EPOCH = datetime(2020, 1, 6)  # noqa: DTZ001 - a Monday; the zone is applied to each occurrence, so that wall-clock hours stay
_SEARCHED = "20480101T000000"  # 28 years: after that the calendar repeats
_MOST_INTERVAL = 366
_INTERVAL = re.compile(r"INTERVAL=([0-9]{0,6})")


class OpeningHours(Frozen):
    """When a gate may open: each occurrence of `rrule` (wall-clock time of `time_zone`) opens it for `duration`."""

    rrule: Line = Field(examples=["FREQ=WEEKLY;BYDAY=MO,TU,WE,TH;BYHOUR=9;BYMINUTE=0;BYSECOND=0"])
    duration: Duration
    time_zone: Line = Field(default="UTC", examples=["Europe/Zurich"])

    @model_validator(mode="after")
    def _understood(self) -> Self:
        try:
            ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"{self.time_zone!r} is not an IANA time zone, such as Europe/Zurich") from error
        upper = self.rrule.upper()
        if "FREQ=" not in upper or any(
            word in upper for word in ("COUNT=", "UNTIL=", "DTSTART", "SECONDLY", "MINUTELY", "HOURLY")
        ):
            raise ValueError(
                "an opening-hours rule needs FREQ= (DAILY or slower) and takes no DTSTART, COUNT or UNTIL"
            )
        interval = _INTERVAL.search(upper)
        if interval is not None and not 1 <= int(interval.group(1) or 0) <= _MOST_INTERVAL:
            raise ValueError(f"the INTERVAL of an opening-hours rule is between 1 and {_MOST_INTERVAL}")
        try:
            # A bounded search: for a day that never comes (30 February) the library would look up to the year 9999.
            occurs = next(iter(rrulestr(f"{upper};UNTIL={_SEARCHED}", dtstart=_EPOCH)), None) is not None
        except (ValueError, TypeError, AttributeError, KeyError, OverflowError) as error:
            raise ValueError(f"not an RFC 5545 recurrence rule: {error}") from error
        if not occurs:
            raise ValueError("this recurrence rule never opens the gate: no such day comes")
        return self

    def open_at(self, now: datetime) -> bool:
        """Whether `now` (aware) lies in an occurrence."""
        begin = _rule(self.rrule).before(self._wall(now), inc=True)
        return begin is not None and now < self._instant(begin) + self.duration

    def next_opening(self, now: datetime) -> datetime | None:
        """`now` if open, else the next instant (UTC) at which it opens; None if it never does."""
        if self.open_at(now):
            return now
        begin = _rule(self.rrule).after(self._wall(now), inc=True)
        return None if begin is None else self._instant(begin)

    def next_closing(self, now: datetime) -> datetime | None:
        """When the hours that are open `now` end (UTC); None if closed."""
        if not self.open_at(now):
            return None
        begin = _rule(self.rrule).before(self._wall(now), inc=True)
        return None if begin is None else self._instant(begin) + self.duration

    def _wall(self, now: datetime) -> datetime:
        return now.astimezone(ZoneInfo(self.time_zone)).replace(tzinfo=None)

    def _instant(self, wall: datetime) -> datetime:
        return wall.replace(tzinfo=ZoneInfo(self.time_zone)).astimezone(UTC)


@lru_cache(maxsize=256)
def _rule(text: str) -> rrule | rruleset:
    return rrulestr(text, dtstart=_EPOCH, cache=True)
