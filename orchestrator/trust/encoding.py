"""Strict JSON in, canonical JSON out (RFC 8785), and strict base64.

Invariant: one value has one byte form here. Duplicate keys, NaN, lone surrogates, numbers that a double cannot
hold, nesting without end and documents without end are refused before anyone looks at their meaning.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Any, NoReturn

import rfc8785

from orchestrator.trust.errors import Malformed

MAX_DOCUMENT = 1 << 20
"""Largest signed document that is looked at, in bytes. Statements carry digests, never texts."""


def canonical_json(value: Any, *, where: str = "document") -> bytes:
    """RFC 8785 canonical JSON of a JSON-ready value.

    Raises:
        Malformed: a value that JSON cannot hold exactly.
    """
    try:
        return rfc8785.dumps(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise Malformed(
            f"cannot be written as canonical JSON ({error})",
            where=where,
            remedy="use strings, whole numbers below 2^53, lists and objects with string keys",
        ) from None


def sha256_digest(data: bytes) -> str:
    """`sha256:` and 64 hex digits over the bytes as they are."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


class _RefusedError(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        doubled = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _RefusedError(f"key {doubled[:80]!r} stands twice in one object")
    return result


def _constant(name: str) -> NoReturn:
    raise _RefusedError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def parse_json(data: bytes | str, *, where: str = "document", limit: int = MAX_DOCUMENT) -> Any:
    """Parse JSON strictly.

    Raises:
        Malformed: too long, not UTF-8, not JSON, a doubled key, or nested too deeply.
    """
    if len(data) > limit:
        raise Malformed(f"is {len(data)} bytes long, more than the limit of {limit}", where=where)
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        return _DECODER.decode(text)
    except RecursionError:
        raise Malformed("is nested too deeply", where=where) from None
    except ValueError as error:  # UnicodeDecodeError, JSONDecodeError, _RefusedError, overlong integers
        raise Malformed(f"is not strict JSON ({_short(error)})", where=where) from None


def parse_object(data: bytes | str, *, where: str = "document", limit: int = MAX_DOCUMENT) -> dict[str, Any]:
    """`parse_json`, and the outermost value is an object."""
    value = parse_json(data, where=where, limit=limit)
    if not isinstance(value, dict):
        raise Malformed("is not a JSON object", where=where)
    return value


def b64encode(data: bytes) -> str:
    """Standard base64 with padding."""
    return base64.b64encode(data).decode("ascii")


def b64decode(text: object, *, where: str = "document", length: int | None = None) -> bytes:
    """Standard base64 with padding, in its one canonical spelling.

    Args:
        text: what should be a base64 string.
        where: named in the error.
        length: the number of bytes that must come out, or None for any.

    Raises:
        Malformed: not a string, other letters, other padding bits, or another length.
    """
    if not isinstance(text, str):
        raise Malformed("is not a base64 string", where=where)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("is not base64", where=where) from None
    if b64encode(data) != text:
        raise Malformed("is base64, but not in its canonical spelling", where=where)
    if length is not None and len(data) != length:
        raise Malformed(f"holds {len(data)} bytes, not {length}", where=where)
    return data


def b64url_encode(data: bytes) -> str:
    """URL-safe base64 without padding, as WebAuthn writes it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def b64url_decode(text: object, *, where: str = "document") -> bytes:
    """URL-safe base64 without padding, in its one canonical spelling.

    Raises:
        Malformed: anything else.
    """
    if not isinstance(text, str) or not text.isascii():
        raise Malformed("is not a base64url string", where=where)
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise Malformed("is not base64url", where=where) from None
    if b64url_encode(data) != text:
        raise Malformed("is base64url, but not in its canonical spelling", where=where)
    return data


def _short(error: Exception) -> str:
    text = str(error)
    return text if len(text) <= 160 else text[:157] + "..."
