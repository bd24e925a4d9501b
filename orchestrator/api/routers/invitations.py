"""Outside reviewers without an account: inviting them, and the one way in that asks for no account.

That way is found by the digest of the invitation and opened by its one-time key: every request carries an acceptance that is signed
with it. For whoever cannot sign with it, an invitation that is there and one that is not are one thing: the same 404 after the
same work. Whoever can learns what they are asked to sign, and nothing else of the release.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse
from pydantic import ConfigDict, Field

from orchestrator.api import bodies, views
from orchestrator.api.auth import StepName, commanded, guarded, reading
from orchestrator.api.context import context_of
from orchestrator.api.deps import Deps, Parts
from orchestrator.api.limiting import Limiter
from orchestrator.api.problems import documented
from orchestrator.api.sending import Sending, sends
from orchestrator.contracts.messages import CommandMessage
from orchestrator.domain import commands as cmd
from orchestrator.domain.errors import Conflict, NotFound, NotPermitted, Reason
from orchestrator.domain.evidence import EvidenceKind
from orchestrator.domain.gate import verdict
from orchestrator.domain.gate_views import SignOffView
from orchestrator.domain.permissions import Permission
from orchestrator.domain.plan import Step
from orchestrator.domain.preview import entering_words
from orchestrator.domain.state import GateSubject, Invitation, ReleaseState, gate_subject
from orchestrator.domain.values import Digest, Frozen, Instant, Line, Name, Text, statement_digest
from orchestrator.records import database, invitations, principals, releases
from orchestrator.trust.errors import TrustError
from orchestrator.trust.invitations import (
    accepted_keys,
    check_invited_sign_off,
    check_invited_withdrawal,
    holds,
    read_invitation,
)
from orchestrator.trust.keys import PrivateKey, PublicKey

router = APIRouter(prefix="/v1", tags=["invitations"])
page = APIRouter(include_in_schema=False)

InvitationId = Annotated[
    str,
    Path(
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of the signed invitation, in hex",
        examples=["ab" * 32],
    ),
]
State = Annotated[ReleaseState, Depends(reading())]
Standing = Literal["open", "used", "revoked", "expired", "stale"]

#: What is verified for an invitation that is not there, so that it takes as long.
_NOBODY = PrivateKey.from_seed(bytes(range(32))).public.text()
_OPEN: dict[str, Any] = {"responses": documented(403, 404, 409, 412, 413, 422, 429)}


class InvitationView(views.View):
    """An invitation to the next gate. `standing`: `open` until it is used, revoked, expired, or stale because the gate changed."""

    id: Digest
    role: Name
    reviewer: Name
    organisation: Line
    invited_by: Name
    at: Instant
    expires_at: Instant
    standing: Standing
    used_at: Instant | None
    revoked_at: Instant | None


class InvitationList(views.Timed):
    """Every invitation to the next gate, the oldest first."""

    items: list[InvitationView]


class GateDocument(views.View):
    """A document that is bound to the gate, and where whoever signs can read it."""

    kind: EvidenceKind
    title: Line
    digest: Digest
    location: Line | None


class InvitedView(views.Timed):
    """What an invited reviewer is asked to sign.

    Attributes:
        envelope: the signed invitation, to be verified against what is shown.
        subject: the gate's subject as it stands now; its digest is what the invitation names, unless it is stale.
        means: what entering the step means, in words.
        sign_off: the reviewer's own standing decision on this invitation; null before, and after a withdrawal.
    """

    invitation: InvitationView
    envelope: str
    title: Line = Field(description="title of the release's plan")
    name: Line = Field(description="what is released")
    version: Line
    subject: GateSubject
    subject_digest: Digest
    means: list[str]
    irreversible: bool
    documents: list[GateDocument]
    longest: int = Field(description="for how many seconds a sign-off can count at most")
    sign_off: SignOffView | None


class AcceptanceBody(Frozen):
    """The acceptance, signed with the one-time key of the invitation: it shows that the caller holds it."""

    acceptance: Annotated[str, Field(max_length=24_000)]


class InvitedSignOffBody(AcceptanceBody):
    """An invited reviewer's decision."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decision: Literal["approve", "reject"]
    comment: Text | None = None
    expires_at: Instant | None = None
    envelope: Annotated[
        str, Field(max_length=24_000, description="the sign-off, signed with the accepted key")
    ]


