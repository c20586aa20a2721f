"""The archive, purely: names, what is copied next, and a tree that is rebuilt from entries alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from services.audit.model.archive import (
    BATCH_LEAVES,
    Archived,
    ArchiveDiffers,
    Batch,
    Rebuilding,
    Shard,
    bundle_object,
    check_leaves,
    checkpoint_object,
    is_of_note,
    next_batch,
    prefix_of,
    tile_object,
)
from services.audit.model.merkle import Frontier, leaf_hash
from services.audit.model.tiles import Tile, tiles_of

ORIGIN = "recoup.example/log"


def test_objects_are_named_as_c2sp_names_them_below_the_origin() -> None:
    tile = Tile(0, 1234067, 112)
    assert tile_object(ORIGIN, tile) == "recoup.example/log/tile/0/x001/x234/067.p/112"
    assert bundle_object(f"{ORIGIN}/1", tile) == "recoup.example/log/1/tile/entries/x001/x234/067.p/112"
    assert checkpoint_object(ORIGIN, 70_000) == "recoup.example/log/checkpoints/70000"
    assert prefix_of("../a b/.x/ü~") == "%2E%2E/a%20b/.x/%C3%BC%7E/"
    assert prefix_of("a//b") == "a//b/"


def copied(size: int, closed: bool, signed: list[int]) -> tuple[list[Batch], Archived]:
    """All batches of a shard whose head is signed at these sizes, one after the other."""
    at, batches = Archived(0, "here"), []
    for head in signed:
        while batch := next_batch(Shard(0, ORIGIN, size if closed else None), at, head):
            batches.append(batch)
            at = Archived(0, "here", batch.end, batch.is_last)
    return batches, at


@settings(max_examples=50)
@given(some.integers(0, 40_000), some.lists(some.integers(0, 40_000), max_size=4))
def test_a_closed_shard_is_copied_whole_and_nothing_twice(size: int, signed: list[int]) -> None:
    heads = sorted(min(each, size) for each in signed)
    batches, at = copied(size, True, [*heads, size])
    assert at.complete
    assert [batch.start for batch in batches] == [0, *(batch.end for batch in batches)][:-1]
    assert all(batch.end - batch.start <= BATCH_LEAVES for batch in batches)
    tiles = [tile for batch in batches for tile in batch.tiles()]
    assert len(tiles) == len(set(tiles))
    assert set(tiles) == set(tiles_of(size))
    leaves = [tile for batch in batches for tile in batch.leaf_tiles()]
    assert leaves == [tile for tile in tiles_of(size) if tile.level == 0]


def test_of_an_open_shard_only_full_tiles_under_a_checkpoint_are_copied() -> None:
    batches, at = copied(70_000, False, [100, 255, 256, 70_000])
    assert (at.size, at.complete) == (273 * 256, False)
    tiles = {tile for batch in batches for tile in batch.tiles()}
    assert tiles == {tile for tile in tiles_of(70_000) if tile.width == 256}
    # What isn't signed isn't copied, not even of a closed shard.
    assert next_batch(Shard(0, ORIGIN, 300), Archived(0, "here"), 299) == Batch(0, 256, False)
    assert next_batch(Shard(0, ORIGIN, 300), Archived(0, "here", 256), 299) is None
    assert next_batch(Shard(0, ORIGIN, 300), Archived(0, "here", 256), 300) == Batch(256, 300, True)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 512, 65_536, 70_000])
def test_a_tree_is_rebuilt_from_its_entries(size: int) -> None:
    tree, frontier, tiles, nodes = Rebuilding(), Frontier(), {}, {}
    for number in range(size):
        for height, position, digest in frontier.append(leaf_hash(b"%d" % number)):
            nodes[height, position] = digest
        tiles |= dict(tree.add(b"%d" % number))
    tiles |= dict(tree.rest())
    assert (tree.size, tree.root()) == (size, frontier.root())
    assert tiles == {
        tile: b"".join(nodes[tile.height, tile.first + place] for place in range(tile.width)) for tile in tiles_of(size)
    }


def test_an_entry_that_isnt_its_hashs_is_named() -> None:
    entries = [b"a", b"b", b"c"]
    hashes = [leaf_hash(entry) for entry in entries]
    check_leaves(entries, hashes, 512)
    with pytest.raises(ArchiveDiffers, match="entry 513 "):
        check_leaves([b"a", b"x", b"c"], hashes, 512)


def test_a_note_is_kept_though_witnesses_sign_it_later() -> None:
    note = "log\n5\nroot\n\nlog signed\n"
    cosigned = note + "witness signed\n"
    assert is_of_note(note.encode(), note)
    assert is_of_note(note.encode(), cosigned)
    for other in (cosigned.encode(), note.encode()[:-3], b"log\n5\nroot\n\n", note.encode().replace(b"5", b"6"), b""):
        assert not is_of_note(other, note)
