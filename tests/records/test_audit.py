"""The audit log in the database: what is exported verifies, what is proven holds, what is rewritten is found."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from sqlalchemy import event as sql_event
from sqlalchemy import text

from orchestrator.domain.errors import Malformed, NotFound, Reason
from orchestrator.records import audit
from orchestrator.records.database import reading, writing
from orchestrator.records.errors import RecordsBroken
from orchestrator.trust.audit import MAX_LEAF, leaf_bytes, verify_export
from orchestrator.trust.checkpoints import Checkpoint, NoteSigner, sign_checkpoint, verify_proof
from orchestrator.trust.errors import EntryInvalid
from orchestrator.trust.errors import Malformed as MalformedNote
from orchestrator.trust.keys import PrivateKey
from orchestrator.trust.merkle import CompactTree, verify_consistency, verify_inclusion
from tests.records.story import Story
from tests.support.plans import T0

LOG = NoteSigner("sluice.example/log", PrivateKey.from_seed(b"r" * 32))


def checkpoint(engine):
    """What custody does: sign the head, store the note."""
    with writing(engine) as session:
        tree = audit.head(session)
        note = sign_checkpoint(Checkpoint(LOG.name, tree.size, tree.root()), LOG)
        return audit.store_checkpoint(session, note, T0)


def fill(engine, count, start=0):
    with writing(engine) as session:
        for number in range(start, start + count):
            audit.record_access(session, at=T0 + timedelta(seconds=number), actor=f"p{number}", action="read")


def test_an_export_verifies_and_holds_every_leaf(engine):
    story = Story(engine)
    story.hold()
    checkpoint(engine)
    fill(engine, 5)
    last = checkpoint(engine)
    seen = []
    with reading(engine) as session:
        lines = list(audit.export(session, LOG.name))
        tree = audit.head(session)
    verified = verify_export(
        lines, LOG.verifier, on_entry=lambda index, leaf: seen.append((index, leaf["kind"]))
    )
    assert seen == [(0, "event"), (1, "event"), *((n, "access") for n in range(2, 7))]
    assert (verified.size, verified.root, verified.checkpoints) == (tree.size, tree.root(), 2)
    assert verified.last_checkpoint == last.note


def test_an_export_continues_an_earlier_one(engine):
    fill(engine, 5)
    first = checkpoint(engine)
    fill(engine, 4, 5)
    checkpoint(engine)
    with reading(engine) as session:
        lines = list(audit.export(session, LOG.name, start=5))
        again = list(audit.export(session, LOG.name, start=9))
    verified = verify_export(lines, LOG.verifier, previous_checkpoint=first.note)
    assert (verified.start, verified.size) == (5, 9)
    assert verify_export(again, LOG.verifier, previous_checkpoint=verified.last_checkpoint).size == 9


def test_an_export_ends_at_the_last_signed_checkpoint(engine):
    fill(engine, 5)
    with reading(engine) as session, pytest.raises(NotFound, match="no signed checkpoint"):
        list(audit.export(session, LOG.name))
    checkpoint(engine)
    fill(engine, 3, 5)
    with reading(engine) as session:
        assert verify_export(audit.export(session, LOG.name), LOG.verifier).size == 5


def test_a_leaf_altered_in_the_database_is_named_by_the_verifier(engine):
    fill(engine, 9)
    checkpoint(engine)
    with writing(engine) as session:
        body = audit.leaf(session, 4).body.replace(b"p4", b"q4")
        session.execute(text('UPDATE audit_leaf SET body = :body WHERE "index" = 4'), {"body": body})
    with reading(engine) as session:
        lines = list(audit.export(session, LOG.name))
    with pytest.raises(EntryInvalid) as found:
        verify_export(lines, LOG.verifier)
    assert (found.value.index, found.value.last) == (0, 8)


def test_every_inclusion_and_consistency_proof_holds(engine):
    roots = {}
    for size in range(1, 20):
        fill(engine, 1, size - 1)
        with reading(engine) as session:
            roots[size] = audit.head(session).root()
    with reading(engine) as session:
        for size, root in roots.items():
            for index in range(size):
                path = audit.inclusion(session, index, size)
                verify_inclusion(audit.leaf(session, index).hash, index, size, path, root)
            for old in range(1, size + 1):
                verify_consistency(old, size, audit.consistency(session, old, size), roots[old], root)


def test_a_proof_in_one_text_verifies_offline(engine):
    fill(engine, 7)
    with reading(engine) as session, pytest.raises(NotFound, match="covers entry 3 yet"):
        audit.proof(session, 3)
    signed = checkpoint(engine)
    fill(engine, 2, 7)
    with reading(engine) as session:
        text_of_it, leaf = audit.proof(session, 3), audit.leaf(session, 3)
        index, over = verify_proof(text_of_it, leaf.body, LOG.verifier)
        assert (index, over.size, over.root) == (3, 7, signed.root)
        with pytest.raises(NotFound, match="covers entry 8"):
            audit.proof(session, 8)
        with pytest.raises(NotFound, match="9 entries, not 100"):
            audit.proof(session, 99)


def test_proofs_of_what_is_not_there_are_not_found(engine):
    fill(engine, 3)
    with reading(engine) as session:
        for ask in (
            lambda: audit.leaf(session, 3),
            lambda: audit.leaf(session, 10**9),
            lambda: audit.inclusion(session, 3, 3),
            lambda: audit.inclusion(session, 0, 4),
            lambda: audit.consistency(session, 3, 2),
            lambda: audit.consistency(session, -1, 2),
            lambda: audit.consistency(session, 1, 4),
        ):
            with pytest.raises(NotFound):
                ask()


def test_a_checkpoint_of_another_log_or_ahead_of_ours_is_refused(engine):
    fill(engine, 4)
    other = CompactTree()
    for number in range(4):
        other.append(b"%d" % number)
    forked = sign_checkpoint(Checkpoint(LOG.name, 4, other.root()), LOG)
    older = sign_checkpoint(Checkpoint(LOG.name, 3, other.root()), LOG)
    ahead = sign_checkpoint(Checkpoint(LOG.name, 5, other.root()), LOG)
    for note in (forked, older, ahead):
        with pytest.raises(RecordsBroken), writing(engine) as session:
            audit.store_checkpoint(session, note, T0)
    with pytest.raises(MalformedNote), writing(engine) as session:
        audit.store_checkpoint(session, "no note", T0)
    with reading(engine) as session:
        assert audit.latest_checkpoint(session) is None


def test_a_checkpoint_is_kept_once_and_earlier_sizes_may_follow(engine):
    fill(engine, 4)
    with reading(engine) as session:
        three = audit.node_reader(session)
        assert three(0, 0) == audit.leaf(session, 0).hash
    first, again = checkpoint(engine), checkpoint(engine)
    assert first == again
    fill(engine, 3, 4)
    second = checkpoint(engine)
    with reading(engine) as session:
        assert audit.checkpoints(session) == [first, second]
        assert audit.checkpoints(session, down=True, limit=1) == [second]
        assert audit.checkpoints(session, above=4) == [second]
        assert audit.latest_checkpoint(session, over=8) is None


def test_a_refusal_says_who_what_when_from_where_and_why(engine):
    with writing(engine) as session:
        index = audit.record_refusal(
            session,
            at=T0,
            actor="sam",
            action="sign_off",
            code="gate-changed",
            detail="the gate has changed",
            reasons=[Reason("if-match", "read it again", "If-Match")],
            release="alpha",
            command_id="c-1",
            request_id="r-1",
            address="192.0.2.7",
        )
    with reading(engine) as session:
        (leaf,) = audit.leaves(session, release="alpha", kind="refusal")
    assert leaf.index == index
    assert json.loads(leaf.body) == {
        "kind": "refusal",
        "at": T0.isoformat(),
        "release": "alpha",
        "actor": "sam",
        "action": "sign_off",
        "code": "gate-changed",
        "detail": "the gate has changed",
        "reasons": [{"code": "if-match", "message": "read it again", "path": "If-Match"}],
        "command_id": "c-1",
        "request_id": "r-1",
        "address": "192.0.2.7",
    }


def test_leaves_are_filtered_and_paged_in_order(engine):
    story = Story(engine)
    fill(engine, 3)
    story.hold()
    with reading(engine) as session:
        assert [leaf.index for leaf in audit.leaves(session, release="alpha")] == [0, 4]
        assert [leaf.index for leaf in audit.leaves(session, kind="access")] == [1, 2, 3]
        assert [leaf.index for leaf in audit.leaves(session, 2, limit=2)] == [2, 3]
        assert list(audit.leaves(session, 5)) == []


def test_an_entry_too_long_for_the_log_is_refused(engine):
    with pytest.raises(Malformed, match="too long"), writing(engine) as session:
        audit.append(session, "custody", {"text": "x" * MAX_LEAF}, at=T0)
    with reading(engine) as session:
        assert audit.head(session).size == 0


def test_appending_runs_as_many_statements_in_a_long_log_as_in_a_short_one(engine):
    counted = []

    def count(*_args):
        counted.append(1)

    def statements(of):
        counted.clear()
        sql_event.listen(engine, "before_cursor_execute", count)
        of()
        sql_event.remove(engine, "before_cursor_execute", count)
        return len(counted)

    fill(engine, 1)
    short = statements(lambda: fill(engine, 1))
    leaves = [audit.NewLeaf("access", leaf_bytes({"n": n}), T0) for n in range(5_000)]
    with writing(engine) as session:
        audit.append_leaves(session, leaves)
    assert statements(lambda: fill(engine, 1)) <= short
    with reading(engine) as session:
        reads = statements(lambda: audit.inclusion(session, 1234, 5_000))
        assert reads <= 1 + 2 * 13  # the head, and at most two nodes a level
        assert len(audit.head(session).to_bytes()) <= 8 + 32 * 13
