"""Events as a list and as a stream: in order, resumed without gap or repetition, ended cleanly."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import pytest

from orchestrator.api.routers import events as routes
from tests.api.conftest import RELEASE, Api


def frames(text: str) -> list[dict[str, str]]:
    """The events of a stream; comments (heartbeats) left out."""
    found = []
    for block in text.replace("\r\n", "\n").split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.splitlines() if not line.startswith(":") and ": " in line
        )
        if fields:
            found.append(fields)
    return found


def ended(api: Api) -> None:
    api.create()
    for number in range(3):
        api.ok(api.post("sam", api.path("/hold"), {"reason": f"hold {number}"}))
    api.ok(api.post("mia", api.path("/abort"), {"reason": "given up"}))


def test_pages_of_events_follow_each_other(api: Api) -> None:
    ended(api)
    seen: list[int] = []
    after = 0
    while True:
        page = api.ok(api.get("ann", api.path("/events"), params={"after": after, "limit": 2}))
        seen += [event["seq"] for event in page["items"]]
        if page["next_after"] is None:
            break
        after = page["next_after"]
    assert seen == list(range(1, len(seen) + 1))


def test_the_feed_of_all_releases_is_in_the_order_of_commits(api: Api) -> None:
    ended(api)
    api.ok(api.create("other-1"))
    items = api.ok(api.get("ann", "/v1/events"))["items"]
    assert [item["id"] for item in items] == sorted(item["id"] for item in items)
    assert {item["release"] for item in items} == {RELEASE, "other-1"}
    behind = api.ok(api.get("ann", "/v1/events", params={"after": items[2]["id"]}))["items"]
    assert behind == items[3:]


def test_a_stream_brings_every_event_and_ends_with_the_release(api: Api) -> None:
    ended(api)
    stream = api.get("ann", api.path("/events/stream"))
    assert stream.headers["Content-Type"].startswith("text/event-stream")
    got = frames(stream.text)
    assert [int(frame["id"]) for frame in got] == list(range(1, len(got) + 1))
    assert got[-1]["event"] == "aborted"
    assert json.loads(got[0]["data"])["type"] == "release_created"


def test_a_stream_resumes_behind_the_last_event_that_was_seen(api: Api) -> None:
    ended(api)
    everything = frames(api.get("ann", api.path("/events/stream")).text)
    rest = frames(
        api.get("ann", api.path("/events/stream"), headers={"Last-Event-ID": everything[1]["id"]}).text
    )
    assert [frame["id"] for frame in rest] == [frame["id"] for frame in everything[2:]]


def test_a_stream_of_a_release_that_ended_ends_though_nothing_is_new(api: Api) -> None:
    ended(api)
    last = frames(api.get("ann", api.path("/events/stream")).text)[-1]["id"]
    assert frames(api.get("ann", api.path("/events/stream"), headers={"Last-Event-ID": last}).text) == []


def test_a_stream_brings_the_last_event_though_the_release_ends_between_its_two_looks(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.ok(api.create())
    over = routes._over

    def late(deps: Any, release: str) -> bool:
        api.ok(api.post("mia", api.path("/abort"), {"reason": "given up"}))
        return over(deps, release)

    monkeypatch.setattr(routes, "_over", late)
    got = frames(api.get("ann", api.path("/events/stream")).text)
    assert [frame["event"] for frame in got][-1] == "aborted"


def test_a_live_stream_brings_what_happens_and_beats_in_between(api: Api) -> None:
    api.create()
    got: list[str] = []
    listener = threading.Thread(target=lambda: got.append(api.get("ann", api.path("/events/stream")).text))
    listener.start()
    time.sleep(4)
    api.ok(api.post("sam", api.path("/hold"), {"reason": "live"}))
    api.ok(api.post("mia", api.path("/abort"), {"reason": "given up"}))
    listener.join(10)
    assert not listener.is_alive()
    assert [frame["event"] for frame in frames(got[0])][-2:] == ["hold_placed", "aborted"]
    assert ": ping" in got[0]


async def test_a_listener_who_leaves_ends_the_stream(api: Api) -> None:
    api.create()
    messages: list[Any] = []
    leave = asyncio.Event()

    async def receive() -> Any:
        if not messages:
            return {"type": "http.request", "body": b"", "more_body": False}
        await leave.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "path": api.path("/events/stream"),
        "raw_path": api.path("/events/stream").encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": [(b"authorization", f"Bearer {api.tokens['ann']}".encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "app": api.app,
    }
    listening = asyncio.create_task(api.app(scope, receive, send))
    while not any(message.get("body") for message in messages):
        await asyncio.sleep(0.01)
    leave.set()
    await asyncio.wait_for(listening, 5)


def test_wrapped_roots_and_whole_plans_are_not_in_events(api: Api, sealed: Any) -> None:
    api.create()
    api.bind(sealed)
    events = api.ok(api.get("ann", api.path("/events")))["items"]
    assert sealed.body["wrapped_root"] not in json.dumps(events)
    assert "plan" not in events[0]["data"]
    assert events[0]["data"]["plan_digest"].startswith("sha256:")
