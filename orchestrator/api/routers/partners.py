"""Partners, their keys, the terms that they accept. A partner's account sees and changes its own partner alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path

from orchestrator.api import administration as adm
from orchestrator.api.auth import AnyCaller, Caller, guarded, requires
from orchestrator.api.creating import CreatingDep
from orchestrator.api.deps import Parts
from orchestrator.api.routers.releases import Cursor, Limit
from orchestrator.domain.errors import NotFound, NotPermitted, Reason
from orchestrator.domain.permissions import Permission
from orchestrator.domain.values import Digest, Name
from orchestrator.records import database, partners
from orchestrator.records.partners import Partner

router = APIRouter(prefix="/v1/partners", tags=["partners"])

PartnerId = Annotated[Name, Path(description="id of the partner", examples=["uni"])]


def own_or(permission: Permission | None) -> Callable[..., Caller]:
    """A dependency: an account of the partner in the path, or somebody else with this permission (None: nobody else).

    For another partner's account this partner does not exist.
    """

    def owning(partner: PartnerId, caller: AnyCaller) -> Caller:
        if caller.kind == "partner":
            if caller.partner != partner:
                raise NotFound(f"there is no partner {partner}")
        elif permission is None:
            raise NotPermitted(
                "only the partner itself does this",
                [Reason("partner-account", f"use an account of {partner}", "partner")],
            )
        else:
            caller.require(permission)
        return caller

    return owning


def _fields(partner: Partner) -> dict[str, Any]:
    """The fields of a partner; `dict(partner)` would call its field `keys`."""
    return {name: getattr(partner, name) for name in Partner.model_fields}


@router.post("", operation_id="createPartner", **guarded(Permission.PARTNER_ADD, 409, 413, success=201))
def create_partner(
    body: adm.PartnerBody,
    caller: Annotated[Caller, Depends(requires(Permission.PARTNER_ADD))],
    creating: CreatingDep,
    deps: Parts,
) -> adm.PartnerView:
    """Add a partner."""
    now = deps.now()
    with database.writing(deps.engine) as session:
        if creating.known(session, caller, "partner", body) is None:
            partners.create(session, body.id, body.name, at=now, by=caller.id)
            creating.remember(session, caller, "partner", body, body.id)
        found = partners.get(session, body.id)
    return adm.PartnerView(**_fields(found), server_time=now)


@router.get("", operation_id="listPartners", **guarded(Permission.PARTNER_READ))
def list_partners(
    caller: Annotated[Caller, Depends(requires(Permission.PARTNER_READ))],
    deps: Parts,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> adm.PartnerPage:
    """Partners by id."""
    with database.reading(deps.engine) as session:
        page = partners.list_partners(session, cursor=cursor, limit=limit)
    items = [adm.RegisteredPartner(**_fields(found)) for found in page.items]
    return adm.PartnerPage(items=items, next_cursor=page.next, server_time=deps.now())


@router.get("/{partner}", operation_id="getPartner", **guarded(Permission.PARTNER_READ, 404))
def get_partner(
    partner: PartnerId, caller: Annotated[Caller, Depends(own_or(Permission.PARTNER_READ))], deps: Parts
) -> adm.PartnerView:
    """A partner with its keys and the terms that it accepted."""
    with database.reading(deps.engine) as session:
        found = partners.get(session, partner)
    return adm.PartnerView(**_fields(found), server_time=deps.now())


@router.patch("/{partner}", operation_id="changePartner", **guarded(Permission.PARTNER_ADD, 404, 413))
def change_partner(
    partner: PartnerId,
    body: adm.PartnerChange,
    caller: Annotated[Caller, Depends(requires(Permission.PARTNER_ADD))],
    deps: Parts,
) -> adm.PartnerView:
    """Switch a partner off or on. Grants that it has stay: revoking ends them."""
    now = deps.now()
    with database.writing(deps.engine) as session:
        found = partners.set_active(session, partner, body.active, at=now, by=caller.id)
    return adm.PartnerView(**_fields(found), server_time=now)


@router.post(
    "/{partner}/keys", operation_id="addPartnerKey", **guarded(Permission.PARTNER_ADD, 404, 409, 413)
)
def add_key(
    partner: PartnerId,
    body: adm.PartnerKeyBody,
    caller: Annotated[Caller, Depends(own_or(Permission.PARTNER_ADD))],
    deps: Parts,
) -> adm.PartnerKeyView:
    """Register a recipient: by the partner's own account, or for it. The same one again is the same key."""
    deps.formats.check_recipient(body.recipient)
    now = deps.now()
    with database.writing(deps.engine) as session:
        key = partners.add_key(
            session, partner, body.recipient, statement=body.statement, at=now, by=caller.id
        )
    return adm.PartnerKeyView(**dict(key), server_time=now)


@router.delete(
    "/{partner}/keys/{digest}", operation_id="revokePartnerKey", **guarded(Permission.PARTNER_ADD, 404)
)
def revoke_key(
    partner: PartnerId,
    digest: Annotated[Digest, Path(description="digest of the recipient")],
    caller: Annotated[Caller, Depends(own_or(Permission.PARTNER_ADD))],
    deps: Parts,
) -> adm.PartnerKeyView:
    """Revoke a recipient: no envelope is made for it from here on. What it can open already stays readable."""
    now = deps.now()
    with database.writing(deps.engine) as session:
        key = partners.revoke_key(session, partner, digest, at=now, by=caller.id)
    return adm.PartnerKeyView(**dict(key), server_time=now)


@router.post("/{partner}/terms", operation_id="acceptTerms", **guarded(None, 403, 404, 413))
def accept_terms(
    partner: PartnerId, body: adm.TermsBody, caller: Annotated[Caller, Depends(own_or(None))], deps: Parts
) -> adm.PartnerView:
    """Accept terms; only an account of the partner's own can."""
    now = deps.now()
    with database.writing(deps.engine) as session:
        found = partners.accept_terms(session, partner, body.terms, at=now, by=caller.id)
    return adm.PartnerView(**_fields(found), server_time=now)
