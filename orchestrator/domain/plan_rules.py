"""The rules that a plan must keep (DOMAIN.md, "Rules a plan must keep"). Every broken one is listed with its path.

`broken_rules` never stops at the first: it returns a `Reason` for each, whose code is `rule-1` … `rule-8`, or
`rule-0` for a name that stands for nothing or stands twice. `all_faults` adds `rule-9` (key shares, `sharing`) and the plan's
size, which are asked of every new plan.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from orchestrator.domain.component import Kind
from orchestrator.domain.control import ControlKind
from orchestrator.domain.errors import PlanRefused, Reason
from orchestrator.domain.evidence import EvidenceKind
from orchestrator.domain.plan import HandOut, Plan, SignOffRequirement, Step
from orchestrator.domain.quorum import most_filled
from orchestrator.domain.sharing import second_lock_faults
from orchestrator.domain.stage import Stage
from orchestrator.domain.values import canonical

#: As canonical JSON. A release carries its plan, and what is proposed in its place, in messages of 2 MiB at most.
MAX_PLAN_BYTES = 512 * 1024

_SERVING_CONTROLS = (ControlKind.RATE_LIMIT, ControlKind.USER_ACCOUNTS, ControlKind.INPUT_MONITORING)


def broken_rules(plan: Plan, barred: Collection[str] = ()) -> list[Reason]:
    """Every rule that the plan breaks.

    Args:
        plan: a plan of the right shape.
        barred: people who may not sign: who created the release or uploaded its artifacts (rule 7).
    """
    reasons = [*_references(plan), *_gradient(plan), *_open(plan), *_quorums(plan)]
    for index, step in enumerate(plan.steps):
        path = f"steps[{index}]"
        reasons += [
            *_hand_outs(plan, step, path),
            *_evidence(step, path),
            *_serving_controls(step, path),
            *_irreversible(plan, step, path, barred),
            *_fillable(plan, step, path, barred),
            *_outside(plan, index, step, path),
        ]
    return reasons


def all_faults(plan: Plan, barred: Collection[str] = ()) -> list[Reason]:
    """Everything that keeps a plan from being taken now: `broken_rules`, its size, and key shares that would lock nothing."""
    return [*broken_rules(plan, barred), *_size_faults(plan), *second_lock_faults(plan)]


def _size_faults(plan: Plan) -> Iterator[Reason]:
    """A release carries its plan wherever it goes, and one that is proposed beside it: both have to fit into a message."""
    size = len(canonical(plan.model_dump(mode="json")))
    if size > MAX_PLAN_BYTES:
        yield Reason(
            "plan-too-large",
            f"{size} bytes as canonical JSON; {MAX_PLAN_BYTES} is the most. Name recipients by their digest (`sha256:…`), and put long texts into documents",
        )


def require_sound(plan: Plan, barred: Collection[str] = ()) -> None:
    """Raise `PlanRefused` with every broken rule, or return.

    Raises:
        PlanRefused: the plan breaks at least one rule.
    """
    reasons = all_faults(plan, barred)
    if reasons:
        raise PlanRefused(f"the plan breaks {len(reasons)} rule(s)", reasons)


def _broken(rule: int, path: str, message: str) -> Reason:
    return Reason(f"rule-{rule}", message, path)


def _references(plan: Plan) -> Iterator[Reason]:
    roles = {role for person in plan.people.values() for role in person.roles}
    for group, members in plan.partner_groups.items():
        for i, partner in enumerate(members.partners):
            if partner not in plan.partners:
                yield _broken(
                    0,
                    f"partner_groups.{group}.partners[{i}]",
                    f"no partner is called `{partner}`; add it under `partners`",
                )
    seen_steps: dict[str, int] = {}
    for index, step in enumerate(plan.steps):
        path = f"steps[{index}]"
        if step.name in seen_steps:
            yield _broken(
                0, f"{path}.name", f"the name `{step.name}` is taken by steps[{seen_steps[step.name]}]"
            )
        seen_steps.setdefault(step.name, index)
        yield from _step_references(plan, step, path, roles)
    for name, component in plan.components.items():
        if component.mark is not None and component.kind is not Kind.WEIGHTS:
            yield _broken(
                0, f"components.{name}.mark", f"only weights can be marked; `{name}` is {component.kind}"
            )
    keys: dict[str, str] = {}
    for name, person in plan.people.items():
        for i, key in enumerate(person.keys):
            material = key.split(" ")[1]
            if keys.get(material, name) != name:
                yield _broken(
                    7,
                    f"people.{name}.keys[{i}]",
                    f"the same key stands under `{keys[material]}`; one key is one person",
                )
            keys.setdefault(material, name)
    recipients: dict[str, str] = {}
    for place, holders in (("partners", plan.partners), ("deployments", plan.deployments)):
        for name, holder in holders.items():
            if holder.recipient is None:
                continue
            here = f"{place}.{name}.recipient"
            if holder.recipient in recipients:
                yield _broken(
                    0,
                    here,
                    f"the same recipient stands at {recipients[holder.recipient]}; a key belongs to one holder",
                )
            recipients.setdefault(holder.recipient, here)


def _step_references(plan: Plan, step: Step, path: str, roles: Collection[str]) -> Iterator[Reason]:
    seen: set[str] = set()
    for i, name in enumerate(step.component_names):
        if name not in plan.components:
            yield _broken(
                0, f"{path}.components[{i}]", f"no component is called `{name}`; add it under `components`"
            )
        elif plan.components[name].withheld and step.stage is not Stage.CLOSED:
            yield _broken(
                0,
                f"{path}.components[{i}]",
                f"`{name}` is withheld; a withheld component is in no step beyond `closed`",
            )
        if name in seen:
            yield _broken(0, f"{path}.components[{i}]", f"`{name}` stands twice in this step")
        seen.add(name)
    for i, group in enumerate(step.partner_groups):
        if group not in plan.partner_groups:
            yield _broken(
                0,
                f"{path}.audience.partners[{i}]",
                f"no partner group is called `{group}`; add it under `partner_groups`",
            )
    for i, requirement in enumerate(step.gate.sign_offs):
        if requirement.invited_by is not None:
            yield from _invited(plan, requirement, f"{path}.gate.sign_offs[{i}]", roles)
        elif requirement.role not in roles:
            yield _broken(
                0,
                f"{path}.gate.sign_offs[{i}].role",
                f"nobody under `people` has the role `{requirement.role}`",
            )
    required = [requirement.role for requirement in step.gate.sign_offs]
    for i, role in enumerate(required):
        if role in required[:i]:
            yield _broken(
                0, f"{path}.gate.sign_offs[{i}].role", f"the role `{role}` is asked for twice; use `count`"
            )
    kinds = [control.kind for control in step.controls]
    for i, kind in enumerate(kinds):
        if kind in kinds[:i]:
            yield _broken(
                0, f"{path}.controls[{i}].kind", f"the control `{kind}` is declared twice in this step"
            )
    if step.audience != "internal" and step.stage is Stage.CLOSED:
        yield _broken(
            1, f"{path}.audience", "the audience of `closed` is `internal`: no one outside has access (§5.1)"
        )
    if step.audience == "internal" and step.stage is not Stage.CLOSED:
        yield _broken(
            1,
            f"{path}.audience",
            f"the audience of `{step.stage}` is partners or public; `internal` is `closed`",
        )
    shares = step.gate.shares
    if shares is not None and shares > sum(r.count for r in step.gate.sign_offs):
        yield _broken(7, f"{path}.gate.shares", f"{shares} shares are asked for but fewer people sign off")


def _invited(
    plan: Plan, requirement: SignOffRequirement, path: str, roles: Collection[str]
) -> Iterator[Reason]:
    """What an opening for invited reviewers needs: it is for outsiders, and somebody can sign an invitation."""
    if not requirement.external:
        yield _broken(8, f"{path}.invited_by", "only an `external` sign-off can be given on an invitation")
    if requirement.invited_by not in roles:
        yield _broken(
            0, f"{path}.invited_by", f"nobody under `people` has the role `{requirement.invited_by}`"
        )
    elif not plan.inviters(requirement):
        yield _broken(
            7,
            f"{path}.invited_by",
            f"an invitation is signed, but the plan pins no key of anybody in the role `{requirement.invited_by}`",
        )


def _gradient(plan: Plan) -> Iterator[Reason]:
    reached: dict[str, tuple[Stage, int]] = {}
    for index, step in enumerate(plan.steps):
        for i, name in enumerate(step.component_names):
            before = reached.get(name)
            if before is not None and step.stage < before[0]:
                yield _broken(
                    1,
                    f"steps[{index}].components[{i}]",
                    f"`{name}` goes down from `{before[0]}` (steps[{before[1]}]) to `{step.stage}`; going back is a rollback, never a plan",
                )
            reached[name] = (max(step.stage, before[0]) if before else step.stage, index)


def _open(plan: Plan) -> Iterator[Reason]:
    for index, step in enumerate(plan.steps):
        if step.stage is not Stage.OPEN:
            if step.publish_plaintext:
                yield _broken(
                    2, f"steps[{index}].publish_plaintext", "plaintext is published at `open` alone"
                )
            continue
        if step.audience != "public":
            yield _broken(
                2,
                f"steps[{index}].audience",
                "an open release cannot be gated: its audience is `public` (§5.5)",
            )
        missing = sorted(set(plan.components) - set(step.component_names))
        withheld = [name for name in missing if plan.components[name].withheld]
        absent = [name for name in missing if not plan.components[name].withheld]
        if withheld:
            yield _broken(
                2,
                f"steps[{index}].stage",
                "withheld: " + ", ".join(withheld) + "; the last stage is then `downloadable`",
            )
        if absent:
            yield _broken(
                2,
                f"steps[{index}].components",
                "`open` covers every component; missing: " + ", ".join(absent),
            )
        for i, component in enumerate(step.components):
            known = plan.components.get(component.name)
            if known is not None and not known.documentation:
                yield _broken(
                    2,
                    f"components.{component.name}.documentation",
                    f"`{component.name}` has no basic documentation, which `open` needs (§5)",
                )
            if (
                known is not None
                and known.has_files
                and plan.hand_out(step, component)
                not in {
                    (HandOut.KEY, "audience"),
                    (HandOut.PLAINTEXT, "audience"),
                }
            ):
                yield _broken(
                    2, f"steps[{index}].components[{i}]", "at `open` everything is handed out to the public"
                )
        if index != len(plan.steps) - 1:
            yield _broken(2, f"steps[{index + 1}]", "no step can follow `open`")


def _hand_outs(plan: Plan, step: Step, path: str) -> Iterator[Reason]:
    weights = False
    for i, component in enumerate(step.components):
        here = f"{path}.components[{i}]"
        what, to = plan.hand_out(step, component)
        known = plan.components.get(component.name)
        if known is None:
            continue
        weights |= known.kind is Kind.WEIGHTS
        if step.stage is Stage.CLOSED and what is not HandOut.NOTHING:
            yield _broken(3, here, "at `closed` nothing is handed out")
        if (
            step.stage.serves
            and known.kind is Kind.WEIGHTS
            and what is not HandOut.NOTHING
            and to == "audience"
        ):
            yield _broken(
                3,
                here,
                f"at `{step.stage}` no weights leave: the key of `{component.name}` goes to a deployment of the plan alone",
            )
        if step.stage.serves and what is HandOut.PLAINTEXT:
            yield _broken(3, here, f"at `{step.stage}` no plaintext file is handed out")
        if to == "deployments" and what is not HandOut.NOTHING and not step.stage.serves:
            yield _broken(3, here, "deployments get keys at `hosted` and `api` alone")
    for i, name in enumerate(step.deployments):
        if name not in plan.deployments:
            yield _broken(
                3,
                f"{path}.deployments[{i}]",
                f"no deployment is called `{name}`; name it with its public key under `deployments`",
            )
    if step.stage.serves and weights and not step.deployments:
        yield _broken(
            3,
            f"{path}.deployments",
            f"`{step.stage}` serves weights: name at least one deployment of the plan that runs them",
        )
    if step.deployments and not step.stage.serves:
        yield _broken(
            3, f"{path}.deployments", f"deployments serve at `hosted` and `api`, not at `{step.stage}`"
        )


def _evidence(step: Step, path: str) -> Iterator[Reason]:
    if step.stage is Stage.CLOSED:
        return
    kinds = {requirement.kind for requirement in step.gate.evidence}
    if not kinds & {EvidenceKind.MODEL_CARD, EvidenceKind.SYSTEM_CARD}:
        yield _broken(
            4, f"{path}.gate.evidence", "every gate beyond `closed` asks for a model_card or a system_card"
        )
    if EvidenceKind.RISK_ASSESSMENT not in kinds:
        yield _broken(
            4, f"{path}.gate.evidence", "every gate beyond `closed` asks for a risk_assessment of that step"
        )


def _serving_controls(step: Step, path: str) -> Iterator[Reason]:
    if not step.stage.serves:
        return
    declared = {control.kind for control in step.controls}
    for kind in _SERVING_CONTROLS:
        if kind not in declared:
            yield _broken(
                5,
                f"{path}.controls",
                f"`{step.stage}` names the control {kind}, or waives it with a written reason (`waived:`)",
            )


def _irreversible(plan: Plan, step: Step, path: str, barred: Collection[str]) -> Iterator[Reason]:
    if step.stage.reversible:
        return
    roles = {requirement.role for requirement in step.gate.sign_offs}
    people = sum(requirement.count for requirement in step.gate.sign_offs)
    if people < 2 or len(roles) < 2:
        yield _broken(
            6,
            f"{path}.gate.sign_offs",
            f"`{step.stage}` can't be taken back: at least two people from two roles sign off",
        )
    if step.gate.cooling_off is None:
        yield _broken(
            6,
            f"{path}.gate.cooling_off",
            f"`{step.stage}` can't be taken back: a cooling-off time passes after the last sign-off",
        )
    licenses = [
        control for control in step.controls if control.kind is ControlKind.LICENSE and control.waived is None
    ]
    if not licenses:
        yield _broken(
            6,
            f"{path}.controls",
            f"`{step.stage}` names a license (a control of kind license with parameters.name)",
        )


def _fillable(plan: Plan, step: Step, path: str, barred: Collection[str]) -> Iterator[Reason]:
    places: list[list[str]] = []
    for requirement in step.gate.sign_offs:
        able = [
            p
            # whoever invites counts through the reviewer, so that each place still takes a person of the plan
            for p in (
                *plan.people_in_role(requirement.role, external_only=requirement.external),
                *plan.inviters(requirement),
            )
            if p not in barred
        ]
        places += [able] * requirement.count
    filled = most_filled(places)
    if filled < len(places):
        told = (
            f"; {', '.join(sorted(set(barred) & set(plan.people)))} created or uploaded and cannot sign"
            if set(barred) & set(plan.people)
            else ""
        )
        yield _broken(
            7,
            f"{path}.gate.sign_offs",
            f"the named people could never fill it: {len(places)} different people are asked for, {filled} can be had{told}",
        )


def _quorums(plan: Plan) -> Iterator[Reason]:
    for action in ("resume", "shorten_window", "close_incident", "amend", "break_glass"):
        quorum = plan.quorums.of(action)
        able = [
            name
            for name, person in plan.people.items()
            if not quorum.roles or set(person.roles) & set(quorum.roles)
        ]
        if len(able) < quorum.count:
            yield _broken(
                7,
                f"quorums.{action}",
                f"{quorum.count} people are asked for, but the plan names {len(able)} who could",
            )


def _outside(plan: Plan, index: int, step: Step, path: str) -> Iterator[Reason]:
    first_irreversible = all(earlier.stage.reversible for earlier in plan.steps[:index])
    if step.stage is not Stage.DOWNLOADABLE and not (step.stage is Stage.OPEN and first_irreversible):
        return
    if any(requirement.external for requirement in step.gate.sign_offs) or step.gate.waive_external_sign_off:
        return
    yield _broken(
        8,
        f"{path}.gate.sign_offs",
        "the gate into `downloadable` asks for a sign-off from outside (`external: true`), or waives it with a reason (`waive_external_sign_off`)",
    )
