"""Presigned links to sealed files; satisfies `orchestrator.api.deps.Links`.

The API process signs them with credentials of its own, which need no more than reading `artifacts/*` (`s3:GetObject`).
Signing is arithmetic: no request is made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from artifacts.errors import ArtifactError, StoreError
from artifacts.manifest import file_object_key, parse_manifest
from artifacts.stores.base import Store
from orchestrator.domain.errors import NotFound, Reason, Unavailable


class StoreLinks:
    """Links into one store.

    Args:
        store_uri: the store that this deployment publishes to. Links are made into no other: the location of an
            artifact is the word of whoever registered it.
        open_store: opens it with this process's credentials.
    """

    def __init__(self, store_uri: str, open_store: Callable[[str], Store]) -> None:
        self._uri, self._open = store_uri.rstrip("/"), open_store
        self._store: Store | None = None
        self._lock = threading.Lock()

    def serves(self, location: str) -> bool:
        """Whether links can be made for files at that location."""
        return self._uri.startswith("s3:") and location.rstrip("/") == self._uri

    def make(
        self, manifest: bytes, digest: str, components: frozenset[str], paths: Sequence[str], seconds: int
    ) -> Mapping[str, str]:
        """See `orchestrator.api.deps.Links`."""
        try:
            found = parse_manifest(manifest, expected_digest=digest.removeprefix("sha256:"))
            covered = {file.path for file in found.files if file.component in components}
            unknown = [path for path in paths if path not in covered]
            if unknown:
                raise NotFound(
                    f"the grant covers no file {unknown[0]!a}",
                    [Reason("path", f"{path!a} is in no component of the grant") for path in unknown[:20]],
                )
            store = self._opened()
            urls = {
                path: store.presign(file_object_key(found.artifact_id, path), seconds)
                for path in dict.fromkeys(paths)
            }
        except StoreError as error:
            raise Unavailable("links cannot be signed now", [Reason("store", str(error))]) from None
        except ArtifactError as error:
            raise Unavailable("the manifest cannot be read", [Reason("manifest", str(error))]) from None
        return {path: url for path, url in urls.items() if url is not None}

    def _opened(self) -> Store:
        with self._lock:
            if self._store is None:
                self._store = self._open(self._uri)
            return self._store
