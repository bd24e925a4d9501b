"""The typed client against the real API, against answers that are lost or strange, and against OpenAPI itself."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import yaml
from pydantic import BaseModel

from examples import ci_release
from infra import client_code
from orchestrator.client import AsyncSluice, ClientError, Sluice, errors, etag, models, operations
from orchestrator.client.calls import Call, Model
from tests.api.conftest import RELEASE, Api, Sealed
from tests.api.test_sign_in import provider, service
from tests.support.plans import five_stages

__all__ = ["provider", "service"]
ROOT = Path(__file__).resolve().parents[2]


def through(client: Any) -> httpx.BaseTransport:
    """Requests go to the application in this process."""

    def handler(request: httpx.Request) -> httpx.Response:
        told = {name: value for name, value in request.headers.items() if name != "host"}
        found = client.request(
            request.method, str(request.url), content=request.read(), headers=told, follow_redirects=False
        )
        kept = {n: v for n, v in found.headers.items() if n not in {"content-length", "content-encoding"}}
        return httpx.Response(found.status_code, headers=kept, content=found.content)

    return httpx.MockTransport(handler)


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    return client_code.document()


class Strict(Sluice):
    """Refuses what is not documented."""

    def do(self, call: Call[Any]) -> Any:
        answer = super().do(call)
        undocumented = list(extra(answer, call.operation))
        assert not undocumented, undocumented
        return answer


def extra(value: Any, where: str) -> Iterator[str]:
    if isinstance(value, BaseModel):
        yield from (f"{where}.{name}" for name in value.model_extra or {})
        for name in type(value).model_fields:
            yield from extra(getattr(value, name), f"{where}.{name}")
    elif isinstance(value, list):
        for item in value:
            yield from extra(item, where)
    elif isinstance(value, dict):
        for item in value.values():
            yield from extra(item, where)


def of(api: Api, who: str) -> Strict:
    return Strict("http://testserver", api.tokens[who], transport=through(api.client))


# --- one with OpenAPI


def test_the_client_is_that_of_the_api(openapi: dict[str, Any]) -> None:
    for path, text in client_code.made(openapi):
        assert path.read_text(encoding="utf-8") == text, "stale: run python -m infra.client_code"


def test_every_operation_can_be_called_and_every_parameter_given(openapi: dict[str, Any]) -> None:
    known = set()
    for path, methods in openapi["paths"].items():
        for method, about in methods.items():
            function = getattr(operations, client_code.function_of(about["operationId"]))
            names = inspect.signature(function).parameters
            wanted = {client_code._argument(p["name"]) for p in about.get("parameters", [])}
            assert wanted <= set(names), about["operationId"]
            given = {name: "1" for name, p in names.items() if p.default is p.empty}
            if "body" in given:
                given["body"] = {}  # type: ignore[assignment]
            call = function(**given)
            filled = path
            for part in wanted & {name for name in given if "{" + name + "}" in path}:
                filled = filled.replace("{" + part + "}", "1")
            assert (call.operation, call.method, call.path) == (about["operationId"], method.upper(), filled)
            assert call.keyed == any(p["name"] == "Idempotency-Key" for p in about.get("parameters", []))
            known.add(function.__name__)
    made = {
        n
        for n, f in inspect.getmembers(operations, inspect.isfunction)
        if f.__module__ == operations.__name__
    }
    assert made == known


def test_every_schema_is_a_model_with_its_members(openapi: dict[str, Any]) -> None:
    for name, schema in openapi["components"]["schemas"].items():
        found = getattr(models, client_code._class(name))
        if schema.get("type") == "object":
            assert set(found.model_fields) == set(schema["properties"]), name
            required = {field for field, info in found.model_fields.items() if info.is_required()}
            constants = {field for field, about in schema["properties"].items() if "const" in about}
            assert required == set(schema.get("required", [])) - constants, name


# --- with the real API


def test_a_release_by_the_client_alone(api: Api, sealed: Sealed) -> None:
    with of(api, "mia") as mia, of(api, "ci") as ci, of(api, "sam") as sam, of(api, "olaf") as olaf:
        body = {"id": RELEASE, "name": "mini", "version": "1", "plan": five_stages()}
        made = mia.do(operations.create_release(body, idempotency_key="k1"))
        again = mia.do(operations.create_release(models.CreateReleaseBody(**body), idempotency_key="k1"))
        assert (made.repeated, again.repeated, made.release) == (False, True, RELEASE)
        ci.do(operations.register_artifact(models.ArtifactBody(**sealed.body)))
        ci.do(operations.bind_artifact(RELEASE, {"artifact": sealed.id}))
        card = ci.do(
            operations.upload_evidence(
                RELEASE, ("card.md", b"# Card", "text/markdown"), "model_card", "Card", step="demo"
            )
        )
        assert ci.do(operations.get_evidence_document(RELEASE, card.document.digest)) == b"# Card"
        answer = {"finding": "none found", "rating": "low", "mitigation": "none needed"}
        considerations = models.AssessmentBody.model_fields["considerations"]
        assert considerations.is_required()
        form = {"step": "demo", "title": "Risks", "considerations": _considerations(answer)}
        mia.do(operations.submit_assessment(RELEASE, form))
        for kind in ("rate_limit", "user_accounts", "input_monitoring"):
            olaf.do(operations.report_control(RELEASE, "demo", kind, models.ControlBody(in_force=True)))
        gate = sam.do(operations.get_gate(RELEASE, "demo"))
        decision = models.SignOffBody(
            role="safety", decision="approve", subject=str(gate.verdict.subject_digest)
        )
        with pytest.raises(errors.PreconditionRequired):
            sam.do(operations.sign_off(RELEASE, "demo", decision))
        with pytest.raises(errors.GateChanged):
            sam.do(operations.sign_off(RELEASE, "demo", decision, if_match='"old"'))
        signed = sam.do(operations.sign_off(RELEASE, "demo", decision, if_match=etag(gate)))
        assert signed.events[0] == "signed_off"
        assert mia.do(operations.get_release(RELEASE)).current == "demo"
        for call in (
            operations.get_plan(RELEASE),
            operations.list_steps(RELEASE),
            operations.get_step(RELEASE, "query"),
            operations.list_evidence(RELEASE),
            operations.list_release_grants(RELEASE),
            operations.get_artifact(sealed.id),
            operations.get_me(),
            operations.list_pending(),
            operations.list_rotations(RELEASE),
            operations.list_copies(RELEASE),
        ):
            mia.do(call)
        assert ci.do(operations.get_manifest(sealed.id)) == sealed.manifest
        preview = {"command": models.HoldAsked(reason="look")}
        assert mia.do(operations.preview_command(RELEASE, "query", preview)).accepted


def _considerations(answer: dict[str, str]) -> dict[str, dict[str, str]]:
    from orchestrator.domain.evidence import Consideration

    return {str(name): answer for name in Consideration}


def test_lists_are_walked_to_their_end_whatever_their_cursor_is_called(api: Api) -> None:
    for n in range(5):
        api.ok(api.create(f"mini-{n}"))
    with of(api, "mia") as mia, of(api, "ann") as ann:
        names = {release.id for release in mia.items(operations.list_releases(limit=2))}
        assert names == {f"mini-{n}" for n in range(5)}
        events = list(mia.items(operations.list_all_events(limit=2)))
        assert [event.id for event in events] == sorted({event.id for event in events})
        entries = list(ann.items(operations.list_audit_entries(limit=2)))
        assert [entry.index for entry in entries] == list(range(len(entries)))
        assert (
            len(entries) >= len(events) == sum(len(list(mia.items(operations.list_events(n)))) for n in names)
        )


def test_refusals_are_errors_with_every_reason(api: Api) -> None:
    with of(api, "mia") as mia, of(api, "uni-account") as uni:
        with pytest.raises(errors.Malformed) as malformed:
            mia.do(operations.create_release({"name": "x", "version": "1", "plan": {}}))
        assert {reason.path for reason in malformed.value.reasons} >= {"body.plan.title", "body.plan.steps"}
        assert malformed.value.request_id
        api.ok(api.create())
        with pytest.raises(errors.Conflict):
            mia.do(
                operations.create_release({"id": RELEASE, "name": "y", "version": "1", "plan": five_stages()})
            )
        with pytest.raises(errors.NotFound):
            uni.do(operations.get_release(RELEASE))
        with pytest.raises(errors.Forbidden):
            mia.do(operations.list_principals())
    stranger = Sluice("http://testserver", "slt_" + "a" * 43, transport=through(api.client))
    with stranger, pytest.raises(errors.NotSignedIn):
        stranger.do(operations.get_me())


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """The application behind a real server, whose answers come as they are made."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


