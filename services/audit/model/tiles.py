"""Tiles of the tree as C2SP tlog-tiles has them: their names, which of them a tree has, and bundles of entries. Pure.

A tile is up to 256 consecutive hashes of one level, and level L holds the nodes of height 8 * L: a tile is a range of
rows of the tree's nodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

LEVEL_HEIGHT = 8
WIDTH = 1 << LEVEL_HEIGHT
ENTRIES = "entries"
_MAX_LEVEL = 63
_NAME = re.compile(r"(0|[1-9][0-9]?)/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?", re.ASCII)
_MAX_ENTRY = 0xFFFF


class TileInvalid(Exception):
    """This names no tile; says what a name looks like."""


@dataclass(frozen=True, slots=True)
class Tile:
    """`width` hashes of a level, from index * 256 on; one of less than 256 is partial."""

    level: int
    index: int
    width: int = WIDTH

    @property
    def height(self) -> int:
        """The height of the nodes that it holds."""
        return LEVEL_HEIGHT * self.level

    @property
    def first(self) -> int:
        """The position of its first node among those of its height."""
        return self.index * WIDTH

    def name(self) -> str:
        """Its name: "<L>/<N>", with ".p/<W>" where it is partial."""
        return f"{self.level}/{index_name(self.index)}" + ("" if self.width == WIDTH else f".p/{self.width}")

    def available(self, size: int) -> int:
        """How many of its 256 hashes a tree of `size` leaves has."""
        return max(0, min(WIDTH, (size >> self.height) - self.first))


def index_name(index: int) -> str:
    """An index in groups of three digits, each but the last with an x: 1234067 is x001/x234/067."""
    digits = str(index)
    groups = [digits[max(0, end - 3) : end].zfill(3) for end in range(len(digits), 0, -3)][::-1]
    return "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])


def parse_tile(name: str) -> Tile:
    """The tile of a name. Raises TileInvalid for any other spelling than the one."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise TileInvalid("must be <level>/<index> or <level>/<index>.p/<width>, such as 0/x001/x234/067.p/112")
    level, index = int(found[1]), int(found[2].replace("x", "").replace("/", ""))
    tile = Tile(level, index, int(found[3] or WIDTH))
    if level > _MAX_LEVEL:
        raise TileInvalid(f"has a level from 0 to {_MAX_LEVEL}")
    if found[3] and tile.width >= WIDTH:
        raise TileInvalid(f"is partial with a width from 1 to {WIDTH - 1}; one of {WIDTH} is full and has none")
    if tile.name() != name:
        raise TileInvalid(f"names its index with no groups of zeros before it: {tile.name()}")
    return tile


def tiles_of(size: int, after: int = 0) -> Iterator[Tile]:
    """All tiles of a tree of `size` leaves that a tree of `after` leaves hasn't, level by level."""
    level = 0
    while size >> LEVEL_HEIGHT * level:
        nodes = size >> LEVEL_HEIGHT * level
        for index in range((after >> LEVEL_HEIGHT * level) // WIDTH, -(-nodes // WIDTH)):
            width = min(WIDTH, nodes - index * WIDTH)
            if index * WIDTH + width > after >> LEVEL_HEIGHT * level:
                yield Tile(level, index, width)
        level += 1


def bundle_name(tile: Tile) -> str:
    """The name of the bundle of the entries whose hashes are in a tile of level 0."""
    return f"{ENTRIES}/{tile.name().removeprefix('0/')}"


def write_bundle(entries: Sequence[bytes]) -> bytes:
    """Entries one after the other, each behind its length in two bytes. Raises ValueError for one that is too long."""
    if any(len(entry) > _MAX_ENTRY for entry in entries):
        raise ValueError(f"an entry of a bundle has at most {_MAX_ENTRY} bytes")
    return b"".join(len(entry).to_bytes(2) + entry for entry in entries)


def read_bundle(content: bytes) -> list[bytes]:
    """The entries of a bundle. Raises ValueError for one that ends within an entry."""
    entries, place = [], 0
    while place < len(content):
        end = place + 2 + int.from_bytes(content[place : place + 2])
        if place + 2 > len(content) or end > len(content):
            raise ValueError("the bundle ends within an entry")
        entries.append(content[place + 2 : end])
        place = end
    return entries
