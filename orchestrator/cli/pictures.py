"""Pictures of releases and gates in the terminal: what stands where, what is missing, who can help, when it will be."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table

from orchestrator.cli.client import JSON
from orchestrator.cli.output import escape, table
from orchestrator.domain.values import format_duration

_MARK = {
    "entered": "[green]●[/green]",
    "current": "[bold green]◉[/bold green]",
    "entering": "[bold yellow]◐[/bold yellow]",
    "next": "[yellow]○[/yellow]",
    "ahead": "[dim]○[/dim]",
}


def instant(text: str | None) -> str:
    """An instant in UTC, to the second."""
    if not text:
        return ""
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def left(until: str | None, now: str) -> str:
    """How long until an instant, in the plan's notation."""
    if not until:
        return ""
    rest = datetime.fromisoformat(until) - datetime.fromisoformat(now)
    return "now" if rest <= timedelta(0) else "in " + coarse(rest)


def coarse(value: timedelta) -> str:
    """A duration with its two largest units."""
    words = format_duration(value)
    units = [i for i, letter in enumerate(words) if letter.isalpha()]
    return words if len(units) <= 2 else words[: units[1] + 1]


def releases_table(items: Sequence[JSON]) -> Table:
    """The list of releases."""
    return table(
        ("release", "stage", "at step", "next", "status", "opens"),
        [
            (
                r["id"],
                r["stage"],
                r.get("current") or "-",
                r.get("next") or "-",
                _status(r),
                instant(r["opens_at"]) if r.get("opens_at") else "-",
            )
            for r in items
        ],
    )


def _status(release: JSON) -> str:
    words = [str(release["status"])]
    if release.get("on_hold"):
        words.append("on hold")
    if release.get("open_incidents"):
        words.append(f"{release['open_incidents']} open incident(s)")
    return ", ".join(words)


def timeline(release: JSON, steps: Sequence[JSON], gate: JSON | None = None) -> RenderableType:
    """A release's way: one line per step, and under the next one what its gate waits for."""
    now = release["server_time"]
    parts: list[RenderableType] = [
        f"[bold]{escape(release['name'])} {escape(release['version'])}[/bold]  [dim]{escape(release['id'])}[/dim]  {escape(_status(release))}"
    ]
    entered = {entry["step"]: entry for entry in release.get("history", [])}
    for step in steps:
        colour = "red" if step["irreversible"] else "green"
        line = f" {_MARK[step['standing']]} [bold]{escape(step['name'])}[/bold]  [{colour}]{step['stage']}[/{colour}]  {escape(step['audience'])}"
        if step.get("entered_at"):
            line += f"  [dim]entered {instant(step['entered_at'])}[/dim]"
        parts.append(line)
        entry = entered.get(step["name"])
        if entry and step["standing"] in {"entered", "current"} and entry["signed"]:
            signed = ", ".join(
                f"{s['person']} ({s['role']}{', invited by ' + s['invited_by'] if s.get('invited_by') else ''})"
                for s in entry["signed"]
            )
            parts.append(Padding(f"[dim]signed by {escape(signed)}[/dim]", (0, 0, 0, 4), expand=False))
        if (
            step["standing"] in {"next", "entering"}
            and gate is not None
            and gate["verdict"]["step"] == step["name"]
        ):
            parts.append(Padding(unmet_lines(gate["verdict"], now), (0, 0, 0, 4), expand=False))
    parts += _standing(release)
    if release.get("entry_failed"):
        parts.append(f"[red]the last entry was taken back:[/red] {escape(release['entry_failed'])}")
    return Group(*parts)


def _standing(release: JSON) -> list[RenderableType]:
    """What stands in the way or waits: holds, open incidents, proposals, reviews."""
    holds = [
        f"[bold yellow]on hold[/bold yellow] since {instant(h['at'])} by {escape(h['by'])}: {escape(h['reason'])}"
        for h in release.get("holds", [])
    ]
    incidents = [
        f"[bold red]{escape(i['severity'])} {escape(i['kind'])}[/bold red] {escape(i['id'])}"
        f" ({escape(i['confidence'])}): {escape(i['summary'])}{escape(whose_copy(i, '; '))}"
        for i in release.get("incidents", [])
        if not i.get("closed_at")
    ]
    proposals = [
        f"[cyan]proposal[/cyan] {escape(p['id'])}: {escape(p['action'].replace('_', ' '))}, "
        f"{len(p['people'])} of {p['needed']} ({escape(', '.join(p['people']))})"
        for p in release.get("proposals", [])
    ]
    reviews = [
        f"[magenta]review[/magenta] {escape(r['id'])} is open: {escape(r['reason'])}"
        for r in release.get("reviews", [])
    ]
    late = [
        f"[yellow]waits[/yellow] {escape(w['partner'])}'s grant at {escape(w['step'])}, since {instant(w['since'])}: {escape(w['message'])}"
        for w in release.get("custody_waits", [])
        if w.get("partner")
    ]
    return [*holds, *incidents, *proposals, *reviews, *late]


def whose_copy(incident: JSON, before: str = "") -> str:
    """Whose copy an incident is said to be, and what the last trace came to; empty while nothing is known."""
    told = []
    named = list(incident.get("partners") or [p for p in [incident.get("partner")] if p])
    if named:
        told.append(f"copy of {', '.join(named)}")
    traces = incident.get("traces") or []
    if traces and traces[-1].get("not_traced"):
        told.append(f"not traced: {traces[-1]['not_traced']}")
    elif traces:
        shown = [f"{p['partner']} {p['z']:.1f}" for p in traces[-1]["partners"][:5] if p["z"] is not None]
        told.append(f"traced, z: {', '.join(shown)}" + (", …" if len(traces[-1]["partners"]) > 5 else ""))
    return before + "; ".join(told) if told else ""


