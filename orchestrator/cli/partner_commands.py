"""`sluice partner`: partners, their keys, and a partner's own key."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.client import JSON, Client
from orchestrator.cli.config import config_folder, read_secret, write_secret
from orchestrator.cli.output import Output, command, escape, table

app = typer.Typer(no_args_is_help=True, help="Partners: outside organisations with members and keys.")

DEFAULT_KEY = "partner.key"


@command(app, "keygen")
def keygen(
    out: Output,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Where to write the private half.")
    ] = None,
) -> None:
    """Make a partner's (or a deployment's) key, the same as `age-keygen -pq` makes. Stock age ≥ 1.3 can use it.

    The public half (age1pq1…) is what envelopes are made for: register it, or put it into a plan.
    """
    from artifacts.keys import partner_keygen

    path = (file or config_folder() / DEFAULT_KEY).expanduser()
    pair = partner_keygen()
    made = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    write_secret(path, f"# created: {made}\n# public key: {pair.recipient}\n{pair.identity}\n".encode())
    if out.as_json:
        out.result({"file": str(path), "recipient": pair.recipient})
    else:
        typer.echo(pair.recipient)
    out.note(f"private half: {path}; it opens everything that is made for this key, so keep it as such")


@command(app, "receipt-key")
def receipt_key_command(
    out: Output,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Your private key file (`sluice partner keygen`).")
    ] = None,
) -> None:
    """Show the public key that your client signs receipts with; the plan pins it under `partners.NAME.receipt_keys`.

    It follows from your own key, so that you keep one secret alone.
    """
    from artifacts.keys import partner_identity
    from orchestrator.trust.delivery import receipt_key

    path = (file or config_folder() / DEFAULT_KEY).expanduser()
    holder = partner_identity(read_secret(path).decode("utf-8", "replace"))
    text = receipt_key(holder.raw).public.text()
    if out.as_json:
        out.result({"receipt_key": text, "recipient": str(holder.recipient)})
    else:
        typer.echo(text)


@command(app, "list")
def list_partners(
    out: Output, limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50
) -> None:
    """List partners that the service knows."""
    with Client() as client:
        found = list(client.items("partners", limit=limit))
    rows = [
        (
            p["id"],
            p["name"],
            len([k for k in p["keys"] if not k.get("revoked_at")]),
            "" if p["active"] else "off",
        )
        for p in found
    ]
    out.result(found, table(("partner", "name", "keys", ""), rows) if rows else "none")


@command(app, "add")
def add(
    out: Output,
    partner: Annotated[str, typer.Argument(metavar="PARTNER", help="Its id, as plans name it.")],
    name: Annotated[str, typer.Option("--name", "-n", help="Its name.")],
    recipient: Annotated[
        str | None, typer.Option(help="Its public key (age1pq1…), or a file with it.")
    ] = None,
) -> None:
    """Add a partner, with its key if it is known."""
    with Client() as client:
        # One partner of an id is one: running it again is the same request.
        result = client.post("partners", body={"id": partner, "name": name}, key=f"partner-{partner}")
        if recipient is not None:
            _register(client, partner, recipient)
            result = client.get("partners", partner)
    out.result(result, f"partner {escape(partner)} is known")


@command(app, "key")
def register_key(
    out: Output,
    partner: Annotated[str, typer.Argument(metavar="PARTNER", help="Its id.")],
    recipient: Annotated[
        str, typer.Argument(metavar="RECIPIENT", help="Its public key (age1pq1…), or a file with it.")
    ],
) -> None:
    """Register a partner's public key: by its own account, or for it."""
    with Client() as client:
        result = _register(client, partner, recipient)
    out.result(result, f"{escape(partner)}: envelopes are made for {escape(result['digest'])}")
    out.note(
        "a plan with `partner_keys: pinned` (the default) trusts the keys that it names itself, not this one"
    )


def _register(client: Client, partner: str, recipient: str) -> JSON:
    return client.post("partners", partner, "keys", body={"recipient": recipient_text(recipient)})


@command(app, "accept")
def accept(
    out: Output,
    partner: Annotated[str, typer.Argument(metavar="PARTNER", help="Its id.")],
    terms: Annotated[str, typer.Option("--terms", "-t", help="The terms, as the plan names them.")],
) -> None:
    """Accept terms; only an account of the partner's own can."""
    with Client() as client:
        result = client.post("partners", partner, "terms", body={"terms": terms})
    out.result(result, f"{escape(partner)} accepts {escape(terms)}")


def recipient_text(given: str) -> str:
    """A recipient as given, or from a file (also from a key file: its comment holds the public half)."""
    path = Path(given)
    if given.startswith("age1") or not path.is_file():
        return given
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.removeprefix("# public key:").strip()
        if text.startswith("age1pq1"):
            return text
    return given
