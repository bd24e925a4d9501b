"""`append`: exactly once, whatever is retried, killed or restored."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from sqlalchemy import select, text, update

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.decide import decide, decide_create
from orchestrator.domain.errors import Conflict, KeyReused, Malformed, NotFound
from orchestrator.domain.evolve import evolve, fold
from orchestrator.domain.gate import verdict
from orchestrator.domain.incident import Confidence, Incident, IncidentKind, Severity
from orchestrator.domain.values import canonical
from orchestrator.domain.waits import waits
from orchestrator.records import audit, grants, incidents, pending, releases
from orchestrator.records.database import reading, writing
from orchestrator.records.errors import RecordsBehind, RecordsBroken
from orchestrator.records.tables import METADATA, EventRow, ReleaseRow, table
from tests.records.story import PLAN, SAM, Story, creation, put, request
from tests.support.plans import MANAGER, T0

DERIVED = ("release", "grant_row", "incident", "wait")


def rows(engine, *names):
    """Whole tables; of JSON, what it says and not how."""
    with engine.connect() as connection:
        return {
            name: sorted(map(plain, connection.execute(select(METADATA.tables[name])).mappings()))
            for name in names
        }


def plain(row):
    parsed = {key: json.loads(row[key]) for key in ("state", "body") if isinstance(row.get(key), str)}
    return json.dumps({**row, **parsed}, sort_keys=True, default=repr)


def everything(engine):
    return rows(engine, *METADATA.tables)


@pytest.fixture
def story(engine):
    return Story(engine)


def test_an_event_is_in_the_log_the_audit_tree_and_the_read_model(engine, story):
    story.hold()
    with reading(engine) as session:
        assert releases.load(session, "alpha") == story.state
        found = releases.events(session, "alpha")
        assert [one.event.type for one in found] == ["release_created", "hold_placed"]
        assert [one.seq for one in found] == [1, 2]
        shown = releases.summary(session, "alpha")
        assert (shown.seq, shown.on_hold, shown.status, shown.stage) == (2, True, "active", "closed")
        leaf = audit.leaf(session, found[1].id)
        assert json.loads(leaf.body) == {
            "kind": "event",
            "release": "alpha",
            "seq": 2,
            "event": found[1].event.model_dump(mode="json"),
            "command": {"type": "hold", "digest": story.requests[1].command_digest, "request": "req-1"},
        }
        assert leaf.body == canonical(json.loads(leaf.body))


def test_a_retried_append_writes_nothing_and_answers_the_same(engine, story):
    story.hold()
    before = everything(engine)
    again = put(engine, story.requests[-1], story.now + timedelta(hours=1))
    assert again.events == list(story.requests[-1].events)
    assert not again.adopted
    assert everything(engine) == before


def test_a_retried_creation_is_the_same_release(engine, story):
    before = everything(engine)
    again = put(engine, story.requests[0])
    assert not again.adopted
    assert again.events == list(story.requests[0].events)
    assert everything(engine) == before


def test_a_worker_killed_after_writing_the_next_one_adopts_what_stands(engine, story):
    state = story.state
    story.hold()
    story.report("leak-1")
    lost = cmd.ReportAccess(command_id="other", actor=MANAGER, working=False, reason="down")
    events = decide(state, lost, T0)
    before = everything(engine)
    found = put(engine, request("alpha", 2, events, lost))
    assert found.adopted
    assert everything(engine) == before
    for event in found.events:
        state = evolve(state, event)
    assert state == story.state
    done = put(engine, request("alpha", state.seq + 1, decide(state, lost, story.now), lost), story.now)
    assert not done.adopted


def test_a_command_that_is_written_already_is_not_written_at_another_place(engine, story):
    story.hold()
    hold = story.requests[-1]
    before = everything(engine)
    moved = releases.Append(**{**{n: getattr(hold, n) for n in hold.__slots__}, "first_seq": 3})
    assert put(engine, moved).events == []
    assert everything(engine) == before


@pytest.mark.parametrize("place", [2, 3])
def test_a_command_id_used_for_another_command_is_refused(engine, story, place):
    story.hold()
    hold = story.requests[-1]
    other = cmd.ReportAccess(command_id=hold.command_id, actor=MANAGER, working=False, reason="down")
    before = everything(engine)
    with pytest.raises(KeyReused):
        put(engine, request("alpha", place, decide(story.state, other, story.now), other))
    assert everything(engine) == before


def test_the_services_own_command_made_anew_with_other_details_is_the_one_that_stands(engine, story):
    story.enter("inside")
    done = story.requests[-1]
    assert done.actor == cmd.SERVICE.id
    anew = releases.Append(
        **{**{n: getattr(done, n) for n in done.__slots__}, "command_digest": "sha256:" + "0" * 64}
    )
    found = put(engine, anew)
    assert (found.events, found.adopted) == (list(done.events), False)


def test_a_release_that_exists_cannot_be_created_by_another_command(engine, story):
    other = creation(command_id="another", version="2")
    with pytest.raises(Conflict, match="alpha"):
        put(engine, request("alpha", 1, decide_create(other, T0), other))


def test_the_same_name_and_version_cannot_be_released_twice(engine, story):
    other = creation("beta")
    before = everything(engine)
    with pytest.raises(Conflict, match="`Model` in version `1`"):
        put(engine, request("beta", 1, decide_create(other, T0), other))
    assert everything(engine) == before
    with reading(engine) as session:
        assert releases.find(session, "Model", "1").id == "alpha"
        assert releases.find(session, "Model", "2") is None


def test_last_weeks_database_restored_is_named_and_nothing_is_written(engine, story):
    hold = cmd.Hold(command_id="late", actor=MANAGER, reason="wait")
    events = decide(story.state, hold, story.now)
    before = everything(engine)
    with pytest.raises(RecordsBehind, match=r"at event 6, its records end at event 1"):
        put(engine, request("alpha", 7, events, hold))
    with pytest.raises(RecordsBehind, match="gamma"):
        put(engine, request("gamma", 2, events, hold))
    assert everything(engine) == before


def test_an_empty_append_or_one_before_the_first_event_is_a_bug_of_the_caller(engine, story):
    with pytest.raises(ValueError, match="needs events"):
        put(engine, request("alpha", 2, [], creation()))
    with pytest.raises(ValueError, match="place"):
        put(engine, request("alpha", 0, story.requests[0].events, creation()))


def test_a_first_event_that_creates_another_release_is_refused(engine, story):
    other = creation("beta", version="2")
    with pytest.raises(Conflict, match="gamma"):
        put(engine, request("gamma", 1, decide_create(other, T0), other))


def test_an_event_too_long_for_the_log_is_refused_whole(engine, story):
    people = {
        f"p{i}": {"name": "x" * 200, "roles": ["safety"], "organisation": "y" * 200} for i in range(400)
    }
    groups = {f"g{i}": {"partners": ["u" * 60] * 500, "terms": "z" * 200} for i in range(199)}
    raw = {
        **PLAN.model_dump(mode="json"),
        "partner_groups": {**PLAN.model_dump(mode="json")["partner_groups"], **groups},
    }
    plan = PLAN.model_validate({**raw, "people": {**raw["people"], **people}})
    amended = ev.PlanAmended(
        at=story.now,
        by="mia",
        command_id="big",
        plan=plan,
        plan_digest=plan.digest,
        previous_digest=PLAN.digest,
        reason="bigger",
        people=["mia"],
    )
    before = everything(engine)
    with pytest.raises(Malformed, match="too long"):
        put(engine, request("alpha", 2, [amended], cmd.Hold(command_id="big", actor=MANAGER, reason="x")))
    assert everything(engine) == before


def test_a_state_edited_by_hand_to_another_event_is_named_not_evolved(engine, story):
    story.hold()
    forged = story.state.model_copy(update={"seq": 1, "holds": {}})
    with writing(engine) as session:
        session.execute(update(table(ReleaseRow)).values(state=forged.model_dump_json()))
    with pytest.raises(RecordsBroken, match="event 1"):
        story.report("leak-1")
    with pytest.raises(RecordsBroken, match="event 1"), reading(engine) as session:
        releases.load(session, "alpha")


def test_whatever_fails_while_writing_leaves_nothing_behind(engine, story, monkeypatch):
    before = everything(engine)
    real = audit.append_leaves

    def killed(*args, **kwargs):
        real(*args, **kwargs)
        raise RuntimeError("killed here")

    monkeypatch.setattr(audit, "append_leaves", killed)
    with pytest.raises(RuntimeError, match="killed here"):
        story.hold()
    with pytest.raises(RuntimeError, match="killed here"):
        Story(engine, "beta", version="2")
    assert everything(engine) == before


def walked(engine):
    story = Story(engine)
    story.enter("inside")
    story.enter("demo")
    story.report("leak-1")
    story.close("leak-1")
    story.report("leak-2")
    story.hold()
    grant = next(iter(story.state.grants))
    story.say(cmd.Revoke(**story.head(SAM), grant=grant, reason="told to"))
    return story


def test_read_models_say_what_the_state_says(engine):
    story = walked(engine)
    state, now = story.state, story.now
    with reading(engine) as session:
        shown = releases.summary(session, "alpha")
        gate = verdict(state, state.next_step, now)
        assert (shown.gate_etag, shown.opens_at, shown.changes_at) == (
            gate.etag,
            gate.opens_at,
            gate.changes_at,
        )
        assert (shown.current_step, shown.next_step, shown.stage) == ("demo", "query", "hosted")
        assert (shown.open_incidents, shown.on_hold) == (1, True)
        assert {one.grant.id: one.grant for one in grants.of_release(session, "alpha")} == state.grants
        assert all(one.grant.live for one in grants.of_release(session, "alpha", live=True))
        assert len(grants.of_release(session, "alpha", live=False)) == 1
        found = incidents.list_incidents(session, release="alpha").items
        assert {one.incident.id: one.incident for one in found} == state.incidents
        for person in state.plan.people:
            mine = [wait for wait in waits(state, now) if person in wait.people]
            assert [(p.what, p.message, p.due) for p in pending.for_person(session, person).items] == [
                (wait.what, wait.message, wait.due) for wait in mine
            ]


def test_rebuilding_from_the_log_gives_the_same_rows(engine):
    story = walked(engine)
    Story(engine, "beta", version="2").hold()
    before = everything(engine)
    with writing(engine) as session:
        assert releases.rebuild(session, "alpha", story.now) == story.state
    assert everything(engine) == before


def test_rebuilding_mends_read_models_edited_by_hand(engine):
    story = walked(engine)
    before = everything(engine)
    with writing(engine) as session:
        for statement in (
            "UPDATE release SET status='completed', state='{}', seq=1",
            "UPDATE grant_row SET live=true",
            "DELETE FROM incident",
            "DELETE FROM wait",
        ):
            session.execute(text(statement))
    with writing(engine) as session:
        releases.rebuild(session, "alpha", story.now)
    assert everything(engine) == before


def test_an_incident_closed_past_the_state_s_memory_is_closed_in_the_records_too(engine):
    story = Story(engine)
    reported = [
        ev.IncidentReported(
            at=story.now,
            by="sam",
            command_id="all",
            incident=Incident(
                id=f"leak-{number}",
                kind=IncidentKind.LEAK,
                severity=Severity.LOW,
                confidence=Confidence.REPORTED,
                summary="seen",
                components=[],
                by="sam",
                at=story.now,
            ),
        )
        for number in range(102)
    ]
    # The last first: the oldest are forgotten by the state in the moment when they are closed.
    closed = [
        ev.IncidentClosed(
            at=story.now, by="sam", command_id="all", incident=f"leak-{number}", outcome="no", people=["sam"]
        )
        for number in reversed(range(102))
    ]
    story.write(
        cmd.Hold(command_id="all", actor=SAM, reason="stands for what made these events"),
        [*reported, *closed],
    )
    assert len(story.state.incidents) == 100
    with reading(engine) as session:
        page = incidents.list_incidents(session, release="alpha", limit=200)
        assert len(page.items) == 102
        assert not any(one.incident.open for one in page.items)
        assert incidents.list_incidents(session, is_open=True).items == []
    before = rows(engine, *DERIVED)
    with writing(engine) as session:
        releases.rebuild(session, "alpha", story.now)
    assert rows(engine, *DERIVED) == before


@pytest.mark.parametrize(
    ("forgery", "what"),
    [
        ("UPDATE event SET body = replace(body, 'wait', 'go') WHERE seq = 2", "event 2"),
        ("UPDATE event SET seq = 9 WHERE seq = 2", "event 2"),
        ("DELETE FROM event WHERE seq = 2", "event 2"),
        ("DELETE FROM audit_leaf WHERE index = 1", "event 2"),
        (
            "INSERT INTO event SELECT 99, release, 4, type, at, by, command_id, body FROM event WHERE seq = 2",
            "event 4",
        ),
    ],
)
def test_an_event_altered_dropped_or_inserted_by_hand_is_named(engine, story, forgery, what):
    story.hold()
    story.report("leak-1")
    if engine.dialect.name == "sqlite":
        forgery = forgery.replace("index", '"index"')
    with writing(engine) as session:
        session.execute(text(forgery))
    with reading(engine) as session, pytest.raises(RecordsBroken, match=what):
        releases.check_events(session, "alpha")


def test_the_feed_is_in_the_order_of_commits_and_continues_behind_a_cursor(engine, story):
    beta = Story(engine, "beta", version="2")
    story.hold()
    beta.hold()
    with reading(engine) as session:
        feed = releases.feed(session)
        assert [(one.release, one.seq) for one in feed] == [
            ("alpha", 1),
            ("beta", 1),
            ("alpha", 2),
            ("beta", 2),
        ]
        assert [one.id for one in releases.feed(session, after=feed[1].id)] == [feed[2].id, feed[3].id]
        assert len(releases.feed(session, limit=3)) == 3
        assert releases.last_event(session) == feed[-1].id
        assert [one.seq for one in releases.events(session, "beta", after=1)] == [2]
        assert fold(one.event for one in releases.events(session, "alpha")) == story.state


def test_a_handled_command_is_found_by_its_id(engine, story):
    story.hold()
    with reading(engine) as session:
        found = releases.handled(session, "alpha", "alpha-1")
        assert (found.type, found.first_seq, found.seq, found.events) == ("hold", 2, 2, ["hold_placed"])
        assert releases.handled(session, "alpha", "unknown") is None
        assert releases.handled(session, "beta", "alpha-1") is None


def test_an_empty_database_has_no_events_and_unknown_releases_are_not_found(engine):
    with reading(engine) as session:
        assert releases.last_event(session) == -1
        assert releases.feed(session) == []
        for ask in (releases.load, releases.summary, releases.check_events):
            with pytest.raises(NotFound):
                ask(session, "nothing")
    with writing(engine) as session, pytest.raises(NotFound):
        releases.hold(session, "nothing")


def test_event_ids_are_their_leaves(engine, story):
    with writing(engine) as session:
        audit.record_access(session, at=T0, actor="ngo", action="envelope_read")
    story.hold()
    with reading(engine) as session:
        ids = session.execute(select(EventRow.id).order_by(EventRow.id)).scalars().all()
        assert ids == [0, 2]
        assert [leaf.index for leaf in audit.leaves(session, kind="event")] == [0, 2]
