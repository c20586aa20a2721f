"""Tiles: names as C2SP tlog-tiles spells them, which of them a tree has, and that they rebuild its root."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as some

from services.audit.model.merkle import Frontier, leaf_hash, node_hash
from services.audit.model.tiles import (
    WIDTH,
    Tile,
    TileInvalid,
    bundle_name,
    index_name,
    parse_tile,
    read_bundle,
    tiles_of,
    write_bundle,
)


def test_the_examples_of_the_specification() -> None:
    assert index_name(1234067) == "x001/x234/067"
    # "A tree of size 70,000 will be represented by …"
    tiles = list(tiles_of(70_000))
    assert [(t.level, t.index) for t in tiles if t.width == WIDTH] == [(0, n) for n in range(273)] + [(1, 0)]
    assert [t for t in tiles if t.width < WIDTH] == [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert list(tiles_of(256)) == [Tile(0, 0), Tile(1, 0, 1)]
    assert [t.name() for t in tiles_of(256)] == ["0/000", "1/000.p/1"]
    assert bundle_name(Tile(0, 273, 112)) == "entries/273.p/112"


@given(some.integers(0, 63), some.integers(0, 2**40), some.integers(1, 256))
def test_a_name_is_read_as_it_was_written(level: int, index: int, width: int) -> None:
    tile = Tile(level, index, width)
    assert parse_tile(tile.name()) == tile


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "must be"),
        ("0", "must be"),
        ("0/", "must be"),
        ("0/0", "must be"),
        ("0/67", "must be"),
        ("0/0067", "must be"),
        ("00/067", "must be"),
        ("-1/067", "must be"),
        ("0/x067", "must be"),
        ("0/001/067", "must be"),
        ("0/x001/067/", "must be"),
        ("0/x001/x067", "must be"),
        ("0/067.p", "must be"),
        ("0/067.p/", "must be"),
        ("0/067.p/0", "must be"),
        ("0/067.p/01", "must be"),
        ("0/067.p/1000", "must be"),
        ("0/067.p/-1", "must be"),
        ("0/٠٦٧", "must be"),
        ("0/067\n", "must be"),
        ("entries/067", "must be"),
        ("64/067", "level from 0 to 63"),
        ("0/067.p/256", "from 1 to 255"),
        ("0/067.p/999", "from 1 to 255"),
        ("0/x000/067", "0/067"),
        ("0/x000/x001/067.p/1", "0/x001/067.p/1"),
    ],
)
def test_what_names_no_tile_is_refused(name: str, why: str) -> None:
    with pytest.raises(TileInvalid, match=why):
        parse_tile(name)


def root_from_tiles(size: int, tiles: dict[str, list[bytes]]) -> bytes:
    """The root of a tree by the recursion of RFC 6962, from hashes that its tiles name."""

    def root(start: int, end: int) -> bytes:
        count = end - start
        if count & (count - 1) == 0:
            height = count.bit_length() - 1
            if height % 8 == 0:
                position = start >> height
                name = Tile(height // 8, position // 256, min(256, (size >> height) - position // 256 * 256)).name()
                return tiles[name][position % 256]
        half = 1 << (count - 1).bit_length() - 1
        return node_hash(root(start, start + half), root(start + half, end))

    return root(0, size)


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 70_000, 2**16, 2**16 + 1])
def test_the_tiles_of_a_tree_rebuild_its_root(size: int) -> None:
    frontier, nodes = Frontier(), {}
    for number in range(size):
        for height, position, digest in frontier.append(leaf_hash(b"%d" % number)):
            nodes[height, position] = digest
    tiles = {
        tile.name(): [nodes[tile.height, tile.first + place] for place in range(tile.width)] for tile in tiles_of(size)
    }
    assert root_from_tiles(size, tiles) == frontier.root()
    for tile in tiles_of(size):
        assert tile.available(size) == tile.width
        # Level above level: each hash is the tree hash of a full tile below.
        if tile.level:
            below = tiles[Tile(tile.level - 1, tile.first).name()]
            assert _tree_hash(below) == tiles[tile.name()][0]


def _tree_hash(hashes: list[bytes]) -> bytes:
    while len(hashes) > 1:
        hashes = [node_hash(left, right) for left, right in zip(hashes[::2], hashes[1::2], strict=True)]
    return hashes[0]


@given(some.integers(0, 200_000), some.integers(0, 200_000))
def test_what_a_grown_tree_has_more_is_what_must_be_fetched(one: int, other: int) -> None:
    before, after = sorted((one, other))
    assert set(tiles_of(after, before)) == set(tiles_of(after)) - set(tiles_of(before))


def test_a_bundle_is_read_as_it_was_written() -> None:
    entries = [b"", b"a", hashlib.sha256(b"x").digest() * 300, b"z" * 0xFFFF]
    content = write_bundle(entries)
    assert content[:5] == b"\x00\x00\x00\x01a"
    assert read_bundle(content) == entries
    for cut in (1, len(content) - 1):
        with pytest.raises(ValueError, match="within an entry"):
            read_bundle(content[:cut])
    with pytest.raises(ValueError, match="at most"):
        write_bundle([b"z" * 0x10000])
