"""One proof for many leaves: the hashes of all the ranges between them, each once. Pure.

The recursion is that of RFC 9162, section 2.1.1: a range without any of the leaves is one hash, a range with some is
split. The hashes stand in the order in which the recursion meets them, so that no place has to be written down, and a
proof for all events of an organization costs hardly more than the tree between them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

from services.audit.model.merkle import ProofInvalid, node_hash

Range = tuple[int, int]


def uncovered(indexes: Sequence[int], size: int) -> Iterator[Range]:
    """The leaf ranges of a tree of `size` whose hashes prove the leaves at `indexes`, from left to right.

    `indexes` rise strictly and are below `size`. Raises ValueError for an empty tree.
    """
    if size <= 0:
        raise ValueError("an empty tree proves nothing")
    waiting = [(0, size, 0, len(indexes))]
    while waiting:
        start, end, first, last = waiting.pop()
        if first == last:
            yield start, end
        elif end - start > 1:
            middle = _middle(start, end)
            split = bisect_left(indexes, middle, first, last)
            waiting += [(middle, end, split, last), (start, middle, first, split)]


def fold(indexes: Sequence[int], leaf: Callable[[int], bytes], size: int, hashes: Iterator[bytes]) -> bytes:
    """The root that the leaves and the hashes between them lead to. `leaf` gives the hash of the n-th of `indexes`.

    Raises ProofInvalid where there are too few hashes, or too many.
    """

    def root(start: int, end: int, first: int, last: int) -> bytes:
        if first == last:
            found = next(hashes, None)
            if found is None:
                raise ProofInvalid("the proof is too short")
            return found
        if end - start == 1:
            return leaf(first)
        middle = _middle(start, end)
        split = bisect_left(indexes, middle, first, last)
        left = root(start, middle, first, split)
        return node_hash(left, root(middle, end, split, last))

    found = root(0, size, 0, len(indexes))
    if next(hashes, None) is not None:
        raise ProofInvalid("the proof is too long")
    return found


def _middle(start: int, end: int) -> int:
    """Where a range is split: after the largest power of two that is smaller than its length."""
    return start + (1 << (end - start - 1).bit_length() - 1)
