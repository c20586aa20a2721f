"""Where a leaf stands: its shard, and its index in the shard's own tree. Pure.

The database names both by one number, the *place*: shard << 40 | index. Places rise from shard to shard, so that one
column orders the whole log. Outside of the database an index or a size is always one within a shard, beside the
shard's origin.
"""

from __future__ import annotations

SHARD_BITS = 40
SHARD_SIZE = 1 << SHARD_BITS


def place_of(shard: int, index: int) -> int:
    """The place of leaf `index` of a shard; of a tree's size, where the next leaf will stand. Raises ValueError."""
    if shard < 0 or not 0 <= index < SHARD_SIZE:
        raise ValueError(f"no place for index {index} of shard {shard}")
    return shard << SHARD_BITS | index


def split(place: int) -> tuple[int, int]:
    """The shard, and the index in it."""
    return place >> SHARD_BITS, place & (SHARD_SIZE - 1)


def node_offset(shard: int, height: int) -> int:
    """What the database adds to the position of a node of this height, so that no two shards share one."""
    return shard << SHARD_BITS - height


def origin_of(name: str, shard: int) -> str:
    """The origin of a shard of the log `name`: the name itself for the first, `<name>/<shard>` for the others."""
    return f"{name}/{shard}" if shard else name


def shard_of(name: str, origin: str) -> int | None:
    """The shard of the log `name` that has this origin; None where none has."""
    number = "0" if origin == name else origin.removeprefix(f"{name}/")
    if not number.isdecimal() or origin_of(name, int(number)) != origin:
        return None
    return int(number)
