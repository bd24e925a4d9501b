r"""The audit log as a file: JSON lines with every leaf and the signed checkpoints, verified offline as a stream.

    {"format":"sluice-audit/v1","origin":"sluice.example/log","start":0,"subtrees":[]}
    {"index":0,"hash":"<leaf hash, hex>","leaf":{...canonical JSON...}}
    ...
    {"checkpoint":"sluice.example/log\n2\n<root>\n\n— sluice.example/log <signature>\n"}

Each line is canonical JSON with the key order above (for speed, the leaf's bytes are cut out of the line, and they
are exactly the bytes that were hashed). A checkpoint stands right behind the entries that it covers; nothing stands
behind the last one. An export may begin at an earlier checkpoint (`start`), with that tree's subtree roots.

What is named when something is wrong: an entry whose bytes do not fit its recorded hash, that is missing, doubled or
out of order, is named alone. Where entry and hash were both rewritten, the range between two signed checkpoints is
named, for no more can be known from the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from orchestrator.trust.checkpoints import Checkpoint, NoteVerifier, verify_checkpoint
from orchestrator.trust.encoding import canonical_json, parse_object
from orchestrator.trust.errors import EntryInvalid, LogInvalid, LogRewritten, Malformed, TrustError
from orchestrator.trust.merkle import HASH_SIZE, CompactTree, leaf_hash

FORMAT = "sluice-audit/v1"
MAX_LEAF = 1 << 20

_ENTRY = b'{"index":'
_CHECKPOINT = b'{"checkpoint":'


def leaf_bytes(entry: Mapping[str, Any]) -> bytes:
    """The bytes of a leaf: the entry as canonical JSON.

    Raises:
        Malformed: a value that JSON cannot hold exactly.
    """
    return canonical_json(dict(entry), where="log entry")


@dataclass(frozen=True, slots=True)
class VerifiedLog:
    """What a verified export amounts to.

    Attributes:
        origin: the log's name.
        start: the index of the first entry in the file.
        size: the number of entries in the log.
        root: its Merkle root.
        checkpoints: how many signed checkpoints were verified.
        last_checkpoint: the last one, as a signed note: keep it, and pass it as `previous_checkpoint` next time.
    """

    origin: str
    start: int
    size: int
    root: bytes
    checkpoints: int
    last_checkpoint: str


def export_lines(
    origin: str,
    leaves: Iterable[bytes],
    checkpoints: Iterable[str],
    *,
    start: CompactTree | None = None,
) -> Iterator[bytes]:
    """Write a log as JSON lines (each with its newline).

    Args:
        origin: the log's name.
        leaves: the leaves' bytes in order, beginning behind `start`.
        checkpoints: signed checkpoints by rising size, the last of them over everything.
        start: the tree before the first leaf, for an export that continues an earlier one.

    Raises:
        LogInvalid: a checkpoint does not lie within the leaves, or leaves stand behind the last one.
        Malformed: a leaf that is not canonical JSON, or a note that is no checkpoint.
    """
    tree = CompactTree() if start is None else start
    index = tree.size
    subtrees = [root.hex() for root in tree.roots]
    header = {"format": FORMAT, "origin": origin, "start": index, "subtrees": subtrees}
    yield canonical_json(header) + b"\n"
    pending = iter(checkpoints)
    note = next(pending, None)
    covered = index
    leaf_iterator = iter(leaves)
    while True:
        while note is not None and _size_of(note) == index:
            yield canonical_json({"checkpoint": note}) + b"\n"
            covered, note = index, next(pending, None)
        if note is not None and _size_of(note) < index:
            raise LogInvalid(
                f"a checkpoint of {_size_of(note)} entries stands out of order", where="audit export"
            )
        leaf = next(leaf_iterator, None)
        if leaf is None:
            break
        _leaf_object(leaf, index)
        yield b'{"index":%d,"hash":"%s","leaf":%s}\n' % (index, leaf_hash(leaf).hex().encode(), leaf)
        index += 1
    if note is not None or covered != index:
        raise LogInvalid(
            f"the log has {index} entries, its last checkpoint covers {covered}",
            where="audit export",
            remedy="have custody sign a checkpoint over all entries first",
        )


def verify_export(
    lines: Iterable[bytes],
    *verifiers: NoteVerifier,
    previous_checkpoint: str | None = None,
    origin: str | None = None,
    on_entry: Callable[[int, dict[str, Any]], None] | None = None,
) -> VerifiedLog:
    """Verify an exported log offline, in one pass and constant memory.

    Args:
        lines: the file's lines.
        verifiers: the pinned log keys.
        previous_checkpoint: a signed checkpoint that was seen before; the log must extend it.
        origin: the log's name; None for the name of any of the keys.
        on_entry: called with index and parsed leaf of each entry, **before** the checkpoint over it is reached: act
            on what it collects only once this function has returned.

    Raises:
        EntryInvalid: an entry, or a range of them, is bad; `index` and `last` name it.
        LogRewritten: the log does not extend `previous_checkpoint`.
        LogInvalid: the file as a whole does not hold together.
        Malformed, SignatureInvalid, UnknownKey: header or checkpoint are not what they should be.
    """
    iterator = iter(lines)
    header = _header(next(iterator, b""))
    previous = (
        None
        if previous_checkpoint is None
        else verify_checkpoint(previous_checkpoint, *verifiers, origin=origin)
    )
    tree = CompactTree(header.size, header.roots)
    start = covered = tree.size
    _check_start(tree, previous)
    checkpoints, last_note, name = 0, "", ""
    met = previous is None or previous.size == start
    for line in iterator:
        if line.startswith(_ENTRY):
            leaf, hashed = _entry(line, tree.size)
            parsed = _leaf_object(leaf, tree.size)
            if on_entry is not None:
                on_entry(tree.size, parsed)
            tree.append_hash(hashed)
            if not met and previous is not None and tree.size == previous.size:
                _check_previous(tree, previous)
                met = True
        elif line.startswith(_CHECKPOINT):
            last_note = _note(line, tree.size)
            checkpoint = _checked(last_note, verifiers, origin, covered, tree)
            name, covered = checkpoint.origin, tree.size
            checkpoints += 1
        else:
            raise EntryInvalid(
                "is neither an entry nor a checkpoint", index=tree.size, where=_line(tree.size)
            )
    if checkpoints == 0:
        raise LogInvalid("holds no signed checkpoint", where="audit export", remedy="export again")
    if name != header.origin:
        raise LogInvalid("the header names another log than the checkpoints", where="audit export")
    if covered != tree.size:
        raise EntryInvalid(
            f"no signed checkpoint covers entries {covered} to {tree.size - 1}",
            index=covered,
            last=tree.size - 1,
            where="audit export",
            remedy="they were added by someone without the log's key, or the export was cut off",
        )
    if not met and previous is not None:
        raise LogRewritten(
            f"has {tree.size} entries, but a checkpoint over {previous.size} was seen before",
            where="audit export",
            remedy="entries were taken away, or an old state was restored; compare with the second place",
        )
    return VerifiedLog(name, start, tree.size, tree.root(), checkpoints, last_note)


@dataclass(frozen=True, slots=True)
class _Header:
    origin: str
    size: int
    roots: list[bytes]


def _header(line: bytes) -> _Header:
    where = "audit export, header"
    raw = parse_object(line, where=where)
    if set(raw) != {"format", "origin", "start", "subtrees"} or raw["format"] != FORMAT:
        raise Malformed(f"is not of the format {FORMAT}", where=where)
    start, subtrees, origin = raw["start"], raw["subtrees"], raw["origin"]
    if type(start) is not int or not isinstance(subtrees, list) or not isinstance(origin, str):
        raise Malformed("`start` is no number, `origin` no text or `subtrees` no list", where=where)
    return _Header(origin, start, [_hex(root, where) for root in subtrees])


def _check_start(tree: CompactTree, previous: Checkpoint | None) -> None:
    if tree.size == 0:
        return
    if previous is None:
        raise LogInvalid(
            f"begins at entry {tree.size}; what stands before is unknown",
            where="audit export",
            remedy=f"give the checkpoint over {tree.size} entries that was kept, or export from the beginning",
        )
    if previous.size != tree.size:
        raise LogInvalid(
            f"begins at entry {tree.size}, but the checkpoint given covers {previous.size}",
            where="audit export",
            remedy=f"export from entry {previous.size}",
        )
    _check_previous(tree, previous)


def _check_previous(tree: CompactTree, previous: Checkpoint) -> None:
    if tree.root() != previous.root:
        raise LogRewritten(
            f"its first {previous.size} entries are not those of the checkpoint seen before",
            where="audit export",
            remedy="the log was rewritten; keep both files and compare with the second place",
        )


def _entry(line: bytes, expected: int) -> tuple[bytes, bytes]:
    """The leaf's bytes and its hash, of a line that should be entry `expected`."""
    prefix = b'{"index":%d,"hash":"' % expected
    at = len(prefix)
    if not line.startswith(prefix):
        number = line[len(_ENTRY) : len(_ENTRY) + 20].split(b",")[0].decode("ascii", "replace")
        raise EntryInvalid(
            f"stands where entry {expected} should: an entry is missing, doubled or out of order",
            index=expected,
            where=f"entry {number}",
        )
    end = line.rstrip(b"\r\n")
    if line[at + 64 : at + 73] != b'","leaf":' or not end.endswith(b"}"):
        raise EntryInvalid("is cut off or not of the format", index=expected, where=_line(expected))
    leaf = end[at + 73 : -1]
    hashed = leaf_hash(leaf)
    if hashed.hex().encode() != line[at : at + 64]:
        raise EntryInvalid(
            "does not fit its recorded hash: it was altered", index=expected, where=_line(expected)
        )
    return leaf, hashed