class InvitedWithdrawBody(AcceptanceBody):
    """An invited reviewer takes their sign-off back."""

    comment: Text | None = None
    envelope: Annotated[
        str, Field(max_length=24_000, description="the withdrawal, signed with the accepted key")
    ]


# --- people of the plan -------------------------------------------------------------------------------------------------


@router.post(
    "/releases/{release}/steps/{step}/invitations",
    operation_id="invite",
    **commanded(Permission.GATE_SIGN),
)
async def invite(
    step: StepName, body: bodies.InviteBody, send: Annotated[Sending, Depends(sends(Permission.GATE_SIGN))]
) -> views.CommandResult:
    """Invite one outside reviewer without an account to sign the gate as it stands, once."""
    await run_in_threadpool(_require_no_account, send.deps, body.reviewer)
    return await send(cmd.Invite(**send.head, step=step, **dict(body)))


def _require_no_account(deps: Deps, reviewer: str) -> None:
    with database.reading(deps.engine) as session:
        try:
            principals.get(session, reviewer)
        except NotFound:
            return
    raise Conflict(
        f"{reviewer} has an account here",
        [Reason("known-person", "name them in the plan, or choose another name", "body.reviewer")],
    )


@router.get(
    "/releases/{release}/invitations",
    operation_id="listInvitations",
    **guarded(Permission.RELEASE_READ, 404),
)
def list_invitations(state: State, deps: Parts) -> InvitationList:
    """Invitations to the next gate, with what became of each."""
    now, step = deps.now(), state.next_step
    subject = None if step is None else gate_subject(state, step).digest
    items = [_view(invitation, subject, now) for invitation in state.invitations.values()]
    return InvitationList(items=items, server_time=now)


@router.post(
    "/releases/{release}/invitations/{invitation}/revoke",
    operation_id="revokeInvitation",
    **commanded(Permission.GATE_SIGN),
)
async def revoke(
    invitation: InvitationId,
    body: bodies.ReasonBody,
    send: Annotated[Sending, Depends(sends(Permission.GATE_SIGN))],
) -> views.CommandResult:
    """Take an invitation back. An approval that was given on it counts no more; a rejection stands."""
    return await send(
        cmd.RevokeInvitation(**send.head, invitation=f"sha256:{invitation}", reason=body.reason)
    )


def _view(invitation: Invitation, subject: str | None, now: datetime) -> InvitationView:
    standing: Standing = "open"
    if invitation.revoked_at is not None:
        standing = "revoked"
    elif invitation.used_at is not None:
        standing = "used"
    elif invitation.expires_at <= now:
        standing = "expired"
    elif invitation.subject != subject:
        standing = "stale"
    return InvitationView(
        id=invitation.id,
        role=invitation.role,
        reviewer=invitation.reviewer,
        organisation=invitation.organisation,
        invited_by=invitation.by,
        at=invitation.at,
        expires_at=invitation.expires_at,
        standing=standing,
        used_at=invitation.used_at,
        revoked_at=invitation.revoked_at,
    )


# --- the reviewer -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Shown:
    """An invitation that its one-time key has opened."""

    state: ReleaseState
    invitation: Invitation
    step: Step

    @property
    def actor(self) -> cmd.Actor:
        return cmd.Actor(id=self.invitation.reviewer, kind="invited")


