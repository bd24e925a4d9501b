"""The exported log: what is altered, dropped, doubled or restored is found and named."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.trust.audit import export_lines, leaf_bytes, verify_export
from orchestrator.trust.checkpoints import Checkpoint, NoteSigner, sign_checkpoint
from orchestrator.trust.encoding import canonical_json
from orchestrator.trust.errors import (
    EntryInvalid,
    LogInvalid,
    LogRewritten,
    Malformed,
    SignatureInvalid,
    TrustError,
    UnknownKey,
)
from orchestrator.trust.keys import PrivateKey
from orchestrator.trust.merkle import CompactTree, leaf_hash

LOG = NoteSigner("sluice.example/log", PrivateKey.from_seed(b"l" * 32))


def entry(index, **changes):
    return leaf_bytes(
        {"n": index, "command": "sign_off", "release": "gpt-2", "accepted": index % 3 != 0, **changes}
    )


def note_over(leaves, signer=LOG):
    tree = CompactTree()
    for leaf in leaves:
        tree.append(leaf)
    return sign_checkpoint(Checkpoint(LOG.name, tree.size, tree.root()), signer)


def export(leaves, every=5, start=None, before=()):
    sizes = sorted({*range(every, len(leaves), every), len(leaves)})
    notes = [note_over([*before, *leaves[:size]]) for size in sizes]
    return list(export_lines(LOG.name, leaves, notes, start=start))


LEAVES = [entry(i) for i in range(23)]
LINES = export(LEAVES)


def at_entry(index):
    """Where entry `index` stands among the lines: the header and the checkpoints before it."""
    return 1 + index + index // 5


def test_an_honest_log_verifies():
    seen = []
    verified = verify_export(LINES, LOG.verifier, on_entry=lambda i, leaf: seen.append((i, leaf["n"])))
    assert (verified.size, verified.checkpoints, verified.start) == (23, 5, 0)
    assert seen == [(i, i) for i in range(23)]
    assert verified.last_checkpoint == note_over(LEAVES)


def test_an_empty_log_verifies():
    assert verify_export(export_lines(LOG.name, [], [note_over([])]), LOG.verifier).size == 0


def test_lines_are_json_that_any_reader_can_check():
    """A second, slower way: parse each line as JSON and canonicalise the leaf again."""
    tree = CompactTree()
    for line in LINES[1:]:
        raw = json.loads(line)
        if "leaf" in raw:
            assert leaf_hash(canonical_json(raw["leaf"])).hex() == raw["hash"]
            tree.append(canonical_json(raw["leaf"]))
    assert tree.root() == verify_export(LINES, LOG.verifier).root


def refused(lines, error=EntryInvalid, **options):
    with pytest.raises(error) as refusal:
        verify_export(lines, LOG.verifier, **options)
    return refusal.value


def test_an_altered_entry_is_named():
    lines = list(LINES)
    lines[at_entry(12)] = lines[at_entry(12)].replace(b'"accepted":false', b'"accepted":true')
    found = refused(lines)
    assert (found.index, found.last) == (12, 12)
    assert "altered" in str(found)


def test_an_entry_altered_together_with_its_hash_is_found_between_two_checkpoints():
    forged = entry(12, accepted=True)
    lines = list(LINES)
    lines[at_entry(12)] = b'{"index":12,"hash":"%s","leaf":%s}\n' % (leaf_hash(forged).hex().encode(), forged)
    found = refused(lines)
    assert (found.index, found.last) == (10, 14)


@pytest.mark.parametrize("index", [0, 4, 5, 22])
def test_a_dropped_entry_is_named(index):
    lines = [line for number, line in enumerate(LINES) if number != at_entry(index)]
    assert refused(lines).index <= index <= refused(lines).last


def test_a_doubled_entry_is_named():
    lines = [*LINES[: at_entry(7)], LINES[at_entry(7)], *LINES[at_entry(7) :]]
    assert refused(lines).index == 8


def test_two_entries_swapped_are_named():
    lines = list(LINES)
    lines[at_entry(7)], lines[at_entry(8)] = lines[at_entry(8)], lines[at_entry(7)]
    assert refused(lines).index == 7


def test_entries_renumbered_after_a_drop_are_found_at_the_next_checkpoint():
    kept = [leaf for i, leaf in enumerate(LEAVES) if i != 7]
    notes = [json.loads(line)["checkpoint"] for line in LINES if b'"checkpoint"' in line[:20]]
    lines = [LINES[0]]
    for i, leaf in enumerate(kept):
        lines.append(b'{"index":%d,"hash":"%s","leaf":%s}\n' % (i, leaf_hash(leaf).hex().encode(), leaf))
        if (i + 1) % 5 == 0:
            lines.append(canonical_json({"checkpoint": notes[(i + 1) // 5 - 1]}) + b"\n")
    found = refused(lines)
    assert (found.index, found.last) == (5, 9)


def test_entries_behind_the_last_checkpoint_are_named():
    extra = entry(23)
    found = refused(
        [*LINES, b'{"index":23,"hash":"%s","leaf":%s}\n' % (leaf_hash(extra).hex().encode(), extra)]
    )
    assert (found.index, found.last) == (23, 23)


def test_a_cut_off_end_that_was_seen_before_is_a_rewritten_log():
    """Last week's database: it verifies by itself, but not against the checkpoint that was kept."""
    old = export(LEAVES[:15])
    verify_export(old, LOG.verifier)
    found = refused(old, LogRewritten, previous_checkpoint=note_over(LEAVES))
    assert "23" in str(found)


