"""The Hugging Face Hub as a store: sealed files in a private or gated repository, as large files (Xet or LFS).

An object appears by a commit on top of exactly the commit that was looked at (`parentCommit`), so that nothing is ever
overwritten, whoever else commits. Sealed parts wait in a spool on local disk (ciphertext only) until their file is whole.
`batch()` commits many objects at once, which the Hub's commit limit asks for.

Seen: huggingface_hub 2.4 uploads a path through Xet whenever hf_xet is importable; a buffered file object, or
HF_HUB_DISABLE_XET=1, takes the LFS batch and multipart calls. `transfer` chooses.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils._runtime import is_xet_available

from artifacts.errors import ObjectExists, ObjectMissing, StoreError, StoreUnavailable
from artifacts.stores import spool
from artifacts.stores.base import (
    RESERVED,
    ObjectInfo,
    PartInfo,
    SeenObjects,
    StoreFeatures,
    check_range,
    check_shape,
    valid_key,
)
from artifacts.stores.hub_calls import HubCalls, ListOfOperations, default_spool
from artifacts.stores.hub_reads import HubReader
from artifacts.stores.hub_staging import Staging
from artifacts.stores.retry import RetryPolicy
from artifacts.stores.tree import Tree

FILES_PER_COMMIT = 100
"""Objects in one commit; the Hub's own advice for large files. A batch makes as many commits as it takes."""

# Inside the class the name `list` is the method; these stand for the built-in one.
ListOfFiles = list[RepoFile]
ListOfKeys = list[str]

_FOREIGN = (".gitattributes", "README.md")


