"""Sealed artifacts: registered by their signed manifest, bound to releases; ingests that seal on a transfer worker."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.concurrency import run_in_threadpool

from orchestrator.api import administration as adm
from orchestrator.api import bodies, views
from orchestrator.api.auth import Caller, commanded, guarded, looks, requires, state_of, visible
from orchestrator.api.context import context_of
from orchestrator.api.deps import Deps, Parts
from orchestrator.api.routers.releases import Cursor, Limit
from orchestrator.api.sending import Sending, sends
from orchestrator.contracts.messages import IngestInput
from orchestrator.domain import commands as cmd
from orchestrator.domain.deciding import short_id
from orchestrator.domain.errors import Conflict, Malformed, NotFound, NotPermitted, Reason
from orchestrator.domain.permissions import Permission
from orchestrator.domain.values import Name, digest
from orchestrator.records import artifacts, audit, database, signatures
from orchestrator.records.artifacts import Artifact

router = APIRouter(prefix="/v1", tags=["artifacts"])

ArtifactId = Annotated[Name, Path(description="id of the artifact")]
Uploader = Annotated[Caller, Depends(requires(Permission.ARTIFACT_ADD))]
Looker = Annotated[Caller, Depends(looks(Permission.ARTIFACT_ADD))]
_MANIFEST = {
    200: {
        "description": "the signed manifest, byte for byte",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post(
    "/artifacts", operation_id="registerArtifact", **guarded(Permission.ARTIFACT_ADD, 409, 413, success=201)
)
def register(body: adm.ArtifactBody, caller: Uploader, deps: Parts) -> adm.ArtifactDetail:
    """Register a sealed artifact. The manifest is held to every rule of its format; the same one again is the same."""
    data = _decoded(body.manifest, "manifest")
    facts = deps.formats.read_manifest(data, digest=body.digest)
    now = deps.now()
    artifact = Artifact(
        id=facts.artifact,
        manifest_digest=facts.digest,
        wrapped_root=body.wrapped_root,
        location=body.location,
        components=sorted(facts.components),
        size=facts.size,
        uploader=caller.id,
        created_at=now,
    )
    signature = None if body.signature is None else _decoded(body.signature, "signature")
    key_id = ""
    if signature is not None:
        key_id = deps.formats.read_signature(signature, artifact=facts.artifact, digest=facts.digest)
    with database.writing(deps.engine) as session:
        found = artifacts.register(session, artifact, data)
        if signature is not None and found.uploader != caller.id:
            raise NotPermitted(
                f"{found.uploader} registered {found.id}; nobody else adds its weight signature",
                [Reason("uploader", f"let {found.uploader} send it", "body.signature")],
            )
        if signature is not None:
            signatures.put(session, found.id, signature, key_id=key_id, by=caller.id, at=now)
        if found is artifact:
            audit.append(
                session,
                "admin",
                {
                    "action": "artifact_registered",
                    "actor": caller.id,
                    "artifact": found.id,
                    "manifest_digest": found.manifest_digest,
                },
                at=now,
            )
    return adm.ArtifactDetail(**adm.artifact_fields(found), server_time=now)


def _decoded(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed(
            f"the {what} is not base64",
            [Reason("base64", f"encode the {what} file as it is", f"body.{what}")],
        ) from None


@router.get("/artifacts", operation_id="listArtifacts", **guarded(Permission.ARTIFACT_READ))
def list_artifacts(
    caller: Annotated[Caller, Depends(requires(Permission.ARTIFACT_READ))],
    deps: Parts,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> adm.ArtifactPage:
    """Artifacts, newest first."""
    with database.reading(deps.engine) as session:
        page = artifacts.list_artifacts(session, cursor=cursor, limit=limit)
    items = [adm.ArtifactView(**adm.artifact_fields(found)) for found in page.items]
    return adm.ArtifactPage(items=items, next_cursor=page.next, server_time=deps.now())


@router.get("/artifacts/{artifact}", operation_id="getArtifact", **guarded(Permission.ARTIFACT_READ, 404))
def get_artifact(
    artifact: ArtifactId,
    caller: Annotated[Caller, Depends(requires(Permission.ARTIFACT_READ))],
    deps: Parts,
) -> adm.ArtifactDetail:
    """An artifact."""
    with database.reading(deps.engine) as session:
        found = artifacts.get(session, artifact)
    return adm.ArtifactDetail(**adm.artifact_fields(found), server_time=deps.now())


_READ = guarded(Permission.ARTIFACT_READ, 404)


@router.get(
    "/artifacts/{artifact}/manifest",
    operation_id="getManifest",
    response_class=Response,
    **{**_READ, "responses": {**_READ["responses"], **_MANIFEST}},
)
def get_manifest(
    artifact: ArtifactId,
    caller: Annotated[Caller, Depends(requires(Permission.ARTIFACT_READ))],
    deps: Parts,
) -> Response:
    """The signed manifest, byte for byte."""
    with database.reading(deps.engine) as session:
        data = artifacts.manifest(session, artifact)
    return Response(data, media_type="application/octet-stream")


@router.post(
    "/releases/{release}/artifacts", operation_id="bindArtifact", **commanded(Permission.ARTIFACT_ADD)
)
async def bind(
    body: bodies.BindArtifactBody, send: Annotated[Sending, Depends(sends(Permission.ARTIFACT_ADD))]
) -> views.CommandResult:
    """Say which registered artifact carries which components of the release. Sign-offs bind to its manifest's digest."""
    artifact, shares = await run_in_threadpool(_bindable, send.deps, send, body)
    return await send(
        cmd.RegisterArtifact(
            **send.head,
            artifact=artifact.id,
            manifest_digest=artifact.manifest_digest,
            components=body.components or artifact.components,
            location=artifact.location,
            root=artifact.wrapped_root,
            size=artifact.size,
            shares=shares,
        )
    )


