"""The audit log: entries, the signed checkpoint, proofs, and the whole of it as a file that is verified offline."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import PlainTextResponse, StreamingResponse

from orchestrator.api import administration as adm
from orchestrator.api.auth import Caller, guarded, requires
from orchestrator.api.deps import Deps, Parts
from orchestrator.domain.errors import NotFound
from orchestrator.domain.permissions import Permission
from orchestrator.domain.values import Name
from orchestrator.records import audit, database

router = APIRouter(prefix="/v1/audit", tags=["audit"])

Auditor = Annotated[Caller, Depends(requires(Permission.AUDIT_READ))]
Position = Annotated[int, Query(ge=0, le=2**53)]
Index = Annotated[int, Path(ge=0, le=2**53, description="number of the entry, from 0")]
_TEXT = {"content": {"text/plain": {"schema": {"type": "string"}}}}
_LINES = {"content": {"application/jsonl": {"schema": {"type": "string"}}}}


def _entry(leaf: audit.Leaf) -> adm.AuditEntry:
    return adm.AuditEntry(
        index=leaf.index,
        kind=leaf.kind,
        release=leaf.release,
        at=leaf.at,
        leaf=leaf.body.decode(),
        hash=leaf.hash.hex(),
    )


@router.get("/entries", operation_id="listAuditEntries", **guarded(Permission.AUDIT_READ))
def list_entries(
    caller: Auditor,
    deps: Parts,
    start: Annotated[int, Query(ge=0, le=2**53, description="first entry")] = 0,
    release: Annotated[Name | None, Query(description="only entries of this release")] = None,
    kind: Annotated[audit.Kind | None, Query(description="only entries of this kind")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 100,
) -> adm.AuditPage:
    """Entries of the log in order: events, refusals, commands that changed nothing, what custody did, access that was handed out, administration."""
    with database.reading(deps.engine) as session:
        found = list(audit.leaves(session, start, limit=limit + 1, release=release, kind=kind))
        size = audit.head(session).size
    following = found[limit].index if len(found) > limit else None
    return adm.AuditPage(
        size=size,
        items=[_entry(leaf) for leaf in found[:limit]],
        next_start=following,
        server_time=deps.now(),
    )


@router.get("/entries/{index}", operation_id="getAuditEntry", **guarded(Permission.AUDIT_READ, 404))
def get_entry(index: Index, caller: Auditor, deps: Parts) -> adm.AuditEntry:
    """One entry."""
    with database.reading(deps.engine) as session:
        return _entry(audit.leaf(session, index))


def _with_text(statuses: tuple[int, ...], shown: dict[str, object]) -> dict[str, object]:
    told = guarded(Permission.AUDIT_READ, *statuses)
    return {**told, "responses": {**told["responses"], 200: shown}}


@router.get(
    "/entries/{index}/proof",
    operation_id="getAuditProof",
    response_class=PlainTextResponse,
    **_with_text((404,), _TEXT),  # type: ignore[arg-type]
)
def get_proof(index: Index, caller: Auditor, deps: Parts) -> PlainTextResponse:
    """The entry's inclusion proof with the latest signed checkpoint, as one text (C2SP `tlog-proof`)."""
    with database.reading(deps.engine) as session:
        return PlainTextResponse(audit.proof(session, index))


@router.get("/checkpoint", operation_id="getCheckpoint", **guarded(Permission.AUDIT_READ, 404))
def get_checkpoint(caller: Auditor, deps: Parts) -> adm.CheckpointView:
    """The latest signed checkpoint. Keep it: a later log that does not extend it was rewritten."""
    with database.reading(deps.engine) as session:
        found = audit.latest_checkpoint(session)
    if found is None:
        raise NotFound("the log has no signed checkpoint yet; custody signs one with its first entry")
    return adm.CheckpointView(
        size=found.size,
        root=base64.b64encode(found.root).decode(),
        note=found.note,
        at=found.at,
        keys=list(deps.log_keys),
        server_time=deps.now(),
    )


@router.get("/proofs/inclusion", operation_id="getInclusionProof", **guarded(Permission.AUDIT_READ, 404))
def inclusion(caller: Auditor, deps: Parts, index: Position, size: Position) -> adm.ProofView:
    """The path from an entry to the root of the first `size` entries."""
    with database.reading(deps.engine) as session:
        path = audit.inclusion(session, index, size)
    return _proof(index, size, path, deps)


@router.get("/proofs/consistency", operation_id="getConsistencyProof", **guarded(Permission.AUDIT_READ, 404))
def consistency(caller: Auditor, deps: Parts, old: Position, new: Position) -> adm.ProofView:
    """The proof that the log of `new` entries extends that of `old`."""
    with database.reading(deps.engine) as session:
        path = audit.consistency(session, old, new)
    return _proof(old, new, path, deps)


def _proof(first: int, size: int, path: list[bytes], deps: Deps) -> adm.ProofView:
    hashes = [base64.b64encode(found).decode() for found in path]
    return adm.ProofView(first=first, size=size, path=hashes, server_time=deps.now())


@router.get(
    "/export",
    operation_id="exportAudit",
    response_class=StreamingResponse,
    **_with_text((404,), _LINES),  # type: ignore[arg-type]
)
def export(
    caller: Auditor,
    deps: Parts,
    start: Annotated[
        int, Query(ge=0, le=2**53, description="begin at the checkpoint over so many entries")
    ] = 0,
) -> StreamingResponse:
    """The log up to its latest signed checkpoint as JSON lines; `sluice audit verify` checks it offline."""
    with database.reading(deps.engine) as session:
        last = audit.latest_checkpoint(session, over=start)
    if last is None:
        raise NotFound(f"no signed checkpoint covers the log behind entry {start} yet")
    origin = last.note.partition("\n")[0]

    def lines() -> Iterator[bytes]:
        with database.reading(deps.engine) as session:
            yield from audit.export(session, origin, start=start)

    return StreamingResponse(
        lines(),
        media_type="application/jsonl",
        headers={"Content-Disposition": 'attachment; filename="audit.jsonl"'},
    )
