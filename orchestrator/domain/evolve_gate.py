"""What changes at a gate: artifacts, evidence, controls, decisions, proposals, the plan, a broken glass."""

from __future__ import annotations

from orchestrator.domain import events as ev
from orchestrator.domain import state as st
from orchestrator.domain.control import ControlReport
from orchestrator.domain.evolving import Change, Changes
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import digest, statement_digest


def _artifact(state: ReleaseState, e: ev.ArtifactRegistered) -> Change:
    artifact = st.RegisteredArtifact(
        id=e.artifact,
        manifest_digest=e.manifest_digest,
        components=e.components,
        location=e.location,
        root=e.root,
        size=e.size,
        by=e.by,
        at=e.at,
        shares=e.shares,
    )
    carried = {**state.carried_by, **dict.fromkeys(e.components, e.artifact)}
    kept = {
        name: a for name, a in {**state.artifacts, e.artifact: artifact}.items() if name in carried.values()
    }
    return {"artifacts": kept, "carried_by": carried, "uploaders": sorted({*state.uploaders, e.by})}


def _evidence(state: ReleaseState, e: ev.EvidenceSubmitted) -> Change:
    place = f"{e.evidence.kind}@{e.evidence.step or ''}"
    return {"evidence": {**state.evidence, place: e.evidence}}


def _control(state: ReleaseState, e: ev.ControlReported) -> Change:
    report = ControlReport(in_force=e.in_force, by=e.by, at=e.at, evidence=e.evidence, note=e.note)
    return {"controls": {**state.controls, f"{e.step}/{e.control}": report}}


def _signed(state: ReleaseState, e: ev.SignedOff) -> Change:
    record = st.SignOffRecord(
        person=e.by,
        role=e.role,
        decision=e.decision,
        subject=e.subject,
        step_digest=e.step_digest,
        at=e.at,
        expires_at=e.expires_at,
        on_behalf_of=e.on_behalf_of,
        comment=e.comment,
        statement=statement_digest(e.envelope),
        held_before=state.held.at(e.at).total_seconds(),
        invitation=e.invitation,
        shares=sorted(e.shares),
    )
    used = {"used_at": e.at, "acceptance": e.acceptance}
    return {"sign_offs": {**state.sign_offs, e.by: record}, **_invitation(state, e.invitation, used)}


def _invitation(state: ReleaseState, name: str | None, update: Change) -> Change:
    """A changed invitation; nothing when it is not known (custody passes over what nothing backs)."""
    known = None if name is None else state.invitations.get(name)
    if known is None:
        return {}
    return {"invitations": {**state.invitations, known.id: known.model_copy(update=update)}}


def _invited(state: ReleaseState, e: ev.Invited) -> Change:
    given = e.model_dump(include=set(st.Invitation.model_fields))
    made = st.Invitation(**given, id=e.invitation)
    return {"invitations": {**state.invitations, e.invitation: made}}


def _invitation_revoked(state: ReleaseState, e: ev.InvitationRevoked) -> Change:
    return _invitation(state, e.invitation, {"revoked_at": e.at})


def _withdrawn(state: ReleaseState, e: ev.SignOffWithdrawn) -> Change:
    return {"sign_offs": {person: s for person, s in state.sign_offs.items() if person != e.by}}


def _delegated(state: ReleaseState, e: ev.Delegated) -> Change:
    kept = [d for d in state.delegations if d.until > e.at and (d.person, d.role) != (e.by, e.role)]
    return {"delegations": [*kept, st.Delegation(person=e.by, to=e.to, role=e.role, until=e.until, at=e.at)]}


def _window(state: ReleaseState, e: ev.WindowChanged) -> Change:
    return {"window_required": {**state.window_required, e.step: e.required.total_seconds()}}


def _proposed(state: ReleaseState, e: ev.Proposed) -> Change:
    proposal = st.Proposal(
        id=e.proposal,
        action=e.action,
        payload=e.payload,
        payload_digest=e.payload_digest,
        people={e.by: e.at},
        expires_at=e.expires_at,
    )
    return {"proposals": {**state.proposals, e.proposal: proposal}}


def _endorsed(state: ReleaseState, e: ev.Endorsed) -> Change:
    proposal = state.proposals[e.proposal]
    more = proposal.model_copy(update={"people": {**proposal.people, e.by: e.at}})
    return {"proposals": {**state.proposals, e.proposal: more}}


def _proposal_ended(state: ReleaseState, e: ev.ProposalEnded) -> Change:
    return {"proposals": {name: p for name, p in state.proposals.items() if name != e.proposal}}


def _amended(state: ReleaseState, e: ev.PlanAmended) -> Change:
    return {
        "approached_at": e.at,
        "delegations": [],  # each names the plan that it was given under
        "plan": e.plan,
        "plan_digest": e.plan_digest,
        "window_required": {},
        "proposals": {},
        "waived": [],
        "shut_out": {
            name: entry
            for name, entry in state.shut_out.items()
            if name not in e.plan.partners or digest(e.plan.partners[name]) == entry
        },
    }


def _glass(state: ReleaseState, e: ev.GlassBroken) -> Change:
    review = st.Review(id=e.review, step=e.step, waives=e.waives, reason=e.reason, people=e.people, at=e.at)
    return {
        "reviews": {**state.reviews, e.review: review},
        "waived": sorted({*state.waived, *e.waives}),
    }


def _reviewed(state: ReleaseState, e: ev.ReviewClosed) -> Change:
    return {"reviews": {name: review for name, review in state.reviews.items() if name != e.review}}


#: By the kind of event.
CHANGES: Changes = {
    ev.ArtifactRegistered: _artifact,
    ev.EvidenceSubmitted: _evidence,
    ev.ControlReported: _control,
    ev.SignedOff: _signed,
    ev.SignOffWithdrawn: _withdrawn,
    ev.Delegated: _delegated,
    ev.Invited: _invited,
    ev.InvitationRevoked: _invitation_revoked,
    ev.WindowChanged: _window,
    ev.Proposed: _proposed,
    ev.Endorsed: _endorsed,
    ev.ProposalEnded: _proposal_ended,
    ev.PlanAmended: _amended,
    ev.GlassBroken: _glass,
    ev.ReviewClosed: _reviewed,
}
