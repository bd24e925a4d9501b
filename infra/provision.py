"""Keys that a deployment needs before its first start. Dev mode makes all of them in the data folder; nothing existing is touched.

    secrets/codec.keys · secrets/document.keys    what Temporal and the evidence texts are encrypted with
    secrets/transfer.key                          signs manifests of what transfer workers seal
    secrets/model-signing.pem                     signs plaintext published at `open`
    custody/keyring · keys.json                   custody's own, which no other process reads
    monitor/keys.json                             the leak monitor's own, which no other process reads
    secrets/verdict.keys                          what leak verdicts in the database are encrypted with
    public/custody-public.json                    custody's public half, for everybody to pin
    public/monitor-public.json                    the leak monitor's, for whoever seals

Custody makes its own keys on its first start, and writes its public half; the file is handed to the others.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Engine

from activities.custody.keys import CustodyKeys, CustodyPublic, load_or_make
from activities.custody.memory import CustodyMemory
from activities.leaks.keys import MonitorKeys, MonitorPublic
from activities.leaks.keys import load_or_make as load_monitor_keys
from artifacts.custody.aws_kms import AwsKms
from artifacts.custody.base import KeyProvider
from artifacts.custody.errors import SecondLockPending
from artifacts.custody.local import InsecureUnprotectedKeyring, LocalKeyring
from artifacts.custody.openbao import OpenBaoTransit
from artifacts.errors import KeyProviderError
from artifacts.signing import SigningKey
from infra.codec import write_new_keys
from infra.parts import records_engine
from infra.settings import InvalidSettingError, Settings, read_secret
from infra.settings_parts.custody import KeyProvider as Kind


def provision_dev(settings: Settings) -> None:
    """Make what dev mode needs in its data folder; safe to repeat."""
    if not settings.dev:
        return
    for given, effective in (
        (settings.codec_keys_file, settings.effective_codec_keys_file),
        (settings.document_keys_file, settings.effective_document_keys_file),
        (settings.verdict_keys_file, settings.effective_verdict_keys_file),
        (settings.webhook_keys_file, settings.effective_webhook_keys_file),
    ):
        if given is None and effective is not None and not effective.exists():
            write_new_keys(effective)
    transfer = settings.effective_transfer_signing_key_file
    if settings.transfer_signing_key_file is None and transfer is not None and not transfer.exists():
        write_private(transfer, SigningKey.generate().secret_string().encode() + b"\n")
    model = settings.effective_model_signing_key_file
    if settings.model_signing_key_file is None and model is not None and not model.exists():
        write_private(model, new_pem())
    if settings.ingest_dir is None:
        (settings.data_dir / "ingest").mkdir(mode=0o700, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InsecureUnprotectedKeyring)  # said when custody itself opens it
        provider = key_provider(settings, make=True)
        try:
            custody_keys(settings, provider)
        finally:
            close_provider(provider)
    monitor_keys(settings)


def monitor_keys(settings: Settings) -> MonitorKeys:
    """The leak monitor's own keys, made on the first start; its public half is written for the others."""
    keys = load_monitor_keys(settings.effective_monitor_keys_file)
    public_file = settings.effective_monitor_public_file
    if read_monitor_public(public_file) != keys.public:
        _write_public(public_file, keys.public.as_dict())
    return keys


def read_monitor_public(path: Path) -> MonitorPublic | None:
    """The leak monitor's public half from its file; None while there is none.

    Raises:
        InvalidSettingError: it is malformed.
    """
    if not path.exists():
        return None
    try:
        return MonitorPublic(**json.loads(read_secret(path, "monitor_public_file")))
    except (ValueError, TypeError):
        raise InvalidSettingError(f"SLUICE_MONITOR_PUBLIC_FILE: {path} is malformed") from None


def read_custody_public(path: Path) -> CustodyPublic:
    """Custody's public half from its file.

    Raises:
        InvalidSettingError: it is missing or malformed.
    """
    try:
        return CustodyPublic(**json.loads(read_secret(path, "custody_public_file")))
    except (ValueError, TypeError):
        raise InvalidSettingError(f"SLUICE_CUSTODY_PUBLIC_FILE: {path} is malformed") from None


