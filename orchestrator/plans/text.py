"""The text of a plan, YAML or JSON, read into a `Plan`: or everything that is wrong with it, each with its line.

    problems of the document   encoding, syntax, duplicate keys, aliases, values that readers read differently
    errors of shape            unknown and missing fields, wrong values                    (`shape`)
    broken rules               the rules of the gradient, `rule-0` … `rule-9`              (`orchestrator.domain.plan_rules`)

All three are reported together, sorted by line. When something has the wrong shape, the rules are still evaluated on
the rest as long as that cannot report a rule as broken that is kept; `Examination.rules_checked` says whether they were.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.domain.errors import Malformed, PlanRefused, Reason
from orchestrator.domain.plan import Plan
from orchestrator.domain.plan_rules import all_faults
from orchestrator.plans.shape import ShapeError, parse
from orchestrator.plans.tree import MAX_PROBLEMS, Tree, read_tree

PLACEHOLDER = "age1pq1replaceme"


@dataclass(frozen=True, slots=True)
class Examination:
    """What came of reading a plan's text.

    Attributes:
        plan: the plan, when its shape is right (it may still break rules).
        reasons: everything that is wrong, sorted by line.
        warnings: what is allowed but needs attention before a release, such as a template's placeholder key.
        rules_checked: whether the rules could be evaluated.
    """

    plan: Plan | None
    reasons: tuple[Reason, ...]
    warnings: tuple[Reason, ...] = ()
    rules_checked: bool = True

    @property
    def sound(self) -> bool:
        """Whether a release may follow it."""
        return self.plan is not None and not self.reasons


def load_plan(text: bytes | str, source: str, *, barred: Collection[str] = ()) -> Plan:
    """The plan of this text.

    Args:
        text: YAML or JSON, UTF-8.
        source: where it comes from, for the message: a file name, `request`.
        barred: people who may not sign, because they created the release or uploaded its artifacts (rule 7).

    Raises:
        Malformed: it is not a plan; `reasons` lists everything.
        PlanRefused: it is one, but breaks rules; `reasons` lists every broken one.
    """
    found = examine(text, source, barred=barred)
    if found.plan is not None and not found.reasons:
        return found.plan
    count = len(found.reasons)
    words = f"{source}: {count} {'problem' if count == 1 else 'problems'}"
    if all(reason.code.startswith("rule-") for reason in found.reasons):
        raise PlanRefused(words, found.reasons)
    raise Malformed(words, found.reasons)


def check_plan(text: bytes | str, source: str, *, barred: Collection[str] = ()) -> list[Reason]:
    """Everything that is wrong with a plan's text, sorted by line; empty for a sound plan. Never raises."""
    return list(examine(text, source, barred=barred).reasons)


def examine(text: bytes | str, source: str, *, barred: Collection[str] = ()) -> Examination:
    """Read a plan's text and say everything that there is to say about it. Never raises.

    Args:
        text: YAML or JSON, UTF-8.
        source: where it comes from; part of no reason, but of the answer to an empty or foreign document.
        barred: see `load_plan`.
    """
    try:
        tree = read_tree(text)
    except Malformed as error:
        return Examination(None, tuple(error.reasons), rules_checked=False)
    if not isinstance(tree.value, dict):
        reason = Reason(
            "syntax", f"{source} is not a plan: fields such as `format:` and `steps:` are expected", None, 1
        )
        return Examination(None, (*tree.problems, reason), rules_checked=False)
    plan, errors = parse(tree.value)
    known = {reason.path for reason in tree.problems if reason.path} | {e.meant for e in errors if e.meant}
    shape = [error.reason for error in errors if error.reason.path not in known]
    if plan is not None:
        rules, checked = all_faults(plan, barred), True
    else:
        rules, checked = _rules_of_the_rest(tree.value, errors, barred)
    return Examination(
        plan if not tree.problems else None,
        _sorted(tree, [*tree.problems, *shape, *rules]),
        _sorted(tree, placeholders(plan)) if plan else (),
        checked,
    )


def placeholders(plan: Plan) -> list[Reason]:
    """Recipients that still are a template's placeholder: nobody holds their key, so no release should start."""
    holders = [(f"deployments.{name}", d.recipient) for name, d in plan.deployments.items()]
    holders += [(f"partners.{name}", p.recipient) for name, p in plan.partners.items() if p.recipient]
    return [
        Reason(
            "placeholder",
            "a template's placeholder, to which nobody has the key; put in the holder's own recipient (`sluice partner keygen`)",
            f"{where}.recipient",
        )
        for where, recipient in holders
        if recipient is not None and recipient.startswith(PLACEHOLDER)
    ]


def _sorted(tree: Tree, reasons: Sequence[Reason]) -> tuple[Reason, ...]:
    placed = [
        Reason(r.code, r.message, r.path, r.line if r.line is not None else tree.line(r.path))
        for r in reasons
    ]
    unique = sorted(dict.fromkeys(placed), key=lambda r: (r.line or 0, r.path or "", r.code))
    if len(unique) > MAX_PROBLEMS:
        more = Reason(
            "more", f"and {len(unique) - MAX_PROBLEMS} more; mend these first", None, unique[-1].line
        )
        unique = [*unique[:MAX_PROBLEMS], more]
    return tuple(unique)


def _rules_of_the_rest(
    value: Any, errors: Sequence[ShapeError], barred: Collection[str]
) -> tuple[list[Reason], bool]:
    """The rules that what is left breaks, when everything of the wrong shape can be left out without consequence.

    Unknown fields can always be left out; a wrong value can when the field is optional and belongs to a step, so that
    no other part of the plan depends on it. What is said about a left-out field, or about the field that was meant, is
    dropped.
    """
    rest = copy.deepcopy(value)
    touched: list[str] = []
    for error in sorted(errors, key=lambda e: [str(p).zfill(6) for p in e.place], reverse=True):
        if not error.unknown and error.place[:1] not in {("steps",), ("title",), ("description",)}:
            return [], False
        if not _leave_out(rest, error.place):
            return [], False
        touched += [path for path in (error.reason.path, error.meant) if path]
    plan, remaining = parse(rest)
    if plan is None or remaining:
        return [], False
    return [r for r in all_faults(plan, barred) if not _about(r.path or "", touched)], True


def _leave_out(value: Any, place: Sequence[str | int]) -> bool:
    for part in place[:-1]:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return False
    if isinstance(value, dict) and place and place[-1] in value:
        del value[place[-1]]
        return True
    return False


def _about(path: str, touched: Sequence[str]) -> bool:
    return any(
        path == t or path.startswith((f"{t}.", f"{t}[")) or t.startswith((f"{path}.", f"{path}["))
        for t in touched
    )
