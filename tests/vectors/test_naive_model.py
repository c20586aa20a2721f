"""Our tree and proofs against a naive recursive model, RFC 9162 word for word: each size up to 300, and larger ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup_verify import tree as verifier
from recoup_verify.documents import Disproved
from services.audit.model import merkle

SIZES = 300
LARGER = 4000
HIGHEST = 62  # Of the verifier's numbers, which end before 2^63.

Subtree = Callable[[int, int], bytes]


def pair(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def half(size: int) -> int:
    """The largest power of two smaller than `size`, counted up to it."""
    k = 1
    while k * 2 < size:
        k *= 2
    return k


def tree(leaf: Callable[[int], bytes]) -> Subtree:
    """MTH(D[start:end]) of section 2.1.1, over the hashes of leaves."""

    @cache
    def mth(start: int, end: int) -> bytes:
        if end - start == 1:
            return leaf(start)
        middle = start + half(end - start)
        return pair(mth(start, middle), mth(middle, end))

    return mth


def path(mth: Subtree, index: int, start: int, end: int) -> list[bytes]:
    """PATH(m, D[start:end]) of section 2.1.3.1; `index` counts from `start`."""
    if end - start == 1:
        return []
    k = half(end - start)
    if index < k:
        return [*path(mth, index, start, start + k), mth(start + k, end)]
    return [*path(mth, index - k, start + k, end), mth(start, start + k)]


def proof(mth: Subtree, first: int, second: int) -> list[bytes]:
    """PROOF(m, D[n]) of section 2.1.4.1."""

    def subproof(m: int, start: int, end: int, known: bool) -> list[bytes]:
        if m == end - start:
            return [] if known else [mth(start, end)]
        k = half(end - start)
        if m <= k:
            return [*subproof(m, start, start + k, known), mth(start + k, end)]
        return [*subproof(m - k, start + k, end, False), mth(start, start + k)]

    return subproof(first, 0, second, True)


def content(number: int) -> bytes:
    return b"leaf %d" % number


def hashed(number: int) -> bytes:
    return hashlib.sha256(b"\x00" + content(number)).digest()


MTH = tree(hashed)


class Grown:
    """Our tree of some size: its roots by size and the nodes that the log would hold."""

    def __init__(self, size: int) -> None:
        frontier = merkle.Frontier()
        self.nodes: dict[merkle.Node, bytes] = {}
        self.roots = [frontier.root()]
        for number in range(size):
            complete = frontier.append(merkle.leaf_hash(content(number)))
            self.nodes |= {(height, position): digest for height, position, digest in complete}
            self.roots.append(frontier.root())


@pytest.fixture(scope="module")
def small() -> Grown:
    return Grown(SIZES)


@pytest.fixture(scope="module")
def large() -> Grown:
    return Grown(LARGER)


def ours_included(index: int, size: int, nodes: Mapping[merkle.Node, bytes]) -> list[bytes]:
    return merkle.hash_ranges(merkle.inclusion_ranges(index, size), nodes)


def ours_consistent(first: int, second: int, nodes: Mapping[merkle.Node, bytes]) -> list[bytes]:
    return merkle.hash_ranges(merkle.consistency_ranges(first, second), nodes)


def test_every_root(small: Grown) -> None:
    assert small.roots[1:] == [MTH(0, size) for size in range(1, SIZES + 1)]
    # The tree that is read back from the nodes goes on as the one that has been growing.
    for size in range(1, SIZES):
        read = merkle.Frontier.at(size, small.nodes)
        read.append(hashed(size))
        assert read.root() == small.roots[size + 1]


def test_every_inclusion_proof(small: Grown) -> None:
    for size in range(1, SIZES + 1):
        root = MTH(0, size)
        for index in range(size):
            found = ours_included(index, size, small.nodes)
            assert found == path(MTH, index, 0, size)
            merkle.verify_inclusion(hashed(index), index, size, found, root)
            verifier.check_inclusion(content(index), index, found, size, root)


def test_every_consistency_proof(small: Grown) -> None:
    for second in range(1, SIZES + 1):
        for first in range(1, second + 1):
            found = ours_consistent(first, second, small.nodes)
            assert found == proof(MTH, first, second)
            merkle.verify_consistency(first, second, MTH(0, first), MTH(0, second), found)
            verifier.check_consistency((first, MTH(0, first)), (second, MTH(0, second)), found)


@given(data=st.data())
@settings(deadline=None)
def test_larger_trees(data: st.DataObject, large: Grown) -> None:
    size = data.draw(st.integers(SIZES, LARGER), label="size")
    index = data.draw(st.integers(0, size - 1), label="index")
    first = data.draw(st.integers(1, size), label="first")
    root = MTH(0, size)
    assert large.roots[size] == root
    found = ours_included(index, size, large.nodes)
    assert found == path(MTH, index, 0, size)
    verifier.check_inclusion(content(index), index, found, size, root)
    linked = ours_consistent(first, size, large.nodes)
    assert linked == proof(MTH, first, size)
    merkle.verify_consistency(first, size, MTH(0, first), root, linked)
    verifier.check_consistency((first, MTH(0, first)), (size, root), linked)


@given(size=st.integers(1, SIZES), data=st.data())
@settings(deadline=None)
def test_the_root_over_some_leaves_and_the_rest(size: int, data: st.DataObject) -> None:
    """What an evidence bundle proves with: an organization's leaves, and the hashes of the ranges without any."""
    chosen = sorted(data.draw(st.sets(st.integers(0, size - 1)), label="chosen"))

    def others(start: int, end: int) -> list[bytes]:
        if not any(start <= index < end for index in chosen):
            return [MTH(start, end)]
        if end - start == 1:
            return []
        middle = start + half(end - start)
        return others(start, middle) + others(middle, end)

    leaves, rest = [(index, hashed(index)) for index in chosen], others(0, size)
    assert root_over(size, leaves, rest) == MTH(0, size)
    assert root_over(size, [*leaves, (size, hashed(0))], rest) is None
    assert root_over(size, leaves, [*rest, hashed(0)]) is None
    if leaves:
        assert root_over(size, leaves[:-1], rest) != MTH(0, size)
    if rest:
        assert root_over(size, leaves, rest[:-1]) is None


