"""Copies: new keys for what is sealed, issued copies with their digests, receipts that partners' clients sign."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from orchestrator.api import copies_views, views
from orchestrator.api.access_views import artifacts_of_grant
from orchestrator.api.auth import Caller, ReleaseId, acting, commanded, guarded, reading, state_of
from orchestrator.api.context import context_of
from orchestrator.api.deps import Parts
from orchestrator.api.routers.grants import GrantId, grant_of
from orchestrator.api.sending import Sending, sends
from orchestrator.domain import commands as cmd
from orchestrator.domain.errors import NotPermitted, Reason
from orchestrator.domain.events import Grant
from orchestrator.domain.permissions import Permission
from orchestrator.domain.state import ReleaseState
from orchestrator.records import database, issued
from orchestrator.trust.delivery import check_receipt
from orchestrator.trust.errors import TrustError
from orchestrator.trust.signing import signed_payload
from orchestrator.trust.statements import Receipt, Statement, parse

router = APIRouter(prefix="/v1/releases/{release}", tags=["grants"])

Reader = Annotated[Caller, Depends(acting(Permission.GRANT_READ))]


@router.post("/rotate-keys", operation_id="rotateKeys", **commanded(Permission.KEYS_ROTATE))
async def rotate_keys(
    body: copies_views.RotateKeysBody, send: Annotated[Sending, Depends(sends(Permission.KEYS_ROTATE))]
) -> views.CommandResult:
    """Seal components anew under fresh keys. One person may; what was disclosed stays disclosed, and the preview says so."""
    return await send(cmd.RotateKeys(**send.head, **dict(body)))


@router.get("/rotations", operation_id="listRotations", **guarded(Permission.RELEASE_READ, 404))
def list_rotations(
    state: Annotated[ReleaseState, Depends(reading())], deps: Parts
) -> copies_views.RotationList:
    """Rotations of keys, the latest first, and what became of the old sealed files."""
    latest = sorted(state.rotations.values(), key=lambda rotation: rotation.at, reverse=True)
    old = sorted(state.superseded.values(), key=lambda found: found.at, reverse=True)
    return copies_views.RotationList(
        release=state.release,
        items=[copies_views.rotation_view(state, rotation) for rotation in latest],
        superseded=[copies_views.superseded_view(found) for found in old],
        server_time=deps.now(),
    )


@router.get("/copies", operation_id="listCopies", **guarded(Permission.GRANT_READ, 404))
def list_copies(release: ReleaseId, caller: Reader, deps: Parts) -> copies_views.IssuedCopyList:
    """Issued copies with the exact digests that only they have; a partner's account sees its own."""
    with database.reading(deps.engine) as session:
        state_of(session, release)
        found = list(issued.copies(session, release))
    items = [
        copies_views.issued_view(copy)
        for copy in found
        if caller.kind != "partner" or copy.holder == caller.partner
    ]
    return copies_views.IssuedCopyList(release=release, items=items, server_time=deps.now())


@router.post(
    "/grants/{grant}/receipts",
    operation_id="addReceipt",
    **guarded(Permission.GRANT_READ, 404, 413, success=201),
)
def add_receipt(
    request: Request,
    release: ReleaseId,
    grant: GrantId,
    body: copies_views.ReceiptBody,
    caller: Reader,
    deps: Parts,
) -> copies_views.ReceiptDetail:
    """Keep a receipt that the partner's client signed with a key that the plan pins for it; it is an entry of the audit log."""
    now, context = deps.now(), context_of(request)
    with database.writing(deps.engine) as session:
        state, found = grant_of(session, release, grant, caller)
        if caller.partner != found.holder or found.holder_kind != "partner":
            raise NotPermitted(
                f"a receipt of {grant} comes from {found.holder} itself",
                [Reason("holder", f"use an account of {found.holder}", "grant")],
            )
        try:
            statement = _checked(state, found, body.envelope, caller.id, now)
        except TrustError as error:
            raise NotPermitted(
                f"the receipt does not hold: {error}", [Reason("signature", str(error), "body.envelope")]
            ) from None
        kept = issued.put_receipt(
            session,
            at=now,
            actor=caller.id,
            release=release,
            grant=grant,
            partner=found.holder,
            statement=statement.digest,
            copy_digest=statement.predicate.copy_digest,
            manifests={s.name: s.digest for s in statement.subjects},
            envelope=body.envelope,
            request_id=context.request_id,
            address=context.client,
        )
    return copies_views.ReceiptDetail(**copies_views.receipt_fields(kept), server_time=now)


def _checked(
    state: ReleaseState, grant: Grant, envelope: str, member: str, now: datetime
) -> Statement[Receipt]:
    """The receipt, when it is this partner's on what this grant covers, now or before it was sealed anew."""
    known = {one.id: one.manifest_digest for one in artifacts_of_grant(state, grant)}
    known |= {name: old.manifest_digest for name, old in state.superseded.items()}
    claimed = {s.name: s.digest for s in parse(signed_payload(envelope.encode()), Receipt).subjects}
    return check_receipt(
        envelope,
        state.plan,
        release=state.release,
        step=grant.step,
        grant=grant.id,
        partner=grant.holder,
        member=member,
        manifests={name: known.get(name, "sha256:" + "0" * 64) for name in claimed},
        now=now,
    )


@router.get("/grants/{grant}/receipts", operation_id="listReceipts", **guarded(Permission.GRANT_READ, 404))
def list_receipts(
    release: ReleaseId, grant: GrantId, caller: Reader, deps: Parts
) -> copies_views.ReceiptList:
    """Receipts of a grant, each with its signed statement."""
    with database.reading(deps.engine) as session:
        grant_of(session, release, grant, caller)
        found = list(issued.receipts(session, release, grant))
    items = [copies_views.ReceiptView(**copies_views.receipt_fields(one)) for one in found]
    return copies_views.ReceiptList(release=release, items=items, server_time=deps.now())