class HubStore:
    """`hf:owner/name`, or `hf:owner/name@revision` to read a revision.

    Args:
        address: `owner/name` of a model repository, with an optional `@revision` (a branch for writing).
        endpoint: another Hub than huggingface.co.
        token: by default the one that huggingface_hub finds; False for none.
        spool: folder for sealed parts on their way; by default in the user's cache folder.
        transfer: `xet`, `lfs`, or `auto`: Xet where hf_xet is installed and the Hub hands out Xet tokens, else LFS.
        attempts: tries in all per request (`RetryPolicy`).

    Raises:
        StoreError: the address or an option makes no sense. The network is first touched by the first call.
    """

    def __init__(
        self,
        address: str,
        *,
        endpoint: str | None = None,
        token: str | bool | None = None,
        spool: str | Path | None = None,
        transfer: str = "auto",
        attempts: int = 5,
        connect_timeout_s: float = 10,
        read_timeout_s: float = 60,
    ) -> None:
        repo_id, _, revision = address.partition("@")
        if repo_id.count("/") != 1 or not all(repo_id.split("/")):
            raise StoreError(f"hf store {address!r}: expected hf:owner/name")
        if transfer not in {"auto", "xet", "lfs"} or (transfer == "xet" and not is_xet_available()):
            raise StoreError(
                f"hf store: transfer {transfer!r} is not auto, xet (with hf_xet installed) or lfs"
            )
        self.calls = HubCalls(
            repo_id,
            endpoint=endpoint,
            token=token,
            policy=RetryPolicy(attempts=attempts),
            connect_timeout_s=connect_timeout_s,
            read_timeout_s=read_timeout_s,
        )
        self.repo_id, self._revision = repo_id, revision or "main"
        self._lfs: bool | None = True if transfer == "lfs" or not is_xet_available() else None
        if transfer == "xet":
            self._lfs = False
        self._reader = HubReader(self.calls, self._revision)
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self._spool_path = Path(spool).absolute() if spool else default_spool(repo_id, cache)
        self._tree: Tree | None = None
        self._staging: Staging | None = None  # while a batch is open
        self._seen = SeenObjects()
        self._features: StoreFeatures | None = None

    def __repr__(self) -> str:
        return f"HubStore({self.uri!r})"

    @property
    def uri(self) -> str:
        """`hf:owner/name`, with the revision if it is not `main`."""
        return self.calls.where + ("" if self._revision == "main" else f"@{self._revision}")

    def features(self) -> StoreFeatures:
        """Tried on a branch of its own that is removed again; see `artifacts.stores.hub_probe`."""
        if self._features is None:
            from artifacts.stores.hub_probe import probe

            self._features = probe(self.calls, self._revision)
        return self._features

    def put(self, key: str, data: bytes | bytearray | memoryview, sha256: str | None = None) -> ObjectInfo:
        """See `Store.put`. Outside of a batch this is a commit of its own."""
        valid_key(key)
        if self._staging is not None:
            there = self.stat(key)
            if there is None:
                return self._staging.add_bytes(key, data)
            self._same_or_refuse(key, there, bytes(data))
            return there
        self.commit({key: bytes(data)}, f"Add {key}")
        return self.known(key)

    def begin(self, key: str, part_count: int, part_size: int) -> HubUpload:
        """See `Store.begin`. The parts wait on this machine; only this machine can resume them."""
        valid_key(key)
        check_shape(key, part_count, part_size)
        if self.stat(key) is not None:
            raise ObjectExists(f"{self.uri}: {key}: is there already; nothing is overwritten")
        upload = HubUpload(self, self.tree(), key, part_count, part_size)
        upload.open()
        return upload

    def stat(self, key: str) -> ObjectInfo | None:
        """See `Store.stat`. In a batch, also what is staged."""
        valid_key(key)
        found = self._files([key], self._revision).get(key)
        if found is not None:
            return self._seen.remember(_info(found))
        self._seen.forget(key)
        return self._staging.find(key) if self._staging is not None else None

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """See `Store.get_range`."""
        valid_key(key)
        info = self._seen.get(key) or self.stat(key)
        where = f"{self.uri}: {key}"
        if info is None:
            raise ObjectMissing(f"{where}: no such object")
        check_range(where, start, length, info.size)
        if info.etag.startswith("staged-") and self._staging is not None:
            return self._staging.read(key, start, length)
        return self._reader.read(info, start, length)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.list`. The model card and git's own files are no objects."""
        folder = prefix.rpartition("/")[0]

        def tree() -> ListOfFiles:
            items = self.calls.api.list_repo_tree(
                self.repo_id, folder or None, recursive=True, revision=self._revision
            )
            return [item for item in items if isinstance(item, RepoFile)]

        try:
            files = self.calls.run(prefix, tree)
        except ObjectMissing:
            return
        for item in sorted(files, key=lambda file: file.path.encode()):
            shown = item.path.startswith(prefix) and not item.path.startswith(f"{RESERVED}/")
            if shown and item.path not in _FOREIGN:
                yield _info(item)

    def delete(self, key: str) -> None:
        """See `Store.delete`. The repository's history keeps the object; only `main` loses it."""
        valid_key(key)
        self.calls.commit(self._revision, f"Remove {key}", lambda head: self._deletion(key, head))
        self._seen.forget(key)

    def presign(self, key: str, expires_s: int) -> str | None:
        """None: partners read with their own account, which the repository's gate lets in."""
        valid_key(key)
        return None

    def abort_stale(self, older_than: timedelta) -> tuple[str, ...]:
        """See `Store.abort_stale`. Of the spool on this machine, what a failed batch left staged included."""
        staged = Staging(self.tree(), self.uri).abort_stale(older_than)
        return staged + spool.abort_stale(self.tree(), self.uri, older_than)

    @contextlib.contextmanager
    def batch(self, message: str = "Add sealed files") -> Iterator[None]:
        """See `Store.batch`. What an earlier, cut-off batch left staged is committed with this one."""
        if self._staging is not None:
            yield  # a batch within a batch is one batch
            return
        self._staging = staging = Staging(self.tree(), self.uri)
        try:
            yield
            waiting = list(staging.all().items())
            for at in range(0, len(waiting), FILES_PER_COMMIT):
                chunk = dict(waiting[at : at + FILES_PER_COMMIT])
                self.commit(chunk, message)
                for key in chunk:
                    staging.drop(key)
        finally:
            self._staging = None

    def close(self) -> None:
        """Close connections and the spool."""
        self._reader.close()
        if self._tree is not None:
            self._tree.close()
            self._tree = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- for HubUpload ----------------------------------------------------------------------------------------------

    def tree(self) -> Tree:
        """The spool; made when it is first needed, so that readers leave no folder behind."""
        if self._tree is None:
            self._tree = Tree(self._spool_path)
        return self._tree

    def finish(self, key: str, folder: int, size: int, body: Path) -> ObjectInfo:
        """Commit (or stage) a whole spooled body."""
        if self._staging is not None:
            return self._staging.add_body(key, folder, size)
        self.commit({key: body}, f"Add {key}")
        return self.known(key)

    def known(self, key: str) -> ObjectInfo:
        """What was just committed under `key`."""
        info = self.stat(key)
        if info is None:
            raise StoreUnavailable(f"{self.uri}: {key}: was committed, but the Hub does not show it yet")
        return info

    def commit(self, objects: Mapping[str, Path | bytes], message: str) -> None:
        """Create all objects in one commit. Those that are there with the same bytes are left out.

        Raises:
            ObjectExists: one of the keys holds other bytes; nothing was committed.
        """

        def additions(head: str) -> ListOfOperations:
            there = self._files(list(objects), head)
            for key, found in there.items():
                if not _same(found, objects[key]):
                    raise ObjectExists(f"{self.uri}: {key}: holds other bytes; nothing was overwritten")
            return [self._addition(key, body) for key, body in objects.items() if key not in there]

        self.calls.commit(self._revision, message, additions)

    def put_files(self, files: Mapping[str, Path], message: str) -> dict[str, ObjectInfo]:
        """Create an object of each file, straight from where it lies: what is public already needs no spool.

        Raises:
            ObjectExists: one of the keys holds other bytes.
        """
        waiting = list(files.items())
        for key in files:
            valid_key(key)
        for at in range(0, len(waiting), FILES_PER_COMMIT):
            self.commit(dict(waiting[at : at + FILES_PER_COMMIT]), message)
        return {key: self.known(key) for key in files}

    # -- inside -----------------------------------------------------------------------------------------------------

    def _deletion(self, key: str, head: str) -> ListOfOperations:
        return [CommitOperationDelete(key)] if key in self._files([key], head) else []

    def _addition(self, key: str, body: Path | bytes) -> CommitOperationAdd:
        """An addition that goes the way that `transfer` asked for; see the module."""
        if self._lfs is None:
            self._lfs = not self.calls.speaks_xet(self._revision)
        if not self._lfs:
            return CommitOperationAdd(key, body)
        source = io.BytesIO(body) if isinstance(body, bytes) else body.open("rb")
        return CommitOperationAdd(key, source)

    def _files(self, keys: ListOfKeys, revision: str) -> dict[str, RepoFile]:
        found: dict[str, RepoFile] = {}
        for at in range(0, len(keys), 500):
            chunk = keys[at : at + 500]
            what = chunk[0] if len(chunk) == 1 else f"{len(chunk)} objects"
            look = functools.partial(self.calls.api.get_paths_info, self.repo_id, chunk, revision=revision)
            items = self.calls.run(what, look)
            found |= {item.path: item for item in items if isinstance(item, RepoFile)}
        return found

    def _same_or_refuse(self, key: str, info: ObjectInfo, data: bytes) -> None:
        if info.size != len(data) or self.get_range(key, 0, info.size) != data:
            raise ObjectExists(f"{self.uri}: {key}: holds other bytes; nothing was overwritten")


class HubUpload(spool.Spool):
    """An unfinished object of a `HubStore`: a spool whose body becomes the object by a commit."""

    def __init__(self, store: HubStore, tree: Tree, key: str, part_count: int, part_size: int) -> None:
        super().__init__(tree, f"{store.uri}: {key}", key, part_count, part_size)
        self._store = store
        self._done: ObjectInfo | None = None

    def parts(self) -> dict[int, PartInfo]:
        """See `Upload.parts`."""
        return {} if self._done else super().parts()

    def complete(self) -> ObjectInfo:
        """See `Upload.complete`. After a refusal or an outage the parts are still there."""
        if self._done:
            return self._done
        with self.finished() as (fd, size):
            self._done = self._store.finish(self.key, fd, size, self.body_path())
        self.drop()
        return self._done

    def abort(self) -> None:
        """See `Upload.abort`."""
        self.drop()


def _info(file: RepoFile) -> ObjectInfo:
    sha256 = file.lfs.sha256 if file.lfs else None
    return ObjectInfo(file.path, file.size, sha256 or file.blob_id, sha256)


def _same(found: RepoFile, body: Path | bytes) -> bool:
    """Whether a file of the repository has exactly these bytes, by its SHA-256 or git's blob id."""
    size = len(body) if isinstance(body, bytes) else body.stat().st_size
    if found.size != size:
        return False
    if found.lfs:
        digest, wanted = hashlib.sha256(), found.lfs.sha256
    else:
        digest, wanted = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False), found.blob_id
    with io.BytesIO(body) if isinstance(body, bytes) else body.open("rb") as source:
        while piece := source.read(4 * 1024 * 1024):
            digest.update(piece)
    return digest.hexdigest() == wanted
