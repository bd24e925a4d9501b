"""Pages by keyset: a cursor names the last row seen, so that no page depends on how many rows stand before it."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import Select, SQLColumnExpression, tuple_

from orchestrator.domain.errors import Malformed

Item = TypeVar("Item")
Row = TypeVar("Row")
Statement = TypeVar("Statement", bound=Select[*tuple[Any, ...]])

LARGEST = 200
_LONGEST_CURSOR = 2_000


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Some rows in order.

    Attributes:
        items: at most as many as asked for.
        next: the cursor of the next page; None when this is the last.
    """

    items: list[Item]
    next: str | None


def encode_cursor(order: str, *key: str | int | datetime) -> str:
    """An opaque cursor: the order it belongs to, and the key of the last row."""
    values = [value.isoformat() if isinstance(value, datetime) else value for value in key]
    text = json.dumps([order, *values], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def decode_cursor(cursor: str, order: str, *kinds: type[Any]) -> list[Any]:
    """The key in a cursor, of these kinds (`str`, `int`, `datetime`).

    Raises:
        Malformed: not a cursor of ours, or of another list or order.
    """
    refused = Malformed("the cursor is not one of this list and order; begin without one")
    if len(cursor) > _LONGEST_CURSOR:
        raise refused
    try:
        value = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if not isinstance(value, list) or value[:1] != [order] or len(value) != len(kinds) + 1:
            raise refused
        return [_value(item, kind) for item, kind in zip(value[1:], kinds, strict=True)]
    except (binascii.Error, ValueError, TypeError, RecursionError):
        raise refused from None


def _value(item: Any, kind: type[Any]) -> Any:
    if kind is datetime:
        instant = datetime.fromisoformat(item)
        if instant.tzinfo is None:
            raise ValueError("no time zone")
        return instant
    if type(item) is not kind or (kind is int and not -(2**62) < item < 2**62):
        raise TypeError("of another kind")
    if kind is str and "\0" in item:
        raise ValueError("a null character")
    return item


def page_size(limit: int) -> int:
    """The limit, if it is one.

    Raises:
        Malformed: below 1 or above `LARGEST`.
    """
    if not 1 <= limit <= LARGEST:
        raise Malformed(f"a page has 1 to {LARGEST} items, not {limit}")
    return limit


def after(
    statement: Statement,
    columns: Sequence[SQLColumnExpression[Any]],
    key: Sequence[Any] | None,
    *,
    down: bool,
) -> Statement:
    """`statement` in the order of `columns` (all downwards or all upwards), behind `key`."""
    if key is not None:
        here = tuple_(*columns)
        statement = statement.where(here < tuple_(*key) if down else here > tuple_(*key))
    return statement.order_by(*(column.desc() if down else column.asc() for column in columns))


def cut(
    rows: Sequence[Row], limit: int, item: Callable[[Row], Item], cursor: Callable[[Row], str]
) -> Page[Item]:
    """A page out of `limit + 1` rows that were asked for."""
    shown = rows[:limit]
    return Page([item(row) for row in shown], cursor(shown[-1]) if len(rows) > limit else None)
