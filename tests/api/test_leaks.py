"""Leak monitoring at the API: reports from anybody, findings that are signed, sources that see or do not, signed verdicts."""

from __future__ import annotations

import json
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from standardwebhooks import Webhook

from artifacts.leaks.sealed import SealedSignature
from orchestrator.api import create_app
from orchestrator.api.reporting import inside
from orchestrator.records import audit, database, monitors, reports, signatures, suspects
from orchestrator.records.suspects import Judgement, StoredVerdict, Suspect

from .conftest import Api, Sealed

SECRET = "whsec_" + "c2x1aWNlLXdhdGNoZG9nLXNlY3JldC0wMDAx"
URL = {"what": "url", "value": "https://files.example.com/model.gguf", "note": "saw it", "contact": ""}


def handed_in(api: Api, queue: str = "reports") -> list[reports.Report]:
    with database.reading(api.engine) as session:
        return reports.behind(session, queue, 0, 100)


def changed(api: Api, **deps: Any) -> Api:
    """The same records behind an application with other parts."""
    import dataclasses

    parts = dataclasses.replace(api.deps, **deps)
    app = create_app(parts)
    return dataclasses.replace(
        api, app=app, deps=parts, client=TestClient(app, raise_server_exceptions=False)
    )


def test_anybody_reports_without_an_account_and_it_becomes_a_candidate_with_its_leaf(api: Api):
    answer = api.post(None, "/v1/reports", URL)
    assert answer.status_code == 202
    (report,) = handed_in(api)
    assert (report.id, report.value, report.via) == (answer.json()["id"], URL["value"], "public")
    with database.reading(api.engine) as session:
        last = list(audit.leaves(session, kind="admin"))[-1]
    assert json.loads(last.body)["report"] == report.id
    assert URL["value"].encode() not in last.body


def test_reports_are_strictly_limited_for_each_address(api: Api):
    codes = [api.post(None, "/v1/reports", URL).status_code for _ in range(8)]
    assert codes == [202] * 6 + [429] * 2
    page = api.client.post("/report", data={"what": "url", "value": URL["value"]})
    assert page.status_code == 429
    assert "Too many requests" in page.text
    assert len(handed_in(api)) == 6


@pytest.mark.parametrize(
    "value",
    [
        "http://127.0.0.1/x",
        "http://localhost/x",
        "http://[::1]/x",
        "http://169.254.169.254/latest/meta-data",
        "http://10.1.2.3/x",
        "http://2130706433/x",
        "http://127.1/x",
        "http://[::ffff:127.0.0.1]/x",
        "http://metadata.google.internal/x",
        "https://user:secret@files.example.com/x",
        "file:///etc/passwd",
        "ftp://files.example.com/x",
        "https://",
        "javascript:alert(1)",
        "https://files.example.com/\u202ex",
        "https://files.example.com/a\nb",
        "/etc/passwd",
    ],
)
def test_addresses_inside_and_what_is_no_address_are_refused_at_once(api: Api, value: str):
    answer = api.post(None, "/v1/reports", URL | {"value": value})
    assert answer.status_code == 422
    assert "secret" not in answer.text
    assert not handed_in(api)


@pytest.mark.parametrize(
    ("what", "value", "kept"),
    [
        ("sha256", "AB" * 32, ("sha256", "ab" * 32)),
        ("repository", "hf:somebody/model@main", ("repository", "hf:somebody/model@main")),
        ("url", "https://huggingface.co/somebody/model", ("repository", "hf:somebody/model")),
        (
            "url",
            "https://huggingface.co/datasets/some/thing/tree/v2",
            ("repository", "hf:datasets/some/thing@v2"),
        ),
        (
            "url",
            "https://huggingface.co/a/b/resolve/main/x.gguf",
            ("url", "https://huggingface.co/a/b/resolve/main/x.gguf"),
        ),
    ],
)
def test_what_is_handed_in_is_brought_into_its_form(api: Api, what: str, value: str, kept: tuple[str, str]):
    assert api.post(None, "/v1/reports", {"what": what, "value": value}).status_code == 202
    (report,) = handed_in(api)
    assert (report.what, report.value) == kept


