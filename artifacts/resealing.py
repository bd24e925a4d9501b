"""Sealing an artifact again under a new root key, from its sealed form: after a key was disclosed, or for a copy elsewhere.

Revoking a disclosed key means a new root, new ciphertext and new grants; nobody can be made to forget the old one. The
plaintext passes through memory a window at a time, and what is not sealed again yet is found by the resume ticket of
`seal_tree`, so a re-sealing that was cut off goes on at the part where it stopped.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from artifacts.body import Plaintext
from artifacts.envelope import EnvelopePayload
from artifacts.manifest import FileEntry, Manifest, open_inner, parse_manifest
from artifacts.opened import OpenedArtifact
from artifacts.reader import SealedFile
from artifacts.sealing import SealedArtifact, seal_tree
from artifacts.sources import Source
from artifacts.stores.base import Store

WINDOW = 4 * 1024 * 1024
"""Plaintext bytes opened at a time, per thread."""


@dataclass(frozen=True, slots=True)
class _OldFile:
    """One sealed file as a plaintext source. It cannot change: every chunk is authenticated under the old key."""

    artifact: OpenedArtifact = field(repr=False)
    entry: FileEntry = field(repr=False)

    @property
    def path(self) -> str:
        return self.entry.path

    @property
    def size(self) -> int:
        return self.entry.size

    @property
    def identity(self) -> tuple[int | str, ...]:
        return self.artifact.manifest.digest, self.entry.parts_digest()

    def open(self) -> Plaintext:
        return _Windows(self.artifact.open(self.path))

    def check(self, opened: Plaintext) -> None:
        """Nothing to look at: a changed chunk does not open."""


class _Windows:
    """Positioned reads through one window per thread."""

    def __init__(self, file: SealedFile) -> None:
        self._file, self._mine = file, threading.local()

    def read_at(self, into: memoryview, offset: int) -> int:
        """See `artifacts.body.ReadsAt`."""
        count = min(len(into), self._file.size - offset)
        if count <= 0:
            return 0
        start, window = getattr(self._mine, "at", (0, b""))
        if not start <= offset < start + len(window):
            start = offset
            window = self._file.read_at(start, min(WINDOW, self._file.size - start))
            self._mine.at = (start, window)
        piece = window[offset - start : offset - start + count]
        into[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        """Forget the windows."""
        self._mine = threading.local()
        self._file.close()


class SealedTree:
    """The disclosed files of an opened artifact as a source of plaintext for `seal_tree`."""

    def __init__(self, artifact: OpenedArtifact) -> None:
        self._artifact = artifact

    @property
    def label(self) -> str:
        """Names the old artifact in tickets and errors."""
        return f"artifact {self._artifact.manifest.artifact_id}"

    def scan(self) -> list[_OldFile]:
        """See `artifacts.source.PlainTree`."""
        return [
            _OldFile(self._artifact, self._artifact.manifest.file(path)) for path in self._artifact.paths()
        ]


class CarriedSignatures:
    """Takes over what observers of the old sealing left (a `SealingObserver`), for the plaintext is the same.

    Args:
        name: the observer's name.
        values: path → what it left for that file.
    """

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        self.name, self._values = name, values

    def begin(self, path: str, component: str, size: int) -> _Carried | None:
        """What was left for a file, if anything was."""
        return _Carried(self._values[path]) if path in self._values else None


class _Carried:
    def __init__(self, value: Any) -> None:
        self._value = value

    def update(self, offset: int, data: memoryview) -> None:
        """Nothing to see again."""

    def finish(self) -> Any:
        """What was left before."""
        return self._value


def carried_signatures(artifact: OpenedArtifact, payload: EnvelopePayload) -> list[CarriedSignatures]:
    """An observer for every one that saw the old sealing."""
    found: dict[str, dict[str, Any]] = {}
    for path in artifact.paths():
        entry = artifact.manifest.file(path)
        inner = open_inner(artifact.manifest.artifact_id, entry, payload.key(path))
        for name, value in (inner.signatures or {}).items():
            found.setdefault(name, {})[path] = value
    return [CarriedSignatures(name, values) for name, values in sorted(found.items())]


def reseal_artifact(
    source: Store | Mapping[str, str] | str | Source,
    manifest: Manifest | bytes,
    payload: EnvelopePayload,
    store: Store,
    *,
    state_dir: Path | None = None,
    components: Sequence[str] | None = None,
    **sealing: Any,
) -> SealedArtifact:
    """Seal the files that `payload` has keys for again, under a new root, into `store`.

    Args:
        source: where the old sealed files are.
        manifest: the old manifest.
        payload: keys of the old files (inside custody, or from an envelope).
        store: where the new artifact goes; may be the same store.
        state_dir: for the resume ticket.
        components: only these; all that are disclosed by default.
        sealing: the other arguments of `seal_tree` (`custody_recipient` and `signer` at least).

    Raises:
        IntegrityError: the old artifact is not what its manifest says.
        ArtifactError: as `seal_tree`.
    """
    if components is not None:
        if isinstance(manifest, bytes):
            manifest = parse_manifest(manifest, expected_digest=payload.manifest_digest)
        wanted = {entry.path for entry in manifest.of_components(components)}
        payload = replace(payload, keys={path: key for path, key in payload.keys.items() if path in wanted})
    with OpenedArtifact(source, manifest, payload) as artifact:
        assigned: dict[str, list[str]] = {}
        for path in artifact.paths():
            assigned.setdefault(artifact.manifest.file(path).component, []).append(path)
        carried = carried_signatures(artifact, payload)
        if sealing.get("monitor") is not None:  # then a new one is made, under a sketch key of the new root
            carried = [one for one in carried if one.name != "leaks"]
        sealing.setdefault("observers", carried)
        return seal_tree(SealedTree(artifact), store, components=assigned, state_dir=state_dir, **sealing)