def test_events_are_waited_for(api: Api) -> None:
    api.ok(api.create())
    with listening(api.app) as url, Sluice(url, api.tokens["mia"]) as mia:
        first = mia.wait_for(RELEASE, "step_entered", within=20)
        assert (first.data["step"], list(extra(first, "event"))) == ("inside", [])
        later = threading.Timer(0.2, lambda: mia.do(operations.abort(RELEASE, {"reason": "enough"})))
        later.start()
        rest = [event.type for event in mia.events(RELEASE, after=first.seq)]
        later.join()
        assert rest == ["aborted"]
        with pytest.raises(errors.NotSeen, match="has ended without"):
            mia.wait_for(RELEASE, "no_such_thing", within=20)


def test_the_asynchronous_client_does_the_same(api: Api) -> None:
    for n in range(3):
        api.ok(api.create(f"mini-{n}"))
    transport = httpx.ASGITransport(app=api.app)

    async def walk() -> tuple[list[str], str]:
        async with AsyncSluice("http://testserver", api.tokens["mia"], transport=transport) as mia:
            found = [one.id async for one in mia.items(operations.list_releases(limit=1))]
            with pytest.raises(errors.NotFound):
                await mia.do(operations.get_release("none"))
            await mia.do(operations.abort("mini-0", {"reason": "enough"}))
            ended = await mia.wait_for("mini-0", "aborted", within=20)
            return found, ended.type

    found, ended = asyncio.run(walk())
    assert (set(found), ended) == ({"mini-0", "mini-1", "mini-2"}, "aborted")


