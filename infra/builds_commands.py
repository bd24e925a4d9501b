"""`sluice builds …`: builds of the release worker beside one another while a new version is rolled out; see docs/upgrade.md.

sluice builds list           every build, which is current, what still runs on it
sluice builds move           wake the releases on old builds, so that they go on on the current one
sluice builds use BUILD      let new releases begin on another build
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from temporalio.client import Client

    from infra.settings import Settings

Result = TypeVar("Result")

app = typer.Typer(no_args_is_help=True, help="Builds of the release worker; see docs/upgrade.md.")

_Dev = Annotated[bool, typer.Option("--dev", help="allow what is insecure, and say so loudly")]
_DataDir = Annotated[Path | None, typer.Option("--data-dir", help="the stack's folder (SLUICE_DATA_DIR)")]
_Json = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command("list")
def list_command(dev: _Dev = False, data_dir: _DataDir = None, json: _Json = False) -> None:
    """List the builds, the current one first, with what still runs on each. An empty one's worker may be ended."""
    from infra import builds
    from infra.run import leave

    found = _ask(data_dir, dev, lambda client, settings: builds.builds(client, settings.deployment))
    if json:
        typer.echo(dumps([one.as_dict() for one in found], indent=2))
    else:
        for one in found:
            words = (
                "current" if one.current else "empty: its worker may be ended" if one.empty else one.status
            )
            typer.echo(f"{one.id}  {one.releases} releases, {one.others} other runs  {words}")
    leave(0)


@app.command("move")
def move_command(dev: _Dev = False, data_dir: _DataDir = None, json: _Json = False) -> None:
    """Wake every release on an old build: it goes on on the current one once what it does is done. Keep the old worker until then."""
    from infra import builds
    from infra.run import leave

    woken = _ask(data_dir, dev, lambda client, settings: builds.move(client, settings.deployment))
    if json:
        typer.echo(dumps({"woken": woken}))
    else:
        typer.echo(f"woken: {len(woken)} releases; `sluice builds list` shows who is still on its way")
    leave(0)


@app.command("use")
def use_command(
    build: Annotated[str, typer.Argument(metavar="BUILD", help="its id, as `list` shows it")],
    dev: _Dev = False,
    data_dir: _DataDir = None,
    json: _Json = False,
) -> None:
    """Let new releases begin on this build, and open ones move to it as they wake; a worker of it must run."""
    from infra import builds
    from infra.run import leave

    _ask(data_dir, dev, lambda client, settings: builds.use(client, settings.deployment, build))
    typer.echo(dumps({"current": build}) if json else f"current: {build}")
    leave(0)


def _ask(
    data_dir: Path | None, dev: bool, question: Callable[[Client, Settings], Awaitable[Result]]
) -> Result:
    """Connect and ask; our own errors in words, and exit code 1."""
    from temporalio.service import RPCError

    from infra.codec import CodecError
    from infra.settings import SettingsError, load_settings
    from infra.temporal import TemporalError, connect

    async def answer() -> Result:
        settings = load_settings(data_dir=data_dir, dev=True if dev else None)
        return await question(await connect(settings), settings)

    try:
        return asyncio.run(answer())
    except (SettingsError, CodecError, TemporalError, RPCError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
