"""The resume ticket: what a sealing leaves on its own disk so that it survives kill -9, and how a second one is recognised.

The root key must not lie on a disk in clear, so the ticket holds it encrypted under a key derived from samples of the
plaintext itself (`artifacts.source.plaintext_secret`): whoever can open the ticket has the weights already. When the
artifact is complete the root leaves the ticket and the manifest digest stays. Files are 0600 in a folder of 0700.

    <name>.ticket.json   artifact id, source fingerprint, parameters, encrypted root; later the finished manifest
    <name>.journal       one line per file that is completely stored: its manifest entry (whose inner part is sealed)
    <name>.lock          held while a process seals
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import ValidationError

from artifacts.encoding import b64, canonical_json, unb64
from artifacts.errors import ArtifactError, SourceError
from artifacts.keys import RootKey
from artifacts.manifest import FileEntry

_LABEL = b"sluice.release/resume-ticket/v1"


class Ticket:
    """The ticket of one source folder and store. Make it with `Ticket.held`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._file = folder / f"{name}.ticket.json"
        self._journal = folder / f"{name}.journal"
        self._state: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            loaded = json.loads(self._file.read_bytes())
            self._state = loaded if isinstance(loaded, dict) else {}

    @classmethod
    @contextlib.contextmanager
    def held(
        cls, folder: Path, source: Path | str, store_uri: str, artifact_id: str | None
    ) -> Iterator[Ticket]:
        """The ticket for sealing `source` into `store_uri`, locked against a second process."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = cls._name(source, store_uri, artifact_id)
        lock = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SourceError(
                    f"{source}: is being sealed into {store_uri} by another process; wait for it"
                ) from None
            yield cls(folder, name)
        finally:
            os.close(lock)

    @staticmethod
    def _name(source: Path | str, store_uri: str, artifact_id: str | None) -> str:
        where = str(source.resolve()) if isinstance(source, Path) else source
        return hashlib.sha256(canonical_json([where, store_uri, artifact_id])).hexdigest()[:32]

    @classmethod
    def exists(cls, folder: Path, source: Path | str, store_uri: str, artifact_id: str | None) -> bool:
        """Whether a sealing of that source into that store was begun here, so that it can go on."""
        return (folder / f"{cls._name(source, store_uri, artifact_id)}.ticket.json").exists()

    def matches(self, fingerprint: str, parameters: dict[str, Any]) -> bool:
        """Whether this ticket is for the same untouched source and the same parameters."""
        return bool(
            self._state.get("fingerprint") == fingerprint and self._state.get("parameters") == parameters
        )

    @property
    def artifact_id(self) -> str:
        """The artifact that was begun."""
        return str(self._state["artifact_id"])

    @property
    def finished(self) -> tuple[bytes, str] | None:
        """Manifest (DSSE bytes) and wrapped root, once everything else is stored."""
        done = self._state.get("finished")
        if not done:
            return None
        return unb64(done["manifest"], SourceError, "resume ticket"), str(done["wrapped_root"])

    def begin(
        self, artifact_id: str, fingerprint: str, parameters: dict[str, Any], root: RootKey, secret: bytes
    ) -> None:
        """Start anew, forgetting what was there."""
        salt = secrets.token_bytes(32)
        sealed = AESGCM(_wrap_key(secret, salt)).encrypt(bytes(12), root.raw, artifact_id.encode())
        self._journal.unlink(missing_ok=True)
        self._write(
            {
                "artifact_id": artifact_id,
                "fingerprint": fingerprint,
                "parameters": parameters,
                "salt": b64(salt),
                "root": b64(sealed),
            }
        )

    def root(self, secret: bytes) -> RootKey | None:
        """The root key, or None if this ticket does not open with these samples of the plaintext."""
        try:
            key = _wrap_key(secret, unb64(self._state["salt"], SourceError, "resume ticket"))
            sealed = unb64(self._state["root"], SourceError, "resume ticket")
            return RootKey(AESGCM(key).decrypt(bytes(12), sealed, self.artifact_id.encode()))
        except (InvalidTag, KeyError, ArtifactError, AttributeError):
            return None

    def entries(self) -> dict[str, FileEntry]:
        """The files that the journal says are completely stored. A torn last line is passed over."""
        found: dict[str, FileEntry] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in self._journal.read_bytes().splitlines():
                with contextlib.suppress(ValidationError):
                    entry = FileEntry.model_validate_json(line)
                    found[entry.path] = entry
        return found

    def stored(self, entry: FileEntry) -> None:
        """Note that one file is completely stored. One write, so lines of several threads do not mix."""
        fd = os.open(self._journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, b"\n" + entry.model_dump_json().encode() + b"\n")
        finally:
            os.close(fd)

    def finish(self, manifest: bytes, wrapped_root: str) -> None:
        """Note the finished manifest and drop the root: from here on only the same bytes may be published."""
        self._write(
            {
                "artifact_id": self.artifact_id,
                "fingerprint": self._state["fingerprint"],
                "parameters": self._state["parameters"],
                "finished": {"manifest": b64(manifest), "wrapped_root": wrapped_root},
            }
        )
        self._journal.unlink(missing_ok=True)

    def _write(self, state: dict[str, Any]) -> None:
        temporary = self._file.with_suffix(".tmp")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as out:
            out.write(json.dumps(state).encode())
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(self._file)
        self._state = state


def _wrap_key(secret: bytes, salt: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA512(), length=32, salt=salt, info=_LABEL).derive(secret)