# --- answers that are lost or strange


def mocked(handler: Any, token: Any = "slt_x", pauses: list[float] | None = None) -> Sluice:
    sleep = (pauses if pauses is not None else []).append
    return Sluice("https://sluice.example", token, transport=httpx.MockTransport(handler), sleep=sleep)


RESULT = {
    "release": "r",
    "seq": 2,
    "events": ["hold_placed"],
    "repeated": False,
    "server_time": "2026-01-01T00:00:00Z",
}


def test_a_keyed_command_without_an_answer_is_sent_again_under_its_key_and_another_is_not() -> None:
    seen: list[tuple[str | None, str]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append((request.headers.get("Idempotency-Key"), request.headers["Authorization"]))
        if len(seen) < 3:
            raise httpx.ReadTimeout("slow", request=request)
        return httpx.Response(200, json=RESULT)

    tokens = iter(["one", "two", "three", "four"])
    with mocked(handler, lambda: next(tokens)) as sluice:
        assert sluice.do(operations.hold("r", models.ReasonBody(reason="x"))).seq == 2
        assert len({key for key, _ in seen}) == 1
        assert [asked for _, asked in seen] == ["Bearer one", "Bearer two", "Bearer three"], (
            "short-lived ones"
        )
        seen.clear()
        with pytest.raises(errors.Unreachable):
            sluice.do(operations.redrive_webhook("wh-1", {"number": 1}))
        assert len(seen) == 1


def test_a_busy_service_is_asked_again_when_it_says_and_given_up_in_the_end() -> None:
    pauses: list[float] = []
    busy = {"title": "T", "status": 503, "detail": "D", "code": "unavailable", "reasons": []}

    def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(503, json=busy, headers={"Retry-After": "7"})

    with mocked(handler, pauses=pauses) as sluice, pytest.raises(errors.Unavailable, match="T: D"):
        sluice.do(operations.get_me())
    assert pauses == [7, 7, 7]


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(302, headers={"Location": "https://evil.example/"}),
        httpx.Response(200, content=b"<html>"),
        httpx.Response(200, json={"release": "r"}),
    ],
)
def test_what_is_not_the_api_is_told_and_gets_no_second_request(answer: httpx.Response) -> None:
    asked = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return answer

    with mocked(handler) as sluice, pytest.raises(errors.NotTheApi):
        sluice.do(operations.get_release("r"))
    assert asked == ["sluice.example"]


