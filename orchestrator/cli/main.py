"""The command `sluice`: a client of the API, and the partner's and the approver's tools.

The plain install carries everything here but the service itself: commands that need it (`up`, `api`, `worker`, …) say so
when it is missing. Modules of commands import what is heavy inside their functions, so that `sluice --help` is quick.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points, version
from typing import Annotated

import typer

from orchestrator.cli import (
    artifact_commands,
    audit_commands,
    evidence_commands,
    fetch_commands,
    gate_commands,
    grant_commands,
    incident_commands,
    invitation_commands,
    key_commands,
    leak_case_commands,
    leak_commands,
    leak_service_commands,
    notice_commands,
    partner_commands,
    plan_commands,
    principal_commands,
    release_commands,
    sign_in_commands,
    store_commands,
    webhook_commands,
)
from orchestrator.cli.exit_codes import MEANING, ExitCode
from orchestrator.cli.output import command

#: Modules whose commands stand among those of `leak`.
_MORE_OF_LEAK = (leak_case_commands, leak_service_commands)

_EPILOG = "Exit codes: " + " · ".join(
    f"{int(code)} {code.name.lower().replace('_', ' ')}" for code in ExitCode
)

app = typer.Typer(
    name="sluice",
    no_args_is_help=True,
    help="Staged releases of AI models: sealed weights, signed gates, durable plans.",
    epilog=_EPILOG,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(plan_commands.app, name="plan")
app.add_typer(release_commands.app, name="release")
app.add_typer(gate_commands.app, name="gate")
command(app, "sign")(gate_commands.sign_command)
app.add_typer(invitation_commands.app, name="invitation")
app.add_typer(evidence_commands.app, name="evidence")
app.add_typer(incident_commands.app, name="incident")
app.add_typer(artifact_commands.app, name="artifact")
app.add_typer(store_commands.app, name="store")
command(app, "fetch")(fetch_commands.fetch_command)
command(app, "open")(fetch_commands.open_command)
app.add_typer(grant_commands.app, name="grant")
app.add_typer(partner_commands.app, name="partner")
app.add_typer(principal_commands.app, name="principal")
app.add_typer(webhook_commands.app, name="webhook")
app.add_typer(notice_commands.app, name="notices")
app.add_typer(key_commands.app, name="key")
command(app, "login")(sign_in_commands.login_command)
command(app, "logout")(sign_in_commands.logout_command)
app.add_typer(leak_commands.app, name="leak")
app.add_typer(audit_commands.app, name="audit")


def _add_service_commands() -> None:
    """Commands of the service (`up`, `down`, `status`, `api`, `worker`, …): there when the service is installed.

    They come through the entry point group `sluice.commands`, because nothing here may import what runs the service.
    """
    for found in entry_points(group="sluice.commands"):
        try:
            loaded = found.load()
        except ModuleNotFoundError:
            continue  # the plain install: the partner's and the approver's tools alone
        app.registered_commands += loaded.registered_commands
        app.registered_groups += loaded.registered_groups


_add_service_commands()


def _version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"sluice {version('sluice-release')}\n")
        raise typer.Exit


def _exit_codes(asked: bool) -> None:
    if asked:
        for code, words in MEANING.items():
            sys.stdout.write(f"{int(code):>3}  {words}\n")
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    __: Annotated[
        bool,
        typer.Option(
            "--exit-codes", callback=_exit_codes, is_eager=True, help="Print what the exit codes mean."
        ),
    ] = False,
) -> None:
    """Staged releases of AI models."""


def main() -> None:
    """Entry point of the command."""
    app()
