"""Binding an artifact as its uploader would: with their permissions as they are now, once however often it is tried."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from activities.binding import BindingActivities
from orchestrator.contracts.messages import BindRequest, CommandMessage, Outcome
from orchestrator.domain.permissions import Permission, Role
from orchestrator.records import artifacts, database, principals
from orchestrator.records.artifacts import Artifact
from tests.artifacts.sealed_world import NOW

MANIFEST = (Path(__file__).parents[1] / "vectors" / "data" / "manifest.dsse.json").read_bytes()


def statement_digest(manifest: bytes) -> str:
    return hashlib.sha256(base64.b64decode(json.loads(manifest)["payload"])).hexdigest()


REQUEST = BindRequest(release="mini-1.0", artifact="art-1", actor="pipeline")


@dataclass
class Releases:
    """Stands where the client stands: keeps what was sent, answers as told."""

    sent: list[tuple[str, str, CommandMessage]] = field(default_factory=list)
    answer: Exception | None = None

    def get_workflow_handle(self, workflow: str) -> Any:
        outer = self

        class Handle:
            async def execute_update(self, name: str, message: CommandMessage, **more: Any) -> Outcome:
                outer.sent.append((workflow, more["id"], message))
                if outer.answer is not None:
                    raise outer.answer
                return Outcome(release="mini-1.0", seq=2, events=["artifact_registered"])

        return Handle()


@pytest.fixture
def sealed(engine: Engine) -> Engine:
    made = Artifact(
        id="art-1",
        manifest_digest=f"sha256:{statement_digest(MANIFEST)}",
        wrapped_root="wrapped",
        location="dir:/store",
        components=["weights"],
        size=7,
        uploader="pipeline",
        created_at=NOW,
    )
    with database.writing(engine) as session:
        artifacts.register(session, made, MANIFEST)
        principals.create(
            session, "pipeline", "Pipeline", [Role.MLOPS], kind="machine", at=NOW, by="operator"
        )
    return engine


async def test_the_command_is_the_uploaders_own_and_the_same_each_time(sealed: Engine) -> None:
    releases = Releases()
    activity = BindingActivities(sealed, releases)  # type: ignore[arg-type]
    first = await activity.bind_artifact(REQUEST)
    assert first == await activity.bind_artifact(REQUEST)
    (workflow, update, message), again = releases.sent
    assert (workflow, update, message) == again
    assert workflow == "release:mini-1.0"
    command: Any = message.command
    assert (command.type, command.actor.id, command.actor.kind) == (
        "register_artifact",
        "pipeline",
        "machine",
    )
    assert Permission.ARTIFACT_ADD in command.actor.permissions
    assert (command.artifact, command.components, command.root) == ("art-1", ["weights"], "wrapped")


async def test_whoever_was_switched_off_since_binds_with_no_permission(sealed: Engine) -> None:
    with database.writing(sealed) as session:
        principals.change(session, "pipeline", active=False, at=NOW, by="operator")
    releases = Releases()
    await BindingActivities(sealed, releases).bind_artifact(REQUEST)  # type: ignore[arg-type]
    assert releases.sent[0][2].command.actor.permissions == frozenset()


@pytest.mark.parametrize(
    ("answer", "type_", "final"),
    [
        (ApplicationError("no", [{"code": "x"}], type="conflict", non_retryable=True), "conflict", True),
        (ApplicationError("later", [], type="unavailable"), "unavailable", False),
    ],
)
async def test_a_refusal_comes_back_with_its_reasons(
    sealed: Engine, answer: ApplicationError, type_: str, final: bool
) -> None:
    releases = Releases(answer=WorkflowUpdateFailedError(answer))
    with pytest.raises(ApplicationError) as refused:
        await BindingActivities(sealed, releases).bind_artifact(REQUEST)  # type: ignore[arg-type]
    assert (refused.value.type, refused.value.non_retryable) == (type_, final)
    assert refused.value.details == answer.details


@pytest.mark.parametrize(
    ("status", "type_", "final"),
    [(RPCStatusCode.NOT_FOUND, "not-found", True), (RPCStatusCode.UNAVAILABLE, "unavailable", False)],
)
async def test_a_release_that_is_not_there_is_final_and_a_silent_server_is_not(
    sealed: Engine, status: RPCStatusCode, type_: str, final: bool
) -> None:
    releases = Releases(answer=RPCError("said", status, b""))
    with pytest.raises(ApplicationError) as refused:
        await BindingActivities(sealed, releases).bind_artifact(REQUEST)  # type: ignore[arg-type]
    assert (refused.value.type, refused.value.non_retryable) == (type_, final)


async def test_an_artifact_that_nobody_registered_is_said(engine: Engine) -> None:
    with pytest.raises(ApplicationError, match="no artifact art-1"):
        await BindingActivities(engine, Releases()).bind_artifact(REQUEST)  # type: ignore[arg-type]
