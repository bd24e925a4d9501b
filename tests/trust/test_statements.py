"""Statements: one spelling, strict fields, expiry, and a plain account of what differs."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.trust import statements
from orchestrator.trust.encoding import canonical_json
from orchestrator.trust.errors import Expired, Malformed, NotYetValid, StatementMismatch, TrustError
from orchestrator.trust.keys import PrivateKey
from orchestrator.trust.statements import SignOff, Statement, Subject

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
DAY = timedelta(days=1)
D1, D2, D3 = ("sha256:" + digit * 64 for digit in "123")
KEY = PrivateKey.from_seed(b"k" * 32).public
TIMES = {"issued_at": NOW, "expires_at": NOW + 30 * DAY, "nonce": "0" * 32}


def sign_off(**changes):
    fields = {
        "release": "gpt-2",
        "step": "large-downloadable",
        "attempt": 1,
        "from_stage": "api",
        "to_stage": "downloadable",
        "audience": "partners: universities",
        "plan_digest": D1,
        "evidence_digests": {"model card": D2, "risk assessment": D3},
        "person": "alice",
        "role": "safety",
        "decision": "approve",
        "comment": "Read the evaluation twice.",
        **TIMES,
        **changes,
    }
    return Statement(subjects=(Subject.of("weights-large", D2),), predicate=SignOff(**fields))


EXAMPLES = [
    sign_off().predicate,
    sign_off(decision="withdraw", withdraws=D1).predicate,
    statements.Endorsement(
        release="gpt-2",
        action="amend_plan",
        payload_digest=D2,
        plan_digest=D1,
        person="bob",
        role="policy",
        **TIMES,
    ),
    statements.Delegation(
        release="gpt-2", plan_digest=D1, from_person="alice", to_person="carol", role="safety", **TIMES
    ),
    statements.Invitation(
        release="gpt-2",
        step="large-downloadable",
        attempt=1,
        plan_digest=D1,
        gate=D3,
        reviewer="dana@uni.example",
        organisation="A University",
        role="outside-reviewer",
        one_time_key=KEY.text(),
        invited_by="alice",
        **TIMES,
    ),
    statements.Acceptance(
        release="gpt-2", invitation=D2, reviewer="dana@uni.example", reviewer_key=KEY.text(), **TIMES
    ),
    statements.Receipt(
        release="gpt-2",
        step="large-downloadable",
        grant="grant-1",
        partner="uni",
        member="erin",
        envelope_digest=D1,
        copy_digest=D3,
        **TIMES,
    ),
    statements.RecipientRegistration(partner="uni", member="erin", recipient="age1pq1" + "q" * 1900, **TIMES),
    statements.KeyRegistration(person="alice", public_key=KEY.text(), replaces=KEY.key_id, **TIMES),
]


@pytest.mark.parametrize("predicate", EXAMPLES, ids=lambda p: type(p).__name__)
def test_every_statement_reads_back_as_it_was_written(predicate):
    statement = Statement(subjects=(Subject.of("a", D1), Subject.of("b", D2)), predicate=predicate)
    assert statements.parse(statement.to_bytes(), type(predicate)) == statement
    assert statements.parse_any(statement.to_bytes()) == statement


def test_every_predicate_has_its_page():
    pages = Path(__file__).parents[2] / "docs" / "predicates"
    for uri, kind in statements.PREDICATES.items():
        name = uri.removeprefix(statements.PREDICATE_BASE).removesuffix("/v1")
        page = (pages / f"{name}.md").read_text()
        assert uri in page
        missing = [field for field in kind.model_fields if f"`{field}`" not in page]
        assert not missing, f"{name}.md does not explain {missing}"


def test_the_form_is_that_of_an_in_toto_statement():
    raw = json.loads(sign_off().to_bytes())
    assert raw["_type"] == "https://in-toto.io/Statement/v1"
    assert raw["subject"] == [{"name": "weights-large", "digest": {"sha256": "2" * 64}}]
    assert raw["predicateType"] == "https://sluice.example/predicates/sign-off/v1"
    assert raw["predicate"]["issued_at"] == "2026-11-23T09:00:00Z"


def test_frozen_digest_of_a_sign_off():
    assert sign_off().digest == "sha256:0160424e981c30a4287e160ad705a8327c86951f83808b7b340d65477a52a770"


def test_microseconds_and_time_zones_do_not_make_a_second_spelling():
    from zoneinfo import ZoneInfo

    zoned = sign_off(issued_at=NOW.astimezone(ZoneInfo("Asia/Tokyo")) + timedelta(microseconds=5))
    assert zoned.to_bytes() == sign_off().to_bytes()


def edited(**changes):
    raw = json.loads(sign_off().to_bytes())
    for name, value in changes.items():
        if name in raw:
            raw[name] = value
        elif value is None:
            del raw["predicate"][name]
        else:
            raw["predicate"][name] = value
    return canonical_json(raw)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(sign_off().to_bytes() + b"\n", id="a newline behind it"),
        pytest.param(json.dumps(json.loads(sign_off().to_bytes())).encode(), id="spaces in it"),
        pytest.param(
            sign_off().to_bytes().replace(b'"role":"safety"', b'"role":"policy","role":"safety"'),
            id="two roles",
        ),
        pytest.param(edited(lowered_quorum=1), id="an unknown field"),
        pytest.param(edited(nonce=None), id="no nonce"),
        pytest.param(edited(decision="maybe"), id="an unknown decision"),
        pytest.param(edited(decision="withdraw"), id="a withdrawal of nothing"),
        pytest.param(edited(withdraws=D1), id="an approval that withdraws"),
        pytest.param(edited(attempt=True), id="a truth value for a number"),
        pytest.param(edited(attempt="1"), id="a text for a number"),
        pytest.param(edited(attempt=0), id="attempt zero"),
        pytest.param(edited(issued_at=1795424400), id="a number for an instant"),
        pytest.param(edited(issued_at="2026-11-23T10:00:00+01:00"), id="another time zone"),
        pytest.param(edited(issued_at="2026-11-23T09:00:00"), id="no time zone"),
        pytest.param(edited(expires_at="2026-11-23T09:00:00Z"), id="expires as it is issued"),
        pytest.param(edited(expires_at="9999-99-99T00:00:00Z"), id="no such day"),
        pytest.param(edited(plan_digest=D1.upper()), id="a digest in capitals"),
        pytest.param(edited(plan_digest=D1 + "\n"), id="a newline behind a digest"),
        pytest.param(edited(comment="ok\u202egnp.exe"), id="an invisible letter that turns the text round"),
        pytest.param(edited(subject=[]), id="about nothing"),
        pytest.param(edited(subject=[{"name": "a", "digest": {"sha1": "0" * 40}}]), id="a weaker digest"),
        pytest.param(
            edited(subject=[{"name": "a", "digest": {"sha256": "0" * 64}}] * 2), id="a subject twice"
        ),
        pytest.param(edited(predicate=[]), id="no predicate object"),
        pytest.param(edited(_type="https://in-toto.io/Statement/v0.1"), id="an older statement version"),
    ],
)
def test_what_is_not_exactly_a_sign_off_is_malformed(payload):
    with pytest.raises(Malformed):
        statements.parse(payload, SignOff)


def test_an_endorsement_passed_off_as_a_sign_off_is_refused():
    other = Statement(subjects=(Subject.of("a", D1),), predicate=EXAMPLES[2])
    with pytest.raises(StatementMismatch, match="predicate type"):
        statements.parse(other.to_bytes(), SignOff)


def test_an_unknown_predicate_type_is_refused():
    with pytest.raises(Malformed, match="not known"):
        statements.parse_any(edited(predicateType="https://slsa.dev/provenance/v1"))


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        ("replayed from another release", {"release": "gpt-3"}),
        ("replayed from another step", {"step": "small-downloadable"}),
        ("replayed from an earlier attempt", {"attempt": 2}),
        ("replayed from another plan", {"plan_digest": D3}),
        ("evidence changed since", {"evidence_digests": {"model card": D3, "risk assessment": D3}}),
        ("evidence added since", {"evidence_digests": {"model card": D2, "risk assessment": D3, "x": D1}}),
        ("audience widened since", {"audience": "public"}),
        ("meant for another stage", {"to_stage": "open"}),
        ("signed in another role", {"role": "legal"}),
        ("signed for somebody else", {"person": "bob"}),
    ],
)
def test_a_sign_off_for_something_else_is_refused_and_named(attack, expected):
    with pytest.raises(StatementMismatch) as refusal:
        sign_off().require(**expected)
    assert refusal.value.fields == tuple(expected)


def test_a_swapped_manifest_is_refused():
    with pytest.raises(StatementMismatch, match="subjects"):
        sign_off().require(subjects=[Subject.of("weights-large", D3)])
    sign_off().require(subjects=[Subject.of("weights-large", D2)], release="gpt-2")


def test_every_field_that_differs_is_listed():
    with pytest.raises(StatementMismatch) as refusal:
        sign_off().require(release="x", step="y", role="safety")
    assert refusal.value.fields == ("release", "step")


def test_asking_for_a_field_that_there_is_not_is_a_mistake_of_the_caller():
    with pytest.raises(TypeError):
        sign_off().require(colour="red")


def test_an_expired_sign_off_is_refused_at_the_second():
    statement = sign_off()
    statement.check_time(NOW + 30 * DAY - timedelta(seconds=1))
    with pytest.raises(Expired, match="2026-12-23T09:00:00Z"):
        statement.check_time(NOW + 30 * DAY)


def test_a_sign_off_from_the_future_is_refused():
    sign_off().check_time(NOW - timedelta(minutes=5))
    with pytest.raises(NotYetValid):
        sign_off().check_time(NOW - timedelta(minutes=6))


def test_a_person_cannot_delegate_to_themselves():
    with pytest.raises(Malformed, match="themselves"):
        statements.Delegation(
            release="gpt-2", plan_digest=D1, from_person="alice", to_person="alice", role="safety", **TIMES
        )


@pytest.mark.parametrize(
    "change",
    [
        {"comment": "\x1b[31mred"},
        {"person": "a b"},
        {"expires_at": NOW},
        {"issued_at": NOW.replace(tzinfo=None)},
    ],
)
def test_what_a_person_typed_wrongly_is_malformed_before_it_is_signed(change):
    with pytest.raises(Malformed, match="sign-off statement"):
        sign_off(**change)


def test_nonces_differ():
    assert statements.new_nonce() != statements.new_nonce()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(D1),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(st.sampled_from(EXAMPLES), st.data())
def test_no_json_of_nearly_the_form_raises_anything_but_a_trust_error(predicate, data):
    raw = json.loads(Statement(subjects=(Subject.of("a", D1),), predicate=predicate).to_bytes())
    inside = data.draw(st.booleans())
    target = raw["predicate"] if inside else raw
    name = data.draw(st.sampled_from(sorted(target)))
    target[name] = data.draw(values)
    try:
        payload = json.dumps(raw).encode()
        if data.draw(st.booleans()):
            payload = canonical_json(raw)
        parsed = statements.parse_any(payload)
    except TrustError:
        return
    assert parsed.to_bytes() == payload


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_trust_error(payload):
    with pytest.raises(TrustError):
        statements.parse_any(payload)
