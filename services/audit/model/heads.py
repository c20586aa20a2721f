"""The tree of organization heads: where each organization's chain ends, so that a truncated tail shows. Pure.

A Merkle tree (RFC 9162) over one entry for each organization: its last leaf's hash, its sequence and a salt. Entries
stand in random order and are padded with random leaves to a power of two: whoever sees the root, or one entry with
its path, learns neither who else there is nor how many.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import orjson

from services.audit.model.merkle import HASH_LENGTH, leaf_hash, node_hash

# The event that publishes a root.
PUBLISH = "audit.heads.publish"
ENTRY_VERSION = 1
SALT_LENGTH = 32
LEAST_SIZE = 16


@dataclass(frozen=True, slots=True)
class Chain:
    """The end of an organization's chain."""

    organization_id: UUID
    organization_seq: int
    leaf_hash: bytes


@dataclass(frozen=True, slots=True)
class HeadEntry:
    """An organization's entry: its text, where it stands, and the hashes from there to the root, leaf side first."""

    organization_id: UUID
    organization_seq: int
    position: int
    entry: bytes
    path: list[bytes]


@dataclass(frozen=True, slots=True)
class PublishedHead:
    """An organization's newest published entry, and the event that published its root."""

    publish_event_id: UUID
    position: int
    entry: bytes
    path: list[bytes]
    organization_seq: int


@dataclass(frozen=True, slots=True)
class HeadTree:
    """The tree's root, its padded size, and the entries of the organizations in it."""

    root: bytes
    size: int
    entries: list[HeadEntry]


def encode_entry(chain: Chain, salt: bytes) -> bytes:
    """The entry as RFC 8785 JSON: its text is ASCII, its numbers are whole, and its keys stand here in order."""
    return orjson.dumps(
        {
            "leaf": chain.leaf_hash.hex(),
            "org_seq": chain.organization_seq,
            "organization_id": str(chain.organization_id),
            "salt": salt.hex(),
            "v": ENTRY_VERSION,
        },
        option=orjson.OPT_STRICT_INTEGER,
    )


def padded_size(count: int) -> int:
    """The next power of two that has room for `count` entries, and at least LEAST_SIZE."""
    return max(LEAST_SIZE, 1 << (count - 1).bit_length() if count else 1)


def head_tree(chains: Sequence[Chain]) -> HeadTree:
    """The tree over the ends of some chains, each time in another order, with other salts and other padding."""
    size = padded_size(len(chains))
    positions = secrets.SystemRandom().sample(range(size), len(chains))
    texts = [encode_entry(chain, os.urandom(SALT_LENGTH)) for chain in chains]
    leaves = [os.urandom(HASH_LENGTH) for _ in range(size)]
    for position, entry in zip(positions, texts, strict=True):
        leaves[position] = leaf_hash(entry)
    levels = [leaves]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([node_hash(below[i], below[i + 1]) for i in range(0, len(below), 2)])
    entries = [
        HeadEntry(
            chain.organization_id,
            chain.organization_seq,
            position,
            entry,
            [level[position >> height ^ 1] for height, level in enumerate(levels[:-1])],
        )
        for chain, position, entry in zip(chains, positions, texts, strict=True)
    ]
    return HeadTree(levels[-1][0], size, entries)
