"""Reading anywhere in a sealed file: seekable, read-only, fetching only the chunks that hold the bytes asked for.

The library that seals has no random access yet, so this is a reader of our own for C2SP chunked-encryption, built on
`AESGCM` and `HKDFExpand` alone and held byte for byte to the library in the tests. Invariants:

- no byte is handed out before the tag of its chunk, and the commitment of its part, is verified;
- the length is bound into every part's context, so it is authentic as soon as one byte was read;
- a read fetches the chunks it touches, plus 56 bytes once per part, and nothing else (`read_at`); only the file
  interface (`readinto`) reads ahead when it is used sequentially.
"""

from __future__ import annotations

import hmac
import io
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from artifacts.body import CHUNK, HEADER, TAG, WIRE_CHUNK, Layout, part_context
from artifacts.errors import IntegrityError, WrongKeyError
from artifacts.fetching import check_sealed_size
from artifacts.keys import FileKey
from artifacts.manifest import FileEntry
from artifacts.sources import LOCAL_STEP, Blob, FileBlob, LocalBlob, StoreSource, UrlSource
from artifacts.stores.base import Store

_INFO = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0"
_SALT = 24
_HEADS = 4096
_STEP = 2048 * CHUNK
"""At most this much plaintext (32 MiB) is asked for in one request."""
_READ_AHEAD = 8 * 1024 * 1024


