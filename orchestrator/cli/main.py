"""The command `sluice`: a client of the API, and the partner's and the approver's tools.

The plain install carries everything here but the service itself: commands that need it (`up`, `api`, `worker`, …) say so
when it is missing. Modules of commands import what is heavy inside their functions, so that `sluice --help` is quick.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from orchestrator.cli import plan_commands
from orchestrator.cli.exit_codes import MEANING, ExitCode

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
