"""Principals and their API tokens: for operators. A token's text is in one answer and nowhere else."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from orchestrator.api import administration as adm
from orchestrator.api.auth import AnyCaller, Caller, guarded, looks, requires
from orchestrator.api.creating import CreatingDep
from orchestrator.api.deps import Parts
from orchestrator.api.routers.releases import Cursor, Limit
from orchestrator.domain.errors import Conflict, Malformed, NotFound, NotPermitted, Reason
from orchestrator.domain.permissions import Permission, Role
from orchestrator.domain.values import Name
from orchestrator.records import database, partners, principals

router = APIRouter(prefix="/v1/principals", tags=["principals"])

PrincipalId = Annotated[Name, Path(description="id of the principal", examples=["ana"])]
TokenId = Annotated[str, Path(pattern=r"^tok-[0-9a-f]{16}$", description="id of the token")]
Operator = Annotated[Caller, Depends(requires(Permission.PRINCIPAL_ADD))]
Looker = Annotated[Caller, Depends(looks(Permission.PRINCIPAL_ADD))]


@router.post("", operation_id="createPrincipal", **guarded(Permission.PRINCIPAL_ADD, 409, 413, success=201))
def create_principal(
    body: adm.PrincipalBody, caller: Operator, creating: CreatingDep, deps: Parts
) -> adm.PrincipalView:
    """Add a principal. A partner's account has the role `partner`, alone, and names its partner."""
    now = deps.now()
    _check(body)
    with database.writing(deps.engine) as session:
        if creating.known(session, caller, "principal", body) is None:
            if body.partner is not None:
                try:
                    partners.get(session, body.partner)
                except NotFound:
                    raise Conflict(
                        f"there is no partner {body.partner}",
                        [Reason("unknown-partner", "add the partner first", "body.partner")],
                    ) from None
            principals.create(
                session,
                body.id,
                body.name,
                body.roles,
                kind=body.kind,
                partner=body.partner,
                at=now,
                by=caller.id,
            )
            creating.remember(session, caller, "principal", body, body.id)
        found = principals.get(session, body.id)
    return adm.PrincipalView(**dict(found), server_time=now)


def _check(body: adm.PrincipalBody) -> None:
    reasons = []
    if body.id == "sluice":
        reasons.append(Reason("reserved", "that is the service's own name", "body.id"))
    if (body.kind == "partner") != (body.partner is not None):
        reasons.append(
            Reason("partner", "an account of kind partner, and no other, names its partner", "body.partner")
        )
    if (body.kind == "partner") != (body.roles == [Role.PARTNER]):
        reasons.append(
            Reason(
                "roles",
                "a partner's account has the role `partner` alone; others never have it",
                "body.roles",
            )
        )
    if reasons:
        raise Malformed("the principal is not complete", reasons)


@router.get("", operation_id="listPrincipals", **guarded(Permission.PRINCIPAL_ADD))
def list_principals(
    caller: Looker, deps: Parts, cursor: Cursor = None, limit: Limit = 50
) -> adm.PrincipalPage:
    """Principals by id."""
    with database.reading(deps.engine) as session:
        page = principals.list_principals(session, cursor=cursor, limit=limit)
    return adm.PrincipalPage(items=page.items, next_cursor=page.next, server_time=deps.now())


@router.get("/{principal}", operation_id="getPrincipal", **guarded(Permission.PRINCIPAL_ADD, 404))
def get_principal(principal: PrincipalId, caller: Looker, deps: Parts) -> adm.PrincipalView:
    """A principal."""
    with database.reading(deps.engine) as session:
        found = principals.get(session, principal)
    return adm.PrincipalView(**dict(found), server_time=deps.now())


@router.patch(
    "/{principal}", operation_id="changePrincipal", **guarded(Permission.PRINCIPAL_ADD, 404, 409, 413)
)
def change_principal(
    principal: PrincipalId, body: adm.PrincipalChange, caller: Operator, deps: Parts
) -> adm.PrincipalView:
    """Change roles, or switch off and on. Nobody changes their own."""
    if principal == caller.id:
        raise NotPermitted(
            "nobody changes their own roles", [Reason("own-roles", "ask another operator", "principal")]
        )
    now = deps.now()
    with database.writing(deps.engine) as session:
        before = principals.get(session, principal)
        if body.roles is not None and (before.kind == "partner") != (body.roles == [Role.PARTNER]):
            raise Conflict(
                "a partner's account has the role `partner` alone; others never have it",
                [Reason("roles", "make another principal", "body.roles")],
            )
        found = principals.change(
            session, principal, roles=body.roles, active=body.active, at=now, by=caller.id
        )
    return adm.PrincipalView(**dict(found), server_time=now)


@router.post(
    "/{principal}/tokens",
    operation_id="issueToken",
    **guarded(Permission.PRINCIPAL_ADD, 404, 409, 413, success=201),
)
def issue_token(
    principal: PrincipalId, body: adm.TokenBody, caller: Operator, creating: CreatingDep, deps: Parts
) -> adm.IssuedTokenView:
    """Issue an API token. Its text is shown this once; a repeated request cannot show it again."""
    now = deps.now()
    if body.expires_at is not None and body.expires_at <= now:
        raise Malformed(
            "the token would have expired already",
            [Reason("expired", "give a later time", "body.expires_at")],
        )
    with database.writing(deps.engine) as session:
        made = creating.known(session, caller, f"token of {principal}", body)
        if made is not None:
            raise Conflict(
                f"this request made the token {made} already; its text was shown once",
                [
                    Reason(
                        "token-shown-once", "revoke that token if its text was lost, and use a new key", None
                    )
                ],
            )
        issued = principals.issue_token(
            session, principal, body.label, at=now, by=caller.id, expires_at=body.expires_at
        )
        creating.remember(session, caller, f"token of {principal}", body, issued.token.id)
    return adm.IssuedTokenView(token=issued.token, text=issued.text, server_time=now)


@router.get("/{principal}/tokens", operation_id="listTokens", **guarded(None, 403, 404))
def list_tokens(principal: PrincipalId, caller: AnyCaller, deps: Parts) -> adm.TokenList:
    """A principal's tokens, newest first: one's own, or for operators and auditors anybody's. Never their texts."""
    if principal != caller.id:
        caller.require_to_read(Permission.PRINCIPAL_ADD)
    with database.reading(deps.engine) as session:
        principals.get(session, principal)
        items = principals.tokens(session, principal)
    return adm.TokenList(items=items, server_time=deps.now())


@router.delete("/{principal}/tokens/{token}", operation_id="revokeToken", **guarded(None, 403, 404))
def revoke_token(principal: PrincipalId, token: TokenId, caller: AnyCaller, deps: Parts) -> adm.TokenView:
    """Revoke a token: it stops at once. One's own, or for operators anybody's."""
    if principal != caller.id:
        caller.require(Permission.PRINCIPAL_ADD)
    now = deps.now()
    with database.writing(deps.engine) as session:
        found = principals.revoke_token(session, principal, token, at=now, by=caller.id)
    return adm.TokenView(**dict(found), server_time=now)
