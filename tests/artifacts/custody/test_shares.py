"""k of n people: too few, tampered and foreign shares are errors, never a wrong key."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from shamir_mnemonic import MnemonicError, combine_mnemonics

from artifacts.custody import shares
from artifacts.custody.base import wrapping_context
from artifacts.custody.errors import (
    ShareForeign,
    SharesInvalid,
    ShareTampered,
    TooFewShares,
    WrappedKeyInvalid,
)
from artifacts.errors import KeyProviderError
from artifacts.keys import custody_identity, custody_keygen

CONTEXT = wrapping_context("gpt-2", "weights-large", "sha256:" + "1" * 64)
DEALER = Ed25519PrivateKey.from_private_bytes(b"d" * 32)
DEALER_KEY = DEALER.public_key().public_bytes_raw()
PEOPLE = ["alice", "bob", "carol", "dana@uni.example", "erin"]
DEALT = shares.deal(PEOPLE, 3, CONTEXT, DEALER)
OTHER = shares.deal(PEOPLE, 3, CONTEXT, DEALER)
SIGN_OFF, OTHER_SIGN_OFF = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def record():
    return shares.ShareRecord.verify(DEALT.record.to_text(), DEALER_KEY, CONTEXT)


def of(*names):
    return [DEALT.shares[name] for name in names]


def slip39_vectors():
    """The published vectors of SLIP-0039: mnemonics, and the secret in hex or nothing where they are invalid."""
    return json.loads((Path(__file__).parent / "slip39_vectors.json").read_text())


@pytest.mark.parametrize(("mnemonics", "secret"), slip39_vectors())
def test_the_library_keeps_the_published_vectors(mnemonics, secret):
    if secret:
        assert combine_mnemonics(mnemonics, b"TREZOR").hex() == secret
    else:
        with pytest.raises(MnemonicError):
            combine_mnemonics(mnemonics, b"TREZOR")


def test_every_quorum_of_three_makes_the_secret_and_no_two_do():
    for names in itertools.combinations(PEOPLE, 3):
        assert shares.combine(record(), of(*names)) == DEALT.secret
    for names in itertools.combinations(PEOPLE, 2):
        with pytest.raises(TooFewShares, match="2 of the 3"):
            shares.combine(record(), of(*names))


def test_more_than_enough_shares_make_the_same_secret():
    assert shares.combine(record(), reversed(of(*PEOPLE))) == DEALT.secret


def test_a_share_is_one_that_the_stock_tool_reads():
    assert combine_mnemonics([share.words for share in of("alice", "carol", "erin")]) == DEALT.secret
    assert len(DEALT.shares["alice"].words.split()) == 33


def test_one_persons_share_three_times_is_one_share():
    with pytest.raises(TooFewShares, match="1 of the 3"):
        shares.combine(record(), of("alice", "alice", "alice"))


def test_too_few_shares_name_who_may_still_give_theirs():
    with pytest.raises(TooFewShares, match=r"bob, carol, dana@uni\.example, erin"):
        shares.combine(record(), of("alice"))


def test_a_share_with_one_word_changed_is_named_by_its_holder():
    words = DEALT.shares["bob"].words.split()
    words[10] = "academic" if words[10] != "academic" else "acid"
    bad = replace(DEALT.shares["bob"], words=" ".join(words))
    with pytest.raises(ShareTampered, match="bob"):
        shares.combine(record(), [*of("alice", "carol"), bad])


def test_a_share_under_another_holders_name_is_refused():
    with pytest.raises(ShareTampered, match="carol"):
        shares.combine(record(), [*of("alice", "bob"), replace(DEALT.shares["bob"], holder="carol")])


def test_a_share_of_another_set_is_foreign():
    with pytest.raises(ShareForeign, match="another set"):
        shares.combine(record(), [*of("alice", "bob"), OTHER.shares["carol"]])


def test_a_share_of_another_set_relabelled_is_tampered():
    relabelled = replace(OTHER.shares["carol"], set_id=DEALT.record.set_id)
    with pytest.raises(ShareTampered):
        shares.combine(record(), [*of("alice", "bob"), relabelled])


def test_a_share_of_a_stranger_is_foreign():
    with pytest.raises(ShareForeign, match="nobody of that name"):
        shares.combine(record(), [*of("alice", "bob"), replace(DEALT.shares["bob"], holder="mallory")])


def resigned(key=DEALER, **changes):
    changed = replace(DEALT.record, **changes)
    return replace(changed, signature=key.sign(changed.signed_bytes()))


@pytest.mark.parametrize(
    ("attack", "change"),
    [
        ("a lowered quorum", {"threshold": 1}),
        ("a holder added", {"holders": {**DEALT.record.commitments, "mallory": "0" * 64}}),
        ("a commitment swapped", {"holders": {**DEALT.record.commitments, "alice": "0" * 64}}),
        ("another secret", {"secret": "0" * 64}),
        ("another plan", {"context": {**CONTEXT, "plan_digest": "sha256:" + "2" * 64}}),
        ("another set", {"set": "0" * 32}),
        ("a field more", {"extra": 1}),
        ("no signature", {"signature": ""}),
        ("a signature that is no text", {"signature": 1}),
    ],
)
def test_a_record_that_was_edited_is_refused(attack, change):
    raw = {**json.loads(DEALT.record.to_text()), **change}
    with pytest.raises(ShareTampered):
        shares.ShareRecord.verify(rfc8785.dumps(raw), DEALER_KEY, CONTEXT)


def test_a_record_signed_by_somebody_else_is_refused():
    forged = resigned(Ed25519PrivateKey.generate())
    with pytest.raises(ShareTampered, match="not signed by custody"):
        shares.ShareRecord.verify(forged.to_text(), DEALER_KEY, CONTEXT)


def test_a_record_of_another_plan_is_foreign():
    with pytest.raises(ShareForeign, match="plan"):
        shares.ShareRecord.verify(
            DEALT.record.to_text(), DEALER_KEY, {**CONTEXT, "plan_digest": "sha256:" + "2" * 64}
        )


def test_even_a_dealer_that_signed_nonsense_gives_no_wrong_key():
    """A record with the commitment of another secret: the shares combine, and what they make is withheld."""
    nonsense = resigned(secret_commitment=OTHER.record.secret_commitment)
    checked = shares.ShareRecord.verify(nonsense.to_text(), DEALER_KEY, CONTEXT)
    with pytest.raises(ShareTampered, match="nothing was given out"):
        shares.combine(checked, of("alice", "bob", "carol"))


def test_shares_that_fit_the_record_but_not_one_another_give_no_wrong_key():
    mixed = {**DEALT.shares, "carol": replace(OTHER.shares["carol"], set_id=DEALT.record.set_id)}
    nonsense = resigned(commitments={name: share.commitment() for name, share in mixed.items()})
    with pytest.raises(ShareTampered):
        shares.combine(nonsense, [mixed[name] for name in ("alice", "bob", "carol")])


def test_a_quorum_that_cannot_be_is_refused():
    for names, threshold in [(["a"], 1), (["a", "b"], 1), (["a", "b"], 3), ([f"p{i}" for i in range(17)], 2),
                             (["a", "a", "b"], 2), (["a", ""], 2), (["a", "b|c"], 2)]:  # fmt: skip
        with pytest.raises(SharesInvalid):
            shares.deal(names, threshold, CONTEXT, DEALER)


def test_sixteen_of_sixteen():
    dealt = shares.deal([f"p{i}" for i in range(16)], 16, CONTEXT, DEALER)
    assert shares.combine(dealt.record, dealt.shares.values()) == dealt.secret


def test_two_deals_share_nothing():
    assert DEALT.secret != OTHER.secret
    assert DEALT.record.set_id != OTHER.record.set_id


# --- the root -------------------------------------------------------------------------------------------------


def test_frozen_vector_of_the_root():
    root = shares.derive_root(bytes(range(32)), bytes(range(32, 64)), CONTEXT)
    assert root.hex() == "b39ca24bec43cb45047023cd67a612f02218a2f0d7e2c0330f8de8db05a4f76a"


def test_both_locks_and_the_plan_make_the_root():
    root = shares.derive_root(b"k" * 32, b"s" * 32, CONTEXT)
    others = [
        shares.derive_root(b"K" * 32, b"s" * 32, CONTEXT),
        shares.derive_root(b"k" * 32, b"S" * 32, CONTEXT),
        shares.derive_root(b"s" * 32, b"k" * 32, CONTEXT),
        shares.derive_root(b"k" * 32, b"s" * 32, {**CONTEXT, "plan_digest": "sha256:" + "2" * 64}),
    ]
    assert len({root, *others}) == 5
    for short in ((b"k" * 31, b"s" * 33), (b"", b"s" * 32)):
        with pytest.raises(SharesInvalid):
            shares.derive_root(*short, CONTEXT)


def test_a_root_that_came_sealed_is_locked_under_both():
    derived = shares.derive_root(b"k" * 32, DEALT.secret, CONTEXT)
    locked = shares.lock_root(b"r" * 32, derived)
    assert shares.open_root(locked, derived) == b"r" * 32
    with pytest.raises(WrappedKeyInvalid):
        shares.open_root(locked, shares.derive_root(b"k" * 32, OTHER.secret, CONTEXT))
    for bad in (locked[:-1], locked[:5], b"", bytes([locked[0] ^ 1]) + locked[1:]):
        with pytest.raises(WrappedKeyInvalid):
            shares.open_root(bad, derived)


# --- the way back to custody ----------------------------------------------------------------------------------

CUSTODY = custody_keygen()
IDENTITY = custody_identity(CUSTODY.identity)


def test_a_share_is_released_to_custody_by_a_sign_off():
    released = shares.release_share(DEALT.shares["alice"], CUSTODY.recipient, SIGN_OFF)
    assert shares.receive_share(released, IDENTITY, SIGN_OFF, record()) == DEALT.shares["alice"]


def test_a_share_released_for_one_sign_off_counts_for_no_other():
    released = shares.release_share(DEALT.shares["alice"], CUSTODY.recipient, SIGN_OFF)
    with pytest.raises(ShareTampered, match="another sign-off"):
        shares.receive_share(released, IDENTITY, OTHER_SIGN_OFF, record())


def test_a_share_released_to_another_custody_does_not_open():
    released = shares.release_share(DEALT.shares["alice"], custody_keygen().recipient, SIGN_OFF)
    with pytest.raises(ShareTampered):
        shares.receive_share(released, IDENTITY, SIGN_OFF, record())


def test_a_foreign_share_released_to_custody_is_refused():
    released = shares.release_share(OTHER.shares["alice"], CUSTODY.recipient, SIGN_OFF)
    with pytest.raises(ShareForeign):
        shares.receive_share(released, IDENTITY, SIGN_OFF, record())


@pytest.mark.parametrize(
    "sign_off", ["", "sha256:", "a" * 64, "sha256:" + "A" * 64, "sha256:" + "a" * 64 + "\n"]
)
def test_a_release_names_its_sign_off_by_digest(sign_off):
    with pytest.raises(SharesInvalid):
        shares.release_share(DEALT.shares["alice"], CUSTODY.recipient, sign_off)


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=200))
def test_no_released_bytes_raise_anything_but_a_key_provider_error(data):
    with pytest.raises(KeyProviderError):
        shares.receive_share(data, IDENTITY, SIGN_OFF, record())


@settings(deadline=None)
@given(st.binary(max_size=100) | st.recursive(st.none() | st.integers() | st.text(max_size=9), lambda inner: st.lists(
    inner, max_size=3) | st.dictionaries(st.sampled_from([*json.loads(DEALT.record.to_text()), "words", "holder"]),
    inner, max_size=8)).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_no_text_raises_anything_but_a_key_provider_error(data):
    with pytest.raises(KeyProviderError):
        shares.ShareRecord.verify(data, DEALER_KEY, CONTEXT)
    with pytest.raises(KeyProviderError):
        shares.Share.parse(data)


def test_a_share_survives_as_text_and_shows_nothing():
    share = DEALT.shares["alice"]
    assert shares.Share.parse(share.to_text()) == share
    for shown in (repr(share), repr(DEALT)):
        assert not any(f" {word} " in shown for word in share.words.split())
        assert DEALT.secret.hex() not in shown
