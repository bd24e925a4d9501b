"""What a refused request gets, and what stays of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from fastapi import APIRouter
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from orchestrator.api import create_app
from orchestrator.domain.errors import Unavailable
from orchestrator.records import database
from tests.api.conftest import RELEASE, Api, Sealed
from tests.support.plans import five_stages


def refusals(api: Api) -> list[dict[str, Any]]:
    entries = api.ok(api.get("ann", "/v1/audit/entries", params={"kind": "refusal"}))["items"]
    return [json.loads(entry["leaf"]) for entry in entries]


def test_a_decision_without_the_gates_etag_is_refused(api: Api) -> None:
    api.create()
    subject = api.gate("demo").json()["verdict"]["subject_digest"]
    body = {"role": "safety", "decision": "approve", "subject": subject}
    refused = api.post("sam", api.path("/steps/demo/sign-offs"), body)
    assert (refused.status_code, refused.json()["code"]) == (428, "precondition-required")


def test_a_decision_on_a_gate_that_has_changed_since_is_refused(api: Api) -> None:
    api.create()
    seen = api.gate("demo")
    api.post("sam", api.path("/hold"), {"reason": "look"})
    body = {"role": "safety", "decision": "approve", "subject": seen.json()["verdict"]["subject_digest"]}
    headers = {"If-Match": seen.headers["ETag"]}
    refused = api.post("sam", api.path("/steps/demo/sign-offs"), body, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (412, "gate-changed")


@pytest.mark.parametrize(
    ("header", "status"), [("*", 412), ('W/"abc"', 412), ("abc", 422), ('"abc" x', 422), ('"old"', 412)]
)
def test_an_etag_that_is_none_of_the_gates_is_refused(api: Api, header: str, status: int) -> None:
    api.create()
    refused = api.sign("sam", "demo", "safety", headers={"If-Match": header})
    assert refused.status_code == status


def test_of_several_etags_the_one_that_stands_counts(api: Api) -> None:
    api.create()
    etag = api.gate("demo").headers["ETag"]
    assert api.sign("sam", "demo", "safety", headers={"If-Match": f'"old", {etag}'}).status_code == 200


def test_a_repeated_decision_gets_the_first_answer_though_the_gate_has_changed_by_it(api: Api) -> None:
    api.create()
    seen = api.gate("demo")
    body = {"role": "safety", "decision": "approve", "subject": seen.json()["verdict"]["subject_digest"]}
    headers = {"If-Match": seen.headers["ETag"]}
    path = api.path("/steps/demo/sign-offs")
    first = api.ok(api.post("sam", path, body, key="k", headers=headers))
    second = api.ok(api.post("sam", path, body, key="k", headers=headers))
    assert (first["seq"], first["events"]) == (second["seq"], second["events"])
    assert (first["repeated"], second["repeated"]) == (False, True)


def test_a_key_that_comes_back_with_another_decision_is_refused(api: Api) -> None:
    api.create()
    api.ok(api.sign("sam", "demo", "safety", key="k"))
    again = api.sign("sam", "demo", "safety", decision="reject", key="k")
    assert (again.status_code, again.json()["code"]) == (409, "idempotency-key-reused")


def test_a_repeated_command_is_answered_after_the_release_has_ended(api: Api) -> None:
    api.create()
    first = api.ok(api.post("mia", api.path("/abort"), {"reason": "given up"}, key="end"))
    second = api.ok(api.post("mia", api.path("/abort"), {"reason": "given up"}, key="end"))
    assert (second["seq"], second["repeated"]) == (first["seq"], True)


def test_keys_of_two_callers_never_meet(api: Api) -> None:
    api.create()
    assert api.post("sam", api.path("/hold"), {"reason": "one"}, key="k").status_code == 200
    assert api.post("lea", api.path("/hold"), {"reason": "two"}, key="k").status_code == 200
    assert len(api.ok(api.get("ann", api.path("")))["holds"]) == 2


@pytest.mark.parametrize("key", ["a b", "é", "x" * 65, "entered/1", ""])
def test_a_malformed_key_is_refused(api: Api, key: str) -> None:
    api.create()
    headers = {"Idempotency-Key": key.encode()}
    refused = api.post("sam", api.path("/hold"), {"reason": "x"}, headers=headers)
    assert refused.status_code == 422


def test_a_made_up_key_comes_back_in_the_header(api: Api) -> None:
    api.create()
    done = api.post("sam", api.path("/hold"), {"reason": "look"})
    again = api.post("sam", api.path("/hold"), {"reason": "look"}, key=done.headers["Idempotency-Key"])
    assert again.json()["repeated"] is True


def test_every_reason_of_a_refusal_is_listed(api: Api) -> None:
    api.create()
    body = {"to": "sue", "role": "legal", "until": "2020-01-01T00:00:00Z"}
    refused = api.post("sam", api.path("/delegations"), body)
    assert refused.status_code == 409
    assert {reason["code"] for reason in refused.json()["reasons"]} == {"role", "counts-already", "until"}


def test_a_refusal_is_in_the_audit_log_with_who_what_when_and_from_where(api: Api) -> None:
    api.create()
    api.post("mia", api.path("/steps/query/window/extend"), {"by": "3d", "reason": "early"}, key="k7")
    api.post("ann", api.path("/hold"), {"reason": "an auditor cannot"})
    first, second = refusals(api)
    assert (first["actor"], first["action"], first["code"]) == ("mia", "extend_window", "conflict")
    assert (first["release"], first["command_id"], first["address"]) == (RELEASE, "k7", "testclient")
    assert first["at"].startswith("2026-01-05T09:00:00")
    assert (second["actor"], second["code"]) == ("ann", "not-permitted")
    assert second["action"] == "POST /v1/releases/{release}/hold"


def test_reads_previews_and_unknown_callers_do_not_fill_the_audit_log(api: Api) -> None:
    api.create()
    api.get("mia", "/v1/principals")
    api.get("mia", "/v1/releases/none")
    api.post("mia", api.path("/steps/none/gate/preview"), {"command": {"type": "hold", "reason": "x"}})
    api.post(None, api.path("/hold"), {"reason": "x"})
    assert refusals(api) == []


def test_an_accepted_command_is_in_the_audit_log_with_who_what_when_from_where_and_what_it_changed(
    api: Api, sealed: Sealed
) -> None:
    api.to_demo(sealed)
    entries = api.ok(api.get("ann", "/v1/audit/entries", params={"kind": "event", "limit": 200}))["items"]
    leaves = [json.loads(entry["leaf"]) for entry in entries]
    asked = [leaf for leaf in leaves if leaf["event"]["by"] != "sluice"]
    assert {leaf["event"]["type"] for leaf in asked} >= {"release_created", "signed_off"}
    for leaf in asked:
        assert {"by", "at", "type"} <= set(leaf["event"])
        assert leaf["command"]["type"]
        assert leaf["command"]["address"], "from where"
    own = [leaf for leaf in leaves if leaf["event"]["type"] == "entry_began"]
    assert own
    assert all("address" not in leaf["command"] for leaf in own), "the service's own deeds come from nowhere"


def test_an_accepted_command_that_changes_nothing_is_in_the_audit_log_once(api: Api) -> None:
    api.create()
    api.ok(api.post("sam", api.path("/hold"), {"reason": "look"}))
    api.ok(api.post("sam", api.path("/resume"), {}, key="one"))
    seen = api.ok(api.get("ann", "/v1/audit/entries"))["size"]
    for _ in range(2):
        said_again = api.ok(api.post("sam", api.path("/resume"), {}, key="two"))
        assert said_again["events"] == [], "sam stands behind it already"
    entries = api.ok(api.get("ann", "/v1/audit/entries", params={"kind": "command"}))
    (leaf,) = [json.loads(entry["leaf"]) for entry in entries["items"]]
    assert entries["size"] == seen + 1
    assert (leaf["actor"], leaf["action"], leaf["changed"]) == ("sam", "resume", [])
    assert (leaf["release"], leaf["command_id"], leaf["address"]) == (RELEASE, "two", "testclient")
    assert leaf["at"].startswith("2026-01-05T09:00:00")


def test_a_refusal_keeps_no_text_of_what_was_sent(api: Api) -> None:
    api.create()
    canary = "canary-4711"
    api.post("ann", api.path("/hold"), {"reason": canary})
    api.post("mia", api.path("/incidents"), {"kind": "leak", "severity": "huge", "summary": canary})
    assert canary not in json.dumps(refusals(api))


def test_no_answer_echoes_the_refused_input(api: Api) -> None:
    refused = api.post("mia", "/v1/releases", {"name": "canary-4711\u0000", "plan": "canary-4711"}, key="k")
    assert refused.status_code == 422
    assert "canary-4711" not in refused.text


def test_a_release_service_that_is_away_is_said_and_nothing_is_recorded(api: Api) -> None:
    api.create()
    api.gateway.down = True
    refused = api.post("sam", api.path("/hold"), {"reason": "look"})
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert int(refused.headers["Retry-After"]) >= 1
    assert refusals(api) == []
    ready = api.get(None, "/readyz")
    assert (ready.status_code, ready.json()) == (503, {"ready": False, "records": True, "commands": False})
    assert api.get(None, "/healthz").status_code == 200
    assert api.get("sam", api.path("")).status_code == 200


def test_a_database_that_is_away_is_said(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(engine: object) -> object:
        raise Unavailable("the database does not answer: no route")

    monkeypatch.setattr(database, "reading", away)
    refused = api.get("sam", "/v1/releases")
    assert refused.status_code == 503
    assert api.get(None, "/readyz").json()["records"] is False


def test_an_error_that_nobody_foresaw_says_nothing_but_the_requests_id(api: Api) -> None:
    router = APIRouter()

    @router.get("/v1/broken")
    def broken() -> None:
        raise RuntimeError("canary-4711 /etc/secret")

    api.app.include_router(router)
    found = api.get("sam", "/v1/broken", headers={"X-Request-Id": "my-request-1"})
    assert found.status_code == 500
    assert found.headers["Content-Type"] == "application/problem+json"
    assert found.json()["request_id"] == "my-request-1"
    assert "canary" not in found.text
    assert "Traceback" not in found.text


def test_paths_and_methods_that_are_not_there_get_problems_too(api: Api) -> None:
    missing = api.get("sam", "/v1/nothing")
    assert (missing.status_code, missing.json()["code"]) == (404, "not-found")
    wrong = api.call("sam", "DELETE", "/v1/releases")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method-not-allowed")
    assert "GET" in wrong.headers["Allow"]


@pytest.mark.parametrize(
    "body", [b"{", b"\xff\xfe{}", b"[" * 100_000, b'{"reason": NaN}', b"null", b'{"reason": "\\ud800"}']
)
def test_bodies_that_are_no_json_of_ours_are_malformed(api: Api, body: bytes) -> None:
    api.create()
    headers = {"Content-Type": "application/json"}
    refused = api.call("sam", "POST", api.path("/hold"), content=body, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (422, "malformed")


def test_a_body_that_is_too_large_is_refused_with_and_without_a_declared_length(api: Api) -> None:
    api.create()
    large = b'{"reason": "' + b"x" * (2 * 1024 * 1024) + b'"}'
    headers = {"Content-Type": "application/json"}
    declared = api.call("sam", "POST", api.path("/hold"), content=large, headers=headers)
    pieces = (large[start : start + 65536] for start in range(0, len(large), 65536))
    streamed = api.call("sam", "POST", api.path("/hold"), content=pieces, headers=headers)
    assert (declared.status_code, streamed.status_code) == (413, 413)
    assert declared.json()["code"] == streamed.json()["code"] == "too-large"


def test_every_answer_has_safe_headers_and_cors_is_closed(api: Api) -> None:
    for path in ("/v1/me", "/healthz", "/v1/nothing"):
        found = api.get("sam", path, headers={"Origin": "https://evil.example"})
        assert found.headers["X-Content-Type-Options"] == "nosniff"
        assert found.headers["X-Frame-Options"] == "DENY"
        assert found.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert found.headers["Referrer-Policy"] == "no-referrer"
        assert not [name for name in found.headers if name.startswith("access-control")]
    assert api.get("sam", "/v1/me").headers["Cache-Control"] == "no-store"
    preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    asked = api.call(None, "OPTIONS", "/v1/releases", headers=preflight)
    assert asked.status_code == 405
    assert not [name for name in asked.headers if name.startswith("access-control")]


def test_a_request_id_that_could_break_a_log_line_is_replaced(api: Api) -> None:
    found = api.get("sam", "/v1/me", headers={"X-Request-Id": "a b\tc{}"})
    assert found.headers["X-Request-Id"] != "a b\tc{}"


def test_one_log_line_says_who_asked_what_of_which_release(api: Api) -> None:
    api.create()
    with capture_logs() as lines:
        api.post("ann", api.path("/steps/demo/window/extend"), {"by": "1d", "reason": "x"}, key="k")
    line = next(found for found in lines if found["event"] == "request")
    assert line["route"] == "/v1/releases/{release}/steps/{step}/window/extend"
    assert (line["principal"], line["release"], line["step"]) == ("ann", RELEASE, "demo")
    assert (line["status"], line["code"]) == (403, "not-permitted")
    assert not any("slt_" in str(found) for found in lines)


def test_a_switched_off_principal_and_a_revoked_or_expired_token_stop_at_once(api: Api) -> None:
    issued = api.ok(
        api.post(
            "olaf", "/v1/principals/sam/tokens", {"label": "short", "expires_at": "2026-01-05T10:00:00Z"}
        )
    )
    api.tokens["short"] = issued["text"]
    assert api.get("short", "/v1/me").json()["id"] == "sam"
    api.clock.advance(hours=1)
    assert api.get("short", "/v1/me").status_code == 401
    again = api.ok(api.post("olaf", "/v1/principals/sam/tokens", {"label": "more"}))
    api.tokens["more"] = again["text"]
    path = f"/v1/principals/sam/tokens/{again['token']['id']}"
    assert api.call("sam", "DELETE", path).status_code == 200
    assert api.get("more", "/v1/me").status_code == 401
    assert api.get("sam", "/v1/me").status_code == 200
    api.ok(api.call("olaf", "PATCH", "/v1/principals/sam", json={"active": False}))
    assert api.get("sam", "/v1/me").status_code == 401


def test_a_tokens_text_is_shown_once(api: Api) -> None:
    first = api.post("olaf", "/v1/principals/sam/tokens", {"label": "laptop"}, key="k")
    again = api.post("olaf", "/v1/principals/sam/tokens", {"label": "laptop"}, key="k")
    assert (first.status_code, again.status_code) == (201, 409)
    assert again.json()["reasons"][0]["code"] == "token-shown-once"
    assert first.json()["text"] not in api.get("olaf", "/v1/principals/sam/tokens").text


def test_nobody_gives_themself_more_roles(api: Api) -> None:
    refused = api.call(
        "olaf", "PATCH", "/v1/principals/olaf", json={"roles": ["operator", "release_manager"]}
    )
    assert refused.status_code == 403


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "partner", "roles": ["partner"]},
        {"kind": "partner", "roles": ["partner", "auditor"], "partner": "uni"},
        {"kind": "person", "roles": ["partner"]},
        {"kind": "machine", "roles": ["mlops"], "partner": "uni"},
        {"id": "sluice"},
    ],
)
def test_a_principal_that_is_half_partner_or_the_service_itself_is_refused(
    api: Api, change: dict[str, Any]
) -> None:
    body = {"id": "new", "name": "New", "kind": "person", "roles": ["auditor"], **change}
    assert api.post("olaf", "/v1/principals", body).status_code == 422


def test_creations_with_one_key_are_one(api: Api) -> None:
    body = {"id": "lab", "name": "Lab"}
    assert api.post("mia", "/v1/partners", body, key="k").status_code == 201
    assert api.post("mia", "/v1/partners", body, key="k").status_code == 201
    assert api.post("mia", "/v1/partners", {"id": "lab2", "name": "Lab"}, key="k").json()["code"] == (
        "idempotency-key-reused"
    )
    assert api.post("mia", "/v1/partners", body, key="other").status_code == 409


def test_a_manifest_that_is_not_what_it_says_is_refused(api: Api, sealed: Sealed) -> None:
    other = {**sealed.body, "digest": "sha256:" + "0" * 64}
    assert api.post("ci", "/v1/artifacts", other).status_code == 422
    assert api.post("ci", "/v1/artifacts", {**sealed.body, "manifest": "%%%"}).status_code == 422
    assert api.post("ci", "/v1/artifacts", {**sealed.body, "manifest": "e30="}).status_code == 422


def test_a_component_that_the_manifest_does_not_name_is_not_bound(api: Api, sealed: Sealed) -> None:
    plan = five_stages()
    plan["components"]["paper"] = {"category": "replication", "kind": "technical_paper", "documentation": "x"}
    body = {"id": RELEASE, "name": "mini", "version": "1", "plan": plan}
    plan["steps"][4]["components"].append("paper")
    api.ok(api.post("mia", "/v1/releases", body, key="k"))
    api.ok(api.post("ci", "/v1/artifacts", sealed.body))
    refused = api.post("ci", api.path("/artifacts"), {"artifact": sealed.id, "components": ["paper"]})
    assert (refused.status_code, refused.json()["reasons"][0]["path"]) == (409, "body.components")


def test_a_recipient_that_no_envelope_can_be_made_for_is_refused(api: Api) -> None:
    body = {"recipient": "age1pq1" + "q" * 100}
    assert api.post("uni-account", "/v1/partners/uni/keys", body).status_code == 422
    assert api.post("uni-account", "/v1/partners/uni/keys", {"recipient": "age1xyz"}).status_code == 422


def test_terms_are_accepted_by_the_partner_alone(api: Api) -> None:
    assert api.ok(api.post("uni-account", "/v1/partners/uni/terms", {"terms": "research-1"}))["terms"][0][
        "by"
    ] == ("uni-account")
    assert api.post("mia", "/v1/partners/uni/terms", {"terms": "research-1"}).status_code == 403


def limited(api: Api, **limits: str) -> Api:
    settings = replace(api.deps.settings, **limits)
    api.app = create_app(replace(api.deps, settings=settings))
    api.client = TestClient(api.app, raise_server_exceptions=False)
    return api


def test_who_asks_too_often_is_told_when_to_come_back_and_others_are_not_hindered(api: Api) -> None:
    api = limited(api, rate_limit="3/minute")
    assert [api.post("ann", "/v1/releases/none/hold").status_code for _ in range(5)] == [
        403,
        403,
        403,
        429,
        429,
    ]
    refused = api.get("ann", "/v1/me")
    assert refused.json()["code"] == "too-many-requests"
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert api.get("sam", "/v1/me").status_code == 200
    assert len(refusals(limited(api, rate_limit="100/minute"))) == 3


def test_guessing_tokens_is_slowed_down(api: Api) -> None:
    api = limited(api, rate_limit_strangers="2/day")
    guess = {"Authorization": "Bearer slt_" + "a" * 43}
    assert [api.get(None, "/v1/me", headers=guess).status_code for _ in range(3)] == [401, 401, 429]
    assert api.get("sam", "/v1/me").status_code == 200