def _open(request: Request, deps: Deps, name: str, acceptance: str) -> _Shown:
    """The invitation, for whoever signs with its one-time key.

    Raises:
        NotFound: there is none, or the acceptance is not signed with its key; which of these is not said.
        Conflict: its gate was entered since, or begun anew.
        NotPermitted: the acceptance does not hold; it says why.
    """
    context = context_of(request)
    limiter: Limiter = request.app.state.limiter
    limiter.invited(context.client)
    digest = f"sha256:{name}"
    with database.reading(deps.engine) as session:
        place = invitations.find(session, digest)
    accepted = None
    with suppress(TrustError):
        accepted = holds(acceptance, PublicKey.parse(_NOBODY if place is None else place.key))
    if place is None or accepted is None:
        raise NotFound(
            "there is no such invitation, or this is not its link",
            [Reason("unknown-invitation", "ask whoever invited you for the whole link", "invitation")],
        )
    context.release, context.principal = place.release, f"invited:{name[:16]}"
    with database.reading(deps.engine) as session:
        state = releases.load(session, place.release)
    invitation, step = state.invitations.get(digest), state.next_step
    if invitation is None or step is None or state.ended:
        raise Conflict(
            "the gate that this invitation is for was entered or begun anew since; there is nothing to sign any more",
            [Reason("over", "ask whoever invited you", "invitation")],
        )
    context.principal, context.step = invitation.reviewer, step.name
    with _refusals():
        accepted.require(invitation=digest)
        accepted.check_time(deps.now())
    return _Shown(state, invitation, step)


@contextmanager
def _refusals() -> Iterator[None]:
    """What does not hold of signed bytes, as a refusal."""
    try:
        yield
    except TrustError as error:
        raise NotPermitted(
            f"what was signed does not hold: {error}", [Reason("signature", str(error), "body")]
        ) from None


@router.post("/invitations/{invitation}", operation_id="showInvitation", **_OPEN)
def show(request: Request, invitation: InvitationId, body: AcceptanceBody, deps: Parts) -> InvitedView:
    """What the holder of an invitation is asked to sign. Takes no account; the one-time key of the invitation opens it."""
    context_of(request).audited = False
    shown = _open(request, deps, invitation, body.acceptance)
    state, found, step, now = shown.state, shown.invitation, shown.step, deps.now()
    gate = verdict(state, step, now)
    record = state.sign_offs.get(found.reviewer)
    own = next((view for view in gate.sign_offs if view.person == found.reviewer), None)
    documents = [
        GateDocument(kind=kind, title=document.title, digest=document.digest, location=document.location)
        for kind, document in sorted(state.evidence_for(step).items())
    ]
    return InvitedView(
        invitation=_view(found, gate.subject_digest, now),
        envelope=found.envelope,
        title=state.plan.title,
        name=state.name,
        version=state.version,
        subject=gate.subject,
        subject_digest=gate.subject_digest,
        means=entering_words(state, step.name),
        irreversible=gate.irreversible,
        documents=documents,
        longest=int(step.gate.sign_off_validity.total_seconds()),
        sign_off=own if record is not None and record.invitation == found.id else None,
        server_time=now,
    )


@router.post("/invitations/{invitation}/sign-off", operation_id="signInvited", **_OPEN)
async def sign_off(
    request: Request, invitation: InvitationId, body: InvitedSignOffBody, deps: Parts
) -> views.CommandResult:
    """Approve or reject as an invited reviewer. Takes no account, and uses the invitation up."""
    context_of(request).command = "sign_invited"
    shown = await run_in_threadpool(_open, request, deps, invitation, body.acceptance)
    await run_in_threadpool(_check_sign_off, deps, shown, body)
    command = cmd.SignInvited(
        command_id=_command_id(invitation, body.envelope),
        actor=shown.actor,
        step=shown.step.name,
        invitation=shown.invitation.id,
        decision=body.decision,
        subject=shown.invitation.subject,
        comment=body.comment,
        expires_at=body.expires_at,
        acceptance=body.acceptance,
        envelope=body.envelope,
    )
    return await _send(request, deps, shown, command)