def test_a_token_does_not_travel_in_clear() -> None:
    with pytest.raises(ClientError, match="https alone"):
        Sluice("http://sluice.example", "slt_x")


def test_what_a_newer_service_adds_is_kept_and_what_was_not_set_is_not_sent() -> None:
    found = models.CommandResult.model_validate({**RESULT, "newer": 1})
    assert found.model_extra == {"newer": 1}
    sent = operations.preview_command("r", "s", {"command": models.HoldAsked(reason="x")}).body
    assert json.loads(json.dumps(sent)) == {"command": {"type": "hold", "reason": "x"}}
    assert isinstance(found, Model)


def test_a_name_stays_in_its_place_in_the_path() -> None:
    assert operations.hold("../me?x#y", {"reason": "x"}).path == "/v1/releases/..%2Fme%3Fx%23y/hold"


# --- the example


@pytest.mark.stack
def test_a_ci_job_seals_registers_and_starts_a_release_with_its_own_identity(
    service: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from artifacts.keys import custody_keygen

    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint/model.bin").write_bytes(b"weights" * 1000)
    (tmp_path / "checkpoint/tokenizer.json").write_bytes(b"{}")
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(five_stages()))
    (tmp_path / "custody.json").write_text(json.dumps({"recipient": custody_keygen().recipient}))
    claims = {"sub": "repo:lab/models", "aud": "https://sluice.example", "repository": "lab/models"}
    token = tmp_path / "token"
    monkeypatch.setenv("SLUICE_ID_TOKEN_FILE", str(token))
    words = [
        "mini", "1", "--plan", str(tmp_path / "plan.yaml"), "--checkpoint", str(tmp_path / "checkpoint"),
        "--component", "weights=model.bin", "--component", "tokenizer=tokenizer.json",
        "--custody", str(tmp_path / "custody.json"), "--store", f"dir:{tmp_path / 'store'}",
        "--artifact", "mini-checkpoint-1", "--signing-key", str(tmp_path / "keys/sealing.key"), "--until", "inside", "--within", "20",
    ]  # fmt: skip

    with listening(service.client.app) as url:
        monkeypatch.setenv("SLUICE_URL", url)

        def job() -> int:
            return ci_release.main(words)

        token.write_text(service.provider.token(**claims, ref="refs/heads/evil", preferred_username=None))
        assert job() == 1
        assert "not" in capsys.readouterr().err
        token.write_text(service.provider.token(**claims, ref="refs/heads/main", preferred_username=None))
        for _ in range(2):  # run again it is the same release
            assert job() == 0, capsys.readouterr().err
        told = capsys.readouterr().out
        assert ("mini-1 is created" in told, "mini-1 was created" in told) == (True, True)
        with Sluice(url, service.api.tokens["ann"]) as ann:
            found = ann.do(operations.get_release("mini-1"))
            assert (found.creator, found.current) == ("ci-models", "inside")
            assert [one.id for one in found.artifacts] == ["mini-checkpoint-1"]
    assert (tmp_path / "keys/sealing.key").stat().st_mode & 0o077 == 0
    assert b"weights" * 4 not in b"".join(
        p.read_bytes() for p in (tmp_path / "store").rglob("*") if p.is_file()
    )


def test_the_example_of_a_workflow_runs_the_example_with_arguments_that_it_takes() -> None:
    job = yaml.safe_load((ROOT / "examples/ci_release.yml").read_text())["jobs"]["release"]
    words = job["steps"][-1]["run"].split()
    assert words[:2] == ["python", "ci_release.py"]
    options = [word for word in words if word.startswith("--")]
    known = inspect.getsource(ci_release.parsed)
    assert options
    assert [option for option in options if f'"{option}"' not in known] == []
    assert set(job["steps"][-1]["env"]) == {"VERSION", "SLUICE_URL", "SLUICE_AUDIENCE"}
