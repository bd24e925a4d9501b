"""Sealed artifacts for everything that speaks fsspec (pandas, pyarrow, datasets, dask, xarray): `sealed://path`.

    fs = fsspec.filesystem("sealed", source="s3://bucket/prefix", manifest=data, envelope=payload)
    fs.ls("", detail=False)
    fs.open("tokenizer/vocab.txt").read()
    fsspec.open("sealed://config.json", source=..., manifest=..., envelope=...)

Read-only. The source may be a store (directory, S3, Hub), a base URL or presigned URLs. Instances are not cached by
fsspec and are not picklable: they hold keys.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, NoReturn

from fsspec import AbstractFileSystem, register_implementation

from artifacts.envelope import EnvelopePayload
from artifacts.errors import EnvelopeError, ManifestError
from artifacts.manifest import Manifest
from artifacts.opened import OpenedArtifact
from artifacts.sources import Source
from artifacts.stores.base import Store


class SealedFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """A read-only file system over one sealed artifact.

    Args:
        source: see `OpenedArtifact`.
        manifest: the manifest, DSSE bytes or parsed.
        envelope: the opened envelope or public record.
    """

    protocol = "sealed"
    root_marker = ""
    cachable = False

    def __init__(
        self,
        source: Store | Mapping[str, str] | str | Source,
        manifest: Manifest | bytes,
        envelope: EnvelopePayload,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._artifact = OpenedArtifact(source, manifest, envelope)
        self._sizes = {p: self._artifact.manifest.file(p).size for p in self._artifact.paths()}

    @property
    def storage_options(self) -> dict[str, Any]:
        """Empty: fsspec keeps an instance's arguments here, and keys must not live on in them."""
        return {}

    @storage_options.setter
    def storage_options(self, value: dict[str, Any]) -> None:
        """Forget what fsspec wants to remember."""

    @property
    def storage_args(self) -> tuple[Any, ...]:
        """Empty, as `storage_options`."""
        return ()

    @storage_args.setter
    def storage_args(self, value: tuple[Any, ...]) -> None:
        """Forget what fsspec wants to remember."""

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a sealed file system holds keys and is not picklable; make a new one where it is needed"
        )

    def close(self) -> None:
        """Give back connections."""
        self._artifact.close()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path)).strip("/")

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Size and type of a file or folder."""
        path = self._strip_protocol(path)
        if path in self._sizes:
            return {"name": path, "size": self._sizes[path], "type": "file"}
        if path == "" or any(p.startswith(path + "/") for p in self._sizes):
            return {"name": path, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """The files and folders in a folder, or the file itself."""
        path = self._strip_protocol(path)
        if self.info(path)["type"] == "file":
            names = [path]
        else:
            prefix = path + "/" if path else ""
            below = [p.removeprefix(prefix) for p in self._sizes if p.startswith(prefix)]
            names = sorted({prefix + b.split("/", maxsplit=1)[0] for b in below})
        return [self.info(name) for name in names] if detail else names

    def _open(
        self, path: str, mode: str = "rb", block_size: int | None = None, **kwargs: Any
    ) -> io.BufferedReader:
        if mode != "rb":
            raise io.UnsupportedOperation(f"{path}: a sealed artifact is read-only")
        path = self._strip_protocol(path)
        try:
            return io.BufferedReader(self._artifact.open(path), block_size or 64 * 1024)
        except (ManifestError, EnvelopeError):
            if path in {entry.path for entry in self._artifact.manifest.files}:
                raise PermissionError(f"{path}: the envelope holds no key for it") from None
            raise FileNotFoundError(path) from None

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """The bytes [start, end) of a file; negative positions count from the end."""
        path = self._strip_protocol(path)
        size = int(self.info(path)["size"])
        first, last, _ = slice(start, end).indices(size)
        with self._artifact.open(path) as file:
            return file.read_at(first, max(0, last - first))


register_implementation("sealed", SealedFileSystem, clobber=True)