def close_provider(provider: KeyProvider) -> None:
    """Give back what a provider holds open, where it holds anything: for those who need it once."""
    if isinstance(provider, OpenBaoTransit):
        provider.close()


def key_provider(settings: Settings, *, make: bool = False) -> KeyProvider:
    """Who keeps the key-encryption key.

    Args:
        settings: custody's.
        make: make a local keyring that isn't there yet.

    Raises:
        KeyProviderError: it cannot be used as set.
    """
    match settings.key_provider:
        case Kind.OPENBAO:
            if settings.openbao_token_file is None:
                raise InvalidSettingError("SLUICE_OPENBAO_TOKEN_FILE is not set")
            return OpenBaoTransit(
                settings.openbao_address or "",
                settings.openbao_key,
                settings.openbao_token_file,
                mount=settings.openbao_mount,
                ca_file=settings.openbao_ca_file,
                approvers=settings.openbao_approvers,
            )
        case Kind.AWS_KMS:
            return AwsKms(settings.aws_kms_key_id or "", endpoint_url=settings.aws_kms_endpoint_url)
        case _:
            file, passphrase = settings.effective_keyring_file, keyring_passphrase(settings)
            if make and not file.exists():
                file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                LocalKeyring.create(file, passphrase)
            if not file.exists():
                raise KeyProviderError(
                    f"there is no keyring at {file}: put it back from its backup; before the first start, make one with "
                    "`sluice prepare keyring`"
                )
            return LocalKeyring.open(file, passphrase)


def custody_keys(settings: Settings, provider: KeyProvider) -> CustodyKeys:
    """Custody's own keys, made on the first start; its public half is written for the others.

    Raises:
        SecondLockPending: a control group guards them as well; call again with the same provider (`keys_when_approved`).
    """
    keys = load_or_make(settings.effective_custody_keys_file, provider, settings.custody_log_name)
    public_file = settings.effective_custody_public_file
    if not public_file.exists() or read_custody_public(public_file) != keys.public:
        _write_public(public_file, keys.public.as_dict())
    return keys


def custody_memory(settings: Settings) -> CustodyMemory:
    """Custody's own database, with its password."""
    password = settings.custody_database_password_file
    return CustodyMemory(
        settings.effective_custody_database_url,
        None if password is None else read_secret(password, "custody_database_password_file"),
    )


async def keys_when_approved(
    settings: Settings, provider: KeyProvider, tell: Callable[..., object], seconds: float = 5.0
) -> CustodyKeys:
    """`custody_keys`, asked for again until people have approved them; `tell(why=…)` once for each request that waits."""
    told: set[str] = set()
    while True:
        try:
            return await asyncio.to_thread(custody_keys, settings, provider)
        except SecondLockPending as pending:
            asked = {request.accessor for request in pending.requests}
            if asked != told:
                tell(why=str(pending))
                told = asked
            await asyncio.sleep(seconds)


@contextmanager
def opened_custody(settings: Settings) -> Iterator[tuple[Engine, CustodyMemory, KeyProvider, CustodyKeys]]:
    """What custody is made of, for its operator on custody's machine: records, memory, key service, keys. All are closed at the end.

    Whoever has to approve first is named on the error stream.
    """
    engine = records_engine(settings)
    provider = key_provider(settings)
    memory = custody_memory(settings)
    try:
        keys = asyncio.run(keys_when_approved(settings, provider, _say))
        yield engine, memory, provider, keys
    finally:
        memory.close()
        provider.close()
        engine.dispose()


def _say(*, why: str) -> None:
    print(why, file=sys.stderr, flush=True)


def _write_public(path: Path, value: dict[str, str]) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def keyring_passphrase(settings: Settings) -> bytes | None:
    """The passphrase of the local keyring; None leaves it unprotected (dev mode)."""
    path = settings.keyring_passphrase_file
    return None if path is None else read_secret(path, "keyring_passphrase_file").encode()


def write_private(path: Path, data: bytes) -> None:
    """Write a new file that only its owner can read; an existing one is an error."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def new_pem() -> bytes:
    """A new EC key as PEM, for OpenSSF model signing."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