class _Mine(threading.local):
    """A buffer per thread for sealed bytes from a local disk: used again and again, it stays in the processor's cache."""

    def __init__(self) -> None:
        self.wire = memoryview(bytearray(HEADER + (LOCAL_STEP // CHUNK + 2) * WIRE_CHUNK))


_mine = _Mine()


class PartHead:
    """The opened head of a part: cipher and base nonce, after the commitment was verified."""

    __slots__ = ("_base", "_cipher")

    def __init__(self, head: bytes, key: FileKey, context: bytes, where: str) -> None:
        salt, commitment = head[:_SALT], head[_SALT:HEADER]
        okm = HKDFExpand(hashes.SHA512(), 32 + 12 + 32, _INFO + salt + context).derive(key.raw)
        if not hmac.compare_digest(okm[44:], commitment):
            raise WrongKeyError(
                f"{where}: does not open with this key; wrong key, wrong file or part, or a changed head"
            )
        self._cipher = AESGCM(okm[:32])
        self._base = int.from_bytes(okm[32:44], "big")

    def open_into(self, index: int, sealed: memoryview, out: memoryview, where: str) -> None:
        """Open chunk `index`; `out` is as long as its plaintext."""
        nonce = (self._base ^ index).to_bytes(12, "big")
        try:
            self._cipher.decrypt_into(nonce, sealed, None, out)
        except InvalidTag:
            raise IntegrityError(
                f"{where}: chunk {index} was changed; nothing of it was handed out"
            ) from None


class SealedFile(io.RawIOBase):
    """A sealed file as a seekable, read-only binary file. `read_at` may be called from many threads.

    Wrap it in `io.BufferedReader` where a library wants `peek` or many tiny reads.

    Args:
        blob: where the sealed bytes are.
        artifact_id: the artifact.
        entry: the file's manifest entry.
        key: its key.

    Raises:
        NotSealedError, IntegrityError: the object's size is not the one that the manifest says.
    """

    def __init__(self, blob: Blob, artifact_id: str, entry: FileEntry, key: FileKey) -> None:
        super().__init__()
        self._blob, self._artifact_id, self._entry, self._key = blob, artifact_id, entry, key
        self._layout: Layout = entry.layout
        self._heads: OrderedDict[int, PartHead] = OrderedDict()
        self._lock = threading.Lock()
        self._position = 0
        self._window_start, self._window = 0, memoryview(b"")
        self._ahead = CHUNK
        self.bytes_fetched = 0
        self._check_size()

    def _check_size(self) -> None:
        size = self._blob.size()
        if size is not None:
            check_sealed_size(self._entry, size, self._blob.label)

    @property
    def name(self) -> str:
        """The path within the artifact."""
        return self._entry.path

    @property
    def size(self) -> int:
        """Plaintext bytes."""
        return self._layout.size

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def write(self, data: Any, /) -> int:
        """Refused: sealed files are read-only."""
        raise io.UnsupportedOperation("a sealed file is read-only")

    def tell(self) -> int:
        """The position in the plaintext."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move; behind the end is allowed and reads nothing there."""
        if self.closed:
            raise ValueError("seek of a closed file")
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._layout.size}.get(whence)
        if base is None:
            raise ValueError(f"whence {whence} is not one of 0, 1, 2")
        if base + offset < 0:
            raise ValueError(f"seek to {base + offset}, before the file's begin")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """Fill `buffer` from the position, as far as the file goes."""
        if self.closed:
            raise ValueError("read of a closed file")
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._layout.size - self._position))
        done = 0
        while done < count:
            at = self._position + done
            if not self._window_start <= at < self._window_start + len(self._window):
                self._fill(at, count - done)
            piece = self._window[at - self._window_start :][: count - done]
            view[done : done + len(piece)] = piece
            done += len(piece)
        self._position += count
        return count

    def _fill(self, at: int, wanted: int) -> None:
        """Move the window to `at`, twice as far ahead each time it is left at its end."""
        sequential = self._window and at == self._window_start + len(self._window)
        self._ahead = min(_READ_AHEAD, self._ahead * 2) if sequential else CHUNK
        start = at - at % self._layout.part_size % CHUNK
        length = min(max(min(wanted, _STEP), self._ahead) + at - start, self._layout.size - start)
        self._window_start, self._window = start, memoryview(self.read_at(start, length))

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly `length` plaintext bytes from `offset`, without moving the position.

        Raises:
            ValueError: the range leaves the file.
            IntegrityError, WrongKeyError: what lies there is not what was sealed.
            StoreError: it cannot be read.
        """
        if length < 0:
            raise ValueError(f"{self.name}: cannot read {length} bytes")
        if offset + length > self._layout.size:
            raise ValueError(
                f"{self.name}: bytes {offset} to {offset + length} leave the file of {self._layout.size}"
            )
        out = bytearray(length)
        self.read_into(offset, memoryview(out))
        return bytes(out)

    def read_into(self, offset: int, out: memoryview) -> None:
        """As `read_at`, into a buffer of the caller's, without a copy. After an error the buffer's content is undefined."""
        length = len(out)
        if offset < 0 or offset + length > self._layout.size:
            raise ValueError(
                f"{self.name}: bytes {offset} to {offset + length} leave the file of {self._layout.size}"
            )
        step = LOCAL_STEP if isinstance(self._blob, LocalBlob) else _STEP
        start = offset
        while start < offset + length:
            # Steps end where a chunk does, so that no chunk is fetched and opened twice.
            end = min(start - start % CHUNK + step, offset + length)
            self._read_span(start, end, out[start - offset : end - offset])
            start = end
        if length == 0:
            self._read_span(offset, offset, out)

    def _read_span(self, start: int, end: int, out: memoryview) -> None:
        """Open [start, end) into `out` with one request, and one of 56 bytes where a part's head is missing."""
        layout = self._layout
        first = min(start // layout.part_size, layout.part_count - 1)
        last = min(max(start, end - 1) // layout.part_size, layout.part_count - 1)
        head = self._heads.get(first)
        first_chunk = (start - first * layout.part_size) // CHUNK
        if head is None and first_chunk:
            head = self._head(first, bytes(self._fetch(layout.sealed_start(first), HEADER)))
        wire_start = layout.sealed_start(first) + (
            HEADER + first_chunk * WIRE_CHUNK if head is not None else 0
        )
        last_chunk = (max(start, end - 1) - last * layout.part_size) // CHUNK
        part_end = layout.sealed_start(last) + layout.sealed_length(last)
        wire_end = min(layout.sealed_start(last) + HEADER + (last_chunk + 1) * WIRE_CHUNK, part_end)
        if end == last * layout.part_size + layout.plain_length(last):
            # Up to the part's end: with it comes the chunk that ends the message, also when that is empty.
            wire_end = part_end
        wire = self._fetch(wire_start, wire_end - wire_start)
        for part in range(first, last + 1):
            base = layout.sealed_start(part) - wire_start
            opened = self._heads.get(part)
            if opened is None:
                opened = self._head(part, bytes(wire[base : base + HEADER]))
            begin = max(start, part * layout.part_size)
            stop = min(end, part * layout.part_size + layout.plain_length(part))
            self._open_chunks(part, opened, wire, base, begin, stop, out[begin - start : stop - start])

    def _open_chunks(
        self, part: int, head: PartHead, wire: memoryview, base: int, begin: int, stop: int, out: memoryview
    ) -> None:
        """Open the bytes [begin, stop) of one part from `wire`, in which the part begins at `base`."""
        origin, length = part * self._layout.part_size, self._layout.plain_length(part)
        where = f"{self.name}: part {part}"
        for index in range((begin - origin) // CHUNK, max(stop - 1, begin) // CHUNK - origin // CHUNK + 1):
            plain = min(CHUNK, length - index * CHUNK)
            at = base + HEADER + index * WIRE_CHUNK
            sealed = wire[at : at + plain + TAG]
            low, high = origin + index * CHUNK, origin + index * CHUNK + plain
            if begin <= low and high <= stop:
                head.open_into(index, sealed, out[low - begin : high - begin], where)
            else:
                whole = memoryview(bytearray(plain))
                head.open_into(index, sealed, whole, where)
                out[max(low, begin) - begin : min(high, stop) - begin] = whole[
                    max(begin - low, 0) : stop - low
                ]
        if begin < stop == origin + length and length % CHUNK == 0:
            at = base + HEADER + length // CHUNK * WIRE_CHUNK
            head.open_into(length // CHUNK, wire[at : at + TAG], memoryview(bytearray(0)), where)

    def _head(self, part: int, head: bytes) -> PartHead:
        context = part_context(self._artifact_id, self._entry.path, part, self._layout)
        opened = PartHead(head, self._key, context, f"{self.name}: part {part}")
        with self._lock:
            self._heads[part] = opened
            while len(self._heads) > _HEADS:
                self._heads.popitem(last=False)
        return opened

    def _fetch(self, start: int, length: int) -> memoryview:
        """Sealed bytes; from a local disk they are valid until this thread fetches again."""
        if isinstance(self._blob, LocalBlob) and length <= len(_mine.wire):
            data = _mine.wire[:length]
            self._blob.read_into(start, data)
        else:
            data = memoryview(self._blob.read(start, length))
        with self._lock:
            self.bytes_fetched += length
        self._check_size()
        return data


def open_sealed(
    source: Store | Blob | Path | str, artifact_id: str, entry: FileEntry, key: FileKey
) -> SealedFile:
    """Open one sealed file for reading anywhere in it.

    Args:
        source: a store, a local sealed file, an `http(s)` URL (presigned or not), or a `Blob`.
        artifact_id: the artifact that the file belongs to (`Manifest.artifact_id`).
        entry: the file's entry in the manifest.
        key: its key, from an envelope.
    """
    if isinstance(source, str):
        source = UrlSource({entry.path: source}).blob(entry.path)
    elif isinstance(source, Path):
        source = FileBlob(source)
    elif isinstance(source, Store):
        source = StoreSource(source, artifact_id).blob(entry.path)
    return SealedFile(source, artifact_id, entry, key)
