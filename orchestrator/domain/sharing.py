"""Key shares as a second lock on what a step hands out: which artifacts need them, and whose are still missing. Pure.

An artifact is dealt where it is sealed: k of its n holders open it, together with custody. A gate asks for shares
(`shares: k`); releasing one is part of a sign-off, and a share counts exactly as long as that sign-off does. Artifact and
plan have to fit: every step that hands out a key of a dealt artifact asks for as many shares as it was dealt for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from orchestrator.domain import commands as cmd
from orchestrator.domain.commands import KeyShares
from orchestrator.domain.errors import Conflict, Malformed, Reason
from orchestrator.domain.plan import HandOut, Plan, Step
from orchestrator.domain.quorum import most_filled
from orchestrator.domain.state import ReleaseState


@dataclass(frozen=True, slots=True)
class ShareGap:
    """What stands between a gate and one artifact. `who`: holders who can close it; nobody where it does not fit the plan."""

    artifact: str
    message: str
    who: list[str]


def keyed_artifacts(state: ReleaseState, step: Step) -> list[str]:
    """The artifacts of which a step hands out keys."""
    return sorted({state.carried_by[name] for name in _keyed(state.plan, step) if name in state.carried_by})


def share_gaps(
    state: ReleaseState,
    step: Step,
    given: Mapping[str, Collection[str]],
    able: Callable[[str], bool],
) -> Iterator[ShareGap]:
    """What of the second lock is still shut.

    Args:
        state: the release.
        step: the step whose gate it is.
        given: person → artifacts whose share their counting sign-off released.
        able: whether somebody could sign this gate.
    """
    asked = step.gate.shares
    for artifact in keyed_artifacts(state, step):
        dealt = state.artifacts[artifact].shares
        if dealt is None and asked is None:
            continue
        if dealt is None:
            told = f"{artifact} was sealed without key shares, which this gate asks for; seal it with `--share-holder`"
            yield ShareGap(artifact, told, [])
        elif dealt.threshold != asked:
            wanted = "none" if asked is None else str(asked)
            told = f"{artifact} opens with {dealt.threshold} key shares, but this gate asks for {wanted}; amend the plan"
            yield ShareGap(artifact, told, [])
        else:
            have = [name for name in dealt.holders if artifact in given.get(name, ())]
            missing = dealt.threshold - len(have)
            if missing > 0:
                told = (
                    f"{missing} more key share{'s' if missing > 1 else ''} of {artifact}: a holder signs with the command line, "
                    f"`sluice sign {state.release} {step.name} --approve --share-key FILE`; a sign-off in the console or with a passkey releases none"
                )
                who = [name for name in dealt.holders if name not in have and able(name)]
                yield ShareGap(artifact, told, who)


def share_left_behind(state: ReleaseState, person: str, step: Step) -> list[str]:
    """The artifacts of which a person holds a share that a sign-off of this gate could release."""
    dealt = {name: state.artifacts[name].shares for name in keyed_artifacts(state, step)}
    return [name for name, shares in dealt.items() if shares is not None and person in shares.holders]


def require_fitting(state: ReleaseState, command: cmd.RegisterArtifact) -> None:
    """Refuse an artifact whose shares do not fit the gates that its keys have to pass.

    Raises:
        Conflict: with every step that it does not fit.
    """
    known = state.artifacts.get(command.artifact)
    components = {*command.components, *(() if known is None else known.components)}
    barred = {*state.barred, command.actor.id}
    faults = list[Reason]()
    for step in state.plan.steps:
        keyed = sorted(components & set(_keyed(state.plan, step)))
        if keyed:
            faults += _misfit(state.plan, step, keyed, command.shares, barred)
    if faults:
        raise Conflict(f"the key shares of {command.artifact} do not fit the plan", faults)


def _misfit(
    plan: Plan, step: Step, keyed: list[str], dealt: KeyShares | None, barred: Collection[str]
) -> Iterator[Reason]:
    asked, names = step.gate.shares, ", ".join(keyed)
    if dealt is None:
        if asked is not None:
            told = (
                f"`{step.name}` asks for {asked} key shares: seal {names} with `--share-holder NAME=age1pq…` "
                f"for each holder and `--threshold {asked}`"
            )
            yield Reason("shares", told, "artifact")
    elif asked is None:
        told = f"`{step.name}` hands out keys of {names} without key shares: put `shares: {dealt.threshold}` at its gate, or seal without"
        yield Reason("shares", told, "artifact")
    elif asked != dealt.threshold:
        told = f"`{step.name}` asks for {asked} key shares, but it was sealed for {dealt.threshold}"
        yield Reason("shares", told, "artifact")
    else:
        filled = most_filled(_places(plan, step, barred, only=dealt.holders))
        if filled < asked:
            told = f"at `{step.name}` {filled} of {asked} shares could ever come from people who sign there with a key file (a passkey releases no share); holders are {', '.join(dealt.holders)}"
            yield Reason("shares", told, "artifact")


def require_releasable(state: ReleaseState, command: cmd.SignOff, step: Step) -> None:
    """Refuse shares that could not count: with a rejection, unsigned, of somebody else, or of what the step does not hand out.

    Raises:
        Malformed, Conflict: with the reasons.
    """
    if not command.shares:
        return
    person = command.actor.id
    if command.decision != "approve":
        raise Malformed(
            "key shares are released with an approval", [Reason("shares", "leave them out", "shares")]
        )
    if not state.plan.people[person].keys or command.envelope is None:
        raise Conflict(
            f"a key share is bound to a signed sign-off, and the plan pins no key of {person}",
            [Reason("shares", "amend the plan so that it pins the key", "shares")],
        )
    faults = []
    keyed = keyed_artifacts(state, step)
    for artifact in command.shares:
        dealt = state.artifacts[artifact].shares if artifact in keyed else None
        if dealt is None:
            told = f"`{step.name}` hands out no key of {artifact} that needs shares"
            faults.append(Reason("shares", told, f"shares.{artifact}"))
        elif person not in dealt.holders:
            told = f"{person} holds no share of {artifact}; holders are {', '.join(dealt.holders)}"
            faults.append(Reason("shares", told, f"shares.{artifact}"))
    if faults:
        raise Conflict("these key shares cannot count here", faults)


def second_lock_faults(plan: Plan) -> list[Reason]:
    """What of a plan makes a second lock no lock (`rule-9`).

    Held where plans are made and amended. Custody does not ask: a plan that breaks it opens nothing there.
    """
    faults: list[Reason] = []
    asked: dict[str, dict[int, int | None]] = {}
    for index, step in enumerate(plan.steps):
        path, shares = f"steps[{index}].gate.shares", step.gate.shares
        keyed = _keyed(plan, step)
        for name in keyed:
            asked.setdefault(name, {})[index] = shares
        if shares is None:
            continue
        if not keyed:
            faults.append(
                Reason("rule-9", "no key is handed out at this step, so there is nothing to lock", path)
            )
        if shares > KeyShares.MOST:
            faults.append(Reason("rule-9", f"at most {KeyShares.MOST} shares can be dealt", path))
        filled = most_filled(_places(plan, step, (), only=plan.people))
        if filled < shares:
            told = f"a share is bound to a signed sign-off: {shares} people who sign here need a pinned key file, {filled} have one (a passkey releases no share)"
            faults.append(Reason("rule-9", told, path))
        marked = {
            n
            for kind in _outside(step)
            for n in plan.marks(step, kind, plan.keyed_components(step, "audience"))
        }
        if marked:
            told = f"marked copies are sealed by custody under its key alone, which shares cannot lock: {', '.join(sorted(marked))}"
            faults.append(Reason("rule-9", told, path))
    for name, steps in asked.items():
        wanted = max((k for k in steps.values() if k is not None), default=None)
        if wanted is None:
            continue
        first = next(i for i, k in steps.items() if k == wanted)
        for index, given in steps.items():
            if given != wanted:
                told = f"the key of `{name}` needs {wanted} shares at steps[{first}] and goes out here with {given or 'none'}: every step that hands it out asks for as many"
                faults.append(Reason("rule-9", told, f"steps[{index}].gate.shares"))
    return faults


def _keyed(plan: Plan, step: Step) -> list[str]:
    return [
        component.name
        for component in step.components
        if plan.hand_out(step, component)[0] is not HandOut.NOTHING
    ]


def _outside(step: Step) -> list[str]:
    return (["partner"] if step.partner_groups else []) + (["public"] if step.audience == "public" else [])


def _places(plan: Plan, step: Step, barred: Collection[str], only: Collection[str]) -> list[list[str]]:
    """For each sign-off that a gate asks for, the people who could give it with a key file of theirs, and a share with it."""
    places: list[list[str]] = []
    for need in step.gate.sign_offs:
        people = plan.people_in_role(need.role, external_only=need.external)
        able = [p for p in people if p in only and p not in barred and plan.people[p].key_files]
        places += [able] * need.count
    return places
