"""The tree against published roots and against a naive second implementation."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.trust.errors import Malformed, ProofInvalid, TrustError
from orchestrator.trust.merkle import (
    EMPTY_ROOT,
    CompactTree,
    compact_tree_at,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_at,
    verify_consistency,
    verify_inclusion,
)

# The leaves, roots and proofs of the Certificate Transparency reference implementation.
CT_LEAVES = [
    bytes.fromhex(text)
    for text in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def naive_root(leaves):
    """RFC 9162 section 2.1.1, word for word."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def naive_path(m, leaves):
    """RFC 9162 section 2.1.3.1, word for word."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m < k:
        return [*naive_path(m, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(m - k, leaves[k:]), naive_root(leaves[:k])]


def naive_subproof(m, leaves, whole):
    """RFC 9162 section 2.1.4.1, word for word."""
    if m == len(leaves):
        return [] if whole else [naive_root(leaves)]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m <= k:
        return [*naive_subproof(m, leaves[:k], whole), naive_root(leaves[k:])]
    return [*naive_subproof(m - k, leaves[k:], False), naive_root(leaves[:k])]


class Stored:
    """A tree with its stored nodes, counting reads."""

    def __init__(self, leaves=()):
        self.tree, self.nodes, self.reads = CompactTree(), {}, 0
        for leaf in leaves:
            self.append(leaf)

    def append(self, leaf):
        completed = self.tree.append(leaf)
        for level, position, hashed in completed:
            assert (level, position) not in self.nodes, "a stored node never changes"
            self.nodes[level, position] = hashed
        return completed

    def read(self, level, index):
        self.reads += 1
        return self.nodes[level, index]


def numbered(count):
    return [b"leaf %d" % i for i in range(count)]


def test_roots_are_those_of_the_certificate_transparency_reference():
    stored = Stored()
    for leaf, root in zip(CT_LEAVES, CT_ROOTS, strict=True):
        stored.append(leaf)
        assert stored.tree.root().hex() == root


def test_paths_are_those_of_the_certificate_transparency_reference():
    stored = Stored(CT_LEAVES)
    assert [step.hex() for step in inclusion_proof(5, 8, stored.read)] == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    assert [step.hex() for step in consistency_proof(6, 8, stored.read)] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


def test_every_root_and_proof_up_to_40_entries_is_that_of_the_naive_implementation():
    leaves = numbered(40)
    stored = Stored(leaves)
    roots = [naive_root(leaves[:size]) for size in range(41)]
    for new in range(41):
        assert root_at(new, stored.read) == roots[new]
        assert compact_tree_at(new, stored.read).root() == roots[new]
        for index in range(new):
            path = inclusion_proof(index, new, stored.read)
            assert path == naive_path(index, leaves[:new])
            verify_inclusion(leaf_hash(leaves[index]), index, new, path, roots[new])
        for old in range(new + 1):
            path = consistency_proof(old, new, stored.read)
            assert path == (naive_subproof(old, leaves[:new], True) if 0 < old < new else [])
            verify_consistency(old, new, path, roots[old], roots[new])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 700), st.data())
def test_larger_trees_agree_with_the_naive_implementation(size, data):
    leaves = numbered(size)
    stored = Stored(leaves)
    assert stored.tree.root() == naive_root(leaves)
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    assert inclusion_proof(index, size, stored.read) == naive_path(index, leaves)
    if old < size:
        assert consistency_proof(old, size, stored.read) == naive_subproof(old, leaves, True)


def test_appending_continues_from_a_serialised_frontier():
    leaves = numbered(100)
    whole = Stored(leaves).tree
    for cut in range(101):
        tree = CompactTree.from_bytes(Stored(leaves[:cut]).tree.to_bytes())
        for leaf in leaves[cut:]:
            tree.append(leaf)
        assert tree.to_bytes() == whole.to_bytes()


def test_appends_and_proofs_stay_logarithmic_in_a_tree_of_a_billion_entries():
    """A tree with one and the same leaf everywhere: its nodes are known without building it."""
    same = [leaf_hash(b"x")]
    for _ in range(40):
        same.append(hashlib.sha256(b"\1" + same[-1] + same[-1]).digest())
    reads = []

    def read(level, index):
        reads.append((level, index))
        return same[level]

    size = 1_000_000_007
    tree = compact_tree_at(size, read)
    assert len(reads) == size.bit_count()
    assert len(tree.append(b"x")) <= 31
    assert len(tree.to_bytes()) <= 8 + 32 * 31
    reads.clear()
    path = inclusion_proof(777_777_777, size, read)
    assert len(reads) <= 62
    verify_inclusion(same[0], 777_777_777, size, path, root_at(size, read))
    reads.clear()
    path = consistency_proof(123_456_789, size, read)
    assert len(reads) <= 93
    verify_consistency(123_456_789, size, path, root_at(123_456_789, read), root_at(size, read))


@settings(deadline=None)
@given(st.integers(2, 70), st.data())
def test_a_proof_that_was_tampered_with_is_refused(size, data):
    leaves = numbered(size)
    stored = Stored(leaves)
    root = stored.tree.root()
    index = data.draw(st.integers(0, size - 1))
    path = inclusion_proof(index, size, stored.read)
    at = data.draw(st.integers(0, len(path) - 1))
    bent = [*path[:at], bytes([path[at][0] ^ 1]) + path[at][1:], *path[at + 1 :]]
    attacks = [
        (leaf_hash(b"forged"), index, size, path, root),
        (leaf_hash(leaves[index]), index, size, bent, root),
        (leaf_hash(leaves[index]), index, size, path[:-1], root),
        (leaf_hash(leaves[index]), index, size, [*path, root], root),
        (leaf_hash(leaves[index]), index, size, path, EMPTY_ROOT),
        (leaf_hash(leaves[index]), (index + 1) % size, size, path, root),
        (leaf_hash(leaves[index]), size, size, path, root),
        (leaf_hash(leaves[index]), -1, size, path, root),
    ]
    for attack in attacks:
        with pytest.raises(ProofInvalid):
            verify_inclusion(*attack)


@settings(deadline=None)
@given(st.integers(2, 70), st.data())
def test_a_rewritten_log_has_no_consistency_proof(size, data):
    old = data.draw(st.integers(1, size - 1))
    victim = data.draw(st.integers(0, old - 1))
    leaves = numbered(size)
    old_root = Stored(leaves[:old]).tree.root()
    rewritten = Stored([b"forged" if i == victim else leaf for i, leaf in enumerate(leaves)])
    path = consistency_proof(old, size, rewritten.read)
    with pytest.raises(ProofInvalid):
        verify_consistency(old, size, path, old_root, rewritten.tree.root())
    honest = Stored(leaves)
    path = consistency_proof(old, size, honest.read)
    for bent in ([*path, old_root], path[:-1], path[1:], []):
        if bent != path:
            with pytest.raises(ProofInvalid):
                verify_consistency(old, size, bent, old_root, honest.tree.root())


def test_a_log_that_became_smaller_is_refused():
    with pytest.raises(ProofInvalid, match="smaller"):
        verify_consistency(5, 4, [], EMPTY_ROOT, EMPTY_ROOT)
    with pytest.raises(ProofInvalid):
        consistency_proof(5, 4, Stored(numbered(5)).read)
    with pytest.raises(ProofInvalid):
        inclusion_proof(5, 5, Stored(numbered(5)).read)


def test_two_roots_for_one_size_are_refused():
    with pytest.raises(ProofInvalid, match="rewritten"):
        verify_consistency(3, 3, [], b"a" * 32, b"b" * 32)
    with pytest.raises(ProofInvalid, match="empty log"):
        verify_consistency(0, 3, [], b"a" * 32, b"b" * 32)


@given(st.binary(max_size=200))
def test_no_bytes_make_a_frontier_raise_anything_but_a_trust_error(data):
    try:
        tree = CompactTree.from_bytes(data)
    except TrustError:
        return
    assert tree.to_bytes() == data


@settings(deadline=None)
@given(st.integers(-3, 300), st.integers(-3, 300), st.lists(st.binary(min_size=32, max_size=32), max_size=70))
def test_no_numbers_make_verifiers_raise_anything_but_a_trust_error(a, b, path):
    for verify in (
        lambda: verify_inclusion(b"l" * 32, a, b, path, b"r" * 32),
        lambda: verify_consistency(a, b, path, b"o" * 32, b"r" * 32),
    ):
        try:
            verify()
        except ProofInvalid:
            continue
        assert a == 0
        assert False, "random bytes proved something"  # noqa: B011, PT015


def test_a_stored_node_of_another_length_is_refused():
    with pytest.raises(Malformed, match="31 bytes"):
        root_at(2, lambda _level, _index: b"x" * 31)
