"""Webhooks against a real receiver on loopback: nothing lost, nothing out of order, whatever fails in between."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sqlalchemy import text
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from activities.notices.webhooks import PAUSES, WebhookDelivery
from artifacts.leaks.ranged import AddressPolicy
from orchestrator.records import database, principals, webhook_deliveries, webhook_sending, webhooks
from tests.api.conftest import RELEASE, Api, TestCipher, api, sealed, template

__all__ = ["api", "sealed", "template"]


@dataclass
class Receiver:
    """Answers as told: `answers` are used up first, then 204. Keeps every request."""

    url: str = ""
    answers: list[int | str] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def bodies(self) -> list[dict]:
        return [json.loads(body) for _, body in self.got]

    @property
    def numbers(self) -> list[int]:
        return [body["number"] for body in self.bodies]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    told = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
            answer = told.answers.pop(0) if told.answers else 204
            if answer == "cut":
                self.close_connection = True
                return
            self.send_response(int(answer))
            if answer == 302:
                self.send_header("Location", "/elsewhere")
            if answer == 503:
                self.send_header("Retry-After", "600")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield told
    server.shutdown()
    thread.join()
    server.server_close()


LOOPBACK = AddressPolicy(("127.0.0.1",))


def worker(api: Api, name: str = "w1", **more) -> WebhookDelivery:
    return WebhookDelivery(
        api.engine, TestCipher(), name, clock=api.clock, policy=more.pop("policy", LOOPBACK), **more
    )


def add(api: Api, url: str, owner: str = "mia", **more) -> tuple[str, str]:
    with database.writing(api.engine) as session:
        made, secret = webhooks.add(
            session, owner, url, cipher=TestCipher(), at=api.clock(), by=owner, **more
        )
    return made.id, secret


def listed(api: Api, hook: str, status=None) -> list[webhook_deliveries.Delivery]:
    with database.reading(api.engine) as session:
        return list(reversed(webhook_deliveries.deliveries(session, hook, status=status, limit=200).items))


def holds(api: Api, count: int) -> None:
    for n in range(count):
        api.ok(api.post("mia", api.path("/hold"), {"reason": f"hold {n}"}))


def test_every_event_arrives_once_in_order_and_its_signature_verifies(api, receiver):
    _, secret = add(api, receiver.url)
    api.ok(api.create())
    holds(api, 3)
    worker(api).turn()
    assert worker(api).turn() == 0, "nothing is left"
    assert receiver.numbers == list(range(1, len(receiver.got) + 1))
    events = api.ok(api.get("mia", "/v1/events"))["items"]
    assert [(b["event"], b["type"], b["data"]) for b in receiver.bodies] == [
        (e["id"], e["type"], e["data"]) for e in events
    ]
    headers, body = receiver.got[0]
    signed = Webhook(secret).sign(headers["webhook-id"], api.clock(), body.decode())
    assert headers["webhook-signature"] == signed
    assert int(headers["webhook-timestamp"]) == int(api.clock().timestamp())


def test_a_receiver_verifies_with_the_published_library(api, receiver):
    from datetime import UTC, datetime

    api.clock.now = datetime.now(UTC)
    _, secret = add(api, receiver.url)
    api.ok(api.create())
    worker(api).turn()
    headers, body = receiver.got[0]
    assert Webhook(secret).verify(body, headers)["release"] == RELEASE
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body.replace(RELEASE.encode(), b"other-1"), headers)


def test_a_failing_head_holds_back_what_follows_and_order_is_kept(api, receiver):
    hook, _ = add(api, receiver.url)
    api.ok(api.create())
    holds(api, 2)
    receiver.answers = [500, "cut"]
    worker(api).turn()
    assert receiver.numbers == [1]
    worker(api).turn()
    assert receiver.numbers == [1], "it is not tried before its pause is over"
    api.clock.advance(seconds=6)
    worker(api).turn()
    assert receiver.numbers == [1, 1]
    api.clock.advance(seconds=70)
    worker(api).turn()
    total = len(listed(api, hook))
    assert receiver.numbers == [1, 1, *range(1, total + 1)]
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == total, "a retry keeps its id"
    assert {d.status for d in listed(api, hook)} == {"delivered"}


def test_after_its_last_try_a_delivery_is_dead_and_the_next_ones_go_on_and_it_can_be_redriven(api, receiver):
    hook, _ = add(api, receiver.url)
    api.ok(api.create())
    receiver.answers = [500] * (len(PAUSES) + 1)
    start = api.clock.now
    for _ in range(len(PAUSES) + 1):
        worker(api).turn()
        api.clock.advance(hours=10)
    dead = listed(api, hook, "dead")
    assert [(d.number, d.attempts, d.answer) for d in dead] == [(1, len(PAUSES) + 1, 500)]
    assert timedelta(hours=20) < sum(PAUSES, timedelta()) < timedelta(hours=48)
    assert api.clock.now - start > timedelta(hours=24)
    holds(api, 1)
    worker(api).turn()
    later = receiver.numbers[-1]
    assert later > 1
    with database.writing(api.engine) as session:
        assert webhook_deliveries.redrive(session, hook, at=api.clock(), by="mia") == [1]
    worker(api).turn()
    assert receiver.numbers[-1] == 1
    assert listed(api, hook, "dead") == []


def test_a_worker_killed_between_sending_and_noting_loses_and_reorders_nothing(api, receiver, monkeypatch):
    hook, _ = add(api, receiver.url)
    api.ok(api.create())
    holds(api, 2)
    first = worker(api, "w1")

    class Killed(BaseException):
        pass

    def killed(*_: object) -> bool:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(first, "_note", killed)
        patch.setattr(webhook_sending, "release_claim", lambda *_: None)  # a killed process tidies nothing up
        with pytest.raises(Killed):
            first.turn()
    assert receiver.numbers == [1]
    assert worker(api, "w2").turn() == 0, "the lease of the one that was killed still stands"
    api.clock.advance(seconds=91)
    worker(api, "w2").turn()
    total = len(listed(api, hook))
    assert receiver.numbers == [1, *range(1, total + 1)]
    assert receiver.got[0][0]["webhook-id"] == receiver.got[1][0]["webhook-id"]


def test_a_worker_that_lost_its_lease_notes_nothing(api, receiver, monkeypatch):
    hook, _ = add(api, receiver.url)
    api.ok(api.create())
    slow = worker(api, "slow")
    sent = slow._send

    def overtaken(message):
        answer = sent(message)
        api.clock.advance(seconds=91)
        worker(api, "w2").turn()
        return answer

    monkeypatch.setattr(slow, "_send", overtaken)
    slow.turn()
    assert [(d.number, d.attempts) for d in listed(api, hook)] == [
        (n, 1) for n in range(1, len(listed(api, hook)) + 1)
    ]


def test_planning_interrupted_anywhere_neither_misses_nor_doubles(api, receiver, monkeypatch):
    hook, _ = add(api, receiver.url)
    api.ok(api.create())
    real = webhook_sending.insert

    def failing(table):
        if table.name == "webhook_delivery":
            raise RuntimeError("killed")
        return real(table)

    with monkeypatch.context() as patch:
        patch.setattr(webhook_sending, "insert", failing)
        with pytest.raises(RuntimeError, match="killed"):
            worker(api).turn()
    assert listed(api, hook) == []
    worker(api).turn()
    worker(api).turn()
    events = [e["id"] for e in api.ok(api.get("mia", "/v1/events"))["items"]]
    assert [d.event for d in listed(api, hook)] == events


def test_a_replay_delivers_again_under_new_numbers(api, receiver):
    hook, _ = add(api, receiver.url)
    api.ok(api.create())
    worker(api).turn()
    first = len(receiver.got)
    with database.writing(api.engine) as session:
        webhook_deliveries.replay(session, hook, -1, at=api.clock(), by="mia")
    worker(api).turn()
    assert receiver.numbers == list(range(1, 2 * first + 1))
    assert [b["event"] for b in receiver.bodies[:first]] == [b["event"] for b in receiver.bodies[first:]]


def test_during_a_rotation_both_secrets_sign_and_then_only_the_new_one(api, receiver):
    hook, old = add(api, receiver.url)
    with database.writing(api.engine) as session:
        _, new = webhooks.rotate(
            session, hook, overlap=timedelta(days=1), cipher=TestCipher(), at=api.clock(), by="mia"
        )
    assert new != old
    api.ok(api.create())
    worker(api).turn()
    headers, body = receiver.got[-1]
    signs = [Webhook(s).sign(headers["webhook-id"], api.clock(), body.decode()) for s in (new, old)]
    assert headers["webhook-signature"].split(" ") == signs
    api.clock.advance(days=1, seconds=1)
    holds(api, 1)
    worker(api).turn()
    headers, body = receiver.got[-1]
    assert headers["webhook-signature"] == Webhook(new).sign(
        headers["webhook-id"], api.clock(), body.decode()
    )


def test_secrets_are_nowhere_in_the_database(api, receiver, tmp_path: Path):
    hook, secret = add(api, receiver.url)
    with database.reading(api.engine) as session:
        session.execute(text("PRAGMA wal_checkpoint(FULL)"))
    kept = b"".join(p.read_bytes() for p in tmp_path.glob("records.db*"))
    assert hook.encode() in kept
    assert secret.encode() not in kept
    assert secret.removeprefix("whsec_").encode() not in kept


def test_a_partner_sees_its_own_grants_and_nothing_else(api, receiver, sealed):
    add(api, receiver.url, owner="uni-account")
    api.to_demo(sealed)
    api.ok(api.create("hidden-1"))
    worker(api).turn()
    assert receiver.got, "its grant was made"
    told = receiver.got[-1][1].decode()
    body = receiver.bodies[-1]
    assert [b["type"] for b in receiver.bodies] == ["grants_made"]
    assert [g["id"].rsplit(".", 1)[1] for g in body["data"]["grants"]] == ["uni"]
    assert "ngo" not in told
    assert "sam" not in told
    assert "hidden" not in told
    api.ok(api.post("mia", api.path("/revoke"), {"partner": "ngo", "reason": "secret reason"}))
    worker(api).turn()
    assert len(receiver.got) == 1, "what becomes of another partner is none of its business"
    api.ok(api.post("mia", api.path("/revoke"), {"partner": "uni", "reason": "secret reason"}))
    worker(api).turn()
    assert receiver.bodies[-1]["type"] == "grants_ended"
    assert "secret reason" not in receiver.got[-1][1].decode()


def test_who_may_not_read_any_more_is_told_nothing_more(api, receiver):
    hook, _ = add(api, receiver.url, owner="sam")
    api.ok(api.create())
    with database.writing(api.engine) as session:
        principals.change(session, "sam", active=False, at=api.clock(), by="olaf")
    worker(api).turn()
    assert receiver.got == []
    with database.reading(api.engine) as session:
        found = webhooks.get(session, hook)
    assert not found.active
    assert "sam may not read" in (found.off_reason or "")


def test_only_the_types_and_the_release_that_were_asked_for(api, receiver):
    add(api, receiver.url, types=["hold_placed"], release=RELEASE)
    api.ok(api.create())
    api.ok(api.create("other-1"))
    holds(api, 2)
    api.ok(api.post("mia", api.path("/hold", "other-1"), {"reason": "x"}))
    worker(api).turn()
    assert [(b["type"], b["release"]) for b in receiver.bodies] == [("hold_placed", RELEASE)] * 2
    assert receiver.numbers == [1, 2]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/x",
        "http://[::1]:9/x",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/x",
        "http://localhost:9/x",
    ],
)
def test_no_request_goes_inside_unless_the_operator_allows_it(api, url):
    hook, _ = add(api, url)
    api.ok(api.create())
    worker(api, policy=AddressPolicy()).turn()
    head = listed(api, hook)[0]
    assert head.status == "pending"
    assert "not public" in (head.error or "")


def test_a_name_that_resolves_inside_is_refused_too(api, receiver):
    port = receiver.url.rsplit(":", 1)[1]
    hook, _ = add(api, f"http://hook.example.org:{port}")
    api.ok(api.create())
    worker(api, policy=AddressPolicy(resolver=lambda *_: ["127.0.0.1"])).turn()
    assert receiver.got == []
    assert "not public" in (listed(api, hook)[0].error or "")


def test_a_redirect_is_a_failure_and_is_never_followed(api, receiver):
    hook, _ = add(api, receiver.url)
    api.ok(api.create())
    receiver.answers = [302]
    worker(api).turn()
    assert len(receiver.got) == 1
    assert "redirects are not followed" in (listed(api, hook)[0].error or "")


def test_gone_switches_the_endpoint_off_and_retry_after_is_kept(api, receiver):
    hook, _ = add(api, receiver.url)
    api.ok(api.create())
    receiver.answers = [503, 410]
    worker(api).turn()
    api.clock.advance(seconds=500)
    worker(api).turn()
    assert len(receiver.got) == 1
    api.clock.advance(seconds=101)
    worker(api).turn()
    with database.reading(api.engine) as session:
        assert not webhooks.get(session, hook).active


def test_the_api_shows_a_secret_once_and_another_ones_webhook_never(api, receiver):
    answer = api.post("mia", "/v1/webhooks", {"url": "https://hooks.example.org/a"}, key="k-1")
    made = api.ok(answer)
    assert made["secret"].startswith("whsec_")
    name = made["webhook"]["id"]
    again = api.post("mia", "/v1/webhooks", {"url": "https://hooks.example.org/a"}, key="k-1")
    assert again.status_code == 409
    assert made["secret"] not in again.text
    assert "secret" not in api.get("mia", f"/v1/webhooks/{name}").text
    for path in ("", "/deliveries"):
        assert api.get("sam", f"/v1/webhooks/{name}{path}").status_code == 404
    assert api.ok(api.get("olaf", f"/v1/webhooks/{name}"))["owner"] == "mia"
    assert api.ok(api.get("sam", "/v1/webhooks"))["items"] == []
    assert api.ok(api.call("mia", "DELETE", f"/v1/webhooks/{name}"))["id"] == name
    assert api.get("mia", f"/v1/webhooks/{name}").status_code == 404


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"url": "http://hooks.example.org"}, "url"),
        ({"url": "https://user:pw@hooks.example.org"}, "url"),
        ({"url": "https://"}, "url"),
        ({"url": "https://[x"}, "url"),
        ({"url": "file:///etc/passwd"}, "url"),
        ({"url": "https://a.example", "types": ["no_such"]}, "unknown-type"),
    ],
)
def test_what_is_no_endpoint_is_refused_in_words(api, body, code):
    answer = api.post("mia", "/v1/webhooks", body)
    assert answer.status_code == 422
    assert code in answer.text


def test_a_partner_cannot_ask_for_a_release_that_it_may_not_know_of(api):
    api.ok(api.create())
    body = {"url": "https://a.example", "release": RELEASE}
    hidden = api.post("uni-account", "/v1/webhooks", body)
    nowhere = api.post("uni-account", "/v1/webhooks", {**body, "release": "gone-1"})
    assert hidden.status_code == nowhere.status_code == 404
