"""The Merkle tree of RFC 9162: that a leaf is in it, that one tree continues another, the root over many leaves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

from recoup_verify.documents import Disproved, decode

# A tree has at most 2^63 leaves, so no proof is longer.
MAX_HASHES = 63
_NO_HASH = "a hash of the proof hasn't 32 bytes"


def leaf_hash(leaf: bytes) -> bytes:
    """SHA-256(0x00 ‖ leaf)."""
    return sha256(b"\x00" + leaf).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def check_inclusion(leaf: bytes, index: int, proof: Sequence[bytes], size: int, root: bytes) -> None:
    """Raise Disproved unless the proof leads from the leaf to the root (section 2.1.3.2)."""
    if not 0 <= index < size:
        raise Disproved("the leaf's index is outside of the signed tree")
    digest = leaf_hash(leaf)
    for item, on_the_left in _steps(proof, index, size - 1):
        digest = _node(item, digest) if on_the_left else _node(digest, item)
    if digest != root:
        raise Disproved("the proof doesn't lead to the signed root: the leaf, its index or the proof was changed")


def check_consistency(old: tuple[int, bytes], new: tuple[int, bytes], proof: Sequence[bytes]) -> None:
    """Raise Disproved unless the tree `new` (size, root) continues the tree `old` (section 2.1.4.2)."""
    size, root = old
    if not 0 < size <= new[0]:
        raise Disproved(f"a tree of {new[0]} leaves can't continue one of {size}")
    if size == new[0]:
        if proof:
            raise Disproved("between two trees of one size there is nothing to prove, but the proof has hashes")
        if root != new[1]:
            raise Disproved("two trees of one size have two roots: the log was forked")
        return
    # What the old tree has in common with the new one, from the bottom: a whole subtree at its right edge.
    position, last, path = size - 1, new[0] - 1, list(proof) if size & (size - 1) else [root, *proof]
    if not path:
        raise Disproved("the proof is shorter than it must be")
    if len(path[0]) != 32:
        raise Disproved(_NO_HASH)
    while position & 1:
        position, last = position >> 1, last >> 1
    before = after = path[0]
    for item, on_the_left in _steps(path[1:], position, last):
        before = _node(item, before) if on_the_left else before
        after = _node(item, after) if on_the_left else _node(after, item)
    if before != root or after != new[1]:
        raise Disproved(
            "the proof doesn't lead from the old root to the new one: the log was rewritten, or it is wrong"
        )


def read_hashes(texts: Sequence[Any], what: str = "the proof") -> list[bytes]:
    """The hashes of a proof, from base64. Raises Disproved."""
    if len(texts) > MAX_HASHES:
        raise Disproved(f"{what} is longer than any tree is high")
    return [decode(text, f"a hash of {what}") for text in texts]


def _steps(proof: Sequence[bytes], position: int, last: int) -> Iterator[tuple[bytes, bool]]:
    """The hashes of a proof, from the bottom of a tree to its root, each with whether it stands on the left."""
    for item in proof:
        if len(item) != 32:
            raise Disproved(_NO_HASH)
        if last == 0:
            raise Disproved("the proof is longer than the tree is high")
        on_the_left = bool(position & 1) or position == last
        yield item, on_the_left
        while on_the_left and not position & 1 and position:
            position, last = position >> 1, last >> 1
        position, last = position >> 1, last >> 1
    if last:
        raise Disproved("the proof is shorter than the tree is high: it doesn't lead to the signed root")


def root_over(
    size: int, leaves: Iterator[tuple[int, bytes]], others: Iterator[bytes], where: str = "the proof"
) -> bytes:
    """The root of a tree of `size`, from some of its leaves (index and hash, in order) and the hashes of the rest.

    `others`, which are those of `where`, belong to the largest ranges without one of the leaves, from left to right.
    """
    following = next(leaves, None)

    def root(start: int, end: int) -> bytes:
        nonlocal following
        if following is None or following[0] >= end:
            found = next(others, None)
            if found is None:
                raise Disproved(f"{where} lacks hashes of the tree")
            return found
        if end - start == 1:
            if following[0] != start:
                raise Disproved(f"the event at index {following[0]} isn't in the order of the tree")
            found, following = following[1], next(leaves, None)
            return found
        middle = start + (1 << (end - start - 1).bit_length() - 1)
        left = root(start, middle)
        return _node(left, root(middle, end))

    found = root(0, size)
    if following is not None:
        raise Disproved(f"there is an event at index {following[0]}, but the signed tree has {size} leaves")
    if next(others, None) is not None:
        raise Disproved(f"{where} has more hashes than the tree needs")
    return found
