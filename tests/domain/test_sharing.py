"""Key shares in the pure domain: plans in which they lock something, artifacts that fit, shares that count."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.domain import commands as cmd
from orchestrator.domain.commands import KeyShares
from orchestrator.domain.decide import apply, decide, decide_create
from orchestrator.domain.errors import Conflict, Malformed, PlanRefused, SluiceError
from orchestrator.domain.evolve import begin
from orchestrator.domain.gate import verdict
from orchestrator.domain.plan import Plan
from orchestrator.domain.plan_rules import all_faults, broken_rules
from orchestrator.domain.preview import preview
from orchestrator.domain.state import ReleaseState, gate_subject
from orchestrator.domain.values import digest
from orchestrator.domain.waits import waits
from tests.support.plans import MANAGER, PIPELINE, T0, TWO, actor, five_stages

KEY = "ssh-ed25519 " + "A" * 67
DEALT = KeyShares(threshold=2, holders=["lea", "sam", "sue"])
ENVELOPES = ['{"payload": "e30="}', '{"payload": "W10="}']


def shared(**changes: Any) -> dict[str, Any]:
    """Inside and hosted; two shares at the gate, everybody with a key."""
    raw = five_stages(**changes)
    for number, person in enumerate(raw["people"].values()):
        person["keys"] = [KEY + str(number)]
    raw["steps"] = raw["steps"][:2]
    raw["steps"][1]["gate"].update(sign_offs=TWO, shares=2)
    return raw


def faults(raw: dict[str, Any]) -> list[tuple[str, str]]:
    return [(reason.code, reason.path or "") for reason in all_faults(Plan.model_validate(raw))]


def test_a_plan_whose_shares_lock_something_is_sound_and_without_shares_nothing_is_asked() -> None:
    assert faults(shared()) == []
    assert faults(five_stages()) == []


def test_every_step_that_hands_a_key_out_asks_for_as_many_shares() -> None:
    raw = shared()
    more = five_stages()["steps"][2]
    raw["steps"].append(more)
    assert faults(raw) == [("rule-9", "steps[2].gate.shares")] * 2, "weights and tokenizer"
    more["gate"]["shares"] = 2
    assert faults(raw) == []
    raw["steps"][1]["gate"]["sign_offs"] = [{"role": "safety", "count": 2}, {"role": "legal"}]
    raw["steps"][1]["gate"]["shares"] = 3
    assert ("rule-9", "steps[2].gate.shares") in faults(raw)


def test_shares_without_a_key_to_lock_without_pinned_keys_or_with_marked_copies_are_refused() -> None:
    raw = shared()
    raw["steps"][0]["gate"] = {"sign_offs": TWO, "shares": 2}
    assert faults(raw) == [("rule-9", "steps[0].gate.shares")]
    raw = shared()
    for name in ("lea", "sue"):
        raw["people"][name]["keys"] = []
    assert faults(raw) == [("rule-9", "steps[1].gate.shares")]
    raw = shared()
    for name in ("lea", "sue"):
        raw["people"][name]["keys"] = [
            "sk-" + raw["people"][name]["keys"][0].replace(" ", "@openssh.com ", 1)
        ]
    (fault,) = all_faults(Plan.model_validate(raw))
    assert fault.code == "rule-9"
    assert "a passkey releases no share" in fault.message
    raw = shared()
    raw["components"]["weights"]["mark"] = {"strength": 0.003}
    raw["steps"].append({**five_stages()["steps"][3]})
    raw["steps"][2]["gate"]["shares"] = 2
    assert faults(raw) == [("rule-9", "steps[2].gate.shares")]


def test_the_rule_is_asked_of_new_plans_and_of_amendments_not_of_plans_that_hold() -> None:
    raw = shared()
    raw["steps"].append(five_stages()["steps"][2])
    plan = Plan.model_validate(raw)
    assert broken_rules(plan) == [], "custody and artifacts of an older release do not stumble over it"
    with pytest.raises(PlanRefused):
        created(plan)
    state = created(Plan.model_validate(shared()))
    amend = cmd.AmendPlan(**head(actor("sam")), plan=plan, reason="more", envelope=ENVELOPES[0])
    with pytest.raises(PlanRefused):
        decide(state, amend, T0)


# --- a release -------------------------------------------------------------------------------------------------------


def head(who: cmd.Actor, number: int = 1) -> dict[str, Any]:
    return {"command_id": f"c-{number}", "actor": who}


def created(plan: Plan) -> ReleaseState:
    command = cmd.CreateRelease(**head(MANAGER), release="alpha", name="A", version="1", plan=plan)
    [first] = decide_create(command, T0)
    assert first.type == "release_created"
    return begin(first)


def register(state: ReleaseState, shares: KeyShares | None) -> ReleaseState:
    command = cmd.RegisterArtifact(
        **head(PIPELINE),
        artifact="art-1",
        manifest_digest="sha256:" + "1" * 64,
        components=["weights", "tokenizer"],
        location="dir:/x",
        shares=shares,
    )
    return apply(state, decide(state, command, T0))


def at_demo(shares: KeyShares = DEALT) -> ReleaseState:
    state = register(created(Plan.model_validate(shared())), shares)
    state = apply(state, decide(state, cmd.BeginEntry(**head(cmd.SERVICE), step="inside"), T0))
    return apply(state, decide(state, cmd.CompleteEntry(**head(cmd.SERVICE), step="inside"), T0))


def signing(state: ReleaseState, who: str, role: str, **more: Any) -> cmd.SignOff:
    step = state.plan.steps[1]
    given: dict[str, Any] = {
        "decision": "approve",
        "subject": gate_subject(state, step).digest,
        "envelope": ENVELOPES[0],
        "shares": {"art-1": "c2hhcmU="},
    }
    return cmd.SignOff(**head(actor(who)), step="demo", role=role, **{**given, **more})


def sign(state: ReleaseState, who: str, role: str, **more: Any) -> ReleaseState:
    return apply(state, decide(state, signing(state, who, role, **more), T0))


def missing(state: ReleaseState) -> tuple[str, list[str]] | None:
    found = [c for c in verdict(state, state.plan.steps[1], T0).unmet if c.code == "shares"]
    return (found[0].message, found[0].who) if found else None


@pytest.mark.parametrize(
    ("dealt", "told"),
    [
        (None, "asks for 2 key shares"),
        (KeyShares(threshold=3, holders=["lea", "sam", "sue"]), "was sealed for 3"),
        (KeyShares(threshold=2, holders=["lea", "mia", "stranger"]), "1 of 2 shares could ever come"),
    ],
)
def test_an_artifact_whose_shares_do_not_fit_is_refused_with_the_step(
    dealt: KeyShares | None, told: str
) -> None:
    with pytest.raises(Conflict) as refused:
        register(created(Plan.model_validate(shared())), dealt)
    assert told in refused.value.reasons[0].message


def test_shares_count_with_the_sign_offs_that_count_and_the_gate_says_who_can_give_more() -> None:
    state = at_demo()
    told, who = missing(state) or ("", [])
    assert who == ["lea", "sam", "sue"]
    assert told == (
        "2 more key shares of art-1: a holder signs with the command line, "
        "`sluice sign alpha demo --approve --share-key FILE`; "
        "a sign-off in the console or with a passkey releases none"
    )
    assert "shares" in {wait.what for wait in waits(state, T0)}
    state = sign(state, "sam", "safety")
    etag = verdict(state, state.plan.steps[1], T0).etag
    told, who = missing(state) or ("", [])
    assert (told.partition(":")[0], who) == ("1 more key share of art-1", ["lea", "sue"])
    state = sign(state, "lea", "legal", shares={})
    assert missing(state) is not None, "a sign-off without a share"
    state = sign(state, "lea", "legal")
    assert missing(state) is None
    assert verdict(state, state.plan.steps[1], T0).etag != etag
    withdraw = cmd.WithdrawSignOff(**head(actor("sam")), step="demo", envelope=ENVELOPES[0])
    state = apply(state, decide(state, withdraw, T0))
    assert missing(state) is not None


def test_a_sign_off_that_leaves_a_share_behind_says_so_before_anybody_confirms_and_how_to_release_it() -> (
    None
):
    """As the console sends it: no share comes along, for shares lie on their holders' machines."""
    state = at_demo()
    step = state.plan.steps[1]
    approve = cmd.SignOff(
        **head(actor("sam")),
        step="demo",
        role="safety",
        decision="approve",
        subject=gate_subject(state, step).digest,
    )
    said = preview(state, approve, T0).consequences
    assert any("art-1 that sam holds is NOT released" in line and "--share-key" in line for line in said), (
        said
    )
    assert any("passkey releases none" in line for line in said), "the gate still waits for it"
    with_share = approve.model_copy(update={"shares": {"art-1": "c2hhcmU="}})
    assert not any("NOT released" in line for line in preview(state, with_share, T0).consequences)


