"""Links to sealed files over the API, into a bucket of a real S3 server: to the holder of a live grant, short, and logged."""

from __future__ import annotations

import base64
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from artifacts.keys import custody_keygen, partner_keygen
from artifacts.manifest import file_object_key
from artifacts.sealing import seal_tree
from artifacts.signing import SigningKey
from artifacts.stores import Store, open_store
from infra.links import StoreLinks
from orchestrator.api.limiting import Limiter
from tests.api.conftest import Api, Sealed
from tests.artifacts.stores.servers import S3Server, moto_server

RECIPIENT = partner_keygen().recipient
URI = "s3://links/sealed"


@dataclasses.dataclass
class Bucket:
    server: S3Server
    store: Store
    sealed: Sealed


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    folder = tmp_path_factory.mktemp("plain")
    (folder / "model.bin").write_bytes(b"weights" * 100)
    (folder / "tokenizer.json").write_bytes(b"{}")
    (folder / "notes.txt").write_bytes(b"not for partners")
    with moto_server() as server:
        server.client().create_bucket(Bucket="links")
        store = open_store(URI, **server.options)
        found = seal_tree(
            folder,
            store,
            custody_recipient=custody_keygen().recipient,
            signer=SigningKey.generate(),
            components={"weights": "model.bin", "tokenizer": "tokenizer.json", "notes": "notes.txt"},
        )
        body = {
            "manifest": base64.b64encode(found.manifest).decode(),
            "digest": f"sha256:{found.manifest_digest}",
            "location": URI,
            "wrapped_root": found.wrapped_root,
        }
        yield Bucket(server, store, Sealed(found.artifact_id, body, found.manifest))
        store.close()


@pytest.fixture
def granted(api: Api, bucket: Bucket) -> Iterator[Any]:
    """A partner with a live grant of `weights` and `tokenizer`, and an API that signs links with credentials of its own."""
    opened: list[Store] = []

    def open_it(uri: str) -> Store:
        opened.append(open_store(uri, **bucket.server.options))
        return opened[-1]

    deps = dataclasses.replace(
        api.deps,
        links=StoreLinks(URI, open_it),
        settings=dataclasses.replace(api.deps.settings, link_seconds=60),
    )
    api.app.state.deps = deps

    def bind(sealed: Sealed, release: str) -> None:
        """Only what the plan speaks of: the notes lie in the same artifact and belong to no step."""
        api.ok(api.post("ci", "/v1/artifacts", sealed.body))
        body = {"artifact": sealed.id, "components": ["weights", "tokenizer"]}
        api.ok(api.post("ci", api.path("/artifacts", release), body))

    api.bind = bind  # type: ignore[method-assign]
    api.to_download(bucket.sealed, RECIPIENT)
    grants = api.ok(api.get("ngo-account", "/v1/grants"))["items"]
    grant = next(g for g in grants if g["kind"] == "key")
    yield api.path(f"/grants/{grant['id']}/links")
    for store in opened:
        store.close()


def ask(api: Api, path: str, bucket: Bucket, *paths: str, who: str = "ngo-account") -> Any:
    return api.post(who, path, {"artifact": bucket.sealed.id, "paths": list(paths)})


def test_a_link_reads_the_ciphertext_and_nothing_else(api: Api, granted: str, bucket: Bucket) -> None:
    found = api.ok(ask(api, granted, bucket, "model.bin", "tokenizer.json"))
    assert found["expires_in"] == 60
    assert [item["path"] for item in found["items"]] == ["model.bin", "tokenizer.json"]
    for item in found["items"]:
        key = file_object_key(bucket.sealed.id, item["path"])
        info = bucket.store.stat(key)
        assert info is not None
        got = httpx.get(item["url"])
        assert got.status_code == 200
        assert got.content == bucket.store.get_range(key, 0, info.size)
        assert b"weights" not in got.content
        assert "X-Amz-Expires=60" in item["url"]
        assert "test-secret" not in item["url"]


