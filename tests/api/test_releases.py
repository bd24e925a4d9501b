"""Creating, listing and reading releases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.api.conftest import RELEASE, Api
from tests.support.plans import five_stages


def test_a_release_is_created_and_read_back(api: Api) -> None:
    created = api.create()
    assert created.status_code == 201, created.text
    assert created.headers["Location"] == f"/v1/releases/{RELEASE}"
    found = api.get("sam", f"/v1/releases/{RELEASE}").json()
    assert (found["id"], found["stage"], found["current"], found["next"]) == (
        RELEASE,
        "closed",
        "inside",
        "demo",
    )
    assert found["creator"] == "mia"
    assert set(found["waiting_for"]) == {"evidence", "sign_off", "artifact", "control"}


def test_the_same_key_and_body_is_one_release_and_one_answer(api: Api) -> None:
    first, second = api.create(key="k1"), api.create(key="k1")
    assert (first.status_code, second.status_code) == (201, 201)
    assert (first.json()["seq"], second.json()["seq"]) == (1, 1)
    assert second.json()["repeated"] is True


def test_the_same_key_with_another_body_is_refused(api: Api) -> None:
    api.create(key="k1")
    again = api.create(key="k1", title="Another plan")
    assert (again.status_code, again.json()["code"]) == (409, "idempotency-key-reused")


def test_another_key_for_a_release_that_exists_is_refused(api: Api) -> None:
    api.create(key="k1")
    assert api.create(key="k2").status_code == 409


def test_a_plan_that_breaks_rules_is_refused_with_every_one_and_its_id_stays_free(api: Api) -> None:
    plan = five_stages()
    plan["steps"][1]["controls"] = []
    plan["steps"][3]["gate"].pop("cooling_off")
    body = {"id": RELEASE, "name": "mini", "version": "1", "plan": plan}
    refused = api.post("mia", "/v1/releases", body, key="k")
    assert refused.status_code == 422
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert {reason["code"] for reason in refused.json()["reasons"]} == {"rule-5", "rule-6"}
    assert api.create(key="k").status_code == 201


def test_a_creation_without_a_key_is_malformed(api: Api) -> None:
    refused = api.post("mia", "/v1/releases", {"name": "x", "version": "1", "plan": five_stages()})
    assert refused.status_code == 422
    assert refused.json()["reasons"][0]["path"] == "header.Idempotency-Key"


def test_malformed_fields_are_all_named_with_their_paths(api: Api) -> None:
    plan = five_stages()
    plan["steps"][1]["gate"]["cooling_off"] = "0s"
    plan["colour"] = "blue"
    refused = api.post("mia", "/v1/releases", {"name": "a\u0007b", "version": "1", "plan": plan}, key="k")
    paths = {reason["path"] for reason in refused.json()["reasons"]}
    assert refused.status_code == 422
    assert paths == {"body.plan.steps[1].gate.cooling_off", "body.plan.colour", "body.name"}


def test_pages_follow_each_other_without_gaps(api: Api) -> None:
    for number in range(5):
        api.clock.advance(seconds=1)
        assert api.create(f"m{number}-1").status_code == 201
    seen, cursor = [], None
    while True:
        page = api.get(
            "ann", "/v1/releases", params={"limit": 2, **({"cursor": cursor} if cursor else {})}
        ).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ["m4-1", "m3-1", "m2-1", "m1-1", "m0-1"]


def test_lists_are_filtered_by_stage_status_name_and_who_is_waited_for(api: Api) -> None:
    api.create("alpha-1")
    api.create("beta-1")
    api.post("mia", "/v1/releases/beta-1/abort", {"reason": "no"})

    def ids(**params: str) -> list[str]:
        return [item["id"] for item in api.get("ann", "/v1/releases", params=params).json()["items"]]

    assert ids(status="aborted") == ["beta-1"]
    assert ids(status="active") == ["alpha-1"]
    assert ids(name="ALP") == ["alpha-1"]
    assert ids(stage="open") == []
    assert ids(waiting_for="sam") == ["alpha-1"]
    assert ids(waiting_for="nobody") == []


def test_two_creations_with_one_key_at_once_are_one_release(api: Api) -> None:
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: api.create(key="k1"), range(4)))
    assert {answer.status_code for answer in answers} == {201}
    assert {answer.json()["seq"] for answer in answers} == {1}
    assert len(api.ok(api.get("ann", "/v1/releases"))["items"]) == 1
