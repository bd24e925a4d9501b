"""Small values that everything else is written in: names, digests, durations, instants, canonical JSON.

Durations are `timedelta`s written as `90s`, `45m`, `12h`, `30d`, `2w`, or a sum such as `1d12h`; zero and
negative ones are refused. Instants are time-zone aware and kept in UTC. Canonical JSON is RFC 8785.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import rfc8785
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

_UNITS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:[0-9]{1,9}[wdhms])+")
_TERM = re.compile(r"([0-9]+)([wdhms])")
_LONGEST = timedelta(days=3_660)


class Frozen(BaseModel):
    """An immutable value that refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def parse_duration(text: object) -> timedelta:
    """`30d`, `2w`, `90s`, `1d12h` as a `timedelta`.

    Raises:
        ValueError: not of that form, zero, or longer than ten years.
    """
    if isinstance(text, timedelta):
        value = text
    elif isinstance(text, str) and _DURATION.fullmatch(text):
        seconds = sum(int(n) * _UNITS[unit] for n, unit in _TERM.findall(text))
        value = min(timedelta(seconds=min(seconds, 10**12)), _LONGEST + timedelta(seconds=1))
    else:
        raise ValueError("a duration is written like 90s, 45m, 12h, 30d, 2w or 1d12h")
    if value <= timedelta(0):
        raise ValueError("a duration must be longer than zero; leave the field out to ask for none")
    if value > _LONGEST:
        raise ValueError("a duration of more than ten years is surely a mistake")
    return value


def format_duration(value: timedelta) -> str:
    """A `timedelta` in the same notation, largest units first (`1d12h`); `0s` for none. Whole seconds."""
    seconds = int(value.total_seconds())
    if seconds <= 0:
        return "0s"
    words = []
    for unit, size in _UNITS.items():
        count, seconds = divmod(seconds, size)
        if count:
            words.append(f"{count}{unit}")
    return "".join(words)


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {"type": "string", "pattern": r"^([0-9]{1,9}[wdhms])+$", "examples": ["30d", "2w", "90s"]}
    ),
]


def _utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("an instant needs a time zone, such as 2026-11-23T09:00:00Z")
    return value.astimezone(UTC)


Instant = Annotated[datetime, AfterValidator(_utc)]

Name = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"),
    Field(description="lower-case letters, digits, dot, dash and underscore; at most 63"),
]

Digest = Annotated[
    str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$"), Field(description="`sha256:` and 64 hex digits")
]


def _printable(text: str) -> str:
    bad = next((c for c in text if not c.isprintable() and c not in "\n\t"), None)
    if bad is not None:
        raise ValueError(f"contains the control or invisible character U+{ord(bad):04X}; remove it")
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _one_line(text: str) -> str:
    if "\n" in text or "\t" in text:
        raise ValueError("must be one line without tabs")
    return _printable(text)


Line = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_one_line)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=4_000), AfterValidator(_printable)]


def canonical(value: Any) -> bytes:
    """RFC 8785 canonical JSON of a JSON-ready value: equal values give equal bytes."""
    return rfc8785.dumps(value)


def digest(value: Any) -> str:
    """`sha256:…` over the canonical JSON of a JSON-ready value, or over the JSON form of a model."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return "sha256:" + hashlib.sha256(canonical(value)).hexdigest()


def digest_bytes(data: bytes) -> str:
    """`sha256:…` over bytes as they are."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def statement_digest(envelope: str | None) -> str | None:
    """`sha256:…` of the statement inside a DSSE envelope, which names it; None for no envelope or something else.

    Nothing is verified here: a digest is a name, and custody and the API check what it names.
    """
    try:
        return digest_bytes(base64.b64decode(json.loads(envelope or "")["payload"], validate=True))
    except (ValueError, TypeError, KeyError, binascii.Error):
        return None
