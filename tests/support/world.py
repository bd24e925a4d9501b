"""A world without servers for workflow tests: an event log with the records' rules, and effects that can be told to fail."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

from temporalio import activity
from temporalio.exceptions import ApplicationError

from orchestrator.contracts import messages as msg
from orchestrator.contracts import names
from orchestrator.domain import commands as cmd
from orchestrator.domain.commands import GrantCopy
from orchestrator.domain.decide_access import planned_grants
from orchestrator.domain.decide_late import late_id
from orchestrator.domain.events import AnyEvent
from orchestrator.domain.evolve import fold
from orchestrator.domain.state import ReleaseState


@dataclass
class World:
    """Activities by name. `fail[name]` > 0 makes the next calls fail; `lose[name]` makes them fail after they worked."""

    log: dict[str, list[AnyEvent]] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    fail: Counter[str] = field(default_factory=Counter)
    lose: Counter[str] = field(default_factory=Counter)
    fatal: dict[str, str] = field(default_factory=dict)
    waits: dict[str, list[object]] = field(default_factory=dict)
    stop_after: str = ""
    published: set[str] = field(default_factory=set)
    partner_keys: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def state(self, release: str) -> ReleaseState:
        with self.lock:
            return fold(list(self.log[release]))

    def _called(self, name: str) -> None:
        self.calls[name] += 1
        if name in self.fatal:
            raise ApplicationError(self.fatal[name], [], type="conflict", non_retryable=True)
        if name in self.waits:
            kind, *details = self.waits[name]
            raise ApplicationError("not yet", *details, type=str(kind), non_retryable=True)
        if self.fail[name] > 0:
            self.fail[name] -= 1
            raise RuntimeError(f"{name} fails as told")

    def _answer(self, name: str) -> None:
        if self.lose[name] > 0:
            self.lose[name] -= 1
            raise RuntimeError(f"{name} worked, but its answer is lost")

    @activity.defn(name=names.RECORD_EVENTS)
    def record_events(self, request: msg.RecordRequest) -> msg.Recorded:
        with self.lock:
            self._called(names.RECORD_EVENTS)
            log = self.log.setdefault(request.release, [])
            stored = log[request.first_seq - 1 :]
            if stored:
                return msg.Recorded(events=stored, adopted=stored[0].command_id != request.command_id)
            if request.first_seq != len(log) + 1:
                # most likely a release of an earlier test, which woke up: retried for ever, it would keep this test's worker from ending
                raise ApplicationError(
                    "a gap in the event log", [], type="records-behind", non_retryable=True
                )
            if any(event.command_id == request.command_id for event in log):
                return msg.Recorded(events=[])  # the command stands at another place already
            log += request.events
            if any(event.type == self.stop_after for event in request.events):
                self.fatal, self.stop_after = (
                    {names.RECORD_EVENTS: "the database is older than the release"},
                    "",
                )
            self._answer(names.RECORD_EVENTS)
            return msg.Recorded(events=request.events)

    @activity.defn(name=names.OBSERVE_PARTNERS)
    def observe_partners(self, request: msg.PartnersRequest) -> msg.PartnersFound:
        self._called(names.OBSERVE_PARTNERS)
        keys = self.partner_keys
        ready = [
            cmd.PartnerReady(partner=name, recipient=keys[name]) for name in request.partners if name in keys
        ]
        return msg.PartnersFound(ready=ready)

    @activity.defn(name=names.MAKE_ENVELOPES)
    def make_envelopes(self, request: msg.EnvelopeRequest) -> msg.EnvelopesMade:
        self._called(names.MAKE_ENVELOPES)
        state = self.state(request.release)
        step = state.plan.step(request.step)
        assert step is not None
        if request.late is not None:
            grant = late_id(state, step, request.late)
            return msg.EnvelopesMade(envelopes={grant: {"a1": f"envelope/{grant}"}})
        grants = planned_grants(state, step, {}, request.at)
        return msg.EnvelopesMade(
            envelopes={g.id: {"a1": f"envelope/{g.id}"} for g in grants if g.kind == "key"}
        )

    @activity.defn(name=names.PUBLISH_STEP)
    def publish_step(self, request: msg.StepRequest) -> msg.Published:
        self._called(names.PUBLISH_STEP)
        self.published.add(f"{request.release}/{request.step}")
        self._answer(names.PUBLISH_STEP)
        return msg.Published(references=[request.step])

    @activity.defn(name=names.APPLY_ACCESS)
    def apply_access(self, request: msg.AccessRequest) -> msg.AccessApplied:
        self._called(names.APPLY_ACCESS)
        state = self.state(request.release)
        keep = (
            {step.name for step in state.plan.steps[: state.index + 1]}
            if state.status != "aborted"
            else set()
        )
        self.published = {p for p in self.published if p.split("/")[1] in keep}
        return msg.AccessApplied(changes=[])

    @activity.defn(name=names.MAKE_COPIES)
    def make_copies(self, request: msg.EnvelopeRequest) -> msg.CopiesMade:
        self._called(names.MAKE_COPIES)
        state = self.state(request.release)
        step = state.plan.step(request.step)
        assert step is not None
        made = {
            g.id: [
                GrantCopy(
                    of="a1",
                    artifact=f"copy-{g.holder}",
                    manifest_digest="sha256:" + "c" * 64,
                    location="dir:somewhere",
                    components=g.components,
                    mark="sha256:" + "d" * 64,
                )
            ]
            for g in planned_grants(state, step, {}, request.at)
            if g.kind == "key" and state.plan.marks(step, g.holder_kind, g.components)
        }
        return msg.CopiesMade(copies=made)

    @activity.defn(name=names.RESEAL_ARTIFACT)
    def reseal_artifact(self, request: msg.ResealRequest) -> msg.Resealed:
        self._called(names.RESEAL_ARTIFACT)
        self._answer(names.RESEAL_ARTIFACT)
        return msg.Resealed(
            artifact=request.artifact,
            new=f"{request.artifact}-anew",
            manifest_digest="sha256:" + "a" * 64,
            location="dir:somewhere",
        )

    @activity.defn(name=names.RENEW_ENVELOPES)
    def renew_envelopes(self, request: msg.RenewRequest) -> msg.EnvelopesRenewed:
        self._called(names.RENEW_ENVELOPES)
        waiting = self.state(request.release).awaiting_renewal()
        return msg.EnvelopesRenewed(
            envelopes={g.id: {a: f"envelope/{g.id}/{a}" for a in g.renew} for g in waiting}
        )

    @activity.defn(name=names.DELETE_SEALED)
    def delete_sealed(self, request: msg.DeleteRequest) -> msg.AccessApplied:
        self._called(names.DELETE_SEALED)
        return msg.AccessApplied(changes=[request.artifact])

    @property
    def more(self) -> list[object]:
        """Effects that a test's own world has beside these."""
        return []

    @property
    def all(self) -> list[object]:
        return [
            self.record_events,
            self.observe_partners,
            self.make_envelopes,
            self.publish_step,
            self.apply_access,
        ]
