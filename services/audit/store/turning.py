"""Closing a shard and opening the next: under the locked head, and the event that is the new one's first leaf."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.audit.model.events import Produced, Recorded
from services.audit.model.openings import ACTION, LOST, PLATFORM, RECOVERY
from services.audit.model.shards import origin_of, place_of
from services.audit.store.events import get_events
from services.audit.tables import entries, shards


@dataclass(frozen=True, slots=True)
class OpenShard:
    """Why and when a shard was opened."""

    kind: str
    opened_at: datetime


async def read_shard(connection: AsyncConnection, shard: int) -> OpenShard:
    """Why and when a shard was opened."""
    row = (await connection.execute(select(shards).where(shards.c.shard == shard))).one()
    return OpenShard(row.kind, row.opened_at)


async def read_closed_size(connection: AsyncConnection, shard: int) -> int:
    """The size at which a shard was closed."""
    return int((await connection.execute(select(shards.c.closed_size).where(shards.c.shard == shard))).scalar_one())


async def find_restored(connection: AsyncConnection, shard: int) -> tuple[int, int]:
    """The shard that ends before a recovery's shard, and the size at which it was closed."""
    rows = await connection.execute(
        select(shards.c.shard, shards.c.closed_size)
        .where(shards.c.shard < shard, shards.c.kind != LOST)
        .order_by(shards.c.shard.desc())
        .limit(1)
    )
    row = rows.one()
    return row.shard, row.closed_size


async def was_given_up(connection: AsyncConnection, shard: int) -> bool:
    """Whether a recovery follows a shard: what was signed of it may be more than the database has."""
    rows = await connection.execute(
        select(shards.c.kind).where(shards.c.shard > shard, shards.c.kind != LOST).order_by(shards.c.shard).limit(1)
    )
    return rows.scalar_one_or_none() == RECOVERY


async def read_last_partition(connection: AsyncConnection) -> int:
    """The last shard that both of the log's partitioned tables have a partition for."""
    return int((await connection.execute(text(_LAST_PARTITION))).scalar_one())


_LAST_PARTITION = """
SELECT min(last) FROM (
  SELECT coalesce(max(substring(c.relname FROM '_s([0-9]+)$')::integer), -1) AS last
  FROM (VALUES ('audit.entries'), ('audit.payloads')) AS p(name)
  LEFT JOIN pg_inherits i ON i.inhparent = p.name::regclass LEFT JOIN pg_class c ON c.oid = i.inhrelid
  GROUP BY p.name) AS tables
"""


async def turn(connection: AsyncConnection, name: str, closes: tuple[int, int], opens: int, new: OpenShard) -> None:
    """Close a shard at its size, and make the one that is appended to from here on. The head must be locked.

    Of shards in between, which a recovery gives up, nothing is there.
    """
    await connection.execute(
        text("UPDATE audit.shards SET closed_size = :size WHERE shard = :shard"),
        {"shard": closes[0], "size": closes[1]},
    )
    between = [(each, LOST, 0) for each in range(closes[0] + 1, opens)]
    for shard, kind, closed_size in (*between, (opens, new.kind, None)):
        await connection.execute(
            insert(shards).values(
                shard=shard,
                origin=origin_of(name, shard),
                kind=kind,
                opened_at=new.opened_at,
                closed_size=closed_size,
            )
        )
    await connection.execute(text("UPDATE audit.head SET size = :place"), {"place": place_of(opens, 0)})


async def find_opening(connection: AsyncConnection, shard: int) -> Produced | None:
    """The event in the log's own outbox that opens `shard` and waits to be appended. Within PLATFORM."""
    rows = await connection.execute(
        text(
            "SELECT event_id, counter, payload FROM audit.outbox WHERE organization_id = :platform"
            " AND action = :action AND log_index IS NULL ORDER BY counter DESC"
        ),
        {"platform": PLATFORM, "action": ACTION},
    )
    mark = f'"shard":"{shard}"'.encode()
    for row in rows:
        if mark in bytes(row.payload):
            return Produced(row.event_id, PLATFORM, row.counter, bytes(row.payload))
    return None


async def get_first(connection: AsyncConnection, shard: int) -> Recorded:
    """The first leaf of a shard after the first one. Within PLATFORM. Raises NotFound."""
    found = await connection.execute(select(entries.c.event_id).where(entries.c.idx == place_of(shard, 0)))
    return (await get_events(connection, [row.event_id for row in found]))[0]
