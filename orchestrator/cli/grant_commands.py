"""`sluice grant`: who has access to what, and ending it."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.client import JSON, Client
from orchestrator.cli.decisions import told
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.failures import Failure
from orchestrator.cli.output import Output, command, escape, table
from orchestrator.cli.pictures import instant, preview_picture
from orchestrator.cli.release_commands import Key, Reason, Release, Yes

app = typer.Typer(no_args_is_help=True, help="Grants: one partner's access to one step's components.")


@command(app, "list")
def list_grants(
    out: Output,
    release: Annotated[
        str | None, typer.Argument(metavar="RELEASE", help="Of this release; left out: your own.")
    ] = None,
    ended: Annotated[bool, typer.Option("--ended", help="Those that ended.")] = False,
) -> None:
    """List grants: of a release, or your own partner's across releases."""
    with Client() as client:
        if release is not None:
            found = client.get("releases", release, "grants")["items"]
            found = [g for g in found if g["live"] != ended]
        else:
            found = list(client.items("grants", live=str(not ended).lower()))
    rows = [(g["release"], g["id"], g["kind"], ", ".join(g["components"]), _standing(g)) for g in found]
    out.result(found, table(("release", "grant", "kind", "components", "standing"), rows) if rows else "none")


def _standing(grant: JSON) -> str:
    if not grant["live"]:
        return f"{grant.get('end') or 'ended'} {instant(grant.get('ended_at'))}"
    words = ["on hold" if grant.get("on_hold") else "live"]
    if grant.get("not_after"):
        words.append(f"until {instant(grant['not_after'])}")
    words.append("handed over" if grant.get("disclosed_at") else "not handed over yet")
    return ", ".join(words)


@command(app, "revoke")
def revoke(
    out: Output,
    release: Release,
    reason: Reason,
    grant: Annotated[str | None, typer.Option("--grant", "-g", help="One grant.")] = None,
    partner: Annotated[
        str | None, typer.Option("--partner", "-p", help="All grants of this partner.")
    ] = None,
    yes: Yes = False,
    key: Key = None,
) -> None:
    """End one grant, or all of a partner; never blocked. Says first whether that is complete or cuts the future alone."""
    if (grant is None) == (partner is None):
        raise Failure("Which grants?", "give --grant or --partner", exit_code=ExitCode.USAGE)
    body = {"grant": grant, "partner": partner, "reason": reason}
    with Client() as client:
        step = client.get("releases", release, "steps")["items"][0]["name"]
        asked = {"type": "revoke", **{k: v for k, v in body.items() if v is not None}}
        found = client.post("releases", release, "steps", step, "gate", "preview", body={"command": asked})
        if not out.as_json:
            out.notes.print(preview_picture(found))
        if found["accepted"]:
            out.confirm("Do it?", assumed=yes)
        result = client.post("releases", release, "revoke", body=body, key=key)
    out.result(result, f"{escape(release)}: {escape(told(result))}")


@command(app, "make")
def make(
    out: Output,
    release: Release,
    partner: Annotated[
        str, typer.Argument(metavar="PARTNER", help="A partner of the current step's audience.")
    ],
    key: Key = None,
) -> None:
    """Make the grant of a partner who became ready after the step was entered."""
    with Client() as client:
        result = client.post("releases", release, "grants", body={"partner": partner}, key=key)
    out.result(result, f"{escape(release)}: {escape(told(result))}")
