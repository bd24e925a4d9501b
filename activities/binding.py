"""Binding a registered artifact to a release, as its uploader would: one update on the release's workflow.

The uploader's permissions are read from the records at that moment: whoever lost the permission to add artifacts since
the ingest began binds nothing. The command's id derives from the artifact, so that a retry is one command.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine
from temporalio import activity
from temporalio.client import Client, WorkflowUpdateFailedError

from activities.errors import at_the_edge
from activities.updating import carry_out, refusal
from artifacts.manifest import parse_manifest
from orchestrator.contracts import names
from orchestrator.contracts.messages import BindRequest, Outcome
from orchestrator.domain.commands import Actor, KeyShares, RegisterArtifact
from orchestrator.domain.errors import NotFound
from orchestrator.records import artifacts, principals
from orchestrator.records.database import reading


class BindingActivities:
    """The activity `bind_artifact`.

    Args:
        engine: of the records.
        client: connected, with the product's plugin.
    """

    def __init__(self, engine: Engine, client: Client) -> None:
        self._engine, self._client = engine, client

    @property
    def all(self) -> list[Callable[..., Any]]:
        """Every activity, for a worker."""
        return [self.bind_artifact]

    @activity.defn(name=names.BIND_ARTIFACT)
    async def bind_artifact(self, request: BindRequest) -> Outcome:
        """Register the artifact with the release, on behalf of its uploader; doing it twice is doing it once.

        Raises:
            ApplicationError: the release refused (its code and reasons), or is not there: not retried.
        """
        with at_the_edge():
            gone = NotFound(f"there is no release {request.release} that takes commands")
            try:
                return await carry_out(self._client, request.release, self._command(request), gone=gone)
            except WorkflowUpdateFailedError as error:
                raise refusal(error) from None

    def _command(self, request: BindRequest) -> RegisterArtifact:
        with reading(self._engine) as session:
            found = artifacts.get(session, request.artifact)
            who = principals.get(session, request.actor)
            manifest = artifacts.manifest(session, request.artifact)
        return RegisterArtifact(
            command_id=f"{who.id}:ingest-{found.id}",
            actor=Actor(id=who.id, kind=who.kind, permissions=who.permissions),
            artifact=found.id,
            manifest_digest=found.manifest_digest,
            components=found.components,
            location=found.location,
            root=found.wrapped_root,
            size=found.size,
            shares=key_shares(manifest, found.manifest_digest),
        )


def key_shares(manifest: bytes, digest: str) -> KeyShares | None:
    """That people hold shares of an artifact's key, as its manifest says."""
    dealt = parse_manifest(manifest, expected_digest=digest.removeprefix("sha256:")).shares
    return None if dealt is None else KeyShares(threshold=dealt.threshold, holders=dealt.names)
