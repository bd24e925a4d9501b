"""`sluice backup …`: make a backup, verify it, restore it into an empty place, and say exactly what is missing afterwards.

sluice backup create FOLDER      records, store, custody's public file, a manifest
sluice backup verify FOLDER      digests, and the audit log from its leaves
sluice backup restore FOLDER     into an empty database and store only
sluice backup restart            start workflows that Temporal has lost again, from the records
sluice backup reconcile          against Temporal's histories, custody's memory and kept checkpoints
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from infra.backup.reconciling import Reconciliation
    from infra.backup.restarting import Found
    from infra.settings import Settings
    from orchestrator.trust.checkpoints import NoteVerifier

app = typer.Typer(no_args_is_help=True, help="Back up and restore; see docs/recover.md.")

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="the backup")]
Dev = Annotated[bool, typer.Option("--dev", help="allow what is insecure, and say so loudly")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="the stack's folder (SLUICE_DATA_DIR)")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Public = Annotated[
    Path | None,
    typer.Option(
        "--custody-public", help="custody's public file, kept elsewhere: its key must have signed the log"
    ),
]


@app.command("create")
def create_command(
    folder: Folder,
    since: Annotated[
        Path | None,
        typer.Option("--since", help="an earlier backup: unchanged store files are linked to its own"),
    ] = None,
    dev: Dev = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Make a backup of records and store in a new folder; the service may run. No secret is in it."""
    with _told():
        from infra.backup.making import create
        from infra.parts import StoreOpener, records_engine

        settings = _settings(data_dir, dev)
        public = settings.effective_custody_public_file
        store = settings.effective_store_uri
        made = create(records_engine(settings), store, StoreOpener(settings), public, folder, since=since)
    _show_backup("made", made.digest, made.manifest, json)


@app.command("verify")
def verify_command(
    folder: Folder,
    public: Public = None,
    digest: Annotated[
        str | None, typer.Option("--digest", help="the manifest's SHA-256, as `create` printed it")
    ] = None,
    json: Json = False,
) -> None:
    """Check every file's digest, and the audit log in it from its leaves to its head; exit code 1 when it does not hold."""
    with _told():
        from infra.backup.making import verify

        found = verify(folder, _verifier(public), digest=digest)
    _show_backup("holds", found.digest, found.manifest, json)


