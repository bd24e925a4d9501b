"""Opening a suspect file: what it is by its first bytes (never by its name), and its tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from artifacts.leaks.errors import UnreadableError, UnsupportedError, shown
from artifacts.leaks.matching import ListedFile
from artifacts.leaks.sources import ByteSource, check_range
from artifacts.leaks.suspects import safetensors
from artifacts.leaks.suspects.tensor import Matrix, SuspectTensor, matrices

HEAD = 64 * 1024

# What is recognised only to say why it cannot be judged. Longest first where one is a prefix of another.
_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"age-encryption.org/v1", "an age-encrypted file"),
    (b"-----BEGIN AGE ENCRYPTED FILE", "an age-encrypted file"),
    (b"-----BEGIN PGP MESSAGE", "a PGP-encrypted file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x1f\x8b", "a gzip stream"),
    (b"\xfd7zXZ\x00", "an xz stream"),
    (b"\x28\xb5\x2f\xfd", "a zstd stream"),
    (b"BZh", "a bzip2 stream"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "a PyTorch checkpoint of the old, purely pickled kind"),
)


class PrefixSource:
    """A source whose first bytes are in memory already; ranges inside them cost nothing."""

    def __init__(self, source: ByteSource, head: bytes) -> None:
        self._source = source
        self._head = head

    @property
    def location(self) -> str:
        """As the inner source."""
        return self._source.location

    @property
    def size(self) -> int:
        """As the inner source."""
        return self._source.size

    @property
    def bytes_left(self) -> int:
        """As the inner source."""
        return self._source.bytes_left

    def read(self, offset: int, length: int) -> bytes:
        """From memory where all of it is there, else from the inner source."""
        return self.read_many([(offset, length)])[0]

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The same for several ranges."""
        for offset, length in ranges:
            check_range(self.location, self.size, offset, length)
        far = [r for r in ranges if r[0] + r[1] > len(self._head)]
        fetched = iter(self._source.read_many(far)) if far else iter(())
        return [
            next(fetched) if offset + length > len(self._head) else self._head[offset : offset + length]
            for offset, length in ranges
        ]


@dataclass
class Suspect:
    """All that is known of one suspect: its tensors, and what could not be read.

    Attributes:
        tensors: of all files that were opened.
        problems: reasons why a part of it is not judged.
        listed: further files inside it that are only listed (members of an archive).
    """

    tensors: list[SuspectTensor] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    listed: list[ListedFile] = field(default_factory=list)

    def matrices(self) -> list[Matrix]:
        """Every matrix that can be decoded."""
        return [m for t in self.tensors for m in matrices(t)]

    @property
    def weights(self) -> int:
        """Number of weights in decodable tensors."""
        return sum(t.count for t in self.tensors if t.codec is not None)

    @property
    def opaque_share(self) -> float:
        """Share of the bytes in tensors that cannot be decoded (packed quantisations, unknown formats)."""
        total = sum(t.nbytes for t in self.tensors)
        return sum(t.nbytes for t in self.tensors if t.codec is None) / total if total else 0.0

    def opaque_reasons(self) -> list[str]:
        """Why tensors cannot be decoded, each reason once, with how many there are."""
        counts: dict[str, int] = {}
        for tensor in self.tensors:
            if tensor.codec is None:
                reason = tensor.problem or f"format {shown(tensor.dtype, 20)} is not decoded"
                counts[reason] = counts.get(reason, 0) + 1
        return [f"{n} tensors: {reason}" for reason, n in sorted(counts.items())]


Reader = Callable[[ByteSource, Suspect], None]


def _read_safetensors(source: ByteSource, suspect: Suspect) -> None:
    suspect.tensors.extend(safetensors.read(source))


def reader_for(head: bytes, size: int) -> Reader:
    """The reader for a file that starts with `head`.

    Raises:
        UnsupportedError: naming what it is, if it is nothing that can be read.
    """
    for magic, name in _FOREIGN:
        if head.startswith(magic):
            raise UnsupportedError(f"{name}: cannot be judged from outside")
    if safetensors.looks_like(head, size):
        return _read_safetensors
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise UnsupportedError("a bare pickle: pickles are never loaded")
    if not head:
        raise UnsupportedError("an empty file")
    raise UnsupportedError("not a weights format that is known here; it may be encrypted or compressed")


def open_file(source: ByteSource, suspect: Suspect) -> bool:
    """Read one file's header into the suspect. Returns whether it could be read; if not, the reason is in `problems`."""
    try:
        head = source.read(0, min(HEAD, source.size))
        reader_for(head, source.size)(PrefixSource(source, head), suspect)
    except UnreadableError as error:
        suspect.problems.append(f"{source.location}: {error}")
        return False
    return True
