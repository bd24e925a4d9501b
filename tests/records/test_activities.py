"""The activities of the records: what the workflow gets, and what Temporal is told when something fails."""

from __future__ import annotations

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.errors import at_the_edge, told
from activities.records import RecordActivities
from artifacts.errors import NotSealedError, ObjectExists, StoreUnavailable
from orchestrator.contracts.messages import PartnersRequest, RecordRequest
from orchestrator.domain.decide import decide_create
from orchestrator.domain.errors import Conflict, GateChanged, Reason, Unavailable
from orchestrator.domain.plan import recipient_digest
from orchestrator.domain.values import digest
from orchestrator.records import partners, releases
from orchestrator.records.database import connect, reading, writing
from orchestrator.records.errors import RecordsBehind, RecordsBroken
from orchestrator.trust.errors import SignatureInvalid
from tests.records.story import Story, creation
from tests.records.test_repositories import KEY, OTHER_KEY
from tests.support.plans import RECIPIENT, T0, five_stage_plan


def asked(command, first_seq=1, **changes):
    given = {
        "release": command.release,
        "first_seq": first_seq,
        "events": decide_create(command, T0),
        "command_id": command.command_id,
        "command_type": command.type,
        "command_digest": digest(command),
        "actor": command.actor.id,
        "request_id": "req-7",
    }
    return RecordRequest(**{**given, **changes})


@pytest.fixture
def records(engine):
    return RecordActivities(engine, lambda: T0)


def run(activity, request):
    return ActivityEnvironment().run(activity, request)


def test_recording_is_once_and_the_answer_survives_a_lost_one(engine, records):
    request = asked(creation())
    first, again = run(records.record_events, request), run(records.record_events, request)
    assert first == again
    assert first.events == request.events
    assert not first.adopted
    with reading(engine) as session:
        assert len(releases.feed(session)) == 1
        assert releases.handled(session, "alpha", "create-alpha").type == "create_release"


def test_a_refusal_of_the_records_is_told_by_its_code_and_not_retried(records):
    run(records.record_events, asked(creation()))
    with pytest.raises(ApplicationError) as found:
        run(records.record_events, asked(creation("beta")))
    assert (found.value.type, found.value.non_retryable) == ("conflict", True)
    with pytest.raises(ApplicationError) as found:
        run(records.record_events, asked(creation(), first_seq=9))
    assert (found.value.type, found.value.non_retryable) == ("records-behind", True)
    assert "event 8" in found.value.message


def test_a_database_that_does_not_answer_is_retried(tmp_path):
    gone = RecordActivities(connect(f"sqlite:///{tmp_path}/none/records.db"))
    with pytest.raises(ApplicationError) as found:
        run(gone.record_events, asked(creation()))
    assert (found.value.type, found.value.non_retryable) == ("unavailable", False)


@pytest.mark.parametrize(
    ("error", "kind", "final"),
    [
        (Conflict("no"), "conflict", True),
        (Unavailable("later"), "unavailable", False),
        (RecordsBehind("old"), "records-behind", True),
        (RecordsBroken("edited"), "records-broken", True),
        (NotSealedError("in clear"), "not-sealed", True),
        (ObjectExists("taken"), "object-exists", True),
        (StoreUnavailable("503"), "store-unavailable", False),
        (SignatureInvalid("does not fit"), "signature-invalid", True),
    ],
)
def test_every_tree_of_errors_has_its_place_at_the_edge(error, kind, final):
    with pytest.raises(ApplicationError) as found, at_the_edge():
        raise error
    assert (found.value.type, found.value.non_retryable) == (kind, final)
    assert found.value.message == str(error)
    assert found.value.__suppress_context__


def test_reasons_travel_as_details():
    assert told(GateChanged("changed", [Reason("if-match", "read again", "If-Match")])).details == (
        [{"code": "if-match", "message": "read again", "path": "If-Match"}],
    )


def test_a_bug_is_not_dressed_up_as_a_refusal():
    with pytest.raises(ZeroDivisionError), at_the_edge():
        _ = 1 // 0


