"""Encodings that the formats share: length prefixes, canonical base64, Bech32 strings for keys, canonical JSON.

All decoders accept one spelling of a value and refuse every other, so that a changed byte is always noticed.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from typing import Any

import rfc8785

from artifacts.errors import ArtifactError

_CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def prefixed(*fields: bytes) -> bytes:
    """Concatenate `fields`, each after its length as 4 bytes big-endian: no two lists give the same bytes."""
    return b"".join(struct.pack(">I", len(field)) + field for field in fields)


def u64(value: int) -> bytes:
    """8 bytes, big-endian."""
    return struct.pack(">Q", value)


def b64(data: bytes, *, padded: bool = True) -> str:
    """Standard base64 (RFC 4648 section 4)."""
    text = base64.b64encode(data).decode("ascii")
    return text if padded else text.rstrip("=")


def unb64(text: str | bytes, error: type[ArtifactError], what: str, *, padded: bool = True) -> bytes:
    """Decode canonical base64; anything else raises `error` naming `what`."""
    try:
        raw = text.encode("ascii") if isinstance(text, str) else text
        filled = raw if padded else raw + b"=" * (-len(raw) % 4)
        data = base64.b64decode(filled, validate=True)
    except (binascii.Error, ValueError, UnicodeEncodeError):
        raise error(f"{what}: not base64") from None
    if b64(data, padded=padded).encode() != raw:
        raise error(f"{what}: base64 is not canonical (RFC 4648 section 3.5)")
    return data


class _SlowPath(Exception):  # noqa: N818 - a signal between two functions
    """The value needs the full RFC 8785 serialiser."""


def _refuse_float(_: str) -> None:
    raise _SlowPath


def _small_int(digits: str) -> int:
    if len(digits) > 15:
        raise _SlowPath
    return int(digits)


def _fast(value: Any) -> str:
    """`json.dumps` in the spelling that is RFC 8785's too, as long as there are no floats and no astral characters."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)


def canonical_json(value: Any) -> bytes:
    """RFC 8785 bytes of `value`.

    The reference serialiser is pure Python and slow; for integers, text below U+D800, lists and objects, the standard
    library's C code gives the same bytes (`tests/artifacts/test_encoding.py` holds it to that), for all else it is asked.
    """
    try:
        text = _fast(value)
        json.loads(text, parse_float=_refuse_float, parse_int=_small_int)
        if max(text) < "\ud800":
            return text.encode()
    except (_SlowPath, TypeError, ValueError):
        pass
    return rfc8785.dumps(value)


def parse_canonical_json(data: bytes, error: type[ArtifactError], what: str) -> Any:
    """Parse JSON and insist that `data` is its canonical form (RFC 8785).

    This refuses duplicate members, other spacing or order, floats in disguise, and numbers beyond 2^53.
    """
    try:
        text = data.decode("utf-8")
        try:
            value = json.loads(text, parse_float=_refuse_float, parse_int=_small_int)
            same = max(text, default="") < "\ud800" and _fast(value) == text
        except _SlowPath:
            same = False
        if not same:
            value = json.loads(text)
            same = rfc8785.dumps(value) == data
    except (ValueError, RecursionError) as cause:
        raise error(f"{what}: not JSON that RFC 8785 can hold ({type(cause).__name__})") from None
    if not same:
        raise error(f"{what}: not in canonical form (RFC 8785)")
    return value


def _polymod(values: list[int]) -> int:
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for i in range(5):
            check ^= _GENERATOR[i] if (top >> i) & 1 else 0
    return check


def _expand(hrp: str) -> list[int]:
    return [ord(c) >> 5 for c in hrp] + [0] + [ord(c) & 31 for c in hrp]


def _regroup(data: bytes | list[int], from_bits: int, to_bits: int, *, pad: bool) -> list[int] | None:
    accumulator = bits = 0
    out: list[int] = []
    for value in data:
        accumulator = (accumulator << from_bits | value) & 0xFFFFF
        bits += from_bits
        while bits >= to_bits:
            bits -= to_bits
            out.append(accumulator >> bits & ((1 << to_bits) - 1))
    left = accumulator & ((1 << bits) - 1)
    if pad:
        if bits:
            out.append(left << (to_bits - bits))
    elif bits >= from_bits or left:
        return None
    return out


def bech32(hrp: str, data: bytes) -> str:
    """Bech32 (BIP 173) of `data` without its length limit, lower case, as age writes keys."""
    values = _regroup(data, 8, 5, pad=True) or []
    polymod = _polymod(_expand(hrp) + values + [0] * 6) ^ 1
    checksum = [polymod >> 5 * (5 - i) & 31 for i in range(6)]
    return hrp + "1" + "".join(_CHARSET[v] for v in values + checksum)


def unbech32(text: str, hrp: str, error: type[ArtifactError], what: str) -> bytes:
    """Decode a Bech32 string with exactly this human-readable part; `what` names it, the text is never shown."""
    lower = text.lower()
    if text not in {lower, text.upper()}:
        raise error(f"{what}: mixes upper and lower case; copy it again as it was given")
    found, separator, encoded = lower.rpartition("1")
    if not separator or found != hrp or len(encoded) < 6 or any(c not in _CHARSET for c in encoded):
        raise error(f"{what}: expected a string that begins with {hrp + '1'!r}")
    values = [_CHARSET.index(c) for c in encoded]
    if _polymod(_expand(hrp) + values) != 1:
        raise error(f"{what}: the checksum is wrong; copy it again as it was given")
    data = _regroup(values[:-6], 5, 8, pad=False)
    if data is None:
        raise error(f"{what}: not canonical Bech32")
    return bytes(data)
