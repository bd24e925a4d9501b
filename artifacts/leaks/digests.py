"""Exact digests of a file, computed while its bytes pass by once (tier 0).

SHA-256 and size are what most places list; the Hub also lists the Xet hash (content-defined chunks, BLAKE3 tree), torrents
list the BitTorrent v2 pieces root (BEP 52), archives list CRC-32. The Xet hash is computed by the Hub's own library
(`hf_xet.hash_files`, the only one that offers it), which takes a path: the bytes reach it through a named pipe in a private
folder, so nothing is written to disk. Without that library the Xet hash is None and `xet_missing` says why.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import importlib
import os
import tempfile
import threading
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BLOCK = 16 * 1024  # BEP 52 leaf
ALL_DIGESTS = frozenset({"sha256", "btv2", "xet", "crc32"})


@dataclass(frozen=True, slots=True)
class FileDigests:
    """What identifies one issued file exactly.

    Attributes:
        path: its path in the artifact.
        size: bytes.
        sha256: hex.
        btv2_root: hex pieces root of BEP 52; None for an empty file or when not asked for.
        xet_hash: hex, as the Hub lists it; None when not asked for or not computable here.
        crc32: as zip archives list it; a hint, not a proof.
        distinctive: whether having this file means having what is withheld (weights), unlike a licence or a tokenizer
            that many models share.
        copy: which partner's issued copy this is; None for the artifact itself.
    """

    path: str
    size: int
    sha256: str
    btv2_root: str | None = None
    xet_hash: str | None = None
    crc32: int | None = None
    distinctive: bool = False
    copy: str | None = None


class PiecesRoot:
    """BitTorrent v2 `pieces root`: a SHA-256 Merkle tree over 16 KiB blocks, padded with zero hashes to a power of two."""

    def __init__(self) -> None:
        self._leaves: list[bytes] = []
        self._rest = bytearray()

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        view = memoryview(data)
        if self._rest:
            take = min(BLOCK - len(self._rest), len(view))
            self._rest += view[:take]
            view = view[take:]
            if len(self._rest) < BLOCK:
                return
            self._leaves.append(hashlib.sha256(self._rest).digest())
            self._rest.clear()
        whole = len(view) // BLOCK * BLOCK
        self._leaves.extend(hashlib.sha256(view[at : at + BLOCK]).digest() for at in range(0, whole, BLOCK))
        self._rest += view[whole:]

    def hexdigest(self) -> str | None:
        """The root in hex; None for an empty file, which has none."""
        level = [*self._leaves, hashlib.sha256(self._rest).digest()] if self._rest else list(self._leaves)
        if not level:
            return None
        padding = bytes(32)
        while len(level) > 1:
            if len(level) % 2:
                level.append(padding)
            level = [hashlib.sha256(a + b).digest() for a, b in zip(level[::2], level[1::2], strict=True)]
            padding = hashlib.sha256(padding + padding).digest()
        return level[0].hex()


class XetHasher:
    """The Hub's Xet hash of a stream, by `hf_xet` reading from a named pipe."""

    def __init__(self) -> None:
        self._library: Any = importlib.import_module("hf_xet")
        self._folder = tempfile.TemporaryDirectory(prefix="sluice-xet-")
        self._pipe = Path(self._folder.name) / "stream"
        os.mkfifo(self._pipe, 0o600)
        self._result: str | None = None
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._run, name="xet-hash", daemon=True)
        self._thread.start()
        self._writer: int | None = self._open()

    def _run(self) -> None:
        try:
            self._result = str(self._library.hash_files([str(self._pipe)])[0].hash)
        except Exception as error:  # noqa: BLE001 - a foreign library's failure costs one digest, not the sealing
            self._failure = f"hf_xet failed: {type(error).__name__}"

    def _open(self) -> int | None:
        # A writer cannot open a pipe without a reader; poll, so that a reader that died cannot hang the sealing.
        while self._thread.is_alive():
            try:
                fd = os.open(self._pipe, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                time.sleep(0.001)
                continue
            os.set_blocking(fd, True)
            with contextlib.suppress(OSError):  # a wider pipe saves most of the switching to and fro
                fcntl.fcntl(fd, getattr(fcntl, "F_SETPIPE_SZ", 1031), 1 << 20)
            return fd
        return None

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes; after the reader failed they are ignored."""
        view = memoryview(data)
        while self._writer is not None and view:
            try:
                view = view[os.write(self._writer, view) :]
            except BrokenPipeError:
                os.close(self._writer)
                self._writer = None

    def hexdigest(self) -> str | None:
        """End the stream and return the hash, or None if the library failed (see `failure`)."""
        self.close()
        self._thread.join(timeout=60)
        self._folder.cleanup()
        return self._result

    def close(self) -> None:
        """End the stream."""
        if self._writer is not None:
            os.close(self._writer)
            self._writer = None

    @property
    def failure(self) -> str | None:
        """Why there is no hash."""
        return self._failure


class StreamDigests:
    """All asked-for digests of one file, fed in order."""

    def __init__(self, path: str, wanted: frozenset[str] = ALL_DIGESTS, sha256: str | None = None) -> None:
        """Start a file.

        Args:
            path: its path in the artifact.
            wanted: of "sha256", "btv2", "xet", "crc32"; SHA-256 is always there.
            sha256: the digest when the caller computes it anyway; it is not computed twice then.
        """
        self.path = path
        self.size = 0
        self.xet_missing: str | None = None
        self._known = sha256
        self._sha = None if sha256 else hashlib.sha256()
        self._pieces = PiecesRoot() if "btv2" in wanted else None
        self._crc: int | None = 0 if "crc32" in wanted else None
        self._xet: XetHasher | None = None
        if "xet" in wanted:
            try:
                self._xet = XetHasher()
            except (ImportError, OSError) as error:
                self.xet_missing = (
                    f"the Xet hash needs `hf_xet` and a place for a named pipe: {type(error).__name__}"
                )

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        self.size += len(data)
        if self._sha is not None:
            self._sha.update(data)
        if self._pieces is not None:
            self._pieces.update(data)
        if self._crc is not None:
            self._crc = zlib.crc32(data, self._crc)
        if self._xet is not None:
            self._xet.update(data)

    def finish(
        self, *, sha256: str | None = None, distinctive: bool = False, copy: str | None = None
    ) -> FileDigests:
        """End the file and return its digests."""
        xet = None
        if self._xet is not None:
            xet = self._xet.hexdigest()
            self.xet_missing = self._xet.failure if xet is None else None
        known = sha256 or self._known or (self._sha.hexdigest() if self._sha is not None else "")
        return FileDigests(
            path=self.path,
            size=self.size,
            sha256=known,
            btv2_root=self._pieces.hexdigest() if self._pieces else None,
            xet_hash=xet,
            crc32=self._crc,
            distinctive=distinctive,
            copy=copy,
        )

    def abandon(self) -> None:
        """Free what a file holds that will not be finished."""
        if self._xet is not None:
            self._xet.close()
            with contextlib.suppress(OSError):
                self._xet.hexdigest()


def digest_stream(
    path: str, chunks: Iterable[bytes], wanted: frozenset[str] = ALL_DIGESTS, *, distinctive: bool = False
) -> FileDigests:
    """Digests of a file from its bytes in order."""
    stream = StreamDigests(path, wanted)
    for chunk in chunks:
        stream.update(chunk)
    return stream.finish(distinctive=distinctive)
