"""Outside reviewers without an account, at custody: an honest one counts; every forged link of the chain counts for nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.errors import Conflict, GateChanged, NotFound, NotPermitted
from orchestrator.domain.permissions import Role
from orchestrator.domain.plan import Plan
from orchestrator.domain.values import digest
from orchestrator.trust.keys import PrivateKey
from tests.custody.intruder import Intruder
from tests.custody.world import KEYS, World, signed_plan
from tests.support.inviting import Invited
from tests.support.plans import PIPELINE, actor

DAY = timedelta(days=1)
SIGNED = [{"role": "safety"}, {"role": "reviewer", "external": True, "invited_by": "standin"}]
DAN = actor("dan", Role.APPROVER)
MALLORY = PrivateKey.generate()


def inviting_plan(**changes: Any) -> Plan:
    """The gate of `demo` asks for a reviewer, whom dan, the stand-in, may invite."""
    raw = signed_plan(**changes).model_dump(mode="json")
    demo = next(step for step in raw["steps"] if step["name"] == "demo")
    demo["gate"]["sign_offs"] = SIGNED
    return Plan.model_validate(raw)


@pytest.fixture
def world(engine: Engine, tmp_path: Path) -> Any:
    made = World(engine, tmp_path, plan=inviting_plan())
    made.to("inside")
    made.prepare("demo")
    made.sign("sam", "demo", "safety")
    yield made
    made.close()


@pytest.fixture
def intruder(world: World, monkeypatch: pytest.MonkeyPatch) -> Intruder:
    return Intruder(world, monkeypatch)


def invitation(world: World, inviter: str = "dan", **more: Any) -> Invited:
    given = {"subject": world.subject("demo"), "inviter_key": KEYS[inviter], **more}
    return Invited(at=world.clock(), inviter=inviter, **given)


def invite(world: World, invited: Invited, **more: Any) -> list[ev.AnyEvent]:
    return world.say(
        cmd.Invite(**world.head(actor(invited.inviter, Role.APPROVER)), **{**invited.fields(), **more})
    )


def answer(world: World, invited: Invited, decision: Any = "approve") -> list[ev.AnyEvent]:
    return world.say(
        cmd.SignInvited(**world.head(invited.reviewing), **invited.answer(world.clock(), decision))
    )


def forged_invitation(world: World, intruder: Intruder, invited: Invited, **more: Any) -> None:
    head = intruder.head(invited.inviter)
    given = {**invited.fields(), "attempt": world.state.attempt, "invitation": invited.id, **more}
    intruder.forge(ev.Invited(**head, **given))


def forged_answer(world: World, intruder: Intruder, invited: Invited, **more: Any) -> None:
    at = world.clock()
    made = intruder.signed_off(invited.reviewer, "demo", "reviewer", invited.signed(at))
    given = {"invitation": invited.id, "acceptance": invited.acceptance(at), **more}
    intruder.forge(made.model_copy(update=given))


def enters(world: World) -> dict[str, dict[str, str]]:
    asked = world.begin("demo")
    made = world.custody.make_envelopes(asked)
    world.complete("demo", made)
    return made


def refused(world: World, intruder: Intruder, match: str) -> None:
    """Custody gives nothing for the gate, and says why the invited sign-off has no effect."""
    if world.state.entry is None:
        intruder.forge(intruder.entry("demo"))
    reasons = intruder.gets_nothing("demo", "1 more sign-off as reviewer from outside")
    assert any(match in reason.message for reason in reasons), [reason.message for reason in reasons]


# --- honest -----------------------------------------------------------------------------------------------------------


def test_an_invited_reviewer_opens_a_gate_and_custody_verifies_the_chain(world: World) -> None:
    invited = invitation(world)
    invite(world, invited)
    answer(world, invited)
    assert enters(world), "custody made the envelope"
    signed = world.state.history[-1].signed
    assert [(one.person, one.role, one.invited_by) for one in signed] == [
        ("sam", "safety", None),
        ("jane", "reviewer", "dan"),
    ]
    assert world.state.invitations == {}, "the next gate begins with none"


def test_a_rejection_on_an_invitation_closes_the_gate_until_the_reviewer_withdraws_it(
    world: World, intruder: Intruder
) -> None:
    invited = invitation(world)
    invite(world, invited)
    answer(world, invited, "reject")
    standing = world.state.sign_offs["jane"]
    forged = {"step": "demo", "attempt": world.state.attempt}
    envelopes = {
        "nobody signed": None,
        "the link's holder signed": invited.signed(
            world.clock(), "withdraw", withdraws=standing.statement, key=invited.one_time
        ),
        "the inviter signed": invited.signed(
            world.clock(), "withdraw", withdraws=standing.statement, key=KEYS["dan"]
        ),
    }
    for envelope in envelopes.values():
        intruder.forge(ev.SignOffWithdrawn(**intruder.head("jane"), **forged, envelope=envelope))
    second = invitation(world)
    forged_invitation(world, intruder, second)
    forged_answer(world, intruder, second)
    intruder.forge(intruder.entry("demo"))
    reasons = intruder.gets_nothing("demo", "jane (reviewer) rejected")
    assert sum("sign_off_withdrawn by jane) has no effect" in r.message for r in reasons) == len(envelopes)
    assert any("stands until they withdraw it" in r.message for r in reasons)


def test_the_reviewers_own_withdrawal_ends_their_rejection(world: World) -> None:
    first = invitation(world)
    invite(world, first)
    answer(world, first, "reject")
    statement = world.state.sign_offs["jane"].statement
    envelope = first.signed(world.clock(), "withdraw", withdraws=statement)
    taken = cmd.WithdrawInvited(
        **world.head(first.reviewing), step="demo", invitation=first.id, envelope=envelope
    )
    world.say(taken)
    second = invitation(world)
    invite(world, second)
    answer(world, second)
    assert enters(world)


# --- attacks: with write access to everything but custody's memory and key ----------------------------------------------


def test_invited_sign_off_row_inserted_by_hand(world: World, intruder: Intruder) -> None:
    forged_answer(world, intruder, invitation(world))
    refused(world, intruder, "nobody whom the plan lets invite made this invitation")


def by_a_stranger(world: World) -> Invited:
    return invitation(world, inviter_key=MALLORY)


def by_somebody_whom_the_plan_does_not_let_invite(world: World) -> Invited:
    return invitation(world, "lea")


def by_the_creator(world: World) -> Invited:
    return invitation(world, "mia")


def in_somebody_elses_name(world: World) -> Invited:
    return invitation(world, inviter="dan", inviter_key=KEYS["sue"])


def for_themselves(world: World) -> Invited:
    return invitation(world, reviewer="dan")


def for_a_colleague(world: World) -> Invited:
    return invitation(world, reviewer="lea")


def with_a_pinned_key_as_the_one_time_key(world: World) -> Invited:
    return invitation(world, one_time=KEYS["dan"])


def for_another_step(world: World) -> Invited:
    return invitation(world, subject=world.subject("demo").model_copy(update={"step": "query"}))


def for_another_release(world: World) -> Invited:
    return invitation(world, subject=world.subject("demo").model_copy(update={"release": "beta"}))


def for_another_attempt(world: World) -> Invited:
    return invitation(world, subject=world.subject("demo").model_copy(update={"attempt": 9}))


def for_another_plan_version(world: World) -> Invited:
    return invitation(world, subject=world.subject("demo").model_copy(update={"plan_digest": digest("old")}))


def for_other_evidence(world: World) -> Invited:
    return invitation(world, subject=world.subject("demo").model_copy(update={"evidence": {}}))


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (by_a_stranger, "signed by none of the keys"),
        (by_somebody_whom_the_plan_does_not_let_invite, "does not let lea invite"),
        (by_the_creator, "invites nobody"),
        (in_somebody_elses_name, "signed by none of the keys"),
        (for_themselves, "nobody invites themselves"),
        (for_a_colleague, "nobody invites themselves or a colleague"),
        (with_a_pinned_key_as_the_one_time_key, "is the key of dan"),
        (for_another_step, "step is 'query', not 'demo'"),
        (for_another_release, "release is 'beta', not 'alpha'"),
        (for_another_attempt, "attempt is 9"),
        (for_another_plan_version, "plan_digest is"),
        (for_other_evidence, "gate is"),
    ],
)
def test_invitation_forged(
    world: World, intruder: Intruder, made: Callable[[World], Invited], why: str
) -> None:
    invited = made(world)
    forged_invitation(world, intruder, invited, step="demo", subject=world.subject("demo").digest)
    forged_answer(world, intruder, invited)
    refused(world, intruder, why)


def test_invitation_used_a_second_time(world: World, intruder: Intruder) -> None:
    invited = invitation(world)
    invite(world, invited)
    answer(world, invited)
    statement = world.state.sign_offs["jane"].statement
    envelope = invited.signed(world.clock(), "withdraw", withdraws=statement)
    head = world.head(invited.reviewing)
    world.say(cmd.WithdrawInvited(**head, step="demo", invitation=invited.id, envelope=envelope))
    with pytest.raises(Conflict, match="was used already"):
        answer(world, invited)
    forged_answer(world, intruder, invited)
    refused(world, intruder, "was used already")


def test_invitation_used_after_it_was_revoked(world: World, intruder: Intruder) -> None:
    invited = invitation(world)
    invite(world, invited)
    world.say(
        cmd.RevokeInvitation(**world.head(DAN), invitation=invited.id, reason="sent to the wrong address")
    )
    with pytest.raises(Conflict, match="was revoked"):
        answer(world, invited)
    forged_answer(world, intruder, invited)
    refused(world, intruder, "the invitation was revoked")


@pytest.mark.parametrize("ended", ["revoked", "used"])
def test_invitation_revived_by_writing_it_once_more(world: World, intruder: Intruder, ended: str) -> None:
    invited = invitation(world)
    [made] = invite(world, invited)
    if ended == "revoked":
        world.say(cmd.RevokeInvitation(**world.head(DAN), invitation=invited.id, reason="not for Jane"))
    else:
        answer(world, invited)
        statement = world.state.sign_offs["jane"].statement
        envelope = invited.signed(world.clock(), "withdraw", withdraws=statement)
        head = world.head(invited.reviewing)
        world.say(cmd.WithdrawInvited(**head, step="demo", invitation=invited.id, envelope=envelope))
    intruder.forge(made.model_copy(update=intruder.head(made.by)))
    answer(world, invited)  # the service was taken in
    refused(world, intruder, f"the invitation was {ended}")


def test_invitation_revoked_after_the_approval(world: World, intruder: Intruder) -> None:
    invited = invitation(world)
    invite(world, invited)
    answer(world, invited)
    world.say(cmd.RevokeInvitation(**world.head(DAN), invitation=invited.id, reason="it was not Jane"))
    refused(world, intruder, "jane's is revoked")


def test_invitation_used_after_its_end(world: World, intruder: Intruder) -> None:
    invited = invitation(world)
    invite(world, invited)
    world.clock.now += 8 * DAY
    with pytest.raises(Conflict, match="expired at"):
        answer(world, invited)
    forged_answer(world, intruder, invited)
    refused(world, intruder, "the invitation had expired")


def test_sign_off_on_an_invitation_backdated_to_before_its_end(world: World, intruder: Intruder) -> None:
    invited = invitation(world)
    invite(world, invited)
    early = world.clock()
    world.clock.now += 8 * DAY
    made = intruder.signed_off("jane", "demo", "reviewer", invited.signed(early))
    given = {"invitation": invited.id, "acceptance": invited.acceptance(early), "at": early}
    intruder.forge(made.model_copy(update=given))
    intruder.forge(intruder.entry("demo"))
    intruder.gets_nothing("demo", "custody first saw the sign-off of jane after their invitation had expired")


def without_an_acceptance(world: World, invited: Invited) -> dict[str, Any]:
    return {"acceptance": None}


def accepted_with_another_key(world: World, invited: Invited) -> dict[str, Any]:
    return {"acceptance": invited.acceptance(world.clock(), key=MALLORY)}


def accepted_for_the_inviters_key(world: World, invited: Invited) -> dict[str, Any]:
    invited.own = KEYS["dan"]
    at = world.clock()
    return {"acceptance": invited.acceptance(at), "envelope": invited.signed(at)}


def accepted_for_an_approvers_key(world: World, invited: Invited) -> dict[str, Any]:
    invited.own = KEYS["sam"]
    at = world.clock()
    return {"acceptance": invited.acceptance(at), "envelope": invited.signed(at)}


def accepted_for_the_one_time_key(world: World, invited: Invited) -> dict[str, Any]:
    invited.own = invited.one_time
    at = world.clock()
    return {"acceptance": invited.acceptance(at), "envelope": invited.signed(at)}


def signed_with_another_key(world: World, invited: Invited) -> dict[str, Any]:
    return {"envelope": invited.signed(world.clock(), key=invited.one_time)}


def signed_as_a_rejection(world: World, invited: Invited) -> dict[str, Any]:
    return {"envelope": invited.signed(world.clock(), "reject")}


def signed_on_another_invitation(world: World, invited: Invited) -> dict[str, Any]:
    other = invitation(world, own=invited.own)
    return {"envelope": other.signed(world.clock())}


def accepted_another_invitation(world: World, invited: Invited) -> dict[str, Any]:
    other = invitation(world, own=invited.own, one_time=invited.one_time)
    return {"acceptance": other.acceptance(world.clock())}


def signed_under_another_name(world: World, invited: Invited) -> dict[str, Any]:
    return {"by": "joe"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (without_an_acceptance, "envelope"),
        (accepted_with_another_key, "signed by none of the keys"),
        (accepted_for_the_inviters_key, "is the key of dan"),
        (accepted_for_an_approvers_key, "is the key of sam"),
        (accepted_for_the_one_time_key, "is the one-time key itself"),
        (signed_with_another_key, "signed by none of the keys"),
        (signed_as_a_rejection, "decision is 'reject', not 'approve'"),
        (signed_on_another_invitation, "invitation is"),
        (accepted_another_invitation, "invitation is"),
        (signed_under_another_name, "it is not the invited reviewer's"),
    ],
)
def test_sign_off_on_an_invitation_forged(
    world: World, intruder: Intruder, change: Callable[[World, Invited], dict[str, Any]], why: str
) -> None:
    invited = invitation(world)
    invite(world, invited)
    forged_answer(world, intruder, invited, **change(world, invited))
    refused(world, intruder, why)


def test_invited_sign_off_after_the_evidence_changed(world: World, intruder: Intruder) -> None:
    invited = invitation(world)
    invite(world, invited)
    document = {"kind": "model_card", "digest": digest("another card"), "title": "Card", "step": "demo"}
    world.say(cmd.SubmitEvidence.model_validate({**world.head(PIPELINE), **document}))
    with pytest.raises(GateChanged):
        answer(world, invited)
    forged_answer(world, intruder, invited)
    intruder.forge(intruder.entry("demo"))
    reasons = intruder.gets_nothing("demo", "1 more sign-off as reviewer")
    assert any("is for what stood at the gate before" in reason.message for reason in reasons)


def test_inviter_counts_once_however_many_reviewers_they_make_up(engine: Engine, tmp_path: Path) -> None:
    signed = [
        {"role": "standin"},
        {"role": "reviewer", "external": True, "invited_by": "standin", "count": 1},
    ]
    plan = inviting_plan().model_dump(mode="json")
    plan["people"]["dora"] = {**plan["people"]["dan"], "name": "Dora", "keys": [MALLORY.public.text()]}
    demo = next(step for step in plan["steps"] if step["name"] == "demo")
    demo["gate"]["sign_offs"] = signed
    world = World(engine, tmp_path, plan=Plan.model_validate(plan))
    world.to("inside")
    world.prepare("demo")
    invited = invitation(world)
    invite(world, invited)
    with pytest.raises(Conflict, match="cannot be invited") as second:
        invite(world, invitation(world, reviewer="joe"))
    assert "one person invites one reviewer" in second.value.reasons[0].message
    answer(world, invited)
    with pytest.raises(Conflict, match="dan counts at this gate already, through the sign-off of jane"):
        world.sign("dan", "demo", "standin")
    with pytest.MonkeyPatch.context() as patch:
        intruder = Intruder(world, patch)
        intruder.forge(
            intruder.signed_off(
                "dan", "demo", "standin", world.statement("dan", world.subject("demo"), "standin")
            )
        )
        intruder.forge(intruder.entry("demo"))
        intruder.gets_nothing("demo", "dan's is counted already")
    world.close()


# --- what the rules refuse at once -------------------------------------------------------------------------------------


def test_an_invitation_is_refused_with_every_reason(world: World) -> None:
    for inviter in ("mia", "lea"):
        with pytest.raises(NotPermitted):
            invite(world, invitation(world, inviter))
    with pytest.raises(NotPermitted, match="counts only signed"):
        invite(world, invitation(world), envelope=None)
    with pytest.raises(GateChanged):
        invite(world, invitation(world), subject=digest("another"))
    wrong = invitation(world, reviewer="rex", one_time=KEYS["sam"], lasts=40 * DAY)
    with pytest.raises(Conflict) as error:
        invite(world, wrong)
    assert {reason.code for reason in error.value.reasons} == {"known-person", "key", "expires_at"}


def test_only_the_invited_reviewer_uses_an_invitation(world: World) -> None:
    invited = invitation(world)
    invite(world, invited)
    for who in (DAN, cmd.Actor(id="joe", kind="invited"), actor("jane", Role.APPROVER)):
        with pytest.raises(NotFound):
            world.say(cmd.SignInvited(**world.head(who), **invited.answer(world.clock())))
