"""The Merkle tree of RFC 6962 / RFC 9162: hashes, inclusion proofs, consistency proofs.

Pure. The tree is kept as its complete nodes, named (height, position): a node of height h covers the leaves from
position * 2^h on. Complete nodes never change, so their storage only grows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

HASH_LENGTH = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

Node = tuple[int, int]


class ProofInvalid(Exception):
    """The proof doesn't lead to the root."""


def leaf_hash(leaf: bytes) -> bytes:
    """SHA-256(0x00 ‖ leaf): RFC 9162, section 2.1.1."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right): RFC 9162, section 2.1.1."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def peaks(size: int) -> list[Node]:
    """The complete subtrees that make up a tree of `size` leaves, left to right."""
    found, start = [], 0
    for height in range(size.bit_length() - 1, -1, -1):
        if size >> height & 1:
            found.append((height, start >> height))
            start += 1 << height
    return found


def root_of(hashes: Sequence[bytes]) -> bytes:
    """The root over the peaks' hashes, left to right; the empty tree's for none."""
    if not hashes:
        return EMPTY_ROOT
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


@dataclass
class Frontier:
    """The right edge of a growing tree: its size and the hashes of its peaks."""

    size: int = 0
    stack: list[tuple[int, bytes]] = field(default_factory=list)

    @classmethod
    def at(cls, size: int, hashes: Mapping[Node, bytes]) -> Frontier:
        """The frontier of a tree of `size`, whose peaks are in `hashes`."""
        return cls(size, [(height, hashes[height, position]) for height, position in peaks(size)])

    def append(self, leaf: bytes) -> list[tuple[int, int, bytes]]:
        """Add a leaf's hash; returns the nodes that became complete, as (height, position, hash)."""
        position, height, digest = self.size, 0, leaf
        complete = [(0, position, leaf)]
        while self.stack and self.stack[-1][0] == height:
            digest = node_hash(self.stack.pop()[1], digest)
            height, position = height + 1, position >> 1
            complete.append((height, position, digest))
        self.stack.append((height, digest))
        self.size += 1
        return complete

    def copy(self) -> Frontier:
        """A copy to grow within a transaction that may fail."""
        return Frontier(self.size, list(self.stack))

    def root(self) -> bytes:
        """The root of the tree."""
        return root_of([digest for _, digest in self.stack])


def range_nodes(start: int, end: int) -> list[Node]:
    """The largest complete nodes that cover the leaves from `start` to before `end`, left to right.

    `start` must be where a subtree of the range's size begins, as in every recursion of RFC 9162.
    """
    found = []
    while start < end:
        height = min((start & -start).bit_length() - 1 if start else end.bit_length(), (end - start).bit_length() - 1)
        found.append((height, start >> height))
        start += 1 << height
    return found


def _split(size: int) -> int:
    """The largest power of two that is smaller than `size` (RFC 9162, section 2.1.1)."""
    return 1 << (size - 1).bit_length() - 1


def inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    """The leaf ranges whose hashes prove leaf `index` in a tree of `size`, leaf side first (RFC 9162, 2.1.3.1).

    Raises ValueError unless 0 <= index < size.
    """
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    ranges, start, end = [], 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    return ranges[::-1]


def consistency_ranges(first: int, second: int) -> list[tuple[int, int]]:
    """The leaf ranges whose hashes prove that the tree of `second` continues that of `first` (RFC 9162, 2.1.4.1).

    Raises ValueError unless 0 < first <= second.
    """
    if not 0 < first <= second:
        raise ValueError(f"no consistency from {first} to {second}")
    ranges: list[tuple[int, int]] = []
    start, end, known = 0, second, True
    while end != first:
        middle = start + _split(end - start)
        if first <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start, known = middle, False
    if not known:
        ranges.append((start, end))
    return ranges[::-1]


def nodes_of(ranges: Iterable[tuple[int, int]]) -> set[Node]:
    """All complete nodes that are needed to hash the ranges: one bounded read."""
    return {node for start, end in ranges for node in range_nodes(start, end)}


def hash_ranges(ranges: Iterable[tuple[int, int]], hashes: Mapping[Node, bytes]) -> list[bytes]:
    """The hash of each range, from the hashes of complete nodes."""
    return [root_of([hashes[node] for node in range_nodes(start, end)]) for start, end in ranges]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check an inclusion proof for a leaf's hash (RFC 9162, section 2.1.3.2). Raises ProofInvalid."""
    if not 0 <= index < size:
        raise ProofInvalid("the index is outside of the tree")
    if any(len(item) != HASH_LENGTH for item in (leaf, root, *proof)):
        raise ProofInvalid("a hash has the wrong length")
    position, last, digest = index, size - 1, leaf
    for item in proof:
        if last == 0:
            raise ProofInvalid("the proof is too long")
        if position & 1 or position == last:
            digest = node_hash(item, digest)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            digest = node_hash(digest, item)
        position, last = position >> 1, last >> 1
    if last != 0 or digest != root:
        raise ProofInvalid("the proof doesn't lead to the root")


def verify_consistency(first: int, second: int, old: bytes, new: bytes, proof: Sequence[bytes]) -> None:
    """Check a consistency proof (RFC 9162, section 2.1.4.2). Raises ProofInvalid."""
    if any(len(item) != HASH_LENGTH for item in (old, new, *proof)):
        raise ProofInvalid("a hash has the wrong length")
    if not 0 < first <= second:
        raise ProofInvalid("the sizes can't be compared")
    if first == second:
        if proof or old != new:
            raise ProofInvalid("two trees of one size differ")
        return
    path = list(proof) if first & (first - 1) else [old, *proof]
    if not path:
        raise ProofInvalid("the proof is empty")
    position, last = first - 1, second - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    before = after = path[0]
    for item in path[1:]:
        if last == 0:
            raise ProofInvalid("the proof is too long")
        if position & 1 or position == last:
            before, after = node_hash(item, before), node_hash(item, after)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            after = node_hash(after, item)
        position, last = position >> 1, last >> 1
    if last != 0 or before != old or after != new:
        raise ProofInvalid("the proof doesn't lead from one root to the other")