def root_over(size: int, leaves: list[tuple[int, bytes]], rest: list[bytes]) -> bytes | None:
    """The verifier's root; None where it refuses."""
    try:
        return verifier.root_over(size, iter(leaves), iter(rest))
    except Disproved:
        return None


class Uniform(Mapping[merkle.Node, bytes]):
    """The nodes of a tree whose leaves are all the same, which can be as large as numbers go."""

    def __init__(self) -> None:
        self.by_height = [hashed(0)]
        for _ in range(HIGHEST + 1):
            self.by_height.append(pair(self.by_height[-1], self.by_height[-1]))

    def __getitem__(self, node: merkle.Node) -> bytes:
        return self.by_height[node[0]]

    def __iter__(self) -> Iterator[merkle.Node]:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError


UNIFORM = Uniform()


@cache
def uniform_root(size: int) -> bytes:
    return hashed(0) if size == 1 else pair(uniform_root(half(size)), uniform_root(size - half(size)))


def uniform(start: int, end: int) -> bytes:
    return uniform_root(end - start)


sizes = st.integers(0, HIGHEST).flatmap(lambda bits: st.integers(1 << bits, (2 << bits) - 1))


@given(sizes, st.data())
@settings(deadline=None)
def test_trees_of_any_size(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1), label="index")
    first = data.draw(st.integers(1, size), label="first")
    root = uniform_root(size)
    assert merkle.Frontier.at(size, UNIFORM).root() == root
    found = ours_included(index, size, UNIFORM)
    assert found == path(uniform, index, 0, size)
    merkle.verify_inclusion(hashed(0), index, size, found, root)
    verifier.check_inclusion(content(0), index, found, size, root)
    linked = ours_consistent(first, size, UNIFORM)
    assert linked == proof(uniform, first, size)
    merkle.verify_consistency(first, size, uniform_root(first), root, linked)
    verifier.check_consistency((first, uniform_root(first)), (size, root), linked)


@given(size=st.integers(2, LARGER), data=st.data())
@settings(deadline=None)
def test_what_is_changed_is_refused(size: int, data: st.DataObject, large: Grown) -> None:
    """One bit of any hash, another index, another size: none of it is proved by the same proof."""
    index = data.draw(st.integers(0, size - 1), label="index")
    found = ours_included(index, size, large.nodes)
    place = data.draw(st.integers(0, len(found)), label="which")
    bit = data.draw(st.integers(0, 255), label="bit")
    parts = [MTH(0, size), *found]
    parts[place] = bytes(byte ^ (1 << bit % 8 if at == bit // 8 else 0) for at, byte in enumerate(parts[place]))
    with pytest.raises(Disproved):
        verifier.check_inclusion(content(index), index, parts[1:], size, parts[0])
    with pytest.raises(merkle.ProofInvalid):
        merkle.verify_inclusion(hashed(index), index, size, parts[1:], parts[0])
    other = data.draw(st.integers(0, size - 1).filter(lambda each: each != index), label="other")
    with pytest.raises(Disproved):
        verifier.check_inclusion(content(index), other, found, size, MTH(0, size))
