"""Evidence: bound by digest, texts sealed at rest, assessments held to all six considerations."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.domain.evidence import Consideration
from tests.api.conftest import Api

CANARY = "canary text of a model card"
ANSWER = {"finding": CANARY, "rating": "low", "mitigation": "none needed"}


def upload(
    api: Api, data: bytes, kind: str, *, who: str = "mia", media_type: str = "text/markdown", **fields: str
) -> Any:
    files = {"file": ("card.md", data, media_type)}
    form = {"kind": kind, "title": "A document", **fields}
    return api.call(who, "POST", api.path("/evidence/documents"), files=files, data=form)


def test_an_uploaded_document_is_bound_by_its_digest_and_read_back(api: Api) -> None:
    api.create()
    done = api.ok(upload(api, CANARY.encode(), "model_card", step="demo"))
    digest = "sha256:" + hashlib.sha256(CANARY.encode()).hexdigest()
    assert (done["document"]["digest"], done["events"]) == (digest, ["evidence_submitted"])
    bound = api.ok(api.get("sam", api.path("/evidence")))["items"][0]
    read = api.get("sam", bound["location"])
    assert read.content == CANARY.encode()
    assert read.headers["Content-Type"].startswith("text/markdown")
    assert read.headers["Content-Disposition"].startswith("attachment")


def test_the_text_of_a_document_is_nowhere_in_the_database(api: Api) -> None:
    api.create()
    api.ok(upload(api, CANARY.encode(), "model_card"))
    form = {"step": "demo", "title": "Risks", "considerations": dict.fromkeys(Consideration, ANSWER)}
    api.ok(api.post("mia", api.path("/evidence/assessments"), form))
    assert api.engine.url.database is not None
    for suffix in ("", "-wal"):
        assert CANARY.encode() not in Path(api.engine.url.database + suffix).read_bytes()


def test_an_assessment_that_leaves_a_consideration_out_is_refused(api: Api) -> None:
    api.create()
    five = dict.fromkeys(list(Consideration)[:5], ANSWER)
    body = {"step": "demo", "title": "Risks", "considerations": five}
    refused = api.post("mia", api.path("/evidence/assessments"), body)
    assert refused.status_code == 422
    assert "value_judgments" in refused.json()["reasons"][0]["message"]
    assert CANARY not in refused.text


def test_an_uploaded_assessment_gives_its_ratings_to_the_gate(api: Api) -> None:
    api.create()
    answers: dict[str, Any] = dict.fromkeys(Consideration, ANSWER)
    answers["misuse"] = {**ANSWER, "rating": "unacceptable"}
    data = json.dumps({"step": "demo", "considerations": answers}).encode()
    api.ok(upload(api, data, "risk_assessment"))
    unmet = api.gate("demo").json()["verdict"]["unmet"]
    assert [found["message"] for found in unmet if found["code"] == "risk"] == [
        "rated unacceptable, whoever signs: misuse"
    ]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"step": "demo"}', b"[" * 100_000])
def test_an_uploaded_assessment_that_is_none_is_refused(api: Api, data: bytes) -> None:
    api.create()
    assert upload(api, data, "risk_assessment").status_code == 422


def test_an_assessment_for_another_step_is_refused(api: Api) -> None:
    api.create()
    data = json.dumps({"step": "demo", "considerations": dict.fromkeys(Consideration, ANSWER)}).encode()
    assert upload(api, data, "risk_assessment", step="query").status_code == 422


def test_a_document_of_another_release_is_not_given_out(api: Api) -> None:
    api.create()
    api.ok(api.create("other-1"))
    digest = api.ok(upload(api, CANARY.encode(), "model_card"))["document"]["digest"]
    assert api.get("sam", f"/v1/releases/other-1/evidence/documents/{digest}").status_code == 404


def test_a_document_is_never_shown_as_a_page(api: Api) -> None:
    api.create()
    digest = api.ok(upload(api, b"<script>", "model_card", media_type="text/html"))["document"]["digest"]
    read = api.get("sam", api.path(f"/evidence/documents/{digest}"))
    assert read.headers["Content-Type"] == "application/octet-stream"
    assert read.headers["X-Content-Type-Options"] == "nosniff"
