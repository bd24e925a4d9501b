"""What was registered, entered and granted, held to the plan and to the gate as it stood."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from activities.custody.checking_decisions import ChecksDecisions
from activities.custody.copies import MadeCopy
from activities.custody.errors import NoEffectError, Unbacked
from orchestrator.domain import events as ev
from orchestrator.domain.decide_access import planned_grants
from orchestrator.domain.decide_late import asked_key, late_faults, late_grant
from orchestrator.domain.errors import Reason
from orchestrator.domain.evidence import Consideration, EvidenceKind, Rating
from orchestrator.domain.gate import still_holds, verdict
from orchestrator.domain.plan import Step
from orchestrator.domain.stage import Stage
from orchestrator.domain.state import ReleaseState
from orchestrator.trust.decisions import pinned_keys

_WORST = list(Rating)


class ChecksProgress(ChecksDecisions):
    """Holds what was registered, entered and granted to the plan and the same pure rules."""

    def __init__(self, state: ReleaseState, *, signed_only: bool, made: Mapping[str, MadeCopy]) -> None:
        super().__init__(state, signed_only=signed_only)
        self._made = made
        self._ratings: dict[str, dict[Consideration, int]] = {}
        self._entry_fault: Unbacked | None = None

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

    def _entry_taken_back(self) -> None:
        if self.state.entry is None:
            raise NoEffectError("no step was being entered")
        self._entry_fault = None

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

    def _rolled_back(self, event: ev.RolledBack) -> None:
        if self.state.status == "aborted":
            raise Unbacked("the release was ended; nothing brings it back")
        plan = self.state.plan
        if plan.index(event.to_step) >= self.state.index or event.from_step != self.state.current:
            raise Unbacked("a rollback goes back")

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
