"""The audit log over the API: what it hands out is verified here with nothing but the log's public key."""

from __future__ import annotations

import base64
import json

import pytest

from orchestrator.records import audit, database
from orchestrator.trust.audit import verify_export
from orchestrator.trust.checkpoints import Checkpoint, NoteSigner, sign_checkpoint, verify_proof
from orchestrator.trust.keys import PrivateKey
from orchestrator.trust.merkle import leaf_hash, verify_consistency, verify_inclusion
from tests.api.conftest import RELEASE, Api

SIGNER = NoteSigner("sluice.test/log", PrivateKey.from_seed(bytes(range(32))))


def checkpoint(api: Api) -> int:
    """What custody does: sign the log as it stands."""
    with database.writing(api.engine) as session:
        tree = audit.head(session)
        note = sign_checkpoint(Checkpoint(SIGNER.name, tree.size, tree.root()), SIGNER)
        audit.store_checkpoint(session, note, api.clock())
    return tree.size


@pytest.fixture
def logged(api: Api) -> Api:
    api.ok(api.create())
    api.ok(api.post("sam", api.path("/hold"), {"reason": "look"}))
    api.post("ann", api.path("/hold"), {"reason": "an auditor cannot"})
    return api


def test_every_command_accepted_or_refused_is_an_entry(logged: Api) -> None:
    entries = logged.ok(logged.get("ann", "/v1/audit/entries", params={"release": RELEASE}))["items"]
    leaves = [json.loads(entry["leaf"]) for entry in entries]
    kinds = [leaf["event"]["type"] if leaf["kind"] == "event" else leaf["code"] for leaf in leaves]
    assert kinds[0] == "release_created"
    assert kinds[-2:] == ["hold_placed", "not-permitted"]
    for entry in entries:
        assert leaf_hash(entry["leaf"].encode()).hex() == entry["hash"]
        assert logged.ok(logged.get("ann", f"/v1/audit/entries/{entry['index']}")) == entry


def test_entries_come_in_pages_without_gaps(logged: Api) -> None:
    seen, start = [], 0
    while True:
        page = logged.ok(logged.get("ann", "/v1/audit/entries", params={"start": start, "limit": 7}))
        seen += [entry["index"] for entry in page["items"]]
        if page["next_start"] is None:
            break
        start = page["next_start"]
    assert seen == list(range(page["size"]))


def test_inclusion_is_proved_against_the_signed_root(logged: Api) -> None:
    size = checkpoint(logged)
    shown = logged.ok(logged.get("ann", "/v1/audit/checkpoint"))
    root = base64.b64decode(shown["root"])
    for index in (0, size // 2, size - 1):
        entry = logged.ok(logged.get("ann", f"/v1/audit/entries/{index}"))
        proof = logged.ok(
            logged.get("ann", "/v1/audit/proofs/inclusion", params={"index": index, "size": size})
        )
        path = [base64.b64decode(found) for found in proof["path"]]
        verify_inclusion(bytes.fromhex(entry["hash"]), index, size, path, root)
        text = logged.get("ann", f"/v1/audit/entries/{index}/proof").text
        verify_proof(text, entry["leaf"].encode(), SIGNER.verifier)


def test_a_later_log_is_proved_to_extend_an_earlier_one(logged: Api) -> None:
    old = checkpoint(logged)
    before = base64.b64decode(logged.ok(logged.get("ann", "/v1/audit/checkpoint"))["root"])
    logged.ok(logged.post("lea", logged.path("/hold"), {"reason": "more"}))
    new = checkpoint(logged)
    after = base64.b64decode(logged.ok(logged.get("ann", "/v1/audit/checkpoint"))["root"])
    proof = logged.ok(logged.get("ann", "/v1/audit/proofs/consistency", params={"old": old, "new": new}))
    verify_consistency(old, new, [base64.b64decode(found) for found in proof["path"]], before, after)


def test_the_export_verifies_offline(logged: Api) -> None:
    size = checkpoint(logged)
    exported = logged.get("ann", "/v1/audit/export")
    assert exported.headers["Content-Type"].startswith("application/jsonl")
    verified = verify_export(exported.content.splitlines(keepends=True), SIGNER.verifier)
    assert verified.size == size


@pytest.mark.parametrize(
    "path",
    [
        "/v1/audit/checkpoint",
        "/v1/audit/export",
        "/v1/audit/entries/0/proof",
        "/v1/audit/entries/9999",
        "/v1/audit/proofs/inclusion?index=5&size=3",
        "/v1/audit/proofs/inclusion?index=0&size=9999",
        "/v1/audit/proofs/consistency?old=9&new=3",
    ],
)
def test_what_the_log_does_not_have_is_not_found(logged: Api, path: str) -> None:
    assert logged.get("ann", path).status_code == 404
