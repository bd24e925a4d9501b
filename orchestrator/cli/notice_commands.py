"""`sluice notices`: where mail and the like goes, of what, and what became of each notice."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.client import JSON, Client
from orchestrator.cli.failures import LocalFailure
from orchestrator.cli.output import Output, command, escape, table

app = typer.Typer(no_args_is_help=True, help="Notices by mail, or by whatever apprise reaches.")

Channel = Annotated[str, typer.Argument(metavar="CHANNEL", help="Its id (nc-…).")]
Topics = Annotated[
    list[str] | None,
    typer.Option(
        "--topic", "-t", help="Only this topic; may be repeated. What is always told is told anyway."
    ),
]
Release = Annotated[str | None, typer.Option(help="Only of this release.")]
Owner = Annotated[str | None, typer.Option(help="For operators: whose.")]
Shared = Annotated[bool, typer.Option("--shared", help="For operators: nobody's own, told of every release.")]


@command(app, "add-mail")
def add_mail(
    out: Output,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Where to: mia@example.org")],
    topics: Topics = None,
    release: Release = None,
    owner: Owner = None,
    shared: Shared = False,
) -> None:
    """Have notices sent to a mail address."""
    _add(out, {"kind": "mail", "address": address}, topics, release, owner, shared)


@command(app, "add-apprise")
def add_apprise(
    out: Output,
    file: Annotated[
        Path,
        typer.Option(
            "--file",
            "-f",
            help="File with the address (slack://…); - for stdin. It is a secret: it is never an argument.",
        ),
    ],
    topics: Topics = None,
    release: Release = None,
    owner: Owner = None,
    shared: Shared = False,
) -> None:
    """Have notices sent to an address of apprise: a chat room, a pager, a push service."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LocalFailure(
            "the address cannot be read", f"{file}: {getattr(error, 'strerror', None) or 'is not text'}"
        ) from None
    _add(out, {"kind": "apprise", "address": text.strip()}, topics, release, owner, shared)


@command(app, "list")
def list_channels(
    out: Output,
    owner: Owner = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 200,
) -> None:
    """List your channels; for operators everybody's."""
    with Client() as client:
        found = list(client.items("notices", "channels", limit=limit, owner=owner))
    rows = [
        (
            c["id"],
            c["owner"] or "shared",
            c["shown"],
            ", ".join(c["topics"]) or "all",
            c["off_reason"] or "on",
        )
        for c in found
    ]
    out.result(found, table(("channel", "owner", "where", "topics", ""), rows) if rows else "none")


@command(app, "topics")
def topics(
    out: Output,
    channel: Channel,
    topics: Annotated[list[str] | None, typer.Argument(metavar="[TOPIC]...", help="None: all.")] = None,
) -> None:
    """Choose what a channel is told of."""
    with Client() as client:
        result = client.post("notices", "channels", channel, body={"topics": topics or []}, method="PATCH")
    out.result(result, f"{escape(channel)}: {', '.join(result['topics']) or 'all'}")


@command(app, "on")
def on(out: Output, channel: Channel) -> None:
    """Switch a channel on again: it goes on where it was."""
    _switch(out, channel, active=True)


@command(app, "off")
def off(out: Output, channel: Channel) -> None:
    """Switch a channel off; nothing is lost meanwhile."""
    _switch(out, channel, active=False)


@command(app, "remove")
def remove(out: Output, channel: Channel) -> None:
    """Remove a channel, its address, and what was planned for it."""
    with Client() as client:
        result = client.post("notices", "channels", channel, method="DELETE")
    out.result(result, f"{escape(channel)} is removed")


@command(app, "test")
def test(out: Output, channel: Channel) -> None:
    """Send a notice that only shows that a channel works."""
    with Client() as client:
        result = client.post("notices", "channels", channel, "test")
    out.result(result, f"notice {result['numbers'][0]} is on its way: sluice notices sent {escape(channel)}")


@command(app, "sent")
def sent(
    out: Output,
    channel: Channel,
    status: Annotated[
        str | None, typer.Option(help="pending, delivered, superseded, or dead: the dead-letter list.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 50,
) -> None:
    """Show what became of each notice of a channel."""
    with Client() as client:
        found = list(client.items("notices", "channels", channel, "notices", limit=limit, status=status))
    rows = [
        (n["number"], n["release"] or "", n["topic"], n["type"], n["status"], n["attempts"], n["error"] or "")
        for n in found
    ]
    shown = table(("number", "release", "topic", "of", "status", "tries", "last error"), rows)
    out.result(found, shown if rows else "none")


@command(app, "redrive")
def redrive(
    out: Output,
    channel: Channel,
    number: Annotated[
        int | None, typer.Option(min=1, help="Only its message; left out, all dead ones.")
    ] = None,
) -> None:
    """Try dead notices again, under their old numbers."""
    with Client() as client:
        result = client.post("notices", "channels", channel, "redrive", body={"number": number})
    out.result(result, f"{len(result['numbers'])} are tried again")


def _add(
    out: Output, body: JSON, topics: list[str] | None, release: str | None, owner: str | None, shared: bool
) -> None:
    more = {"topics": topics or [], "release": release, "owner": owner, "shared": shared}
    with Client() as client:
        result = client.post("notices", "channels", body={**body, **more})
    told = f"{escape(result['id'])}: {escape(result['shown'])}. Try it: sluice notices test {escape(result['id'])}"
    out.result(result, told)


def _switch(out: Output, channel: str, *, active: bool) -> None:
    with Client() as client:
        result = client.post("notices", "channels", channel, body={"active": active}, method="PATCH")
    out.result(result, f"{escape(channel)} is {'on' if active else 'off'}")
