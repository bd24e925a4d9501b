"""What every key provider promises, on each of them."""

from __future__ import annotations

import secrets
from dataclasses import replace

import pytest

from artifacts.custody.base import WrappedKey, wrapping_context
from artifacts.custody.errors import WrappedKeyForeign, WrappedKeyInvalid
from artifacts.errors import KeyProviderError

CONTEXT = wrapping_context("gpt-2", "weights-large", "sha256:" + "1" * 64)
ROOT = secrets.token_bytes(32)

OTHER_CONTEXTS = {
    "another release": {**CONTEXT, "release": "gpt-3"},
    "another artifact": {**CONTEXT, "artifact": "weights-small"},
    "a plan swapped in the database": {**CONTEXT, "plan_digest": "sha256:" + "2" * 64},
    "a field more": {**CONTEXT, "step": "open"},
    "fields moved into one another": {**CONTEXT, "release": "gpt-2weights", "artifact": "-large"},
}


def test_a_key_comes_back_in_its_context(provider):
    wrapped = provider.wrap(ROOT, CONTEXT)
    assert provider.unwrap(wrapped, dict(reversed(CONTEXT.items()))) == ROOT


def test_a_wrapped_key_survives_as_text(provider):
    wrapped = provider.wrap(ROOT, CONTEXT)
    again = WrappedKey.parse(str(wrapped))
    assert again == wrapped
    assert provider.unwrap(again, CONTEXT) == ROOT
    assert again.provider == provider.name


@pytest.mark.parametrize("attack", OTHER_CONTEXTS)
def test_a_key_does_not_come_out_for(provider, attack):
    wrapped = provider.wrap(ROOT, CONTEXT)
    with pytest.raises(WrappedKeyInvalid):
        provider.unwrap(wrapped, OTHER_CONTEXTS[attack])
    with pytest.raises(WrappedKeyInvalid):
        provider.rewrap(wrapped, OTHER_CONTEXTS[attack], CONTEXT)


def test_wrapping_twice_gives_two_strings_and_both_open(provider):
    """A call whose answer was lost is made again; whichever answer is stored must open."""
    first, second = provider.wrap(ROOT, CONTEXT), provider.wrap(ROOT, CONTEXT)
    assert str(first) != str(second)
    assert provider.unwrap(first, CONTEXT) == provider.unwrap(second, CONTEXT) == ROOT


@pytest.mark.parametrize(
    "bad", [{}, {"release": "a"}, {**CONTEXT, "plan_digest": ""}, {**CONTEXT, "artifact": 1}]
)
def test_a_context_that_does_not_name_release_artifact_and_plan_is_refused(provider, bad):
    with pytest.raises(WrappedKeyInvalid, match="context"):
        provider.wrap(ROOT, bad)
    with pytest.raises(WrappedKeyInvalid, match="context"):
        provider.unwrap(provider.wrap(ROOT, CONTEXT), bad)


@pytest.mark.parametrize("size", [0, 1025])
def test_a_key_of_an_odd_length_is_refused(provider, size):
    with pytest.raises(WrappedKeyInvalid):
        provider.wrap(bytes(size), CONTEXT)


def test_an_amended_plan_rewraps_and_the_old_context_opens_the_new_string_no_more(provider):
    amended = {**CONTEXT, "plan_digest": "sha256:" + "3" * 64}
    wrapped = provider.wrap(ROOT, CONTEXT)
    moved = provider.rewrap(wrapped, CONTEXT, amended)
    assert provider.unwrap(moved, amended) == ROOT
    with pytest.raises(WrappedKeyInvalid):
        provider.unwrap(moved, CONTEXT)


def test_a_rotated_key_still_opens_what_it_wrapped_before(provider):
    before = provider.wrap(ROOT, CONTEXT)
    version = provider.rotate()
    after = provider.wrap(ROOT, CONTEXT)
    assert provider.unwrap(before, CONTEXT) == provider.unwrap(after, CONTEXT) == ROOT
    assert after.version == version
    rewrapped = provider.rewrap(before, CONTEXT, CONTEXT)
    assert rewrapped.version == version
    assert provider.unwrap(rewrapped, CONTEXT) == ROOT


def test_every_altered_byte_of_a_wrapped_key_is_refused(provider):
    wrapped = provider.wrap(ROOT, CONTEXT)
    places = {*range(0, len(wrapped.ciphertext), 7), len(wrapped.ciphertext) - 1}
    for at in sorted(places):
        body = bytearray(wrapped.ciphertext)
        body[at] ^= 1
        with pytest.raises(KeyProviderError) as refusal:
            provider.unwrap(replace(wrapped, ciphertext=bytes(body)), CONTEXT)
        assert not refusal.value.retryable


@pytest.mark.parametrize("cut", [1, 12, 40])
def test_a_cut_off_wrapped_key_is_refused(provider, cut):
    wrapped = provider.wrap(ROOT, CONTEXT)
    with pytest.raises(KeyProviderError):
        provider.unwrap(replace(wrapped, ciphertext=wrapped.ciphertext[:cut]), CONTEXT)


def test_a_key_of_another_provider_is_foreign(provider):
    wrapped = provider.wrap(ROOT, CONTEXT)
    for foreign in (replace(wrapped, provider="elsewhere"), replace(wrapped, key="another")):
        with pytest.raises(WrappedKeyForeign):
            provider.unwrap(foreign, CONTEXT)
        with pytest.raises(WrappedKeyForeign):
            provider.rewrap(foreign, CONTEXT, CONTEXT)


def test_it_says_what_it_is_and_how_it_is(provider):
    description = provider.describe()
    assert description.provider == provider.name
    assert description.protected
    assert provider.wrap(ROOT, CONTEXT).key == description.key
    assert provider.health().ok


def test_nothing_that_is_shown_holds_the_key(provider):
    wrapped = provider.wrap(ROOT, CONTEXT)
    shown = [repr(provider), repr(wrapped), str(wrapped), repr(provider.describe()), repr(provider.health())]
    with pytest.raises(WrappedKeyInvalid) as refusal:
        provider.unwrap(wrapped, OTHER_CONTEXTS["another release"])
    shown += [str(refusal.value), repr(refusal.value)]
    for text in shown:
        assert ROOT.hex() not in text
        assert str(list(ROOT)) not in text
        assert repr(ROOT)[2:-1] not in text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sluice-wrapped-v1",
        "sluice-wrapped-v2|local|k|1|AAAA",
        "sluice-wrapped-v1|LOCAL|k|1|AAAA",
        "sluice-wrapped-v1|local||1|AAAA",
        "sluice-wrapped-v1|local|k|01|AAAA",
        "sluice-wrapped-v1|local|k|-1|AAAA",
        "sluice-wrapped-v1|local|k|1|",
        "sluice-wrapped-v1|local|k|1|AAA",
        "sluice-wrapped-v1|local|k|1|AAB=",
        "sluice-wrapped-v1|local|k|1|AAAA|",
        "sluice-wrapped-v1|local|k\n|1|AAAA",
        "x" * 200_000,
    ],
)
def test_a_string_that_is_no_wrapped_key_is_refused(text):
    with pytest.raises(WrappedKeyInvalid):
        WrappedKey.parse(text)
