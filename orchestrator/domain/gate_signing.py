"""Who may sign a gate, whose decision counts there, and which sign-offs and key shares are missing still."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from orchestrator.domain.gate_views import Condition, DelegationView, ShareView, SignOffView, Standing
from orchestrator.domain.plan import SignOffRequirement, Step, step_digest
from orchestrator.domain.sharing import keyed_artifacts, share_gaps
from orchestrator.domain.state import ReleaseState, SignOffRecord


def sign_offs_at(state: ReleaseState, step: Step, subject: str, now: datetime) -> list[SignOffView]:
    """Every standing decision at a gate and whether it counts, the oldest first.

    Args:
        state: the release.
        step: the step behind the gate.
        subject: the digest of what is decided on there now; a decision on anything else is stale.
        now: the instant to judge at (aware).
    """
    views = [_view(state, record, subject, step, now) for record in state.sign_offs.values()]
    views.sort(key=lambda view: (view.at, view.person))
    return _each_once(views)


def _each_once(views: Sequence[SignOffView]) -> list[SignOffView]:
    """One person counts once per gate: also through whom they delegated to, or whom they invited."""
    taken: set[str] = set()
    found = []
    for view in views:
        if view.decision == "approve" and view.standing == "counts":
            if view.behind & taken:
                view = view.model_copy(update={"standing": "counted_already"})  # noqa: PLW2901 - the same, judged
            else:
                taken |= view.behind
        found.append(view)
    return found


def _view(state: ReleaseState, record: SignOffRecord, subject: str, step: Step, now: datetime) -> SignOffView:
    invitation = None if record.invitation is None else state.invitations.get(record.invitation)
    standing = (
        _standing(state, record, subject, step, now)
        if record.invitation is None
        else _invited_standing(state, record, subject, step, now)
    )
    return SignOffView(
        person=record.person,
        role=record.role,
        decision=record.decision,
        standing=standing,
        at=record.at,
        expires_at=record.expires_at,
        on_behalf_of=_on_behalf_of(state, record, now),
        comment=record.comment,
        statement=record.statement,
        invited_by=None if invitation is None else invitation.by,
        organisation=None if invitation is None else invitation.organisation,
        shares=record.shares,
    )


def _on_behalf_of(state: ReleaseState, record: SignOffRecord, now: datetime) -> str | None:
    """Whose role it was given in; from the delegations themselves, whatever the event said."""
    person = state.plan.people.get(record.person)
    if person is None or record.role in person.roles or record.invitation is not None:
        return record.on_behalf_of
    return delegated_by(state, record.person, record.role, now) or record.on_behalf_of


def _invited_standing(
    state: ReleaseState, record: SignOffRecord, subject: str, step: Step, now: datetime
) -> Standing:
    """Whether a decision that was given on an invitation counts. A rejection does until it is withdrawn or the step changes."""
    if record.decision == "reject":
        return "counts" if record.step_digest == step_digest(step) else "stale"
    invitation = state.invitations.get(record.invitation or "")
    if invitation is None or invitation.revoked_at is not None:
        return "revoked"
    if invitation.by in state.barred:
        return "barred"
    if not may_invite(state, step, invitation.by, record.role):
        return "not_in_plan"
    if record.subject != subject:
        return "stale"
    return "expired" if record.expires_at <= now else "counts"


def may_invite(state: ReleaseState, step: Step, person: str, role: str) -> bool:
    """Whether the plan lets a person invite an outside reviewer who then signs this gate in a role."""
    return any(
        need.role == role and person in state.plan.inviters(need)
        for need in step.gate.sign_offs
        if need.external
    )


def _standing(
    state: ReleaseState, record: SignOffRecord, subject: str, step: Step, now: datetime
) -> Standing:
    person = state.plan.people.get(record.person)
    standing: Standing = "counts"
    if record.decision == "reject":
        # anybody whom the plan names may stop a gate, and does until they withdraw it or the step is another one
        if person is None:
            standing = "not_in_plan"
        elif record.step_digest != step_digest(step):
            standing = "stale"
    elif person is None or not may_sign_as(state, record.person, record.role, now):
        standing = "not_in_plan"
    elif record.person in state.barred:
        standing = "barred"
    elif record.subject != subject:
        standing = "stale"
    elif record.expires_at <= now:
        standing = "expired"
    return standing


def may_sign_as(state: ReleaseState, person: str, role: str, now: datetime) -> bool:
    """Whether the plan names a person for a role, or somebody whom it does has delegated the role to them."""
    known = state.plan.people.get(person)
    if known is None:
        return False
    return role in known.roles or delegated_by(state, person, role, now) is not None


def delegations_at(state: ReleaseState, step: Step, now: datetime) -> Iterator[DelegationView]:
    """Those that touch this gate: of a role that it asks for, and in force."""
    asked = {need.role for need in step.gate.sign_offs}
    for given in state.delegations:
        if (
            given.to in state.plan.people
            and given.role in asked
            and delegated_by(state, given.to, given.role, now) == given.person
        ):
            yield DelegationView(person=given.person, to=given.to, role=given.role, until=given.until)


def delegated_by(state: ReleaseState, person: str, role: str, now: datetime) -> str | None:
    """Who lets `person` sign in `role` now; None when nobody does."""
    for delegation in state.delegations:
        giver = state.plan.people.get(delegation.person)
        current = delegation.to == person and delegation.role == role and delegation.until > now
        if current and giver is not None and role in giver.roles and delegation.person not in state.barred:
            return delegation.person
    return None


def counting_for(
    state: ReleaseState, requirement: SignOffRequirement, views: Sequence[SignOffView]
) -> list[SignOffView]:
    """The approvals that count for one requirement of the gate."""
    return [
        view
        for view in views
        if view.decision == "approve"
        and view.standing == "counts"
        and view.role == requirement.role
        and _from_where_asked(state, requirement, view)
    ]


def _from_where_asked(state: ReleaseState, requirement: SignOffRequirement, view: SignOffView) -> bool:
    if view.invited_by is not None:
        return requirement.external and view.invited_by in state.plan.inviters(requirement)
    return not requirement.external or state.plan.people[view.person].external


def sign_offs_unmet(
    state: ReleaseState, step: Step, views: Sequence[SignOffView], delegations: Sequence[DelegationView]
) -> Iterator[Condition]:
    """Sign-offs that are missing, with who could give them; and every standing rejection."""
    taken: set[str] = set()
    for view in views:
        if view.standing == "counts":
            taken |= view.behind if view.decision == "approve" else {view.person}
    for requirement in step.gate.sign_offs:
        missing = requirement.count - len(counting_for(state, requirement, views))
        if missing > 0:
            able = state.plan.people_in_role(requirement.role, external_only=requirement.external)
            inviters = state.plan.inviters(requirement)
            lent = {
                given.to
                for given in delegations
                if given.role == requirement.role
                and given.person not in taken
                and (state.plan.people[given.to].external or not requirement.external)
            }
            who = sorted({*able, *inviters, *lent} - state.barred - taken)
            outside = " from outside" if requirement.external else ""
            message = f"{missing} more sign-off{'s' if missing > 1 else ''} as {requirement.role}{outside}"
            may = sorted(set(inviters) - state.barred - taken)
            if may:
                message += f"; {' or '.join(may)} may invite one"
            late = [
                v
                for v in views
                if v.role == requirement.role and v.standing not in {"counts", "not_in_plan", "barred"}
            ]
            if late:
                message += (
                    " (" + ", ".join(f"{v.person}'s is {v.standing.replace('_', ' ')}" for v in late) + ")"
                )
            yield Condition(code="sign_off", message=message, who=who, role=requirement.role)
    for view in views:
        if view.decision == "reject" and view.standing == "counts":
            told = f": {view.comment}" if view.comment else ""
            yield Condition(
                code="rejection", message=f"{view.person} ({view.role}) rejected{told}", who=[view.person]
            )


def _released(views: Sequence[SignOffView]) -> dict[str, list[str]]:
    return {v.person: v.shares for v in views if v.decision == "approve" and v.standing == "counts"}


def shares_unmet(
    state: ReleaseState, step: Step, views: Sequence[SignOffView], now: datetime
) -> Iterator[Condition]:
    """Key shares that the approvals have not released yet."""
    roles = [need.role for need in step.gate.sign_offs]

    def able(person: str) -> bool:
        known = state.plan.people.get(person)
        signs = any(may_sign_as(state, person, role, now) for role in roles)
        return signs and known is not None and bool(known.key_files) and person not in state.barred

    for gap in share_gaps(state, step, _released(views), able):
        yield Condition(code="shares", message=gap.message, who=gap.who)


def shares_at(state: ReleaseState, step: Step, views: Sequence[SignOffView]) -> list[ShareView]:
    """The dealt key shares of every artifact that the step hands out: how many are needed, and whose counts."""
    released = _released(views)
    dealt = {name: state.artifacts[name].shares for name in keyed_artifacts(state, step)}
    return [
        ShareView(
            artifact=name,
            threshold=shares.threshold,
            holders=shares.holders,
            released=[person for person in shares.holders if name in released.get(person, ())],
        )
        for name, shares in dealt.items()
        if shares is not None
    ]
