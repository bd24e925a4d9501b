"""Sealing one file: its parts go to the store from several threads, its digest is taken in order.

A part that the store holds already (an unfinished upload, or a finished object whose journal line is missing) is not
sealed again. An unfinished upload's parts are taken at the store's word for their digest, under an id that nobody else
draws; a finished object is read back, opened and compared.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from artifacts.body import Layout, PartOpener, PartSealer, Plaintext, SealedPart, part_context, read_exactly
from artifacts.digests import Aborted, InOrder, new_hashers
from artifacts.errors import IntegrityError, ObjectExists
from artifacts.keys import FileKey
from artifacts.manifest import FileEntry, Inner, Part, file_object_key, seal_inner
from artifacts.progress import Meter
from artifacts.source import PlainFile, close
from artifacts.stores.base import Store, StreamingUpload, Upload
from artifacts.tensors import index_to_json, read_index

PUT_LIMIT = 8 * 1024 * 1024
"""A file whose sealed form is not larger goes to the store in one request."""

_INDEX_LIMIT = 2 * 1024 * 1024


class Observer(Protocol):
    """Sees one file's plaintext in order, from one thread at a time."""

    def update(self, offset: int, data: memoryview) -> None:
        """The bytes at `offset`; the view is valid during the call only."""
        ...

    def finish(self) -> Any:
        """JSON to keep sealed in the manifest."""
        ...


_buffers = threading.local()


def _sealer(part_size: int) -> PartSealer:
    """This thread's sealing buffers, made anew only when a larger part comes."""
    if getattr(_buffers, "sealer_size", -1) < part_size:
        _buffers.sealer, _buffers.sealer_size = PartSealer(part_size), part_size
    sealer: PartSealer = _buffers.sealer
    return sealer


