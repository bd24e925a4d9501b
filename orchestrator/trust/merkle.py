"""The Merkle tree of the audit log: RFC 9162 hashing, appends and proofs in O(log n).

The tree itself lives with its owner (a table of nodes). What is held between appends is `CompactTree`: the roots of
the complete subtrees, at most one per bit of the size. `append` says which nodes became complete and are to be
stored; proofs read back O(log n) of them through a `NodeReader`. Verifying needs neither.

A node is named by (level, index): level 0 are the leaf hashes, node (l, i) covers the leaves [i*2^l, (i+1)*2^l).
Only complete subtrees are stored, so a stored node never changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from orchestrator.trust.errors import Malformed, ProofInvalid

EMPTY_ROOT = hashlib.sha256(b"").digest()
HASH_SIZE = 32
MAX_SIZE = 2**62

NodeReader = Callable[[int, int], bytes]
"""Fetches the stored hash of node (level, index), 32 bytes; raises on its own account when there is none."""


class Node(NamedTuple):
    """A node that became complete and is to be stored: (level, index) and its hash.

    Attributes:
        level: 0 for a leaf.
        position: its index on that level, from the left.
        hash: 32 bytes.
    """

    level: int
    position: int
    hash: bytes


def leaf_hash(leaf: bytes) -> bytes:
    """SHA-256 of 0x00 and the leaf (RFC 9162 section 2.1.1)."""
    return hashlib.sha256(b"\0" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256 of 0x01 and both children."""
    return hashlib.sha256(b"\1" + left + right).digest()


class CompactTree:
    """The frontier of a tree: enough to append and to know the root.

    Attributes:
        size: the number of leaves.
    """

    __slots__ = ("_roots", "size")

    def __init__(self, size: int = 0, roots: Sequence[bytes] = ()) -> None:
        """A tree of `size` leaves, from the roots of its complete subtrees, largest first.

        Raises:
            Malformed: the roots do not fit the size.
        """
        if (
            not 0 <= size < MAX_SIZE
            or len(roots) != size.bit_count()
            or any(len(r) != HASH_SIZE for r in roots)
        ):
            raise Malformed(
                f"{len(roots)} subtree roots do not fit a tree of {size} leaves", where="compact tree"
            )
        self.size = size
        self._roots = list(roots)

    @property
    def roots(self) -> tuple[bytes, ...]:
        """The roots of the complete subtrees, largest first."""
        return tuple(self._roots)

    def to_bytes(self) -> bytes:
        """Size (8 bytes, big-endian) and subtree roots: at most 8 + 32 * log2(size) bytes."""
        return self.size.to_bytes(8, "big") + b"".join(self._roots)

    @classmethod
    def from_bytes(cls, data: bytes) -> CompactTree:
        """The inverse of `to_bytes`.

        Raises:
            Malformed: not such bytes.
        """
        if len(data) < 8 or (len(data) - 8) % HASH_SIZE:
            raise Malformed("is not a serialised compact tree", where="compact tree")
        roots = [data[at : at + HASH_SIZE] for at in range(8, len(data), HASH_SIZE)]
        return cls(int.from_bytes(data[:8], "big"), roots)

    def copy(self) -> CompactTree:
        """An independent copy."""
        return CompactTree(self.size, self._roots)

    def append(self, leaf: bytes) -> list[Node]:
        """Append a leaf; returns the nodes that became complete, the leaf's own first."""
        return self.append_hash(leaf_hash(leaf))

    def append_hash(self, hashed: bytes) -> list[Node]:
        """Append a leaf by its hash; returns the nodes that became complete, the leaf's own first."""
        index = self.size
        if index + 1 >= MAX_SIZE:
            raise Malformed("the tree is full", where="compact tree")
        completed = [Node(0, index, hashed)]
        roots = self._roots
        level, rest = 0, index
        while rest & 1:
            hashed = node_hash(roots.pop(), hashed)
            level += 1
            rest >>= 1
            completed.append(Node(level, rest, hashed))
        roots.append(hashed)
        self.size = index + 1
        return completed

    def root(self) -> bytes:
        """The root over all leaves; `EMPTY_ROOT` for none."""
        if not self._roots:
            return EMPTY_ROOT
        return _fold(self._roots)


def _fold(roots: Sequence[bytes]) -> bytes:
    """The root above complete subtrees, largest first."""
    hashed = roots[-1]
    for left in reversed(roots[:-1]):
        hashed = node_hash(left, hashed)
    return hashed


def _split(size: int) -> int:
    """The largest power of two smaller than `size` (for size > 1)."""
    return 1 << ((size - 1).bit_length() - 1)


def _range_root(start: int, end: int, read: NodeReader) -> bytes:
    """The root of leaves [start, end), where the tree's shape makes them one subtree."""
    roots = []
    while start < end:
        level = min((end - start).bit_length() - 1, (start & -start).bit_length() - 1 if start else 62)
        roots.append(_read(read, level, start >> level))
        start += 1 << level
    return _fold(roots)


