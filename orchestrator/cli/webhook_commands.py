"""`sluice webhook`: endpoints that are told of events, their secrets, and what became of each delivery."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.client import JSON, Client
from orchestrator.cli.config import write_secret
from orchestrator.cli.output import Output, command, escape, table

app = typer.Typer(no_args_is_help=True, help="Endpoints that are told of events (Standard Webhooks).")

Webhook = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Its id (wh-…).")]
SecretFile = Annotated[
    Path | None,
    typer.Option("--file", "-f", help="Write the secret into this new file instead of printing it."),
]


@command(app, "add")
def add(
    out: Output,
    url: Annotated[str, typer.Argument(metavar="URL", help="Where to: https://…")],
    types: Annotated[
        list[str] | None, typer.Option("--type", "-t", help="Only this type of event; may be repeated.")
    ] = None,
    release: Annotated[str | None, typer.Option(help="Only events of this release.")] = None,
    after: Annotated[int | None, typer.Option(min=-1, help="Begin behind this event.")] = None,
    file: SecretFile = None,
) -> None:
    """Add an endpoint of your own. Its secret is shown this once."""
    body = {"url": url, "types": types or [], "release": release, "after": after}
    with Client() as client:
        result = client.post("webhooks", body=body)
    _show_secret(out, result, file)


@command(app, "list")
def list_webhooks(
    out: Output,
    owner: Annotated[str | None, typer.Option(help="For operators: whose.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 200,
) -> None:
    """List your endpoints; for operators everybody's."""
    with Client() as client:
        found = list(client.items("webhooks", limit=limit, owner=owner))
    rows = [
        (w["id"], w["owner"], w["url"], ", ".join(w["types"]) or "all", w["off_reason"] or "on")
        for w in found
    ]
    out.result(found, table(("webhook", "owner", "url", "types", ""), rows) if rows else "none")


@command(app, "remove")
def remove(out: Output, webhook: Webhook) -> None:
    """Remove an endpoint and what was planned for it."""
    with Client() as client:
        result = client.post("webhooks", webhook, method="DELETE")
    out.result(result, f"{escape(webhook)} is removed")


@command(app, "rotate")
def rotate(
    out: Output,
    webhook: Webhook,
    overlap: Annotated[str, typer.Option(help="How long the old secret signs too, such as 1d.")] = "1d",
    file: SecretFile = None,
) -> None:
    """Make a new secret, shown this once; the old one signs beside it for a while."""
    with Client() as client:
        result = client.post("webhooks", webhook, "rotate", body={"overlap": overlap})
    _show_secret(out, result, file)


@command(app, "on")
def on(out: Output, webhook: Webhook) -> None:
    """Switch an endpoint on again: it goes on where it was."""
    with Client() as client:
        result = client.post("webhooks", webhook, body={"active": True}, method="PATCH")
    out.result(result, f"{escape(webhook)} is on")


@command(app, "off")
def off(out: Output, webhook: Webhook) -> None:
    """Switch an endpoint off; nothing is lost meanwhile."""
    with Client() as client:
        result = client.post("webhooks", webhook, body={"active": False}, method="PATCH")
    out.result(result, f"{escape(webhook)} is off")


@command(app, "deliveries")
def deliveries(
    out: Output,
    webhook: Webhook,
    status: Annotated[
        str | None, typer.Option(help="pending, delivered, superseded, or dead: the dead-letter list.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 50,
) -> None:
    """Show what became of each event for an endpoint."""
    with Client() as client:
        found = list(client.items("webhooks", webhook, "deliveries", limit=limit, status=status))
    rows = [
        (d["number"], d["event"], d["release"], d["type"], d["status"], d["attempts"], d["error"])
        for d in found
    ]
    shown = table(("number", "event", "release", "type", "status", "tries", "last error"), rows)
    out.result(found, shown if rows else "none")


@command(app, "redrive")
def redrive(
    out: Output,
    webhook: Webhook,
    number: Annotated[int | None, typer.Option(min=1, help="Only this one; left out, all dead ones.")] = None,
) -> None:
    """Try dead deliveries again, under their old numbers."""
    with Client() as client:
        result = client.post("webhooks", webhook, "redrive", body={"number": number})
    out.result(result, f"{len(result['numbers'])} are tried again")


@command(app, "replay")
def replay(
    out: Output,
    webhook: Webhook,
    after: Annotated[int, typer.Option(min=-1, help="Behind which event; -1: from the beginning.")],
) -> None:
    """Deliver everything behind an event again, under new numbers."""
    with Client() as client:
        result = client.post("webhooks", webhook, "replay", body={"after": after})
    out.result(result, f"{escape(webhook)} goes on behind event {after}")


def _show_secret(out: Output, result: JSON, file: Path | None) -> None:
    secret, webhook = str(result.pop("secret")), str(result["webhook"]["id"])
    if file is not None:
        write_secret(file.expanduser(), secret.encode() + b"\n")
        out.result({**result, "file": str(file)}, f"{escape(webhook)}: wrote {escape(str(file))}")
    elif out.as_json:
        out.result({**result, "secret": secret})
    else:
        out.note(f"{webhook}; its secret, shown this once:")
        sys.stdout.write(secret + "\n")
