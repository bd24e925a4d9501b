"""Signed notes, checkpoints and proofs in one text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.trust.checkpoints import (
    Checkpoint,
    NoteSigner,
    NoteVerifier,
    format_proof,
    parse_proof,
    sign_checkpoint,
    sign_note,
    verify_checkpoint,
    verify_note,
    verify_proof,
)
from orchestrator.trust.errors import (
    KeyUnusable,
    Malformed,
    ProofInvalid,
    SignatureInvalid,
    TrustError,
    UnknownKey,
)
from orchestrator.trust.keys import PrivateKey
from orchestrator.trust.merkle import CompactTree, inclusion_proof

# The test vector of the Go implementation of signed notes.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
)
GO_SIGNATURE = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
GO_NOTE = GO_TEXT + "\n" + GO_SIGNATURE

LOG = NoteSigner("sluice.example/log", PrivateKey.from_seed(b"l" * 32))
WITNESS = NoteSigner("witness.example", PrivateKey.from_seed(b"w" * 32))


def log_of(count):
    tree, nodes = CompactTree(), {}
    for i in range(count):
        for level, position, hashed in tree.append(b"entry %d" % i):
            nodes[level, position] = hashed
    return tree, lambda level, index: nodes[level, index]


def checkpoint(count=5, origin=LOG.name):
    return Checkpoint(origin, count, log_of(count)[0].root())


def test_the_published_note_verifies():
    assert verify_note(GO_NOTE, NoteVerifier.parse(GO_KEY)) == GO_TEXT


def test_a_verifier_key_is_written_as_it_was_read():
    assert NoteVerifier.parse(GO_KEY).text() == GO_KEY


def test_the_published_note_with_one_letter_changed_is_refused():
    with pytest.raises(SignatureInvalid):
        verify_note(GO_NOTE.replace("answer", "Answer"), NoteVerifier.parse(GO_KEY))


def test_a_checkpoint_comes_back():
    note = sign_checkpoint(checkpoint(), LOG)
    assert verify_checkpoint(note, LOG.verifier) == checkpoint()
    assert note.startswith("sluice.example/log\n5\n")


def test_a_checkpoint_with_extension_lines_comes_back():
    extended = Checkpoint(LOG.name, 0, bytes(32), ("first", "second line"))
    assert verify_checkpoint(sign_checkpoint(extended, LOG), LOG.verifier) == extended


def test_a_witness_signature_beside_the_logs_own_does_no_harm():
    note = sign_note(checkpoint().text(), WITNESS, LOG)
    assert verify_checkpoint(note, LOG.verifier) == checkpoint()
    assert verify_note(note, WITNESS.verifier) == checkpoint().text()


def test_a_checkpoint_signed_by_a_stranger_is_refused():
    impostor = NoteSigner(LOG.name, PrivateKey.from_seed(b"i" * 32))
    with pytest.raises(UnknownKey):
        verify_checkpoint(sign_checkpoint(checkpoint(), impostor), LOG.verifier)


def test_a_checkpoint_of_another_log_under_the_same_key_is_refused():
    note = sign_checkpoint(checkpoint(origin="other.example/log"), LOG)
    with pytest.raises(Malformed, match="not to ours"):
        verify_checkpoint(note, LOG.verifier)
    assert verify_checkpoint(note, LOG.verifier, origin="other.example/log").size == 5


@pytest.mark.parametrize(
    "note",
    [
        pytest.param("", id="nothing"),
        pytest.param(GO_TEXT, id="no signature"),
        pytest.param(GO_NOTE.rstrip("\n"), id="cut off"),
        pytest.param(GO_NOTE + "\n", id="a line behind"),
        pytest.param(GO_NOTE.replace("—", "-"), id="a hyphen for the dash"),
        pytest.param(GO_NOTE.replace("problem,", "prob\x07lem,"), id="a control letter"),
        pytest.param(GO_TEXT + "\n" + GO_SIGNATURE * 17, id="signatures without end"),
        pytest.param(GO_TEXT + "\n— PeterNeumann x08g\n", id="a signature cut off"),
        pytest.param(GO_TEXT + "\n— PeterNeumann ***\n", id="no base64"),
        pytest.param("\ud800\n\n" + GO_SIGNATURE, id="half a letter"),
        pytest.param("x" * 70_000 + "\n\n" + GO_SIGNATURE, id="a text without end"),
    ],
)
def test_malformed_notes_are_refused(note):
    with pytest.raises(Malformed):
        verify_note(note, NoteVerifier.parse(GO_KEY))


@pytest.mark.parametrize(
    "text",
    [
        "log\n5\n",
        "log\n05\n" + "A" * 43 + "=\n",
        "log\n-1\n" + "A" * 43 + "=\n",
        "log\n9999999999999999999\n" + "A" * 43 + "=\n",
        "log\n5\nAAAA\n",
        "\n5\n" + "A" * 43 + "=\n",
        "log\n5\n" + "A" * 43 + "=\n\n",
        "log\n5\n" + "A" * 43 + "=",
        "log\n\u0665\n" + "A" * 43 + "=\n",
    ],
)
def test_malformed_checkpoints_are_refused(text):
    with pytest.raises(Malformed):
        Checkpoint.parse(text)


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("PeterNeumann", Malformed),
        (GO_KEY.replace("Peter", "Paul"), KeyUnusable),
        (GO_KEY.replace("+ARpc", "+BRpc"), KeyUnusable),
        (GO_KEY.replace("c74f20a3", "c74f20a4"), KeyUnusable),
    ],
)
def test_a_verifier_key_that_does_not_hold_together_is_refused(key, error):
    with pytest.raises(error):
        NoteVerifier.parse(key)


def test_one_entry_is_proved_by_one_text():
    tree, read = log_of(13)
    note = sign_checkpoint(Checkpoint(LOG.name, 13, tree.root()), LOG)
    proof = format_proof(6, inclusion_proof(6, 13, read), note)
    assert proof.startswith("c2sp.org/tlog-proof@v1\nindex 6\n")
    assert verify_proof(proof, b"entry 6", LOG.verifier)[0] == 6
    with pytest.raises(ProofInvalid):
        verify_proof(proof, b"entry 7", LOG.verifier)
    with pytest.raises(ProofInvalid):
        verify_proof(proof.replace("index 6", "index 7"), b"entry 6", LOG.verifier)
    with pytest.raises(TrustError):
        verify_proof(proof.replace("\n13\n", "\n12\n"), b"entry 6", LOG.verifier)
    with pytest.raises(UnknownKey):
        verify_proof(proof, b"entry 6", WITNESS.verifier)


@given(st.text(max_size=300))
def test_no_text_raises_anything_but_a_trust_error(text):
    for read in (
        lambda: verify_note(text, LOG.verifier),
        lambda: verify_checkpoint(text + "\n\n" + GO_SIGNATURE, LOG.verifier),
        lambda: Checkpoint.parse(text),
        lambda: NoteVerifier.parse(text),
        lambda: verify_proof(text, b"", LOG.verifier),
        lambda: parse_proof("c2sp.org/tlog-proof@v1\nindex 1\n" + text),
    ):
        try:
            read()
        except TrustError:
            continue
