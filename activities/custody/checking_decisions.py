"""Decisions of people, each held to its signature: sign-offs, withdrawals, delegations, proposals and what stands behind them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from activities.custody.errors import NoEffectError, Unbacked
from activities.custody.invited import (
    check_signed_on_invitation,
    check_withdrawn_on_invitation,
    require_no_other_rejection,
)
from orchestrator.domain import events as ev
from orchestrator.domain.commands import PROPOSAL_LIFETIME
from orchestrator.domain.errors import Reason
from orchestrator.domain.plan import step_digest
from orchestrator.domain.state import GateSubject, Proposal, ReleaseState, gate_subject
from orchestrator.domain.values import digest
from orchestrator.trust.decisions import (
    check_delegation,
    check_endorsement,
    check_sign_off,
    check_withdrawal,
    pinned_keys,
)
from orchestrator.trust.errors import TrustError
from orchestrator.trust.statements import SignOff, Statement


class ChecksDecisions:
    """Holds what people decide to the signatures that back it."""

    def __init__(self, state: ReleaseState, *, signed_only: bool) -> None:
        self.state = state
        self.ignored: list[Reason] = []
        self._signed_only = signed_only
        self._carried: tuple[Proposal, list[str]] | None = None
        self._behind: dict[str, set[str]] = {}
        self._statements: set[str] = set()
        self._rejected: dict[str, datetime] = {}

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