def test_a_log_rewritten_and_signed_anew_is_noticed_by_who_kept_a_checkpoint():
    forged = export([entry(i, release="gpt-3") if i == 3 else leaf for i, leaf in enumerate(LEAVES)])
    verify_export(forged, LOG.verifier)
    refused(forged, LogRewritten, previous_checkpoint=note_over(LEAVES[:10]))
    verify_export(LINES, LOG.verifier, previous_checkpoint=note_over(LEAVES[:10]))
    verify_export(LINES, LOG.verifier, previous_checkpoint=note_over([]))
    verify_export(LINES, LOG.verifier, previous_checkpoint=note_over(LEAVES))


def test_an_export_may_continue_an_earlier_one():
    tree = CompactTree()
    for leaf in LEAVES[:11]:
        tree.append(leaf)
    lines = export(LEAVES[11:], start=tree, before=LEAVES[:11])
    assert verify_export(lines, LOG.verifier, previous_checkpoint=note_over(LEAVES[:11])).start == 11
    refused(lines, LogInvalid)
    refused(lines, LogInvalid, previous_checkpoint=note_over(LEAVES[:12]))
    refused(lines, LogRewritten, previous_checkpoint=note_over([b"{}", *LEAVES[1:11]]))


def test_a_log_signed_by_a_stranger_is_refused():
    impostor = NoteSigner(LOG.name, PrivateKey.from_seed(b"i" * 32))
    lines = [*LINES[:-1], canonical_json({"checkpoint": note_over(LEAVES, impostor)}) + b"\n"]
    refused(lines, UnknownKey)


def test_a_forged_checkpoint_is_refused():
    lines = list(LINES)
    lines[-1] = lines[-1].replace(b"\\n23\\n", b"\\n24\\n")
    refused(lines, SignatureInvalid)


def test_a_header_of_another_log_is_refused():
    refused([LINES[0].replace(b"sluice.example", b"other.example"), *LINES[1:]], LogInvalid)


@pytest.mark.parametrize(
    "header",
    [b"", b"{}\n", b"[]\n", LINES[0].replace(b"v1", b"v2"), LINES[0].replace(b'"start":0', b'"start":1'),
     LINES[0].replace(b'"start":0', b'"start":true'), LINES[0].replace(b'"start":0', b'"start":-1'),
     LINES[0].replace(b"[]", b'["00"]')],
)  # fmt: skip
def test_a_bad_header_is_refused(header):
    refused([header, *LINES[1:]], Malformed)


def test_an_export_without_checkpoints_is_refused():
    refused(LINES[:5], LogInvalid)