# --- which partners are ready ----------------------------------------------------------------------------------------

STEP = "download"


def observe(engine, records, plan, *, known=()):
    """Who is ready at `download`, which hands keys to partners. `known`: (partner, recipient or None, terms or None) in the records."""
    Story(engine, plan=plan)
    with writing(engine) as session:
        for partner, recipient, terms in known:
            partners.create(session, partner, partner, at=T0, by="mia")
            if recipient is not None:
                partners.add_key(session, partner, recipient, at=T0, by="mia")
            if terms is not None:
                partners.accept_terms(session, partner, terms, at=T0, by=partner)
    request = PartnersRequest(release="alpha", step=STEP, partners=["uni", "ngo"])
    return {found.partner: found.recipient for found in run(records.observe_partners, request).ready}


def plan_with(recipient=None, terms=None):
    uni = {"name": "University"} if recipient is None else {"name": "University", "recipient": recipient}
    group = {"partners": ["uni", "ngo"]} if terms is None else {"partners": ["uni", "ngo"], "terms": terms}
    return five_stage_plan(
        partners={"uni": uni, "ngo": {"name": "NGO"}},
        partner_groups={"research": group},
        partner_keys="registered",
    )


def test_partners_with_a_key_are_ready_and_those_without_are_not(engine, records):
    found = observe(engine, records, plan_with(), known=[("uni", KEY, None), ("ngo", None, None)])
    assert found == {"uni": recipient_digest(KEY)}


def test_nobody_in_the_records_is_ready_but_whom_the_plan_pins_with_a_whole_key(engine, records):
    assert observe(engine, records, plan_with(KEY)) == {"uni": recipient_digest(KEY)}


def test_a_key_pinned_by_its_digest_alone_must_be_in_the_records(engine, records):
    assert observe(engine, records, plan_with(RECIPIENT)) == {}


def test_a_key_pinned_by_its_digest_that_is_in_the_records_is_ready(engine, records):
    plan = plan_with(recipient_digest(KEY))
    assert observe(engine, records, plan, known=[("uni", KEY, None)]) == {"uni": recipient_digest(KEY)}


def test_another_key_than_the_pinned_one_does_not_make_a_partner_ready(engine, records):
    plan = plan_with(recipient_digest(KEY))
    assert observe(engine, records, plan, known=[("uni", OTHER_KEY, None)]) == {}


def test_a_partner_that_has_not_accepted_the_terms_is_not_ready(engine, records):
    plan = plan_with(terms="research-v2")
    known = [("uni", KEY, "research-v1"), ("ngo", OTHER_KEY, "research-v2")]
    assert observe(engine, records, plan, known=known) == {"ngo": recipient_digest(OTHER_KEY)}


def test_a_revoked_key_or_a_partner_switched_off_is_not_ready(engine, records):
    observe(engine, records, plan_with(KEY), known=[("uni", KEY, None), ("ngo", OTHER_KEY, None)])
    with writing(engine) as session:
        partners.revoke_key(session, "uni", recipient_digest(KEY), at=T0, by="mia")
        partners.set_active(session, "ngo", False, at=T0, by="mia")
    request = PartnersRequest(release="alpha", step=STEP, partners=["uni", "ngo"])
    assert run(records.observe_partners, request).ready == []


def test_the_newest_key_that_is_not_revoked_is_the_one(engine, records):
    observe(engine, records, plan_with(), known=[("uni", KEY, None)])
    with writing(engine) as session:
        newer = partners.add_key(session, "uni", OTHER_KEY, at=T0.replace(hour=12), by="mia")
    request = PartnersRequest(release="alpha", step=STEP, partners=["uni"])
    assert run(records.observe_partners, request).ready[0].recipient == newer.digest


def test_partners_of_an_unknown_release_are_not_found(records):
    with pytest.raises(ApplicationError) as found:
        run(records.observe_partners, PartnersRequest(release="none", step=STEP, partners=["uni"]))
    assert found.value.type == "not-found"
