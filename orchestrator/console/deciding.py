"""A decision in two calls: `prepare` says what it would do and what would be signed, `decide` carries it out.

What is prepared is made of the release as it stands, and names the gate's ETag: when the gate changes before the decision comes, it
is refused and counts for nothing. A statement comes back from the browser with the assertion around it and is verified like any
other: against the keys that the plan pins, and field by field against the release.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from datetime import datetime, timedelta
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from orchestrator.api import bodies
from orchestrator.api.auth import Caller, state_of
from orchestrator.api.context import context_of
from orchestrator.api.deps import Deps, Parts
from orchestrator.api.sending import KEY_PATTERN, Sending, keyed
from orchestrator.api.views import CommandResult
from orchestrator.console.showing import looking
from orchestrator.domain import commands as cmd
from orchestrator.domain.errors import Malformed, NotPermitted, Reason
from orchestrator.domain.gate import verdict
from orchestrator.domain.permissions import Permission
from orchestrator.domain.preview import Preview, preview
from orchestrator.domain.state import ReleaseState, gate_subject
from orchestrator.domain.values import Frozen, Name
from orchestrator.records import database
from orchestrator.trust.decisions import endorsement_statement, pinned_keys, sign_off_statement
from orchestrator.trust.errors import TrustError
from orchestrator.trust.keys import PublicKey
from orchestrator.trust.passkeys import challenge_text
from orchestrator.trust.signing import challenge, sign_with_passkey, verify_single
from orchestrator.trust.statements import Delegation, Statement, Subject

router = APIRouter(prefix="/console", include_in_schema=False)

_DECISIONS = (cmd.SignOff, cmd.WithdrawSignOff, cmd.RetryEntry, cmd.BreakGlass, cmd.ShortenWindow)


class Asked(Frozen):
    """A command that a page asks about."""

    release: Name
    command: bodies.AnyAsked


class ToSign(BaseModel):
    """What the passkey signs. `payload`: the statement, base64; `challenge`: base64url; `words`: every field of it."""

    payload: str
    challenge: str
    relying_party: str
    words: list[str]


class Prepared(BaseModel):
    """What a decision would do, before anybody confirms it.

    Attributes:
        preview: as `POST …/gate/preview` answers.
        command: the command with what was added to it (subject, expiry); comes back to `decide`.
        etag: the gate that it is decided on; None for what is no decision at a gate.
        key: idempotency key, so that pressing twice is once.
        sign: what the passkey signs; None: nothing is signed.
        elsewhere: why it cannot be signed here, and the command line that can.
    """

    preview: Preview
    command: dict[str, Any]
    etag: str | None = None
    key: str
    sign: ToSign | None = None
    elsewhere: str | None = None


class Decided(Frozen):
    """A decision, with the passkey's answer where one was asked for."""

    release: Name
    command: bodies.AnyAsked
    etag: Annotated[str, Field(max_length=200)] | None = None
    key: Annotated[str, Field(pattern=KEY_PATTERN)]
    payload: Annotated[str, Field(max_length=64_000)] | None = None
    assertion: dict[str, Any] | None = None


Looking = Annotated[Caller, Depends(looking)]


@router.post("/prepare")
def prepare(request: Request, body: Asked, caller: Looking, deps: Parts) -> Prepared:
    """What this would do, and what would be signed; nothing is changed."""
    context = context_of(request)
    context.release, context.audited = body.release, False
    state = _state(deps, caller, body.release)
    now = deps.now()
    command = bodies.command_of(body.command, actor=caller.actor, command_id=f"{caller.id}:preview")
    command, statement, words = _complete(state, command, caller.id, now)
    found = preview(state, command, now)
    step = state.next_step
    tag = verdict(state, step, now).etag if step is not None and isinstance(command, _DECISIONS) else None
    fields = command.model_dump(mode="json", exclude={"command_id", "actor", "envelope"}, exclude_none=True)
    prepared = Prepared(preview=found, command=fields, etag=tag, key=secrets.token_hex(12))
    if statement is None or not found.accepted:
        return prepared
    passkeys = [key for key in _pinned(state, caller.id) if key.kind.startswith("passkey")]
    party = _relying_party(deps)
    if not passkeys or all(key.relying_party != party for key in passkeys):
        prepared.elsewhere = _elsewhere(state, command, passkeys, party)
        return prepared
    payload = statement.to_bytes()
    prepared.sign = ToSign(
        payload=base64.b64encode(payload).decode(),
        challenge=challenge_text(challenge(payload)),
        relying_party=party,
        words=words,
    )
    return prepared


@router.post("/decide")
async def decide(request: Request, body: Decided, caller: Looking, deps: Parts) -> CommandResult:
    """Carry it out."""
    context = context_of(request)
    context.release = body.release
    send = Sending(deps, caller, context, body.release, keyed(context, body.key), given=True)
    send.if_match = None if body.etag is None else f'"{body.etag}"'
    command = bodies.command_of(body.command, actor=caller.actor, command_id=send.command_id)
    context.command = command.type
    state = await run_in_threadpool(_state, deps, caller, body.release)
    if isinstance(command, _DECISIONS) and send.if_match is None:
        raise Malformed(
            "a decision at a gate names the gate that was read", [Reason("etag", "prepare it again", "etag")]
        )
    if body.payload is not None and body.assertion is not None:
        envelope = await run_in_threadpool(_envelope, state, caller.id, body.payload, body.assertion)
        command = command.model_copy(update={"envelope": envelope})
    return await send(command)


def _state(deps: Deps, caller: Caller, release: str) -> ReleaseState:
    caller.require(Permission.RELEASE_READ)
    with database.reading(deps.engine) as session:
        return state_of(session, release)


