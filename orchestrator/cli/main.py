"""The command `sluice`."""

import typer

app = typer.Typer(no_args_is_help=True, help="Staged releases of AI models.")


@app.callback()
def _root() -> None:
    """Staged releases of AI models."""


def main() -> None:
    """Entry point of the command."""
    app()