def test_the_form_works_without_a_script_and_repeats_nothing_as_markup(api: Api):
    page = api.client.get("/report")
    assert page.status_code == 200
    assert "<script" not in page.text
    assert "form-action 'self'" in page.headers["Content-Security-Policy"]
    wrong = api.client.post(
        "/report", data={"what": "url", "value": "http://10.0.0.1/", "note": '"><script>alert(1)</script>'}
    )
    assert wrong.status_code == 422
    assert "<script" not in wrong.text
    assert "not a public one" in wrong.text
    good = api.client.post(
        "/report", data={"what": "url", "value": URL["value"], "note": "n", "contact": "me"}
    )
    assert good.status_code == 202
    (report,) = handed_in(api)
    assert report.id in good.text
    assert report.contact == "me"
    trapped = api.client.post("/report", data={"what": "url", "value": URL["value"], "website": "spam"})
    assert trapped.status_code == 200
    assert len(handed_in(api)) == 1


def test_people_inside_hand_in_and_read_what_was_handed_in(api: Api):
    assert api.post("ci", "/v1/leaks/reports", URL).status_code == 202
    assert api.get("ci", "/v1/leaks/reports").status_code == 403
    (entry,) = api.ok(api.get("sam", "/v1/leaks/reports"))["items"]
    assert (entry["via"], entry["value"]) == ("ci", URL["value"])


def signed(
    body: dict[str, Any], secret: str = SECRET, at: datetime | None = None
) -> tuple[bytes, dict[str, str]]:
    data = json.dumps(body)
    when = at or datetime.now(UTC)
    signature = Webhook(secret).sign("msg-1", when, data)
    head = {
        "webhook-id": "msg-1",
        "webhook-timestamp": str(int(when.timestamp())),
        "webhook-signature": signature,
    }
    return data.encode(), head | {"content-type": "application/json"}


def test_an_outside_monitors_findings_count_when_they_are_signed(api: Api):
    watched = changed(api, outside_monitors={"watchdog": SECRET})
    path = "/v1/leaks/monitors/watchdog/findings"
    data, headers = signed({"findings": [URL, {"what": "sha256", "value": "0" * 64}]})
    answer = watched.client.post(path, content=data, headers=headers)
    assert answer.status_code == 202, answer.text
    again = watched.client.post(path, content=data, headers=headers)
    assert again.json() == answer.json(), "the same message again is the same reports"
    assert [r.via for r in handed_in(api, "outside-monitors")] == ["monitor:watchdog"] * 2
    other, forged = signed({"findings": [URL]}, "whsec_" + "b3RoZXItc2VjcmV0LW90aGVyLXNlY3JldA==")
    late, old = signed({"findings": [URL]}, at=datetime.now(UTC) - timedelta(hours=1))
    for content, head in ((data + b" ", headers), (other, forged), (late, old), (data, {})):
        refused = watched.client.post(path, content=content, headers=head)
        assert refused.status_code == 401
    unknown = watched.client.post("/v1/leaks/monitors/nobody/findings", content=data, headers=headers)
    assert unknown.status_code == 401
    odd, head = signed({"findings": [{"what": "url", "value": "http://10.0.0.1/"}]})
    assert watched.client.post(path, content=odd, headers=head).status_code == 422
    assert len(handed_in(api, "outside-monitors")) == 2


def test_sources_show_since_when_they_are_blind_and_why(api: Api, sealed: Sealed):
    api.to_demo(sealed)
    now = api.clock()
    with database.writing(api.engine) as session:
        monitors.configure(session, {"hub": "hub", "reports": "reports"})
        lease = monitors.lease(session, "hub", "me", now, at_most=timedelta(minutes=1), every=timedelta(0))
        assert lease is not None
        monitors.moved(
            session,
            lease,
            now,
            cursor={"at": 1},
            behind_seconds=3,
            limits={"limit": 500, "remaining": 2},
            notes=[],
            done=True,
        )
    api.clock.advance(hours=2)
    with database.writing(api.engine) as session:
        monitors.lease(session, "hub", "me", api.clock(), at_most=timedelta(minutes=1), every=timedelta(0))
        monitors.failed(
            session,
            "hub",
            "me",
            api.clock(),
            trouble="rate_limited",
            error="asked to wait",
            retry_at=api.clock() + timedelta(minutes=5),
            limits={"remaining": 0},
        )
        assert (
            monitors.lease(
                session, "hub", "you", api.clock(), at_most=timedelta(minutes=1), every=timedelta(0)
            )
            is None
        ), "it asked to be left alone"
    found = api.ok(api.get("sam", "/v1/monitors"))
    hub = next(item for item in found["items"] if item["name"] == "hub")
    assert (hub["sees"], hub["blind_seconds"], hub["error"]) == (False, 7200.0, "asked to wait")
    assert hub["limits"] == {"remaining": 0}
    assert found["unrecognisable"] == [sealed.id], "no signature, no recognising: it is said"


