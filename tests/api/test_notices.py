"""Channels of notices over the API: whose they are, what is shown of them, what cannot be one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain import notices as said
from orchestrator.domain.decide import decide_create
from orchestrator.domain.evolve import begin
from orchestrator.domain.notices import Topic
from orchestrator.domain.showing import EVENT_TYPES
from tests.api.conftest import Api
from tests.records.story import creation
from tests.support.plans import T0

CHANNELS = "/v1/notices/channels"


@pytest.fixture
def noticing(api: Api) -> Api:
    faults = {"nosuch://canary": "no service is known by this address"}
    settings = dataclasses.replace(api.deps.settings, mail=True)
    api.app.state.deps = dataclasses.replace(
        api.deps, settings=settings, apprise_fault=lambda url: faults.get(url)
    )
    return api


def test_a_channel_is_ones_own_and_its_address_is_never_shown(noticing: Api, tmp_path: Path) -> None:
    api = noticing
    body = {"kind": "apprise", "address": "slack://canaryA/canaryB/canaryC", "topics": ["holds"]}
    made = api.post("sam", CHANNELS, body, key="k1")
    channel = api.ok(made)
    assert channel["shown"] == "slack://…"
    again = api.post("sam", CHANNELS, body, key="k1")
    assert again.json()["id"] == channel["id"], "one key, one channel"
    path = f"{CHANNELS}/{channel['id']}"
    answers = [made, again, api.get("sam", CHANNELS), api.get("sam", path), api.get("olaf", CHANNELS)]
    assert [len(a.json()["items"]) for a in answers if "items" in a.json()] == [1, 1]
    assert api.get("lea", path).status_code == 404
    assert api.get("lea", CHANNELS).json()["items"] == []
    chosen = api.ok(api.call("sam", "PATCH", path, json={"topics": ["steps", "waiting"], "active": False}))
    assert (chosen["topics"], chosen["active"], chosen["off_reason"]) == (
        ["steps", "waiting"],
        False,
        "by sam",
    )
    assert api.ok(api.post("sam", f"{path}/test"))["numbers"] == [1]
    (notice,) = api.ok(api.get("sam", f"{path}/notices"))["items"]
    assert (notice["topic"], notice["status"]) == ("test", "pending")
    assert api.post("sam", f"{path}/redrive", {"number": 1}).status_code == 404, "it is not dead"
    answers.append(api.call("olaf", "DELETE", path))
    assert api.get("sam", path).status_code == 404
    assert all("canary" not in answer.text for answer in answers)
    assert b"canaryA" not in (tmp_path / "records.db").read_bytes()


def test_operators_add_channels_for_others_and_for_nobody_and_others_do_not(noticing: Api) -> None:
    api = noticing
    mail = {"kind": "mail", "address": "someone@example.org"}
    assert api.ok(api.post("olaf", CHANNELS, {**mail, "owner": "sam"}))["owner"] == "sam"
    assert api.ok(api.post("olaf", CHANNELS, {**mail, "shared": True}))["owner"] is None
    assert api.post("sam", CHANNELS, {**mail, "owner": "lea"}).status_code == 403
    assert api.post("sam", CHANNELS, {**mail, "shared": True}).status_code == 403
    assert api.post("olaf", CHANNELS, {**mail, "owner": "nobody"}).status_code == 404
    assert api.ok(api.get("sam", CHANNELS))["items"][0]["shown"] == "s…e@example.org"
    partner = {**mail, "topics": ["holds"]}
    assert api.post("uni-account", CHANNELS, partner).status_code == 422
    assert api.post("olaf", CHANNELS, {**partner, "owner": "uni-account"}).status_code == 422
    assert api.ok(api.post("uni-account", CHANNELS, {**mail, "topics": ["grants"]}))["owner"] == "uni-account"
    hidden = {**mail, "release": "mini-1"}
    assert api.post("uni-account", CHANNELS, hidden).status_code == 404, "a release that it may not know of"


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "mail", "address": "canary"},
        {"kind": "mail", "address": "canary@example.org\nBcc: x@example.org"},
        {"kind": "mail", "address": "canary@example.org, other@example.org"},
        {"kind": "apprise", "address": "nosuch://canary"},
        {"kind": "apprise", "address": "canary words"},
        {"kind": "mail", "address": "canary@example.org", "topics": ["grants"]},
        {"kind": "mail", "address": "canary@example.org", "topics": ["canary"]},
        {"kind": "pigeon", "address": "canary@example.org"},
    ],
)
def test_what_is_no_channel_is_refused_without_showing_it(noticing: Api, body: dict) -> None:
    answer = noticing.post("sam", CHANNELS, body)
    assert answer.status_code == 422, answer.text
    assert "canary" not in answer.text


def test_without_a_mail_server_no_mail_address_is_taken(api: Api) -> None:
    answer = api.post("sam", CHANNELS, {"kind": "mail", "address": "sam@example.org"})
    assert answer.status_code == 409
    assert "SLUICE_MAIL_FROM" in answer.text


def test_one_owner_has_ten_channels_at_most(noticing: Api) -> None:
    for n in range(10):
        noticing.ok(noticing.post("sam", CHANNELS, {"kind": "mail", "address": f"sam{n}@example.org"}))
    assert noticing.post("sam", CHANNELS, {"kind": "mail", "address": "x@example.org"}).status_code == 409


def test_the_table_names_events_and_waits_that_there_are() -> None:
    assert set(said.RULES) <= set(EVENT_TYPES)
    assert {"glass_broken", "incident_reported", "hold_placed", "step_entered", "grant_ended"} <= set(
        said.RULES
    )
    assert Topic.TEST not in said.CHOICES


def test_a_reminder_is_told_to_those_whom_it_names_in_words_of_its_own() -> None:
    state = begin(fold_created())
    event = ev.Reminded(
        at=T0, by="sluice", command_id="r1", reminder="x", kind="sign_off_waits",
        message="canary", step="query", people=["sam"], due=T0,
    )  # fmt: skip
    notice = said.of_event(event, state)
    assert notice is not None
    assert notice.topic is Topic.REMINDERS
    assert [notice.concerns(person, state) for person in ("sam", "lea")] == [True, False]
    assert "canary" not in notice.title + str(notice.facts)


def fold_created() -> ev.ReleaseCreated:
    created = decide_create(creation(), T0)[0]
    assert isinstance(created, ev.ReleaseCreated)
    return created
