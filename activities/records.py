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
from orchestrator.domain.plan import Plan, recipient_digest
from orchestrator.records import partners, releases
from orchestrator.records.database import reading, writing
from orchestrator.records.partners import Partner


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
        )
        with at_the_edge(), writing(self._engine) as session:
            done = releases.append(session, asked, self._clock())
        return Recorded(events=done.events, adopted=done.adopted)

    @activity.defn(name=names.OBSERVE_PARTNERS)
    def observe_partners(self, request: PartnersRequest) -> PartnersFound:
        """Which of these partners can be given a grant at this step: active, with a key, the terms of their group accepted.

        Where the plan pins a recipient, no other key will do. The workflow gets the key's digest; the key stays here.
        """
        with at_the_edge(), reading(self._engine) as session:
            plan = releases.load(session, request.release).plan
            wanted = _terms(plan, request)
            known = partners.standing(session, list(wanted))
        ready = []
        for name, terms in sorted(wanted.items()):
            digest = _usable_key(plan, name, known.get(name), terms)
            if digest is not None:
                ready.append(PartnerReady(partner=name, recipient=digest))
        return PartnersFound(ready=ready)


def _usable_key(plan: Plan, name: str, partner: Partner | None, terms: set[str]) -> str | None:
    """The digest of the key that a partner's envelope can be made for; None while it is not ready."""
    accepted = set() if partner is None else {found.terms for found in partner.terms}
    if not terms <= accepted or (partner is not None and not partner.active):
        return None
    keys = [] if partner is None else partner.keys
    usable = [key.digest for key in keys if key.revoked_at is None]
    pinned = plan.partners[name].recipient if name in plan.partners else None
    if pinned is None:
        return usable[-1] if usable else None
    digest = recipient_digest(pinned)
    revoked = digest in {key.digest for key in keys} - set(usable)
    # Pinned by its digest alone, the key itself has to be in the records; pinned as a whole, the plan has it.
    return digest if not revoked and (pinned != digest or digest in usable) else None


def _terms(plan: Plan, request: PartnersRequest) -> dict[str, set[str]]:
    """Partner → the terms of every group of the step's audience that it is in."""
    step = plan.step(request.step)
    groups = [] if step is None else [plan.partner_groups[name] for name in step.partner_groups]
    return {
        partner: {group.terms for group in groups if partner in group.partners and group.terms is not None}
        for partner in request.partners
    }