def _refuse_number(text: str) -> NoReturn:
    raise _NotPlainError(text)


class _NotPlainError(ValueError):
    pass


_BEYOND = re.compile("[\ud800-\U0010ffff]")
_FAST = json.JSONDecoder(parse_float=_refuse_number, parse_constant=_refuse_number)
_DUMP = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _leaf_object(leaf: bytes, index: int) -> dict[str, Any]:
    """The leaf as an object; refuses any spelling but the canonical one.

    For leaves without fractions and without keys beyond the basic plane, the C encoder's sorted output *is* RFC 8785;
    only for what differs from it, the full (slow) canonicaliser is asked.
    """
    if len(leaf) <= MAX_LEAF:
        try:
            text = leaf.decode()
            value = _FAST.decode(text)
            if (
                type(value) is dict
                and _DUMP.encode(value) == text
                and (text.isascii() or not _BEYOND.search(text))
            ):
                return value
        except (ValueError, RecursionError):
            pass
    try:
        parsed = parse_object(leaf, where=_line(index), limit=MAX_LEAF)
        if canonical_json(parsed) == leaf:
            return parsed
    except TrustError as error:
        raise EntryInvalid(error.what, index=index, where=_line(index)) from None
    raise EntryInvalid("is not canonical JSON", index=index, where=_line(index))


