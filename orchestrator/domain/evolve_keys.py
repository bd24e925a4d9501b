"""What changes when keys are rotated: artifacts and grants' copies sealed anew, their old files, renewed envelopes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from orchestrator.domain import events as ev
from orchestrator.domain import state as st
from orchestrator.domain.evolving import Change, Changes
from orchestrator.domain.state import ReleaseState


def _rotation(state: ReleaseState, e: ev.KeysRotationAsked) -> Change:
    if e.rotation is None:
        return {}
    rotation = st.Rotation(
        id=e.rotation,
        components=e.components,
        artifacts=rotated_artifacts(state, e.components),
        reason=e.reason,
        incident=e.incident,
        delete_old=e.delete_old,
        by=e.by,
        at=e.at,
    )
    return {"rotations": {**state.rotations, e.rotation: rotation}}


def rotated_artifacts(state: ReleaseState, components: Iterable[str]) -> list[str]:
    """What a rotation of these components seals anew: their artifacts, and live grants' own copies of them."""
    asked = set(components)
    bases = {state.carried_by[name] for name in asked if name in state.carried_by}
    copies = {
        copy.artifact
        for grant in state.live_grants()
        for copy in grant.copies
        if copy.of in bases or asked & set(copy.components)
    }
    busy = {name for rotation in state.pending_rotations for name in rotation.artifacts}
    return sorted((bases | copies) - busy)


def _resealed(state: ReleaseState, e: ev.ArtifactResealed) -> Change:
    rotation = state.rotations[e.rotation]
    change: Change = {
        "rotations": {
            **state.rotations,
            e.rotation: rotation.model_copy(update={"done": {**rotation.done, e.artifact: e.new}}),
        }
    }
    new = {"manifest_digest": e.manifest_digest, "location": e.location, "size": e.size}
    if e.grant is None:
        old = state.artifacts[e.artifact]
        change["artifacts"] = {name: a for name, a in state.artifacts.items() if name != e.artifact} | {
            e.new: old.model_copy(update={**new, "id": e.new, "root": None, "at": e.at})
        }
        change["carried_by"] = {
            name: e.new if artifact == e.artifact else artifact for name, artifact in state.carried_by.items()
        }
        digest, location = old.manifest_digest, old.location
    else:
        own = next(copy for copy in state.grants[e.grant].copies if copy.artifact == e.artifact)
        digest, location = own.manifest_digest, own.location
    change["superseded"] = {
        **state.superseded,
        e.artifact: st.Superseded(
            artifact=e.artifact,
            by=e.new,
            manifest_digest=digest,
            location=location,
            at=e.at,
            rotation=e.rotation,
            fate="to_be_deleted" if rotation.delete_old else "kept",
        ),
    }
    change["grants"] = {name: _moved(grant, e, new) for name, grant in state.grants.items()}
    return change


def _moved(grant: ev.Grant, e: ev.ArtifactResealed, new: dict[str, Any]) -> ev.Grant:
    """A grant after an artifact was sealed anew: its envelope of the old one is none any more."""
    update: dict[str, Any] = {}
    if any(copy.artifact == e.artifact or copy.of == e.artifact for copy in grant.copies):
        update["copies"] = [
            copy.model_copy(update={**new, "artifact": e.new})
            if copy.artifact == e.artifact
            else copy.model_copy(update={"of": e.new})
            if copy.of == e.artifact
            else copy
            for copy in grant.copies
        ]
    if grant.live and e.artifact in {*grant.envelopes, *grant.renew}:
        update["envelopes"] = {name: ref for name, ref in grant.envelopes.items() if name != e.artifact}
        update["renew"] = sorted({e.new, *grant.renew} - {e.artifact})
    return grant.model_copy(update=update) if update else grant


def _rotation_ended(state: ReleaseState, e: ev.KeysRotationEnded) -> Change:
    ended = state.rotations[e.rotation].model_copy(update={"ended_at": e.at, "failed": e.failed})
    return {"rotations": {**state.rotations, e.rotation: ended}}


def _sealed_deleted(state: ReleaseState, e: ev.SealedDeleted) -> Change:
    gone = state.superseded[e.artifact].model_copy(update={"fate": "deleted"})
    return {"superseded": {**state.superseded, e.artifact: gone}}


def _renewed(state: ReleaseState, e: ev.EnvelopesRenewed) -> Change:
    grants = dict(state.grants)
    for name in {*e.envelopes, *e.refused}:
        envelopes = {**grants[name].envelopes, **e.envelopes.get(name, {})}
        grants[name] = grants[name].model_copy(update={"envelopes": envelopes, "renew": []})
    return {"grants": grants}


#: By the kind of event.
CHANGES: Changes = {
    ev.KeysRotationAsked: _rotation,
    ev.ArtifactResealed: _resealed,
    ev.KeysRotationEnded: _rotation_ended,
    ev.SealedDeleted: _sealed_deleted,
    ev.EnvelopesRenewed: _renewed,
}
