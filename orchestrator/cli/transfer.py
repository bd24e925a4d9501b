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
    from artifacts.stores.base import Store


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


def opened_store(
    address: str, *, kms_key: str | None = None, lock_mode: str | None = None, lock_days: int = 0
) -> Store:
    """The store at an address, with what only S3 knows.

    Raises:
        Failure: an option of S3 for another store.
        StoreError: not such an address, or options that make no sense.
    """
    from artifacts.stores.base import open_store

    options: dict[str, Any] = {}
    if kms_key is not None:
        options["sse_kms_key_id"] = kms_key
    if lock_mode is not None or lock_days:
        options |= {"lock_mode": lock_mode, "lock_days": lock_days}
    if options and not address.startswith("s3:"):
        raise Failure(
            "Only S3 knows that",
            f"{address}: --kms-key, --lock-mode and --lock-days are for stores on S3",
            exit_code=ExitCode.USAGE,
        )
    return open_store(address, **options)


def say_what_is_missing(out: Output, store: Store) -> None:
    """Warn of what the live store lacks that sealing would rest on; it was tried on the store itself."""
    features = store.features()
    if any("may not write" in why for why in features.lacking.values()):
        return  # nothing could be tried, and sealing is about to be refused with the reason
    # Elsewhere no part travels alone, and its file's digest is checked.
    parts = ("part_checksums",) if store.uri.startswith("s3:") else ()
    for name in ("conditional_create", "resume", *parts):
        if not getattr(features, name):
            out.warn(f"{store.uri}: no {name}: {features.lacking[name]}")


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
