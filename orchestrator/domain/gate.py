"""`verdict(state, step, now)`: does the gate hold, and if not, every condition that is unmet.

A gate holds when its conditions all do; there is no other flag anywhere. Each unmet condition says in words what is
missing, who could meet it, and, for a clock that runs, when it will be met if nothing else changes.

Conditions are looked at in groups: the release (ended, order, holds, incidents, reviews), what is released (artifacts),
what is known (evidence, risk, controls, monitors), who agreed (sign-offs, rejections), and time (window, cooling-off,
not-before, opening hours). Only those in `WAIVABLE` can be lifted by break-glass: never a person's decision, a hold, an
incident, a rating, or what is being released.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from orchestrator.domain.gate_clocks import changes_when, clocks_unmet, opens_when, research_window
from orchestrator.domain.gate_conditions import (
    artifacts_unmet,
    controls_unmet,
    evidence_unmet,
    monitors_unmet,
    release_unmet,
)
from orchestrator.domain.gate_signing import (
    delegations_at,
    shares_at,
    shares_unmet,
    sign_offs_at,
    sign_offs_unmet,
)
from orchestrator.domain.gate_views import Condition, SignOffView, Verdict
from orchestrator.domain.memo import Memo
from orchestrator.domain.plan import Step, step_digest
from orchestrator.domain.state import ReleaseState, gate_subject
from orchestrator.domain.values import digest

WAIVABLE = frozenset(
    {"research_window", "cooling_off", "not_before", "opening_hours", "evidence_age", "control", "monitor"}
)
#: The last verdict on each state. Whoever acts on a release asks several times in one instant: validator, handler, main loop.
_VERDICTS: Memo[ReleaseState, tuple[Step, datetime, Verdict]] = Memo()


def verdict(state: ReleaseState, step: Step, now: datetime) -> Verdict:
    """The whole verdict on the gate into `step`.

    Args:
        state: the release.
        step: a step of its plan; one that is not next has the condition `order`.
        now: the instant to judge at (aware).
    """
    known = _VERDICTS.get(state)
    if known is not None and known[0] is step and known[1] == now:
        return known[2]
    return _VERDICTS.keep(state, (step, now, _judge(state, step, now)))[2]


def _judge(state: ReleaseState, step: Step, now: datetime) -> Verdict:
    subject = gate_subject(state, step)
    subject_digest = subject.digest
    views = sign_offs_at(state, step, subject_digest, now)
    delegations = list(delegations_at(state, step, now))
    window = research_window(state, step, now)
    found = [
        *release_unmet(state, step),
        *artifacts_unmet(state, step),
        *evidence_unmet(state, step, now),
        *controls_unmet(state, step, now),
        *monitors_unmet(state, step, now),
        *sign_offs_unmet(state, step, views, delegations),
        *shares_unmet(state, step, views, now),
        *clocks_unmet(state, step, now, views, window),
    ]
    unmet = [condition for condition in found if condition.code not in state.waived]
    opens_at = opens_when(step, unmet, now)
    return Verdict(
        step=step.name,
        open=not unmet,
        unmet=unmet,
        waived=sorted({condition.code for condition in found} & set(state.waived)),
        sign_offs=views,
        delegations=delegations,
        window=window,
        shares=shares_at(state, step, views),
        subject=subject,
        subject_digest=subject_digest,
        irreversible=not step.stage.reversible,
        opens_at=now if not unmet else opens_at,
        changes_at=changes_when(state, step, unmet, views, delegations, now),
        etag=_etag(state, subject_digest, views, step),
        waits=state.custody_waits.get(step.name),
    )


def still_holds(state: ReleaseState, step: Step, now: datetime) -> list[Condition]:
    """What of the gate does not hold any more while its step is being entered.

    Everything is looked at again but opening hours: the entry began inside them.
    """
    entering = state.model_copy(update={"status": "active", "custody_waits": {}})
    return [
        condition for condition in verdict(entering, step, now).unmet if condition.code != "opening_hours"
    ]


def counting_approvals(state: ReleaseState, step: Step, now: datetime) -> list[SignOffView]:
    """The approvals that count at a gate, whether its step is being entered or not."""
    entering = state.model_copy(update={"status": "active"})
    views = verdict(entering, step, now).sign_offs
    return [view for view in views if view.decision == "approve" and view.standing == "counts"]


def _etag(state: ReleaseState, subject: str, views: Sequence[SignOffView], step: Step) -> str:
    seen: dict[str, object] = {
        "subject": subject,
        "step": step_digest(step),
        "status": state.status,
        "sign_offs": [[v.person, v.role, v.decision, v.standing] for v in views],
        "holds": sorted(state.holds),
        "incidents": sorted(incident.id for incident in state.open_incidents),
        "waived": state.waived,
    }
    released = {view.person: view.shares for view in views if view.shares}
    if released:
        seen["shares"] = released
    return digest(seen).removeprefix("sha256:")[:32]