def test_that_links_left_is_logged_and_the_links_are_not(api: Api, granted: str, bucket: Bucket) -> None:
    api.ok(ask(api, granted, bucket, "model.bin"))
    entries = api.ok(api.get("ann", "/v1/audit/entries", params={"kind": "access"}))["items"]
    leaf = entries[-1]["leaf"]
    assert '"action":"links"' in leaf
    assert '"actor":"ngo-account"' in leaf
    assert bucket.sealed.id in leaf
    assert "X-Amz" not in leaf
    assert "http" not in leaf


@pytest.mark.parametrize("path", ["notes.txt", "../manifest.dsse.json", "nothing.bin", "/etc/passwd"])
def test_a_file_that_the_grant_does_not_cover_gets_no_link(
    api: Api, granted: str, bucket: Bucket, path: str
) -> None:
    refused = ask(api, granted, bucket, "model.bin", path)
    assert refused.status_code == 404
    assert "X-Amz" not in refused.text
    entries = api.ok(api.get("ann", "/v1/audit/entries", params={"kind": "access"}))["items"]
    assert not any('"action":"links"' in entry["leaf"] for entry in entries)


def test_nobody_else_gets_links(api: Api, granted: str, bucket: Bucket) -> None:
    assert ask(api, granted, bucket, "model.bin", who="uni-account").status_code == 404
    for who in ("mia", "sam", "ann", "olaf", "ci"):
        assert ask(api, granted, bucket, "model.bin", who=who).status_code == 403


def test_no_links_on_hold_and_none_after_revocation(api: Api, granted: str, bucket: Bucket) -> None:
    api.ok(ask(api, granted, bucket, "model.bin"))
    api.ok(api.post("sam", api.path("/hold"), {"reason": "look"}))
    assert ask(api, granted, bucket, "model.bin").status_code == 409
    api.ok(api.post("mia", api.path("/revoke"), {"partner": "ngo", "reason": "terms"}))
    refused = ask(api, granted, bucket, "model.bin")
    assert refused.status_code == 409
    assert "gives no access any more" in refused.json()["detail"]


def test_asking_too_often_is_told_when_to_come_back(api: Api, granted: str, bucket: Bucket) -> None:
    api.app.state.limiter = Limiter(principals=None, strangers=None, links="2/day")
    for _ in range(2):
        api.ok(ask(api, granted, bucket, "model.bin"))
    refused = ask(api, granted, bucket, "model.bin")
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) >= 1


@pytest.mark.parametrize(
    "location", ["s3://somebody-elses/bucket", "s3://links/sealed/deeper", "dir:/sealed", "hf:a/b"]
)
def test_links_are_made_into_no_other_store_whatever_was_registered(bucket: Bucket, location: str) -> None:
    assert not StoreLinks(URI, lambda _uri: bucket.store).serves(location)


def test_where_no_links_can_be_made_that_is_said(api: Api, granted: str, bucket: Bucket) -> None:
    api.app.state.deps = dataclasses.replace(api.app.state.deps, links=None)
    refused = ask(api, granted, bucket, "model.bin")
    assert refused.status_code == 409
    assert [reason["code"] for reason in refused.json()["reasons"]] == ["no-links"]


def test_an_artifact_of_another_release_gets_no_link(api: Api, granted: str) -> None:
    refused = api.post("ngo-account", granted, {"artifact": "art-other", "paths": ["model.bin"]})
    assert refused.status_code == 404


@pytest.mark.parametrize("paths", [[], ["x"] * 501, [""], ["a" * 1025]])
def test_a_malformed_wish_is_refused(api: Api, granted: str, bucket: Bucket, paths: list[str]) -> None:
    assert ask(api, granted, bucket, *paths).status_code == 422


def test_a_store_that_cannot_be_opened_is_unavailable_and_not_a_crash(
    api: Api, granted: str, bucket: Bucket, tmp_path: Path
) -> None:
    from artifacts.errors import StoreUnavailable

    def broken(_uri: str) -> Store:
        raise StoreUnavailable("no credentials")

    api.app.state.deps = dataclasses.replace(api.app.state.deps, links=StoreLinks(URI, broken))
    assert ask(api, granted, bucket, "model.bin").status_code == 503
