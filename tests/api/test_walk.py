"""A release walked over the API alone: from creation to a partner's key, with a hold and a revocation on the way."""

from __future__ import annotations

import base64
import hashlib

import pytest

from artifacts.keys import partner_keygen
from tests.api.conftest import RELEASE, Api, Sealed


@pytest.fixture(scope="module")
def recipient() -> str:
    return partner_keygen().recipient


def envelope_path(api: Api, sealed: Sealed, partner: str = "ngo") -> str:
    grants = api.ok(api.get(f"{partner}-account", "/v1/grants"))["items"]
    key = next(grant for grant in grants if grant["kind"] == "key")
    assert key["envelopes"] == [sealed.id]
    return api.path(f"/grants/{key['id']}/envelopes/{sealed.id}")


def test_a_gate_opens_by_itself_after_the_last_sign_off(api: Api, sealed: Sealed) -> None:
    api.to_demo(sealed)
    found = api.ok(api.get("ann", api.path("")))
    assert (found["current"], found["stage"], found["next"]) == ("demo", "hosted", "query")
    steps = api.ok(api.get("ann", api.path("/steps")))["items"]
    assert [step["standing"] for step in steps] == ["entered", "current", "next", "ahead", "ahead"]
    assert [who["person"] for who in found["history"][1]["signed"]] == ["sam"]


def test_a_partner_gets_its_key_once_the_gate_let_it_in(api: Api, sealed: Sealed, recipient: str) -> None:
    api.to_download(sealed, recipient)
    path = envelope_path(api, sealed)
    before = api.ok(api.get("ann", api.path("")))["seq"]
    got = api.get("ngo-account", path)
    assert got.status_code == 200
    assert got.content.startswith(b"age-encryption.org/v1\n")
    expected = base64.b64encode(hashlib.sha256(got.content).digest()).decode()
    assert got.headers["Content-Digest"] == f"sha-256=:{expected}:"
    assert api.get("ngo-account", path).status_code == 200
    events = api.ok(api.get("ann", api.path("/events"), params={"after": before}))["items"]
    assert [event["type"] for event in events] == ["grant_disclosed"]
    entries = api.ok(api.get("ann", "/v1/audit/entries", params={"kind": "access"}))["items"]
    assert len(entries) == 2
    assert all('"actor":"ngo-account"' in entry["leaf"] for entry in entries)


def test_the_disclosure_stands_before_the_bytes_leave(api: Api, sealed: Sealed, recipient: str) -> None:
    api.to_download(sealed, recipient)
    api.gateway.down = True
    refused = api.get("ngo-account", envelope_path(api, sealed))
    assert refused.status_code == 503
    assert b"age-encryption" not in refused.content


def test_no_key_is_handed_over_on_hold_also_not_again(api: Api, sealed: Sealed, recipient: str) -> None:
    api.to_download(sealed, recipient)
    path = envelope_path(api, sealed)
    assert api.get("ngo-account", path).status_code == 200
    api.ok(api.post("sam", api.path("/hold"), {"reason": "look"}))
    assert api.get("ngo-account", path).status_code == 409


def test_a_revoked_grant_gives_no_key_and_its_end_says_whether_it_was_out(
    api: Api, sealed: Sealed, recipient: str
) -> None:
    api.to_download(sealed, recipient)
    path = envelope_path(api, sealed)
    body = {"command": {"type": "revoke", "partner": "ngo", "reason": "terms"}}
    told = api.ok(api.post("mia", api.path("/steps/open/gate/preview"), body))
    assert any("never handed over" in words for words in told["consequences"])
    api.ok(api.post("mia", api.path("/revoke"), {"partner": "ngo", "reason": "terms"}))
    assert api.get("ngo-account", path).status_code == 409


def test_nobody_else_fetches_a_partners_key(api: Api, sealed: Sealed, recipient: str) -> None:
    api.to_download(sealed, recipient)
    path = envelope_path(api, sealed)
    assert api.get("uni-account", path).status_code == 404
    for who in ("mia", "sam", "ann", "olaf", "ci"):
        assert api.get(who, path).status_code == 403


