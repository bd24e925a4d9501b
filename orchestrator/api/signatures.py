"""Signed decisions are verified before they are sent, so that a bad signature is refused at once and in plain words.

Custody verifies everything again from the log and believes nothing of this; here it is a kindness to the person who signs, and
keeps what could never open anything out of the gate's list. Who has no key pinned in the plan decides unsigned.
"""

from __future__ import annotations

from datetime import datetime

from orchestrator.domain import commands as cmd
from orchestrator.domain.decide_caution import signed_payload
from orchestrator.domain.errors import NotPermitted, Reason, SluiceError
from orchestrator.domain.state import ReleaseState, gate_subject
from orchestrator.domain.values import digest
from orchestrator.trust.decisions import (
    check_delegation,
    check_endorsement,
    check_sign_off,
    check_withdrawal,
    pinned_keys,
)
from orchestrator.trust.errors import TrustError
from orchestrator.trust.invitations import Said, check_invitation


def verify(state: ReleaseState, command: cmd.AnyCommand, now: datetime) -> None:
    """Verify the envelope of a command, if it has one and the plan pins keys of who sends it.

    Args:
        state: the release as the records show it.
        command: what is about to be sent.
        now: the time (aware).

    Raises:
        NotPermitted: the envelope is not this person's signature on exactly this.
    """
    envelope = getattr(command, "envelope", None)
    if envelope is None:
        return
    try:
        if pinned_keys(state.plan, command.actor.id):
            _check(state, command, envelope, now)
    except TrustError as error:
        raise NotPermitted(
            f"the signature of {command.actor.id} does not hold: {error}",
            [Reason("signature", str(error), "body.envelope")],
        ) from None


def _check(state: ReleaseState, command: cmd.AnyCommand, envelope: str, now: datetime) -> None:
    person = command.actor.id
    step = state.next_step
    match command:
        case cmd.SignOff():
            if step is None or step.name != command.step:
                return  # refused for that by the release itself
            check_sign_off(
                envelope,
                state.plan,
                gate_subject(state, step),
                person=person,
                role=command.role,
                decision=command.decision,
                expires_at=command.expires_at,
                now=now,
            )
        case cmd.WithdrawSignOff():
            standing = state.sign_offs.get(person)
            if standing is None or standing.statement is None:
                return  # nothing signed is taken back
            check_withdrawal(
                envelope,
                state.plan,
                release=state.release,
                step=command.step,
                attempt=state.attempt,
                person=person,
                withdraws=standing.statement,
                now=now,
            )
        case cmd.Delegate():
            check_delegation(
                envelope,
                state.plan,
                release=state.release,
                giver=person,
                to=command.to,
                role=command.role,
                until=command.until,
                now=now,
            )
        case cmd.Invite():
            if step is None or step.name != command.step:
                return  # refused for that by the release itself
            said = Said(
                invited_by=person,
                reviewer=command.reviewer,
                organisation=command.organisation,
                role=command.role,
                key=command.key,
                expires_at=command.expires_at,
            )
            check_invitation(envelope, state.plan, gate_subject(state, step), said, now=now)
        case _:
            try:
                action, payload = signed_payload(state, command)
            except SluiceError:
                return  # refused for that by the release itself
            check_endorsement(
                envelope,
                state.plan,
                release=state.release,
                action=action,
                payload_digest=digest(payload),
                person=person,
                now=now,
            )