@pytest.mark.parametrize(
    "leaf",
    [
        pytest.param(b'{"a":1}, "extra":{"b":2', id="json that goes on behind the leaf"),
        pytest.param(b'{"a":1,"a":2}', id="a key twice"),
        pytest.param(b'{"b":1,"a":2}', id="keys out of order"),
        pytest.param(b'{"a": 1}', id="a space"),
        pytest.param(b'{"a":1.0}', id="a whole number as a fraction"),
        pytest.param(b'{"a":NaN}', id="no number"),
        pytest.param(b'"text"', id="no object"),
        pytest.param(b"[" * 50_000, id="nesting without end"),
        pytest.param(b'{"a":"\xff"}', id="no UTF-8"),
    ],
)
def test_a_leaf_that_reads_two_ways_is_refused(leaf):
    line = b'{"index":0,"hash":"%s","leaf":%s}\n' % (leaf_hash(leaf).hex().encode(), leaf)
    tree = CompactTree()
    tree.append(leaf)
    note = sign_checkpoint(Checkpoint(LOG.name, 1, tree.root()), LOG)
    assert refused([LINES[0], line, canonical_json({"checkpoint": note})]).index == 0
    with pytest.raises(EntryInvalid):
        list(export_lines(LOG.name, [leaf], [note]))


@given(
    st.dictionaries(
        st.text(max_size=6),
        st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text() | st.floats(-1e9, 1e9),
        max_size=6,
    )
)
@settings(deadline=None)
def test_every_canonical_entry_is_accepted(value):
    leaf = leaf_bytes(value)
    seen = []
    verify_export(
        export_lines(LOG.name, [leaf], [note_over([leaf])]),
        LOG.verifier,
        on_entry=lambda _, e: seen.append(e),
    )
    assert leaf_bytes(seen[0]) == leaf


def test_keys_beyond_the_basic_plane_keep_the_order_of_rfc_8785():
    leaf = leaf_bytes({"\ufb33": 1, "\U0001f600": 2})
    assert leaf.decode() == '{"\U0001f600":2,"\ufb33":1}'
    verify_export(export_lines(LOG.name, [leaf], [note_over([leaf])]), LOG.verifier)
    wrong = '{"\ufb33":1,"\U0001f600":2}'.encode()
    with pytest.raises(EntryInvalid, match="canonical"):
        list(export_lines(LOG.name, [wrong], [note_over([wrong])]))


def test_the_exporter_refuses_checkpoints_that_do_not_cover_the_log():
    for leaves, notes in [
        (LEAVES, [note_over(LEAVES[:22])]),
        (LEAVES[:5], [note_over(LEAVES)]),
        (LEAVES, [note_over(LEAVES[:9]), note_over(LEAVES[:4]), note_over(LEAVES)]),
        (LEAVES, []),
    ]:
        with pytest.raises(LogInvalid):
            list(export_lines(LOG.name, leaves, notes))


def test_an_entry_that_json_cannot_hold_is_refused():
    for value in ({"a": float("nan")}, {"a": 2**53}, {1: 2}, {"a": b"x"}, {"a": "\ud800"}, {"\ud800": 1}):
        with pytest.raises(Malformed):
            leaf_bytes(value)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, len(LINES) - 1), st.integers(0, 10_000), st.integers(1, 255))
def test_any_byte_changed_anywhere_is_found(number, at, bits):
    line = bytearray(LINES[number])
    line[at % len(line)] ^= bits
    lines = [*LINES[:number], bytes(line), *LINES[number + 1 :]]
    if bytes(line).rstrip(b"\r\n") == LINES[number].rstrip(b"\r\n"):
        return
    try:
        verified = verify_export(lines, LOG.verifier)
    except TrustError:
        return
    # Whitespace or a letter's escape in a header or checkpoint line may change without changing what is said.
    assert json.loads(lines[number]) == json.loads(LINES[number])
    assert verified.root == verify_export(LINES, LOG.verifier).root


@given(st.lists(st.binary(max_size=80), max_size=4))
def test_no_lines_raise_anything_but_a_trust_error(lines):
    for whole in (lines, [LINES[0], *lines], [*LINES[:4], *lines]):
        with pytest.raises(TrustError):
            verify_export(whole, LOG.verifier)


def test_verification_is_not_slower_for_entries_that_come_later():
    """Constant work per entry: the second half of 20 000 takes about as long as the first."""
    leaves = [entry(i) for i in range(20_000)]
    lines = list(export_lines(LOG.name, leaves, [note_over(leaves)]))
    marks = []

    def mark(index, _leaf):
        if index in {0, 10_000, 19_999}:
            marks.append(time.process_time())

    verify_export(lines, LOG.verifier, on_entry=mark)
    assert marks[2] - marks[1] < 4 * (marks[1] - marks[0]) + 0.1
