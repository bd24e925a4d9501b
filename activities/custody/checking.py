"""Folds a release from its events and holds every decision in it to the people who must have signed it.

An event that no signature backs has no effect here when it would loosen something (an approval, a withdrawn rejection, a
lifted hold, a shorter window, a closed incident, a broken glass): custody's state stays as strict as it was, and the
event is named in the refusal. What leaves no honest reading (a plan that nobody amended, a step that was entered without
its gate) refuses the release from there on. Checked are:

    signed_off              the statement, by a key that the plan pins, on exactly the subject that stood at the gate; once. A
                            rejection needs no proof, but one that stands gives way only to what its person signed after it
    sign_off_withdrawn      of a rejection: the statement
    invited                 the invitation, by a key that the plan pins for somebody whom it lets invite; a sign-off on it: the
                            acceptance by its one-time key and the statement by the reviewer's; once, in time, not revoked
    proposed, endorsed      the statement, on exactly the payload, for one proposal alone; a proposal's name is used once
    what a quorum carries   the proposal was carried by enough different people and different keys, and says the same
    incident, review closed the statement of whoever closed it; a severe incident never becomes smaller, none is written over
    entry_began             the gate held by the same pure rules
    step_entered            its entry began and its gate held, then and still; its grants are those that the plan makes
    rolled_back             goes back, and never out of an end
    grant_made              it was asked for, nothing stood in the way, and the plan makes it
    evidence_submitted      the same document was never rated worse; a risk assessment has all its ratings
    artifact_registered     not with another manifest, not for what is out, not during an entry
    artifact_resealed       custody itself sealed it anew, for that rotation, with that manifest

A person without pinned keys cannot be checked; then the log is all there is (docs/trust-model.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from activities.custody.copies import MadeCopy
from activities.custody.errors import NoEffectError, Unbacked
from activities.custody.invited import (
    check_invited,
    check_signed_on_invitation,
    check_withdrawn_on_invitation,
    require_no_other_rejection,
)
from orchestrator.domain import events as ev
from orchestrator.domain.commands import PROPOSAL_LIFETIME
from orchestrator.domain.decide_access import planned_grants
from orchestrator.domain.decide_late import asked_key, late_faults, late_grant
from orchestrator.domain.errors import Reason
from orchestrator.domain.evidence import Consideration, EvidenceKind, Rating
from orchestrator.domain.evolve import begin, evolve
from orchestrator.domain.gate import WAIVABLE, still_holds, verdict
from orchestrator.domain.incident import Severity
from orchestrator.domain.plan import Step, step_digest
from orchestrator.domain.plan_rules import broken_rules
from orchestrator.domain.stage import Stage
from orchestrator.domain.state import GateSubject, Proposal, ReleaseState, gate_subject
from orchestrator.domain.values import digest, parse_duration
from orchestrator.trust.decisions import (
    check_delegation,
    check_endorsement,
    check_sign_off,
    check_withdrawal,
    pinned_keys,
)
from orchestrator.trust.errors import TrustError
from orchestrator.trust.statements import SignOff, Statement

CLOCK_SKEW = timedelta(minutes=5)
_WORST = list(Rating)


@dataclass(frozen=True, slots=True)
class Checked:
    """A release as custody believes it.

    Attributes:
        state: the state, as strict as what is backed allows.
        ignored: what of the log had no effect because nothing backs it; more than nothing is a sign of somebody with
            write access.
    """

    state: ReleaseState
    ignored: tuple[Reason, ...]


def checked_fold(
    history: Sequence[ev.AnyEvent],
    now: datetime,
    *,
    signed_only: bool = False,
    made: Mapping[str, MadeCopy] | None = None,
) -> Checked:
    """The state after `history`, every decision in it checked.

    Args:
        history: a release's events as custody verified them against the log.
        now: custody's own clock; no event may lie ahead of it.
        signed_only: decisions of people whose keys the plan does not pin have no effect either.
        made: the copies that custody remembers to have sealed itself; nothing else was sealed anew.

    Raises:
        Unbacked: the history has no honest reading; it says which event and why.
    """
    if not history or not isinstance(history[0], ev.ReleaseCreated):
        raise Unbacked("the history does not begin with the release's creation")
    first = history[0]
    if first.plan.digest != first.plan_digest:
        raise Unbacked("the plan is not the one that its digest names")
    broken = broken_rules(first.plan, barred={first.by})
    if broken:
        raise Unbacked("the plan breaks rules", broken)
    fold = _Fold(begin(first), signed_only, made or {})
    for event in history[1:]:
        if event.at > now + CLOCK_SKEW:
            raise Unbacked(f"event {fold.state.seq + 1} lies in the future of custody's clock")
        if event.at < fold.state.updated_at:
            raise Unbacked(f"event {fold.state.seq + 1} is older than the one before it")
        fold.take(event)
    fold.finish()
    return Checked(fold.state, tuple(fold.ignored))


class _Fold:
    def __init__(self, state: ReleaseState, signed_only: bool, made: Mapping[str, MadeCopy]) -> None:
        self.state = state
        self._made = made
        self.ignored: list[Reason] = []
        self._signed_only = signed_only
        self._carried: tuple[Proposal, list[str]] | None = None
        self._behind: dict[str, set[str]] = {}
        self._statements: set[str] = set()
        self._rejected: dict[str, datetime] = {}
        self._ratings: dict[str, dict[Consideration, int]] = {}
        self._entry_fault: Unbacked | None = None

    def take(self, event: ev.AnyEvent) -> None:
        """Check one event against the state before it, then fold it in."""
        seq = self.state.seq + 1
        told = f"event {seq} ({event.type} by {event.by})"
        try:
            after = evolve(self.state, self._check(event))
        except (TrustError, NoEffectError) as error:
            self.ignored.append(Reason("unbacked", f"{told} has no effect: {error}"))
            after = self.state.model_copy(update={"seq": seq, "updated_at": event.at})
        except Unbacked as error:
            raise Unbacked(f"{told}: {error.detail}", [*error.reasons, *self.ignored]) from None
        except (LookupError, ValueError, TypeError) as error:
            raise Unbacked(f"{told}: makes no sense ({type(error).__name__})", self.ignored) from None
        if isinstance(event, _LOOSENING):
            self._carried = None
        self.state = after

    def finish(self) -> None:
        """After the last event: an entry that is under way must have begun with a gate that held."""
        if self.state.entry is not None and self._entry_fault is not None:
            raise self._entry_fault

    def _check(self, event: ev.AnyEvent) -> ev.AnyEvent:
        """The event, as far as it counts."""
        match event:
            case ev.ReleaseCreated():
                raise Unbacked("a release is created once")
            case ev.SignedOff():
                return self._sign_off(event)
            case ev.SignOffWithdrawn():
                self._withdrawal(event)
            case ev.Delegated():
                self._delegation(event)
            case ev.Invited():
                check_invited(self.state, event)
            case ev.Proposed():
                self._proposed(event)
            case ev.Endorsed():
                self._endorsed(event)
            case ev.ProposalEnded():
                self._carried = None
                self._carried = self._quorum(event) if event.carried else None
            case ev.HoldsLifted():
                payload = self._backed("resume", {})
                if not set(event.holds) <= set(payload["holds"]):
                    raise NoEffectError("holds are lifted that nobody agreed to lift")
            case ev.WindowChanged():
                self._window(event)
            case ev.IncidentReported():
                if event.incident.id in self.state.incidents:
                    raise NoEffectError(
                        f"there is an incident {event.incident.id}; none is written over another"
                    )
            case ev.IncidentTriaged():
                incident = self.state.incidents[event.incident]
                if incident.severity is Severity.SEVERE and event.severity.rank < incident.severity.rank:
                    raise NoEffectError("a severe incident is not made smaller")
            case ev.IncidentClosed():
                self._incident_closed(event)
            case ev.PlanAmended():
                self._amended(event)
            case ev.GlassBroken():
                return self._glass(event)
            case ev.ReviewClosed():
                self._review_closed(event)
            case ev.EvidenceSubmitted():
                self._evidence(event)
            case ev.ArtifactRegistered():
                self._artifact(event)
            case ev.ArtifactResealed():
                self._resealed(event)
            case ev.EntryBegan():
                self._entry(event)
            case ev.EntryTakenBack():
                if self.state.entry is None:
                    raise NoEffectError("no step was being entered")
                self._entry_fault = None
            case ev.StepEntered():
                self._entered(event)
            case ev.RolledBack():
                if self.state.status == "aborted":
                    raise Unbacked("the release was ended; nothing brings it back")
                if (
                    self.state.plan.index(event.to_step) >= self.state.index
                    or event.from_step != self.state.current
                ):
                    raise Unbacked("a rollback goes back")
            case ev.GrantMade():
                self._granted_late(event)
            case ev.MonitorReported():
                if event.last_success > event.at:
                    raise NoEffectError("the source worked in the future")
            case _:
                pass
        return event

    def _pinned(self, person: str) -> bool:
        """Whether a decision of this person is to be checked by a signature."""
        if person not in self.state.plan.people:
            raise NoEffectError(f"the plan does not name {person}")
        if pinned_keys(self.state.plan, person):
            return True
        if self._signed_only:
            raise NoEffectError(f"the plan pins no key of {person}, and custody takes signed decisions alone")
        return False

    def _sign_off(self, event: ev.SignedOff) -> ev.SignedOff:
        state = self.state
        if event.decision == "reject":
            require_no_other_rejection(state, event)
            self._rejection(event)
            return event
        step = state.next_step
        if step is None or (step.name, state.attempt) != (event.step, event.attempt):
            raise NoEffectError("it is for a gate that was not next")
        subject = gate_subject(state, step)
        if event.subject != subject.digest or event.step_digest != step_digest(step):
            raise NoEffectError("its subject is not what stood at the gate")
        require_no_other_rejection(state, event)
        if event.invitation is not None:
            event = event.model_copy(update={"shares": {}})  # holders are people of the plan
            return self._used_once(event, check_signed_on_invitation(state, event, subject))
        if not self._pinned(event.by):
            # what binds a share to its sign-off is the signed statement
            return event.model_copy(update={"shares": {}})
        statement = self._signed(event, subject)
        if self._rejects(event.by) and statement.predicate.issued_at < self._rejected[event.by]:
            raise NoEffectError(
                "it was signed before the rejection that stands; sign again, or withdraw that"
            )
        return self._used_once(event, statement)

    def _signed(self, event: ev.SignedOff, subject: GateSubject) -> Statement[SignOff]:
        return check_sign_off(
            event.envelope or "",
            self.state.plan,
            subject,
            person=event.by,
            role=event.role,
            decision=event.decision,
            now=event.at,
        )

    def _used_once(self, event: ev.SignedOff, statement: Statement[SignOff]) -> ev.SignedOff:
        self._once(statement)
        until = min(event.expires_at, statement.predicate.expires_at)
        return event.model_copy(update={"expires_at": until})

    def _once(self, statement: Statement[Any]) -> None:
        if statement.digest in self._statements:
            raise NoEffectError("this very statement was used before; one signature counts once")
        self._statements.add(statement.digest)

    def _rejects(self, person: str) -> bool:
        """Whether a rejection of this person closes the gate that is next."""
        standing, step = self.state.sign_offs.get(person), self.state.next_step
        return (
            standing is not None
            and step is not None
            and standing.decision == "reject"
            and standing.step_digest == step_digest(step)
        )

    def _rejection(self, event: ev.SignedOff) -> None:
        """Caution needs no proof; but what stands gives way only to another one that its person signed, for this gate, once."""
        issued = event.at.replace(microsecond=0)
        try:
            statement = self._signed_rejection(event)
        except (TrustError, NoEffectError):
            if self._rejects(event.by):
                raise
        else:
            issued = issued if statement is None else statement.predicate.issued_at
        self._rejected[event.by] = issued

    def _signed_rejection(self, event: ev.SignedOff) -> Statement[SignOff] | None:
        """The statement of a rejection, used for the first time; None where no signature can be asked for."""
        step = self.state.next_step
        if step is None or event.step_digest != step_digest(step):
            raise NoEffectError("it is for another gate than the next")
        if event.invitation is not None or not self._pinned(event.by):
            return None
        statement = self._signed(event, gate_subject(self.state, step))
        self._once(statement)
        return statement

    def _withdrawal(self, event: ev.SignOffWithdrawn) -> None:
        standing = self.state.sign_offs.get(event.by)
        if standing is None or standing.decision == "approve":
            return
        if standing.invitation is not None:
            check_withdrawn_on_invitation(self.state, standing, event)
        elif self._pinned(event.by):
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
        if self._pinned(event.by):
            statement = check_delegation(
                event.envelope or "",
                self.state.plan,
                release=self.state.release,
                giver=event.by,
                to=event.to,
                role=event.role,
                until=event.until,
                now=event.at,
            )
            self._once(statement)

    def _endorsement(
        self, person: str, action: str, payload_digest: str, envelope: str | None, now: datetime
    ) -> None:
        if self._pinned(person):
            statement = check_endorsement(
                envelope or "",
                self.state.plan,
                release=self.state.release,
                action=action,
                payload_digest=payload_digest,
                person=person,
                now=now,
            )
            self._once(statement)

    def _proposed(self, event: ev.Proposed) -> None:
        if digest(event.payload) != event.payload_digest:
            raise Unbacked("the payload is not the one that its digest names")
        if event.expires_at > event.at + PROPOSAL_LIFETIME:
            raise Unbacked("the proposal would wait longer than proposals do")
        if event.proposal in self._behind:
            raise NoEffectError(f"there was a proposal {event.proposal}; none is written over another")
        # who stands behind it is kept apart, so that somebody else's good endorsement still counts
        self._stand_behind(event.proposal, event.by, event.action, event.payload_digest, event)

    def _endorsed(self, event: ev.Endorsed) -> None:
        proposal = self.state.proposals[event.proposal]
        self._stand_behind(event.proposal, event.by, proposal.action, proposal.payload_digest, event)

    def _stand_behind(
        self, name: str, person: str, action: str, payload_digest: str, event: ev.Proposed | ev.Endorsed
    ) -> None:
        behind = self._behind.setdefault(name, set())
        try:
            self._endorsement(person, action, payload_digest, event.envelope, event.at)
        except (TrustError, NoEffectError) as error:
            told = f"event {self.state.seq + 1} ({event.type} by {person}) does not count: {error}"
            self.ignored.append(Reason("unbacked", told))
        else:
            behind.add(person)

    def _quorum(self, event: ev.ProposalEnded) -> tuple[Proposal, list[str]]:
        state = self.state
        proposal = state.proposals.get(event.proposal)
        if proposal is None or event.at >= proposal.expires_at:
            raise NoEffectError(f"there is no open proposal {event.proposal}")
        quorum = state.plan.quorums.of(proposal.action)
        able = [
            name
            for name in sorted(self._behind.get(event.proposal, ()))
            if name in state.plan.people
            and (not quorum.roles or set(state.plan.people[name].roles) & set(quorum.roles))
        ]
        keys = {key.key_id for name in able for key in pinned_keys(state.plan, name)}
        keyed = [name for name in able if pinned_keys(state.plan, name)]
        if len(able) < quorum.count or len(keys) < len(keyed):
            raise NoEffectError(
                f"{len(able)} people stand behind it; {quorum.count} different ones are asked for"
            )
        return proposal, able

    def _backed(self, action: str, fields: dict[str, Any]) -> dict[str, Any]:
        """The payload of the proposal that was just carried, if it is of this action and says the same."""
        if self._carried is None or self._carried[0].action != action:
            raise NoEffectError(f"no quorum carried it: {action.replace('_', ' ')} needs one")
        payload = self._carried[0].payload
        for name, value in fields.items():
            if payload.get(name) != value:
                raise NoEffectError(f"`{name}` is not what was agreed to")
        return payload

    def _window(self, event: ev.WindowChanged) -> None:
        step = self.state.plan.step(event.step)
        if step is None:
            raise Unbacked(f"the plan has no step {event.step}")
        if event.required < self.state.window_asked(step):
            payload = self._backed("shorten_window", {"step": event.step})
            if parse_duration(payload["to"]) != event.required:
                raise NoEffectError("the window is not the one that was agreed to")

    def _incident_closed(self, event: ev.IncidentClosed) -> None:
        incident = self.state.incidents[event.incident]
        payload = {"incident": event.incident, "outcome": event.outcome}
        if incident.closed_by_quorum:
            self._backed("close_incident", payload)
        else:
            self._endorsement(event.by, "close_incident", digest(payload), event.envelope, event.at)

    def _glass(self, event: ev.GlassBroken) -> ev.GlassBroken:
        fields = {
            "step": event.step,
            "waives": event.waives,
            "attempt": event.attempt,
            "reason": event.reason,
        }
        self._backed("break_glass", fields)
        step = self.state.next_step
        if step is None or (step.name, self.state.attempt) != (event.step, event.attempt):
            raise NoEffectError("it is for a gate that was not next")
        if set(event.waives) - WAIVABLE:
            raise NoEffectError("it lifts what no broken glass lifts")
        # whoever really stood behind it does not close its review, whomever the event names
        return event.model_copy(update={"people": sorted({*event.people, *(self._carried or (None, []))[1]})})

    def _review_closed(self, event: ev.ReviewClosed) -> None:
        review = self.state.reviews.get(event.review)
        if review is None or event.by in review.people:
            raise NoEffectError("somebody who did not break the glass closes its review")
        payload = {"review": event.review, "outcome": event.outcome}
        self._endorsement(event.by, "close_review", digest(payload), event.envelope, event.at)

    def _amended(self, event: ev.PlanAmended) -> None:
        state = self.state
        try:
            payload = self._backed("amend", {"plan_digest": event.plan_digest})
        except NoEffectError as error:
            # everything behind it speaks of a plan that nobody agreed to
            raise Unbacked(str(error)) from None
        if event.plan.digest != event.plan_digest or digest(payload["plan"]) != event.plan_digest:
            raise Unbacked("the plan is not the one that was agreed to")
        if event.previous_digest != state.plan_digest:
            raise Unbacked("it replaces another plan than the one that held")
        entered = state.index + 1
        if state.status == "entering" or event.plan.steps[:entered] != state.plan.steps[:entered]:
            raise Unbacked("steps that are entered stay as they are")
        broken = broken_rules(event.plan, barred=state.barred)
        if broken:
            raise Unbacked("the amended plan breaks rules", broken)

    def _evidence(self, event: ev.EvidenceSubmitted) -> None:
        given = event.evidence
        if given.at > event.at:
            raise NoEffectError("the document is from the future")
        if given.kind is EvidenceKind.RISK_ASSESSMENT and set(given.ratings or {}) != set(Consideration):
            raise NoEffectError("a risk assessment rates all six considerations")
        if given.ratings is None:
            return
        worst = self._ratings.setdefault(f"{given.digest}@{given.step}", {})
        rated = {c: _WORST.index(rating) for c, rating in given.ratings.items()}
        better = [c.value for c, place in rated.items() if place < worst.get(c, place)]
        if better:
            raise NoEffectError(f"the same document was rated worse before: {', '.join(better)}")
        worst.update(rated)

    def _artifact(self, event: ev.ArtifactRegistered) -> None:
        state = self.state
        known = state.artifacts.get(event.artifact)
        if known is not None and known.manifest_digest != event.manifest_digest:
            raise Unbacked("the artifact's manifest was swapped")
        if event.artifact in state.superseded:
            raise Unbacked("the artifact was sealed anew, because a key of this one may be out")
        if state.status == "entering":
            raise Unbacked("an artifact was registered while a step is entered")
        out = [name for name in event.components if state.reached.get(name, Stage.CLOSED) > Stage.CLOSED]
        if out:
            raise Unbacked("released already, so their files cannot change: " + ", ".join(out))

    def _resealed(self, event: ev.ArtifactResealed) -> None:
        """Only what custody remembers to have sealed anew, under the manifest that it made, stands in another's place."""
        copy = self._made.get(event.new)
        if copy is None or (copy.purpose, copy.of, copy.rotation) != (
            "reseal",
            event.artifact,
            event.rotation,
        ):
            raise Unbacked(f"custody did not seal {event.artifact} anew as {event.new}")
        if copy.manifest_digest != event.manifest_digest or copy.grant != event.grant:
            raise Unbacked(f"the manifest of {event.new} was swapped")
        if self.state.status == "entering":
            raise Unbacked("an artifact was replaced while a step is entered")

    def _entry(self, event: ev.EntryBegan) -> None:
        self._entry_fault = None
        try:
            self._gate_held(event)
        except Unbacked as error:
            # an entry that is taken back gave nobody anything
            seq = self.state.seq + 1
            self._entry_fault = Unbacked(
                f"event {seq} ({event.type} by {event.by}): {error.detail}", [*error.reasons, *self.ignored]
            )

    def _gate_held(self, event: ev.EntryBegan) -> None:
        step = self.state.next_step
        if step is None or (step.name, self.state.attempt) != (event.step, event.attempt):
            raise Unbacked("it is for a gate that was not next")
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

    def _entered(self, event: ev.StepEntered) -> None:
        if self._entry_fault is not None:
            raise self._entry_fault
        entry = self.state.entry
        step = self.state.plan.step(event.step)
        if entry is None or step is None or (entry.step, entry.attempt) != (event.step, event.attempt):
            raise Unbacked("the step was not being entered")
        if event.stage is not step.stage or event.completed != (step.stage is Stage.OPEN):
            raise Unbacked("the stage is not that of the plan")
        gone = still_holds(self.state, step, event.at)
        if gone:
            raise Unbacked("its gate did not hold any more", [Reason(c.code, c.message) for c in gone])
        for grant in event.grants:
            self._grant(grant, event.at, step)

    def _granted_late(self, event: ev.GrantMade) -> None:
        """A grant after its step was entered: asked for, nothing in its way, and what the plan makes."""
        grant, state = event.grant, self.state
        step = state.plan.step(grant.step)
        if step is None or asked_key(grant.step, grant.holder) not in state.grants_asked:
            raise Unbacked(f"the plan does not make the grant {grant.id}: nobody asked for it")
        faults = late_faults(state, step, grant.holder)
        planned = late_grant(state, step, grant.holder, grant.recipient, grant.made_at)
        bare = grant.model_copy(update={"envelopes": {}, "copies": []})
        if faults or grant.made_at > event.at or bare != planned:
            raise Unbacked(f"the plan does not make the grant {grant.id}", faults)

    def _grant(self, grant: ev.Grant, at: datetime, step: Step) -> None:
        """Only grants that the plan makes count: a made-up one would let the research window run."""
        planned = planned_grants(self.state, step, {grant.holder: grant.recipient}, grant.made_at)
        # its copies are what a holder is shown; the keys that custody gives are of those that it remembers
        bare = grant.model_copy(update={"envelopes": {}, "copies": []})
        if grant.made_at > at or bare not in planned:
            raise Unbacked(f"the plan does not make the grant {grant.id}")


_LOOSENING = (ev.HoldsLifted, ev.WindowChanged, ev.IncidentClosed, ev.PlanAmended, ev.GlassBroken)
