"""Decisions about new keys for what is sealed already: rotations, what custody sealed anew, envelopes for it.

A rotation is caution: one authorised person asks for it, at once, and the response table may. It takes nothing back that
was disclosed. While it goes on no gate opens; what it makes stale has to be signed anew.
"""

from __future__ import annotations

from datetime import datetime

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.deciding import (
    header,
    require_components,
    require_permission,
    require_service,
    short_id,
)
from orchestrator.domain.errors import Conflict, NotFound, Reason
from orchestrator.domain.evolve_keys import rotated_artifacts
from orchestrator.domain.permissions import Permission
from orchestrator.domain.state import ReleaseState, Rotation


def rotate_keys(state: ReleaseState, command: cmd.RotateKeys, now: datetime) -> list[ev.AnyEvent]:
    """Ask for new keys of components: one authorised person may, at any time."""
    require_permission(command.actor, Permission.KEYS_ROTATE)
    require_components(state, command.components)
    sealed = [name for name in command.components if name in state.carried_by]
    if not sealed:
        raise Conflict(
            "nothing is sealed for: " + ", ".join(command.components),
            [Reason("artifact", "no artifact is registered for them, so there is no key to rotate")],
        )
    locked = sorted(name for name in sealed if state.artifacts[state.carried_by[name]].shares is not None)
    if locked:
        raise Conflict(
            "sealed with key shares, so custody cannot seal anew: " + ", ".join(locked),
            [
                Reason(
                    "shares",
                    "seal with `sluice artifact seal` where the weights are; what is out already is another release",
                )
            ],
        )
    if not rotated_artifacts(state, sealed):
        return []  # being sealed anew already
    return [
        ev.KeysRotationAsked(
            **header(state, command, now),
            components=sorted(set(sealed)),
            rotation=short_id("rotation", command.command_id),
            reason=command.reason,
            delete_old=command.delete_old,
        )
    ]


def complete_resealing(
    state: ReleaseState, command: cmd.CompleteResealing, now: datetime
) -> list[ev.AnyEvent]:
    """Put what custody sealed anew in the place of the old artifact."""
    require_service(command.actor)
    rotation = _rotation(state, command.rotation)
    if rotation.done.get(command.artifact) == command.new:
        return []
    if not rotation.pending or command.artifact not in rotation.artifacts:
        raise Conflict(f"the rotation {rotation.id} does not seal {command.artifact} anew")
    if state.entry is not None:
        raise Conflict(
            "a step is being entered; what was sealed anew takes its place when that is done",
            [Reason("entering", "ask again when the step is entered")],
        )
    owner = next(
        (g.id for g in state.grants.values() if any(c.artifact == command.artifact for c in g.copies)), None
    )
    if owner is None and command.artifact not in state.artifacts:
        raise Conflict(f"the release has no artifact {command.artifact} any more")
    return [
        ev.ArtifactResealed(
            **header(state, command, now),
            rotation=rotation.id,
            artifact=command.artifact,
            new=command.new,
            manifest_digest=command.manifest_digest,
            location=command.location,
            size=command.size,
            grant=owner,
        )
    ]


def end_rotation(state: ReleaseState, command: cmd.EndRotation, now: datetime) -> list[ev.AnyEvent]:
    """Say that a rotation is over."""
    require_service(command.actor)
    rotation = _rotation(state, command.rotation)
    if not rotation.pending:
        return []
    head = header(state, command, now)
    return [ev.KeysRotationEnded(**head, rotation=rotation.id, failed=command.failed)]


def note_deletion(state: ReleaseState, command: cmd.NoteDeletion, now: datetime) -> list[ev.AnyEvent]:
    """Say that old sealed files are gone."""
    require_service(command.actor)
    old = state.superseded.get(command.artifact)
    if old is None:
        raise NotFound(f"no artifact {command.artifact} was sealed anew")
    if old.fate == "deleted":
        return []
    return [ev.SealedDeleted(**header(state, command, now), artifact=command.artifact)]


def renew_envelopes(state: ReleaseState, command: cmd.RenewEnvelopes, now: datetime) -> list[ev.AnyEvent]:
    """Give grants that still stand the envelopes that custody made for what was sealed anew."""
    require_service(command.actor)
    waiting = {grant.id: grant for grant in state.live_grants() if grant.renew}
    envelopes = {
        name: {artifact: reference for artifact, reference in made.items() if artifact in waiting[name].renew}
        for name, made in command.envelopes.items()
        if name in waiting
    }
    refused = {name: why for name, why in command.refused.items() if name in waiting}
    if not envelopes and not refused:
        return []
    return [ev.EnvelopesRenewed(**header(state, command, now), envelopes=envelopes, refused=refused)]


def _rotation(state: ReleaseState, name: str) -> Rotation:
    rotation = state.rotations.get(name)
    if rotation is None:
        raise NotFound(f"there is no rotation {name}")
    return rotation