@app.command("restore")
def restore_command(
    folder: Folder,
    public: Public = None,
    digest: Annotated[
        str | None, typer.Option("--digest", help="the manifest's SHA-256, as `create` printed it")
    ] = None,
    dev: Dev = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Verify a backup and put it back into an empty database and an empty store; nothing is ever overwritten."""
    with _told():
        from infra.backup.making import restore, verify
        from infra.parts import StoreOpener, records_engine

        settings = _settings(data_dir, dev)
        backup = verify(folder, _verifier(public), digest=digest)
        done = restore(backup, records_engine(settings), settings.effective_store_uri, StoreOpener(settings))
    if json:
        typer.echo(
            dumps({"files": done.files, "lacking": done.lacking, "log_size": backup.manifest.log_size})
        )
    else:
        typer.echo(
            f"restored: {backup.manifest.log_size} entries of the log, {done.files} files of the store"
        )
        for key in done.lacking:
            typer.echo(f"  the store lacks {key}")
        typer.echo("start nothing yet: `sluice backup reconcile` says what is missing")
    if done.lacking:
        raise typer.Exit(1)


@app.command("reconcile")
def reconcile_command(
    memory: Annotated[
        bool,
        typer.Option("--custody-memory", help="ask custody's database too (SLUICE_CUSTODY_DATABASE_URL)"),
    ] = False,
    notes: Annotated[
        list[Path] | None, typer.Option("--notes", help="a folder of checkpoints from a second place")
    ] = None,
    public: Public = None,
    replay: Annotated[
        bool, typer.Option("--replay-missing", help="write back what Temporal's histories still hold")
    ] = False,
    dev: Dev = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Say which events of which releases the records lack; exit code 0: none, 1: some, or something differs."""
    with _told():
        from infra.run import leave

        settings = _settings(data_dir, dev)
        found, written = asyncio.run(
            _reconcile(settings, memory=memory, notes=notes or [], verifier=_verifier(public), replay=replay)
        )
    if json:
        typer.echo(dumps({**found.as_dict(), "replayed": written}, indent=2))
    else:
        _show_found(found, written)
    leave(0 if found.complete else 1)


@app.command("restart")
def restart_command(
    release: Annotated[
        list[str] | None, typer.Argument(metavar="RELEASE...", help="these alone; left out: all")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="do it; without it, what would be done is only shown")
    ] = False,
    ended: Annotated[
        bool,
        typer.Option("--ended", help="also releases that have ended: their access is put in order once more"),
    ] = False,
    dev: Dev = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Start workflows again that Temporal has lost, that were stopped, or that run from an older day, from the recorded events.

    Exit code 0: every release goes on by itself; 1: some do not yet.
    """
    with _told():
        from infra.run import leave

        settings = _settings(data_dir, dev)
        found = asyncio.run(_restart(settings, release or [], do=yes, ended=ended))
    if json:
        typer.echo(dumps(found.as_dict(), indent=2))
    else:
        for one in found.to_restart:
            was = "" if one.temporal is None else f", its workflow at {one.temporal}"
            done = "started again" if one.release in found.restarted else "to be started again"
            typer.echo(f"  {one.release}: {done}: {one.why}; the records are at event {one.records}{was}")
        for refused in found.refused:
            typer.echo(f"  {refused.release}: not started: {refused.reason}")
        if found.complete:
            typer.echo("every release goes on by itself")
        elif not yes and found.to_restart:
            typer.echo("nothing was changed; with --yes it is done")
    leave(0 if found.complete else 1)


async def _restart(settings: Settings, only: list[str], *, do: bool, ended: bool) -> Found:
    from getpass import getuser

    from infra.backup import restarting
    from infra.parts import records_engine
    from infra.temporal import connect

    engine = records_engine(settings)
    client = await connect(settings)
    found = await restarting.find(engine, client, only, ended=ended)
    if do:
        await restarting.restart(engine, client, found, getuser())
    return found


async def _reconcile(
    settings: Settings, *, memory: bool, notes: list[Path], verifier: NoteVerifier | None, replay: bool
) -> tuple[Reconciliation, int]:
    from getpass import getuser

    from infra.backup import reconciling
    from infra.parts import records_engine
    from infra.temporal import connect
    from orchestrator.records import audit
    from orchestrator.records.database import reading

    engine = records_engine(settings)
    client = await connect(settings)
    releases, behind = await reconciling.compare_with_temporal(engine, client)
    witnesses = [reconciling.compare_with_notes(engine, folder, verifier) for folder in notes]
    if memory:
        url = settings.effective_custody_database_url
        witnesses.append(reconciling.compare_with_memory(engine, url))
    written = 0
    if replay:
        written = reconciling.replay_missing(engine, releases, behind, getuser())
        releases, _ = await reconciling.compare_with_temporal(engine, client)
    with reading(engine) as session:
        tree = audit.head(session)
    return reconciling.Reconciliation(tree.size, tree.root().hex(), releases, witnesses), written


def _settings(data_dir: Path | None, dev: bool) -> Settings:
    from infra.settings import load_settings

    return load_settings(data_dir=data_dir, dev=True if dev else None)


def _verifier(public: Path | None) -> NoteVerifier | None:
    from infra.provision import read_custody_public
    from orchestrator.trust.checkpoints import NoteVerifier

    return None if public is None else NoteVerifier.parse(read_custody_public(public).log_key)


@contextmanager
def _told() -> Iterator[None]:
    """Our own errors in words, without a trace, and exit code 1."""
    from temporalio.service import RPCError

    from artifacts.errors import ArtifactError
    from infra.backup.manifest import BackupError
    from infra.codec import CodecError
    from infra.settings import SettingsError
    from infra.temporal import TemporalError
    from orchestrator.domain.errors import SluiceError
    from orchestrator.trust.errors import TrustError

    known = (
        BackupError,
        SettingsError,
        SluiceError,
        ArtifactError,
        CodecError,
        TemporalError,
        TrustError,
        RPCError,
        OSError,  # a full disk, rights: its text names the file
    )
    try:
        yield
    except known as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


def _show_backup(what: str, digest: str, manifest: object, json: bool) -> None:
    from infra.backup.manifest import Manifest

    assert isinstance(manifest, Manifest)
    size = sum(file.size for file in manifest.files)
    if json:
        short = manifest.model_dump(mode="json", exclude={"files"})
        typer.echo(
            dumps({**short, "files": len(manifest.files), "bytes": size, "digest": f"sha256:{digest}"})
        )
        return
    typer.echo(
        f"{what}: {len(manifest.files)} files, {size} bytes, of {manifest.made_at:%Y-%m-%d %H:%M:%S} UTC"
    )
    typer.echo(f"  log       {manifest.log_size} entries, root {manifest.log_root}")
    if not manifest.store_copied:
        typer.echo(f"  store     {manifest.store}: listed, not copied; keep its versions or a replica")
    typer.echo(f"  manifest  sha256:{digest}  (keep it elsewhere: `--digest`)")


def _show_found(found: Reconciliation, written: int) -> None:
    typer.echo(f"the records: {found.log_size} entries, root {found.log_root}")
    if written:
        typer.echo(f"written back: {written} events")
    for one in found.releases:
        if one.temporal is None:
            typer.echo(
                f"  {one.release}: at event {one.records}; Temporal does not know it, so nothing can be compared"
            )
        elif one.differs_at is not None:
            typer.echo(f"  {one.release}: event {one.differs_at} is another than its workflow has")
        elif one.temporal < one.records:
            typer.echo(
                f"  {one.release}: at event {one.records}, its workflow at {one.temporal}; `sluice backup restart` brings it there at once"
            )
        for event in one.missing:
            told = f"{event.type} of {event.at} by {event.by}" if event.held else "no longer held by Temporal"
            typer.echo(f"  {one.release}: event {event.seq} is missing: {told}")
    for seen in found.witnesses:
        typer.echo(f"  {seen.witness}: has seen {seen.size} entries")
        if not seen.fits:
            typer.echo(
                f"    from entry {seen.differs_at} on the records are not those that it saw: custody gives out no key"
            )
        for release, numbers in sorted(seen.missing.items()):
            typer.echo(
                f"    it saw of {release} the events {', '.join(map(str, numbers))}, which are missing here"
            )
        if seen.other:
            typer.echo(f"    {seen.other} more entries are missing here")
    typer.echo("nothing is missing" if found.complete else "not complete: docs/recover.md says what now")
