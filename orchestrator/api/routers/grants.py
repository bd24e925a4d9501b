"""Grants and the envelopes that belong to them. A partner sees its own grants and nothing else of any release.

Handing an envelope over is noted before its bytes leave: as an event of the release the first time (from then on revoking
cuts the future alone), and as an entry of the audit log every time.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session

from orchestrator.api import access_views, bodies, views
from orchestrator.api.auth import Caller, ReleaseId, acting, commanded, guarded, requires, state_of
from orchestrator.api.context import RequestContext, context_of
from orchestrator.api.deps import Deps, Parts
from orchestrator.api.routers.releases import Cursor, Limit
from orchestrator.api.sending import Sending, sends
from orchestrator.contracts.messages import CommandMessage
from orchestrator.domain import commands as cmd
from orchestrator.domain.deciding import short_id
from orchestrator.domain.errors import Conflict, NotFound, NotPermitted, Reason
from orchestrator.domain.events import Grant
from orchestrator.domain.permissions import Permission
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import Name
from orchestrator.records import artifacts, audit, database, envelopes, grants, partners

router = APIRouter(prefix="/v1", tags=["grants"])

GrantId = Annotated[
    str, Path(pattern=r"^[a-z0-9._-]{1,200}$", description="id of the grant", examples=["download.4.uni"])
]
ArtifactId = Annotated[Name, Path(description="id of the artifact")]
Reader = Annotated[Caller, Depends(acting(Permission.GRANT_READ))]


def _binary(description: str) -> dict[str, Any]:
    headers = {
        "Content-Digest": {"description": "RFC 9530 digest of the bytes", "schema": {"type": "string"}}
    }
    told = guarded(Permission.GRANT_READ, 404, 409)
    shown = {
        "description": description,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        "headers": headers,
    }
    return {**told, "responses": {**told["responses"], 200: shown}, "response_class": Response}


@router.get("/grants", operation_id="listGrants", **guarded(Permission.GRANT_READ, 404))
def list_grants(
    caller: Annotated[Caller, Depends(requires(Permission.GRANT_READ))],
    deps: Parts,
    holder: Annotated[Name | None, Query(description="whose; left out: the caller's own partner")] = None,
    live: Annotated[bool, Query(description="those that give access, or those that ended")] = True,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> access_views.GrantPage:
    """Grants of a holder across releases, newest first. A partner's account sees its own."""
    if caller.kind == "partner" and holder not in {None, caller.partner}:
        raise NotFound(f"there is no partner {holder}")
    whose = holder or caller.partner
    if whose is None:
        return access_views.GrantPage(items=[], next_cursor=None, server_time=deps.now())
    with database.reading(deps.engine) as session:
        page = grants.of_holder(session, whose, live=live, cursor=cursor, limit=limit)
        states = {found.release: state_of(session, found.release) for found in page.items}
    items = [access_views.grant_view(states[found.release], found.grant) for found in page.items]
    return access_views.GrantPage(items=items, next_cursor=page.next, server_time=deps.now())


@router.get(
    "/releases/{release}/grants", operation_id="listReleaseGrants", **guarded(Permission.GRANT_READ, 404)
)
def list_release_grants(release: ReleaseId, caller: Reader, deps: Parts) -> access_views.GrantPage:
    """Grants of a release in the order in which they were made; a partner's account sees its own."""
    with database.reading(deps.engine) as session:
        state = state_of(session, release)
    found = [grant for grant in state.grants.values() if _may_see(caller, grant)]
    found.sort(key=lambda grant: (grant.made_at, grant.id))
    items = [access_views.grant_view(state, grant) for grant in found]
    return access_views.GrantPage(items=items, next_cursor=None, server_time=deps.now())


@router.post("/releases/{release}/grants", operation_id="makeGrant", **commanded(Permission.GRANT_MAKE))
async def make_grant(
    body: bodies.MakeGrantBody, send: Annotated[Sending, Depends(sends(Permission.GRANT_MAKE))]
) -> views.CommandResult:
    """Ask for the grant of a partner in the audience of a step that stands: it became ready late, renews it, or has a new key.

    Custody checks everything again and makes the envelope; then `grant_made` follows, or `grant_not_made` with its reasons.
    A partner that is known to be not ready is refused at once.
    """
    await run_in_threadpool(_require_ready, send.deps, send.release, body)
    return await send(cmd.MakeGrant(**send.head, **dict(body)))


def _require_ready(deps: Deps, release: str, body: bodies.MakeGrantBody) -> None:
    """Tell at once what a partner still has to do."""
    with database.reading(deps.engine) as session:
        state = state_of(session, release)
        step = state.current_step if body.step is None else state.plan.step(body.step)
        if step is None or body.partner not in state.plan.audience_partners(step):
            return  # the decision says so
        known = partners.standing(session, [body.partner]).get(body.partner)
    missing = partners.not_ready(state.plan, step, body.partner, known)
    if missing:
        told = "; ".join(missing)
        reasons = [Reason("not-ready", text, "body.partner") for text in missing]
        raise Conflict(f"{body.partner} is not ready for a grant: {told}", reasons)


@router.post("/releases/{release}/revoke", operation_id="revoke", **commanded(Permission.GRANT_REVOKE))
async def revoke(
    body: bodies.RevokeBody, send: Annotated[Sending, Depends(sends(Permission.GRANT_REVOKE))]
) -> views.CommandResult:
    """End one grant, or all of a partner; never blocked. The preview says whether it is complete or cuts the future alone."""
    return await send(cmd.Revoke(**send.head, **dict(body)))


