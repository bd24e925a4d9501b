"""An artifact as its holder sees it: the files that the envelope has keys for, and the tensors in them.

    with OpenedArtifact("s3://bucket/prefix", manifest, payload) as model:
        model.open("config.json").read()
        model.load_tensor("encoder.layer.0.attention.self.query.weight").numpy()

Opening fetches nothing; reading fetches the chunks it needs (`artifacts.reader`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

from artifacts.envelope import EnvelopePayload
from artifacts.errors import IntegrityError, ObjectMissing
from artifacts.manifest import Manifest, open_inner, parse_manifest
from artifacts.reader import SealedFile
from artifacts.sources import Source, as_source
from artifacts.stores.base import Store
from artifacts.tensors import Tensor, TensorInfo, index_from_json, open_safetensors, read_index


class OpenedArtifact:
    """The files and tensors of an artifact that an envelope discloses. Close it, or use it as a context.

    Args:
        source: a store or its address, path -> URL, a base URL, or a `Source`.
        manifest: the manifest (DSSE bytes or parsed) that the envelope names.
        payload: the opened envelope or public record.

    Raises:
        IntegrityError: the envelope is for another manifest.
    """

    def __init__(
        self,
        source: Store | Mapping[str, str] | str | Source,
        manifest: Manifest | bytes,
        payload: EnvelopePayload,
    ) -> None:
        if isinstance(manifest, bytes):
            manifest = parse_manifest(manifest, expected_digest=payload.manifest_digest)
        if manifest.digest != payload.manifest_digest or manifest.artifact_id != payload.artifact_id:
            raise IntegrityError(f"artifact {manifest.artifact_id}: the envelope is for another manifest")
        self.manifest, self._payload = manifest, payload
        self._stack = ExitStack()
        self._source = self._stack.enter_context(as_source(source, manifest.artifact_id))
        self._files: dict[str, SealedFile] = {}
        self._tensors: dict[str, tuple[str, TensorInfo]] | None = None

    def __repr__(self) -> str:
        return f"OpenedArtifact({self.manifest.artifact_id}, {len(self.paths())} files)"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back connections."""
        self._stack.close()

    def paths(self) -> list[str]:
        """The files that the envelope has keys for, in order."""
        return [entry.path for entry in self.manifest.files if entry.path in self._payload.keys]

    def open(self, path: str) -> SealedFile:
        """A fresh file object over one sealed file.

        Raises:
            EnvelopeError: the step does not disclose it.
            ManifestError: no such file.
        """
        entry = self.manifest.file(path)
        return SealedFile(self._source.blob(path), self.manifest.artifact_id, entry, self._payload.key(path))

    def digests(self, path: str) -> dict[str, str]:
        """The plaintext digests of a file as its sealer recorded them; nothing is fetched."""
        entry = self.manifest.file(path)
        return dict(open_inner(self.manifest.artifact_id, entry, self._payload.key(path)).digests)

    def tensors(self) -> dict[str, TensorInfo]:
        """All tensors of all disclosed safetensors files, from the sealed index in the manifest where there is one."""
        return {name: info for name, (_, info) in self._index().items()}

    def load_tensor(self, name: str) -> Tensor:
        """One tensor, with ranged reads of only the chunks it lies in.

        Raises:
            ObjectMissing: no disclosed file has it.
        """
        found = self._index().get(name)
        if found is None:
            raise ObjectMissing(
                f"artifact {self.manifest.artifact_id}: no tensor {name[:120]!a} in the disclosed files"
            )
        path, info = found
        data = bytearray(info.end - info.start)
        self._shared(path).read_into(info.start, memoryview(data))
        return Tensor(info, data)

    @contextmanager
    def safetensors(self, path: str, framework: str = "np") -> Iterator[Any]:
        """`safetensors.safe_open` on one file, decrypted into anonymous memory only."""
        with self.open(path) as file, open_safetensors(file, framework) as handle:
            yield handle

    def _shared(self, path: str) -> SealedFile:
        """One reader per file for positioned reads, so that part heads are fetched once."""
        return self._files.setdefault(path, self.open(path))

    def _index(self) -> dict[str, tuple[str, TensorInfo]]:
        if self._tensors is None:
            self._tensors = {}
            for path in self.paths():
                if path.endswith(".safetensors"):
                    self._tensors |= {name: (path, info) for name, info in self._index_of(path).items()}
        return self._tensors

    def _index_of(self, path: str) -> dict[str, TensorInfo]:
        entry = self.manifest.file(path)
        inner = open_inner(self.manifest.artifact_id, entry, self._payload.key(path))
        if inner.tensors is not None:
            return index_from_json(inner.tensors, entry.size, path)
        return read_index(self._shared(path).read_at, entry.size, path)
