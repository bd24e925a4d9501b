"""What a release waits for, and from whom: the source of everybody's list of pending things."""

from __future__ import annotations

from datetime import datetime

from orchestrator.domain.gate import verdict
from orchestrator.domain.gate_views import Verdict
from orchestrator.domain.reminders import reminders
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import Frozen, Instant, Name


class Wait(Frozen):
    """One thing that one of `people` can do.

    Attributes:
        what: `sign_off`, `shares`, `withdraw_rejection`, `endorse`, `triage`, `close_incident`, `review`, `control`, `evidence`, or what
            ends soon: `sign_off_expires`, `window_ends` and the like (`domain.reminders`); `second_lock`: who
            approves at the key service is not known to the plan, so all of its people see it.
        due: by when it matters: when the clocks of the gate would otherwise be done, or a proposal runs out. Never None,
            so that lists can be ordered soonest first.
    """

    what: str
    message: str
    step: Name | None = None
    reference: str | None = None
    people: list[Name]
    since: Instant
    due: Instant


def waits(state: ReleaseState, now: datetime, gate: Verdict | None = None) -> list[Wait]:
    """Everything that the release waits for somebody to do, soonest first.

    `gate`: the verdict on the next step at `now`, when the caller has it already.
    """
    if state.ended:
        return _soonest_first(_reviews(state))
    found = list(_decisions(state, now))
    step = state.next_step
    if step is not None and state.status == "active":
        gate = gate or verdict(state, step, now)
        clocks = [condition.met_at for condition in gate.unmet if condition.met_at is not None]
        due = max(clocks, default=now)
        for condition in gate.unmet:
            if condition.code in {"sign_off", "shares", "control", "rejection"} and condition.who:
                found.append(
                    Wait(
                        what="withdraw_rejection" if condition.code == "rejection" else condition.code,
                        message=condition.message,
                        step=step.name,
                        people=condition.who,
                        since=state.updated_at,
                        due=due,
                    )
                )
            elif condition.code in {"evidence", "evidence_age", "artifact"}:
                found.append(
                    Wait(
                        what="artifact" if condition.code == "artifact" else "evidence",
                        message=condition.message,
                        step=step.name,
                        people=sorted(state.plan.people),
                        since=state.updated_at,
                        due=due,
                    )
                )
    found += [
        Wait(
            what=one.kind, message=one.message, step=one.step, people=one.people, since=one.since, due=one.due
        )
        for one in reminders(state, now, gate)
        if one.kind != "sign_off_waits"  # which is among the above
    ]
    return _soonest_first(found)


def _soonest_first(found: list[Wait]) -> list[Wait]:
    return sorted(found, key=lambda wait: (wait.due, wait.what, wait.message))


def _decisions(state: ReleaseState, now: datetime) -> list[Wait]:
    found = []
    for proposal in state.proposals.values():
        roles = set(state.plan.quorums.of(proposal.action).roles)
        able = [
            name
            for name, person in state.plan.people.items()
            if name not in proposal.people and (not roles or set(person.roles) & roles)
        ]
        found.append(
            Wait(
                what="endorse",
                message=f"{proposal.action.replace('_', ' ')} waits for another person",
                reference=proposal.id,
                people=sorted(able),
                since=min(proposal.people.values()),
                due=proposal.expires_at,
            )
        )
    for incident in state.open_incidents:
        todo = "triage" if incident.triaged_at is None else "close_incident"
        found.append(
            Wait(
                what=todo,
                message=f"{incident.severity} {incident.kind}: {incident.summary}",
                reference=incident.id,
                people=sorted(state.plan.people),
                since=incident.at,
                due=incident.at,
            )
        )
    found += _reviews(state)
    found += _second_locks(state, now)
    if state.entry_failed is not None:
        found.append(
            Wait(
                what="retry_entry",
                message=state.entry_failed,
                people=sorted(state.plan.people),
                since=state.updated_at,
                due=now,
            )
        )
    return found


def _reviews(state: ReleaseState) -> list[Wait]:
    """Reviews of broken glass; they wait for somebody even after the release has ended."""
    return [
        Wait(
            what="review",
            message=f"review of the glass broken at `{review.step}`: {review.reason}",
            step=review.step,
            reference=review.id,
            people=sorted(set(state.plan.people) - set(review.people)),
            since=review.at,
            due=review.at,
        )
        for review in state.reviews.values()
    ]


def _second_locks(state: ReleaseState, now: datetime) -> list[Wait]:
    found = []
    for wait in state.custody_waits.values():
        if wait.what == "second_lock":
            whose = "" if wait.partner is None else f" for {wait.partner}"
            lapse = [request.expires_at for request in wait.requests if request.expires_at is not None]
            found.append(
                Wait(
                    what="second_lock",
                    message=f"the keys of `{wait.step}`{whose}: {wait.message}",
                    step=wait.step,
                    reference=wait.requests[0].accessor if len(wait.requests) == 1 else None,
                    people=sorted(state.plan.people),
                    since=wait.since,
                    due=min(lapse, default=now),
                )
            )
    return found
