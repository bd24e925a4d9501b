"""Where the plan pins keys, only that person's signature on exactly this passes the API."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from orchestrator.domain.state import GateSubject
from orchestrator.domain.values import digest
from orchestrator.trust.decisions import endorsement_statement, sign_off_statement
from orchestrator.trust.keys import PrivateKey
from orchestrator.trust.signing import sign
from tests.api.conftest import RELEASE, Api, Sealed
from tests.support.plans import five_stages

SAM, LEA = PrivateKey.from_seed(bytes(32)), PrivateKey.from_seed(bytes(range(32)))


@pytest.fixture
def pinned(api: Api, sealed: Sealed) -> Api:
    people = five_stages()["people"]
    people["sam"]["keys"] = [SAM.public.text()]
    people["lea"]["keys"] = [LEA.public.text()]
    api.ok(api.create(people=people))
    api.bind(sealed)
    api.evidence("demo")
    return api


def statement(api: Api, **changes: Any) -> bytes:
    subject = GateSubject.model_validate(api.gate("demo").json()["verdict"]["subject"])
    fields = {"person": "sam", "role": "safety", "decision": "approve", **changes}
    made = sign_off_statement(subject, issued_at=api.clock(), validity=timedelta(days=30), **fields)
    return made.to_bytes()


def signed_off(api: Api, envelope: bytes | None) -> Any:
    gate = api.gate("demo")
    body = {"role": "safety", "decision": "approve", "subject": gate.json()["verdict"]["subject_digest"]}
    if envelope is not None:
        body["envelope"] = envelope.decode()
    headers = {"If-Match": gate.headers["ETag"]}
    return api.post("sam", api.path("/steps/demo/sign-offs"), body, headers=headers)


def test_a_signed_sign_off_counts(pinned: Api) -> None:
    assert signed_off(pinned, sign(statement(pinned), SAM)).status_code == 200
    views = pinned.gate("demo").json()["verdict"]["sign_offs"]
    assert [view["standing"] for view in views] == ["counts"]


def test_an_unsigned_sign_off_is_refused(pinned: Api) -> None:
    refused = signed_off(pinned, None)
    assert (refused.status_code, refused.json()["reasons"][0]["code"]) == (403, "unsigned")


@pytest.mark.parametrize(
    "change",
    [{"person": "lea"}, {"role": "legal"}, {"decision": "reject"}],
    ids=["for somebody else", "in another role", "another decision"],
)
def test_a_signature_on_something_else_is_refused(pinned: Api, change: dict[str, Any]) -> None:
    refused = signed_off(pinned, sign(statement(pinned, **change), SAM))
    assert (refused.status_code, refused.json()["reasons"][0]["code"]) == (403, "signature")


def test_a_signature_by_another_persons_key_is_refused(pinned: Api) -> None:
    assert signed_off(pinned, sign(statement(pinned), LEA)).json()["reasons"][0]["code"] == "signature"


def test_a_signature_on_the_gate_before_its_evidence_changed_is_refused(pinned: Api) -> None:
    old = sign(statement(pinned), SAM)
    card = {"kind": "model_card", "digest": "sha256:" + "ef" * 32, "title": "Another card", "step": "demo"}
    pinned.ok(pinned.post("ci", pinned.path("/evidence"), card))
    assert signed_off(pinned, old).json()["reasons"][0]["code"] == "signature"


@pytest.mark.parametrize("envelope", [b"", b"{}", b"not json", b'{"payload": "", "signatures": []}'])
def test_an_envelope_that_is_none_is_refused(pinned: Api, envelope: bytes) -> None:
    assert signed_off(pinned, envelope).status_code == 403


def test_a_quorum_is_made_of_signatures(pinned: Api) -> None:
    pinned.ok(pinned.post("mia", pinned.path("/hold"), {"reason": "look"}))
    hold = pinned.ok(pinned.get("ann", pinned.path("")))["holds"][0]["id"]
    plan = pinned.ok(pinned.get("ann", pinned.path("/plan")))["digest"]

    def resumed(who: str, key: PrivateKey, role: str) -> Any:
        made = endorsement_statement(
            release=RELEASE,
            action="resume",
            payload_digest=digest({"holds": [hold]}),
            plan_digest=plan,
            person=who,
            role=role,
            issued_at=pinned.clock(),
        )
        return pinned.post(who, pinned.path("/resume"), {"envelope": sign(made.to_bytes(), key).decode()})

    assert resumed("sam", LEA, "safety").json()["reasons"][0]["code"] == "signature"
    assert pinned.ok(resumed("sam", SAM, "safety"))["events"] == ["proposed"]
    assert "holds_lifted" in pinned.ok(resumed("lea", LEA, "legal"))["events"]
