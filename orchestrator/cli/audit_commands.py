"""`sluice audit`: take the log out, and verify it without trusting the service."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.config import public_text
from orchestrator.cli.output import Output, command, escape, write_new

if TYPE_CHECKING:
    from orchestrator.trust.checkpoints import NoteVerifier

app = typer.Typer(no_args_is_help=True, help="The audit log: append-only, signed, verified offline.")


@command(app, "verify")
def verify(
    out: Output,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An export (`sluice audit export`).")],
    key: Annotated[
        list[str],
        typer.Option("--key", "-k", help="The log's public key (NAME+HASH+BASE64), or a file with it."),
    ],
    previous: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="A checkpoint kept from before: the log must extend it."),
    ] = None,
    keep: Annotated[
        Path | None, typer.Option("--keep", help="Write the last checkpoint here, for the next time.")
    ] = None,
) -> None:
    """Verify an exported log offline: every entry, every checkpoint. Exit code 1 if anything does not hold.

    Every time that glass was broken, or that it was proposed, is shown apart, with its people, its reason and its review.
    """
    from orchestrator.cli.broken_glass import BrokenGlass
    from orchestrator.trust.audit import verify_export

    verifiers = [_verifier(text) for text in key]
    kept = previous.read_text(encoding="utf-8") if previous is not None else None
    glass = BrokenGlass()
    with file.open("rb") as lines:
        found = verify_export(lines, *verifiers, previous_checkpoint=kept, on_entry=glass.entry)
    if keep is not None:
        keep.write_text(found.last_checkpoint, encoding="utf-8")
    document = {
        "verified": True,
        "origin": found.origin,
        "start": found.start,
        "size": found.size,
        "root": found.root.hex(),
        "checkpoints": found.checkpoints,
        "extends_previous": previous is not None,
        "break_glass": glass.found,
    }
    told = f"[green]the log holds[/green]: {found.size} entries, {found.checkpoints} checkpoints of {escape(found.origin)}"
    out.result(document, "\n".join([told, *glass.lines()]))
    if previous is None:
        out.note(
            "no earlier checkpoint was given: that nothing was rewritten since the last time is not shown (--checkpoint)"
        )


def _verifier(text: str) -> NoteVerifier:
    from orchestrator.trust.checkpoints import NoteVerifier

    return NoteVerifier.parse(public_text(text, "log_key"))


@command(app, "export")
def export(
    out: Output,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it; `-` is standard output.")],
    start: Annotated[
        int, typer.Option("--start", min=0, help="Begin at this entry (a checkpoint's size).")
    ] = 0,
) -> None:
    """Take the whole log out as JSON lines with proofs."""
    from orchestrator.cli.client import Client

    with Client() as client:
        data = client.read("audit", "export", start=start or None)
    if str(file) == "-":
        sys.stdout.buffer.write(data)
        return
    write_new(file, data)
    out.result(
        {"file": str(file), "bytes": len(data)},
        f"wrote {escape(str(file))}; verify it with `sluice audit verify`",
    )
