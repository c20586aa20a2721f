"""One proof for many leaves, against a naive tree for every subset of small ones and seeded subsets of larger ones."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from itertools import combinations

import pytest

from services.audit.model.merkle import ProofInvalid, hash_ranges, nodes_of
from services.audit.model.multiproof import fold, uncovered


def leaf(index: int) -> bytes:
    return hashlib.sha256(b"\x00%d" % index).digest()


def naive(start: int, end: int) -> bytes:
    """RFC 9162, section 2.1.1, word for word."""
    if end - start == 1:
        return leaf(start)
    split = 1
    while split * 2 < end - start:
        split *= 2
    return hashlib.sha256(b"\x01" + naive(start, start + split) + naive(start + split, end)).digest()


def subsets(size: int) -> Iterator[Sequence[int]]:
    if size <= 7:
        for count in range(size + 1):
            yield from combinations(range(size), count)
        return
    choice = random.Random(size)
    for _ in range(12):
        yield sorted(choice.sample(range(size), choice.randint(0, size)))


def folded(indexes: Sequence[int], size: int, hashes: Sequence[bytes]) -> bytes:
    return fold(indexes, lambda place: leaf(indexes[place]), size, iter(hashes))


@pytest.mark.parametrize("size", [*range(1, 34), 63, 64, 65, 127, 200, 1000])
def test_the_hashes_between_lead_to_the_root(size: int) -> None:
    root = naive(0, size)
    for indexes in subsets(size):
        ranges = list(uncovered(indexes, size))
        covered = [index for start, end in ranges for index in range(start, end)]
        assert sorted([*covered, *indexes]) == list(range(size)), "each leaf is proved, or under one hash"
        hashes = [naive(start, end) for start, end in ranges]
        assert folded(indexes, size, hashes) == root
        for wrong in ([*hashes, bytes(32)], hashes[:-1]):
            if wrong != hashes:
                with pytest.raises(ProofInvalid):
                    folded(indexes, size, wrong)


@pytest.mark.parametrize("size", [5, 64, 1000, 12345])
def test_ranges_are_hashed_from_stored_nodes(size: int) -> None:
    indexes = sorted(random.Random(size).sample(range(size), size // 5))
    ranges = list(uncovered(indexes, size))
    stored = {node: naive(node[1] << node[0], (node[1] + 1) << node[0]) for node in nodes_of(ranges)}
    assert hash_ranges(ranges, stored) == [naive(start, end) for start, end in ranges]


def test_another_leaf_leads_elsewhere() -> None:
    hashes = [naive(start, end) for start, end in uncovered([3, 9], 20)]
    assert fold([3, 9], lambda n: leaf([3, 9][n]), 20, iter(hashes)) == naive(0, 20)
    assert fold([3, 9], lambda n: leaf([3, 8][n]), 20, iter(hashes)) != naive(0, 20)


def test_neighbours_share_their_hashes() -> None:
    apart = list(uncovered(range(0, 1 << 20, 1 << 10), 1 << 20))
    together = list(uncovered(range(1 << 10), 1 << 20))
    assert len(together) == 10 < len(apart) == 10 << 10


def test_an_empty_tree_proves_nothing() -> None:
    with pytest.raises(ValueError, match="empty"):
        list(uncovered([], 0))
