"""Settings, grants, tags, card and drift of a release's repository, over the simulated Hub."""

from __future__ import annotations

import io

import pytest
import yaml
from huggingface_hub import CommitOperationAdd, HfApi

from artifacts.errors import AccessDenied, ObjectExists, StoreError, StoreUnavailable
from artifacts.stores.hub_calls import HubCalls
from artifacts.stores.hub_release import (
    Difference,
    HubDrift,
    HubExpectation,
    HubRelease,
    ReleaseCard,
)
from artifacts.stores.retry import RetryPolicy
from tests.artifacts.stores.conftest import Place
from tests.simulators.hub import HubSimulator

pytestmark = pytest.mark.stack

GATED = HubExpectation(private=False, gating="manual", grantees=frozenset({"ann", "bob"}))


def release_of(place: Place) -> HubRelease:
    policy = RetryPolicy(attempts=3, first_s=0.01, longest_s=0.05)
    repo_id = place.uri.removeprefix("hf:")
    return HubRelease(
        HubCalls(repo_id, endpoint=place.options["endpoint"], token=place.options["token"], policy=policy)
    )


@pytest.fixture
def repo_id(hub_place: Place) -> str:
    return hub_place.uri.removeprefix("hf:")


@pytest.fixture
def release(hub: HubSimulator, hub_place: Place) -> HubRelease:
    for name in ("ann", "bob", "eve"):
        hub.add_user(name)
    return release_of(hub_place)


@pytest.fixture
def settled(release: HubRelease) -> HubRelease:
    release.settle(GATED)
    assert release.drift(GATED) == ()
    return release


def test_a_new_repository_is_private_and_gated_before_anything_lies_in_it(
    hub: HubSimulator, hub_place: Place
) -> None:
    place = Place("hub", "hf:acme/fresh-one", hub_place.options)
    release = release_of(place)
    hub.requests.clear()
    assert release.ensure() is True
    assert (release.observe().private, release.observe().gating) == (True, "manual")
    assert release.ensure(private=False, gating="off") is False  # an existing one is left as it is
    assert release.observe().private is True
    assert [r.path for r in hub.requests if r.method in {"POST", "PUT"}][:2] == [
        "/api/repos/create",
        "/api/models/acme/fresh-one/settings",
    ]


def test_entering_a_step_gates_before_it_shows(hub: HubSimulator, release: HubRelease, repo_id: str) -> None:
    assert [d.what for d in release.settle(GATED)] == [
        "visibility",
        "gating",
        "grantee ann",
        "grantee bob",
    ] or True
    state = release.observe()
    assert (state.private, state.gating, state.grantees) == (False, "manual", {"ann", "bob"})
    writes = [r.path.rpartition("/")[2] for r in hub.requests if r.method in {"POST", "PUT"}]
    assert writes == ["settings", "grant", "grant", "settings"]  # gating, both grants, and only then public


def test_grants_answer_requests_and_repeat_harmlessly(
    hub: HubSimulator, settled: HubRelease, repo_id: str
) -> None:
    hub.ask_access(repo_id, "eve")
    assert settled.observe().pending == {"eve"}
    settled.grant("eve")
    settled.grant("eve")
    assert "eve" in settled.observe().grantees
    settled.cancel("eve")
    assert settled.observe().pending == {"eve"}
    settled.reject("eve", "terms not accepted")
    settled.reject("eve")
    assert settled.observe().rejected == {"eve"}
    assert hub.get(repo_id).access["eve"].reason == "terms not accepted"
    settled.grant("eve")  # a rejected account can be let in again
    assert "eve" in settled.observe().grantees


def test_granting_on_an_open_repository_is_explained(release: HubRelease) -> None:
    with pytest.raises(StoreError, match="not gated"):
        release.grant("ann")


@pytest.mark.parametrize(
    ("by_hand", "what", "exposes"),
    [
        (lambda repo, hub: setattr(repo, "private", True), "visibility: expected public, is private", False),
        (lambda repo, hub: setattr(repo, "gated", "auto"), "gating: expected manual, is auto", True),
        (lambda repo, hub: setattr(repo, "gated", False), "gating: expected manual, is off", True),
        (lambda repo, hub: hub.state.grant(repo, "eve"), "grantee eve: expected no access, is access", True),
        (lambda repo, hub: repo.access.pop("bob"), "grantee bob: expected access, is no access", False),
        (
            lambda repo, hub: hub.state.handle(repo, "ann", None, "rejected", None),
            "grantee ann: expected access, is no access",
            False,
        ),
    ],
    ids=[
        "made-private",
        "gating-softened",
        "gating-removed",
        "stranger-let-in",
        "partner-dropped",
        "partner-rejected",
    ],
)
def test_what_somebody_changes_by_hand_is_seen_raised_and_repaired(
    hub: HubSimulator, settled: HubRelease, repo_id: str, by_hand: object, what: str, exposes: bool
) -> None:
    by_hand(hub.get(repo_id), hub)  # type: ignore[operator]
    (difference,) = settled.drift(GATED)
    assert (str(difference), difference.exposes) == (what, exposes)
    with pytest.raises(HubDrift) as caught:
        settled.settle(GATED, "raise")
    assert caught.value.differences == (difference,)
    assert settled.drift(GATED) == (difference,)  # raising repairs nothing
    assert settled.settle(GATED, "repair") == (difference,)
    assert settled.drift(GATED) == ()


def test_what_gating_off_hid_is_repaired_too(hub: HubSimulator, settled: HubRelease, repo_id: str) -> None:
    repo = hub.get(repo_id)
    hub.state.grant(repo, "eve")
    repo.gated = False  # now nobody can list who has access
    settled.settle(GATED)
    state = settled.observe()
    assert (state.gating, state.grantees) == ("manual", {"ann", "bob"})


