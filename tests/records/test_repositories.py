"""Partners, principals and tokens, artifacts, envelopes, documents, idempotency keys, lists and pages."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, text

from orchestrator.domain import commands as cmd
from orchestrator.domain.errors import Conflict, KeyReused, Malformed, NotFound
from orchestrator.domain.permissions import Permission, Role
from orchestrator.domain.plan import recipient_digest
from orchestrator.domain.values import digest_bytes
from orchestrator.records import (
    artifacts,
    audit,
    documents,
    envelopes,
    grants,
    idempotency,
    incidents,
    partners,
    pending,
    principals,
    releases,
)
from orchestrator.records.database import reading, writing
from orchestrator.records.errors import RecordsBroken
from orchestrator.records.pages import decode_cursor, encode_cursor
from orchestrator.records.tables import METADATA
from tests.records.story import Story
from tests.support.plans import T0, five_stage_plan

KEY = "age1pq1" + "q" * 60
OTHER_KEY = "age1pq1" + "p" * 60
MINUTE = timedelta(minutes=1)


@pytest.fixture
def session(engine):
    with writing(engine) as session:
        yield session


def actions(session):
    return [json.loads(leaf.body)["action"] for leaf in audit.leaves(session, kind="admin")]


# --- partners --------------------------------------------------------------------------------------------------------


def test_a_partner_has_terms_and_keys_and_every_change_is_in_the_log(session):
    partners.create(session, "uni", "University", at=T0, by="mia")
    partners.accept_terms(session, "uni", "research-v1", at=T0, by="uni-admin")
    partners.accept_terms(session, "uni", "research-v1", at=T0 + MINUTE, by="somebody")
    key = partners.add_key(session, "uni", KEY, statement="{}", at=T0, by="uni-admin")
    again = partners.add_key(session, "uni", KEY, at=T0 + MINUTE, by="somebody")
    assert key == again
    assert key.digest == recipient_digest(KEY)
    found = partners.get(session, "uni")
    assert [(t.terms, t.at, t.by) for t in found.terms] == [("research-v1", T0, "uni-admin")]
    assert found.keys == [key]
    gone = partners.revoke_key(session, "uni", key.digest, at=T0 + MINUTE, by="mia")
    assert (gone.revoked_at, gone.revoked_by) == (T0 + MINUTE, "mia")
    assert partners.revoke_key(session, "uni", key.digest, at=T0 + 2 * MINUTE, by="sam") == gone
    assert not partners.set_active(session, "uni", False, at=T0, by="mia").active
    assert partners.set_active(session, "uni", True, at=T0, by="mia").active
    assert actions(session) == [
        "partner_added",
        "terms_accepted",
        "partner_key_added",
        "partner_key_revoked",
        "partner_deactivated",
        "partner_activated",
    ]


def test_one_key_under_two_partners_and_a_revoked_key_again_are_refused(session):
    partners.create(session, "uni", "University", at=T0, by="mia")
    partners.create(session, "ngo", "NGO", at=T0, by="mia")
    partners.add_key(session, "uni", KEY, at=T0, by="mia")
    with pytest.raises(Conflict, match="another partner"):
        partners.add_key(session, "ngo", KEY, at=T0, by="mia")
    partners.revoke_key(session, "uni", recipient_digest(KEY), at=T0, by="mia")
    with pytest.raises(Conflict, match="revoked"):
        partners.add_key(session, "uni", KEY, at=T0, by="mia")
    with pytest.raises(Conflict, match="uni already"):
        partners.create(session, "uni", "Another", at=T0, by="mia")


def test_partners_that_are_not_there_are_not_found(session):
    for ask in (
        lambda: partners.get(session, "nobody"),
        lambda: partners.add_key(session, "nobody", KEY, at=T0, by="mia"),
        lambda: partners.accept_terms(session, "nobody", "t", at=T0, by="mia"),
        lambda: partners.set_active(session, "nobody", True, at=T0, by="mia"),
        lambda: partners.revoke_key(session, "nobody", "sha256:" + "0" * 64, at=T0, by="mia"),
    ):
        with pytest.raises(NotFound):
            ask()
    assert partners.standing(session, ["nobody"]) == {}


# --- principals ------------------------------------------------------------------------------------------------------


def test_a_token_is_shown_once_and_kept_as_its_hash_alone(engine):
    with writing(engine) as session:
        principals.create(session, "sam", "Sam", [Role.APPROVER], at=T0, by="ops")
        issued = principals.issue_token(session, "sam", "laptop", at=T0, by="ops")
    assert issued.text.startswith("slt_")
    assert len(issued.text) == 4 + 43
    assert issued.text not in repr(issued)
    with reading(engine) as session:
        found = principals.authenticate(session, issued.text, T0)
        assert (found.principal.id, found.token.id, found.note_use) == ("sam", issued.token.id, True)
        assert Permission.GATE_SIGN in found.principal.permissions
        whole = "".join(
            repr(session.execute(select(table)).all()) for table in METADATA.tables.values()
        ) + "".join(repr(leaf.body) for leaf in audit.leaves(session))
    assert issued.text not in whole
    assert issued.text[4:] not in whole
    assert repr(hashlib.sha256(issued.text.encode()).digest()) in whole


def test_a_token_expired_revoked_unknown_or_of_somebody_switched_off_opens_nothing(session):
    principals.create(session, "sam", "Sam", [Role.APPROVER], at=T0, by="ops")
    short = principals.issue_token(session, "sam", "a", at=T0, by="ops", expires_at=T0 + MINUTE)
    long = principals.issue_token(session, "sam", "b", at=T0, by="ops")
    assert principals.authenticate(session, short.text, T0 + MINUTE - timedelta(seconds=1)) is not None
    assert principals.authenticate(session, short.text, T0 + MINUTE) is None
    for wrong in (
        "",
        "slt_",
        "slt_" + "A" * 43,
        long.text + "A",
        long.text[:-1],
        "x" * 100_000,
        long.text + "\n",
    ):
        assert principals.authenticate(session, wrong, T0) is None
    principals.change(session, "sam", active=False, at=T0, by="ops")
    assert principals.authenticate(session, long.text, T0) is None
    with pytest.raises(Conflict, match="switched off"):
        principals.issue_token(session, "sam", "c", at=T0, by="ops")
    principals.change(session, "sam", active=True, at=T0, by="ops")
    assert principals.authenticate(session, long.text, T0) is not None
    gone = principals.revoke_token(session, "sam", long.token.id, at=T0 + MINUTE, by="ops")
    assert gone.revoked_at == T0 + MINUTE
    assert principals.revoke_token(session, "sam", long.token.id, at=T0 + 2 * MINUTE, by="ops") == gone
    assert principals.authenticate(session, long.text, T0) is None
    with pytest.raises(NotFound):
        principals.revoke_token(session, "sam", "tok-0", at=T0, by="ops")


def test_the_use_of_a_token_is_noted_every_few_minutes(session):
    principals.create(session, "ci", "CI", [Role.MLOPS], kind="machine", at=T0, by="ops")
    issued = principals.issue_token(session, "ci", "pipeline", at=T0, by="ops")
    principals.touch(session, issued.token.id, T0)
    assert not principals.authenticate(session, issued.text, T0 + MINUTE).note_use
    assert principals.authenticate(session, issued.text, T0 + 5 * MINUTE).note_use
    assert [token.last_used_at for token in principals.tokens(session, "ci")] == [T0]


def test_changes_of_principals_are_in_the_log_with_their_roles(session):
    principals.create(session, "sam", "Sam", [Role.APPROVER], at=T0, by="ops")
    same = principals.change(session, "sam", roles=[Role.APPROVER], at=T0, by="ops")
    assert same.roles == [Role.APPROVER]
    principals.change(session, "sam", roles=[Role.AUDITOR, Role.APPROVER], at=T0, by="ops")
    principals.issue_token(session, "sam", "x", at=T0, by="ops")
    assert actions(session) == ["principal_added", "principal_changed", "token_issued"]
    with pytest.raises(Conflict):
        principals.create(session, "sam", "Sam", [], at=T0, by="ops")
    with pytest.raises(NotFound):
        principals.change(session, "nobody", active=False, at=T0, by="ops")


# --- artifacts, envelopes, documents ---------------------------------------------------------------------------------


def artifact(name="sealed-1", **changes):
    given = {
        "id": name,
        "manifest_digest": "sha256:" + "a" * 64,
        "wrapped_root": "wrapped",
        "location": "s3://bucket/x",
        "components": ["weights"],
        "size": 2**40,
        "uploader": "ci",
        "created_at": T0,
    }
    return artifacts.Artifact.model_validate({**given, **changes})


def test_an_artifact_is_registered_once_with_the_bytes_of_its_manifest(session):
    assert artifacts.register(session, artifact(), b"signed \x00 manifest") == artifact()
    again = artifacts.register(session, artifact(created_at=T0 + MINUTE, uploader="other"), b"other bytes")
    assert again == artifact()
    assert artifacts.manifest(session, "sealed-1") == b"signed \x00 manifest"


@pytest.mark.parametrize(
    "change", [{"manifest_digest": "sha256:" + "b" * 64}, {"location": "s3://b/y"}, {"components": ["code"]}]
)
def test_another_artifact_under_the_same_id_is_refused(session, change):
    artifacts.register(session, artifact(), b"m")
    with pytest.raises(Conflict, match="sealed-1"):
        artifacts.register(session, artifact(**change), b"m")
    with pytest.raises(NotFound):
        artifacts.get(session, "sealed-2")
    with pytest.raises(NotFound):
        artifacts.manifest(session, "sealed-2")


def test_an_envelope_stays_the_first_until_it_is_dropped_and_never_comes_back(session):
    about = {"release": "alpha", "grant": "demo.1.uni", "holder": "uni"}
    first = envelopes.put(session, "e/1", b"one", **about, at=T0)
    assert envelopes.put(session, "e/1", b"two", **about, at=T0 + MINUTE) == first
    assert envelopes.data(session, "e/1") == b"one"
    assert first.digest == digest_bytes(b"one")
    with pytest.raises(Conflict, match="another grant"):
        envelopes.put(session, "e/1", b"one", **{**about, "holder": "ngo"}, at=T0)
    assert envelopes.of_release(session, "alpha", grant="demo.1.uni") == [first]
    assert envelopes.of_release(session, "beta") == []
    assert envelopes.drop(session, "e/1", at=T0)
    assert not envelopes.drop(session, "e/1", at=T0 + MINUTE)
    assert envelopes.get(session, "e/1").dropped_at == T0
    with pytest.raises(NotFound):
        envelopes.data(session, "e/1")
    with pytest.raises(Conflict, match="dropped"):
        envelopes.put(session, "e/1", b"one", **about, at=T0)
    with pytest.raises(NotFound):
        envelopes.get(session, "e/2")


class Shift:
    """A cipher for the test: visibly no text in clear, and bound to its context."""

    def seal(self, data, context):
        return hashlib.sha256(context).digest() + bytes(byte ^ 0x5A for byte in data)

    def open(self, sealed, context):
        assert sealed[:32] == hashlib.sha256(context).digest(), "another context"
        return bytes(byte ^ 0x5A for byte in sealed[32:])


def test_a_document_is_sealed_in_the_database_and_opened_by_its_digest(session):
    words = b"canary: the assessment says"
    kept = documents.put(session, words, media_type="text/plain", cipher=Shift(), by="sam", at=T0)
    assert kept.digest == digest_bytes(words)
    assert documents.put(session, words, media_type="text/html", cipher=Shift(), by="x", at=T0) == kept
    assert documents.text(session, kept.digest, cipher=Shift()) == words
    rows = repr(session.execute(select(METADATA.tables["document"])).all())
    assert "canary" not in rows
    with pytest.raises(NotFound):
        documents.text(session, digest_bytes(b"other"), cipher=Shift())


def test_a_document_swapped_in_the_database_is_not_handed_out(session):
    kept = documents.put(session, b"one", media_type="text/plain", cipher=Shift(), by="sam", at=T0)
    session.execute(
        text("UPDATE document SET sealed = :sealed"), {"sealed": Shift().seal(b"two", kept.digest.encode())}
    )
    with pytest.raises(RecordsBroken, match="digest"):
        documents.text(session, kept.digest, cipher=Shift())


# --- idempotency -----------------------------------------------------------------------------------------------------


def test_an_idempotency_key_makes_one_thing_for_one_principal(session):
    assert idempotency.recall(session, "sam", "k", "d1") is None
    assert idempotency.remember(session, "sam", "k", "d1", "alpha", at=T0) == "alpha"
    assert idempotency.remember(session, "sam", "k", "d1", "beta", at=T0) == "alpha"
    assert idempotency.recall(session, "sam", "k", "d1") == "alpha"
    assert idempotency.recall(session, "sue", "k", "d1") is None
    with pytest.raises(KeyReused):
        idempotency.recall(session, "sam", "k", "d2")
    with pytest.raises(KeyReused):
        idempotency.remember(session, "sam", "k", "d2", "beta", at=T0)
    assert idempotency.forget(session, before=T0) == 0
    assert idempotency.forget(session, before=T0 + MINUTE) == 1
    assert idempotency.recall(session, "sam", "k", "d1") is None


# --- lists and pages -------------------------------------------------------------------------------------------------


def pages(ask):
    """All items over all pages."""
    found, cursor = [], None
    while True:
        page = ask(cursor)
        found += page.items
        if page.next is None:
            return found
        cursor = page.next


@pytest.fixture
def many(engine):
    """Seven releases of two names, created one after the other, changed in another order."""
    stories = []
    for number in range(7):
        story = Story(
            engine, f"r{number}", plan=five_stage_plan(), version=str(number), name=f"Gpt-{number % 2}"
        )
        stories.append(story)
    for story in reversed(stories):
        story.now = T0 + timedelta(hours=10 - int(story.release[1:]))
        story.hold()
    return stories


def test_every_order_of_releases_walks_all_of_them_once(engine, many):
    with reading(engine) as session:
        for size in (1, 2, 3, 7, 50):
            for order, expected in {
                "created": ["r6", "r5", "r4", "r3", "r2", "r1", "r0"],  # all at once: by id
                "updated": ["r0", "r1", "r2", "r3", "r4", "r5", "r6"],
                "name": ["r0", "r2", "r4", "r6", "r1", "r3", "r5"],
            }.items():
                found = pages(
                    lambda c, o=order, n=size: releases.list_releases(session, order=o, cursor=c, limit=n)
                )
                assert [one.id for one in found] == expected


def test_filters_of_releases(engine, many):
    many[3].say(cmd.Abort(**many[3].head(), reason="not this one"))
    F = releases.Filter

    def ids(where):
        with reading(engine) as session:
            return {
                one.id for one in pages(lambda c: releases.list_releases(session, where, cursor=c, limit=2))
            }

    everything = {story.release for story in many}
    assert ids(F(status="active")) == everything - {"r3"}
    assert ids(F(status="aborted")) == {"r3"}
    assert ids(F(status="completed")) == set()
    assert ids(F(stage="closed")) == everything
    assert ids(F(stage="open", status="active")) == set()
    assert ids(F(name_prefix="gPT-1")) == {"r1", "r3", "r5"}
    assert ids(F(name_prefix="gpt")) == everything
    assert ids(F(name_prefix="Gpt_1")) == ids(F(name_prefix="%")) == ids(F(name_prefix="x")) == set()
    assert ids(F(holder="uni")) == set()


def test_a_release_is_found_by_who_holds_a_grant_and_by_whom_it_waits_for(engine):
    story = Story(engine)
    Story(engine, "beta", version="2")
    story.enter("inside")
    story.enter("demo")
    with reading(engine) as session:
        held = releases.list_releases(session, releases.Filter(holder="uni")).items
        assert [one.id for one in held] == ["alpha"]
        waits = {item.release for item in pending.for_person(session, "sam", limit=200).items}
        shown = releases.list_releases(session, releases.Filter(waiting_for="sam")).items
        assert {one.id for one in shown} == waits
        assert releases.list_releases(session, releases.Filter(waiting_for="nobody")).items == []
        assert releases.counts(session) == {"active": 2}


def test_pending_is_soonest_first_over_all_releases_and_pages(engine, many):
    with reading(engine) as session:
        for person in ("sam", "mia", "rex"):
            whole = pending.for_person(session, person, limit=200).items
            assert [item.due for item in whole] == sorted(item.due for item in whole)
            assert pages(lambda c, p=person: pending.for_person(session, p, cursor=c, limit=1)) == whole
        assert pending.for_person(session, "nobody").items == []


def test_what_time_alone_changes_is_brought_up_to_date(engine):
    story = Story(engine)
    story.enter("inside")
    story.enter("demo")
    with reading(engine) as session:
        change = releases.summary(session, "alpha").changes_at
    assert change is not None
    with writing(engine) as session:
        assert pending.refresh_due(session, change - timedelta(seconds=1)) == 0
        assert pending.refresh_due(session, change) == 1
        assert pending.refresh_due(session, change) == 0
    with reading(engine) as session:
        after = releases.summary(session, "alpha")
        assert after.changes_at is None or after.changes_at > change
        assert releases.load(session, "alpha") == story.state
        messages = [item.message for item in pending.for_person(session, "sam").items]
    assert messages


def test_grants_and_incidents_over_all_releases_page(engine):
    stories = [Story(engine, name, version=name) for name in ("alpha", "beta")]
    for story in stories:
        story.enter("inside")
        story.enter("demo")
        for number in range(3):
            story.report(f"leak-{number}")
    with reading(engine) as session:
        mine = pages(lambda c: grants.of_holder(session, "uni", cursor=c, limit=1))
        assert {one.release for one in mine} == {"alpha", "beta"}
        assert grants.of_holder(session, "uni", live=False).items == []
        assert grants.get(session, "alpha", mine[0].grant.id).grant.holder == "uni"
        with pytest.raises(NotFound):
            grants.get(session, "alpha", "none")
        assert grants.running_out(session, before=T0 + timedelta(days=900)) == []
        seen = pages(lambda c: incidents.list_incidents(session, is_open=True, cursor=c, limit=2))
        assert len({(one.release, one.incident.id) for one in seen}) == len(seen) == 6
        assert [one.incident.at for one in seen] == sorted((one.incident.at for one in seen), reverse=True)
        assert incidents.get(session, "alpha", "leak-1").incident.open
        with pytest.raises(NotFound):
            incidents.get(session, "alpha", "leak-9")


def test_partners_principals_and_artifacts_page(session):
    for number in range(5):
        partners.create(session, f"p{number}", "P", at=T0, by="mia")
        principals.create(session, f"u{number}", "U", [Role.AUDITOR], at=T0, by="ops")
        artifacts.register(session, artifact(f"a{number}", created_at=T0 + number * MINUTE), b"m")
    assert [p.id for p in pages(lambda c: partners.list_partners(session, cursor=c, limit=2))] == [
        f"p{n}" for n in range(5)
    ]
    assert [p.id for p in pages(lambda c: principals.list_principals(session, cursor=c, limit=2))] == [
        f"u{n}" for n in range(5)
    ]
    assert [a.id for a in pages(lambda c: artifacts.list_artifacts(session, cursor=c, limit=2))] == [
        f"a{n}" for n in (4, 3, 2, 1, 0)
    ]


@pytest.mark.parametrize("limit", [0, -1, 201, 10**9])
def test_a_page_of_no_or_too_many_items_is_refused(session, limit):
    with pytest.raises(Malformed, match="1 to 200"):
        releases.list_releases(session, limit=limit)
    with pytest.raises(Malformed, match="1 to 200"):
        pending.for_person(session, "sam", limit=limit)


def test_a_cursor_of_another_list_or_order_is_refused(engine, many):
    with reading(engine) as session:
        cursor = releases.list_releases(session, limit=1).next
        with pytest.raises(Malformed, match="cursor"):
            releases.list_releases(session, order="updated", cursor=cursor)
        with pytest.raises(Malformed, match="cursor"):
            pending.for_person(session, "sam", cursor=cursor)
        with pytest.raises(Malformed, match="ordered by"):
            releases.list_releases(session, order="size")


@given(st.one_of(st.text(max_size=80), st.binary(max_size=60).map(lambda b: b.hex())))
def test_whatever_is_sent_as_a_cursor_is_refused_as_malformed(text_of_it):
    with pytest.raises(Malformed):
        decode_cursor(text_of_it, "created", str, int)


@given(st.text().filter(lambda t: "\0" not in t), st.integers(-(2**61), 2**61), st.datetimes())
def test_a_cursor_says_again_what_went_in(word, number, when):
    when = when.replace(tzinfo=T0.tzinfo)
    if any("\ud800" <= letter <= "\udfff" for letter in word):
        return
    cursor = encode_cursor("x", word, number, when)
    if len(cursor) <= 2_000:
        from datetime import datetime

        assert decode_cursor(cursor, "x", str, int, datetime) == [word, number, when]
