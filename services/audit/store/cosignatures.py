"""What witnesses cosigned, and the checkpoints that enough of them did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.audit.model.cosigning import Cosignature, with_cosignatures
from services.audit.model.events import Checkpoint
from services.audit.model.shards import place_of, split
from services.audit.tables import checkpoints, cosignatures

# Two are made a second: the last few minutes say who is there.
_COUNTED = 1000


async def insert_cosignature(connection: AsyncConnection, checkpoint: Checkpoint, cosignature: Cosignature) -> None:
    """Keep what a witness cosigned; once is enough."""
    await connection.execute(
        text(
            "INSERT INTO audit.cosignatures (place, witness, line, cosigned_at)"
            " VALUES (:place, :witness, :line, to_timestamp(:at)) ON CONFLICT (place, witness) DO NOTHING"
        ),
        {
            "place": place_of(checkpoint.shard, checkpoint.size),
            "witness": cosignature.witness.text(),
            "line": cosignature.line,
            "at": cosignature.at,
        },
    )


async def has_cosignature(connection: AsyncConnection, checkpoint: Checkpoint, witness: str) -> bool:
    """Whether a witness cosigned a checkpoint."""
    found = select(cosignatures.c.place).where(
        cosignatures.c.place == place_of(checkpoint.shard, checkpoint.size), cosignatures.c.witness == witness
    )
    return (await connection.execute(found)).one_or_none() is not None


async def find_cosigned(
    connection: AsyncConnection, shard: int, covering: int, witnesses: Sequence[str], quorum: int
) -> Checkpoint | None:
    """The newest checkpoint of a shard larger than `covering` that enough witnesses cosigned, with their lines."""
    places = (
        select(cosignatures.c.place)
        .where(
            cosignatures.c.place > place_of(shard, covering),
            cosignatures.c.place < place_of(shard + 1, 0),
            cosignatures.c.witness.in_(witnesses),
        )
        .group_by(cosignatures.c.place)
        .having(func.count() >= quorum)
        .order_by(cosignatures.c.place.desc())
        .limit(1)
    )
    place = (await connection.execute(places)).scalar_one_or_none()
    if place is None:
        return None
    row = (await connection.execute(select(checkpoints).where(checkpoints.c.size == place))).one()
    lines = await connection.execute(
        select(cosignatures.c.line)
        .where(cosignatures.c.place == place, cosignatures.c.witness.in_(witnesses))
        .order_by(cosignatures.c.witness)
    )
    note = with_cosignatures(row.note, [line.line for line in lines])
    return Checkpoint(*split(row.size), bytes(row.root), note, row.signed_at)


async def with_lines(connection: AsyncConnection, checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint with all cosignatures that there are of it."""
    lines = await connection.execute(
        select(cosignatures.c.line)
        .where(cosignatures.c.place == place_of(checkpoint.shard, checkpoint.size))
        .order_by(cosignatures.c.witness)
    )
    return replace(checkpoint, note=with_cosignatures(checkpoint.note, [line.line for line in lines]))


async def count_cosigned(connection: AsyncConnection, shard: int, covering: int, witnesses: Sequence[str]) -> int:
    """How many witnesses cosigned a checkpoint of a shard larger than `covering`, among the newest cosignatures."""
    newest = (
        select(cosignatures.c.witness)
        .where(
            cosignatures.c.place > place_of(shard, covering),
            cosignatures.c.place < place_of(shard + 1, 0),
            cosignatures.c.witness.in_(witnesses),
        )
        .order_by(cosignatures.c.place.desc())
        .limit(_COUNTED)
        .subquery()
    )
    found = select(func.count(func.distinct(newest.c.witness)))
    return int((await connection.execute(found)).scalar_one())
