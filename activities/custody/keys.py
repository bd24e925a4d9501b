"""Custody's own keys: the identity that roots are wrapped to, the key that signs envelopes, the key that signs the log.

They lie in one file, wrapped by the key provider: without the key-encryption key the file opens nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from activities.key_files import write_once, write_over
from artifacts.custody.base import KeyProvider, WrappedKey, wrapping_context
from artifacts.custody.errors import SecondLockPending
from artifacts.custody.second_lock import LockRequest
from artifacts.errors import KeyProviderError
from artifacts.keys import HybridIdentity, custody_identity, custody_keygen
from artifacts.signing import SigningKey, VerifyKey
from orchestrator.trust.checkpoints import NoteSigner, NoteVerifier
from orchestrator.trust.keys import PrivateKey

_FORMAT = "sluice-custody-keys/v1"
_START = "custody starts"
_CONTEXT = wrapping_context("custody", "identity", "sha256:" + "0" * 64)


@dataclass(frozen=True, slots=True)
class CustodyKeys:
    """The three private keys. Never leaves the custody process."""

    identity: HybridIdentity = field(repr=False)
    envelopes: SigningKey = field(repr=False)
    log: NoteSigner = field(repr=False)

    @property
    def public(self) -> CustodyPublic:
        """What everybody may know, and has to pin."""
        return CustodyPublic(
            recipient=str(self.identity.recipient),
            envelope_key=str(self.envelopes.verify_key),
            log_key=self.log.verifier.text(),
        )


@dataclass(frozen=True, slots=True)
class CustodyPublic:
    """Custody's public keys: where roots are wrapped to, who signs envelopes, who signs the log's checkpoints."""

    recipient: str
    envelope_key: str
    log_key: str

    def as_dict(self) -> dict[str, str]:
        """As JSON; the form of `custody-public.json` and of `GET /v1/custody`."""
        return {"recipient": self.recipient, "envelope_key": self.envelope_key, "log_key": self.log_key}

    @property
    def verify_key(self) -> VerifyKey:
        """The key that envelopes are checked with."""
        return VerifyKey.parse(self.envelope_key)

    @property
    def log_verifier(self) -> NoteVerifier:
        """The key that checkpoints are checked with."""
        return NoteVerifier.parse(self.log_key)


def load_or_make(path: Path, provider: KeyProvider, origin: str) -> CustodyKeys:
    """Read custody's keys, or make them on the first start (the file is created once, mode 0600).

    Args:
        path: the file.
        provider: wraps and unwraps it.
        origin: the log's name, such as `sluice.example/log`.

    Raises:
        SecondLockPending: a control group guards the keys; people are asked for all three at once. Call again with the same provider.
        KeyProviderError: the file is damaged, or the provider does not open it.
    """
    if not path.exists():
        _make(path, provider, origin)
    try:
        stored = json.loads(path.read_text())
        _check_format(stored["format"])
        own = _unwrap_all(provider, {name: stored[name] for name in ("identity", "envelopes", "log")})
        identity = custody_identity(own["identity"].decode())
        envelopes = SigningKey.parse(own["envelopes"].decode())
        log = NoteSigner(stored["origin"], PrivateKey.from_seed(own["log"]))
    except (ValueError, KeyError, TypeError) as error:
        raise KeyProviderError(
            f"custody keys {path}: damaged ({type(error).__name__}); restore the file"
        ) from None
    return CustodyKeys(identity, envelopes, log)


def rewrap_file(path: Path, provider: KeyProvider) -> None:
    """Wrap custody's keys anew under the newest version of the key-encryption key; the file is replaced at once.

    Raises:
        KeyProviderError: the file is damaged, or the provider does not open it.
    """
    try:
        stored = json.loads(path.read_text())
        _check_format(stored["format"])
        for name in ("identity", "envelopes", "log"):
            stored[name] = str(provider.rewrap(WrappedKey.parse(stored[name]), _CONTEXT, _CONTEXT))
    except (ValueError, KeyError, TypeError) as error:
        raise KeyProviderError(
            f"custody keys {path}: damaged ({type(error).__name__}); restore the file"
        ) from None
    write_over(path, json.dumps(stored, indent=1).encode())


def _check_format(found: object) -> None:
    if found != _FORMAT:
        raise ValueError(found)


def _make(path: Path, provider: KeyProvider, origin: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    own = {
        "identity": custody_keygen().identity.encode(),
        "envelopes": SigningKey.generate().secret_string().encode(),
        "log": PrivateKey.generate().seed(),
    }
    wrapped = {name: str(provider.wrap(secret, _CONTEXT)) for name, secret in own.items()}
    data = json.dumps({"format": _FORMAT, "origin": origin, **wrapped}, indent=1).encode()
    write_once(path, data)


def _unwrap_all(provider: KeyProvider, wrapped: Mapping[str, str]) -> dict[str, bytes]:
    """All of custody's keys or none; where people have to approve, they are asked for all of them at once."""
    opened: dict[str, bytes] = {}
    waiting: list[LockRequest] = []
    approvers = None
    for name, text in wrapped.items():
        try:
            opened[name] = provider.unwrap(WrappedKey.parse(text), _CONTEXT, _START)
        except SecondLockPending as pending:
            waiting += [replace(request, about=f"custody's {name}") for request in pending.requests]
            approvers = pending.approvers
    if waiting:
        raise SecondLockPending(waiting, approvers)
    provider.give_up(_START)
    return opened