def _note(line: bytes, size: int) -> str:
    raw = parse_object(line, where=f"checkpoint behind entry {size - 1}")
    if set(raw) != {"checkpoint"} or not isinstance(raw["checkpoint"], str):
        raise Malformed("is not a checkpoint line", where=f"checkpoint behind entry {size - 1}")
    return str(raw["checkpoint"])


def _checked(
    note: str, verifiers: Sequence[NoteVerifier], origin: str | None, covered: int, tree: CompactTree
) -> Checkpoint:
    checkpoint = verify_checkpoint(note, *verifiers, origin=origin)
    if checkpoint.size != tree.size:
        raise EntryInvalid(
            f"a signed checkpoint over {checkpoint.size} entries stands behind {tree.size}: entries are missing or added",
            index=min(covered, checkpoint.size),
            last=max(tree.size, checkpoint.size) - 1,
            where="audit export",
        )
    if checkpoint.root != tree.root():
        raise EntryInvalid(
            f"the signed checkpoint over {tree.size} entries does not fit: one of the entries {covered} to "
            f"{tree.size - 1} was rewritten together with its hash",
            index=covered,
            last=max(covered, tree.size - 1),
            where="audit export",
        )
    return checkpoint


def _size_of(note: str) -> int:
    """The size that a note claims; the exporter trusts its own store."""
    return Checkpoint.parse(note.rpartition("\n\n")[0] + "\n").size


def _hex(text: object, where: str) -> bytes:
    try:
        data = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        data = b""
    if len(data) != HASH_SIZE:
        raise Malformed("a subtree root is not 64 hex digits", where=where)
    return data


def _line(index: int) -> str:
    return f"entry {index}"
