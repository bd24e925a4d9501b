"""The Hub simulator answers the real huggingface_hub client as the Hub would."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.simulators.hub import HubSimulator

pytestmark = pytest.mark.stack
REPO = "acme/model"


@pytest.fixture
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as simulator:
        yield simulator


@pytest.fixture
def owner(hub: HubSimulator) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=hub.add_user("lab", orgs=["acme"]).token)


@pytest.fixture
def partner(hub: HubSimulator) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=hub.add_user("partner").token)


def add(api: HfApi, files: dict[str, bytes], **more: object) -> str:
    operations = [
        CommitOperationAdd(path, io.BufferedReader(io.BytesIO(data))) for path, data in files.items()
    ]
    return str(api.create_commit(REPO, operations, commit_message="add", **more).oid)


def test_create_commit_list_and_download(hub: HubSimulator, owner: HfApi, tmp_path: Path) -> None:
    assert owner.whoami()["name"] == "lab"
    owner.create_repo(REPO, private=True)
    owner.create_repo(REPO, private=True, exist_ok=True)
    big = bytes(range(256)) * 40_000  # 10 MB: multipart
    small = b"\x00\xff" * 50_000  # binary: large file storage in one piece
    oid = add(owner, {"a/big.bin": big, "a/small.sealed": small, "notes/hi.txt": b"hello"})
    assert owner.model_info(REPO).sha == oid
    files = {f.path: f for f in owner.list_repo_tree(REPO, recursive=True) if hasattr(f, "blob_id")}
    assert files["a/big.bin"].lfs.sha256 == hashlib.sha256(big).hexdigest()
    assert files["a/big.bin"].xet_hash
    assert files["notes/hi.txt"].lfs is None
    assert {f.path for f in owner.list_repo_tree(REPO)} == {".gitattributes", "a", "notes"}
    for path, data in [("a/big.bin", big), ("notes/hi.txt", b"hello")]:
        assert Path(owner.hf_hub_download(REPO, path, cache_dir=tmp_path)).read_bytes() == data
    assert any("/lfs/" in r.path and r.method == "PUT" and r.sent == 5 * 1024 * 1024 for r in hub.requests)
    with pytest.raises(EntryNotFoundError):
        owner.hf_hub_download(REPO, "nothing", cache_dir=tmp_path)


def test_bytes_already_there_are_not_uploaded_again(hub: HubSimulator, owner: HfApi) -> None:
    owner.create_repo(REPO)
    add(owner, {"one.bin": b"\x00" * 1000})
    hub.requests.clear()
    add(owner, {"two.bin": b"\x00" * 1000})
    assert not [r for r in hub.requests if r.method == "PUT"]
    assert owner.file_exists(REPO, "two.bin")


def test_a_commit_on_an_old_parent_is_refused(owner: HfApi) -> None:
    owner.create_repo(REPO)
    first = add(owner, {"a.txt": b"1"})
    add(owner, {"b.txt": b"2"}, parent_commit=first)
    with pytest.raises(HfHubHTTPError, match="412"):
        add(owner, {"c.txt": b"3"}, parent_commit=first)


def test_delete_tags_refs_history_and_pull_requests(hub: HubSimulator, owner: HfApi) -> None:
    owner.create_repo(REPO)
    first = add(owner, {"a.txt": b"1"})
    owner.create_tag(REPO, tag="step/1", revision=first)
    owner.create_tag(REPO, tag="step/1", exist_ok=True)
    with pytest.raises(HfHubHTTPError, match="409"):
        owner.create_tag(REPO, tag="step/1")
    owner.create_commit(REPO, [CommitOperationDelete("a.txt")], commit_message="drop")
    assert not owner.file_exists(REPO, "a.txt")
    assert owner.file_exists(REPO, "a.txt", revision="step/1")
    assert [c.title for c in owner.list_repo_commits(REPO)] == ["drop", "add", "initial commit"]
    hub.upload(REPO, {"leak.bin": b"\x00"}, pull_request=True)
    refs = owner.list_repo_refs(REPO, include_pull_requests=True)
    assert [t.name for t in refs.tags] == ["step/1"]
    assert refs.pull_requests is not None
    assert [p.ref for p in refs.pull_requests] == ["refs/pr/1"]
    assert [f.path for f in owner.list_repo_tree(REPO, revision="refs/pr/1")] == [
        ".gitattributes",
        "leak.bin",
    ]
    with pytest.raises(RevisionNotFoundError):
        owner.model_info(REPO, revision="nothing")


def test_private_and_gated_repositories(
    hub: HubSimulator, owner: HfApi, partner: HfApi, tmp_path: Path
) -> None:
    owner.create_repo(REPO, private=True)
    add(owner, {"w.bin": b"\x00" * 100})
    with pytest.raises(RepositoryNotFoundError):
        partner.model_info(REPO)
    owner.update_repo_settings(REPO, gated="manual", private=False)
    info = partner.model_info(REPO)
    assert (info.gated, info.private) == ("manual", False)
    with pytest.raises(GatedRepoError):
        partner.hf_hub_download(REPO, "w.bin", cache_dir=tmp_path)
    hub.ask_access(REPO, "partner")
    assert [r.username for r in owner.list_pending_access_requests(REPO)] == ["partner"]
    owner.accept_access_request(REPO, "partner")
    assert Path(partner.hf_hub_download(REPO, "w.bin", cache_dir=tmp_path)).stat().st_size == 100
    owner.reject_access_request(REPO, "partner", rejection_reason="rolled back")
    assert hub.get(REPO).access["partner"].reason == "rolled back"
    owner.cancel_access_request(REPO, "partner")
    owner.grant_access(REPO, "lab")
    assert [r.username for r in owner.list_accepted_access_requests(REPO)] == ["lab"]
    for wrong, status in [(lambda: owner.grant_access(REPO, "lab"), "already has access"),
                          (lambda: owner.grant_access(REPO, "nobody"), "404"),
                          (lambda: partner.grant_access(REPO, "partner"), "403")]:  # fmt: skip
        with pytest.raises(HfHubHTTPError, match=status):
            wrong()


def test_listing_models_by_date_with_pages_and_filters(hub: HubSimulator, partner: HfApi) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(25):
        hub.repo(
            f"org{number % 2}/m{number}", parameters=number * 10**9, created=start + timedelta(hours=number)
        )
    hub.repo("org0/hidden", private=True)
    hub.routes.page = 10
    models = list(partner.list_models(sort="created_at"))
    assert [m.id for m in models] == [f"org{n % 2}/m{n}" for n in range(24, -1, -1)]
    assert len([r for r in hub.requests if r.path == "/api/models"]) == 3
    hub.upload("org1/m3", {"x.bin": b"\x00"})
    assert next(iter(partner.list_models(sort="last_modified", limit=1))).id == "org1/m3"
    assert {m.id for m in partner.list_models(author="org0", num_parameters="min:6B,max:9B")} == {
        "org0/m6",
        "org0/m8",
    }
    assert [m.id for m in partner.list_models(search="m17", full=True)] == ["org1/m17"]
    hub.repo("org0/data", kind="dataset")
    assert [d.id for d in partner.list_datasets(sort="created_at")] == ["org0/data"]
    assert list(partner.list_spaces()) == []


def test_faults_on_demand(hub: HubSimulator, owner: HfApi) -> None:
    owner.create_repo(REPO)
    for kind in (500, 403, "cut", "lost"):
        hub.fail(kind, contains="/api/models/acme/model")
        with pytest.raises(Exception, match=r"(?i)server error|forbidden|disconnected|reset|closed"):
            owner.model_info(REPO)
        assert owner.model_info(REPO).id == REPO


def test_the_rate_limit_answers_429_until_the_window_moves(hub: HubSimulator, owner: HfApi) -> None:
    owner.create_repo(REPO)
    hub.rate_limit(2, 30)
    owner.model_info(REPO)
    owner.model_info(REPO)
    with pytest.raises(HfHubHTTPError) as caught:
        owner.model_info(REPO)
    assert caught.value.response.status_code == 429
    assert 1 <= int(caught.value.response.headers["Retry-After"]) <= 31
    hub.calm()
    owner.model_info(REPO)


def test_a_read_token_and_a_wrong_token_change_nothing(hub: HubSimulator, owner: HfApi) -> None:
    owner.create_repo(REPO)
    reader = HfApi(endpoint=hub.endpoint, token=hub.add_user("ro", orgs=["acme"], role="read").token)
    for api in (reader, HfApi(endpoint=hub.endpoint, token="hf_wrong")):
        with pytest.raises(HfHubHTTPError, match=r"403|401"):
            api.update_repo_settings(REPO, private=True)
    assert hub.get(REPO).private is False