def test_a_verdict_is_read_by_those_who_triage_and_each_reading_is_logged(api: Api):
    watched = changed(
        api, verdicts=api.deps.documents, monitor_key=lambda: ("sluicemonitor1x", "ssh-ed25519 x")
    )
    digest = "sha256:" + "5" * 64
    envelope = {"payload": "e30=", "payloadType": "application/vnd.in-toto+json", "signatures": []}
    with database.writing(api.engine) as session:
        suspect = Suspect("hf:x/y@1", "hub", "hf:x/y@1", "x/y", 5, False, {}, api.clock())
        assert suspects.keep(session, [suspect, suspect], api.clock()) == 1
        assert suspects.keep(session, [suspect], api.clock()) == 0
        stored = StoredVerdict(digest, suspect.key, "art-1", "match", 1, 0, api.clock())
        suspects.put_verdict(
            session, stored, zlib.compress(json.dumps(envelope).encode()), api.deps.documents
        )
        suspects.judge(session, [Judgement("art-1", suspect.key, "match", api.clock(), verdict=digest)])
    assert watched.get("ci", f"/v1/leaks/verdicts/{digest}").status_code == 403
    got = watched.ok(watched.get("sam", f"/v1/leaks/verdicts/{digest}"))
    assert (got["envelope"], got["suspect"]) == (envelope, "hf:x/y@1")
    assert watched.get("sam", "/v1/leaks/verdicts/sha256:" + "6" * 64).status_code == 404
    with database.reading(api.engine) as session:
        read = [json.loads(leaf.body) for leaf in audit.leaves(session, kind="access")]
    assert read[-1]["reference"] == digest
    (item,) = watched.ok(watched.get("sam", "/v1/leaks/suspects?outcome=match"))["items"]
    assert (item["verdict"], item["artifact"]) == (digest, "art-1")
    assert watched.ok(watched.get("ci", "/v1/monitor-key"))["recipient"] == "sluicemonitor1x"
    assert (
        watched.post("sam", "/v1/leaks/checks", {"suspect": "hf:x/y@1", "artifact": "art-1"}).status_code
        == 202
    )
    assert (
        watched.post("sam", "/v1/leaks/checks", {"suspect": "nobody", "artifact": "art-1"}).status_code == 404
    )


def test_public_parents_are_registered_by_those_who_may_close_incidents_and_logged(api: Api):
    body = {"name": "base", "place": "hf:owner/base@1"}
    assert api.post("ci", "/v1/leaks/parents", body).status_code == 403
    assert api.post("sam", "/v1/leaks/parents", body).status_code == 201
    assert api.post("sam", "/v1/leaks/parents", body).status_code == 201
    assert api.post("sam", "/v1/leaks/parents", body | {"place": "hf:other/base"}).status_code == 409
    (parent,) = api.ok(api.get("sam", "/v1/leaks/parents"))["items"]
    assert (parent["by"], parent["signed"]) == ("sam", [])
    assert api.call("sam", "DELETE", "/v1/leaks/parents/base").status_code == 204
    assert api.call("sam", "DELETE", "/v1/leaks/parents/base").status_code == 404


def test_a_weight_signature_is_registered_with_its_artifact_and_no_other(api: Api, sealed: Sealed):
    head = (
        b'{"artifact":"%s","format":"sluice-leak-signature/v1","key_id":"k","manifest":"%s","recipient":"r"}'
    )
    digest = sealed.body["digest"].removeprefix("sha256:")
    fits = head % (sealed.id.encode(), digest.encode()) + b"\nbody"
    assert SealedSignature.parse(fits).artifact == sealed.id
    import base64

    other = head % (b"art-other", digest.encode()) + b"\nbody"
    for data in (other, b"nothing"):
        refused = api.post(
            "ci", "/v1/artifacts", {**sealed.body, "signature": base64.b64encode(data).decode()}
        )
        assert refused.status_code == 422
    api.ok(api.post("ci", "/v1/artifacts", {**sealed.body, "signature": base64.b64encode(fits).decode()}))
    with database.reading(api.engine) as session:
        (stored,) = signatures.of(session)
    assert (stored.artifact, stored.sealed) == (sealed.id, fits)


@pytest.mark.parametrize("host", ["8.8.8.8", "files.example.com", "[2606:4700::1111]"])
def test_public_hosts_are_not_refused_by_their_looks(host: str):
    assert not inside(host)