def test_a_manager_brings_a_deployments_key_to_it(api: Api, sealed: Sealed) -> None:
    api.to_demo(sealed)
    grants = api.ok(api.get("mia", api.path("/grants")))["items"]
    key = next(grant for grant in grants if grant["holder"] == "platform")
    path = api.path(f"/grants/{key['id']}/envelopes/{sealed.id}")
    assert api.get("sam", path).status_code == 403
    assert api.get("mia", path).status_code == 200


def test_the_manifest_comes_back_byte_for_byte(api: Api, sealed: Sealed, recipient: str) -> None:
    api.to_download(sealed, recipient)
    assert api.get("ci", f"/v1/artifacts/{sealed.id}/manifest").content == sealed.manifest
    grant = api.ok(api.get("ngo-account", "/v1/grants"))["items"][0]
    path = api.path(f"/grants/{grant['id']}/manifests/{sealed.id}")
    assert api.get("ngo-account", path).content == sealed.manifest


def test_an_incident_holds_and_a_quorum_resumes(api: Api, sealed: Sealed) -> None:
    api.to_demo(sealed)
    report = {"id": "leak-1", "kind": "leak", "severity": "moderate", "summary": "seen on a tracker"}
    assert "hold_placed" in api.ok(api.post("sam", api.path("/incidents"), report))["events"]
    api.ok(
        api.post(
            "sam", api.path("/incidents/leak-1/triage"), {"severity": "moderate", "confidence": "false_alarm"}
        )
    )
    close = api.path("/incidents/leak-1/close"), {"outcome": "another model"}
    assert api.ok(api.post("lea", *close))["events"] == ["proposed"], (
        "one person closes no leak, however small"
    )
    assert "incident_closed" in api.ok(api.post("sam", *close))["events"]
    first = api.ok(api.post("sam", api.path("/resume"), {"reason": "nothing found"}))
    assert first["events"] == ["proposed"]
    proposal = api.ok(api.get("lea", api.path("")))["proposals"][0]
    assert (proposal["action"], proposal["needed"]) == ("resume", 2)
    pending = api.ok(api.get("lea", "/v1/me/pending"))["items"]
    assert [item["reference"] for item in pending if item["what"] == "endorse"] == [proposal["id"]]
    second = api.ok(api.post("lea", api.path(f"/proposals/{proposal['id']}/endorse")))
    assert second["events"] == ["endorsed", "proposal_ended", "holds_lifted"]
    assert api.ok(api.get("ann", api.path("")))["on_hold"] is False


def test_pending_is_soonest_first_and_for_the_caller_alone(api: Api, sealed: Sealed) -> None:
    api.create("one-1")
    api.clock.advance(hours=1)
    api.create("two-1")
    items = api.ok(api.get("sam", "/v1/me/pending"))["items"]
    assert {item["release"] for item in items} == {"one-1", "two-1"}
    assert [item["due"] for item in items] == sorted(item["due"] for item in items)
    assert api.ok(api.get("ann", "/v1/me/pending"))["items"] == []


def test_the_window_is_extended_by_one_and_shortened_by_two(api: Api, sealed: Sealed) -> None:
    api.to_demo(sealed)
    extend = {"by": "10d", "reason": "more time"}
    api.ok(api.post("sam", api.path("/steps/query/window/extend"), extend))
    gate = api.gate("query")
    assert gate.json()["verdict"]["window"]["asked"] == 40 * 86400
    shorten, headers = {"to": "20d"}, {"If-Match": gate.headers["ETag"]}
    path = api.path("/steps/query/window/shorten")
    assert api.ok(api.post("sam", path, shorten, headers=headers))["events"] == ["proposed"]
    headers = {"If-Match": api.gate("query").headers["ETag"]}
    assert "window_changed" in api.ok(api.post("lea", path, shorten, headers=headers))["events"]


