"""The command gateway without servers: the same pure decisions, written through the real records.

What the workflow does durably happens here in one call: judge, append, then whatever is due (a gate that holds is entered
at once, envelopes are opaque bytes). Time is that of the clock it is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from sqlalchemy import Engine

from orchestrator.contracts.leak_messages import WholeRequest
from orchestrator.contracts.messages import CommandMessage, IngestInput, IngestResult, Outcome
from orchestrator.domain import commands as cmd
from orchestrator.domain.decide import decide, decide_create, due
from orchestrator.domain.decide_access import planned_grants
from orchestrator.domain.errors import GateChanged, KeyReused, Reason, ReleaseEnded, SluiceError, Unavailable
from orchestrator.domain.gate import verdict
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import digest
from orchestrator.records import database, envelopes, partners, releases


@dataclass
class InProcessGateway:
    """`CommandGateway` over an engine. `down` makes every call fail as a Temporal server that is away does."""

    engine: Engine
    clock: Callable[[], datetime]
    down: bool = False
    ingests: dict[str, IngestInput] = field(default_factory=dict)
    checks: dict[str, WholeRequest] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    handled: dict[tuple[str, str], tuple[str, Outcome]] = field(default_factory=dict)

    async def create(
        self, command: cmd.CreateRelease, *, request_id: str | None = None, address: str | None = None
    ) -> Outcome:
        self._up()
        async with self.lock:
            return await asyncio.to_thread(self._create, command, request_id, address)

    async def send(self, release: str, message: CommandMessage) -> Outcome:
        self._up()
        async with self.lock:
            return await asyncio.to_thread(self._send, release, message)

    async def ingest(self, request: IngestInput) -> None:
        self._up()
        self.ingests.setdefault(request.ingest, request)

    async def ingested(self, ingest: str) -> IngestResult | Literal["running", "failed"] | None:
        self._up()
        return "running" if ingest in self.ingests else None

    async def check_whole(self, check: str, request: WholeRequest) -> None:
        self._up()
        self.checks[check] = request

    async def ready(self) -> bool:
        return not self.down

    def settle(self, release: str) -> None:
        """What the main loop does when a clock has run out."""
        with database.reading(self.engine) as session:
            state = releases.load(session, release)
        self._settle(state)

    def _up(self) -> None:
        if self.down:
            raise Unavailable(
                "the release service cannot be reached", [Reason("unreachable", "send it again")]
            )

    def _create(self, command: cmd.CreateRelease, request_id: str | None, address: str | None) -> Outcome:
        events = decide_create(command, self.clock())
        request = releases.Append(
            command.release,
            1,
            events,
            command.command_id,
            command.type,
            digest(command),
            command.actor.id,
            request_id,
            address,
        )
        with database.writing(self.engine) as session:
            releases.append(session, request, self.clock())
        with database.reading(self.engine) as session:
            self._settle(releases.load(session, command.release))
        return Outcome(release=command.release, seq=1, events=["release_created"])

    def _send(self, release: str, message: CommandMessage) -> Outcome:
        message = CommandMessage.model_validate_json(message.model_dump_json())  # as it crosses the wire
        command = message.command
        known = self.handled.get((release, command.command_id))
        if known is not None:
            if known[0] != digest(command):
                raise KeyReused(f"the command ID {command.command_id} was used for another command")
            return known[1].model_copy(update={"repeated": True})
        with database.reading(self.engine) as session:
            state = releases.load(session, release)
        if state.ended:
            raise ReleaseEnded(f"the release {release} has ended")
        now = self.clock()
        step = state.next_step
        if message.if_match is not None and step is not None:
            etag = verdict(state, step, now).etag
            if etag != message.if_match:
                raise GateChanged(
                    f"the gate of `{step.name}` has changed since it was read", [Reason("if-match", etag)]
                )
        state = self._append(state, command, message.request_id, message.address)
        outcome = Outcome(release=release, seq=state[0].seq, events=state[1])
        self.handled[release, command.command_id] = (digest(command), outcome)
        self._settle(state[0])
        return outcome

    def _append(
        self,
        state: ReleaseState,
        command: cmd.AnyCommand,
        request_id: str | None = None,
        address: str | None = None,
    ) -> tuple[ReleaseState, list[str]]:
        events = decide(state, command, self.clock())
        if not events:
            return state, []
        request = releases.Append(
            state.release,
            state.seq + 1,
            events,
            command.command_id,
            command.type,
            digest(command),
            command.actor.id,
            request_id,
            address,
        )
        with database.writing(self.engine) as session:
            releases.append(session, request, self.clock())
            return releases.load(session, state.release), [event.type for event in events]

    def _settle(self, state: ReleaseState) -> None:
        while not state.ended:
            if state.entry is not None:
                state = self._enter(state)
                continue
            wanted = due(state, self.clock())
            if not wanted:
                return
            before = state.seq
            for command in wanted:
                try:
                    state, _ = self._append(state, command)
                except SluiceError:
                    break
            if state.seq == before:
                return

    def _enter(self, state: ReleaseState) -> ReleaseState:
        assert state.entry is not None
        step = state.plan.step(state.entry.step)
        assert step is not None
        made: dict[str, dict[str, str]] = {}
        with database.writing(self.engine) as session:
            known = partners.standing(session, state.plan.audience_partners(step))
            keys = {name: [k for k in one.keys if k.revoked_at is None] for name, one in known.items()}
            ready = [cmd.PartnerReady(partner=name, recipient=k[-1].digest) for name, k in keys.items() if k]
            recipients = {found.partner: found.recipient for found in ready}
            for grant in planned_grants(state, step, recipients, self.clock()):
                if grant.kind != "key":
                    continue
                for artifact in sorted({state.carried_by[name] for name in grant.components}):
                    reference = f"{state.release}/{grant.id}/{artifact}"
                    made.setdefault(grant.id, {})[artifact] = reference
                    envelopes.put(
                        session,
                        reference,
                        b"age-encryption.org/v1\n" + reference.encode(),
                        release=state.release,
                        grant=grant.id,
                        holder=grant.holder,
                        at=self.clock(),
                    )
        complete = cmd.CompleteEntry(
            command_id=f"entered-{step.name}-{state.entry.attempt}",
            actor=cmd.SERVICE,
            step=step.name,
            partners=ready,
            envelopes=made,
        )
        return self._append(state, complete)[0]