@router.get(
    "/releases/{release}/grants/{grant}",
    operation_id="getGrant",
    **guarded(Permission.GRANT_READ, 404),
)
def get_grant(release: ReleaseId, grant: GrantId, caller: Reader, deps: Parts) -> access_views.GrantDetail:
    """A grant, with what its holder needs to find and check its files."""
    with database.reading(deps.engine) as session:
        state, found = grant_of(session, release, grant, caller)
    return access_views.GrantDetail(**dict(access_views.grant_view(state, found)), server_time=deps.now())


@router.get(
    "/releases/{release}/grants/{grant}/manifests/{artifact}",
    operation_id="getGrantManifest",
    **_binary("the signed manifest, byte for byte"),
)
def get_manifest(
    release: ReleaseId, grant: GrantId, artifact: ArtifactId, caller: Reader, deps: Parts
) -> Response:
    """The signed manifest of an artifact that the grant covers."""
    with database.reading(deps.engine) as session:
        state, found = grant_of(session, release, grant, caller)
        covered = {one.id for one in access_views.artifacts_of_grant(state, found)}
        if artifact not in covered:
            raise NotFound(f"the grant {grant} covers no artifact {artifact}")
        return _bytes(artifacts.manifest(session, artifact), f"{artifact}.manifest.json")


@router.get(
    "/releases/{release}/grants/{grant}/envelopes/{artifact}",
    operation_id="getEnvelope",
    **_binary("the envelope: an age file for the holder's key"),
)
async def get_envelope(
    request: Request, release: ReleaseId, grant: GrantId, artifact: ArtifactId, caller: Reader, deps: Parts
) -> Response:
    """Hand over the key of one artifact, encrypted to its holder. That it left is written down first."""
    context = context_of(request)
    wanted = await run_in_threadpool(_wanted, deps, release, grant, artifact, caller)
    if wanted.grant.disclosed_at is None:
        disclose = cmd.DiscloseGrant(
            # a command of the service's own: no caller can make this id, and a later state asks anew
            command_id=f"{short_id('disclose', release, grant)}-{wanted.seq}",
            actor=cmd.SERVICE,
            grant=grant,
        )
        message = CommandMessage(command=disclose, request_id=context.request_id, address=context.client)
        await deps.gateway.send(release, message)
    data = await run_in_threadpool(_hand_over, deps, wanted, release, caller, context)
    return _bytes(data, f"{artifact}.age")


@dataclass(frozen=True, slots=True)
class _Wanted:
    grant: Grant
    reference: str
    seq: int


def _wanted(deps: Deps, release: str, name: str, artifact: str, caller: Caller) -> _Wanted:
    """The envelope that is asked for, if it may be handed over now."""
    with database.reading(deps.engine) as session:
        state, grant = grant_of(session, release, name, caller)
        require_holder(caller, grant)
        require_usable(state, grant, deps)
        reference = grant.envelopes.get(artifact)
        if reference is None:
            raise NotFound(f"the grant {name} has no envelope of {artifact}")
        envelopes.get(session, reference)
    return _Wanted(grant, reference, state.seq)


def require_holder(caller: Caller, grant: Grant) -> None:
    """A key goes to its holder; that of a deployment also to who may make grants, to bring it there."""
    own = caller.partner is not None and caller.partner == grant.holder and grant.holder_kind == "partner"
    brought = grant.holder_kind == "deployment" and caller.may(Permission.GRANT_MAKE)
    if not (own or brought):
        raise NotPermitted(
            f"the envelope of {grant.id} is for {grant.holder}",
            [Reason("holder", f"{grant.holder} fetches it with an account of its own", "grant")],
        )


def require_usable(state: ReleaseState, grant: Grant, deps: Deps) -> None:
    """The grant gives access now, and the release is not on hold."""
    if not grant.live or (grant.not_after is not None and grant.not_after <= deps.now()):
        raise Conflict(
            f"the grant {grant.id} gives no access any more",
            [Reason("ended", "ask the release's manager for a new one", "grant")],
        )
    if state.holds:
        raise Conflict(
            "the release is on hold: no key is handed over",
            [Reason("hold", "wait until it is resumed", "grant")],
        )


def _hand_over(deps: Deps, wanted: _Wanted, release: str, caller: Caller, context: RequestContext) -> bytes:
    with database.writing(deps.engine) as session:
        state, grant = grant_of(session, release, wanted.grant.id, caller)
        require_usable(state, grant, deps)
        if grant.disclosed_at is None:
            raise Conflict("the disclosure is not in the records; ask again", [Reason("again", "ask again")])
        audit.record_access(
            session,
            at=deps.now(),
            actor=caller.id,
            action="envelope",
            release=release,
            reference=wanted.reference,
            request_id=context.request_id,
            address=context.client,
        )
        return envelopes.data(session, wanted.reference)


def _may_see(caller: Caller, grant: Grant) -> bool:
    return caller.kind != "partner" or (grant.holder == caller.partner and grant.holder_kind == "partner")


def grant_of(session: Session, release: str, name: str, caller: Caller) -> tuple[ReleaseState, Grant]:
    """The release and its grant of that name; `NotFound` where the caller may not know of it."""
    state = state_of(session, release)
    found = state.grants.get(name)
    if found is None or not _may_see(caller, found):
        raise NotFound(f"there is no grant {name} of {release}")
    return state, found


def _bytes(data: bytes, filename: str) -> Response:
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    return Response(
        data,
        media_type="application/octet-stream",
        headers={
            "Content-Digest": f"sha-256=:{digest}:",
            "Content-Disposition": f'attachment; filename="{filename}"',
        },
    )
