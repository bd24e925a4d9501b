"""A keyring in a file: for one machine, for development, and for tests. Not for production when unprotected.

The file is JSON. Its keys stand in one AES-256-GCM box under Argon2id of a passphrase (RFC 9106, second recommended
option by default); the header with the cost parameters is authenticated with it. Each wrapped key has an HKDF-SHA-256
key of its own, from the key-encryption key and the context, and AES-256-GCM with the context as associated data.

Invariants: the file is 0600 and replaced atomically; versions are only ever added; a keyring that another process has
rotated is read again when a version is not known. An unprotected keyring warns, loudly, each time it is opened.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import json
import os
import secrets
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import rfc8785
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from artifacts.custody.base import (
    Context,
    Description,
    Health,
    KeyProvider,
    WrappedKey,
    check_plaintext,
    context_bytes,
)
from artifacts.custody.errors import KeyringInvalid, KeyVersionGone, WrappedKeyForeign, WrappedKeyInvalid
from artifacts.errors import KeyProviderError

_FORMAT = "sluice-keyring/v1"
_INFO = b"sluice local keyring wrap v1"
_MAX_FILE = 1 << 20


class InsecureUnprotectedKeyring(UserWarning):
    """The keyring has no passphrase: whoever copies the file can unwrap every key."""


@dataclass(frozen=True, slots=True)
class Argon2Cost:
    """How dear a guess at the passphrase is.

    Attributes:
        iterations: passes over the memory.
        lanes: parallel lanes.
        memory_kib: memory in KiB. The default costs some 0.1 s and 64 MiB.
    """

    iterations: int = 3
    lanes: int = 4
    memory_kib: int = 65_536

    def check(self) -> Self:
        """Refuse costs that no honest file has, so that a hostile one cannot exhaust memory.

        Raises:
            KeyringInvalid: out of bounds.
        """
        if not (
            1 <= self.iterations <= 64
            and 1 <= self.lanes <= 16
            and 8 * self.lanes <= self.memory_kib <= 2**21
        ):
            raise KeyringInvalid(
                "keyring: the Argon2id costs are out of bounds; restore the file from its backup"
            )
        return self


def passphrase_from_os(name: str = "sluice-keyring") -> bytes:
    """The passphrase as the operating system hands it to a service.

    Looks for a file `name` in `$CREDENTIALS_DIRECTORY` (systemd's `LoadCredential=`, which keeps it encrypted at rest
    and in memory that does not swap), then in `/run/secrets` (containers).

    Raises:
        KeyringInvalid: there is none, or it is empty.
    """
    folders = [Path(folder) for folder in (os.environ.get("CREDENTIALS_DIRECTORY"), "/run/secrets") if folder]
    for folder in folders:
        try:
            passphrase = (folder / name).read_bytes().rstrip(b"\r\n")
        except OSError:
            continue
        if passphrase:
            return passphrase
        raise KeyringInvalid(f"keyring: the secret {folder / name} is empty")
    looked = " or ".join(str(folder / name) for folder in folders)
    raise KeyringInvalid(f"keyring: no passphrase at {looked}; give the service a credential named {name}")


class LocalKeyring(KeyProvider):
    """A `KeyProvider` on a file. Make one with `create`, open it with `open`."""

    name = "local"

    def __init__(self, path: Path, master: bytes | None, header: dict[str, Any], keys: _Keys) -> None:
        """Not for callers: use `create` or `open`."""
        self._path = path
        self._master = master
        self._header = header
        self._keys = keys
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"LocalKeyring({str(self._path)!r}, key={self._header['name']!r})"

    @classmethod
    def create(cls, path: Path | str, passphrase: bytes | None, *, cost: Argon2Cost | None = None) -> Self:
        """Make a new keyring with one key.

        Args:
            path: where; nothing may be there yet.
            passphrase: None for an unprotected keyring, which warns.
            cost: how dear a guess is; None for the default.

        Raises:
            KeyringInvalid: the path is taken or cannot be written, or the passphrase is empty.
        """
        path = Path(path)
        header: dict[str, Any] = {
            "format": _FORMAT,
            "name": f"keyring-{secrets.token_hex(8)}",
            "protection": None,
        }
        if passphrase is not None:
            chosen = (cost or Argon2Cost()).check()
            header["protection"] = _protection(chosen)
        else:
            _warn(path)
        keyring = cls(path, _master(header, passphrase), header, _Keys(1, {1: secrets.token_bytes(32)}))
        with _locked(path):
            if path.exists():
                raise KeyringInvalid(f"keyring {path}: something is there already; nothing was changed")
            keyring._save(keyring._keys, header, keyring._master)
        return keyring

    @classmethod
    def open(cls, path: Path | str, passphrase: bytes | None) -> Self:
        """Open a keyring.

        Args:
            path: the file.
            passphrase: None for an unprotected keyring, which warns.

        Raises:
            KeyringInvalid: missing, damaged, readable by others, or the passphrase is wrong.
        """
        path = Path(path)
        raw = _read(path)
        header = {name: raw[name] for name in ("format", "name", "protection")}
        if header["protection"] is None:
            if passphrase is not None:
                raise KeyringInvalid(
                    f"keyring {path}: is unprotected, though a passphrase was given; check the path"
                )
            _warn(path)
        elif passphrase is None:
            raise KeyringInvalid(f"keyring {path}: is protected; give its passphrase")
        master = _master(header, passphrase)
        return cls(path, master, header, _open_box(path, raw, header, master))

    def wrap(self, plaintext: bytes, context: Context) -> WrappedKey:
        """See `KeyProvider.wrap`."""
        bound, plaintext = context_bytes(context), check_plaintext(plaintext)
        with self._lock:
            version, key = self._keys.current, self._keys.versions[self._keys.current]
        nonce = secrets.token_bytes(12)
        box = AESGCM(_wrapping_key(key, bound)).encrypt(nonce, plaintext, self._associated(version, bound))
        return WrappedKey(self.name, self._header["name"], version, nonce + box)

    def unwrap(self, wrapped: WrappedKey, context: Context, purpose: str = "") -> bytes:
        """See `KeyProvider.unwrap`; no second lock stands here."""
        bound = context_bytes(context)
        if (wrapped.provider, wrapped.key) != (self.name, self._header["name"]):
            raise WrappedKeyForeign(
                f"keyring {self._path}: the key was wrapped by {wrapped.provider} {wrapped.key}"
            )
        key = self._version(wrapped.version)
        associated = self._associated(wrapped.version, bound)
        try:
            return AESGCM(_wrapping_key(key, bound)).decrypt(
                wrapped.ciphertext[:12], wrapped.ciphertext[12:], associated
            )
        except (InvalidTag, ValueError):
            raise WrappedKeyInvalid(
                "local keyring: the wrapped key was altered, or belongs to another release, artifact or plan"
            ) from None

    def rewrap(self, wrapped: WrappedKey, old_context: Context, new_context: Context) -> WrappedKey:
        """See `KeyProvider.rewrap`."""
        return self.wrap(self.unwrap(wrapped, old_context), new_context)

    def rotate(self) -> int:
        """See `KeyProvider.rotate`. Safe while other processes have the keyring open."""
        with self._lock, _locked(self._path):
            self._reload()
            version = self._keys.current + 1
            keys = _Keys(version, {**self._keys.versions, version: secrets.token_bytes(32)})
            self._save(keys, self._header, self._master)
            self._keys = keys  # only now: nothing may be wrapped under a key that is not on the disk
            return version

    def retire(self, before: int) -> None:
        """Forget the versions below `before`, for good: what they wrapped and nobody re-wrapped opens no more.

        Raises:
            KeyringInvalid: that would forget the newest version, or the file cannot be written.
        """
        with self._lock, _locked(self._path):
            self._reload()
            if before > self._keys.current:
                raise KeyringInvalid(
                    f"keyring {self._path}: the newest version cannot be retired; rotate first"
                )
            kept = {version: key for version, key in self._keys.versions.items() if version >= before}
            keys = _Keys(self._keys.current, kept)
            self._save(keys, self._header, self._master)
            self._keys = keys

    def change_passphrase(self, passphrase: bytes, *, cost: Argon2Cost | None = None) -> None:
        """Protect the keyring with another passphrase. Copies of the old file still open with the old one.

        Raises:
            KeyringInvalid: the file cannot be written, or the passphrase is empty.
        """
        chosen = (cost or Argon2Cost()).check()
        with self._lock, _locked(self._path):
            self._reload()
            header = {**self._header, "protection": _protection(chosen)}
            master = _master(header, passphrase)
            self._save(self._keys, header, master)
            self._header, self._master = header, master

    def describe(self) -> Description:
        """See `KeyProvider.describe`."""
        protected = self._master is not None
        detail = (
            f"file {self._path}, passphrase through Argon2id; whoever holds both file and passphrase can unwrap"
            if protected
            else f"file {self._path} WITHOUT a passphrase: whoever copies it can unwrap. Not for production"
        )
        return Description(self.name, self._header["name"], self._keys.current, protected, detail)

    def health(self) -> Health:
        """See `KeyProvider.health`."""
        try:
            with self._lock:
                self._reload()
        except KeyProviderError as error:
            return Health(ok=False, detail=str(error))
        return Health(ok=True, detail=f"keyring {self._path} opens; newest version {self._keys.current}")

    def _associated(self, version: int, bound: bytes) -> bytes:
        return rfc8785.dumps([self._header["name"], version]) + b"\0" + bound

    def _version(self, version: int) -> bytes:
        with self._lock:
            if version not in self._keys.versions:
                self._reload()
            if version not in self._keys.versions:
                raise KeyVersionGone(
                    f"keyring {self._path}: has no version {version} of its key; restore a newer copy of the file"
                )
            return self._keys.versions[version]

    def _reload(self) -> None:
        raw = _read(self._path)
        if raw["name"] != self._header["name"] or raw["protection"] != self._header["protection"]:
            raise KeyringInvalid(f"keyring {self._path}: was replaced or protected anew; open it again")
        found = _open_box(self._path, raw, self._header, self._master)
        if found.current < self._keys.current:
            raise KeyringInvalid(
                f"keyring {self._path}: is older than what was read before; restore the newest copy"
            )
        self._keys = found

    def _save(self, keys: _Keys, header: dict[str, Any], master: bytes | None) -> None:
        inside = {str(version): _b64(key) for version, key in keys.versions.items()}
        box = rfc8785.dumps({"current": keys.current, "keys": inside})
        nonce = secrets.token_bytes(12)
        if master is not None:
            box = AESGCM(master).encrypt(nonce, box, rfc8785.dumps(header))
        document = {**header, "nonce": _b64(nonce), "box": _b64(box)}
        _write_atomically(self._path, json.dumps(document, indent=1).encode() + b"\n")


@dataclass(frozen=True, slots=True, repr=False)
class _Keys:
    current: int
    versions: dict[int, bytes]


def _warn(path: Path) -> None:
    warnings.warn(
        f"INSECURE: the keyring {path} has no passphrase. Whoever copies this file can unwrap every key of every "
        "release. For development only; make one with a passphrase, or use OpenBao or AWS KMS.",
        InsecureUnprotectedKeyring,
        stacklevel=3,
    )


def _protection(cost: Argon2Cost) -> dict[str, Any]:
    return {
        "kdf": "argon2id",
        "salt": _b64(secrets.token_bytes(16)),
        "iterations": cost.iterations,
        "lanes": cost.lanes,
        "memory_kib": cost.memory_kib,
    }


def _wrapping_key(key: bytes, bound: bytes) -> bytes:
    return HKDF(SHA256(), length=32, salt=None, info=_INFO + b"\0" + bound).derive(key)


def _master(header: dict[str, Any], passphrase: bytes | None) -> bytes | None:
    protection = header["protection"]
    if protection is None:
        return None
    if not passphrase:
        raise KeyringInvalid("keyring: an empty passphrase protects nothing")
    try:
        cost = Argon2Cost(*(int(protection[name]) for name in ("iterations", "lanes", "memory_kib"))).check()
        salt = _unb64(protection["salt"])
        if protection["kdf"] != "argon2id" or len(salt) < 16:
            raise KeyringInvalid("keyring: the protection is not one that is known here")
        kdf = Argon2id(
            salt=salt, length=32, iterations=cost.iterations, lanes=cost.lanes, memory_cost=cost.memory_kib
        )
        return kdf.derive(passphrase)
    except (KeyError, TypeError, ValueError, MemoryError):
        raise KeyringInvalid("keyring: the header is damaged; restore the file from its backup") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise KeyringInvalid(
            f"keyring {path}: cannot be read ({error.strerror}); make one or check the path"
        ) from None
    if mode & 0o077:
        raise KeyringInvalid(
            f"keyring {path}: others may read it; run `chmod 600 {path}`, and rotate the key"
        )
    try:
        raw = json.loads(data) if len(data) <= _MAX_FILE else None
    except (ValueError, RecursionError):
        raw = None
    if (
        not isinstance(raw, dict)
        or set(raw) != {"format", "name", "protection", "nonce", "box"}
        or raw["format"] != _FORMAT
        or not isinstance(raw["name"], str)
        or not isinstance(raw["protection"], dict | None)
    ):
        raise KeyringInvalid(f"keyring {path}: is not of the format {_FORMAT}; restore it from its backup")
    return raw


def _open_box(path: Path, raw: dict[str, Any], header: dict[str, Any], master: bytes | None) -> _Keys:
    try:
        box = _unb64(raw["box"])
        if master is not None:
            box = AESGCM(master).decrypt(_unb64(raw["nonce"]), box, rfc8785.dumps(header))
        inside = json.loads(box)
        versions = {int(version): _unb64(key) for version, key in inside["keys"].items()}
        current = inside["current"]
    except InvalidTag:
        raise KeyringInvalid(f"keyring {path}: the passphrase is wrong, or the file was altered") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise KeyringInvalid(f"keyring {path}: is damaged; restore it from its backup") from None
    if current not in versions or any(len(key) != 32 for key in versions.values()):
        raise KeyringInvalid(f"keyring {path}: is damaged; restore it from its backup")
    return _Keys(current, versions)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time across processes; the lock file stays."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise KeyringInvalid(f"keyring {path}: cannot be locked ({error.strerror})") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise KeyringInvalid(
            f"keyring {path}: cannot be written ({error.strerror}); nothing was changed"
        ) from None


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unb64(text: object) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
