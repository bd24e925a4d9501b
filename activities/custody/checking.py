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

The checks themselves stand beside this: `checking_decisions`, `checking_loosening` (what a quorum carries), `checking_progress`.
A person without pinned keys cannot be checked; then the log is all there is (docs/trust-model.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from activities.custody.checking_loosening import ChecksLoosening
from activities.custody.checking_progress import ChecksProgress
from activities.custody.copies import MadeCopy
from activities.custody.errors import NoEffectError, Unbacked
from activities.custody.invited import check_invited
from orchestrator.domain import events as ev
from orchestrator.domain.errors import Reason
from orchestrator.domain.evolve import begin, evolve
from orchestrator.domain.plan_rules import broken_rules
from orchestrator.domain.state import ReleaseState
from orchestrator.trust.errors import TrustError
from orchestrator.trust.statements import CLOCK_SKEW


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
    fold = _Fold(begin(first), signed_only=signed_only, made=made or {})
    for event in history[1:]:
        if event.at > now + CLOCK_SKEW:
            raise Unbacked(f"event {fold.state.seq + 1} lies in the future of custody's clock")
        if event.at < fold.state.updated_at:
            raise Unbacked(f"event {fold.state.seq + 1} is older than the one before it")
        fold.take(event)
    fold.finish()
    return Checked(fold.state, tuple(fold.ignored))


class _Fold(ChecksLoosening, ChecksProgress):
    """Takes one event after the other, each held to what must back it."""

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
                self._holds_lifted(event)
            case ev.WindowChanged():
                self._window(event)
            case ev.IncidentReported():
                self._incident_reported(event)
            case ev.IncidentTriaged():
                self._incident_triaged(event)
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
                self._entry_taken_back()
            case ev.StepEntered():
                self._entered(event)
            case ev.RolledBack():
                self._rolled_back(event)
            case ev.GrantMade():
                self._granted_late(event)
            case ev.MonitorReported():
                if event.last_success > event.at:
                    raise NoEffectError("the source worked in the future")
            case _:
                pass
        return event


_LOOSENING = (ev.HoldsLifted, ev.WindowChanged, ev.IncidentClosed, ev.PlanAmended, ev.GlassBroken)
