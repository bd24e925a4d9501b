"""`sluice leak`: is this file one of ours? Usable alone: a key, signatures, and a suspect.

Suspects are strangers' files: they are read as data, never unpickled; nothing private or link-local is asked unless allowed.
What a verdict can and cannot say is in `docs/leaks.md`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.config import read_secret, write_secret
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.failures import LocalFailure
from orchestrator.cli.output import Output, command, escape, table, write_new
from orchestrator.cli.transfer import size_words

if TYPE_CHECKING:
    from artifacts.leaks import SketchKey, Verdict, WeightSignature

app = typer.Typer(no_args_is_help=True, help="Leaks: recognise our weights in other people's files.")

KeyFile = Annotated[Path, typer.Option("--key", "-k", help="The sketch key (`sluice leak keygen`).")]
_STEP = 4 << 20


@command(app, "keygen")
def keygen(
    out: Output, file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")]
) -> None:
    """Make a sketch key: it fixes which weights are sampled. Whoever has it could change just those."""
    from artifacts.leaks import SketchKey

    secret = os.urandom(32)
    write_secret(file.expanduser(), secret.hex().encode() + b"\n")
    key_id = SketchKey(secret).key_id
    out.result({"file": str(file), "key_id": key_id}, key_id)


@command(app, "signature")
def signature(
    out: Output,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Our own weights, as they are issued.")],
    key: KeyFile,
    to: Annotated[Path, typer.Option("--to", "-o", help="Where to write the signature.")],
    artifact: Annotated[str, typer.Option("--name", "-n", help="What verdicts call it.")],
    parent: Annotated[
        bool, typer.Option("--public-parent", help="It is a public model that ours descends from.")
    ] = False,
) -> None:
    """Make the signature of a folder of weights. Sealing makes one by itself; this is for parents and for older models."""
    from artifacts.leaks import SignatureBuilder
    from artifacts.source import scan as files_of

    builder = SignatureBuilder(artifact, key_of(key))
    with out.status(f"reading {folder}"):
        for file in files_of(folder):
            descriptor = file.open()
            assert isinstance(descriptor, int)  # files of a folder are descriptors
            with os.fdopen(descriptor, "rb", buffering=0) as opened:
                offset = 0
                while data := opened.read(_STEP):
                    builder.feed(file.path, offset, data)
                    offset += len(data)
            builder.finish_file(file.path)
    made = builder.finish()
    data = (made.as_public_parent() if parent else made).to_bytes()
    write_new(to, data)
    document = {
        "file": str(to),
        "artifact": artifact,
        "bytes": len(data),
        "matrices": len(made.matrices),
        "digest": made.digest(),
    }
    out.result(document, f"{escape(str(to))}: {len(made.matrices)} matrices, {size_words(len(data))}")


@command(app, "scan")
def scan(
    out: Output,
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="A file or folder, https://…, hf:OWNER/NAME[@REVISION], or s3://BUCKET/KEY (a prefix ends in /).",
        ),
    ],
    key: KeyFile,
    signatures: Annotated[
        list[Path], typer.Option("--signature", "-s", help="A signature to look for, or a public parent's.")
    ],
    max_bytes: Annotated[str, typer.Option(help="The most that is read, such as 8MiB.")] = "8MiB",
    seconds: Annotated[float, typer.Option(min=1, help="The longest that it may take.")] = 60.0,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="Allow a private address or network, such as 10.0.0.0/8 or 127.0.0.1:8080."),
    ] = None,
    endpoint: Annotated[str, typer.Option(help="The Hub that `hf:` means.")] = "https://huggingface.co",
    s3_endpoint: Annotated[
        str | None, typer.Option(help="The object store that `s3:` means; by default Amazon's.")
    ] = None,
    s3_region: Annotated[str | None, typer.Option(help="The bucket's region.")] = None,
    s3_anonymous: Annotated[
        bool, typer.Option(help="Ask the object store unsigned, as anybody could.")
    ] = False,
    save: Annotated[
        Path | None, typer.Option(help="Write the whole verdict here, so that others can repeat it.")
    ] = None,
) -> None:
    """Judge one suspect. Exit code 0: not ours; 1: ours, in part or whole; 11: it could not be judged."""
    from artifacts.leaks import (
        AddressPolicy,
        HubOptions,
        ObjectStoreOptions,
        ReferenceSet,
        ScanLimits,
    )
    from artifacts.leaks import scan as judge

    sketch = key_of(key)
    references = ReferenceSet(sketch, [signature_from(file) for file in signatures])
    local = Path(target)
    with out.status(f"scanning {target}"):
        found = judge(
            local if local.exists() else target,
            references,
            limits=ScanLimits(max_bytes=_bytes(max_bytes), max_seconds=seconds),
            addresses=AddressPolicy(allow=tuple(allow or ())),
            hub=HubOptions(endpoint=endpoint),
            objects=ObjectStoreOptions(endpoint=s3_endpoint, region=s3_region, anonymous=s3_anonymous),
        )
    end_with_verdict(out, found, save)


def end_with_verdict(out: Output, found: Verdict, save: Path | None) -> None:
    """Keep a verdict where that was asked for, show it, and end with the exit code that says it.

    Raises:
        typer.Exit: it is a match, of all or a part, or nothing can be said.
    """
    from artifacts.leaks import Outcome

    if save is not None:
        save.write_bytes(found.to_bytes())
    show_verdict(out, found)
    if found.outcome in {Outcome.MATCH, Outcome.PARTIAL}:
        raise typer.Exit(ExitCode.NOT_IN_ORDER)
    if found.outcome is Outcome.INCONCLUSIVE:
        raise typer.Exit(ExitCode.INCONCLUSIVE)


def show_verdict(out: Output, found: Verdict) -> None:
    """Print a verdict."""
    colour = {"match": "bold red", "partial": "red", "no_match": "green", "inconclusive": "yellow"}[
        found.outcome.value
    ]
    rows = [
        (
            f.artifact,
            f.outcome.value,
            f.tier,
            f"{f.matched} of {f.compared}",
            f.explained,
            ", ".join(f.copies),
        )
        for f in found.findings
    ]
    lines = [f"[yellow]·[/yellow] {escape(reason)}" for reason in found.reasons]
    read = f"read {size_words(found.bytes_read)} in {found.requests} requests, {found.seconds:.1f} s"
    shown = [f"[{colour}]{found.outcome.value.replace('_', ' ')}[/{colour}]: {escape(found.target)}", *lines]
    columns = ("artifact", "outcome", "tier", "matrices", "a parent's", "copy of")
    out.result(found.document(), *shown, *([table(columns, rows)] if rows else []), f"[dim]{read}[/dim]")


def key_of(file: Path) -> SketchKey:
    """The sketch key in a file."""
    from artifacts.leaks import SketchKey

    try:
        return SketchKey(bytes.fromhex(read_secret(file.expanduser()).decode("ascii").strip()))
    except ValueError:
        raise LocalFailure("The sketch key cannot be used", f"{file}: expected 64 hex digits") from None


def signature_from(file: Path) -> WeightSignature:
    """The signature in a file."""
    from artifacts.leaks import WeightSignature

    return WeightSignature.from_bytes(file.read_bytes())


def _bytes(text: str) -> int:
    """`8MiB`, `500kB` or a plain number as bytes.

    Raises:
        LocalFailure: not of that form.
    """
    units = {
        "": 1,
        "B": 1,
        "kB": 1_000,
        "MB": 1_000_000,
        "GB": 1_000_000_000,
        "KiB": 1 << 10,
        "MiB": 1 << 20,
        "GiB": 1 << 30,
    }
    digits = text.rstrip("BKMGikm")
    unit = text[len(digits) :]
    if not digits.isascii() or not digits.isdigit() or unit not in units or len(digits) > 9:
        raise LocalFailure("How many bytes?", f"{text!r}: expected a number with a unit, such as 8MiB")
    return int(digits) * units[unit]
