"""Links to a grant's sealed files: short-lived URLs that a partner downloads ciphertext through, straight from the store.

A link reads one sealed file and nothing else; it opens nothing without the envelope. That links were handed out is in the
audit log before they leave. They end by themselves within minutes; a partner asks for new ones while it downloads.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import ConfigDict, Field

from orchestrator.api import access_views, views
from orchestrator.api.auth import Caller, ReleaseId, acting, guarded
from orchestrator.api.context import RequestContext, context_of
from orchestrator.api.deps import Deps, Parts
from orchestrator.api.limiting import Limiter
from orchestrator.api.routers.grants import GrantId, grant_of, require_holder, require_usable
from orchestrator.domain.errors import Conflict, NotFound, Reason
from orchestrator.domain.permissions import Permission
from orchestrator.domain.values import Frozen, Name
from orchestrator.records import artifacts, audit, database

router = APIRouter(prefix="/v1", tags=["grants"])

MAX_PATHS = 500
_Path = Annotated[str, Field(min_length=1, max_length=1024)]


class LinksBody(Frozen):
    """Which sealed files links are wanted for."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"artifact": "art-7gq2m4zk5x3c6v8b9n1a2s3d4f", "paths": ["model-00001-of-00002.safetensors"]}
            ]
        },
    )

    artifact: Name
    paths: list[_Path] = Field(min_length=1, max_length=MAX_PATHS, description="paths in the manifest")


class FileLink(Frozen):
    """One sealed file. Whoever has the URL can read the ciphertext until it ends: treat it as a credential."""

    path: str
    url: str


class GrantLinks(views.Timed):
    """Links in the order asked for; all of them end `expires_in` seconds after `server_time`."""

    items: list[FileLink]
    expires_in: int = Field(description="seconds", examples=[900])


@router.post(
    "/releases/{release}/grants/{grant}/links",
    operation_id="makeLinks",
    **guarded(Permission.GRANT_READ, 404, 409, 413, 503),
)
async def make_links(
    request: Request,
    release: ReleaseId,
    grant: GrantId,
    body: LinksBody,
    caller: Annotated[Caller, Depends(acting(Permission.GRANT_READ))],
    deps: Parts,
) -> GrantLinks:
    """Hand out short-lived links to sealed files of a live grant, to its holder alone."""
    limiter: Limiter = request.app.state.limiter
    limiter.links(caller.id)
    return await run_in_threadpool(_links, deps, context_of(request), release, grant, body, caller)


def _links(
    deps: Deps, context: RequestContext, release: str, name: str, body: LinksBody, caller: Caller
) -> GrantLinks:
    with database.reading(deps.engine) as session:
        state, grant = grant_of(session, release, name, caller)
        require_holder(caller, grant)
        require_usable(state, grant, deps)
        covered = {one.id: one for one in access_views.grant_view(state, grant).artifacts}
        artifact = covered.get(body.artifact)
        if artifact is None:
            raise NotFound(f"the grant {name} covers no artifact {body.artifact}")
        manifest = artifacts.manifest(session, artifact.id)
    if deps.links is None or not deps.links.serves(artifact.location):
        raise Conflict(
            f"the files of {artifact.id} are not where links can be made",
            [Reason("no-links", "read them from where the grant says they lie", "body.artifact")],
        )
    seconds = deps.settings.link_seconds
    made = deps.links.make(
        manifest, artifact.manifest_digest, frozenset(grant.components), body.paths, seconds
    )
    with database.writing(deps.engine) as session:
        state, grant = grant_of(session, release, name, caller)
        require_usable(state, grant, deps)
        audit.record_access(
            session,
            at=deps.now(),
            actor=caller.id,
            action="links",
            release=release,
            reference=f"{grant.id}/{artifact.id}: {len(made)} files",
            request_id=context.request_id,
            address=context.client,
        )
    items = [FileLink(path=path, url=url) for path, url in made.items()]
    return GrantLinks(items=items, expires_in=seconds, server_time=deps.now())
