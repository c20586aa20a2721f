"""The Merkle tree: what is verified and what isn't. Published vectors and a naive model: tests/vectors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.audit.model import merkle


def definition(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162, section 2.1.1, word for word."""
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return merkle.node_hash(definition(leaves[:half]), definition(leaves[half:]))


def grown(size: int) -> tuple[list[bytes], dict[merkle.Node, bytes], list[bytes]]:
    leaves = [merkle.leaf_hash(str(number).encode()) for number in range(size)]
    frontier, nodes, roots = merkle.Frontier(), {}, [merkle.EMPTY_ROOT]
    for leaf in leaves:
        nodes |= {(height, position): digest for height, position, digest in frontier.append(leaf)}
        roots.append(frontier.root())
    return leaves, nodes, roots


LEAVES, NODES, ROOTS = grown(40)


def test_every_root_is_the_definitions() -> None:
    for size in range(1, 41):
        assert ROOTS[size] == definition(LEAVES[:size])
        assert merkle.Frontier.at(size, NODES).root() == ROOTS[size]


def test_every_inclusion_proof_verifies_and_no_other_index_does() -> None:
    for size in range(1, 41):
        for index in range(size):
            proof = merkle.hash_ranges(merkle.inclusion_ranges(index, size), NODES)
            merkle.verify_inclusion(LEAVES[index], index, size, proof, ROOTS[size])
            if size > 1:
                with pytest.raises(merkle.ProofInvalid):
                    merkle.verify_inclusion(LEAVES[index], (index + 1) % size, size, proof, ROOTS[size])


def test_every_consistency_proof_verifies() -> None:
    for second in range(1, 41):
        for first in range(1, second + 1):
            proof = merkle.hash_ranges(merkle.consistency_ranges(first, second), NODES)
            merkle.verify_consistency(first, second, ROOTS[first], ROOTS[second], proof)
            with pytest.raises(merkle.ProofInvalid):
                merkle.verify_consistency(first, second, ROOTS[first - 1], ROOTS[second], proof)


@given(st.integers(2, 40), st.data())
def test_one_changed_bit_anywhere_is_noticed(second: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, second - 1))
    proof = merkle.hash_ranges(merkle.consistency_ranges(first, second), NODES)
    parts = [ROOTS[first], ROOTS[second], *proof]
    which, bit = data.draw(st.integers(0, len(parts) - 1)), data.draw(st.integers(0, 255))
    changed = bytearray(parts[which])
    changed[bit // 8] ^= 1 << bit % 8
    parts[which] = bytes(changed)
    with pytest.raises(merkle.ProofInvalid):
        merkle.verify_consistency(first, second, parts[0], parts[1], parts[2:])


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 3), (5, 2)])
def test_no_proof_for_what_is_not_there(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="no leaf"):
        merkle.inclusion_ranges(index, size)
