"""`sluice plan`: check a plan, show it, write a new one from a template."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding

from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.failures import NotInOrder
from orchestrator.cli.output import Output, command, escape, table, write_new
from orchestrator.domain.plan import HandOut, Plan, Step
from orchestrator.domain.stage import audience_words
from orchestrator.domain.values import format_duration

app = typer.Typer(no_args_is_help=True, help="Plans: the policy that a release follows.")

PlanFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="A plan in YAML or JSON; `-` reads standard input.")
]


def read_plan_file(file: Path) -> tuple[bytes, str]:
    """The bytes of a plan file (or of standard input), and what to call it."""
    from orchestrator.plans.tree import MAX_BYTES

    if str(file) == "-":
        return sys.stdin.buffer.read(MAX_BYTES + 1), "standard input"
    with file.open("rb") as opened:
        return opened.read(MAX_BYTES + 1), str(file)


@command(app, "check")
def check(
    out: Output,
    file: PlanFile,
    barred: Annotated[
        list[str] | None,
        typer.Option("--creator", help="Who will create the release or upload: they cannot sign."),
    ] = None,
) -> None:
    """Say everything that is wrong with a plan, with path and line. Exit code 1 if anything is."""
    from orchestrator.plans.text import examine

    data, source = read_plan_file(file)
    found = examine(data, source, barred=barred or ())
    document = {
        "file": source,
        "sound": found.sound,
        "digest": found.plan.digest if found.plan is not None and found.sound else None,
        "reasons": list(found.reasons),
        "warnings": list(found.warnings),
        "rules_checked": found.rules_checked,
    }
    lines: list[RenderableType] = [
        f"{_place(source, r.line)}[{colour}]{escape(r.code)}[/{colour}] {_words(r.path, r.message)}"
        for colour, reasons in (("red", found.reasons), ("yellow", found.warnings))
        for r in reasons
    ]
    if found.sound and found.plan is not None:
        lines.append(
            f"[green]{escape(source)} keeps every rule[/green]: {len(found.plan.steps)} steps, {found.plan.digest}"
        )
    else:
        lines.append(f"[bold red]{len(found.reasons)} to mend[/bold red]")
        if not found.rules_checked:
            lines.append("[dim]the rules of the gradient are checked once the shape is right[/dim]")
    out.result(document, *lines)
    if not found.sound:
        raise typer.Exit(ExitCode.NOT_IN_ORDER)


def _place(source: str, line: int | None) -> str:
    return f"{escape(source)}:{line}: " if line is not None else f"{escape(source)}: "


def _words(path: str | None, message: str) -> str:
    return f"[bold]{escape(path)}[/bold]: {escape(message)}" if path else escape(message)


@command(app, "show")
def show(out: Output, file: PlanFile) -> None:
    """Show a plan as a way: step by step, who must agree, what must hold, what can't be undone."""
    from orchestrator.plans.text import load_plan

    data, source = read_plan_file(file)
    plan = load_plan(data, source)
    out.result({"digest": plan.digest, "plan": plan}, plan_picture(plan))


def plan_picture(plan: Plan) -> RenderableType:
    """A plan for people."""
    head = f"[bold]{escape(plan.title)}[/bold] ({escape(plan.organisation)})\n[dim]{plan.digest}[/dim]"
    parts: list[RenderableType] = [head, ""]
    for number, step in enumerate(plan.steps, 1):
        parts.append(
            f"[bold]{number}. {escape(step.name)}[/bold]  {_stage(step)} for {escape(audience_words(step.audience))}"
        )
        parts.append(Padding("\n".join(step_lines(plan, step)), (0, 0, 1, 3), expand=False))
    withheld = [f"{name} ({c.withheld.reason})" for name, c in plan.components.items() if c.withheld]
    if withheld:
        parts.append(f"withheld: {escape(', '.join(withheld))}")
    rows = [
        (name, p.name, ", ".join(p.roles), "outside" if p.external else "", len(p.keys) or "")
        for name, p in plan.people.items()
    ]
    parts.append(table(("person", "name", "roles", "", "keys"), rows))
    return Group(*parts)


def duration_words(value: timedelta) -> str:
    """A duration as plans mostly write it: in days when it is whole days."""
    days, rest = divmod(int(value.total_seconds()), 86_400)
    return f"{days}d" if days and not rest else format_duration(value)


