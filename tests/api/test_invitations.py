"""Outside reviewers without an account over the API: the one way in that asks for no account, and what it gives away."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.domain.plan import Plan
from orchestrator.domain.state import GateSubject
from orchestrator.trust.invitations import holding_statement
from orchestrator.trust.keys import PrivateKey
from orchestrator.trust.signing import sign
from tests.api.conftest import RELEASE, Api, Sealed
from tests.support.inviting import Invited
from tests.support.plans import five_stages

DAN = PrivateKey.generate()


def inviting() -> dict[str, Any]:
    """Of a plan: the gate of `demo` asks for safety and for a reviewer, whom dan may invite."""
    raw = five_stages()
    raw["people"]["dan"]["keys"] = [DAN.public.text()]
    demo = next(step for step in raw["steps"] if step["name"] == "demo")
    outside = {"role": "reviewer", "external": True, "invited_by": "standin"}
    demo["gate"]["sign_offs"] = [{"role": "safety"}, outside]
    return {"people": raw["people"], "steps": raw["steps"]}


@pytest.fixture
def at_gate(api: Api, sealed: Sealed) -> Api:
    api.ok(api.create(**inviting()))
    api.bind(sealed)
    api.evidence("demo")
    api.controls("demo", "rate_limit", "user_accounts", "input_monitoring")
    return api


def subject(api: Api) -> GateSubject:
    gate = api.ok(api.get("mia", api.path("/steps/demo/gate")))
    return GateSubject.model_validate(gate["verdict"]["subject"])


def invited(api: Api, **more: Any) -> Invited:
    made = Invited(subject(api), api.clock(), "dan", DAN, **more)
    fields = {**made.fields(), "expires_at": made.fields()["expires_at"].isoformat()}
    del fields["step"]
    api.ok(api.post("dan", api.path("/steps/demo/invitations"), fields))
    return made


def place(made: Invited, rest: str = "") -> str:
    return f"/v1/invitations/{made.id.removeprefix('sha256:')}{rest}"


def holding(api: Api, made: Invited, key: PrivateKey | None = None) -> dict[str, str]:
    statement = holding_statement(made.id, key=PrivateKey.generate().public, issued_at=api.clock())
    return {"acceptance": sign(statement.to_bytes(), key or made.one_time).decode()}


def answered(api: Api, made: Invited, decision: str = "approve") -> dict[str, Any]:
    fields = made.answer(api.clock(), decision)
    wanted = ("decision", "acceptance", "envelope")
    return {name: fields[name] for name in wanted} | {"expires_at": fields["expires_at"].isoformat()}


def test_an_invited_reviewer_reads_signs_and_withdraws_without_an_account(at_gate: Api) -> None:
    api, made = at_gate, invited(at_gate)
    shown = api.ok(api.post(None, place(made), holding(api, made)))
    assert GateSubject.model_validate(shown["subject"]) == made.subject
    assert (shown["invitation"]["standing"], shown["invitation"]["invited_by"]) == ("open", "dan")
    assert {document["kind"] for document in shown["documents"]} == {"model_card", "risk_assessment"}
    assert any("`demo` is entered" in words for words in shown["means"])
    body = answered(api, made)
    assert api.ok(api.post(None, place(made, "/sign-off"), body))["events"] == ["signed_off"]
    again = api.ok(api.post(None, place(made, "/sign-off"), body))
    assert again["repeated"] is True, "the same statement is one command"
    standing = api.ok(api.post(None, place(made), holding(api, made)))
    assert standing["invitation"]["standing"] == "used"
    gate = api.ok(api.get("sam", api.path("/steps/demo/gate")))["verdict"]
    (view,) = gate["sign_offs"]
    assert (view["person"], view["invited_by"], view["organisation"], view["standing"]) == (
        "jane",
        "dan",
        "A University",
        "counts",
    )
    withdrawal = made.signed(api.clock(), "withdraw", withdraws=standing["sign_off"]["statement"])
    taken = {"acceptance": made.acceptance(api.clock()), "envelope": withdrawal}
    assert api.ok(api.post(None, place(made, "/withdraw"), taken))["events"] == ["sign_off_withdrawn"]
    third = api.post(None, place(made, "/sign-off"), answered(api, made))
    assert (third.status_code, third.json()["reasons"][0]["code"]) == (409, "used")
    entries = api.ok(api.get("ann", "/v1/audit/entries", params={"kind": "event", "limit": 200}))["items"]
    leaves = [json.loads(entry["leaf"]) for entry in entries]
    own = [leaf["command"] for leaf in leaves if leaf["event"]["by"] == "jane"]
    assert [command["address"] for command in own] == ["testclient"] * 2, (
        "from where, also without an account"
    )


def test_an_invitation_to_a_gate_that_is_over_is_refused_and_logged(at_gate: Api) -> None:
    api, made = at_gate, invited(at_gate)
    api.ok(api.post("mia", api.path("/abort"), {"reason": "over"}))
    refused = api.post(None, place(made, "/sign-off"), answered(api, made))
    assert (refused.status_code, refused.json()["reasons"][0]["code"]) == (409, "over")
    entries = api.ok(api.get("ann", "/v1/audit/entries", params={"kind": "refusal"}))["items"]
    leaf = json.loads(entries[-1]["leaf"])
    assert (leaf["release"], leaf["action"], leaf["code"]) == (RELEASE, "sign_invited", "conflict")
    assert (leaf["actor"], leaf["address"]) == ("invited:" + made.id[7:23], "testclient")


def test_an_outsider_learns_nothing_from_the_endpoint(at_gate: Api) -> None:
    """An unknown invitation and a known one without its key are one answer, byte for byte, on every route."""
    api, made = at_gate, invited(at_gate)
    unknown = "/v1/invitations/" + "0" * 64
    wrong = PrivateKey.generate()
    for rest, more in (
        ("", {}),
        ("/sign-off", {"decision": "approve", "envelope": "{}"}),
        ("/withdraw", {"envelope": "{}"}),
    ):
        for acceptance in (
            holding(api, made, wrong)["acceptance"],
            made.acceptance(api.clock(), wrong),
            "{}",
        ):
            answers = [
                api.post(None, where + rest, {"acceptance": acceptance, **more})
                for where in (place(made), unknown)
            ]
            assert [answer.status_code for answer in answers] == [404, 404]
            assert answers[0].content == answers[1].content
            assert RELEASE not in answers[0].text


def test_the_endpoint_is_limited_by_address(at_gate: Api) -> None:
    unknown = "/v1/invitations/" + "0" * 64
    codes = [at_gate.post(None, unknown, {"acceptance": "{}"}).status_code for _ in range(61)]
    assert codes[-1] == 429
    assert set(codes[:50]) == {404}


def test_what_does_not_hold_is_refused_in_words_and_logged(at_gate: Api) -> None:
    api, made = at_gate, invited(at_gate)
    thief = PrivateKey.generate()
    body = {**answered(api, made), "envelope": made.signed(api.clock(), key=thief)}
    refused = api.post(None, place(made, "/sign-off"), body)
    assert refused.status_code == 403
    assert "signed by none of the keys" in refused.json()["detail"]
    body = {**answered(api, made), "acceptance": made.acceptance(api.clock(), own=DAN)}
    assert "is the key of dan" in api.post(None, place(made, "/sign-off"), body).json()["detail"]
    api.clock.advance(days=8)
    late = api.post(None, place(made, "/sign-off"), answered(api, made))
    assert (late.status_code, late.json()["reasons"][0]["code"]) == (409, "expired")
    entries = api.ok(api.get("ann", "/v1/audit/entries?limit=200"))["items"]
    leaves = [json.loads(entry["leaf"]) for entry in entries]
    mine = [leaf for leaf in leaves if leaf.get("actor") == "jane"]
    assert [leaf["code"] for leaf in mine] == ["not-permitted", "not-permitted", "conflict"]
    assert {leaf["action"] for leaf in mine} == {"sign_invited"}


def test_an_invitation_is_stale_when_the_gate_changes_and_can_be_revoked(at_gate: Api) -> None:
    api, made = at_gate, invited(at_gate)
    card = {"kind": "model_card", "digest": "sha256:" + "ef" * 32, "title": "Another", "step": "demo"}
    api.ok(api.post("ci", api.path("/evidence"), card))
    assert api.ok(api.post(None, place(made), holding(api, made)))["invitation"]["standing"] == "stale"
    stale = api.post(None, place(made, "/sign-off"), answered(api, made))
    assert stale.status_code == 412
    fresh = invited(api)
    path = api.path(f"/invitations/{fresh.id.removeprefix('sha256:')}/revoke")
    assert api.ok(api.post("sam", path, {"reason": "astray"}))["events"] == ["invitation_revoked"]
    listed = api.ok(api.get("mia", api.path("/invitations")))["items"]
    assert [one["standing"] for one in listed] == ["stale", "revoked"]
    gone = api.post(None, place(fresh, "/sign-off"), answered(api, fresh))
    assert (gone.status_code, gone.json()["reasons"][0]["code"]) == (409, "revoked")


def test_nobody_with_an_account_is_invited_and_nothing_unsigned_counts(at_gate: Api) -> None:
    api = at_gate
    made = Invited(subject(api), api.clock(), "dan", DAN, reviewer="ann")
    fields = {**made.fields(), "expires_at": (api.clock() + timedelta(days=7)).isoformat()}
    del fields["step"]
    taken = api.post("dan", api.path("/steps/demo/invitations"), fields)
    assert (taken.status_code, taken.json()["reasons"][0]["code"]) == (409, "known-person")
    forged = Invited(subject(api), api.clock(), "dan", PrivateKey.generate())
    fields = {**fields, "reviewer": "jane", "envelope": forged.envelope, "key": forged.one_time.public.text()}
    assert api.post("dan", api.path("/steps/demo/invitations"), fields).status_code == 403
    del fields["envelope"]
    unsigned = api.post("dan", api.path("/steps/demo/invitations"), fields)
    assert unsigned.json()["reasons"][0]["code"] == "unsigned"


def test_a_plan_that_opens_to_reviewers_keeps_rules_and_one_that_does_not_its_digest() -> None:
    raw = five_stages()
    assert "invited_by" not in str(Plan.model_validate(raw).model_dump(mode="json"))
