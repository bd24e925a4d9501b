"""The sealed body: one Cobblestone-256 message (C2SP chunked-encryption) per part of a file.

A sealed file is the concatenation of its sealed parts. Each part has a fresh random salt (drawn by the library, also
when a part is sealed again) and a context that says which artifact, file and part it is, so that a part moved, doubled
or taken from elsewhere does not open. Layout and arithmetic: docs/sealed-format.md section 3.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag

from artifacts.encoding import prefixed, u64
from artifacts.errors import IntegrityError, SourceChangedError, SourceError, WrongKeyError
from artifacts.keys import FileKey

CHUNK = 16 * 1024
TAG = 16
WIRE_CHUNK = CHUNK + TAG
HEADER = 24 + 32
"""Salt and key commitment at the head of each part."""

PART_SIZE = 64 * 1024 * 1024
"""Plaintext bytes of a part, unless the manifest says otherwise."""

MAX_PARTS = 10_000
"""S3's limit; larger files get larger parts."""

BLOCK = 1024 * 1024
"""How much is read, sealed and hashed at a time: it stays in the processor's cache."""

_PART_LABEL = b"sluice.release/sealed-part/v1"
_INNER_LABEL = b"sluice.release/sealed-inner/v1"


def sealed_size(size: int) -> int:
    """Bytes of the sealed form of one message of `size` bytes."""
    return HEADER + size + TAG * (size // CHUNK + 1)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file of `size` plaintext bytes lies in parts of `part_size`; everything follows from these two."""

    size: int
    part_size: int

    @property
    def part_count(self) -> int:
        """At least 1: an empty file is one part with an empty message."""
        return max(1, -(-self.size // self.part_size))

    @property
    def sealed_part_size(self) -> int:
        """Sealed bytes of each part but the last."""
        return sealed_size(self.part_size)

    @property
    def sealed_size(self) -> int:
        """Sealed bytes of the whole file."""
        last = self.part_count - 1
        return last * self.sealed_part_size + sealed_size(self.plain_length(last))

    def plain_start(self, index: int) -> int:
        """Offset of part `index` in the plaintext."""
        return index * self.part_size

    def plain_length(self, index: int) -> int:
        """Plaintext bytes of part `index`."""
        return min(self.part_size, self.size - index * self.part_size)

    def sealed_start(self, index: int) -> int:
        """Offset of part `index` in the sealed file."""
        return index * self.sealed_part_size

    def sealed_length(self, index: int) -> int:
        """Sealed bytes of part `index`."""
        return sealed_size(self.plain_length(index))


def part_size_for(size: int, wanted: int = PART_SIZE) -> int:
    """`wanted`, doubled until a file of `size` bytes has at most `MAX_PARTS` parts."""
    while size > wanted * MAX_PARTS:
        wanted *= 2
    return wanted


def part_context(artifact_id: str, path: str, index: int, layout: Layout) -> bytes:
    """What a part is bound to: artifact, path, index, part count, part size and plaintext size."""
    return _PART_LABEL + prefixed(
        artifact_id.encode(),
        path.encode(),
        u64(index),
        u64(layout.part_count),
        u64(layout.part_size),
        u64(layout.size),
    )


def inner_context(artifact_id: str, path: str) -> bytes:
    """What the sealed part of a manifest's file entry is bound to."""
    return _INNER_LABEL + prefixed(artifact_id.encode(), path.encode())


def seal_bytes(key: FileKey, context: bytes, plaintext: bytes | memoryview) -> bytes:
    """Seal a small message in one go."""
    encryptor = Cobblestone256Encryptor(key.raw, context)
    return bytes(encryptor.update(plaintext) + encryptor.finalize())


def open_bytes(key: FileKey, context: bytes, sealed: bytes | memoryview, where: str) -> bytes:
    """Open a message in one go.

    Raises:
        WrongKeyError: the commitment does not fit key and context.
        IntegrityError: cut off or changed.
    """
    decryptor = Cobblestone256Decryptor(key.raw, context)
    head = bytes(sealed[:HEADER])
    if len(head) < HEADER:
        raise IntegrityError(f"{where}: cut off, {len(head)} bytes are too few for a sealed part")
    try:
        decryptor.update(head)
    except InvalidTag:
        raise WrongKeyError(f"{where}: {_WRONG}") from None
    try:
        return bytes(decryptor.update(sealed[HEADER:]) + decryptor.finalize())
    except InvalidTag:
        raise IntegrityError(f"{where}: changed or cut off; fetch it again") from None


_WRONG = "does not open with this key; wrong key, wrong file or part, or a changed head"


class PartSealer:
    """Seals parts of files out of and into buffers of its own, made once: one per worker thread.

    Memory: `part_size` plaintext (kept for the plaintext digest, which has to see the same bytes that were sealed)
    and as much ciphertext, where the store wants a part whole.
    """

    def __init__(self, part_size: int) -> None:
        self._part_size = part_size
        self._plain = memoryview(bytearray(part_size))
        self._sealed = memoryview(b"")
        self._block = memoryview(bytearray(HEADER + (BLOCK // CHUNK + 2) * WIRE_CHUNK))

    def plain(self, length: int) -> memoryview:
        """The plaintext buffer, for a part that is only read."""
        return self._plain[:length]

    def seal(
        self, source: Plaintext, start: int, length: int, key: FileKey, context: bytes, where: str
    ) -> SealedPart:
        """Read `length` bytes at `start` from `source` and seal them. The result is valid until the next call.

        Raises:
            SourceChangedError: the file is shorter than it was when sealing began.
        """
        if not self._sealed:
            # As long as a whole sealed part and no byte longer: a store that sends whole objects then need not copy it.
            self._sealed = memoryview(bytearray(sealed_size(self._part_size)))
        encryptor = Cobblestone256Encryptor(key.raw, context)
        digest, written = hashlib.sha256(), 0
        for block in self._blocks(source, start, length, where):
            room = self._sealed[written:]
            sealed = room[: encryptor.update_into(block, room)]
            digest.update(sealed)
            written += len(sealed)
        tail = encryptor.finalize()
        digest.update(tail)
        self._sealed[written : written + len(tail)] = tail
        return SealedPart(self._plain[:length], self._sealed[: written + len(tail)], digest.hexdigest())

    def seal_to(
        self,
        source: Plaintext,
        start: int,
        length: int,
        key: FileKey,
        context: bytes,
        where: str,
        write: Callable[[memoryview], None],
    ) -> str:
        """As `seal`, but each block goes to `write` while it is still in the processor's cache. Gives the SHA-256.

        The plaintext is in `plain(length)` afterwards.
        """
        encryptor = Cobblestone256Encryptor(key.raw, context)
        digest = hashlib.sha256()
        for block in self._blocks(source, start, length, where):
            sealed = self._block[: encryptor.update_into(block, self._block)]
            digest.update(sealed)
            write(sealed)
        tail = memoryview(encryptor.finalize())
        digest.update(tail)
        write(tail)
        return digest.hexdigest()

    def _blocks(self, source: Plaintext, start: int, length: int, where: str) -> Iterator[memoryview]:
        """The part's plaintext, a block at a time, each read just before it is used."""
        for done in range(0, length, BLOCK):
            block = self._plain[done : min(done + BLOCK, length)]
            read_exactly(source, block, start + done, where)
            yield block


@dataclass(frozen=True, slots=True)
class SealedPart:
    """One sealed part and the plaintext it was made from, both in buffers that the next part overwrites."""

    plain: memoryview
    sealed: memoryview
    sha256: str

    def __repr__(self) -> str:
        return f"SealedPart(sealed={len(self.sealed)} bytes, sha256={self.sha256})"


class ReadsAt(Protocol):
    """Plaintext that is read from elsewhere than this machine's disk. Methods may be called from many threads."""

    def read_at(self, into: memoryview, offset: int) -> int:
        """Fill the beginning of `into` with the bytes at `offset`; how many, 0 at the end."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


Plaintext = int | ReadsAt
"""An open descriptor, or something that reads at an offset."""


def read_exactly(source: Plaintext, into: memoryview, offset: int, where: str) -> None:
    """Fill `into` from `offset`.

    Raises:
        SourceChangedError: the file ends before.
        SourceError: this machine's disk does not give it.
    """
    done = 0
    while done < len(into):
        if isinstance(source, int):
            try:
                count = os.preadv(source, [into[done:]], offset + done)
            except OSError as error:  # told as the source's: around it stands the store that is written to
                raise SourceError(f"{where}: cannot be read ({error.strerror})") from None
        else:
            count = source.read_at(into[done:], offset + done)
        if count == 0:
            raise SourceChangedError(
                f"{where}: became shorter while it was read; stop what writes to it and seal again"
            )
        done += count


class PartOpener:
    """Opens parts through a small buffer of its own, made once: one per worker thread."""

    def __init__(self) -> None:
        self._plain = memoryview(bytearray(BLOCK + 2 * WIRE_CHUNK))

    def open(
        self,
        sealed: Iterable[bytes | memoryview],
        length: int,
        key: FileKey,
        context: bytes,
        where: str,
        write: Callable[[memoryview], None],
        sha256: str | None = None,
    ) -> None:
        """Open a sealed part, which must hold `length` bytes, and hand the plaintext to `write` in order.

        Args:
            sealed: the sealed part in pieces of any size; they are opened as they come.
            length: plaintext bytes of this part.
            key: the file's key.
            context: `part_context`.
            where: names the part in errors.
            write: takes the next bytes; the view is valid during the call only.
            sha256: hex digest that the sealed bytes must have, if it is known.

        No byte reaches `write` before its own tag is verified. That the part is whole and has the digest is known
        only when this returns: until then what was written is a part of nothing.

        Raises:
            WrongKeyError, IntegrityError: it is not the part; what `write` got has to be thrown away.
        """
        decryptor = Cobblestone256Decryptor(key.raw, context)
        digest = hashlib.sha256()
        head, taken, written, expected = b"", 0, 0, sealed_size(length)
        try:
            for piece in sealed:
                view = memoryview(piece)
                taken += len(view)
                if taken > expected:
                    break
                if sha256 is not None:
                    digest.update(view)
                if len(head) < HEADER:
                    missing = HEADER - len(head)
                    head += bytes(view[:missing])
                    view = view[missing:]
                    if len(head) == HEADER:
                        self._check_head(decryptor, head, where)
                for start in range(0, len(view), BLOCK):
                    opened = self._plain[: decryptor.update_into(view[start : start + BLOCK], self._plain)]
                    written += len(opened)
                    write(opened)
            tail = b"" if taken != expected else decryptor.finalize()
        except InvalidTag:
            raise IntegrityError(f"{where}: changed, or parts exchanged; fetch it again") from None
        if taken != expected:
            raise IntegrityError(f"{where}: {taken} sealed bytes, expected {expected}; cut off or extended")
        if sha256 is not None and digest.hexdigest() != sha256:
            raise IntegrityError(
                f"{where}: not the bytes that the manifest lists; the store changed or mixed them up"
            )
        if written + len(tail) != length:
            raise IntegrityError(f"{where}: opens to {written + len(tail)} bytes, the manifest says {length}")
        write(memoryview(tail))

    def _check_head(self, decryptor: Cobblestone256Decryptor, head: bytes, where: str) -> None:
        try:
            decryptor.update(head)
        except InvalidTag:
            raise WrongKeyError(f"{where}: {_WRONG}") from None
