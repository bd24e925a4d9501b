"""What loosens something, held to the quorum that carried it: holds, windows, incidents, broken glasses, the plan."""

from __future__ import annotations

from typing import Any

from activities.custody.checking_decisions import ChecksDecisions
from activities.custody.errors import NoEffectError, Unbacked
from orchestrator.domain import events as ev
from orchestrator.domain.gate import WAIVABLE
from orchestrator.domain.incident import Severity
from orchestrator.domain.plan_rules import broken_rules
from orchestrator.domain.values import digest, parse_duration


class ChecksLoosening(ChecksDecisions):
    """Holds what loosens something to the quorum that carried it, or to whoever closed it."""

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

    def _incident_reported(self, event: ev.IncidentReported) -> None:
        if event.incident.id in self.state.incidents:
            raise NoEffectError(f"there is an incident {event.incident.id}; none is written over another")

    def _incident_triaged(self, event: ev.IncidentTriaged) -> None:
        incident = self.state.incidents[event.incident]
        if incident.severity is Severity.SEVERE and event.severity.rank < incident.severity.rank:
            raise NoEffectError("a severe incident is not made smaller")

    def _holds_lifted(self, event: ev.HoldsLifted) -> None:
        payload = self._backed("resume", {})
        if not set(event.holds) <= set(payload["holds"]):
            raise NoEffectError("holds are lifted that nobody agreed to lift")

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
        if event.review in self.state.reviews:
            raise NoEffectError(f"there is a review {event.review}; none is written over another")
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
