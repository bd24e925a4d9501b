"""The records as the workflow reaches them: one activity writes events, one tells which partners are ready.

Both run as local activities next to the workflow: a database transaction, then an answer. Whatever is retried, an event
is written once (`orchestrator.records.event_log`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine
from temporalio import activity

from activities.errors import at_the_edge
from orchestrator.contracts import names
from orchestrator.contracts.messages import PartnersFound, PartnersRequest, Recorded, RecordRequest
from orchestrator.domain.commands import PartnerReady
from orchestrator.records import partners, releases
from orchestrator.records.database import reading, writing


def _now() -> datetime:
    return datetime.now(UTC)


class RecordActivities:
    """Activities over one database.

    Args:
        engine: from `orchestrator.records.database.connect`.
        clock: tells the time (aware); for what of the read models depends on it.
    """

    def __init__(self, engine: Engine, clock: Callable[[], datetime] = _now) -> None:
        self._engine = engine
        self._clock = clock

    @property
    def all(self) -> list[Callable[..., Any]]:
        """Every activity, for a worker."""
        return [self.record_events, self.observe_partners]

    @activity.defn(name=names.RECORD_EVENTS)
    def record_events(self, request: RecordRequest) -> Recorded:
        """Write events, their audit leaves and the read models, exactly once; what then stands from `first_seq` on.

        Raises:
            ApplicationError: `conflict` (the release exists), `idempotency-key-reused`, `malformed`, `records-behind`,
                `records-broken`: not retried; `unavailable`: retried.
        """
        asked = releases.Append(
            release=request.release,
            first_seq=request.first_seq,
            events=request.events,
            command_id=request.command_id,
            command_type=request.command_type,
            command_digest=request.command_digest,
            actor=request.actor,
            request_id=request.request_id,
            address=request.address,
        )
        with at_the_edge(), writing(self._engine) as session:
            done = releases.append(session, asked, self._clock())
        return Recorded(events=done.events, adopted=done.adopted)

    @activity.defn(name=names.OBSERVE_PARTNERS)
    def observe_partners(self, request: PartnersRequest) -> PartnersFound:
        """Which of these partners can be given a grant at this step.

        They are active, have accepted the terms of their groups, and have a key where the step hands keys to its audience.
        Where the plan pins a recipient, no other key will do. The workflow gets the key's digest; the key stays here.
        """
        with at_the_edge(), reading(self._engine) as session:
            plan = releases.load(session, request.release).plan
            known = partners.standing(session, request.partners)
        step = plan.step(request.step)
        ready, absent = [], []
        for name in sorted(set(request.partners)):
            if step is None or partners.not_ready(plan, step, name, known.get(name)):
                absent.append(name)
            else:
                key = partners.usable_key(plan, name, known.get(name))
                ready.append(PartnerReady(partner=name, recipient=key))
        return PartnersFound(ready=ready, absent=absent)