class FileSealing:
    """One file on its way into the store. `run_part` is called once per part, in order, from worker threads."""

    def __init__(
        self,
        *,
        store: Store,
        file: PlainFile,
        artifact_id: str,
        component: str,
        key: FileKey,
        part_size: int,
        digests: Sequence[str],
        observers: Sequence[tuple[str, Observer]],
        resuming: bool,
        meter: Meter,
        finished: Callable[[FileEntry], None],
    ) -> None:
        self.layout = Layout(file.size, part_size)
        self._store, self._file, self._artifact_id, self._component, self._key = (
            store,
            file,
            artifact_id,
            component,
            key,
        )
        self._hashers, self._observers, self._order = new_hashers(digests), observers, InOrder()
        self._resuming, self._meter, self._finished = resuming, meter, finished
        self._object = file_object_key(artifact_id, file.path)
        self._parts: list[Part | None] = [None] * self.layout.part_count
        self._left = self.layout.part_count
        self._lock = threading.Lock()
        self._fd: Plaintext | None = None
        self._upload: Upload | None = None
        self._stored: dict[int, Part] = {}
        self._compare = False
        self._single = self.layout.part_count == 1 and self.layout.sealed_size <= PUT_LIMIT
        self._stopped = False

    def stop(self) -> None:
        """Another part failed."""
        self._stopped = True
        self._order.abort()

    def close(self, *, abort_upload: bool) -> None:
        """Give the descriptor back after a failure."""
        with self._lock:
            if self._fd is not None:
                close(self._fd)
                self._fd = None
            upload, self._upload = self._upload, None
        if upload is not None and abort_upload:
            upload.abort()

    def run_part(self, index: int) -> None:
        """Seal and store part `index`; the last one to end finishes the file."""
        fd = self._begin()
        layout, where = self.layout, f"{self._file.path}: part {index}"
        start, length = layout.plain_start(index), layout.plain_length(index)
        sealer = _sealer(min(layout.part_size, max(layout.size, 1)))
        context = part_context(self._artifact_id, self._file.path, index, layout)
        known = self._stored.get(index)
        reused = known is not None or self._compare
        if not reused:
            if isinstance(self._upload, StreamingUpload):
                self._parts[index] = self._stream_part(self._upload, index, sealer, fd, context, where)
                self._order.run(index, lambda: self._see(start, sealer.plain(length)))
            else:
                sealed = sealer.seal(fd, start, length, self._key, context, where)
                # Before it is sent: else every thread would wait for the slowest part on its way.
                self._order.run(index, lambda: self._see(start, sealer.plain(length)))
                self._parts[index], reused = self._store_part(index, sealed, context, where)
        else:
            plain = sealer.plain(length)
            read_exactly(fd, plain, start, where)
            self._parts[index] = known or self._reread(index, plain, context, where)
            self._order.run(index, lambda: self._see(start, plain))
        self._meter.add(self._file.path, length, reused=reused)
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._finish()

    def _begin(self) -> Plaintext:
        with self._lock:
            if self._stopped:
                raise Aborted
            if self._fd is None:
                if not self._single and self._upload is None and not self._compare:
                    self._open_upload()  # first: a part that finds the file open also finds where it goes
                self._fd = self._file.open()
            return self._fd

    def _open_upload(self) -> None:
        try:
            self._upload = self._store.begin(
                self._object, self.layout.part_count, self.layout.sealed_part_size
            )
        except ObjectExists:
            if not self._resuming:
                raise self._left_over() from None
            self._compare = True
            return
        if not self._resuming:
            # Parts of an unfinished upload were sealed under another root: each of them is put anew.
            return
        for part in self._upload.parts().values():
            if part.size == self.layout.sealed_length(part.index):
                self._stored[part.index] = Part(size=part.size, sha256=part.sha256)

    def _left_over(self) -> ObjectExists:
        return ObjectExists(
            f"{self._object}: is there already, from an earlier sealing under this artifact id whose resume ticket or "
            "source is gone; nothing was overwritten. Choose another artifact id, or remove it once nobody seals it"
        )

    def _see(self, start: int, plain: memoryview) -> None:
        for hasher in self._hashers.values():
            hasher.update(plain)
        for _, observer in self._observers:
            observer.update(start, plain)

    def _stream_part(
        self,
        upload: StreamingUpload,
        index: int,
        sealer: PartSealer,
        fd: Plaintext,
        context: bytes,
        where: str,
    ) -> Part:
        start, length = self.layout.plain_start(index), self.layout.plain_length(index)
        with upload.writing_part(index) as part:
            part.sha256 = sealer.seal_to(fd, start, length, self._key, context, where, part.write)
        return Part(size=part.written, sha256=part.sha256)

    def _store_part(self, index: int, sealed: SealedPart, context: bytes, where: str) -> tuple[Part, bool]:
        if self._upload is not None:
            self._upload.put_part(index, sealed.sealed, sealed.sha256)
        else:
            try:
                self._store.put(self._object, bytes(sealed.sealed))
            except ObjectExists:
                if not self._resuming:
                    raise self._left_over() from None
                # Stored by a run that was killed before it could note so.
                return self._reread(index, sealed.plain, context, where), True
        return Part(size=len(sealed.sealed), sha256=sealed.sha256), False

    def _reread(self, index: int, plain: memoryview, context: bytes, where: str) -> Part:
        """The stored part, if it opens to exactly `plain`."""
        layout = self.layout
        stored = self._store.get_range(self._object, layout.sealed_start(index), layout.sealed_length(index))
        opened = bytearray()
        PartOpener().open([stored], len(plain), self._key, context, where, opened.extend)
        if opened != plain:
            raise IntegrityError(
                f"{where}: the store holds other content under {self._object}; use another artifact id"
            )
        return Part(size=len(stored), sha256=hashlib.sha256(stored).hexdigest())

    def _finish(self) -> None:
        layout, file = self.layout, self._file
        fd = self._fd
        if fd is None or self._stopped:
            return
        file.check(fd)
        inner = Inner(
            {name: hasher.hexdigest() for name, hasher in self._hashers.items()},
            self._tensor_index(fd),
            {name: observer.finish() for name, observer in self._observers} or None,
        )
        file.check(fd)
        if self._upload is not None:
            self._upload.complete()
        entry = FileEntry(
            path=file.path,
            component=self._component,
            version=1,
            size=layout.size,
            part_size=layout.part_size,
            sealed_size=layout.sealed_size,
            parts=[part for part in self._parts if part is not None],
            inner=seal_inner(self._artifact_id, file.path, self._key, inner),
        )
        with self._lock:
            close(fd)
            self._fd = self._upload = None
        self._finished(entry)

    def _tensor_index(self, fd: Plaintext) -> dict[str, Any] | None:
        """The index of a safetensors file; None for others, malformed ones, and indexes too large for a manifest."""
        if not self._file.path.endswith(".safetensors"):
            return None

        def read_at(offset: int, length: int) -> bytes:
            data = bytearray(length)
            read_exactly(fd, memoryview(data), offset, self._file.path)
            return bytes(data)

        try:
            if self._file.size < 8 or int.from_bytes(read_at(0, 8), "little") > _INDEX_LIMIT:
                return None
            return index_to_json(read_index(read_at, self._file.size, self._file.path))
        except IntegrityError:
            return None
