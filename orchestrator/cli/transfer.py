"""Progress of bytes that move, and the folders and stores that commands name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.failures import Failure
from orchestrator.cli.output import Output

if TYPE_CHECKING:
    from artifacts.progress import Progress as Moved
    from artifacts.progress import ProgressCallback


@contextmanager
def bar(out: Output, words: str) -> Iterator[ProgressCallback | None]:
    """A bar with rate and time left while bytes move; None when nobody looks."""
    if out.as_json or not out.notes.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=out.notes, transient=True) as progress:
        task = progress.add_task(words, total=None)

        def tell(moved: Moved) -> None:
            progress.update(task, completed=moved.bytes_done, total=moved.bytes_total)

        yield tell


def components_of(given: list[str] | None) -> dict[str, Any]:
    """`weights=model.safetensors` as component → patterns, in the order given.

    Raises:
        Failure: not of the form NAME=PATH.
    """
    found: dict[str, list[str]] = {}
    for pair in given or []:
        name, separator, pattern = pair.partition("=")
        if not separator or not name or not pattern:
            raise Failure("Which files?", f"{pair!r}: expected COMPONENT=PATH", exit_code=ExitCode.USAGE)
        found.setdefault(name, []).append(pattern)
    if not found:
        raise Failure(
            "Which components?", "give --component NAME=PATH, once for each", exit_code=ExitCode.USAGE
        )
    return found


def size_words(count: int) -> str:
    """Bytes in the largest unit that keeps a digit before the point."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
