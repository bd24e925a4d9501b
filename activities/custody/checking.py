"""Folds a release from its events and holds every decision in it to the people who must have signed it.

An honest service never writes an event that fails here, so one that does is a sign of somebody with write access: the
whole release is refused from there on, and the refusal names the event. Checked are:

    signed_off              the statement, by a key that the plan pins, on exactly the subject that stood at the gate
    sign_off_withdrawn      of a rejection: the statement
    proposed, endorsed      the statement, on exactly the payload
    what a quorum carries   the proposal was carried by enough different people and different keys, and says the same
    incident, review closed the statement of whoever closed it
    entry_began             the gate held by the same pure rules
    evidence_submitted      the same document is not rated better than before

A person without pinned keys cannot be checked; then the log is all there is (docs/trust-model.md).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from orchestrator.domain import events as ev
from orchestrator.domain.errors import Conflict, Reason
from orchestrator.domain.evidence import Rating
from orchestrator.domain.evolve import begin, evolve
from orchestrator.domain.gate import verdict
from orchestrator.domain.incident import Severity
from orchestrator.domain.plan_rules import broken_rules
from orchestrator.domain.state import Proposal, ReleaseState, gate_subject
from orchestrator.domain.values import digest, format_duration, parse_duration
from orchestrator.trust.decisions import (
    check_delegation,
    check_endorsement,
    check_sign_off,
    check_withdrawal,
    pinned_keys,
)
from orchestrator.trust.errors import TrustError

CLOCK_SKEW = timedelta(minutes=5)
_WORST = list(Rating)


class Unbacked(Conflict):
    """An event of the log that no signature and no rule backs: custody gives no key of this release."""

    code = "unbacked"
    title = "An entry of the log is not backed by what it needs"


def checked_fold(history: list[ev.AnyEvent], now: datetime) -> ReleaseState:
    """The state after `history`, every decision in it checked.

    Args:
        history: a release's events as custody verified them against the log.
        now: custody's own clock; no event may lie ahead of it.

    Raises:
        Unbacked: an event is not backed; it says which and why.
    """
    if not history or not isinstance(history[0], ev.ReleaseCreated):
        raise Unbacked("the history does not begin with the release's creation")
    first = history[0]
    if first.plan.digest != first.plan_digest:
        raise Unbacked("the plan is not the one that its digest names")
    broken = broken_rules(first.plan, barred={first.by})
    if broken:
        raise Unbacked("the plan breaks rules", broken)
    fold = _Fold(begin(first))
    for event in history[1:]:
        if event.at > now + CLOCK_SKEW:
            raise Unbacked(f"event {fold.state.seq + 1} lies in the future of custody's clock")
        if event.at < fold.state.updated_at:
            raise Unbacked(f"event {fold.state.seq + 1} is older than the one before it")
        fold.take(event)
    return fold.state


class _Fold:
    def __init__(self, state: ReleaseState) -> None:
        self.state = state
        self._carried: tuple[Proposal, list[str]] | None = None

    def take(self, event: ev.AnyEvent) -> None:
        """Check one event against the state before it, then fold it in."""
        seq = self.state.seq + 1
        try:
            self._check(event)
        except TrustError as error:
            raise Unbacked(f"event {seq} ({event.type} by {event.by}): {error}") from None
        except Unbacked as error:
            raise Unbacked(
                f"event {seq} ({event.type} by {event.by}): {error.detail}", error.reasons
            ) from None
        if not isinstance(event, ev.ProposalEnded):
            self._carried = None if isinstance(event, _LOOSENING) else self._carried
        self.state = evolve(self.state, event)

    def _check(self, event: ev.AnyEvent) -> None:
        match event:
            case ev.ReleaseCreated():
                raise Unbacked("a release is created once")
            case ev.SignedOff():
                self._sign_off(event)
            case ev.SignOffWithdrawn():
                self._withdrawal(event)
            case ev.Delegated():
                self._delegation(event)
            case ev.Proposed():
                if digest(event.payload) != event.payload_digest:
                    raise Unbacked("the payload is not the one that its digest names")
                self._endorsement(event.by, event.action, event.payload_digest, event.envelope, event.at)
            case ev.Endorsed():
                proposal = self.state.proposals.get(event.proposal)
                if proposal is None:
                    raise Unbacked(f"there is no proposal {event.proposal}")
                self._endorsement(
                    event.by, proposal.action, proposal.payload_digest, event.envelope, event.at
                )
            case ev.ProposalEnded():
                self._carried = self._quorum(event) if event.carried else None
            case ev.HoldsLifted():
                self._backed("resume", {"holds": None})
            case ev.WindowChanged():
                step = self.state.plan.step(event.step)
                if step is not None and event.required < self.state.window_asked(step):
                    payload = self._backed("shorten_window", {"step": event.step})
                    if parse_duration(payload["to"]) != event.required:
                        raise Unbacked("the window is not the one that was agreed to")
            case ev.IncidentClosed():
                self._incident_closed(event)
            case ev.PlanAmended():
                self._amended(event)
            case ev.GlassBroken():
                self._backed(
                    "break_glass", {"step": event.step, "waives": event.waives, "attempt": event.attempt}
                )
            case ev.ReviewClosed():
                self._review_closed(event)
            case ev.EvidenceSubmitted():
                self._evidence(event)
            case ev.ArtifactRegistered():
                known = self.state.artifacts.get(event.artifact)
                if known is not None and known.manifest_digest != event.manifest_digest:
                    raise Unbacked("the artifact's manifest was swapped")
            case ev.EntryBegan():
                self._entry(event)
            case _:
                return

    def _sign_off(self, event: ev.SignedOff) -> None:
        state = self.state
        step = state.next_step
        if step is None or step.name != event.step:
            raise Unbacked("it is for a step that was not next")
        subject = gate_subject(state, step)
        if event.subject != subject.digest:
            raise Unbacked("its subject is not what stood at the gate")
        if pinned_keys(state.plan, event.by):
            statement = check_sign_off(
                event.envelope or "",
                state.plan,
                subject,
                person=event.by,
                role=event.role,
                decision=event.decision,
                now=event.at,
            )
            if event.expires_at > statement.predicate.expires_at + timedelta(seconds=1):
                raise Unbacked("it counts longer than was signed")

    def _withdrawal(self, event: ev.SignOffWithdrawn) -> None:
        standing = self.state.sign_offs.get(event.by)
        if standing is None:
            raise Unbacked("there is nothing to withdraw")
        if standing.decision == "reject" and pinned_keys(self.state.plan, event.by):
            check_withdrawal(
                event.envelope or "",
                self.state.plan,
                release=self.state.release,
                step=event.step,
                attempt=event.attempt,
                person=event.by,
                withdraws=standing.statement,
                now=event.at,
            )

    def _delegation(self, event: ev.Delegated) -> None:
        if pinned_keys(self.state.plan, event.by):
            check_delegation(
                event.envelope or "",
                self.state.plan,
                release=self.state.release,
                giver=event.by,
                to=event.to,
                role=event.role,
                now=event.at,
            )

    def _endorsement(
        self, person: str, action: str, payload_digest: str, envelope: str | None, now: datetime
    ) -> None:
        if person not in self.state.plan.people:
            raise Unbacked(f"the plan does not name {person}")
        if pinned_keys(self.state.plan, person):
            check_endorsement(
                envelope or "",
                self.state.plan,
                release=self.state.release,
                action=action,
                payload_digest=payload_digest,
                person=person,
                now=now,
            )

    def _quorum(self, event: ev.ProposalEnded) -> tuple[Proposal, list[str]]:
        state = self.state
        proposal = state.proposals.get(event.proposal)
        if proposal is None:
            raise Unbacked(f"there is no proposal {event.proposal}")
        quorum = state.plan.quorums.of(proposal.action)
        able = [
            name
            for name in proposal.people
            if name in state.plan.people
            and (not quorum.roles or set(state.plan.people[name].roles) & set(quorum.roles))
        ]
        keys = {key.key_id for name in able for key in pinned_keys(state.plan, name)}
        keyed = [name for name in able if pinned_keys(state.plan, name)]
        if len(able) < quorum.count or len(keys) < len(keyed):
            raise Unbacked(f"{len(able)} people stand behind it; {quorum.count} different ones are asked for")
        return proposal, able

    def _backed(self, action: str, fields: dict[str, Any]) -> dict[str, Any]:
        """The payload of the proposal that was just carried, if it is of this action and says the same."""
        if self._carried is None or self._carried[0].action != action:
            raise Unbacked(f"no quorum carried it: {action.replace('_', ' ')} needs one")
        payload = self._carried[0].payload
        for name, value in fields.items():
            if value is not None and payload.get(name) != value:
                raise Unbacked(f"`{name}` is not what was agreed to")
        return payload

    def _incident_closed(self, event: ev.IncidentClosed) -> None:
        incident = self.state.incidents.get(event.incident)
        if incident is None:
            raise Unbacked(f"there is no incident {event.incident}")
        payload = {"incident": event.incident, "outcome": event.outcome}
        if incident.severity is Severity.SEVERE:
            self._backed("close_incident", payload)
        else:
            self._endorsement(event.by, "close_incident", digest(payload), event.envelope, event.at)

    def _review_closed(self, event: ev.ReviewClosed) -> None:
        review = self.state.reviews.get(event.review)
        if review is None or event.by in review.people:
            raise Unbacked("somebody who did not break the glass closes its review")
        payload = {"review": event.review, "outcome": event.outcome}
        self._endorsement(event.by, "close_review", digest(payload), event.envelope, event.at)

    def _amended(self, event: ev.PlanAmended) -> None:
        payload = self._backed("amend", {"plan_digest": event.plan_digest})
        if event.plan.digest != event.plan_digest or digest(payload["plan"]) != event.plan_digest:
            raise Unbacked("the plan is not the one that was agreed to")
        if event.previous_digest != self.state.plan_digest:
            raise Unbacked("it replaces another plan than the one that held")
        broken = broken_rules(event.plan, barred=self.state.barred)
        if broken:
            raise Unbacked("the amended plan breaks rules", broken)

    def _evidence(self, event: ev.EvidenceSubmitted) -> None:
        given = event.evidence
        for known in self.state.evidence.values():
            if known.digest == given.digest and known.ratings and given.ratings:
                better = [
                    c for c, r in known.ratings.items() if _WORST.index(given.ratings[c]) < _WORST.index(r)
                ]
                if better:
                    raise Unbacked(f"the same document was rated worse before: {', '.join(better)}")

    def _entry(self, event: ev.EntryBegan) -> None:
        step = self.state.next_step
        if step is None or step.name != event.step:
            raise Unbacked("it is for a step that was not next")
        found = verdict(self.state, step, event.at)
        if not found.open:
            raise Unbacked("its gate did not hold", [Reason(c.code, c.message) for c in found.unmet])
        if found.subject_digest != event.subject:
            raise Unbacked("its subject is not what stood at the gate")
        keys: set[str] = set()
        for view in found.sign_offs:
            if view.standing == "counts" and view.decision == "approve":
                own = {key.key_id for key in pinned_keys(self.state.plan, view.person)}
                if own & keys:
                    raise Unbacked("one key counts under two people")
                keys |= own


_LOOSENING = (ev.HoldsLifted, ev.WindowChanged, ev.IncidentClosed, ev.PlanAmended, ev.GlassBroken)


def clocks_by_custody(
    state: ReleaseState,
    seen: dict[int, datetime],
    history: list[ev.AnyEvent],
    now: datetime,
    tolerance: timedelta,
) -> list[Reason]:
    """What of the gate's clocks has not passed by custody's own clock, whatever the events say.

    The window cannot have counted longer than since custody first saw its step entered, nor the cooling-off longer than
    since it first saw the last sign-off.

    Args:
        state: the checked state, entering.
        seen: place of an event in the history (from 0) → when custody first saw it.
        history: the events.
        now: custody's clock.
        tolerance: how late custody may have been to look.
    """
    if state.entry is None:
        return []
    step = state.plan.step(state.entry.step)
    if step is None:
        return []
    reasons: list[Reason] = []

    def passed(kind: type[ev.Event], asked: timedelta, what: str) -> None:
        places = [i for i, event in enumerate(history) if isinstance(event, kind)]
        if asked <= timedelta(0) or not places:
            return
        since = now - seen[places[-1]] + tolerance
        if since < asked:
            left = format_duration(asked - since)
            reasons.append(
                Reason(what, f"by custody's own clock {left} of {format_duration(asked)} are left")
            )

    if "research_window" not in state.waived:
        passed(ev.StepEntered, state.window_asked(step), "research_window")
    if step.gate.cooling_off is not None and "cooling_off" not in state.waived:
        passed(ev.SignedOff, step.gate.cooling_off, "cooling_off")
    return reasons
