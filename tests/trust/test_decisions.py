"""Signed decisions against the plan and the gate as they stand; each refusal is named by the attack."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.domain.plan import Plan
from orchestrator.domain.stage import Stage
from orchestrator.domain.state import GateSubject
from orchestrator.trust import decisions, invitations
from orchestrator.trust.errors import (
    Expired,
    KeyUnusable,
    Malformed,
    SignatureInvalid,
    StatementMismatch,
    TrustError,
    UnknownKey,
)
from orchestrator.trust.keys import PrivateKey, PublicKey
from orchestrator.trust.passkeys import public_key_from_cose
from orchestrator.trust.signing import challenge, sign, sign_with_passkey
from orchestrator.trust.statements import Delegation, Statement, Subject
from tests.simulators.authenticator import SoftwareAuthenticator
from tests.support.inviting import Invited
from tests.support.plans import five_stages

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
MONTH = timedelta(days=30)
D1, D2, D3 = ("sha256:" + digit * 64 for digit in "123")
SAM, SUE, LEA, REX = (PrivateKey.from_seed(bytes([number]) * 32) for number in range(1, 5))
PASSKEY = SoftwareAuthenticator("sluice.example")
PASSKEY_TEXT = public_key_from_cose(PASSKEY.cose_key(), "sluice.example").text()


def plan_with(**keys) -> Plan:
    raw = five_stages()
    for person, texts in keys.items():
        raw["people"][person]["keys"] = texts
    return Plan.model_validate(raw)


PLAN = plan_with(sam=[SAM.public.text(), PASSKEY_TEXT], sue=[SUE.public.text()], lea=[LEA.public.text()])
SUBJECT = GateSubject(
    release="gpt-2",
    step="demo",
    attempt=1,
    from_stage=Stage.CLOSED,
    to_stage=Stage.HOSTED,
    audience="partners: research",
    plan_digest=PLAN.digest,
    manifests={"weights": D1},
    evidence={"model_card": D2, "risk_assessment": D3},
)


def signed(key=SAM, subject=SUBJECT, **changes):
    fields = {
        "person": "sam",
        "role": "safety",
        "decision": "approve",
        "issued_at": NOW,
        "validity": MONTH,
        **changes,
    }
    return sign(decisions.sign_off_statement(subject, **fields).to_bytes(), key).decode()


def check(envelope, plan=PLAN, subject=SUBJECT, **changes):
    fields = {"person": "sam", "role": "safety", "decision": "approve", "now": NOW, **changes}
    return decisions.check_sign_off(envelope, plan, subject, **fields)


def test_a_sign_off_for_exactly_this_gate_counts():
    assert check(signed()).predicate.person == "sam"


def test_a_passkey_of_the_same_person_counts():
    payload = decisions.sign_off_statement(
        SUBJECT, person="sam", role="safety", decision="approve", issued_at=NOW, validity=MONTH
    ).to_bytes()
    envelope = sign_with_passkey(payload, PublicKey.parse(PASSKEY_TEXT), PASSKEY.get(challenge(payload)))
    assert check(envelope.decode()).predicate.person == "sam"


@pytest.mark.parametrize(
    ("attack", "change"),
    [
        ("replayed to another release", {"release": "gpt-3"}),
        ("replayed to another step", {"step": "query"}),
        ("replayed to the next attempt", {"attempt": 2}),
        ("replayed to an amended plan", {"plan_digest": D1}),
        ("the audience was widened", {"audience": "public"}),
        ("the manifest was swapped", {"manifests": {"weights": D3}}),
        ("a manifest was added", {"manifests": {"weights": D1, "tokenizer": D2}}),
        ("the evidence was changed since", {"evidence": {"model_card": D2, "risk_assessment": D1}}),
        ("evidence was taken away since", {"evidence": {"model_card": D2}}),
        ("the stage was raised", {"to_stage": Stage.OPEN}),
    ],
)
def test_a_sign_off_does_not_count_when(attack, change):
    with pytest.raises(StatementMismatch):
        check(signed(), subject=GateSubject.model_validate({**SUBJECT.model_dump(), **change}))


def test_a_sign_off_by_somebody_elses_key_does_not_count():
    with pytest.raises(UnknownKey):
        check(signed(SUE))


def test_a_sign_off_in_somebody_elses_name_does_not_count():
    with pytest.raises(StatementMismatch, match="person"):
        check(signed(SUE, person="sam"), person="sue")


def test_an_approval_does_not_pass_as_a_rejection():
    with pytest.raises(StatementMismatch, match="decision"):
        check(signed(), decision="reject")


def test_an_expired_sign_off_does_not_count():
    with pytest.raises(Expired):
        check(signed(), now=NOW + MONTH)


def test_a_sign_off_counts_no_longer_than_was_signed():
    check(signed(), expires_at=NOW + MONTH)
    with pytest.raises(StatementMismatch, match="was signed until"):
        check(signed(), expires_at=NOW + 2 * MONTH)


def test_one_key_registered_under_two_people_is_nobodys():
    shared = plan_with(sam=[SAM.public.text()], sue=[SAM.public.text() + " spare key"])
    assert decisions.shared_keys(shared) == {SAM.public.key_id: ["sam", "sue"]}
    subject = SUBJECT.model_copy(update={"plan_digest": shared.digest})
    with pytest.raises(KeyUnusable, match="sam and sue"):
        check(signed(subject=subject), plan=shared, subject=subject)


def test_a_passkey_made_of_anothers_file_key_is_the_same_key():
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    twin = SoftwareAuthenticator(
        "sluice.example", algorithm="EdDSA", key=Ed25519PrivateKey.from_private_bytes(SAM.seed())
    )
    passkey = public_key_from_cose(twin.cose_key(), "sluice.example")
    assert decisions.shared_keys(plan_with(sam=[SAM.public.text()], sue=[passkey.text()])) != {}


def test_a_person_removed_from_the_plan_signs_no_more():
    raw = five_stages()
    raw["people"].pop("dan")
    with pytest.raises(UnknownKey, match=r"people\.dan"):
        check(signed(person="dan"), plan=Plan.model_validate(raw), person="dan")


def test_a_withdrawal_names_what_it_takes_back():
    standing = check(signed()).digest
    withdrawal = signed(decision="withdraw", withdraws=standing)
    arguments = {"release": "gpt-2", "step": "demo", "attempt": 1, "person": "sam", "now": NOW}
    decisions.check_withdrawal(withdrawal, PLAN, withdraws=standing, **arguments)
    with pytest.raises(StatementMismatch):
        decisions.check_withdrawal(withdrawal, PLAN, withdraws=D1, **arguments)
    with pytest.raises(StatementMismatch):
        decisions.check_withdrawal(withdrawal, PLAN, withdraws=standing, **{**arguments, "attempt": 2})


def endorsement(**changes):
    fields = {
        "release": "gpt-2",
        "action": "amend",
        "payload_digest": D2,
        "plan_digest": PLAN.digest,
        "person": "sam",
        "role": "safety",
        "issued_at": NOW,
        **changes,
    }
    return sign(decisions.endorsement_statement(**fields).to_bytes(), SAM).decode()


@pytest.mark.parametrize(
    ("attack", "change"),
    [
        ("another amendment than the one that was read", {"payload_digest": D3}),
        ("a resumption turned into an amendment", {"action": "resume"}),
        ("from another release", {"release": "gpt-3"}),
        ("under another plan", {"plan_digest": D1}),
    ],
)
def test_an_endorsement_is_of_one_proposal_alone(attack, change):
    arguments = {"release": "gpt-2", "action": "amend", "payload_digest": D2, "person": "sam", "now": NOW}
    decisions.check_endorsement(endorsement(), PLAN, **arguments)
    with pytest.raises(StatementMismatch):
        decisions.check_endorsement(endorsement(**change), PLAN, **arguments)


def test_a_delegation_is_for_one_role_and_no_longer_than_signed():
    predicate = Delegation(
        release="gpt-2",
        plan_digest=PLAN.digest,
        from_person="sam",
        to_person="dan",
        role="safety",
        issued_at=NOW,
        expires_at=NOW + MONTH,
    )
    envelope = sign(
        Statement(subjects=(Subject.of("plan", PLAN.digest),), predicate=predicate).to_bytes(), SAM
    ).decode()
    arguments = {
        "release": "gpt-2",
        "giver": "sam",
        "to": "dan",
        "role": "safety",
        "now": NOW,
        "until": NOW + MONTH,
    }
    decisions.check_delegation(envelope, PLAN, **arguments)
    for change in ({"role": "legal"}, {"to": "lea"}, {"release": "gpt-3"}, {"until": NOW + 2 * MONTH}):
        with pytest.raises(StatementMismatch):
            decisions.check_delegation(envelope, PLAN, **{**arguments, **change})
    with pytest.raises(Expired):
        decisions.check_delegation(envelope, PLAN, **{**arguments, "now": NOW + MONTH})


# --- an outside reviewer (the whole chain, attacked: tests/custody/test_invitations.py) ----------------------------


def said(invited, **changes):
    fields = {
        "invited_by": "lea",
        "reviewer": invited.reviewer,
        "organisation": "A University",
        "role": "reviewer",
        "key": invited.one_time.public.text(),
        "expires_at": NOW + timedelta(days=7),
        **changes,
    }
    return invitations.Said(**fields)


def test_an_invited_reviewer_signs_one_gate():
    made = Invited(SUBJECT, NOW, "lea", LEA)
    checked = invitations.check_invitation(made.envelope, PLAN, SUBJECT, said(made), now=NOW)
    signed_on_it = invitations.check_invited_sign_off(
        made.signed(NOW), made.acceptance(NOW), checked, PLAN, SUBJECT, decision="approve", now=NOW
    )
    assert signed_on_it.predicate.invitation == made.id == checked.digest
    accepted = invitations.accepted_keys([("jane", made.envelope, made.acceptance(NOW)), ("x", "", "")])
    assert accepted == {made.own.public.key_id: "jane"}


@pytest.mark.parametrize(
    "change",
    [
        {"organisation": "Another University"},
        {"role": "safety"},
        {"reviewer": "joe"},
        {"expires_at": NOW + timedelta(days=8)},
        {"key": REX.public.text()},
    ],
)
def test_an_invitation_says_what_was_signed_and_no_more(change):
    made = Invited(SUBJECT, NOW, "lea", LEA)
    with pytest.raises(StatementMismatch):
        invitations.check_invitation(made.envelope, PLAN, SUBJECT, said(made, **change), now=NOW)


def test_one_key_does_not_count_under_two_reviewers():
    made = Invited(SUBJECT, NOW, "lea", LEA)
    with pytest.raises(KeyUnusable, match="is the key of joe"):
        invitations.check_acceptance(
            made.acceptance(NOW), made.statement, PLAN, now=NOW, taken={made.own.public.key_id: "joe"}
        )


def test_an_expired_invitation_lets_nobody_sign():
    made = Invited(SUBJECT, NOW, "lea", LEA)
    late = NOW + timedelta(days=7)
    with pytest.raises(Expired):
        invitations.check_invited_sign_off(
            made.signed(late),
            made.acceptance(late),
            made.statement,
            PLAN,
            SUBJECT,
            decision="approve",
            now=late,
        )


def test_an_envelope_that_is_none_is_a_trust_error():
    made = Invited(SUBJECT, NOW, "lea", LEA)
    good = made.signed(NOW), made.acceptance(NOW)
    for envelope, accepted in (("", good[1]), (good[0], ""), ("{}", "[]"), ("\ud7ff", good[1])):
        with pytest.raises(TrustError):
            invitations.check_invited_sign_off(
                envelope, accepted, made.statement, PLAN, SUBJECT, decision="approve", now=NOW
            )
    with pytest.raises(Malformed):
        check("")
    with pytest.raises(SignatureInvalid):
        check(signed().replace('"sig":"', '"sig":"AAAA'))
