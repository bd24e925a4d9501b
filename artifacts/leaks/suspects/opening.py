"""Opening a suspect file: what it is by its first bytes (never by its name), and its tensors."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from artifacts.leaks.errors import UnreadableError, UnsupportedError, shown
from artifacts.leaks.matching import ListedFile
from artifacts.leaks.sources import ByteSource, check_range
from artifacts.leaks.suspects import archive, gguf_file, numpy_files, safetensors, torch_zip
from artifacts.leaks.suspects.tensor import Matrix, SuspectTensor, matrices

HEAD = 64 * 1024
MAX_NESTING = 2
MAX_TEXT = 64 << 20
MAX_OPENED = 4096  # members of an archive; each costs requests, so that the budget ends it sooner
MIN_MEMBER = 16 * 1024

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


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that could not be read: why, and how many bytes it has."""

    size: int
    reason: str


@dataclass
class Suspect:
    """All that is known of one suspect: its tensors, and what could not be read.

    Attributes:
        tensors: of all files that were opened.
        problems: parts of it that are not judged, and why.
        listed: further files inside it that are only listed (members of an archive).
    """

    tensors: list[SuspectTensor] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
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
        return (
            sum(t.nbytes for t in self.tensors if t.codec is None or t.transposed) / total if total else 0.0
        )

    def opaque_reasons(self) -> list[str]:
        """Why tensors cannot be decoded, each reason once, with how many there are."""
        counts: dict[str, int] = {}
        for tensor in self.tensors:
            if tensor.codec is None or tensor.transposed:
                reason = tensor.problem or "stored column-major: only the whole file can tell"
                counts[reason] = counts.get(reason, 0) + 1
        return [f"{n} tensors: {reason}" for reason, n in sorted(counts.items())]


Reader = Callable[[ByteSource, Suspect, int], None]


def _read_safetensors(source: ByteSource, suspect: Suspect, depth: int) -> None:
    suspect.tensors.extend(safetensors.read(source))


def _read_gguf(source: ByteSource, suspect: Suspect, depth: int) -> None:
    suspect.tensors.extend(gguf_file.read(source))


def _read_npy(source: ByteSource, suspect: Suspect, depth: int) -> None:
    suspect.tensors.append(numpy_files.read(source, source.location))


def _read_zip(source: ByteSource, suspect: Suspect, depth: int) -> None:
    """A PyTorch checkpoint, an `.npz`, or an archive with weight files in it."""
    names = archive.members(source)
    root = torch_zip.root_of(names)
    if root is not None:
        suspect.tensors.extend(torch_zip.read(source, names, root))
        return
    if depth >= MAX_NESTING:
        raise UnsupportedError(f"archives nested deeper than {MAX_NESTING} are not opened")
    held = [i for i in names.values() if i.file_size >= MIN_MEMBER or i.filename.endswith(".npy")]
    for info in sorted(held, key=lambda i: -i.file_size)[:MAX_OPENED]:
        label = f"{source.location}!{shown(info.filename)}"
        if not info.flag_bits & 1:
            suspect.listed.append(ListedFile(label, info.file_size, crc32=info.CRC))
        try:
            member = archive.open_member(source, info)
            if isinstance(member, archive.InflatedMember) and info.file_size > archive.MAX_INFLATED:
                raise UnsupportedError("compressed inside an archive: only the whole file can tell")
            open_inside(member, suspect, depth + 1)
        except NoWeightsError:
            continue
        except UnreadableError as error:
            suspect.problems.append(Problem(info.file_size, f"{label}: {error}"))
    if len(held) > MAX_OPENED:
        reason = f"{source.location}: only {MAX_OPENED} of {len(held)} members were opened"
        suspect.problems.append(Problem(source.size, reason))


class NoWeightsError(UnsupportedError):
    """A file that is certainly no weights; in a repository it says nothing against the rest."""


def looks_like_text(head: bytes) -> bool:
    """Whether a file's beginning is UTF-8 text with words in it (a long run of base64 is not)."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # a cut last character is no error
    except UnicodeDecodeError:
        return False
    if "\0" in text:
        return False
    return sum(c.isspace() or c in '",:{}[]' for c in text) * 100 >= len(text)


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
    if head.startswith(gguf_file.MAGIC):
        return _read_gguf
    if head.startswith(numpy_files.MAGIC):
        return _read_npy
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _read_zip
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise UnsupportedError("a bare pickle: pickles are never loaded")
    if not head:
        raise UnsupportedError("an empty file")
    if looks_like_text(head) and size <= MAX_TEXT:
        raise NoWeightsError("text: there are no weights in it")
    raise UnsupportedError("not a weights format that is known here; it may be encrypted or compressed")


def open_inside(source: ByteSource, suspect: Suspect, depth: int = 0) -> None:
    """Read one file's header into the suspect.

    Raises:
        UnreadableError: if it cannot be read.
    """
    head = source.read(0, min(HEAD, source.size))
    reader_for(head, source.size)(PrefixSource(source, head), suspect, depth)


def open_file(source: ByteSource, suspect: Suspect) -> bool:
    """Read one file's header into the suspect. Returns whether it could be read; if not, the reason is in `problems`."""
    try:
        open_inside(source, suspect)
    except NoWeightsError as error:
        suspect.problems.append(Problem(0, f"{source.location}: {error}"))
        return False
    except UnreadableError as error:
        suspect.problems.append(Problem(source.size, f"{source.location}: {error}"))
        return False
    return True
