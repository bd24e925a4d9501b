"""The operator's commands: `sluice up|down|status` for one machine, `sluice api|worker …|migrate` for each process.

`sluice` finds them through the entry point group `sluice.commands`, since nobody imports infra; without the service installed they
aren't there. Everything heavy is imported when a command runs.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.backup.commands import app as backup_app
from infra.builds_commands import app as builds_app
from infra.preparing.commands import app as prepare_app

if TYPE_CHECKING:
    from infra.settings import Settings
    from infra.stack_state import StackState

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Run the service.")

app.add_typer(backup_app, name="backup")
app.add_typer(builds_app, name="builds")
app.add_typer(prepare_app, name="prepare")

_Dev = Annotated[bool, typer.Option("--dev", help="allow what is insecure, and say so loudly")]
_DataDir = Annotated[Path | None, typer.Option("--data-dir", help="the stack's folder (SLUICE_DATA_DIR)")]
_Json = Annotated[bool, typer.Option("--json", help="print JSON")]


class WorkerKind(StrEnum):
    """The workers of the service."""

    RELEASES = "releases"
    TRANSFER = "transfer"
    CUSTODY = "custody"
    NOTICES = "notices"
    LEAKS = "leaks"


@app.command("up")
def up_command(dev: _Dev = False, data_dir: _DataDir = None, json: _Json = False) -> None:
    """Start the whole stack on this machine, in the background; its data survives a restart."""
    from rich.console import Console

    from infra.stack import up

    with _told():
        console = Console(stderr=json)
        settings = _settings(data_dir, dev=dev)
        if settings.dev:
            console.print(
                "[bold yellow]dev mode[/]: keys lie unprotected in the data folder; never for weights that matter"
            )
        seen: set[tuple[str, str]] = set()

        def show(state: StackState) -> None:
            for process in state.processes:
                key = (process.name, process.condition)
                if process.condition in {"ready", "done", "restarting"} and key not in seen:
                    seen.add(key)
                    console.print(f"  {process.name}: {process.condition} {process.note}")

        _show(up(settings, on_change=show), json=json)
        public = settings.effective_custody_public_file
        if not json and public.exists():
            console.print(
                f"  {'custody':12} {public}  [dim](public: seal to it, hand it to partners)[/]",
                soft_wrap=True,
            )
        token = settings.effective_operator_token_file
        if not json and token is not None and token.exists():
            console.print(
                f"  {'token':12} {token}  [dim](the first operator's: SLUICE_TOKEN_FILE)[/]", soft_wrap=True
            )


@app.command("down")
def down_command(data_dir: _DataDir = None, json: _Json = False) -> None:
    """End the stack on this machine; its data stays."""
    from json import dumps

    from infra.stack import down

    with _told():
        folder = _settings(data_dir).data_dir
        ended = down(folder)
        if json:
            typer.echo(dumps({"ended": ended}))
            return
        typer.echo(f"ended: {', '.join(ended)}" if ended else f"nothing runs on {folder}")


@app.command("status")
def status_command(data_dir: _DataDir = None, json: _Json = False) -> None:
    """Show what runs on this machine; exit code 1 when it isn't all ready."""
    from infra.stack_state import status

    with _told():
        folder = _settings(data_dir).data_dir
        state = status(folder)
        if state is None:
            typer.echo("null" if json else f"nothing runs on {folder}")
            raise typer.Exit(1)
        _show(state, json=json)
        if not state.ready:
            raise typer.Exit(1)


@app.command("supervise", hidden=True)
def supervise_command(dev: _Dev = False, data_dir: _DataDir = None) -> None:
    """Run the stack in the foreground, until Ctrl-C."""
    from infra.logs import configure_logging
    from infra.run import leave
    from infra.stack import supervise

    with _told():
        settings = _settings(data_dir, dev=dev)
        configure_logging(
            level=settings.log_level, style=settings.log_format, dev=settings.dev, process="stack"
        )
        asyncio.run(supervise(settings))
        leave(0)


@app.command("api")
def api_command(dev: _Dev = False) -> None:
    """Run one API process."""
    _run("api", dev=dev)