def _bindable(
    deps: Deps, send: Sending, body: bodies.BindArtifactBody
) -> tuple[Artifact, cmd.KeyShares | None]:
    """The artifact, and by its manifest who holds key shares of it."""
    with database.reading(deps.engine) as session:
        artifact = artifacts.get(session, body.artifact)
        manifest = artifacts.manifest(session, body.artifact)
        state = state_of(session, send.release)
    strangers = sorted(set(body.components or []) - set(artifact.components))
    if strangers:
        raise Conflict(
            f"the manifest of {artifact.id} names no component: {', '.join(strangers)}",
            [Reason("component", f"it names: {', '.join(artifact.components)}", "body.components")],
        )
    if artifact.uploader != send.caller.id and artifact.uploader in state.plan.people:
        # rule 7 bars whoever binds it; somebody else's word must not hide who uploaded it
        raise NotPermitted(
            f"{artifact.uploader} uploaded {artifact.id} and is among the plan's people",
            [Reason("rule-7", f"{artifact.uploader} binds it, and then cannot sign", "body.artifact")],
        )
    return artifact, deps.formats.read_manifest(manifest, digest=artifact.manifest_digest).shares


@router.post(
    "/ingests", operation_id="startIngest", **guarded(Permission.ARTIFACT_ADD, 404, 409, 413, success=202)
)
async def start_ingest(
    request: Request, body: adm.IngestBody, caller: Uploader, deps: Parts
) -> adm.IngestView:
    """Seal plaintext from a place into a store and register it. Started twice, it is one ingest with one result."""
    context_of(request).release = body.release
    _check_source(body.source)
    if body.release is not None:
        await run_in_threadpool(_require_release, deps, caller, body.release)
    what = digest(body.model_dump(mode="json"))
    ingest = short_id("ingest", caller.id, what)
    await deps.gateway.ingest(
        IngestInput(
            ingest=ingest,
            source=body.source,
            store=body.store,
            components=body.components,
            uploader=caller.id,
            release=body.release,
            shares=body.shares,
        )
    )
    return adm.IngestView(id=ingest, status="running", server_time=deps.now())


def _require_release(deps: Deps, caller: Caller, release: str) -> None:
    with database.reading(deps.engine) as session:
        visible(session, caller, release)


def _check_source(source: str) -> None:
    if source.startswith(("s3://", "hf:")):
        return
    parts = source.split("/")
    if source.startswith(("/", "~")) or ".." in parts or "\\" in source or ":" in parts[0]:
        raise Malformed(
            "the source leaves the ingest folder",
            [Reason("path", "give a path below the ingest folder, `s3://…` or `hf:…`", "body.source")],
        )


@router.get("/ingests/{ingest}", operation_id="getIngest", **guarded(Permission.ARTIFACT_ADD, 404))
async def get_ingest(
    ingest: Annotated[Name, Path(description="id of the ingest")], caller: Looker, deps: Parts
) -> adm.IngestView:
    """How an ingest stands."""
    found = await deps.gateway.ingested(ingest)
    if found is None:
        raise NotFound(f"there is no ingest {ingest}")
    if isinstance(found, str):
        return adm.IngestView(id=ingest, status=found, server_time=deps.now())
    return adm.IngestView(
        id=ingest,
        status="done",
        artifact=found.artifact,
        manifest_digest=found.manifest_digest,
        files=found.files,
        size=found.size,
        server_time=deps.now(),
    )
