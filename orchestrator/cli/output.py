"""What commands print: tables and words for people, one JSON document for pipelines (`--json`), and failures.

Every command is registered with `command`, which gives it `--json` and turns what goes wrong into one message on the
error stream and an exit code. Results go to standard output and nothing else does; progress, notes and failures go to
the error stream, so that `sluice … --json | jq` always works.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from rich.console import Console, RenderableType
from rich.markup import escape as escape_markup
from rich.table import Table

from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.failures import Failure, LocalFailure, failure_of
from orchestrator.domain.errors import Reason

_JSON = Annotated[
    bool, typer.Option("--json", help="Print one JSON document instead of words.", rich_help_panel="Output")
]


_PIPE_WIDTH = 4_000


class Output:
    """Where a command prints to. `as_json` says for whom."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.console = _console()
        self.notes = _console(stderr=True)

    def result(self, value: Any, *shown: RenderableType) -> None:
        """The result: `value` as JSON, or `shown` for people."""
        if self.as_json:
            sys.stdout.write(json.dumps(jsonable(value), indent=2, ensure_ascii=False) + "\n")
            sys.stdout.flush()
            return
        for item in shown:
            self.console.print(item)

    def event(self, value: Any, shown: RenderableType) -> None:
        """One of many results, as it comes: a line of JSON, or a line of words."""
        if self.as_json:
            sys.stdout.write(json.dumps(jsonable(value), ensure_ascii=False) + "\n")
            sys.stdout.flush()
        else:
            self.console.print(shown)

    def note(self, words: str) -> None:
        """A remark that is not the result. Words are printed as they are, never read as markup."""
        if not self.as_json:
            self.notes.print(escape(words), style="dim")

    def warn(self, words: str) -> None:
        """A remark that must not be overlooked; also in JSON mode, on the error stream."""
        self.notes.print(f"[yellow]warning:[/yellow] {escape(words)}")

    def status(self, words: str) -> AbstractContextManager[Any]:
        """A spinner while something is waited for; nothing when nobody looks."""
        if self.as_json or not self.notes.is_terminal:
            return nullcontext()
        return self.notes.status(escape(words))

    def confirm(self, question: str, *, assumed: bool) -> None:
        """Ask before something happens; `assumed` (`--yes`) answers.

        Raises:
            Failure: the answer is no, or there is nobody to ask.
        """
        if assumed:
            return
        if not sys.stdin.isatty():
            raise Failure(
                "Nobody is there to confirm",
                "give --yes to go on without being asked",
                exit_code=ExitCode.USAGE,
            )
        if not typer.confirm(question, err=True):
            raise Failure("Not done", "it was not confirmed", exit_code=ExitCode.INTERRUPTED)

    def failure(self, failure: Failure) -> None:
        """Tell a failure with every reason."""
        if self.as_json:
            sys.stderr.write(json.dumps({"error": failure.document()}, ensure_ascii=False) + "\n")
            return
        told = f"[bold red]{escape(failure.title)}[/bold red]"
        if failure.detail and failure.detail != failure.title:
            told += f": {escape(failure.detail)}"
        self.notes.print(told)
        for reason in failure.reasons:
            if reason.message != failure.detail:
                self.notes.print(f"  {escape(reason_line(reason))}")


def _console(*, stderr: bool = False) -> Console:
    """A console that wraps for people and never for a pipe, so that `grep` finds whole lines."""
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=_PIPE_WIDTH)


def write_new(path: Path, data: bytes | str) -> None:
    """Write what a command made to a file that is not there yet.

    Raises:
        LocalFailure: it is there already; it is left as it is.
    """
    try:
        with path.open("xb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
    except FileExistsError:
        raise LocalFailure(
            "A file is there already", f"{path}: not overwritten; choose another name"
        ) from None


def escape(text: object) -> str:
    """Text from elsewhere as it may be shown: no markup, and no letter that moves the cursor or hides something."""
    shown = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in str(text))
    return escape_markup(shown)


def reason_line(reason: Reason) -> str:
    """A reason as one line: place, words, code."""
    place = f"line {reason.line}: " if reason.line is not None else ""
    path = f"{reason.path}: " if reason.path else ""
    return f"{place}{path}{reason.message} [{reason.code}]"


def jsonable(value: Any) -> Any:
    """A value as JSON takes it: models, paths, instants and reasons turned into plain ones."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, Reason):
        return value.as_dict()
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> Table:
    """A plain table; every cell is printed as it is, never read as markup."""
    made = Table(*columns, title=title, box=None, header_style="bold", title_justify="left", pad_edge=False)
    for row in rows:
        made.add_row(*("" if cell is None else escape(cell) for cell in row))
    return made


def command(
    app: typer.Typer, name: str | None = None, **options: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command whose first argument is the `Output`; it gets `--json` and its failures are told."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(function, include_extras=True)
        parameters = list(inspect.signature(function).parameters.values())[1:]
        parameters = [p.replace(annotation=hints[p.name]) for p in parameters]
        flag = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_JSON)
        keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]

        @functools.wraps(function)
        def run(*, as_json: bool = False, **given: Any) -> None:
            out = Output(as_json=as_json)
            with_failures(out, lambda: function(out, **given))

        run.__signature__ = inspect.Signature([*keyword_only, flag])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in [*keyword_only, flag]}
        del run.__wrapped__
        app.command(name, **options)(run)
        return function

    return register


def with_failures(out: Output, work: Callable[[], None]) -> None:
    """Do the work; a failure is told and becomes the exit code.

    Raises:
        typer.Exit: with the code of the failure.
    """
    try:
        work()
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt:
        out.failure(Failure("Interrupted", exit_code=ExitCode.INTERRUPTED))
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except BrokenPipeError:
        _silence_stdout()
        raise typer.Exit(ExitCode.DONE) from None
    except Exception as error:  # noqa: BLE001 - the last word of the command: a person gets words, never a stack trace
        found = failure_of(error)
        if found is None:
            kind = type(error).__name__
            found = Failure(
                "An error that nobody foresaw",
                f"{kind}; please report what you did",
                exit_code=ExitCode.UNEXPECTED,
            )
        out.failure(found)
        raise typer.Exit(found.exit_code) from None


def _silence_stdout() -> None:
    """Nobody reads any more: keep the interpreter from complaining about it when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
