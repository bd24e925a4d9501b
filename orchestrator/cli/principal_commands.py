"""`sluice principal`: people, machines and partners' accounts, and their API tokens. For operators."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.client import Client
from orchestrator.cli.config import write_secret
from orchestrator.cli.output import Output, command, escape, table

app = typer.Typer(no_args_is_help=True, help="People, machines and their API tokens (for operators).")

Principal = Annotated[str, typer.Argument(metavar="PRINCIPAL", help="Its id; plans know people by it.")]


@command(app, "add")
def add(
    out: Output,
    principal: Principal,
    name: Annotated[str, typer.Option("--name", "-n", help="Its name.")],
    role: Annotated[
        list[str],
        typer.Option("--role", "-r", help="release_manager, approver, mlops, partner, auditor or operator."),
    ],
    kind: Annotated[str, typer.Option(help="person, machine or partner.")] = "person",
    partner: Annotated[str | None, typer.Option(help="Of a partner's account: the partner.")] = None,
) -> None:
    """Add a person, a machine, or a partner's account."""
    body = {"id": principal, "name": name, "kind": kind, "roles": role, "partner": partner}
    with Client() as client:
        result = client.post("principals", body=body)
    out.result(result, f"{escape(principal)} is {escape(', '.join(role))}")


@command(app, "list")
def list_principals(
    out: Output, limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 200
) -> None:
    """List principals."""
    with Client() as client:
        found = list(client.items("principals", limit=limit))
    rows = [
        (p["id"], p["name"], p["kind"], ", ".join(p["roles"]), "" if p["active"] else "off") for p in found
    ]
    out.result(found, table(("principal", "name", "kind", "roles", ""), rows) if rows else "none")


@command(app, "token")
def token(
    out: Output,
    principal: Principal,
    label: Annotated[str, typer.Option("--label", "-l", help="What it is for.")],
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Write it into this new file instead of printing it.")
    ] = None,
    expires_at: Annotated[
        str | None, typer.Option(help="When it ends, such as 2027-01-31T00:00:00Z.")
    ] = None,
) -> None:
    """Issue an API token. Its text is shown this once and kept nowhere."""
    with Client() as client:
        result = client.post(
            "principals", principal, "tokens", body={"label": label, "expires_at": expires_at}
        )
    text = str(result.pop("text"))
    if file is not None:
        write_secret(file.expanduser(), text.encode() + b"\n")
        out.result({**result, "file": str(file)}, f"wrote {escape(str(file))}")
    elif out.as_json:
        out.result({**result, "text": text})
    else:
        sys.stdout.write(text + "\n")


@command(app, "revoke-token")
def revoke_token(
    out: Output,
    principal: Principal,
    token_id: Annotated[str, typer.Argument(metavar="TOKEN", help="Id of the token (tok-…).")],
) -> None:
    """Revoke a token: it stops at once."""
    with Client() as client:
        result = client.post("principals", principal, "tokens", token_id, method="DELETE")
    out.result(result, f"{escape(token_id)} is revoked")
