"""`sluice grant`: who has access to what, and ending it."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from orchestrator.cli.client import JSON, Client
from orchestrator.cli.decisions import told
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.failures import Failure, WaitedInVain
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
        str, typer.Argument(metavar="PARTNER", help="A partner in the audience of a step that stands.")
    ],
    step: Annotated[
        str | None, typer.Option("--step", "-s", help="Which step; left out, the current one.")
    ] = None,
    wait: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait until it is made; 0: do not wait.")
    ] = 60.0,
    key: Key = None,
) -> None:
    """Make the grant of a partner who became ready after the step was entered; renew one; make it for a partner's new key.

    Custody checks everything again before it makes an envelope. What stands in the way is said, with exit code 5.
    """
    body = {"partner": partner, **({} if step is None else {"step": step})}
    with Client() as client:
        result = client.post("releases", release, "grants", body=body, key=key)
        if "grant_asked" in result["events"] and wait > 0:
            result = _made(client, release, partner, result, wait)
    out.result(result, f"{escape(release)}: {escape(told(result))}")


def _made(client: Client, release: str, partner: str, asked: JSON, wait: float) -> JSON:
    """The answer with what became of it."""
    end = time.monotonic() + wait
    after = asked["seq"]
    while True:
        for event in client.get("releases", release, "events", after=after)["items"]:
            after = event["seq"]
            if event["type"] == "grant_made" and event["data"]["grant"]["holder"] == partner:
                made = event["data"]["grant"]["id"]
                return {**asked, "seq": after, "events": [*asked["events"], "grant_made"], "grant": made}
            if event["type"] == "grant_not_made" and event["data"]["partner"] == partner:
                why = event["data"]["reason"]
                raise Failure(f"No grant was made for {partner}", why, exit_code=ExitCode.CONFLICT)
        if time.monotonic() >= end:
            raise WaitedInVain(
                f"The grant of {partner} is not made yet",
                f"it was asked for and goes on by itself; `sluice grant list {release}` shows it",
            )
        time.sleep(0.3)
