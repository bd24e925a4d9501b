"""A release on the Hub: visibility, gating, who is let in, the card, and a tag per step, all from the state.

    stage of the current step          repository
    closed, hosted, api                private, gated by hand; nobody let in
    downloadable, for partners         visible, gated by hand; the accounts of partners with a live grant
    downloadable for the public, open  visible, not gated

Narrowing comes before widening (`HubRelease.settle`). Whatever was changed by hand is brought back with the next change
of access; a plan whose `hub_drift` says `raise` has it told by the sweep instead of repaired there.
"""

from __future__ import annotations

from artifacts.stores.base import Store
from artifacts.stores.hub_calls import HubCalls
from artifacts.stores.hub_release import Gating, HubExpectation, HubRelease, ReleaseCard
from orchestrator.domain.plan import Plan, Step
from orchestrator.domain.stage import Stage, audience_words
from orchestrator.domain.state import ReleaseState


class HubPublishing:
    """Satisfies `activities.publishing.HubFace` for one repository.

    Args:
        calls: the repository (`HubStore.calls`).
    """

    def __init__(self, calls: HubCalls) -> None:
        self._hub = HubRelease(calls)

    def prepare(self, state: ReleaseState) -> None:
        """Have a repository, private and gated before anything lies in it."""
        self._hub.ensure(private=True, gating="manual")

    def settle(self, state: ReleaseState, store: Store) -> list[str]:
        """Make the repository as the state says; what was different, in words."""
        step, expected = state.current_step, expectation(state)
        self._hub.ensure(private=True, gating="manual")
        narrowed = list(self._hub.settle(expected)) if expected.private else []
        if step is not None and state.status != "aborted":
            self._hub.publish_card(card(state, step))
            self._tag(state, step)
        widened = [] if expected.private else list(self._hub.settle(expected))
        return [str(change) for change in narrowed + widened]

    def _tag(self, state: ReleaseState, step: Step) -> None:
        """Tag the entry's commit, once: a tag of a step never moves."""
        name = _tag(state, step)
        if f"step/{name}" not in self._hub.observe().tags:
            self._hub.tag_step(name, message=f"{state.release}: {step.name} ({step.stage.value})")


def expectation(state: ReleaseState) -> HubExpectation:
    """What the Hub should show of this state."""
    step = state.current_step
    if step is None or state.status == "aborted" or step.stage < Stage.DOWNLOADABLE:
        return HubExpectation(private=True, gating="manual", grantees=frozenset())
    if step.audience == "public":
        revoked = not any(grant.holder_kind == "public" for grant in state.live_grants(step.name))
        gating: Gating = "manual" if revoked else "off"
        return HubExpectation(private=False, gating=gating, grantees=frozenset() if revoked else None)
    return HubExpectation(private=False, gating="manual", grantees=_accounts(state, state.plan))


def _accounts(state: ReleaseState, plan: Plan) -> frozenset[str]:
    holders = {grant.holder for grant in state.live_grants() if grant.holder_kind == "partner"}
    accounts = (plan.partners[name].hub_account for name in holders if name in plan.partners)
    return frozenset(account for account in accounts if account is not None)


def card(state: ReleaseState, step: Step) -> ReleaseCard:
    """The model card of a step."""
    carried = sorted({state.carried_by[name] for name in step.component_names if name in state.carried_by})
    withheld = {
        name: component.withheld.reason.value
        for name, component in state.plan.components.items()
        if component.withheld is not None
    }
    license_name = next(
        (c.parameters.get("name") for c in step.controls if c.kind == "license" and c.waived is None), None
    )
    terms = [
        group.terms
        for name, group in state.plan.partner_groups.items()
        if name in step.partner_groups and group.terms
    ]
    return ReleaseCard(
        release=state.name,
        version=state.version,
        step=step.name,
        stage=step.stage.value,
        audience=audience_words(step.audience),
        manifest_digest=", ".join(state.artifacts[name].manifest_digest for name in carried),
        plan_digest=state.plan_digest,
        license=str(license_name) if license_name else None,
        components=tuple(step.component_names),
        withheld=withheld,
        terms="; ".join(terms) or None,
    )


def _tag(state: ReleaseState, step: Step) -> str:
    attempt = next((e.attempt for e in reversed(state.history) if e.step == step.name), state.attempt)
    return f"{step.name}.{attempt}"