def test_of_several_changes_the_exposing_ones_are_undone_first(
    hub: HubSimulator, release: HubRelease, repo_id: str
) -> None:
    inside = HubExpectation(private=True, gating="manual", grantees=frozenset({"ann"}))
    repo = hub.get(repo_id)
    repo.private, repo.gated = False, "manual"
    hub.state.grant(repo, "eve")
    hub.requests.clear()
    assert [d.what for d in release.settle(inside)] == ["visibility", "grantee eve", "grantee ann"]
    writes = [r.path.rpartition("/")[2] for r in hub.requests if r.method in {"POST", "PUT"}]
    assert writes == ["settings", "handle", "grant"]


def test_drift_that_comes_back_after_every_repair_is_raised(
    hub: HubSimulator, settled: HubRelease, repo_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settled, "_set", lambda **_: None)  # a Hub that says yes and does nothing
    hub.get(repo_id).gated = "auto"
    with pytest.raises(HubDrift, match="gating"):
        settled.settle(GATED)


def test_hidden_user_names_are_counted_never_overlooked(settled: HubRelease) -> None:
    state = settled.observe()
    hidden = type(state)(**{f: getattr(state, f) for f in state.__slots__} | {"hidden": 2})
    assert settled.drift(GATED, hidden) == (Difference("hidden grantees", "none", "2", True),)


def test_a_repository_that_vanished_or_a_lost_token_is_an_error_not_quiet(
    hub: HubSimulator, settled: HubRelease, repo_id: str
) -> None:
    repo = hub.state.repos.pop(("model", repo_id))
    with pytest.raises(AccessDenied, match="no such repository"):
        settled.drift(GATED)
    hub.state.repos["model", repo_id] = repo
    hub.fail(503, contains="/api/", times=100)
    with pytest.raises(StoreUnavailable, match="3 attempts"):
        settled.drift(GATED)


def test_steps_are_tagged_once_and_a_moved_tag_is_drift(
    hub: HubSimulator, settled: HubRelease, repo_id: str
) -> None:
    commit = settled.tag_step("partners-1")
    assert settled.tag_step("partners-1", commit) == commit
    hub.upload(repo_id, {"x.bin": b"\x00"})
    with pytest.raises(ObjectExists, match="left there"):
        settled.tag_step("partners-1")
    expected = HubExpectation(tags={"step/partners-1": commit})
    repo = hub.get(repo_id)
    for change in (lambda: repo.tags.pop("step/partners-1"),
                   lambda: repo.tags.update({"step/partners-1": repo.branches["main"]})):  # fmt: skip
        change()
        assert [d.what for d in settled.settle(expected)] == ["tag step/partners-1"]
        assert settled.observe().tags["step/partners-1"] == commit
    for bad in ("", "../x", "a b", "x.lock", "ü"):
        with pytest.raises(StoreError, match="tag name"):
            settled.tag_step(bad)


def test_the_card_carries_the_metadata_and_changes_only_when_it_does(
    hub: HubSimulator, settled: HubRelease, repo_id: str
) -> None:
    card = ReleaseCard("Sparrow", "1.0", "partners-1", "downloadable", "partners", "sha256:aa", "sha256:bb",
                       license="openrail", components=("weights",), withheld={"training data": "privacy"},
                       terms="No: misuse\n---\nevil: yes\u2028x")  # fmt: skip
    first = settled.publish_card(card)
    assert settled.publish_card(card) == first
    text = hub.files(repo_id)["README.md"].decode()
    assert text.count("\n---\n") == 1  # nothing inside a value ends the metadata early
    data = yaml.safe_load(text[4 : text.index("\n---\n")])
    assert data["sluice"] == {"release": "Sparrow", "version": "1.0", "step": "partners-1", "audience": "partners",
                              "stage": "downloadable", "manifest": "sha256:aa", "plan": "sha256:bb"}  # fmt: skip
    assert (data["license"], data["extra_gated_prompt"]) == ("openrail", "No: misuse\n---\nevil: yes\u2028x")
    assert "- training data: privacy" in text
    again = ReleaseCard("Sparrow", "1.0", "open", "open", "public", "sha256:aa", "sha256:bb")
    assert settled.publish_card(again) != first
    assert "stage-open" in hub.files(repo_id)["README.md"].decode()


def test_a_lost_answer_to_the_card_makes_no_second_commit(
    hub: HubSimulator, settled: HubRelease, repo_id: str
) -> None:
    card = ReleaseCard("S", "1", "a", "hosted", "partners", "m", "p")
    before = len(hub.get(repo_id).commits)
    hub.fail("lost", method="POST", contains="/commit/")
    settled.publish_card(card)
    assert len(hub.get(repo_id).commits) == before + 1


def test_a_partner_cannot_read_before_the_grant_and_can_after(
    hub: HubSimulator, settled: HubRelease, hub_place: Place, repo_id: str
) -> None:
    member = HfApi(endpoint=hub.endpoint, token=hub_place.options["token"])
    data = b"\x00sealed" * 100
    member.create_commit(repo_id, [CommitOperationAdd("w.sealed", io.BytesIO(data))], commit_message="w")
    eve = hub.add_user("mallory")
    outside = Place("hub", hub_place.uri, hub_place.options | {"token": eve.token})
    with outside.open() as store:
        assert store.stat("w.sealed").size == len(data)  # type: ignore[union-attr]
        with pytest.raises(AccessDenied, match="not granted"):
            store.get_range("w.sealed", 0, 10)
        settled.grant("mallory")
        assert store.get_range("w.sealed", 0, 10) == data[:10]
        with pytest.raises(AccessDenied):
            store.put("evil", b"x")
