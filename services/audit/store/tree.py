"""The tree: its nodes, its size and its signed heads. Positions and sizes are a shard's own; places are made here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.audit.model.events import Checkpoint
from services.audit.model.merkle import Node, nodes_of
from services.audit.model.shards import node_offset, place_of, split
from services.audit.model.tiles import Tile
from services.audit.tables import checkpoints, nodes

# One text whatever is asked for, so that it is prepared once; a list of pairs would be another for each length.
_NODES = text("""
SELECT n.height, n.position, n.hash
FROM unnest(CAST(:heights AS smallint[]), CAST(:positions AS bigint[])) AS w(height, position)
JOIN audit.nodes AS n ON n.height = w.height AND n.position = w.position
""")


async def read_nodes(connection: AsyncConnection, shard: int, wanted: Iterable[Node]) -> dict[Node, bytes]:
    """The hashes of complete nodes of a shard's tree, in one query."""
    pairs = [(height, position + node_offset(shard, height)) for height, position in wanted]
    if not pairs:
        return {}
    wanted_nodes = {"heights": [height for height, _ in pairs], "positions": [position for _, position in pairs]}
    rows = await connection.execute(_NODES, wanted_nodes)
    return {(row.height, row.position - node_offset(shard, row.height)): bytes(row.hash) for row in rows}


async def read_ranges(connection: AsyncConnection, shard: int, ranges: Sequence[tuple[int, int]]) -> dict[Node, bytes]:
    """The hashes of all nodes that some leaf ranges of a shard need."""
    return await read_nodes(connection, shard, nodes_of(ranges))


async def read_tile(connection: AsyncConnection, shard: int, tile: Tile) -> list[bytes]:
    """The hashes of a tile of a shard's tree, as many as there are, in one query."""
    first = tile.first + node_offset(shard, tile.height)
    wanted = (
        select(nodes.c.hash)
        .where(nodes.c.height == tile.height, nodes.c.position.between(first, first + tile.width - 1))
        .order_by(nodes.c.position)
    )
    return [bytes(row.hash) for row in await connection.execute(wanted)]


async def read_head(connection: AsyncConnection) -> tuple[int, int]:
    """The shard that is appended to, and its durable size."""
    return split(int((await connection.execute(text("SELECT size FROM audit.head"))).scalar_one()))


async def find_checkpoint(
    connection: AsyncConnection, shard: int | None = None, covering: int = 0
) -> Checkpoint | None:
    """The newest checkpoint of a shard, or of the newest shard that has any, if its size is more than `covering`."""
    newest = select(checkpoints).order_by(checkpoints.c.size.desc()).limit(1)
    if shard is not None:
        newest = newest.where(
            checkpoints.c.size > place_of(shard, covering), checkpoints.c.size < place_of(shard + 1, 0)
        )
    row = (await connection.execute(newest)).one_or_none()
    return None if row is None else Checkpoint(*split(row.size), bytes(row.root), row.note, row.signed_at)


async def find_checkpoint_between(
    connection: AsyncConnection, shard: int, above: int, through: int, *, newest: bool
) -> Checkpoint | None:
    """The newest, or the oldest, checkpoint of a shard whose size is more than `above` and at most `through`."""
    size = checkpoints.c.size
    found = (
        select(checkpoints)
        .where(size > place_of(shard, above), size <= place_of(shard, through))
        .order_by(size.desc() if newest else size)
        .limit(1)
    )
    row = (await connection.execute(found)).one_or_none()
    return None if row is None else Checkpoint(*split(row.size), bytes(row.root), row.note, row.signed_at)


async def insert_checkpoint(connection: AsyncConnection, checkpoint: Checkpoint) -> None:
    """Keep a signed checkpoint; the same size again is the same checkpoint."""
    await connection.execute(
        text(
            "INSERT INTO audit.checkpoints (size, root, note, signed_at) VALUES (:size, :root, :note, :signed_at)"
            " ON CONFLICT (size) DO NOTHING"
        ),
        {
            "size": place_of(checkpoint.shard, checkpoint.size),
            "root": checkpoint.root,
            "note": checkpoint.note,
            "signed_at": checkpoint.signed_at,
        },
    )