def test_a_share_that_is_released_again_is_another_event_and_the_same_request_is_none() -> None:
    state = sign(at_demo(), "sam", "safety")
    assert decide(state, signing(state, "sam", "safety"), T0) == []
    assert len(decide(state, signing(state, "sam", "safety", envelope=ENVELOPES[1]), T0)) == 1


@pytest.mark.parametrize(
    ("who", "role", "more", "refusal"),
    [
        ("sam", "safety", {"decision": "reject"}, Malformed),
        ("sam", "safety", {"shares": {"art-2": "c2hhcmU="}}, Conflict),
        ("sue", "safety", {}, Conflict),
    ],
)
def test_shares_that_cannot_count_are_refused(
    who: str, role: str, more: dict[str, Any], refusal: type[SluiceError]
) -> None:
    state = at_demo(KeyShares(threshold=2, holders=["lea", "sam"]))
    with pytest.raises(refusal):
        decide(state, signing(state, who, role, **more), T0)


def test_commands_events_and_states_without_shares_read_as_before() -> None:
    plain = cmd.SignOff(
        **head(actor("sam")), step="demo", role="safety", decision="approve", subject="sha256:" + "0" * 64
    )
    assert "shares" not in plain.model_dump(mode="json")
    state = created(Plan.model_validate(five_stages()))
    command = cmd.RegisterArtifact(
        **head(PIPELINE),
        artifact="art-1",
        manifest_digest="sha256:" + "1" * 64,
        components=["weights"],
        location="dir:/x",
    )
    [event] = decide(state, command, T0)
    assert "shares" not in event.model_dump(mode="json")
    assert "shares" not in apply(state, [event]).artifacts["art-1"].model_dump(mode="json")
    assert digest(command) != digest(command.model_copy(update={"shares": DEALT}))
