"""`sluice incident`: report, triage, close, list."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.client import Client
from orchestrator.cli.decisions import signed_endorsement, told
from orchestrator.cli.key_commands import KeyFile
from orchestrator.cli.output import Output, command, escape, table
from orchestrator.cli.pictures import instant, whose_copy
from orchestrator.cli.release_commands import Key, Release

app = typer.Typer(no_args_is_help=True, help="Incidents: a leak, misuse or harm that was seen.")

Incident = Annotated[str, typer.Argument(metavar="INCIDENT", help="Id of the incident.")]


@command(app, "report")
def report(
    out: Output,
    release: Release,
    kind: Annotated[str, typer.Option(help="leak, misuse or harm.")],
    severity: Annotated[str, typer.Option(help="low, moderate or severe.")],
    summary: Annotated[str, typer.Option("--summary", "-s", help="What was seen.")],
    confidence: Annotated[str, typer.Option(help="reported, suspected or confirmed.")] = "reported",
    component: Annotated[
        list[str] | None, typer.Option("--component", "-c", help="What of ours is concerned.")
    ] = None,
    partner: Annotated[str | None, typer.Option(help="Whose copy it seems to be.")] = None,
    sighting: Annotated[str | None, typer.Option(help="Where it was seen.")] = None,
    incident: Annotated[str | None, typer.Option("--id", help="Its id; made up when left out.")] = None,
    key: Key = None,
) -> None:
    """Report an incident. The plan's response table acts at once: notify, hold, revoke, roll back."""
    body = {
        "id": incident,
        "kind": kind,
        "severity": severity,
        "confidence": confidence,
        "summary": summary,
        "components": component or [],
        "partner": partner,
        "sighting": sighting,
    }
    with Client() as client:
        result = client.post("releases", release, "incidents", body=body, key=key)
    out.result(result, f"{escape(release)}: {escape(told(result))}")


@command(app, "triage")
def triage(
    out: Output,
    release: Release,
    incident: Incident,
    severity: Annotated[str, typer.Option(help="low, moderate or severe.")],
    confidence: Annotated[str, typer.Option(help="suspected, confirmed or false_alarm.")],
    partner: Annotated[str | None, typer.Option(help="Whose copy it is.")] = None,
    note: Annotated[str | None, typer.Option("--note", "-n", help="What the judgement rests on.")] = None,
    key: Key = None,
) -> None:
    """Judge an incident: how bad, how sure, whose copy. The response table acts on what is new."""
    body = {"severity": severity, "confidence": confidence, "partner": partner, "note": note}
    with Client() as client:
        result = client.post("releases", release, "incidents", incident, "triage", body=body, key=key)
    out.result(result, f"{escape(release)} {escape(incident)}: {escape(told(result))}")


@command(app, "close")
def close(
    out: Output,
    release: Release,
    incident: Incident,
    outcome: Annotated[str, typer.Option("--outcome", "-o", help="What came of it, in writing.")],
    key_file: KeyFile = None,
    key: Key = None,
) -> None:
    """Close an incident with a written outcome. A severe one, and every leak, waits for a quorum."""
    with Client() as client:
        payload = {"incident": incident, "outcome": outcome}
        envelope = signed_endorsement(client, release, "close_incident", payload, key_file)
        body = {"outcome": outcome, "envelope": envelope}
        result = client.post("releases", release, "incidents", incident, "close", body=body, key=key)
    out.result(result, f"{escape(release)} {escape(incident)}: {escape(told(result))}")


@command(app, "list")
def list_incidents(
    out: Output,
    release: Release,
    all_of_them: Annotated[bool, typer.Option("--all", help="Closed ones as well.")] = False,
) -> None:
    """List incidents of a release, the latest first."""
    with Client() as client:
        items = client.get("releases", release, "incidents")["items"]
    found = [i for i in items if all_of_them or not i.get("closed_at")]
    rows = [
        (
            i["id"],
            i["severity"],
            i["kind"],
            i["confidence"],
            instant(i["at"]),
            instant(i.get("closed_at")) or "open",
            whose_copy(i),
            i["summary"],
        )
        for i in found
    ]
    columns = ("incident", "severity", "kind", "confidence", "reported (UTC)", "closed", "whose copy", "what")
    out.result(found, table(columns, rows) if rows else "none")
