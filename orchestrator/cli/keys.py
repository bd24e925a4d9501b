"""The caller's own private keys: to sign decisions with. They never leave this machine and are never printed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from orchestrator.cli.config import config_folder, load_config, read_secret
from orchestrator.cli.failures import LocalFailure

if TYPE_CHECKING:
    from orchestrator.trust.keys import PrivateKey


def identity_path(given: Path | None) -> Path:
    """The caller's key file: as given, as configured, `~/.config/sluice/id_ed25519`, or `~/.ssh/id_ed25519`.

    Raises:
        LocalFailure: there is none.
    """
    configured = given or load_config().identity_file
    if configured is not None:
        return configured.expanduser()
    tried = [config_folder() / "id_ed25519", Path.home() / ".ssh" / "id_ed25519"]
    for candidate in tried:
        if candidate.is_file():
            return candidate
    told = ", ".join(str(path) for path in tried)
    raise LocalFailure(
        "No key to sign with", f"looked at {told}; make one with `sluice key new`, or give --key FILE"
    )


def load_identity(given: Path | None) -> PrivateKey:
    """The caller's Ed25519 key; asks for the passphrase of a protected file.

    Raises:
        LocalFailure, KeyUnusable: no file, others can read it, another kind of key, or a wrong passphrase.
    """
    from orchestrator.trust.errors import KeyUnusable
    from orchestrator.trust.keys import PrivateKey

    path = identity_path(given)
    data = read_secret(path)
    try:
        return PrivateKey.load(data)
    except KeyUnusable:
        if not _protected(data) or not sys.stdin.isatty():
            raise
    passphrase = typer.prompt(f"passphrase of {path}", hide_input=True, err=True)
    return PrivateKey.load(data, passphrase.encode())


def _protected(data: bytes) -> bool:
    """Whether a key file wants a passphrase: it loads with none but says so."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    load = load_ssh_private_key if b"OPENSSH PRIVATE KEY" in data[:200] else load_pem_private_key
    try:
        load(data, None)
    except TypeError:
        return True
    except ValueError as error:
        return "password" in str(error).lower()
    return False
