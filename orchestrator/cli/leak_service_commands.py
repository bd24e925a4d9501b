"""`sluice leak` as a client of the service: whether sources see, what was found, reports, public parents."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.client import Client
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.leak_commands import app
from orchestrator.cli.output import Output, command, escape, table
from orchestrator.cli.pictures import instant
from orchestrator.domain.values import format_duration

parent_app = typer.Typer(no_args_is_help=True, help="Public models that ours descend from.")
app.add_typer(parent_app, name="parent")


@command(app, "sources")
def sources(out: Output) -> None:
    """Show each leak source: when it last saw, how far it is behind, why it cannot look. Exit code 1 if one is blind."""
    from datetime import timedelta

    with Client() as client:
        found = client.get("monitors")
    rows = [
        (
            s["name"],
            s["kind"],
            "[green]sees[/green]" if s["sees"] else "[red]blind[/red]",
            "never"
            if s["last_success"] is None
            else f"{format_duration(timedelta(seconds=s['blind_seconds']))} ago",
            format_duration(timedelta(seconds=s["behind_seconds"])),
            s["candidates"],
            ", ".join(f"{name} {value}" for name, value in s["limits"].items()),
            escape(s["error"] or "; ".join(s["notes"])),
        )
        for s in found["items"]
    ]
    lines = [
        table(("source", "kind", "", "last saw", "behind", "seen", "rates", "why"), rows) if rows else "none"
    ]
    if found["unrecognisable"]:
        lines.append(
            "[yellow]no weight signature, no copy is recognised:[/yellow] "
            + ", ".join(found["unrecognisable"])
        )
    judged = ", ".join(
        f"{number} {name.replace('_', ' ')}" for name, number in sorted(found["judged"].items())
    )
    out.result(found, *lines, f"[dim]{judged}[/dim]")
    if any(not s["sees"] for s in found["items"]):
        raise typer.Exit(ExitCode.NOT_IN_ORDER)


@command(app, "suspects")
def suspects(
    out: Output,
    outcome: Annotated[
        str | None, typer.Option(help="match, partial, no_match, inconclusive or ruled_out.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
) -> None:
    """List suspects and what they were judged to be, the latest first."""
    with Client() as client:
        found = list(client.items("leaks", "suspects", limit=limit, outcome=outcome))
    rows = [
        (
            instant(j["at"]),
            j["outcome"].replace("_", " "),
            j["artifact"],
            escape(j["title"]),
            escape(j["reason"])[:120],
            j["verdict"] or "",
        )
        for j in found
    ]
    out.result(
        found, table(("when", "outcome", "artifact", "suspect", "why", "verdict"), rows) if rows else "none"
    )


@command(app, "verdict")
def verdict(
    out: Output,
    digest: Annotated[str, typer.Argument(metavar="DIGEST", help="Digest of the verdict (sha256:…).")],
    key: Annotated[
        str | None,
        typer.Option(
            "--key", help="The monitor's key that must have signed it; left out, nothing is verified."
        ),
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write the signed envelope here.")] = None,
) -> None:
    """Fetch a signed verdict, and verify its signature. It names our tensors: keep it to yourself."""
    from orchestrator.cli.leak_cases import read_verdict

    with Client() as client:
        found = client.get("leaks", "verdicts", digest)
    statement, verified = read_verdict(found["envelope"], digest, key)
    if save is not None:
        import json

        save.write_text(json.dumps(found["envelope"], indent=2) + "\n", encoding="utf-8")
    document = statement["predicate"]["verdict"]
    told = "signature verified" if verified else "signature not verified: give --key"
    out.result(
        {**found, "statement": statement, "verified": verified},
        f"[bold]{document['outcome']}[/bold]: {escape(document['target'])}",
        *[escape(reason) for reason in document["reasons"]],
        f"[dim]{told}; entry {found['log_index']} of the audit log[/dim]",
    )


@command(app, "report")
def report(
    out: Output,
    value: Annotated[
        str,
        typer.Argument(
            metavar="WHAT", help="https://…, hf:OWNER/NAME, a SHA-256, a magnet link, or a .torrent file."
        ),
    ],
    note: Annotated[str, typer.Option("--note", "-n", help="Anything that helps.")] = "",
) -> None:
    """Hand in a place for the leak monitor to look at."""
    file = Path(value)
    if value.endswith(".torrent") and file.is_file():
        what, value = "torrent", base64.b64encode(file.read_bytes()).decode()
    elif value.startswith("hf:"):
        what = "repository"
    elif value.startswith("magnet:"):
        what = "magnet"
    else:
        what = "url" if "://" in value else "sha256"
    with Client() as client:
        found = client.post("leaks", "reports", body={"what": what, "value": value, "note": note})
    out.result(found, f"{escape(found['id'])}: it will be looked at with the next sweep")


@command(app, "check")
def check(
    out: Output,
    suspect: Annotated[
        str, typer.Argument(metavar="SUSPECT", help="Key of the suspect, as `leak suspects --json` shows it.")
    ],
    artifact: Annotated[str, typer.Option("--artifact", "-a", help="Which of ours it is held against.")],
) -> None:
    """Ask for a whole-file check (tier 3) by the leak worker, which is needed before anybody is accused."""
    with Client() as client:
        found = client.post("leaks", "checks", body={"suspect": suspect, "artifact": artifact})
    out.result(found, f"{escape(found['id'])}: asked for; its verdict comes with `sluice leak suspects`")


@command(parent_app, "add")
def parent_add(
    out: Output,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What verdicts call it.")],
    place: Annotated[
        str,
        typer.Argument(
            metavar="PLACE", help="hf:OWNER/NAME@REVISION, s3://…, or a folder of the leak worker's."
        ),
    ],
    artifact: Annotated[str | None, typer.Option(help="Only for this artifact; left out: for all.")] = None,
) -> None:
    """Register a public parent: what a suspect shares with it is no leak."""
    with Client() as client:
        found = client.post("leaks", "parents", body={"name": name, "place": place, "artifact": artifact})
    out.result(
        found,
        f"{escape(name)}: signed with the next sweep; until then what looks like ours is only suspected",
    )


@command(parent_app, "list")
def parent_list(out: Output) -> None:
    """List public parents, and for which artifacts each is signed."""
    with Client() as client:
        found = client.get("leaks", "parents")["items"]
    rows = [
        (
            p["name"],
            escape(p["place"]),
            p["artifact"] or "all",
            ", ".join(p["signed"]),
            escape("; ".join(p["errors"].values())),
        )
        for p in found
    ]
    out.result(found, table(("parent", "where", "for", "signed", "why not"), rows) if rows else "none")


@command(parent_app, "drop")
def parent_drop(
    out: Output, name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the parent.")]
) -> None:
    """Forget a public parent; what was judged stays judged."""
    with Client() as client:
        client.post("leaks", "parents", name, method="DELETE")
    out.result({"dropped": name}, f"{escape(name)}: forgotten")
