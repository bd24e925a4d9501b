"""Leak monitoring: whether the sources see, what was found, the signed verdicts, public parents."""

from __future__ import annotations

import json
import zlib
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Response
from fastapi.concurrency import run_in_threadpool

from orchestrator.api import leak_views as lv
from orchestrator.api.auth import Caller, guarded, looks, requires
from orchestrator.api.deps import Parts
from orchestrator.api.routers.releases import Cursor, Limit
from orchestrator.contracts.leak_messages import WholeRequest
from orchestrator.domain.deciding import short_id
from orchestrator.domain.errors import NotFound, Reason, Unavailable
from orchestrator.domain.leaks import watched_artifacts
from orchestrator.domain.permissions import Permission
from orchestrator.domain.values import Digest, Name
from orchestrator.records import audit, database, monitors, signatures, spreading, suspects
from orchestrator.records.signatures import Parent, ParentSignature

router = APIRouter(prefix="/v1", tags=["leaks"])

Reader = Annotated[Caller, Depends(requires(Permission.RELEASE_READ))]
Triager = Annotated[Caller, Depends(requires(Permission.INCIDENT_TRIAGE))]
Looker = Annotated[Caller, Depends(looks(Permission.INCIDENT_TRIAGE))]
Closer = Annotated[Caller, Depends(requires(Permission.INCIDENT_CLOSE))]
Outcome = Literal["match", "partial", "no_match", "inconclusive", "ruled_out", "sighted"]


@router.get("/monitors", operation_id="listMonitors", **guarded(Permission.RELEASE_READ))
def list_monitors(caller: Reader, deps: Parts) -> lv.MonitorList:
    """Leak sources: last success, lag, error, rate limits. A blind source keeps every gate closed that names it."""
    now = deps.now()
    with database.reading(deps.engine) as session:
        found = monitors.list_sources(session)
        judged = suspects.counts(session)
        watched = {name for state in spreading.all_going(session) for name in watched_artifacts(state)}
        known = signatures.known(session, watched)
    return lv.MonitorList(
        items=[lv.source_view(source, now) for source in found],
        unrecognisable=sorted(watched - set(known)),
        judged=judged,
        server_time=now,
    )


@router.get("/monitor-key", operation_id="getMonitorKey", **guarded(Permission.ARTIFACT_READ, 404))
def get_monitor_key(
    caller: Annotated[Caller, Depends(requires(Permission.ARTIFACT_READ))], deps: Parts
) -> lv.MonitorKeyView:
    """The leak monitor's public keys, as they stand now. Whoever seals pins them from a place of their own."""
    known = deps.monitor_key()
    if known is None:
        raise NotFound("there is no leak monitor", [Reason("no-monitor", "start the leak worker once")])
    return lv.MonitorKeyView(recipient=known[0], verdict_key=known[1], server_time=deps.now())