def _read(read: NodeReader, level: int, index: int) -> bytes:
    hashed = read(level, index)
    if len(hashed) != HASH_SIZE:
        raise Malformed(
            f"node ({level}, {index}) has {len(hashed)} bytes, not {HASH_SIZE}", where="stored tree"
        )
    return hashed


def root_at(size: int, read: NodeReader) -> bytes:
    """The root that the tree had when it had `size` leaves, from its stored nodes."""
    if not 0 <= size < MAX_SIZE:
        raise Malformed(f"a tree cannot have {size} leaves", where="stored tree")
    return EMPTY_ROOT if size == 0 else _range_root(0, size, read)


def compact_tree_at(size: int, read: NodeReader) -> CompactTree:
    """The frontier that the tree had when it had `size` leaves, from its stored nodes."""
    roots, start = [], 0
    for level in range(size.bit_length() - 1, -1, -1):
        if size >> level & 1:
            roots.append(_read(read, level, start >> level))
            start += 1 << level
    return CompactTree(size, roots)


def inclusion_proof(index: int, size: int, read: NodeReader) -> list[bytes]:
    """The path from leaf `index` to the root of the tree of `size` leaves (RFC 9162 section 2.1.3.1).

    Raises:
        ProofInvalid: there is no such leaf in that tree.
    """
    if not 0 <= index < size < MAX_SIZE:
        raise ProofInvalid(f"a log of {size} entries has no entry {index}", where="inclusion proof")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_range_root(middle, end, read))
            end = middle
        else:
            path.append(_range_root(start, middle, read))
            start = middle
    return path[::-1]


def consistency_proof(old: int, new: int, read: NodeReader) -> list[bytes]:
    """The proof that the tree of `new` leaves extends that of `old` leaves (RFC 9162 section 2.1.4.1).

    Empty when the sizes are equal or `old` is 0.

    Raises:
        ProofInvalid: `old` is larger than `new`.
    """
    if not 0 <= old <= new < MAX_SIZE:
        raise ProofInvalid(f"a log of {new} entries cannot extend one of {old}", where="consistency proof")
    if old in {0, new}:
        return []
    path: list[bytes] = []
    start, end, whole = 0, new, True
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            path.append(_range_root(middle, end, read))
            end = middle
        else:
            path.append(_range_root(start, middle, read))
            start, whole = middle, False
    if not whole:
        path.append(_range_root(start, end, read))
    return path[::-1]


def verify_inclusion(hashed: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check an inclusion proof offline (RFC 9162 section 2.1.3.2).

    Args:
        hashed: the leaf's hash.
        index: its place.
        size: the size of the tree that `root` belongs to.
        path: the proof.
        root: the root, from a verified checkpoint.

    Raises:
        ProofInvalid: the path does not lead to the root.
    """
    where = f"inclusion proof of entry {index}"
    if not 0 <= index < size < MAX_SIZE or len(path) > 64:
        raise ProofInvalid(f"a log of {size} entries has no entry {index}", where=where)
    fn, sn, running = index, size - 1, hashed
    for step in path:
        if sn == 0:
            raise ProofInvalid("is too long", where=where)
        if fn & 1 or fn == sn:
            running = node_hash(step, running)
            while not fn & 1 and fn:
                fn >>= 1
                sn >>= 1
        else:
            running = node_hash(running, step)
        fn >>= 1
        sn >>= 1
    if sn != 0:
        raise ProofInvalid("is too short", where=where)
    if running != root:
        raise ProofInvalid(
            "does not lead to the checkpoint's root", where=where, remedy="the entry is not in that log"
        )


def verify_consistency(old: int, new: int, path: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """Check a consistency proof offline (RFC 9162 section 2.1.4.2).

    Raises:
        ProofInvalid: the new tree does not extend the old one, or the proof is not one.
    """
    where = f"consistency proof from {old} to {new} entries"
    if not 0 <= old <= new < MAX_SIZE or len(path) > 64:
        raise ProofInvalid("the log has become smaller", where=where)
    if old == new or old == 0:
        if path:
            raise ProofInvalid("is too long", where=where)
        if old == new and old_root != new_root:
            raise ProofInvalid("two roots for one size: the log was rewritten", where=where)
        if old == 0 and old_root != EMPTY_ROOT:
            raise ProofInvalid("an empty log has another root", where=where)
        return
    steps: Iterator[bytes] = iter(path)
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn >>= 1
        sn >>= 1
    first = old_root if fn == 0 else next(steps, None)
    if first is None:
        raise ProofInvalid("is too short", where=where)
    fr = sr = first
    for step in steps:
        if sn == 0:
            raise ProofInvalid("is too long", where=where)
        if fn & 1 or fn == sn:
            fr, sr = node_hash(step, fr), node_hash(step, sr)
            while not fn & 1 and fn:
                fn >>= 1
                sn >>= 1
        else:
            sr = node_hash(sr, step)
        fn >>= 1
        sn >>= 1
    if sn != 0:
        raise ProofInvalid("is too short", where=where)
    if fr != old_root or sr != new_root:
        raise ProofInvalid("the log is not an extension of the earlier one: it was rewritten", where=where)
