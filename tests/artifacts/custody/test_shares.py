"""k of n people: too few, tampered and foreign shares are errors, never a wrong key."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import rfc8785
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from shamir_mnemonic import MnemonicError, combine_mnemonics

from artifacts import age
from artifacts.custody import shares
from artifacts.custody.errors import (
    ShareForeign,
    SharesInvalid,
    ShareTampered,
    TooFewShares,
    WrappedKeyInvalid,
)
from artifacts.dealt import DealtShares
from artifacts.errors import KeyProviderError, ManifestError, WrongKeyError
from artifacts.keys import (
    CustodyHalf,
    RootKey,
    custody_identity,
    custody_keygen,
    partner_identity,
    partner_keygen,
    unwrap_half,
    unwrap_root,
)
from artifacts.manifest import build_manifest, parse_manifest
from artifacts.sealing import seal_tree
from artifacts.signing import SigningKey
from artifacts.stores.directory import DirectoryStore

ART, SIGN_OFF, OTHER_SIGN_OFF = "art-shared-1", "sha256:" + "a" * 64, "sha256:" + "b" * 64
PEOPLE = ["alice", "bob", "carol", "dana.uni", "erin"]
KEYS = {name: partner_keygen() for name in PEOPLE}
IDENTITIES = {name: partner_identity(pair.identity) for name, pair in KEYS.items()}
DEALING = shares.Dealing(3, {name: pair.recipient for name, pair in KEYS.items()})
ROOT = RootKey(b"r" * 32)
CUSTODY = custody_keygen()
IDENTITY = custody_identity(CUSTODY.identity)
DEALT, OTHER = (shares.deal(ROOT, ART, DEALING, CUSTODY.recipient) for _ in range(2))
RECORD = DEALT.record
ALL = {name: shares.open_share(RECORD, ART, name, IDENTITIES[name]) for name in PEOPLE}
OTHERS = {name: shares.open_share(OTHER.record, ART, name, IDENTITIES[name]) for name in PEOPLE}


def of(*names):
    return [ALL[name] for name in names]


def changed(**changes):
    """The record as whoever seals could have written it otherwise."""
    return DealtShares.model_validate({**RECORD.model_dump(by_alias=True), **changes})


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


def test_every_quorum_of_three_makes_the_root_and_no_two_do():
    for names in itertools.combinations(PEOPLE, 3):
        secret = shares.combine(RECORD, ART, of(*names))
        assert shares.unlock(RECORD, ART, DEALT.half, secret) == ROOT
    for names in itertools.combinations(PEOPLE, 2):
        with pytest.raises(TooFewShares, match="2 of the 3"):
            shares.combine(RECORD, ART, of(*names))


def test_more_than_enough_shares_make_the_same_secret():
    assert shares.combine(RECORD, ART, reversed(of(*PEOPLE))) == shares.combine(RECORD, ART, of(*PEOPLE[:3]))


def test_a_share_is_one_that_the_stock_tools_read():
    opened = [
        json.loads(age.decrypt(RECORD.of(name).sealed, IDENTITIES[name]))["words"]
        for name in ("alice", "carol", "erin")
    ]
    assert combine_mnemonics(opened) == shares.combine(RECORD, ART, of("alice", "bob", "carol"))
    assert len(opened[0].split()) == 33


def test_the_lock_and_the_commitments_are_those_of_the_page():
    """From docs/sealed-format.md section 8 alone."""

    def lp(*fields):
        return b"".join(len(f).to_bytes(4, "big") + f for f in fields)

    art, set_id = ART.encode(), bytes.fromhex(RECORD.set_id)
    secret = combine_mnemonics([share.words for share in of("alice", "bob", "carol")])
    committed = lp(b"sluice.release/shared-secret-commitment/v1", art, set_id, secret)
    assert hashlib.sha256(committed).hexdigest() == RECORD.secret
    info = lp(b"sluice.release/share-lock/v1", art, set_id)
    key = HKDF(SHA256(), length=32, salt=None, info=info).derive(DEALT.half.raw + secret)
    locked = base64.b64decode(RECORD.root)
    assert AESGCM(key).decrypt(locked[:12], locked[12:], None) == ROOT.raw
    line = rfc8785.dumps(
        {
            "format": "sluice.release/share/v1",
            "artifact": ART,
            "set": RECORD.set_id,
            "threshold": 3,
            "custody": IDENTITY.recipient.fingerprint,
            "holder": "bob",
            "words": ALL["bob"].words,
        }
    )
    assert (
        hashlib.sha256(lp(b"sluice.release/share-commitment/v1", line)).hexdigest()
        == RECORD.of("bob").commitment
    )


def test_one_persons_share_three_times_is_one_share():
    with pytest.raises(TooFewShares, match="1 of the 3"):
        shares.combine(RECORD, ART, of("alice", "alice", "alice"))


def test_too_few_shares_name_who_may_still_give_theirs():
    with pytest.raises(TooFewShares, match=r"bob, carol, dana\.uni, erin"):
        shares.combine(RECORD, ART, of("alice"))


def test_a_share_with_one_word_changed_is_named_by_its_holder():
    words = ALL["bob"].words.split()
    words[10] = "academic" if words[10] != "academic" else "acid"
    bad = replace(ALL["bob"], words=" ".join(words))
    with pytest.raises(ShareTampered, match="bob"):
        shares.combine(RECORD, ART, [*of("alice", "carol"), bad])


@pytest.mark.parametrize("change", [{"holder": "carol"}, {"threshold": 2}])
def test_a_share_under_another_name_or_with_another_quorum_is_refused(change):
    with pytest.raises(ShareTampered):
        shares.combine(RECORD, ART, [*of("alice", "bob"), replace(ALL["erin"], **change)])


def test_a_share_of_another_dealing_or_artifact_is_foreign():
    for foreign in (OTHERS["carol"], replace(ALL["carol"], artifact="art-another-1")):
        with pytest.raises(ShareForeign, match="asked for is that of the set"):
            shares.combine(RECORD, ART, [*of("alice", "bob"), foreign])


def test_a_share_of_another_set_relabelled_is_tampered():
    with pytest.raises(ShareTampered):
        shares.combine(RECORD, ART, [*of("alice", "bob"), replace(OTHERS["carol"], set_id=RECORD.set_id)])


def test_a_share_of_a_stranger_is_foreign():
    with pytest.raises(ShareForeign, match="nobody of that name"):
        shares.combine(RECORD, ART, [*of("alice", "bob"), replace(ALL["bob"], holder="mallory")])


def test_even_a_sealer_that_wrote_nonsense_gives_no_wrong_key():
    """Committed to another secret; to shares of two dealings; to another root: nothing comes out."""
    three = of("alice", "bob", "carol")
    with pytest.raises(ShareTampered, match="nothing was given out"):
        shares.combine(changed(secret=OTHER.record.secret), ART, three)
    mixed = replace(OTHERS["carol"], set_id=RECORD.set_id)
    holders = [
        {**one.model_dump(), "commitment": mixed.commitment() if one.holder == "carol" else one.commitment}
        for one in RECORD.holders
    ]
    with pytest.raises(ShareTampered):
        shares.combine(changed(holders=holders), ART, [*three[:2], mixed])
    secret = shares.combine(RECORD, ART, three)
    with pytest.raises(WrappedKeyInvalid):
        shares.unlock(changed(root=OTHER.record.root), ART, DEALT.half, secret)


def test_both_secrets_and_the_artifact_open_the_lock_and_nothing_else_does():
    secret = shares.combine(RECORD, ART, of("alice", "bob", "carol"))
    others = [
        (DEALT.half, b"s" * 32, ART),
        (OTHER.half, secret, ART),
        (CustodyHalf(secret), DEALT.half.raw, ART),
        (DEALT.half, secret, "art-another-1"),
    ]
    for half, shared, artifact in others:
        with pytest.raises(WrappedKeyInvalid):
            shares.unlock(RECORD, artifact, half, shared)
    with pytest.raises(SharesInvalid):
        shares.unlock(RECORD, ART, DEALT.half, b"")


def test_what_cannot_be_dealt_is_refused_before_anything_is_sealed():
    key = {name: pair.recipient for name, pair in KEYS.items()}
    more = {f"p{i}": partner_keygen().recipient for i in range(17)}
    for holders, threshold in [({"a": key["bob"]}, 1), (key, 1), (key, 6), (more, 2), ({"A b": key["bob"], "c": key["erin"]}, 2),
                               ({"a": key["bob"], "b": key["bob"]}, 2)]:  # fmt: skip
        with pytest.raises(SharesInvalid):
            shares.deal(ROOT, ART, shares.Dealing(threshold, holders), CUSTODY.recipient)
    with pytest.raises(KeyProviderError):
        shares.deal(ROOT, ART, shares.Dealing(2, {"a": key["bob"], "b": "age1classical"}), CUSTODY.recipient)


def test_sixteen_of_sixteen():
    pairs = {f"p{i}": partner_keygen() for i in range(16)}
    dealing = shares.Dealing(16, {name: pair.recipient for name, pair in pairs.items()})
    dealt = shares.deal(ROOT, ART, dealing, CUSTODY.recipient)
    opened = [
        shares.open_share(dealt.record, ART, name, partner_identity(pair.identity))
        for name, pair in pairs.items()
    ]
    secret = shares.combine(dealt.record, ART, opened)
    assert shares.unlock(dealt.record, ART, dealt.half, secret) == ROOT


# --- in the manifest ------------------------------------------------------------------------------------------


def test_a_record_that_makes_no_sense_is_refused_where_a_manifest_is_read():
    raw = RECORD.model_dump(by_alias=True)
    alice, bob, *rest = raw["holders"]
    for change in [{"threshold": 1}, {"threshold": 6}, {"set": "0"}, {"extra": 1}, {"root": raw["root"][:-4]}, {"holders": [bob, alice, *rest]},
                   {"holders": [alice, {**bob, "recipient": alice["recipient"]}, *rest]}, {"holders": [alice, alice, *rest]},
                   {"holders": [alice, {**bob, "commitment": alice["commitment"]}, *rest]},
                   {"holders": [{**alice, "envelope": "====" }, bob, *rest]}, {"threshold": "3"}]:  # fmt: skip
        with pytest.raises(ValidationError):
            DealtShares.model_validate({**raw, **change})


def test_sealing_with_shares_gives_custody_a_half_that_opens_nothing(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.bin").write_bytes(b"w" * 40_000)
    store, signer = DirectoryStore(tmp_path / "store"), SigningKey.generate()
    given = {
        "custody_recipient": CUSTODY.recipient,
        "signer": signer,
        "components": {"weights": "*"},
        "artifact_id": ART,
        "part_size": 16384,
        "state_dir": tmp_path / "tickets",
    }
    sealed = seal_tree(tmp_path / "model", store, shares=DEALING, **given)
    manifest = parse_manifest(sealed.manifest, trusted=[signer.verify_key])
    record = manifest.shares
    assert (record.threshold, record.names) == (3, PEOPLE)
    with pytest.raises(KeyProviderError, match="sluice-root-v1"):
        unwrap_root(sealed.wrapped_root, IDENTITY, manifest.digest)
    facts = {"artifact_id": ART, "set_id": record.set_id, "commitment": record.half}
    half = unwrap_half(sealed.wrapped_root, IDENTITY, manifest.digest, **facts)
    assert RootKey(half.raw).commitment(ART) != manifest.root_commitment
    with pytest.raises(WrongKeyError, match="not the one its manifest commits to"):
        unwrap_half(sealed.wrapped_root, IDENTITY, manifest.digest, **{**facts, "commitment": RECORD.half})
    own = [shares.open_share(record, ART, name, IDENTITIES[name]) for name in ("erin", "bob", "alice")]
    root = shares.unlock(record, ART, half, shares.combine(record, ART, own))
    assert root.commitment(ART) == manifest.root_commitment
    # the same call again recognises it, other holders are another artifact
    again = seal_tree(tmp_path / "model", store, shares=DEALING, **given)
    assert again.recognised
    assert again.manifest_digest == sealed.manifest_digest
    for other in (None, replace(DEALING, threshold=2)):
        with pytest.raises(ManifestError, match="other key shares"):
            seal_tree(tmp_path / "model", store, shares=other, **given)
    # and a manifest without shares has no such member at all
    plain = build_manifest(
        artifact_id=ART,
        release=None,
        root_commitment="0" * 64,
        custody_fingerprint="0" * 64,
        files=manifest.files,
        signer=signer,
    )
    assert b"shares" not in base64.b64decode(json.loads(plain.data)["payload"])


def test_a_holder_opens_their_own_share_and_learns_of_another_key_or_name():
    with pytest.raises(ShareForeign, match="was sealed to another key of alice"):
        shares.open_share(RECORD, ART, "alice", IDENTITIES["bob"])
    with pytest.raises(ShareForeign, match="holders are alice, bob"):
        shares.open_share(RECORD, ART, "mallory", IDENTITIES["bob"])
    swapped = [
        {**one.model_dump(), **({"envelope": OTHER.record.of("bob").envelope} if one.holder == "bob" else {})}
        for one in RECORD.holders
    ]
    with pytest.raises(ShareForeign, match="bob"):
        shares.open_share(changed(holders=swapped), ART, "bob", IDENTITIES["bob"])


# --- the way back to custody ----------------------------------------------------------------------------------


def released(share, sign_off=SIGN_OFF, custody=CUSTODY):
    return base64.b64decode(shares.release_share(share, custody.recipient, sign_off))


def received(data, sign_off=SIGN_OFF, holder="alice", artifact=ART):
    return shares.receive_share(data, IDENTITY, sign_off, RECORD, artifact, holder)


def test_a_share_is_released_to_custody_by_a_sign_off():
    assert received(released(ALL["alice"])) == ALL["alice"]


def test_a_share_released_for_one_sign_off_counts_for_no_other_and_for_nobody_else():
    data = released(ALL["alice"])
    for other in ({"sign_off": OTHER_SIGN_OFF}, {"holder": "bob"}, {"artifact": "art-another-1"}):
        with pytest.raises(ShareTampered, match="signs off again"):
            received(data, **other)


def test_a_share_is_released_to_no_other_custody():
    """A manifest that somebody made up around real shares, with a custody key of their own, gets none of them."""
    other = custody_keygen()
    with pytest.raises(ShareForeign, match="released to nobody else"):
        released(ALL["alice"], custody=other)
    relabelled = replace(ALL["alice"], custody=custody_identity(other.identity).recipient.fingerprint)
    with pytest.raises(ShareTampered):
        received(released(relabelled, custody=other))


def test_a_foreign_share_released_to_custody_is_refused():
    with pytest.raises(ShareForeign):
        received(released(OTHERS["alice"]))


@pytest.mark.parametrize(
    "sign_off", ["", "sha256:", "a" * 64, "sha256:" + "A" * 64, "sha256:" + "a" * 64 + "\n"]
)
def test_a_release_names_its_sign_off_by_digest(sign_off):
    with pytest.raises(SharesInvalid):
        released(ALL["alice"], sign_off)


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=200))
def test_no_released_bytes_raise_anything_but_a_key_provider_error(data):
    with pytest.raises(KeyProviderError):
        received(data)


@settings(deadline=None)
@given(st.binary(max_size=100) | st.recursive(st.none() | st.integers() | st.text(max_size=9), lambda inner: st.lists(
    inner, max_size=3) | st.dictionaries(st.sampled_from(["format", "artifact", "set", "threshold", "custody", "holder", "words"]),
    inner, max_size=8)).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_no_text_raises_anything_but_a_key_provider_error(data):
    with pytest.raises(KeyProviderError):
        shares.Share.parse(data)


def test_a_share_survives_as_text_and_shows_nothing():
    share = ALL["alice"]
    assert shares.Share.parse(share.to_bytes()) == share
    for shown in (repr(share), repr(DEALT), repr(RECORD)):
        assert not any(f" {word} " in shown for word in share.words.split())
        assert DEALT.half.raw.hex() not in shown