@app.command("worker")
def worker_command(kind: WorkerKind, dev: _Dev = False) -> None:
    """Run one worker."""
    _run(f"worker-{kind.value}", dev=dev)


@app.command("trace")
def trace_command(
    release: Annotated[str, typer.Argument(metavar="RELEASE", help="whose copies")],
    suspect: Annotated[list[Path], typer.Argument(metavar="FILE...", help="the suspect's files")],
    component: Annotated[str, typer.Option("--component", "-c", help="the marked component")] = "weights",
    incident: Annotated[
        str | None,
        typer.Option("--incident", "-i", help="the open leak that it is about; left out, the only one"),
    ] = None,
    only_trace: Annotated[
        bool, typer.Option("--only-trace", help="tell the release nothing; the report is logged all the same")
    ] = False,
    save: Annotated[Path | None, typer.Option("--save", help="write the signed report here")] = None,
    dev: _Dev = False,
    data_dir: _DataDir = None,
    json: _Json = False,
) -> None:
    """Whose copy is it? Every partner's z, on custody's machine; the signed report goes into the log.

    Whoever is accused (z of 8 and more, or an exact file) becomes the partner of the release's incident, confirmed: the plan's response
    table revokes their grants.

    Exit code 0: nobody is accused; 1: somebody is; 11: the suspect could not be compared, which acquits nobody.
    """
    from getpass import getuser
    from json import dumps

    with _told():
        from infra.tracing import tell, trace

        settings = _settings(data_dir, dev=dev)
        traced = trace(settings, release, component, suspect, _name_of(getuser()))
        if save is not None:
            save.write_bytes(traced.signed)
        report = traced.report
        if json:
            typer.echo(dumps({**report, "entry": traced.entry}))
        else:
            _show_trace(report, traced.entry)
        if (report["accused"] or incident is not None) and not only_trace:
            from orchestrator.domain.errors import SluiceError

            try:
                about, partners = tell(settings, release, component, traced, incident)
            except SluiceError as error:
                told = "; ".join([error.detail, *(reason.message for reason in error.reasons)])
                typer.echo(f"the release was not told: {told}. The report stands in the log.", err=True)
            else:
                judged = f"confirmed, of {', '.join(partners)}" if partners else "traced, nobody is accused"
                typer.echo(f"incident {about}: {judged}", err=True)
    if report["accused"]:
        raise typer.Exit(1)
    if report["not_compared"]:
        raise typer.Exit(11)


@app.command("rotate-kek")
def rotate_kek_command(
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with a rotation that was cut short; make no other version")
    ] = False,
    dev: _Dev = False,
    data_dir: _DataDir = None,
    json: _Json = False,
) -> None:
    """Make a new version of the key-encryption key and wrap every root anew, on custody's machine; custody may run."""
    from getpass import getuser
    from json import dumps

    with _told():
        from infra.rotating import rotate_kek

        settings = _settings(data_dir, dev=dev)
        version, roots = rotate_kek(settings, _name_of(getuser()), resume=resume)
    if json:
        typer.echo(dumps({"version": version, "roots": roots}))
    else:
        typer.echo(f"version {version or 'kept by the service'}: {roots} roots wrapped anew")


@app.command("migrate")
def migrate_command(dev: _Dev = False) -> None:
    """Bring the database to the newest schema."""
    _run("migrate", dev=dev)