def unmet_lines(verdict: JSON, now: str) -> str:
    """Every unmet condition of a gate, who can meet it, and when a clock will."""
    if verdict["open"]:
        return "[green]the gate holds and opens by itself[/green]"
    lines = []
    for condition in verdict["unmet"]:
        line = f"[yellow]·[/yellow] {escape(condition['message'])}"
        if condition.get("met_at"):
            line += f" [dim]({left(condition['met_at'], now)})[/dim]"
        elif condition.get("who"):
            who = condition["who"]
            shown = ", ".join(who[:6]) + (f" and {len(who) - 6} more" if len(who) > 6 else "")
            line += f" [dim]({escape(shown)})[/dim]"
        lines.append(line)
    waits = verdict.get("waits")
    if waits:
        lines.append(
            f"custody waits since {instant(waits['since'])} UTC"
            + (f", for {escape(waits['approvers'])}" if waits.get("approvers") else "")
        )
        for request in waits["requests"]:
            by = ", ".join(request["approved_by"]) or "nobody yet"
            until = f", lapses at {instant(request['expires_at'])} UTC" if request.get("expires_at") else ""
            lines.append(
                f"  {escape(request['about'])}: accessor [bold]{escape(request['accessor'])}[/bold], approved by {escape(by)}{until}"
            )
    if verdict.get("opens_at"):
        lines.append(
            f"opens by itself {left(verdict['opens_at'], now)}, at {instant(verdict['opens_at'])} UTC, if nothing changes"
        )
    return "\n".join(lines)


def gate_picture(gate: JSON) -> RenderableType:
    """A gate: its verdict, who decided what, the window, and what entering means."""
    verdict, now = gate["verdict"], gate["server_time"]
    subject = verdict["subject"]
    parts: list[RenderableType] = [
        f"[bold]{escape(verdict['step'])}[/bold] of {escape(gate['release'])}: {subject['from_stage']} → {subject['to_stage']} for {escape(subject['audience'])}",
        Padding(unmet_lines(verdict, now), (0, 0, 0, 2), expand=False),
    ]
    if verdict.get("waived"):
        parts.append(
            f"[magenta]lifted by breaking the glass:[/magenta] {escape(', '.join(verdict['waived']))}"
        )
    parts += [
        f"delegated: {escape(g['to'])} may sign as {escape(g['role'])} for {escape(g['person'])} until {instant(g['until'])}"
        for g in verdict.get("delegations", [])
    ]
    if verdict["sign_offs"]:
        rows = [
            (
                _signer(s),
                s["role"],
                s["decision"],
                str(s["standing"]).replace("_", " "),
                instant(s["at"]),
                instant(s["expires_at"]),
                s.get("comment"),
            )
            for s in verdict["sign_offs"]
        ]
        parts.append(table(("person", "role", "decision", "standing", "at", "until", "comment"), rows))
    window = verdict["window"]
    if window["asked"]:
        asked, counted = (coarse(timedelta(seconds=int(window[k]))) for k in ("asked", "counted"))
        runs = "runs" if window["running"] else f"stands: {window.get('stands_because')}"
        parts.append(f"research window: {counted} of {asked}; it {escape(runs)}")
    parts.append("\n".join(f"[dim]→[/dim] {escape(line)}" for line in gate["means"]))
    parts.append(f"[dim]subject {verdict['subject_digest']}[/dim]")
    return Group(*parts)


def _signer(view: JSON) -> str:
    """Who signed, and who stands behind it."""
    if view.get("invited_by"):
        return f"{view['person']} of {view['organisation']}, invited by {view['invited_by']}"
    return f"{view['person']} for {view['on_behalf_of']}" if view.get("on_behalf_of") else str(view["person"])


def preview_picture(found: JSON) -> RenderableType:
    """What a command would do."""
    if not found["accepted"]:
        reasons = "\n".join(f"  {escape(r['message'])}" for r in found["reasons"])
        return f"[red]it would be refused ({escape(str(found['refused_as']))})[/red]\n{reasons}"
    lines = [f"[dim]→[/dim] {escape(line)}" for line in found["consequences"]]
    if found["irreversible"]:
        lines.append("[bold red]something of this cannot be undone[/bold red]")
    return "\n".join(lines) or "nothing changes"


def event_line(event: JSON) -> str:
    """One event in a line."""
    data: dict[str, Any] = event.get("data", {})
    words = [
        str(data[k])
        for k in ("step", "to_step", "decision", "role", "artifact", "hold", "action", "source")
        if data.get(k)
    ]
    for inner in ("incident", "evidence", "grant"):
        value = data.get(inner)
        if isinstance(value, dict):
            words.append(str(value.get("kind", value.get("id", ""))))
        elif value:
            words.append(str(value))
    if data.get("reason"):
        words.append(f"({data['reason']})")
    told = " ".join(words)
    return f"[dim]{instant(event['at'])}[/dim]  {event['seq']:>4}  [bold]{escape(event['type'].replace('_', ' '))}[/bold]  {escape(told)}  [dim]{escape(event['by'])}[/dim]"
