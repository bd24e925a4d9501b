"""`sluice store`: what a store really does, and cleaning up after uploads that nobody finished."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated

import typer

from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.failures import Failure
from orchestrator.cli.output import Output, command, escape
from orchestrator.cli.transfer import opened_store
from orchestrator.domain.values import parse_duration

app = typer.Typer(no_args_is_help=True, help="Where sealed files lie.")

Place = Annotated[
    str, typer.Argument(metavar="STORE", help="dir:/path, s3://bucket/prefix or hf:owner/name.")
]


@command(app, "check")
def check(out: Output, store: Place) -> None:
    """Try on the store itself what it does: whether it refuses to overwrite, checks parts, resumes, makes links.

    It writes one tiny object and one unfinished upload, and removes both. What is missing is said with what happens instead.
    """
    with opened_store(store) as place:
        features = place.features()
        has = {f.name: getattr(features, f.name) for f in fields(features) if f.name != "lacking"}
        out.result(
            {"store": place.uri, "features": has, "lacking": dict(features.lacking)},
            *(escape(line) for line in features.describe()),
        )


@command(app, "clean")
def clean(
    out: Output,
    store: Place,
    older_than: Annotated[
        str,
        typer.Option("--older-than", help="Only what nothing was added to for so long, such as 7d or 12h."),
    ] = "7d",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Abort uploads that nobody finished: their parts take room, and cost money on S3. Finished objects stay.

    A sealing that was cut off and aborted here begins anew. On the Hub, uploads wait on the machine that seals: clean up there.
    """
    try:
        age = parse_duration(older_than)
    except ValueError as error:
        raise Failure("How old?", f"--older-than {older_than}: {error}", exit_code=ExitCode.USAGE) from None
    out.confirm(f"Abort uploads in {store} that were left for {older_than}?", assumed=yes)
    with opened_store(store) as place:
        aborted = place.abort_stale(age)
        out.result(
            {"store": place.uri, "aborted": list(aborted)},
            *(f"aborted: {escape(key)}" for key in aborted),
            f"{len(aborted)} unfinished uploads were aborted",
        )