@app.command("doctor")
def doctor_command(
    role: Annotated[
        str,
        typer.Option(
            help="As which process: api, worker-releases, worker-custody, …; stack: all of one machine."
        ),
    ] = "api",
    dev: _Dev = False,
    data_dir: _DataDir = None,
    json: _Json = False,
) -> None:
    """Try every dependency of one process and say what to do; exit code 1 when there is a problem, 2 for settings it can't read."""
    from json import dumps

    from infra.doctor import examine, now
    from infra.logs import configure_logging
    from infra.run import leave
    from infra.settings import Role, SettingsError

    configure_logging(level="error", style="console", process="doctor")
    try:
        who = Role(role)
        settings = _settings(data_dir, dev=dev)
    except ValueError:
        typer.echo(f"no process {role!r}; there are: {', '.join(Role)}", err=True)
        leave(2)
    except SettingsError as error:
        typer.echo(str(error), err=True)
        leave(2)
    seen = asyncio.run(examine(settings, who))
    if json:
        report = {"at": now(), "role": who.value, "healthy": seen.healthy}
        typer.echo(dumps(report | {"findings": [f.as_dict() for f in seen.findings]}, indent=2))
    else:
        for finding in seen.findings:
            typer.echo(f"{finding.level:8} {finding.check}: {finding.found}")
            if finding.do:
                typer.echo(f"{'':8} → {finding.do}")
    leave(0 if seen.healthy else 1)


def _run(role: str, *, dev: bool) -> None:
    from infra.run import leave
    from infra.run import main as run

    leave(run([role, *(["--dev"] if dev else [])]))


def _settings(data_dir: Path | None, *, dev: bool = False) -> Settings:
    from infra.settings import load_settings

    return load_settings(data_dir=data_dir, dev=True if dev else None)


class _told:  # noqa: N801 - reads as a verb: with _told()
    """Tells our own errors in words, without a trace, and ends with exit code 1."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        from artifacts.errors import ArtifactError
        from infra.settings import SettingsError
        from infra.stack_state import StackError
        from orchestrator.domain.errors import SluiceError

        expected = (StackError, SettingsError, SluiceError, ArtifactError)
        if error is not None and (isinstance(error, expected) or type(error).__module__ == "infra.codec"):
            with suppress(BrokenPipeError):
                typer.echo(str(error), err=True)
            raise typer.Exit(1) from None


def _name_of(user: str) -> str:
    """A login name in the letters that names have."""
    kept = "".join(c if c.isalnum() or c in "._-" else "-" for c in user.lower() if c.isascii())
    return kept.strip("._-")[:63] or "operator"


def _show_trace(report: dict[str, Any], entry: int) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if report["not_compared"]:
        console.print(f"[yellow]no mark could be looked for[/]: {report['not_compared']}", highlight=False)
    table = Table(title=f"{report['compared']['tensors']} tensors, {report['compared']['weights']} weights")
    for column in ("partner", "z", "", "exact files"):
        table.add_column(column)
    colours = {"accused": "bold red", "investigate": "yellow", "clear": "green"}
    for row in sorted(report["partners"], key=lambda p: -(p["z"] or 0.0)):
        colour = colours.get(row["suspicion"], "dim")
        z = "" if row["z"] is None else f"{row['z']:.1f}"
        words = row["suspicion"].replace("_", " ")
        table.add_row(row["partner"], z, f"[{colour}]{words}[/]", "; ".join(row["exact"]))
    console.print(table)
    console.print(
        f"accused at z ≥ {report['thresholds']['accuse']:g} or by an exact digest alone; entry {entry} of the log"
    )


def _show(state: StackState, *, json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    if json:
        typer.echo(state.model_dump_json(indent=2))
        return
    console = Console()
    table = Table(
        title=f"{state.phase if state.running else 'not running'}, since {state.since:%Y-%m-%d %H:%M:%S} UTC"
    )
    for column in ("process", "state", "pid", "ports", "restarts"):
        table.add_column(column)
    for process in state.processes:
        condition = process.condition if process.alive or process.condition in {"done", "failed"} else "gone"
        pid = str(process.process.pid) if process.process and process.alive else ""
        table.add_row(
            process.name,
            condition,
            pid,
            " ".join(str(port) for port in process.ports.values()),
            str(process.restarts),
        )
    console.print(table)
    for name, url in state.urls.items():
        console.print(f"  {name:12} {url}")
    for folder in {process.log.parent for process in state.processes}:
        console.print(f"  {'logs':12} {folder}", soft_wrap=True)
    if state.error:
        typer.echo(state.error, err=True)


def main() -> None:
    """Entry point of `python -m infra.cli`."""
    app(prog_name="sluice")


if __name__ == "__main__":
    main()
