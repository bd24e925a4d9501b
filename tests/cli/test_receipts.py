"""A partner's client signs what it received: sent where the plan pins its key, said where it was not."""

from __future__ import annotations

import json

import httpx
import pytest

from artifacts.keys import partner_identity
from orchestrator.trust.delivery import copy_digest, receipt_key
from orchestrator.trust.signing import verify_single
from orchestrator.trust.statements import Receipt, parse
from tests.cli.test_fetch import GRANT, RELEASE, fetch, made

__all__ = ["fetch", "made"]


@pytest.fixture
def key(made):
    return receipt_key(partner_identity((made.home / "partner.key").read_text()).raw)


def served(made, posted: list, *, status: int = 201, **grant):
    inner = made.serve(made.envelope(), holder="uni", **grant)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/me":
            return httpx.Response(200, json={"id": "uni-account"})
        if request.url.path == f"/v1/releases/{RELEASE}/grants/{GRANT}/receipts":
            posted.append(json.loads(request.content)["envelope"])
            problem = {"title": "Not permitted", "detail": "no", "status": 403, "code": "x", "reasons": []}
            kept = {"statement": "sha256:" + "1" * 64, "copy_digest": "sha256:" + "2" * 64}
            return httpx.Response(status, json=kept if status == 201 else problem)
        return inner.handle_request(request)

    return httpx.MockTransport(answer)


def test_the_receipt_names_what_was_opened(fetch, made, key):
    posted: list[str] = []
    ran = fetch(served(made, posted, receipt_keys=[key.public.text() + " a comment"]))
    assert ran.code == 0, ran.err
    assert [one["sent"] for one in ran.json["receipts"]] == [True]
    receipt = parse(verify_single(posted[0].encode(), [key.public]).payload, Receipt)
    said = receipt.predicate
    assert (said.release, said.grant, said.partner, said.member) == (RELEASE, GRANT, "uni", "uni-account")
    assert said.copy_digest == copy_digest({f["path"]: f["sha256"] for f in ran.json["files"]})
    assert [(s.name, s.digest) for s in receipt.subjects] == [
        (made.payload.artifact_id, f"sha256:{made.digest}")
    ]


def test_without_a_pinned_key_or_with_another_one_the_copy_is_there_all_the_same(fetch, made, key):
    posted: list[str] = []
    ran = fetch(served(made, posted))
    assert (ran.code, posted) == (0, [])
    ran = fetch(served(made, posted, receipt_keys=["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG"]))
    assert (ran.code, posted) == (0, [])
    assert "another key of yours" in ran.json["receipts"][0]["why"]
    ran = fetch(served(made, posted, receipt_keys=[key.public.text()]), "--no-receipt")
    assert (ran.code, posted, ran.json["receipts"]) == (0, [], [])


def test_a_receipt_that_the_service_refuses_is_said(fetch, made, key):
    posted: list[str] = []
    ran = fetch(served(made, posted, status=403, receipt_keys=[key.public.text()]))
    assert ran.code == 0
    assert ran.json["receipts"][0] == {"sent": False, "why": "Not permitted: no"}


def test_the_key_that_follows_from_the_partners_own_is_shown(made, key, sluice):
    ran = sluice("partner", "receipt-key", made.home / "partner.key", "--json")
    assert ran.code == 0
    assert ran.json == {"receipt_key": key.public.text(), "recipient": made.recipient}