@router.get("/leaks/suspects", operation_id="listSuspects", **guarded(Permission.INCIDENT_TRIAGE))
def list_suspects(
    caller: Looker,
    deps: Parts,
    outcome: Annotated[Outcome | None, Query(description="only those judged so")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> lv.JudgementPage:
    """Suspects and what they were judged to be, newest first. Titles and places are strangers' words."""
    with database.reading(deps.engine) as session:
        page = suspects.list_judgements(session, outcome=outcome, cursor=cursor, limit=limit)
    items = [
        lv.JudgementView(
            suspect=judgement.suspect,
            title=suspect.title,
            source=suspect.source,
            target=suspect.target,
            size=suspect.size,
            seen_at=suspect.seen_at,
            artifact=judgement.artifact,
            outcome=judgement.outcome,
            tier=judgement.tier,
            reason=judgement.reason,
            verdict=judgement.verdict,
            attempts=judgement.attempts,
            next_at=judgement.next_at,
            at=judgement.at,
        )
        for judgement, suspect in page.items
    ]
    return lv.JudgementPage(items=items, next_cursor=page.next, server_time=deps.now())


@router.get("/leaks/verdicts/{digest}", operation_id="getVerdict", **guarded(Permission.INCIDENT_TRIAGE, 404))
def get_verdict(
    digest: Annotated[Digest, Path(description="digest of the verdict", examples=["sha256:" + "0" * 64])],
    caller: Looker,
    deps: Parts,
) -> lv.VerdictView:
    """A signed verdict: per tensor r and z, what was read and from where, digest and time of each answer. It names our tensors."""
    now = deps.now()
    if deps.verdicts is None:
        raise Unavailable("this process cannot open verdicts; set SLUICE_VERDICT_KEYS_FILE")
    with database.writing(deps.engine) as session:
        stored, packed = suspects.verdict(session, digest, deps.verdicts)
        audit.record_access(session, at=now, actor=caller.id, action="leak_verdict", reference=digest)
    known = deps.monitor_key()
    return lv.VerdictView(
        digest=stored.digest,
        suspect=stored.suspect,
        artifact=stored.artifact,
        outcome=stored.outcome,
        tier=stored.tier,
        log_index=stored.log_index,
        at=stored.at,
        verdict_key=None if known is None else known[1],
        envelope=json.loads(zlib.decompress(packed)),
        server_time=now,
    )


@router.post(
    "/leaks/checks", operation_id="checkWhole", **guarded(Permission.INCIDENT_TRIAGE, 404, 413, success=202)
)
async def check_whole(body: lv.WholeCheckBody, caller: Triager, deps: Parts) -> lv.WholeCheckView:
    """Ask for a whole-file check (tier 3), which is needed before anybody is accused."""

    def known() -> None:
        with database.reading(deps.engine) as session:
            suspects.get(session, body.suspect)

    await run_in_threadpool(known)
    check = short_id("check", body.suspect, body.artifact)
    await deps.gateway.check_whole(check, WholeRequest(suspect=body.suspect, artifact=body.artifact))
    return lv.WholeCheckView(id=check, server_time=deps.now())


# --- public parents -----------------------------------------------------------------------------------------------------


@router.get("/leaks/parents", operation_id="listParents", **guarded(Permission.RELEASE_READ))
def list_parents(caller: Reader, deps: Parts) -> lv.ParentList:
    """Public parents, and for which artifacts each is signed."""
    with database.reading(deps.engine) as session:
        found = signatures.parents(session)
        signed = signatures.parent_signatures(session)
    items = [lv.ParentView(**_fields(parent, signed)) for parent in found]
    return lv.ParentList(items=items, server_time=deps.now())


@router.post(
    "/leaks/parents", operation_id="addParent", **guarded(Permission.INCIDENT_CLOSE, 409, 413, success=201)
)
def add_parent(body: lv.ParentBody, caller: Closer, deps: Parts) -> lv.ParentDetail:
    """Register a public parent. Until it is signed, what looks like ours is only suspected; it can hide no artifact of ours."""
    now = deps.now()
    with database.writing(deps.engine) as session:
        parent = signatures.add_parent(
            session, body.name, body.place, artifact=body.artifact or "", by=caller.id, at=now
        )
        told = {
            "action": "leak_parent_added",
            "actor": caller.id,
            "parent": body.name,
            "place": body.place,
            "artifact": body.artifact,
        }
        audit.append(session, "admin", told, at=now)
    return lv.ParentDetail(**_fields(parent, []), server_time=now)


@router.delete(
    "/leaks/parents/{parent}",
    operation_id="dropParent",
    **guarded(Permission.INCIDENT_CLOSE, 404, success=204),
)
def drop_parent(
    parent: Annotated[Name, Path(description="name of the parent", examples=["base-model"])],
    caller: Closer,
    deps: Parts,
) -> Response:
    """Forget a public parent; what was judged stays judged."""
    now = deps.now()
    with database.writing(deps.engine) as session:
        signatures.drop_parent(session, parent)
        told = {"action": "leak_parent_dropped", "actor": caller.id, "parent": parent}
        audit.append(session, "admin", told, at=now)
    return Response(status_code=204)


def _fields(parent: Parent, signed: list[ParentSignature]) -> dict[str, object]:
    own = [s for s in signed if s.parent == parent.name]
    return {
        "name": parent.name,
        "place": parent.place,
        "artifact": parent.artifact or None,
        "by": parent.by,
        "at": parent.at,
        "signed": sorted(s.artifact for s in own if s.sealed),
        "errors": {s.artifact: s.error for s in own if s.error},
    }
