"""Rotations of keys, issued copies and receipts over the API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from artifacts.keys import partner_identity, partner_keygen
from orchestrator.domain.plan import recipient_digest
from orchestrator.records import audit
from orchestrator.records.database import writing
from orchestrator.trust.delivery import copy_digest, receipt_key, signed_receipt
from orchestrator.trust.keys import PrivateKey
from tests.api.conftest import RELEASE, Api, Sealed

NGO = partner_keygen()
KEY = receipt_key(partner_identity(NGO.identity).raw)
FILES = {"model.bin": "ab" * 32}


@pytest.fixture
def delivered(api: Api, sealed: Sealed) -> tuple[Api, dict[str, Any]]:
    """The release at `download`, with a plan that pins ngo's key for receipts; and ngo's grant."""
    partners = {
        "uni": {"name": "University", "recipient": "sha256:" + "d" * 64},
        "ngo": {
            "name": "NGO",
            "recipient": recipient_digest(NGO.recipient),
            "receipt_keys": [KEY.public.text()],
        },
    }
    create = api.create
    api.create = lambda release=RELEASE, **more: create(release, partners=partners, **more)  # type: ignore[method-assign]
    api.to_download(sealed, NGO.recipient)
    grants = api.ok(api.get("ngo-account", "/v1/grants"))["items"]
    return api, next(grant for grant in grants if grant["kind"] == "key")


def receipt(grant: dict[str, Any], key: PrivateKey = KEY, /, **changes: Any) -> str:
    [artifact] = grant["artifacts"]
    fields = {
        "release": RELEASE,
        "step": grant["step"],
        "grant": grant["id"],
        "partner": "ngo",
        "member": "ngo-account",
        "manifests": {artifact["id"]: artifact["manifest_digest"]},
        "envelope_digest": "sha256:" + "0" * 64,
        "files": FILES,
        "at": changes.pop("at"),
        **changes,
    }
    return signed_receipt(key, **fields)


def test_a_receipt_is_kept_in_the_log_once(delivered: tuple[Api, dict[str, Any]]) -> None:
    api, grant = delivered
    assert grant["receipt_keys"] == [KEY.public.text()]
    path = api.path(f"/grants/{grant['id']}/receipts")
    body = {"envelope": receipt(grant, at=api.clock())}
    first = api.ok(api.post("ngo-account", path, body))
    assert first["copy_digest"] == copy_digest(FILES)
    assert api.ok(api.post("ngo-account", path, body))["entry"] == first["entry"], "sent twice, it is one"
    items = api.ok(api.get("mia", path))["items"]
    assert [item["envelope"] for item in items] == [body["envelope"]]
    leaf = api.ok(api.get("ann", f"/v1/audit/entries/{first['entry']}"))
    assert '"action":"receipt"' in leaf["leaf"]


@pytest.mark.parametrize(
    ("key", "changes", "told"),
    [
        (PrivateKey.generate(), {}, "key"),
        (KEY, {"grant": "download.4.uni"}, "grant"),
        (KEY, {"partner": "uni"}, "partner"),
        (KEY, {"member": "somebody"}, "member"),
        (KEY, {"release": "other-1"}, "release"),
        (KEY, {"manifests": {"art-made-up-by-somebody": "sha256:" + "1" * 64}}, "subject"),
    ],
)
def test_a_receipt_of_something_else_or_by_somebody_else_is_refused(
    delivered: tuple[Api, dict[str, Any]], key: PrivateKey, changes: dict[str, Any], told: str
) -> None:
    api, grant = delivered
    envelope = receipt(grant, key, at=api.clock(), **changes)
    refused = api.post("ngo-account", api.path(f"/grants/{grant['id']}/receipts"), {"envelope": envelope})
    assert refused.status_code == 403, refused.text
    assert told in refused.text


def test_only_the_holder_gives_a_receipt_and_an_old_one_counts_no_more(
    delivered: tuple[Api, dict[str, Any]],
) -> None:
    api, grant = delivered
    path = api.path(f"/grants/{grant['id']}/receipts")
    envelope = receipt(grant, at=api.clock())
    assert api.post("mia", path, {"envelope": envelope}).status_code == 403
    assert api.post("uni-account", path, {"envelope": envelope}).status_code == 404
    old = receipt(grant, at=datetime(2001, 1, 1, tzinfo=UTC))
    assert api.post("ngo-account", path, {"envelope": old}).status_code == 403
    assert api.post("ngo-account", path, {"envelope": "{}"}).status_code == 403


def test_keys_are_rotated_by_one_person_and_said_honestly(delivered: tuple[Api, dict[str, Any]]) -> None:
    api, grant = delivered
    body = {"components": ["weights"], "reason": "a laptop was lost"}
    asked = {"command": {"type": "rotate_keys", **body}}
    before = api.ok(api.post("sam", api.path("/steps/open/gate/preview"), asked))
    assert any("no key of the old files was ever handed over" in words for words in before["consequences"])
    api.ok(api.post("olaf", api.path("/rotate-keys"), body))
    assert api.ok(api.post("olaf", api.path("/rotate-keys"), body))["events"] == [], (
        "being sealed anew already"
    )
    found = api.ok(api.get("ann", api.path("/rotations")))
    [rotation] = found["items"]
    assert (rotation["status"], rotation["artifacts"]) == ("pending", [grant["artifacts"][0]["id"]])
    assert rotation["disclosed"] == "no key of the old files was ever handed over"
    gate = api.gate("open").json()["verdict"]
    assert "rotation" in {condition["code"] for condition in gate["unmet"]}
    assert api.post("ci", api.path("/rotate-keys"), body).status_code == 403
    unknown = api.post("olaf", api.path("/rotate-keys"), {**body, "components": ["nothing"]})
    assert unknown.status_code == 422


def test_issued_copies_are_found_by_digest_and_a_partner_sees_its_own(
    delivered: tuple[Api, dict[str, Any]],
) -> None:
    api, grant = delivered
    for holder in ("ngo", "uni"):
        body = {
            "action": "copy_made",
            "step": "download",
            "attempt": 4,
            "grant": f"download.4.{holder}",
            "holder": holder,
            "of": grant["artifacts"][0]["id"],
            "copy": f"art-copy-of-{holder}",
            "manifest": "sha256:" + "2" * 64,
            "mark": {"artifact": "a", "as": holder, "commitment": "sha256:" + "3" * 64, "strength": 0.003},
            "files": [{"path": "m", "size": 1, "sha256": holder, "btv2_root": None, "xet_hash": None}],
        }
        with writing(api.engine) as session:
            audit.append(session, "custody", body, at=api.clock() + timedelta(0), release=RELEASE)
    items = api.ok(api.get("mia", api.path("/copies")))["items"]
    assert [(c["holder"], c["artifact"]) for c in items] == [
        ("ngo", "art-copy-of-ngo"),
        ("uni", "art-copy-of-uni"),
    ]
    own = api.ok(api.get("ngo-account", api.path("/copies")))["items"]
    assert [copy["holder"] for copy in own] == ["ngo"]