def _pinned(state: ReleaseState, person: str) -> list[PublicKey]:
    try:
        return pinned_keys(state.plan, person)
    except TrustError:
        return []


def _relying_party(deps: Deps) -> str:
    return urlsplit(deps.settings.public_url).hostname or "localhost"


def _elsewhere(state: ReleaseState, command: cmd.AnyCommand, passkeys: list[PublicKey], party: str) -> str:
    if passkeys:
        places = ", ".join(sorted({str(key.relying_party) for key in passkeys}))
        return f"your passkey in the plan was made for {places}; this page is at {party}"
    told = "the plan pins a key file of yours and no passkey: sign on your machine"
    match command:
        case cmd.SignOff():
            return f"{told}: sluice sign {state.release} {command.step} --role {command.role} --{command.decision}"
        case cmd.WithdrawSignOff():
            return f"{told}: sluice sign {state.release} {command.step} --withdraw"
        case cmd.Resume():
            return f"{told}: sluice release resume {state.release}"
        case cmd.Endorse():
            return f"{told}: sluice release endorse {state.release} {command.proposal}"
        case _:
            return f"{told}, with the command `sluice`"


# --- what is signed


def _complete(
    state: ReleaseState, command: cmd.AnyCommand, person: str, now: datetime
) -> tuple[cmd.AnyCommand, Statement[Any] | None, list[str]]:
    """The command with its subject and expiry, its statement, and every field of that in words; no statement: nothing is signed."""
    issued = now.replace(microsecond=0)
    signs = bool(_pinned(state, person))
    match command:
        case cmd.SignOff():
            return _sign_off(state, command, person, issued, signs=signs)
        case cmd.WithdrawSignOff() if signs:
            return _withdrawal(state, command, person, issued)
        case cmd.Delegate() if signs:
            predicate = Delegation(
                release=state.release,
                plan_digest=state.plan_digest,
                from_person=person,
                to_person=command.to,
                role=command.role,
                issued_at=issued,
                expires_at=command.until,
            )
            statement = Statement[Delegation](
                subjects=(Subject.of("plan", state.plan_digest),), predicate=predicate
            )
            return command, statement, _words(statement)
        case _ if signs:
            return command, *_endorsement(state, command, person, issued)
    return command, None, []


def _sign_off(
    state: ReleaseState, command: cmd.SignOff, person: str, issued: datetime, *, signs: bool
) -> tuple[cmd.AnyCommand, Statement[Any] | None, list[str]]:
    step = state.plan.step(command.step)
    if step is None:
        return command, None, []
    subject = gate_subject(state, step)
    longest = step.gate.sign_off_validity
    asked = longest if command.expires_at is None else min(command.expires_at - issued, longest)
    validity = max(asked, timedelta(minutes=1))
    whole = command.model_copy(update={"subject": subject.digest, "expires_at": issued + validity})
    if not signs:
        return whole, None, []
    statement = sign_off_statement(
        subject,
        person=person,
        role=command.role,
        decision=command.decision,
        issued_at=issued,
        validity=validity,
        comment=command.comment or "",
    )
    return whole, statement, _words(statement)


def _withdrawal(
    state: ReleaseState, command: cmd.WithdrawSignOff, person: str, issued: datetime
) -> tuple[cmd.AnyCommand, Statement[Any] | None, list[str]]:
    step, standing = state.plan.step(command.step), state.sign_offs.get(person)
    if step is None or standing is None or standing.statement is None:
        return command, None, []
    statement = sign_off_statement(
        gate_subject(state, step),
        person=person,
        role=standing.role,
        decision="withdraw",
        issued_at=issued,
        validity=timedelta(days=1),
        comment=command.comment or "",
        withdraws=standing.statement,
    )
    return command, statement, _words(statement)


def _endorsement(
    state: ReleaseState, command: cmd.AnyCommand, person: str, issued: datetime
) -> tuple[Statement[Any] | None, list[str]]:
    wanted = preview(state, command, issued).to_sign
    named = state.plan.people.get(person)
    if wanted is None or named is None:
        return None, []
    asked = [] if wanted.action == "close_review" else state.plan.quorums.of(wanted.action).roles
    roles = [role for role in named.roles if role in asked] or list(named.roles)
    statement = endorsement_statement(
        release=state.release,
        action=wanted.action,  # type: ignore[arg-type]  # the preview names actions of this list
        payload_digest=wanted.payload_digest,
        plan_digest=state.plan_digest,
        person=person,
        role=roles[0],
        issued_at=issued,
    )
    return statement, _words(statement)


def _words(statement: Statement[Any]) -> list[str]:
    fields = statement.predicate.model_dump(mode="json", exclude_none=True)
    told = [f"{subject.name}: sha256:{subject.sha256}" for subject in statement.subjects]
    for name, value in fields.items():
        if isinstance(value, dict):
            told += [f"{name.removesuffix('_digests')} {key}: {text}" for key, text in value.items()]
        elif value not in ("", []):
            told.append(f"{name.replace('_', ' ')}: {value}")
    return told


def _envelope(state: ReleaseState, person: str, payload: str, assertion: dict[str, Any]) -> str:
    """The signed statement: the first of the person's passkeys that the assertion verifies with.

    Raises:
        NotPermitted: none of them.
    """
    try:
        raw = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed(
            "the statement is no base64", [Reason("payload", "prepare it again", "payload")]
        ) from None
    why = "the plan pins no passkey of yours"
    for key in _pinned(state, person):
        if not key.kind.startswith("passkey"):
            continue
        try:
            envelope = sign_with_passkey(raw, key, assertion)
            verify_single(envelope, [key])
        except TrustError as error:
            why = str(error)
        else:
            return envelope.decode()
    raise NotPermitted(f"the passkey's answer does not hold: {why}", [Reason("signature", why, "assertion")])
