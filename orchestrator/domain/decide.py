"""`decide(state, command, now) -> events`, or an error that lists every reason. The one place where a release decides.

The same function serves the workflow's validators and handlers, the API's previews, and custody. It is pure: the
time is an argument, and equal arguments give equal events. `decide_create` stands at the beginning, where there is
no state yet. A decision that changes nothing (said twice) is an empty list.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from orchestrator.domain import commands as cmd
from orchestrator.domain import decide_access as access
from orchestrator.domain import decide_caution as caution
from orchestrator.domain import decide_gate as gate
from orchestrator.domain import decide_invited as invited
from orchestrator.domain import decide_keys as keys
from orchestrator.domain import decide_late as late
from orchestrator.domain import events as ev
from orchestrator.domain.deciding import header, require_going, require_service
from orchestrator.domain.errors import Conflict, NotPermitted
from orchestrator.domain.evolve import apply_events
from orchestrator.domain.gate import verdict
from orchestrator.domain.permissions import Permission
from orchestrator.domain.plan_rules import require_sound
from orchestrator.domain.reminders import untold
from orchestrator.domain.state import ReleaseState


def decide_create(command: cmd.CreateRelease, now: datetime) -> list[ev.AnyEvent]:
    """The first event of a release.

    Raises:
        NotPermitted: the actor may not create releases.
        PlanRefused: the plan breaks rules, or its gates could not open without the creator.
    """
    if command.actor.kind == "partner" or Permission.RELEASE_CREATE not in command.actor.permissions:
        raise NotPermitted(f"{command.actor.id} lacks the permission {Permission.RELEASE_CREATE}")
    require_sound(command.plan, barred={command.actor.id})
    return [
        ev.ReleaseCreated(
            at=now,
            by=command.actor.id,
            command_id=command.command_id,
            release=command.release,
            name=command.name,
            version=command.version,
            plan=command.plan,
            plan_digest=command.plan.digest,
        )
    ]


def decide(state: ReleaseState, command: cmd.AnyCommand, now: datetime) -> list[ev.AnyEvent]:
    """What a command makes happen.

    Args:
        state: the release as of its last event.
        command: what is asked, by whom.
        now: the instant of the decision (aware); events are never earlier than the last one.

    Raises:
        SluiceError: one of the tree in `errors`, with every reason.
    """
    if isinstance(command, cmd.CreateRelease):
        raise Conflict(f"the release {state.release} exists already")
    if not (
        isinstance(command, cmd.CloseReview) and state.reviews
    ):  # a review has to be closed, whatever came of it
        require_going(state)
    return _DECISIONS[type(command)](state, command, now)


def apply(state: ReleaseState, events: list[ev.AnyEvent]) -> ReleaseState:
    """The state after these events."""
    return apply_events(state, events)


def due(state: ReleaseState, now: datetime) -> list[cmd.AnyCommand]:
    """What the release itself has to do now: end what has run out, begin to enter a step whose gate holds."""
    if state.ended:
        return []
    commands: list[cmd.AnyCommand] = []
    grants = any(g.not_after is not None and g.not_after <= now for g in state.live_grants())
    if grants or any(p.expires_at <= now for p in state.proposals.values()):
        commands.append(cmd.Expire(command_id=f"expire-{state.seq}", actor=cmd.SERVICE))
    step = state.next_step
    if step is not None and state.status == "active" and verdict(state, step, now).open:
        commands.append(
            cmd.BeginEntry(
                command_id=f"enter-{step.name}-{state.attempt}-{state.seq}", actor=cmd.SERVICE, step=step.name
            )
        )
    return commands


def remind(state: ReleaseState, command: cmd.Remind, now: datetime) -> list[ev.AnyEvent]:
    """Tell people of what ends soon or waits for long, and was not told yet."""
    require_service(command.actor)
    return [
        ev.Reminded(
            **header(state, command, now),
            reminder=one.key,
            kind=one.kind,
            message=one.message,
            step=one.step,
            people=one.people,
            due=one.due,
        )
        for one in untold(state, max(now, state.updated_at))
    ]


def reminding(state: ReleaseState, now: datetime) -> cmd.Remind | None:
    """The command that tells what is to be told now; None when there is nothing."""
    if state.ended or not untold(state, max(now, state.updated_at)):
        return None
    return cmd.Remind(command_id=f"remind-{state.seq}", actor=cmd.SERVICE)


def wakes_at(state: ReleaseState, now: datetime) -> datetime | None:
    """When time alone will next give the release something to do or change its verdict; None: never."""
    if state.ended:
        return None
    step = state.next_step
    times = [grant.not_after for grant in state.live_grants()]
    times += [proposal.expires_at for proposal in state.proposals.values()]
    if step is not None:
        times.append(verdict(state, step, now).changes_at)
    return min((time for time in times if time is not None and time > now), default=None)


_DECISIONS: dict[type[cmd.Command], Callable[[ReleaseState, Any, datetime], list[ev.AnyEvent]]] = {
    cmd.RegisterArtifact: gate.register_artifact,
    cmd.SubmitEvidence: gate.submit_evidence,
    cmd.ReportControl: gate.report_control,
    cmd.SignOff: gate.sign_off,
    cmd.WithdrawSignOff: gate.withdraw,
    cmd.Delegate: gate.delegate,
    cmd.Invite: invited.invite,
    cmd.RevokeInvitation: invited.revoke_invitation,
    cmd.SignInvited: invited.sign_invited,
    cmd.WithdrawInvited: invited.withdraw_invited,
    cmd.ExtendWindow: gate.extend_window,
    cmd.BeginEntry: gate.begin_entry,
    cmd.Hold: caution.hold,
    cmd.Resume: caution.resume,
    cmd.ShortenWindow: caution.shorten_window,
    cmd.ReportIncident: caution.report_incident,
    cmd.TriageIncident: caution.triage_incident,
    cmd.ReportTrace: caution.report_trace,
    cmd.CloseIncident: caution.close_incident,
    cmd.Endorse: caution.endorse,
    cmd.AmendPlan: caution.amend,
    cmd.BreakGlass: caution.break_glass,
    cmd.CloseReview: caution.close_review,
    cmd.Revoke: access.revoke,
    cmd.MakeGrant: late.make_grant,
    cmd.CompleteGrant: late.complete_grant,
    cmd.DropGrant: late.drop_grant,
    cmd.DiscloseGrant: access.disclose,
    cmd.RotateKeys: keys.rotate_keys,
    cmd.CompleteResealing: keys.complete_resealing,
    cmd.EndRotation: keys.end_rotation,
    cmd.NoteDeletion: keys.note_deletion,
    cmd.RenewEnvelopes: keys.renew_envelopes,
    cmd.RollBack: access.roll_back,
    cmd.Abort: access.abort,
    cmd.ReportAccess: access.report_access,
    cmd.ReportMonitor: access.report_monitor,
    cmd.RetryEntry: access.retry_entry,
    cmd.CompleteEntry: access.complete_entry,
    cmd.TakeBackEntry: access.take_back_entry,
    cmd.NoteCustodyWait: access.note_custody_wait,
    cmd.Expire: access.expire,
    cmd.Remind: remind,
}