def test_breaking_the_glass_takes_two_and_leaves_a_review(api: Api, sealed: Sealed) -> None:
    api.to_demo(sealed)
    body = {"waives": ["research_window"], "reason": "a patch has to go out"}
    path = api.path("/steps/query/break-glass")

    def broken(who: str) -> list[str]:
        headers = {"If-Match": api.gate("query").headers["ETag"]}
        return list(api.ok(api.post(who, path, body, headers=headers))["events"])

    assert broken("sam") == ["proposed"]
    assert "glass_broken" in broken("lea")
    review = api.ok(api.get("ann", api.path("")))["reviews"][0]["id"]
    assert api.post("sam", api.path(f"/reviews/{review}/close"), {"outcome": "fine"}).status_code == 403
    assert api.ok(api.post("sue", api.path(f"/reviews/{review}/close"), {"outcome": "fine"}))["events"] == [
        "review_closed"
    ]


def test_a_rollback_and_an_abort_end_access(api: Api, sealed: Sealed) -> None:
    api.to_demo(sealed)
    assert api.ok(api.post("sam", api.path("/rollback"), {"to": "inside", "reason": "leaks data"}))[
        "events"
    ] == ["rolled_back"]
    assert api.ok(api.get("ann", api.path("")))["live_grants"] == 0
    api.ok(api.post("mia", api.path("/abort"), {"reason": "given up"}))
    again = api.post("sam", api.path("/hold"), {"reason": "late"})
    assert (again.status_code, again.json()["code"]) == (409, "release-ended")


def test_an_amendment_needs_the_old_plans_quorum(api: Api, sealed: Sealed) -> None:
    from tests.support.plans import five_stages

    api.to_demo(sealed)
    body = {"plan": five_stages(title="Five stages, later"), "reason": "more time"}
    assert api.ok(api.post("sam", api.path("/amendments"), body))["events"] == ["proposed"]
    proposal = api.ok(api.get("lea", api.path("")))["proposals"][0]
    assert "plan" not in proposal["payload"]
    assert "plan_amended" in api.ok(api.post("lea", api.path("/amendments"), body))["events"]
    assert api.ok(api.get("ann", api.path("/plan")))["plan"]["title"] == "Five stages, later"


def test_an_outage_stops_the_window(api: Api, sealed: Sealed) -> None:
    api.to_demo(sealed)
    api.ok(api.post("ci", api.path("/access"), {"working": False, "reason": "endpoint down"}))
    window = api.gate("query").json()["verdict"]["window"]
    assert (window["running"], window["stands_because"]) == (False, "access does not work: endpoint down")


def test_a_release_of_another_persons_upload_is_bound_by_the_uploader(api: Api, sealed: Sealed) -> None:
    api.create()
    api.ok(api.post("mia", "/v1/artifacts", sealed.body))  # mia is among the plan's people
    refused = api.post("ci", api.path("/artifacts"), {"artifact": sealed.id})
    assert (refused.status_code, refused.json()["reasons"][0]["code"]) == (403, "rule-7")
    assert api.post("mia", api.path("/artifacts"), {"artifact": sealed.id}).status_code == 200


def test_an_ingest_started_twice_is_one(api: Api) -> None:
    body = {"source": "gt-mini", "store": "dir:/sealed", "components": {"weights": ["*.bin"]}}
    first, second = api.post("ci", "/v1/ingests", body), api.post("ci", "/v1/ingests", body)
    assert (first.status_code, first.json()["id"]) == (202, second.json()["id"])
    assert len(api.gateway.ingests) == 1
    assert api.ok(api.get("ci", f"/v1/ingests/{first.json()['id']}"))["status"] == "running"


@pytest.mark.parametrize("source", ["../secret", "/etc", "a/../../b", "C:\\x", "file:///etc", "~root"])
def test_an_ingest_that_leaves_its_folder_is_refused(api: Api, source: str) -> None:
    body = {"source": source, "store": "dir:/sealed", "components": {"weights": ["*.bin"]}}
    refused = api.post("ci", "/v1/ingests", body)
    assert (refused.status_code, refused.json()["reasons"][0]["path"]) == (422, "body.source")


def test_a_delegate_signs_for_the_absent(api: Api) -> None:
    api.create()
    body = {"to": "dan", "role": "safety", "until": "2026-03-01T00:00:00Z"}
    assert api.ok(api.post("sam", api.path("/delegations"), body))["events"] == ["delegated"]
    assert api.ok(api.get("ann", api.path("")))["delegations"][0]["to"] == "dan"
    assert RELEASE