def _check_sign_off(deps: Deps, shown: _Shown, body: InvitedSignOffBody) -> None:
    """Verify what is about to be sent; an invitation that is over is for the release itself to refuse."""
    state, invitation = shown.state, shown.invitation
    subject = gate_subject(state, shown.step)
    if not invitation.open or invitation.expires_at <= deps.now() or invitation.subject != subject.digest:
        return
    others = [
        (other.reviewer, other.envelope, other.acceptance)
        for other in state.invitations.values()
        if other.acceptance is not None and other.reviewer != invitation.reviewer
    ]
    with _refusals():
        check_invited_sign_off(
            body.envelope,
            body.acceptance,
            read_invitation(invitation.envelope),
            state.plan,
            subject,
            decision=body.decision,
            now=deps.now(),
            expires_at=body.expires_at,
            taken=accepted_keys(others),
        )


@router.post("/invitations/{invitation}/withdraw", operation_id="withdrawInvited", **_OPEN)
async def withdraw(
    request: Request, invitation: InvitationId, body: InvitedWithdrawBody, deps: Parts
) -> views.CommandResult:
    """Take one's own sign-off on an invitation back, with the key that accepted it. The invitation stays used up."""
    context_of(request).command = "withdraw_invited"
    shown = await run_in_threadpool(_open, request, deps, invitation, body.acceptance)
    record = shown.state.sign_offs.get(shown.invitation.reviewer)
    if record is not None and record.invitation == shown.invitation.id:
        with _refusals():
            check_invited_withdrawal(
                body.envelope,
                shown.invitation.acceptance or "",
                read_invitation(shown.invitation.envelope),
                withdraws=record.statement,
                now=deps.now(),
            )
    command = cmd.WithdrawInvited(
        command_id=_command_id(invitation, body.envelope),
        actor=shown.actor,
        step=shown.step.name,
        invitation=shown.invitation.id,
        comment=body.comment,
        envelope=body.envelope,
    )
    return await _send(request, deps, shown, command)


def _command_id(invitation: str, envelope: str) -> str:
    """One statement is one command: sent again, it is answered again."""
    statement = (statement_digest(envelope) or "").removeprefix("sha256:")
    return f"invited:{invitation[:32]}:{statement[:32]}"


async def _send(request: Request, deps: Deps, shown: _Shown, command: cmd.AnyCommand) -> views.CommandResult:
    context = context_of(request)
    message = CommandMessage.model_construct(
        command=command, if_match=None, request_id=context.request_id, address=context.client
    )
    outcome = await deps.gateway.send(shown.state.release, message)
    return views.CommandResult(
        release=outcome.release,
        seq=outcome.seq,
        events=outcome.events,
        repeated=outcome.repeated,
        server_time=deps.now(),
    )


# --- where the link leads ------------------------------------------------------------------------------------------------

_CSP = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="referrer" content="no-referrer">
<title>Invitation to review</title><style>:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:42rem;
margin:2rem auto;padding:0 1rem}code{font-size:.95em}</style></head><body>
<h1>You are invited to review a release</h1>
<p>You need no account. What you decide is signed on your own machine, with a key that is made there; so it is done with a small program,
not in this page.</p>
<ol><li>Install the command line: the package <code>sluice-release</code> (Python 3.11 or newer).</li>
<li><code>sluice invitation show 'LINK'</code> shows in plain words what you are asked to sign. LINK is the whole address of this page, with
everything behind the <code>#</code>.</li>
<li><code>sluice invitation sign 'LINK' --approve</code>, or <code>--reject</code>. It asks before it signs.</li></ol>
<p>Whoever has the link can sign in your name until you have. It can be used once.</p>
</body></html>
"""


@page.get("/invitation/{invitation}")
def landing(invitation: str) -> HTMLResponse:
    """What to do with the link; the same page for every link, whether there is such an invitation or not."""
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _CSP, "Referrer-Policy": "no-referrer"})
