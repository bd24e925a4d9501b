"""Encodings: the fast canonical JSON is the reference's, base64 and Bech32 have one spelling."""

from __future__ import annotations

import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.encoding import b64, bech32, canonical_json, parse_canonical_json, prefixed, unb64, unbech32
from artifacts.errors import ArtifactError

TEXT = st.text(st.characters(codec="utf-8")) | st.sampled_from(
    ["\ue000", "\U00010000", "\x7f", "\x1f", "\u2028", "/", '"\\']
)
NUMBERS = (
    st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(-1e15, 1e15)
    | st.sampled_from([0.0, -0.0, 1e-7, 123456.75])
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda x: st.lists(x, max_size=5) | st.dictionaries(TEXT, x, max_size=5),
)


@settings(max_examples=300, deadline=None)
@given(JSON)
def test_canonical_json_is_the_reference_serialisers(value: Any) -> None:
    expected = rfc8785.dumps(value)
    assert canonical_json(value) == expected
    assert rfc8785.dumps(parse_canonical_json(expected, ArtifactError, "x")) == expected


@settings(max_examples=150, deadline=None)
@given(JSON)
def test_other_spellings_are_refused(value: Any) -> None:
    canonical = rfc8785.dumps(value)
    for other in (
        json.dumps(value).encode(),
        json.dumps(value, indent=1).encode(),
        canonical + b"\n",
        b" " + canonical,
    ):
        if other != canonical:
            with pytest.raises(ArtifactError):
                parse_canonical_json(other, ArtifactError, "x")


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}', b'{"b":1,"a":1}', b"1.0", b"1e3", b"-0", b"9007199254740993", b"NaN", b"Infinity", b'"\\u0041"',
        b'"\\/"', b'"\xed\xa0\x80"', b"", b"[1,]", b"\xef\xbb\xbf1", b'"\\ud800"', b"1" * 400,
    ],
)  # fmt: skip
def test_disguises_are_refused(data: bytes) -> None:
    with pytest.raises(ArtifactError):
        parse_canonical_json(data, ArtifactError, "x")


@given(st.lists(st.binary(max_size=20), max_size=5), st.lists(st.binary(max_size=20), max_size=5))
def test_length_prefixes_keep_lists_apart(one: list[bytes], other: list[bytes]) -> None:
    assert (prefixed(*one) == prefixed(*other)) == (one == other)


@given(st.binary(max_size=60))
def test_base64_and_bech32_round_trip(data: bytes) -> None:
    for padded in (True, False):
        assert unb64(b64(data, padded=padded), ArtifactError, "x", padded=padded) == data
    text = bech32("test", data)
    assert (
        unbech32(text, "test", ArtifactError, "x")
        == unbech32(text.upper(), "test", ArtifactError, "x")
        == data
    )


@pytest.mark.parametrize("text", ["A", "AA", "AA=", "AB==", "AA==\n", " AA==", "A-==", "AA==AA==", "é"])
def test_base64_has_one_spelling(text: str) -> None:
    with pytest.raises(ArtifactError):
        unb64(text, ArtifactError, "x")


@pytest.mark.parametrize(
    "text",
    [
        "A12UEL5L",
        "an83characterlonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio1tt5tgs",
    ],
)
def test_bip_173_strings_are_valid(text: str) -> None:
    """BIP 173, test vectors."""
    hrp = text.lower().rpartition("1")[0]
    assert unbech32(text, hrp, ArtifactError, "x") == b""


@pytest.mark.parametrize(
    "text",
    ["a12uel5m", "A12uEL5L", "pzry9x0s0muk", "1pzry9x0s0muk", "x1b4n0q5v", "li1dgmt3", "A1G7SGD8"],
)
def test_bip_173_invalid_strings_are_refused(text: str) -> None:
    with pytest.raises(ArtifactError):
        unbech32(text, text.lower().rpartition("1")[0], ArtifactError, "x")