def _stage(step: Step) -> str:
    return (
        f"[green]{step.stage}[/green]"
        if step.stage.reversible
        else f"[red]{step.stage}[/red] [dim](can't be undone)[/dim]"
    )


def step_lines(plan: Plan, step: Step) -> list[str]:
    """One step in words, a line per thing that it asks for or does; markup is escaped."""
    gate = step.gate
    lines = [f"components: {', '.join(step.component_names)}"]
    for to, words in (("audience", "keys for the audience"), ("deployments", "keys for deployments")):
        keyed = [
            c.name
            for c in step.components
            if plan.hand_out(step, c)[0] is not HandOut.NOTHING and plan.hand_out(step, c)[1] == to
        ]
        if keyed:
            lines.append(
                f"{words}: {', '.join(keyed)}"
                + (f" → {', '.join(step.deployments)}" if to == "deployments" else "")
            )
    if gate.sign_offs:
        asked = [f"{n.count} {n.role}{' (outside)' if n.external else ''}" for n in gate.sign_offs]
        lines.append(f"sign-offs: {', '.join(asked)}")
    for words, time in (("research window", gate.research_window), ("cooling-off", gate.cooling_off)):
        if time is not None:
            lines.append(f"{words}: {duration_words(time)}")
    if gate.evidence:
        asked = [
            str(e.kind) + (f" (≤ {duration_words(e.max_age)})" if e.max_age else "") for e in gate.evidence
        ]
        lines.append(f"evidence: {', '.join(asked)}")
    if step.controls:
        named = [str(c.kind) + (" (waived)" if c.waived else "") for c in step.controls]
        lines.append(f"controls: {', '.join(named)}")
    if gate.monitors:
        lines.append(
            "monitors: "
            + ", ".join(f"{m.source} (blind ≤ {duration_words(m.max_blind)})" for m in gate.monitors)
        )
    if gate.not_before:
        lines.append(f"not before: {gate.not_before.isoformat()}")
    if gate.opening_hours:
        hours = gate.opening_hours
        lines.append(f"opening hours: {hours.rrule} for {duration_words(hours.duration)}, {hours.time_zone}")
    return [escape(line) for line in lines]


@command(app, "new")
def new(
    out: Output,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Where to write it; left out, it is printed.")
    ] = None,
    template: Annotated[
        str, typer.Option("--template", "-t", help="Which template; `--list` shows them.")
    ] = "five-stages",
    title: Annotated[str | None, typer.Option(help="Title of the new plan.")] = None,
    organisation: Annotated[str | None, typer.Option(help="Your organisation.")] = None,
    list_them: Annotated[bool, typer.Option("--list", help="List the templates and end.")] = False,
) -> None:
    """Write a new plan from a template: one of the paper's precedents, or the plain five stages."""
    from orchestrator.plans.library import get_template, templates

    if list_them:
        found = [(t.name, t.summary) for t in templates()]
        out.result([{"name": n, "summary": s} for n, s in found], table(("template", "what it is"), found))
        return
    chosen = get_template(template)
    text = chosen.text
    if title is not None or organisation is not None:
        text = chosen.with_title(title if title is not None else chosen.plan().title, organisation)
    if file is None:
        if out.as_json:
            out.result({"template": chosen.name, "text": text})
        else:
            sys.stdout.write(text)
        return
    write_new(file, text)
    out.result(
        {"template": chosen.name, "file": str(file)},
        f"wrote {escape(str(file))} from {chosen.name}: put in your people and recipients, then run\n  sluice plan check {escape(str(file))}",
    )


@command(app, "schema")
def schema(out: Output) -> None:
    """Print the JSON Schema of plans, for editors and pipelines."""
    from orchestrator.plans.library import published_schema

    sys.stdout.write(published_schema())


def load_for_release(file: Path, creator: str | None) -> Plan:
    """A plan that a release may follow: sound, and without a template's placeholders.

    Raises:
        Malformed, PlanRefused: it is not a sound plan.
        NotInOrder: a placeholder is left in it.
    """
    from orchestrator.plans.text import load_plan, placeholders

    data, source = read_plan_file(file)
    plan = load_plan(data, source, barred=[creator] if creator else ())
    left = placeholders(plan)
    if left:
        raise NotInOrder(
            "The plan is not ready for a release", f"{source}: placeholders of the template are left", left
        )
    return plan


__all__ = ["app", "duration_words", "load_for_release", "plan_picture", "read_plan_file", "step_lines"]
