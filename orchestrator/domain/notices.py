"""Who is told of what by mail and the like: a table by event type. Pure.

A notice says what happened, where and by whom, in words of its own: names, ids, times. Texts that people or strangers wrote
(reasons, summaries, comments, places) never leave with it; they stand behind the link.

    topic        what a recipient may leave out
    urgent       goes out at once; the rest may be gathered into one message
    always       whatever topics the recipient chose: a broken glass, and an incident where the plan's response table says `notify`

Everybody whom the plan names is told of events; what waits for somebody is told to that person (`waiting`). A partner is told
of its own grants and nothing else (`of_partner`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from orchestrator.domain import events as ev
from orchestrator.domain.incident import Confidence, ResponseAction, Severity
from orchestrator.domain.state import ReleaseState


class Topic(StrEnum):
    """What a notice is about."""

    WAITING = "waiting"
    REMINDERS = "reminders"
    HOLDS = "holds"
    INCIDENTS = "incidents"
    BREAK_GLASS = "break_glass"
    REVOCATIONS = "revocations"
    STEPS = "steps"
    DECISIONS = "decisions"
    GRANTS = "grants"
    TEST = "test"


#: What recipients inside may choose from, and what a partner's account may.
CHOICES: tuple[Topic, ...] = tuple(topic for topic in Topic if topic not in {Topic.GRANTS, Topic.TEST})
PARTNER_CHOICES: tuple[Topic, ...] = (Topic.GRANTS,)


@dataclass(frozen=True, slots=True)
class Notice:
    """What is said of one event.

    Attributes:
        title: one line, without anything that somebody wrote.
        facts: names and values below it.
        people: whom it concerns; None: everybody whom the plan names.
        urgent, always: see the head of this module.
    """

    topic: Topic
    title: str
    facts: tuple[tuple[str, str], ...] = ()
    urgent: bool = False
    always: bool = False
    people: frozenset[str] | None = None

    def concerns(self, person: str, state: ReleaseState) -> bool:
        """Whether a person is told."""
        return person in (state.plan.people if self.people is None else self.people)


Rule = Callable[[Any, ReleaseState], Notice | None]


def of_event(event: ev.AnyEvent, state: ReleaseState) -> Notice | None:
    """What people inside are told of an event; None: nothing.

    Args:
        event: what happened.
        state: the release as it stands now.
    """
    rule = RULES.get(event.type)
    return None if rule is None else rule(event, state)


def _entered(e: ev.StepEntered, _: ReleaseState) -> Notice:
    facts = [("stage", e.stage.value), ("grants", str(len(e.grants)))]
    if e.waiting_partners:
        facts.append(("partners without a key", str(len(e.waiting_partners))))
    return Notice(Topic.STEPS, f"step {e.step} is entered", tuple(facts))


def _taken_back(e: ev.EntryTakenBack, _: ReleaseState) -> Notice:
    told = "failed and was taken back: mend it and retry" if e.failed else "was taken back"
    return Notice(Topic.STEPS, f"entering step {e.step} {told}", urgent=e.failed)


def _rolled_back(e: ev.RolledBack, _: ReleaseState) -> Notice:
    out = (("stays out", ", ".join(e.irrevocable)),) if e.irrevocable else ()
    return Notice(Topic.STEPS, f"rolled back from {e.from_step} to {e.to_step}", out, urgent=True)


def _aborted(e: ev.Aborted, _: ReleaseState) -> Notice:
    return Notice(Topic.STEPS, "the release is aborted", urgent=True)


def _held(e: ev.HoldPlaced, _: ReleaseState) -> Notice:
    because = (("incident", e.incident),) if e.incident else ()
    return Notice(Topic.HOLDS, "on hold: all clocks and gates stand", (("hold", e.hold), *because))


def _lifted(e: ev.HoldsLifted, _: ReleaseState) -> Notice:
    return Notice(Topic.HOLDS, "holds are lifted", (("holds", ", ".join(e.holds)), _people(e.people)))


def _reported(e: ev.IncidentReported, state: ReleaseState) -> Notice:
    seen = e.incident
    facts = [("incident", seen.id), ("components", ", ".join(seen.components) or "all")]
    return _incident(
        f"{seen.severity} {seen.kind} incident is {seen.confidence}",
        tuple(facts),
        seen.severity,
        seen.confidence,
        state,
    )


def _triaged(e: ev.IncidentTriaged, state: ReleaseState) -> Notice:
    return _incident(
        f"incident is judged {e.severity}, {e.confidence.replace('_', ' ')}",
        (("incident", e.incident),),
        e.severity,
        e.confidence,
        state,
    )


def _traced(e: ev.IncidentTraced, _: ReleaseState) -> Notice:
    accused = sum(1 for partner in e.trace.partners if partner.suspicion == "accused")
    title = (
        "a leak could not be traced to a copy"
        if e.trace.not_traced is not None
        else f"a leak was traced: {accused or 'nobody'} accused"
    )
    return Notice(Topic.INCIDENTS, title, (("incident", e.incident),))


def _incident(
    title: str,
    facts: tuple[tuple[str, str], ...],
    severity: Severity,
    confidence: Confidence,
    state: ReleaseState,
) -> Notice:
    table = state.plan.responses[severity]
    answers = ", ".join(action.replace("_", " ") for action in table) or "nothing"
    real = confidence is not Confidence.FALSE_ALARM
    return Notice(
        Topic.INCIDENTS,
        title,
        (*facts, ("the plan answers with", answers if real else "nothing: it is none")),
        urgent=severity is Severity.SEVERE and real,
        always=ResponseAction.NOTIFY in table and real,
    )


def _closed(e: ev.IncidentClosed, _: ReleaseState) -> Notice:
    return Notice(Topic.INCIDENTS, "incident is closed", (("incident", e.incident), _people(e.people)))


def _proposed(e: ev.Proposed, _: ReleaseState) -> Notice | None:
    if e.action != "break_glass":
        return None  # whoever can endorse it has it waiting
    facts = (("step", str(e.payload.get("step"))), ("lifts", ", ".join(e.payload.get("waives", []))))
    title = "BREAK-GLASS is proposed: conditions of a gate are to be lifted"
    return Notice(Topic.BREAK_GLASS, title, facts, urgent=True, always=True)


def _broken(e: ev.GlassBroken, _: ReleaseState) -> Notice:
    facts = (("step", e.step), ("lifted", ", ".join(e.waives)), _people(e.people), ("review", e.review))
    title = f"BREAK-GLASS at step {e.step}: conditions of its gate are lifted"
    return Notice(Topic.BREAK_GLASS, title, facts, urgent=True, always=True)


def _reviewed(e: ev.ReviewClosed, _: ReleaseState) -> Notice:
    return Notice(Topic.BREAK_GLASS, "the review of a break-glass is closed", (("review", e.review),))


def _revoked(e: ev.GrantEnded, _: ReleaseState) -> Notice | None:
    if e.end != "revoked":
        return None
    out = "the key was out before: only what comes is cut" if e.disclosed else "no key had left"
    return Notice(Topic.REVOCATIONS, "a grant is revoked", (("grant", e.grant), ("reach", out)))


def _rotation(e: ev.KeysRotationAsked, _: ReleaseState) -> Notice:
    return Notice(Topic.REVOCATIONS, "keys are made anew", (("components", ", ".join(e.components)),))


def _amended(e: ev.PlanAmended, _: ReleaseState) -> Notice:
    facts = (("plan", e.plan_digest), ("before", e.previous_digest), _people(e.people))
    return Notice(Topic.DECISIONS, "the plan is amended", facts)


def _window(e: ev.WindowChanged, _: ReleaseState) -> Notice:
    days = e.required.total_seconds() / 86_400
    title = f"the research window before {e.step} is {days:g} days now"
    return Notice(Topic.DECISIONS, title, (_people(e.people),))


def _signed(e: ev.SignedOff, _: ReleaseState) -> Notice | None:
    if e.decision != "reject":
        return None
    return Notice(Topic.DECISIONS, f"the gate of step {e.step} is rejected", (("role", e.role),))


def _invited(e: ev.Invited, _: ReleaseState) -> Notice:
    facts = (("step", e.step), ("role", e.role), ("reviewer", e.reviewer))
    return Notice(Topic.DECISIONS, "an outside reviewer is invited to sign a gate", facts)


_REMINDERS = {
    "window_ends": "a research window ends soon",
    "cooling_off_ends": "a cooling-off ends soon",
    "sign_off_expires": "a sign-off expires soon",
    "sign_off_waits": "your sign-off has been waited for",
    "evidence_ages": "evidence gets too old soon",
    "delegation_ends": "a delegation ends soon",
    "invitation_expires": "an invitation expires soon",
}


def _reminded(e: ev.Reminded, _: ReleaseState) -> Notice:
    facts = (("step", e.step or ""), ("at", e.due.isoformat(timespec="minutes")))
    title = _REMINDERS.get(e.kind, "something ends soon or waits for long")
    return Notice(Topic.REMINDERS, title, facts, people=frozenset(e.people))


def _people(names: list[str]) -> tuple[str, str]:
    return "people", ", ".join(names)


#: Event type → what is said of it. What is not here is told to nobody by itself; what it makes somebody wait for is.
RULES: Mapping[str, Rule] = {
    "step_entered": _entered,
    "entry_taken_back": _taken_back,
    "rolled_back": _rolled_back,
    "aborted": _aborted,
    "hold_placed": _held,
    "holds_lifted": _lifted,
    "incident_reported": _reported,
    "incident_triaged": _triaged,
    "incident_traced": _traced,
    "incident_closed": _closed,
    "proposed": _proposed,
    "glass_broken": _broken,
    "review_closed": _reviewed,
    "grant_ended": _revoked,
    "keys_rotation_asked": _rotation,
    "plan_amended": _amended,
    "window_changed": _window,
    "signed_off": _signed,
    "invited": _invited,
    "reminded": _reminded,
}

#: What may wait for a person (`domain.waits`) → how it is said. Documents and artifacts wait for everybody alike: lists show them.
WAITING: Mapping[str, str] = {
    "sign_off": "your sign-off is waited for",
    "withdraw_rejection": "your rejection keeps a gate closed",
    "endorse": "a decision waits for another person",
    "triage": "an incident waits for somebody to judge it",
    "close_incident": "an incident is open",
    "review": "a break-glass waits for its review",
    "control": "a control has to be attested",
    "retry_entry": "entering a step failed: somebody has to retry",
}


def of_wait(what: str, step: str | None, reference: str | None) -> Notice | None:
    """What a person is told of something that waits for them; None: nothing."""
    title = WAITING.get(what)
    if title is None:
        return None
    facts = [(name, value) for name, value in (("step", step), ("about", reference)) if value]
    return Notice(Topic.WAITING, title, tuple(facts))


_PARTNER_TITLES = {
    "grants_made": "you have access",
    "grants_ended": "access has ended",
    "grant_disclosed": "a key was handed over to you",
}


def of_partner(kind: str, data: Mapping[str, Any]) -> Notice:
    """What a partner is told, from `showing.partner_data`: its own grants."""
    facts: list[tuple[str, str]] = []
    for grant in data["grants"]:
        facts += [("grant", grant["id"]), ("components", ", ".join(grant["components"]))]
        if kind == "grants_ended" and grant["end"]:
            facts.append(("ended", grant["end"].replace("_", " ")))
        elif grant["not_after"]:
            facts.append(("until", grant["not_after"]))
    urgent = kind == "grants_ended" and any(grant["end"] == "revoked" for grant in data["grants"])
    return Notice(Topic.GRANTS, _PARTNER_TITLES[kind], tuple(facts), urgent=urgent)
