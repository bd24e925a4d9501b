"""Envelopes, keys and passkeys; each refusal is named by the attack."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from orchestrator.trust import passkeys, signing
from orchestrator.trust.encoding import canonical_json
from orchestrator.trust.errors import KeyUnusable, Malformed, SignatureInvalid, TrustError, UnknownKey
from orchestrator.trust.keys import PrivateKey, PublicKey
from tests.simulators.authenticator import SoftwareAuthenticator

PAYLOAD = b'{"_type":"https://in-toto.io/Statement/v1"}'
ALICE = PrivateKey.from_seed(b"a" * 32)
BOB = PrivateKey.from_seed(b"b" * 32)
PARTY = "sluice.example"


def altered(envelope: bytes, **changes: object) -> bytes:
    return canonical_json({**json.loads(envelope), **changes})


def with_signature(envelope: bytes, **changes: object) -> bytes:
    raw = json.loads(envelope)
    return altered(envelope, signatures=[{**raw["signatures"][0], **changes}])


# --- plain keys -----------------------------------------------------------------------------------------------


def test_pre_authentication_encoding_is_that_of_the_dsse_specification():
    assert signing.pae(b"hello world") == b"DSSEv1 28 application/vnd.in-toto+json 11 hello world"


def test_an_envelope_is_verified_by_an_independent_implementation():
    envelope = signing.sign(PAYLOAD, ALICE)
    key = SSlibKey(ALICE.public.key_id, "ed25519", "ed25519", {"public": ALICE.public.material.hex()})
    accepted = Envelope.from_dict(json.loads(envelope)).verify([key], threshold=1)
    assert list(accepted) == [ALICE.public.key_id]


def test_signed_bytes_come_back_with_the_key_that_signed():
    verified = signing.verify_single(signing.sign(PAYLOAD, ALICE), [BOB.public, ALICE.public])
    assert verified.payload == PAYLOAD
    assert verified.key == ALICE.public


def test_frozen_vector_of_an_envelope():
    """Ed25519 is deterministic: this envelope must come out the same for ever."""
    envelope = signing.sign(b"{}", PrivateKey.from_seed(bytes(32)))
    assert envelope == (
        b'{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":'
        b'"SHA256:tAXFyTXI8xtDaujAEcwJslAYc9/6FKcUkd2Lw0xDhPo","sig":"UkEYmFUz0AgX1tVG/R7wiE8FiawAjqkjHtqBkfZitacwP+NO6pFEHRc3INiNjmm2MRGl+0mOcYUprVhdHZLNCQ=="}]}'
    )


def test_two_signatures_of_two_keys_both_count():
    verified = signing.verify(signing.sign(PAYLOAD, ALICE, BOB), [ALICE.public, BOB.public])
    assert verified.keys == (ALICE.public, BOB.public)


def test_a_second_signature_on_what_one_person_says_is_refused():
    with pytest.raises(Malformed, match="more than one signature"):
        signing.verify_single(signing.sign(PAYLOAD, ALICE, BOB), [ALICE.public, BOB.public])


def test_a_stranger_key_is_unknown():
    with pytest.raises(UnknownKey, match="none of the keys"):
        signing.verify(signing.sign(PAYLOAD, BOB), [ALICE.public])


def test_a_strangers_signature_relabelled_as_a_pinned_key_is_refused():
    forged = with_signature(signing.sign(PAYLOAD, BOB), keyid=ALICE.public.key_id)
    with pytest.raises(SignatureInvalid):
        signing.verify(forged, [ALICE.public])


def test_a_broken_signature_of_a_pinned_key_spoils_a_good_one_beside_it():
    raw = json.loads(signing.sign(PAYLOAD, ALICE, BOB))
    raw["signatures"][1]["sig"] = raw["signatures"][0]["sig"]
    with pytest.raises(SignatureInvalid):
        signing.verify(canonical_json(raw), [ALICE.public, BOB.public])


def test_a_swapped_payload_is_refused():
    forged = altered(signing.sign(PAYLOAD, ALICE), payload=base64.b64encode(b"{}").decode())
    with pytest.raises(SignatureInvalid, match="does not fit"):
        signing.verify(forged, [ALICE.public])


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param(
            altered(signing.sign(PAYLOAD, ALICE), payloadType="text/plain"), id="another payload type"
        ),
        pytest.param(altered(signing.sign(PAYLOAD, ALICE), signatures=[]), id="no signature"),
        pytest.param(altered(signing.sign(PAYLOAD, ALICE), extra=1), id="a field beside it"),
        pytest.param(altered(signing.sign(PAYLOAD, ALICE), payload="e30"), id="base64 without padding"),
        pytest.param(
            altered(signing.sign(PAYLOAD, ALICE), payload="e31="), id="base64 with other padding bits"
        ),
        pytest.param(
            with_signature(signing.sign(PAYLOAD, ALICE), keyid="\x00"), id="a key id of control letters"
        ),
        pytest.param(with_signature(signing.sign(PAYLOAD, ALICE), cert="x"), id="a certificate smuggled in"),
        pytest.param(
            altered(
                signing.sign(PAYLOAD, ALICE),
                signatures=json.loads(signing.sign(PAYLOAD, ALICE))["signatures"] * 2,
            ),
            id="one signature doubled",
        ),
        pytest.param(b'{"payload":"e30=",' + signing.sign(PAYLOAD, ALICE)[1:], id="a key that stands twice"),
        pytest.param(b"[" * 100_000, id="nesting without end"),
        pytest.param(b"1" * 5_000, id="a number without end"),
        pytest.param(b" " * (1 << 20) + b"{}", id="a document without end"),
    ],
)
def test_malformed_envelopes_are_refused(forged):
    with pytest.raises(Malformed):
        signing.verify(forged, [ALICE.public])


@given(st.binary(max_size=300))
def test_no_bytes_make_verify_raise_anything_but_a_trust_error(data):
    with pytest.raises(TrustError):
        signing.verify(data, [ALICE.public])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
signatures = st.lists(
    st.fixed_dictionaries(
        {
            "keyid": st.just(ALICE.public.key_id) | json_values,
            "sig": st.binary(max_size=90).map(lambda b: base64.b64encode(b).decode()) | json_values,
        }
    )
    | json_values,
    max_size=3,
)


@given(
    st.fixed_dictionaries(
        {
            "payload": st.just("e30=") | json_values,
            "payloadType": st.just(signing.PAYLOAD_TYPE) | json_values,
            "signatures": signatures | json_values,
        }
    )
)
def test_no_json_of_nearly_the_form_raises_anything_but_a_trust_error(raw):
    with pytest.raises(TrustError):
        signing.verify(json.dumps(raw).encode(), [ALICE.public])


# --- keys -----------------------------------------------------------------------------------------------------


def test_the_key_id_is_what_ssh_keygen_prints(tmp_path: Path):
    line = tmp_path / "key.pub"
    line.write_text(ALICE.public.text() + " alice@laptop\n")
    try:
        shown = subprocess.run(
            ["ssh-keygen", "-lf", str(line)], capture_output=True, text=True, check=True
        ).stdout
    except FileNotFoundError:
        shown = "256 SHA256:MEflzmy6hlCyjCwUMWY05BP0w/ypa9ng2gm4h3GQCFM alice@laptop (ED25519)"
    assert shown.split()[1] == ALICE.public.key_id


@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_an_openssh_key_file_signs(passphrase):
    loaded = PrivateKey.load(ALICE.to_openssh(passphrase), passphrase)
    assert signing.sign(PAYLOAD, loaded) == signing.sign(PAYLOAD, ALICE)


def test_a_pkcs8_file_signs():
    pem = Ed25519PrivateKey.from_private_bytes(b"a" * 32).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    assert PrivateKey.load(pem).public == ALICE.public


def test_key_files_that_cannot_be_used_say_what_to_do():
    protected = ALICE.to_openssh(b"correct horse")
    other = rsa.generate_private_key(65537, 2048).private_bytes(
        Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
    )
    for data, passphrase, told in [
        (protected, None, "give the passphrase"),
        (protected, b"wrong", "passphrase is wrong"),
        (ALICE.to_openssh(), b"x", "leave the passphrase out"),
        (other, None, "not an Ed25519 key"),
        (b"", None, "no private key"),
        (protected[:200], b"correct horse", "no private key"),
    ]:
        with pytest.raises(KeyUnusable, match=told):
            PrivateKey.load(data, passphrase)


def test_no_private_byte_is_printed():
    assert "a" * 8 not in repr(ALICE)
    assert ALICE.seed().hex() not in repr(ALICE)


def test_one_key_in_two_spellings_has_one_id():
    text = ALICE.public.text()
    raw = "ed25519:" + base64.b64encode(ALICE.public.material).decode()
    keys = [PublicKey.parse(text), PublicKey.parse(f" {text}  alice's laptop\n"), PublicKey.parse(raw)]
    assert len({key.key_id for key in keys}) == 1
    assert len(set(keys)) == 1


def test_one_key_as_file_and_as_passkey_has_one_id():
    authenticator = SoftwareAuthenticator(
        PARTY, algorithm="EdDSA", key=Ed25519PrivateKey.from_private_bytes(b"a" * 32)
    )
    passkey = passkeys.public_key_from_cose(authenticator.cose_key(), PARTY)
    assert passkey.key_id == ALICE.public.key_id
    both = [ALICE.public, passkey]
    assert signing.verify(signing.sign(PAYLOAD, ALICE), both).key == ALICE.public
    answer = authenticator.get(signing.challenge(PAYLOAD))
    assert signing.verify(signing.sign_with_passkey(PAYLOAD, passkey, answer), both).key == passkey


SMALL_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
]


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_a_key_that_verifies_anything_is_refused(point):
    with pytest.raises(KeyUnusable, match="small order"):
        PublicKey("ed25519", bytes.fromhex(point))


def test_a_second_spelling_of_a_point_is_refused():
    spelling = (2**255 - 19 + 9).to_bytes(32, "little")
    with pytest.raises(KeyUnusable, match="second spelling"):
        PublicKey("ed25519", spelling)


@given(
    st.text(max_size=200)
    | st.binary(max_size=120).map(lambda b: "ssh-ed25519 " + base64.b64encode(b).decode())
)
def test_no_text_makes_a_key_parser_raise_anything_but_a_trust_error(text):
    try:
        key = PublicKey.parse(text)
    except TrustError:
        return
    assert PublicKey.parse(key.text()) == key


@given(st.binary(max_size=200))
def test_no_bytes_make_key_loaders_raise_anything_but_a_trust_error(data):
    for load in (PrivateKey.load, lambda d: passkeys.public_key_from_cose(d, PARTY)):
        with pytest.raises(TrustError):
            load(data)
    with pytest.raises(TrustError):
        PrivateKey.load(b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + base64.b64encode(data) + b"\n")


# --- passkeys -------------------------------------------------------------------------------------------------


@pytest.fixture(params=["ES256", "EdDSA"])
def authenticator(request):
    return SoftwareAuthenticator(PARTY, algorithm=request.param)


@pytest.fixture
def passkey(authenticator):
    return passkeys.public_key_from_cose(authenticator.cose_key(), PARTY)


def sealed(passkey, assertion):
    return signing.sign_with_passkey(PAYLOAD, passkey, assertion)


def test_a_passkey_signs_exactly_the_statement(authenticator, passkey):
    envelope = sealed(passkey, authenticator.get(signing.challenge(PAYLOAD)))
    assert signing.verify_single(envelope, [ALICE.public, passkey]).key == passkey


def test_without_the_webauthn_package_a_passkey_says_what_to_install(authenticator, passkey, monkeypatch):
    envelope = sealed(passkey, authenticator.get(signing.challenge(PAYLOAD)))
    monkeypatch.setitem(sys.modules, "webauthn", None)
    with pytest.raises(KeyUnusable, match="service"):
        signing.verify(envelope, [passkey])
    assert signing.verify(signing.sign(PAYLOAD, ALICE), [ALICE.public]).key == ALICE.public


def test_a_passkey_travels_in_a_plan_as_text(authenticator, passkey):
    again = PublicKey.parse(passkey.text())
    assert again == passkey
    assert again.relying_party == PARTY
    signing.verify(sealed(passkey, authenticator.get(signing.challenge(PAYLOAD))), [again])


def test_registration_by_the_webauthn_library_yields_the_same_key(authenticator, passkey):
    from webauthn import verify_registration_response

    done = verify_registration_response(
        credential=authenticator.register(b"c" * 32),
        expected_challenge=b"c" * 32,
        expected_rp_id=PARTY,
        expected_origin=f"https://{PARTY}",
        require_user_verification=True,
    )
    assert passkeys.public_key_from_cose(done.credential_public_key, PARTY) == passkey


@pytest.mark.parametrize(
    ("attack", "arguments"),
    [
        ("signed on a look-alike site", {"origin": "https://sluice.example.evil.org"}),
        ("signed over plain http", {"origin": f"http://{PARTY}"}),
        ("signed on another port", {"origin": f"https://{PARTY}:8443"}),
        ("signed for another relying party", {"relying_party": "evil.org"}),
        ("signed without PIN or fingerprint", {"user_verified": False}),
        ("signed without anyone present", {"user_present": False}),
        ("a registration passed off as an assertion", {"kind": "webauthn.create"}),
        ("signed in a frame of another site", {"crossOrigin": True}),
        ("signed in a frame with a top origin", {"topOrigin": "https://evil.org"}),
    ],
)
def test_passkey_assertions_that_were_made_wrongly_are_refused(authenticator, passkey, attack, arguments):
    envelope = sealed(passkey, authenticator.get(signing.challenge(PAYLOAD), **arguments))
    with pytest.raises(SignatureInvalid):
        signing.verify(envelope, [passkey])


def test_an_assertion_for_another_statement_is_refused(authenticator, passkey):
    envelope = sealed(passkey, authenticator.get(signing.challenge(b"{}")))
    with pytest.raises(SignatureInvalid, match="challenge"):
        signing.verify(envelope, [passkey])


def test_an_assertion_by_another_authenticator_is_refused(authenticator, passkey):
    other = SoftwareAuthenticator(PARTY, algorithm=authenticator.algorithm)
    envelope = sealed(passkey, other.get(signing.challenge(PAYLOAD)))
    with pytest.raises(SignatureInvalid):
        signing.verify(envelope, [passkey])


def test_a_plain_signature_under_a_passkeys_id_is_refused(passkey):
    forged = with_signature(signing.sign(PAYLOAD, ALICE), keyid=passkey.key_id)
    with pytest.raises(SignatureInvalid, match="other kind"):
        signing.verify(forged, [passkey])


def test_allowed_origins_replace_the_default(authenticator, passkey):
    envelope = sealed(
        passkey, authenticator.get(signing.challenge(PAYLOAD), origin="https://console.sluice.example")
    )
    with pytest.raises(SignatureInvalid, match="not ours"):
        signing.verify(envelope, [passkey])
    signing.verify(envelope, [passkey], origins=["https://console.sluice.example"])


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:8000", True),
        ("https://localhost", True),
        ("http://localhost.evil.org", False),
        ("http://evil.org#localhost", False),
        ("http://user@localhost:8000", False),
        ("http://localhost:99999", False),
        ("ftp://localhost", False),
    ],
)
def test_only_localhost_may_do_without_https(origin, allowed):
    assert passkeys.relying_party_allows(origin, "localhost") is allowed


@given(st.binary(max_size=64), st.binary(max_size=64), st.binary(max_size=80))
def test_no_assertion_parts_raise_anything_but_a_trust_error(client, data, signature):
    authenticator = SoftwareAuthenticator(PARTY)
    passkey = passkeys.public_key_from_cose(authenticator.cose_key(), PARTY)
    answer = authenticator.get(signing.challenge(PAYLOAD))
    for name, value in (("clientDataJSON", client), ("authenticatorData", data), ("signature", signature)):
        broken = {**answer, "response": {**answer["response"], name: passkeys.b64url_encode(value)}}
        with pytest.raises(TrustError):
            signing.verify(sealed(passkey, broken), [passkey])


@given(json_values, json_values)
def test_no_assertion_json_raises_anything_but_a_trust_error(identity, response):
    passkey = passkeys.public_key_from_cose(SoftwareAuthenticator(PARTY).cose_key(), PARTY)
    with pytest.raises(TrustError):
        signing.verify(sealed(passkey, {"id": identity, "response": response}), [passkey])
