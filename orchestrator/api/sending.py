"""How a route sends a command: idempotency key, gate ETag, the command itself, the answer.

The command's id is `principal:key`: keys of two callers never meet, and no caller can name a command of the service's own.
A key that was answered before is answered again from the records, also after the release has ended.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.concurrency import run_in_threadpool

from orchestrator.api import signatures
from orchestrator.api.auth import Caller, ReleaseId, acting, state_of
from orchestrator.api.context import RequestContext, context_of
from orchestrator.api.deps import Deps, Parts
from orchestrator.api.problems import PreconditionRequired
from orchestrator.api.views import CommandResult
from orchestrator.contracts.messages import CommandMessage, Outcome
from orchestrator.domain.commands import AnyCommand, Command
from orchestrator.domain.errors import GateChanged, KeyReused, Malformed, Reason, ReleaseEnded, Unavailable
from orchestrator.domain.gate import verdict
from orchestrator.domain.permissions import Permission
from orchestrator.domain.values import digest
from orchestrator.records import database, releases

KEY_PATTERN = r"^[A-Za-z0-9._:@-]{1,64}$"
_ETAG = re.compile(r'(W/)?"([^"]*)"')

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=KEY_PATTERN,
        description="the same key with the same request is one request; made up and returned when left out",
        examples=["5f0c6a52"],
    ),
]
RequiredIdempotencyKey = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        pattern=KEY_PATTERN,
        description="the same key with the same request is one request",
        examples=["5f0c6a52"],
    ),
]
IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        max_length=1000,
        description="`ETag` of the gate that was read; without it the decision is refused (428), with an old one too (412)",
        examples=['"0f1e2d3c4b5a69788796a5b4c3d2e1f0"'],
    ),
]


@dataclass(slots=True)
class Sending:
    """One command on its way, on behalf of one caller who may send it."""

    deps: Deps
    caller: Caller
    context: RequestContext
    release: str
    key: str
    given: bool
    if_match: str | None = None

    @property
    def command_id(self) -> str:
        """The command's id: the caller's name and their key."""
        return f"{self.caller.id}:{self.key}"

    @property
    def head(self) -> dict[str, Any]:
        """What every command carries: its id and who asks."""
        return {"command_id": self.command_id, "actor": self.caller.actor}

    async def __call__(self, command: AnyCommand) -> CommandResult:
        """Send a command that was made with `head`.

        Raises:
            SluiceError: the refusal.
        """
        self.context.command = command.type
        if self.given:
            known = await run_in_threadpool(prior, self.deps, self.release, command)
            if known is not None:
                return self.result(known)
        if getattr(command, "envelope", None) is not None:
            await run_in_threadpool(self._verify, command)
        if_match = None if self.if_match is None else await run_in_threadpool(self._etag)
        message = CommandMessage.model_construct(
            command=command,
            if_match=if_match,
            request_id=self.context.request_id,
            address=self.context.client,
        )
        try:
            outcome = await self.deps.gateway.send(self.release, message)
        except ReleaseEnded:
            if await run_in_threadpool(self._ended):
                raise
            raise Unavailable(
                f"the release {self.release} has not ended, but nothing carries out its commands",
                [Reason("workflow-lost", "an operator starts it again with `sluice backup restart`")],
            ) from None
        if not outcome.events and not outcome.repeated:
            await self.context.unchanged()
        return self.result(outcome)

    def _ended(self) -> bool:
        """Whether the release has ended by the records, not only for Temporal."""
        with database.reading(self.deps.engine) as session:
            return state_of(session, self.release).ended

    def result(self, outcome: Outcome) -> CommandResult:
        """The answer."""
        return CommandResult(
            release=outcome.release,
            seq=outcome.seq,
            events=outcome.events,
            repeated=outcome.repeated,
            server_time=self.deps.now(),
        )

    def _verify(self, command: AnyCommand) -> None:
        with database.reading(self.deps.engine) as session:
            state = state_of(session, self.release)
        signatures.verify(state, command, self.deps.now())

    def _etag(self) -> str:
        """The one ETag to decide on: of several given, the one that stands at the gate now."""
        tags = parse_etags(self.if_match or "")
        if len(tags) == 1:
            return tags[0]
        with database.reading(self.deps.engine) as session:
            state = state_of(session, self.release)
        step = state.next_step
        current = None if step is None else verdict(state, step, self.deps.now()).etag
        return current if current in tags else tags[0]


def parse_etags(text: str) -> list[str]:
    """The strong tags of an `If-Match` header.

    Raises:
        GateChanged: only weak tags, or `*`: a decision is on exactly one state of the gate.
        Malformed: not a list of quoted tags.
    """
    if text.strip() == "*":
        raise GateChanged(
            "a decision names the very gate that was read, not `*`",
            [Reason("if-match", "send the gate's `ETag`", "header.If-Match")],
        )
    found = [(match[1], match[2]) for match in _ETAG.finditer(text)]
    if not found or _ETAG.sub("", text).strip(" ,\t"):
        raise Malformed(
            "`If-Match` is not a list of quoted tags",
            [Reason("if-match", 'it is written `"tag"`, as the gate\'s `ETag`', "header.If-Match")],
        )
    strong = [tag for weak, tag in found if not weak]
    if not strong:
        raise GateChanged(
            "a weak tag never matches", [Reason("if-match", "send the gate's `ETag`", "header.If-Match")]
        )
    return strong


def prior(deps: Deps, release: str, command: Command) -> Outcome | None:
    """The outcome that this command had before, by its id.

    Raises:
        KeyReused: its id was another command's.
    """
    with database.reading(deps.engine) as session:
        known = releases.handled(session, release, command.command_id)
    if known is None:
        return None
    if known.digest != digest(command):
        raise KeyReused(
            "this Idempotency-Key was used for another command",
            [Reason("idempotency-key-reused", "make a new key for a new request", "header.Idempotency-Key")],
        )
    return Outcome(release=release, seq=known.seq, events=list(known.events), repeated=True)


def keyed(context: RequestContext, key: str | None) -> str:
    """The caller's idempotency key, or a new one; the response's header says which."""
    made = key or secrets.token_hex(12)
    context.headers["Idempotency-Key"] = made
    context.idempotency_key = made
    return made


def sends(permission: Permission) -> Callable[..., Sending]:
    """A dependency: the way to send a command of the release in the path, for a caller with this permission."""
    permitted = Depends(acting(permission))  # as a default: annotations are read outside of this function

    def sending(
        request: Request,
        release: ReleaseId,
        deps: Parts,
        caller: Caller = permitted,
        key: IdempotencyKey = None,
    ) -> Sending:
        context = context_of(request)
        made = keyed(context, key)
        return Sending(deps, caller, context, release, made, key is not None)

    return sending


def decides(permission: Permission) -> Callable[..., Sending]:
    """The same for decisions at a gate: they need `If-Match`.

    Raises:
        PreconditionRequired: there is none.
    """
    way = Depends(sends(permission))

    def deciding(send: Sending = way, if_match: IfMatch = None) -> Sending:
        if if_match is None:
            raise PreconditionRequired(
                "send the gate's ETag as `If-Match`: it says on what you decided",
                [Reason("if-match", "GET the gate and send its `ETag` back", "header.If-Match")],
            )
        send.if_match = if_match
        return send

    return deciding
