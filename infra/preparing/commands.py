"""`sluice prepare …`: what stands before the first start of a deployment. Each step is safe to repeat and says what it made.

sluice prepare secrets FOLDER    every secret, each in a file of its own
sluice prepare keyring           the local keyring, where no key service is used
sluice prepare postgres          users and databases
sluice prepare openbao           the transit engine, the derived key, a policy, custody's token
sluice prepare store             the bucket
sluice prepare temporal          namespace, retention, search attributes
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Make what a deployment needs before its first start.")

Folder = Annotated[Path, typer.Option("--secrets", help="the folder that `sluice prepare secrets` made")]
_WAIT = timedelta(seconds=60)


@app.command("secrets")
def secrets_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="where the files go (0700)")],
    name: Annotated[
        list[str] | None, typer.Option("--openbao-name", help="a host name of OpenBao, for its certificate")
    ] = None,
) -> None:
    """Make every secret that is missing, each in a file of its own (0600)."""
    from infra.preparing.secrets import OPENBAO_NAMES, new_secrets

    _say(new_secrets(folder, openbao_names=name or OPENBAO_NAMES))


@app.command("keyring")
def keyring_command() -> None:
    """Make the local keyring of `SLUICE_KEYRING_FILE` under the passphrase of `SLUICE_KEYRING_PASSPHRASE_FILE`; one that is there is only opened."""
    from artifacts.errors import KeyProviderError
    from infra.provision import key_provider
    from infra.settings import SettingsError, load_settings
    from infra.settings_parts.custody import KeyProvider

    try:
        settings = load_settings()
        if settings.key_provider is not KeyProvider.LOCAL:
            _fail(f"the key provider is {settings.key_provider.value}; a keyring is for `local` alone")
        if settings.keyring_passphrase_file is None:
            _fail("SLUICE_KEYRING_PASSPHRASE_FILE is not set; `sluice prepare secrets` makes a passphrase")
        file = settings.effective_keyring_file
        there = file.exists()
        key_provider(settings, make=True)
    except (KeyProviderError, SettingsError, OSError) as error:
        _fail(str(error))
    else:
        _say([] if there else [str(file)])


@app.command("postgres")
def postgres_command(
    secrets: Folder,
    host: Annotated[str, typer.Option(help="where PostgreSQL is")] = "postgres",
    port: Annotated[int, typer.Option(help="its port")] = 5432,
    admin: Annotated[str, typer.Option(help="the administrator's user")] = "postgres",
) -> None:
    """Make users and databases: the records, custody's own, Temporal's."""
    import psycopg

    from infra.preparing.postgres import CUSTODY, RECORDS, TEMPORAL, admin_url, prepare_postgres

    passwords = {
        user: _read(secrets / f"postgres-{short}.password")
        for user, short in ((RECORDS, "records"), (CUSTODY, "custody"), (TEMPORAL, "temporal"))
    }
    url = admin_url(host, port, admin, _read(secrets / "postgres-admin.password"))
    try:
        _say(prepare_postgres(url, passwords))
    except psycopg.Error as error:
        _fail(f"PostgreSQL at {host}:{port} refuses: {str(error).splitlines()[0]}")


@app.command("openbao")
def openbao_command(
    secrets: Folder,
    address: Annotated[str, typer.Option(help="of the server")] = "https://openbao:8200",
    owner: Annotated[
        Path | None,
        typer.Option(help="where the root token and the recovery key are written; keep it in a safe"),
    ] = None,
    token: Annotated[Path | None, typer.Option(help="where custody's token is written")] = None,
    key: Annotated[str, typer.Option(help="name of the key-encryption key")] = "sluice",
) -> None:
    """Initialise OpenBao, make the derived key and the policy for it, and issue custody's token."""
    from infra.preparing.openbao import OpenBaoError, prepare_openbao

    ca = secrets / "openbao-ca.pem"
    try:
        made = prepare_openbao(
            address,
            owner_file=owner or secrets / "openbao-owner.json",
            token_file=token or secrets / "openbao-custody.token",
            ca_file=ca if address.startswith("https://") and ca.exists() else None,
            key=key,
            patience_s=_WAIT.total_seconds(),
        )
    except OpenBaoError as error:
        _fail(str(error))
    else:
        _say(made)


@app.command("store")
def store_command() -> None:
    """Make the bucket of `SLUICE_STORE_URI` when it is not there; nothing in it is touched."""
    from infra.preparing.store import StoreError, prepare_store
    from infra.settings import Role, SettingsError, load_settings

    try:
        _say(prepare_store(load_settings().for_role(Role.PREPARE)))
    except (StoreError, SettingsError) as error:
        _fail(str(error))


@app.command("temporal")
def temporal_command() -> None:
    """Make the namespace with its retention and search attributes."""
    from infra.preparing.temporal import prepare_temporal
    from infra.settings import Role, SettingsError, load_settings
    from infra.temporal import TemporalError

    try:
        settings = load_settings().for_role(Role.PREPARE)
        _say(asyncio.run(prepare_temporal(settings, patience=_WAIT)))
    except (TemporalError, SettingsError) as error:
        _fail(str(error))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        _fail(f"{path} cannot be read: {error.strerror}; `sluice prepare secrets` makes it")
        raise


def _say(made: list[str]) -> None:
    typer.echo("made: " + ", ".join(made) if made else "everything was there already")


def _fail(why: str) -> None:
    typer.echo(why, err=True)
    raise typer.Exit(1)
